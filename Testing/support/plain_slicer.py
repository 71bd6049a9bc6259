"""An interpreter with the Python packages of 3D Slicer 5.12.3 alone, before the panel has installed any."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from pathlib import Path

PACKAGES = Path(__file__).with_name("slicer-5.12.3-packages.txt")
APPLICATION = ("slicer-core", "vtk", "pyside6", "shiboken6", "pytest", "pluggy", "iniconfig", "pygments", "hypothesis")
"""Beginnings of the names of packages that stand for the application, or run the tests."""

LIBRARIES = ("CACScoringLib", "CACTrainingLib")


def hide_other_packages(monkeypatch) -> None:
    """Hide all other packages, and let our libraries be imported afresh."""
    lines = PACKAGES.read_text(encoding="utf-8").splitlines()
    brought = {_plain(line.partition("==")[0]) for line in lines if not line.startswith("#")}

    def is_there(package: str) -> bool:
        return _plain(package) in brought or _plain(package).startswith(APPLICATION)

    for module, packages in importlib.metadata.packages_distributions().items():
        if not any(map(is_there, packages)) and module not in LIBRARIES:
            monkeypatch.setitem(sys.modules, module, None)
    version_of = importlib.metadata.version

    def version(package: str) -> str:
        if not is_there(package):
            raise importlib.metadata.PackageNotFoundError(package)
        return version_of(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    for module in _modules():
        # Afterwards those that were there are put back, and others, which are bound to fresh ones, go.
        monkeypatch.setitem(sys.modules, module, None)
        del sys.modules[module]


def _modules() -> list[str]:
    """Return the names of all modules of our libraries."""
    names = []
    for library in LIBRARIES:
        folder = Path(importlib.import_module(library).__file__).parent
        names += [".".join(file.relative_to(folder.parent).with_suffix("").parts) for file in folder.rglob("*.py")]
    return [name.removesuffix(".__init__") for name in names]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
