"""Double of slicer.packaging (Slicer/Slicer Base/Python/slicer/packaging.py), which installs nothing."""

from __future__ import annotations

import importlib.metadata
import logging

import slicer
from packaging.requirements import Requirement


def pip_check(requirement: str) -> bool:
    """Return True if a requirement is fulfilled."""
    parsed = Requirement(str(requirement))
    try:
        return parsed.specifier.contains(importlib.metadata.version(parsed.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def pip_ensure(requirements, *, requester: str | None = None, skip_in_testing: bool = True, **options) -> None:
    """Install missing packages, except in testing mode. options: options of dialogs, which are not shown."""
    requirements = requirements.split() if isinstance(requirements, str) else requirements
    missing = [str(requirement) for requirement in requirements if not pip_check(requirement)]
    if missing and skip_in_testing and slicer.app.testingEnabled():
        logging.info("Testing mode is enabled: skipping pip_ensure for [%s]", ", ".join(missing))
    elif missing:
        pip_install(missing)


def pip_install(requirements, *_arguments, **_options) -> None:
    raise RuntimeError(f"The desktop host installs nothing: {requirements}")


NAMES = {"pip_check": pip_check, "pip_ensure": pip_ensure, "pip_install": pip_install}
