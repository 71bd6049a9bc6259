"""Double of slicer.packaging (Slicer/Slicer Base/Python/slicer/packaging.py): nothing is installed here."""

from __future__ import annotations

import importlib.metadata
import logging

import slicer
from packaging.requirements import Requirement


def pip_check(requirement: str) -> bool:
    """Whether a requirement is fulfilled."""
    wanted = Requirement(str(requirement))
    try:
        return wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def pip_ensure(requirements, *, requester: str | None = None, skip_in_testing: bool = True, **options) -> None:
    """Does nothing where all is there, and in testing mode. options: of the dialogs, which are not shown here."""
    requirements = requirements.split() if isinstance(requirements, str) else requirements
    missing = [str(each) for each in requirements if not pip_check(each)]
    if missing and skip_in_testing and slicer.app.testingEnabled():
        logging.info("Testing mode is enabled: skipping pip_ensure for [%s]", ", ".join(missing))
    elif missing:
        pip_install(missing)


def pip_install(requirements, *_arguments, **_options) -> None:
    raise RuntimeError(f"The desktop host installs nothing: {requirements}")


NAMES = {"pip_check": pip_check, "pip_ensure": pip_ensure, "pip_install": pip_install}
