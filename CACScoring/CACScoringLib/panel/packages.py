"""Python packages that Slicer does not bring along: installed on first use, after asking."""

# Slicer's names.
# ruff: noqa: N802

from __future__ import annotations

import importlib
import importlib.util
import subprocess
from collections.abc import Mapping, Sequence

import slicer
from slicer.i18n import tr as _

TORCH_VERSION = ">=2.13"
"""The version that the bundled networks were trained and measured with, or a newer one."""

REQUIREMENTS = {"openvino": "openvino>=2026.1", "safetensors": "safetensors>=0.8"}
"""What the networks that score a CT need: what to tell pip, by the name that is imported."""

TORCH_REQUIREMENTS = {**REQUIREMENTS, "torch": f"torch{TORCH_VERSION}"}
"""What radiographs, whole-scan estimates and training need."""

PAGE_REQUIREMENTS = {"jinja2": "jinja2>=3.1"}
"""For reports."""

RADIOMICS_REQUIREMENTS = {**TORCH_REQUIREMENTS, "mirp": "mirp>=2.7"}
"""What the whole-scan estimate by radiomics needs."""

DICOM_REQUIREMENTS = {"highdicom": "highdicom>=0.28", "fpdf": "fpdf2>=2.8"}
"""For results as DICOM objects, and reviews from them."""

PROCESS_REQUIREMENTS = {"psutil": "psutil>=6", "distributed": "distributed>=2026.1"}
"""For workers, and for ending processes with all that they have started."""

COHORT_REQUIREMENTS = {
    **PROCESS_REQUIREMENTS,
    "pyarrow": "pyarrow>=20",
    "filelock": "filelock>=3.16",
    "bokeh": "bokeh>=3.6",
}
"""For the tables of a cohort and the view of its workers."""


def missingPackages(requirements: Mapping[str, str] = REQUIREMENTS) -> list[str]:
    """What pip has to be asked for, because it is not installed. requirements: by the name that is imported."""
    return [wanted for name, wanted in requirements.items() if importlib.util.find_spec(name) is None]


def namesOf(requirements: Sequence[str]) -> str:
    """Names of packages as pip and their pages call them, in one line."""
    return ", ".join(each.partition(">")[0] for each in requirements)


def ensurePackages(
    requirements: Mapping[str, str] = REQUIREMENTS, requester: str = "CAC Scoring", purpose: str | None = None
) -> str:
    """Install what is missing, after asking. Returns why it cannot be used, or an empty text when all is there.

    requirements: as in `missingPackages`; the networks' own where nothing else is given. requester: the module that
    asks. purpose: what they are needed for, to begin a sentence with; None for the networks of scoring.
    """
    missing = missingPackages(requirements)
    if not missing:
        return ""
    try:
        if TORCH_REQUIREMENTS["torch"] in missing and hasattr(slicer.modules, "pytorchutils"):
            _installTorchForThisGraphicsCard()
        _install(missingPackages(requirements), requester)
    except (RuntimeError, ImportError, OSError, subprocess.CalledProcessError) as error:
        return _("{packages} could not be installed: {error}").format(packages=namesOf(missing), error=error)
    importlib.invalidate_caches()
    if not (missing := missingPackages(requirements)):
        return ""
    if purpose is not None:
        return _("{purpose} needs {packages}. Install this first.").format(purpose=purpose, packages=namesOf(missing))
    return _("The networks need {packages}. Install them, or choose the clinical rule alone.").format(
        packages=namesOf(missing)
    )


def _installTorchForThisGraphicsCard() -> None:
    from PyTorchUtils import PyTorchUtilsLogic

    PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH_VERSION)
    importlib.invalidate_caches()
    if missingPackages({"torch": TORCH_VERSION}):
        raise RuntimeError(_("PyTorch was not installed."))


def _install(requirements: list[str], requester: str) -> None:
    if not requirements:
        return
    try:
        from slicer.packaging import pip_ensure
    except ImportError:  # before Slicer 5.12
        question = _("{requester} needs these Python packages: {packages}. Install them into Slicer's Python?")
        text = question.format(requester=requester, packages=", ".join(requirements))
        if not slicer.util.confirmOkCancelDisplay(text):
            raise RuntimeError(_("The installation was declined.")) from None
        for requirement in requirements:
            slicer.util.pip_install(requirement)
        return
    pip_ensure(requirements, requester=requester)
