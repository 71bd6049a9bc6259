"""Imports when 3D Slicer loads the modules: only packages that it has, and none that are slow."""

import importlib
import importlib.metadata
import pkgutil
import sys

import pytest
from effect_desk import EFFECTS, ROOT

import desktop_host

AT_PANEL_LOAD = {"numpy", "vtk", "SimpleITK"}
"""Packages that Slicer has loaded already, or loads fast."""

HOST = ("pyside6", "shiboken6", "slicer", "vtk", "pytest", "pluggy", "iniconfig", "pygments", "hypothesis")
"""Beginnings of the names of packages that stand for the application, or run the tests."""

LIBRARIES = ("CACScoringLib", "CACTrainingLib", *(f"{module}Lib" for module in EFFECTS.values()))


@pytest.mark.long
def test_panels_load_nothing_heavy(monkeypatch):
    """Every panel, section and effect is imported while all other packages are hidden."""
    places = [ROOT / "CACScoring", ROOT / "CACTraining", *(ROOT / "CACScoring" / name for name in EFFECTS.values())]
    for place in places:
        monkeypatch.syspath_prepend(str(place))
    desktop_host.install(monkeypatch)
    for module, packages in importlib.metadata.packages_distributions().items():
        is_of_host = any(package.lower().startswith(HOST) for package in packages)
        if not is_of_host and module not in AT_PANEL_LOAD and not module.startswith(LIBRARIES):
            monkeypatch.setitem(sys.modules, module, None)
    for name in list(sys.modules):
        if name.split(".")[0] in LIBRARIES:
            monkeypatch.delitem(sys.modules, name)
    imported = []
    for library in LIBRARIES:
        package = importlib.import_module(library if library.startswith("Seg") else f"{library}.panel")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            imported.append(importlib.import_module(module.name).__name__.rpartition(".")[2])
    imported += [importlib.import_module(place.name).__name__ for place in places]
    assert {"review_section", "slices_section", "CACScoring", "CACTraining", *EFFECTS.values()} <= set(imported)
