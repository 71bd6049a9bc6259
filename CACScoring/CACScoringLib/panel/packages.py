"""Installation of Python packages that 3D Slicer lacks, after one question, before the work that needs them."""

# Slicer's names.
# ruff: noqa: N802

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from ..core.files import read_json
from .process import MODULE_FOLDER

MIN_SLICER = "5.12"
"""Oldest supported version of 3D Slicer."""

TORCH = "torch>=2.13"
"""Oldest version of PyTorch; the bundled networks were trained and tested with it."""

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
"""Index of PyTorch builds without CUDA, which are a tenth as large."""


def requirementsIn(file: Path) -> tuple[str, ...]:
    """Return the requirements that a file lists, one a line."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


REQUIREMENTS = requirementsIn(MODULE_FOLDER / "Resources" / "requirements.txt")
"""Packages of the Score button."""

CLINICAL_REQUIREMENTS = tuple(line for line in REQUIREMENTS if line.startswith(("jinja2", "psutil")))
"""Packages of the Score button for the clinical rule alone: report pages, and ending a worker's processes."""

EXTRAS = {"torch": (TORCH, "monai>=1.6"), "radiomics": ("mirp>=2.5",)}
"""Packages of networks by the names of their extras (`networks.configs.Role`)."""

TORCH_REQUIREMENTS = (*REQUIREMENTS, *EXTRAS["torch"])
"""Packages of radiographs, whole-scan estimates and networks on a graphics card."""

DICOM_REQUIREMENTS = ("highdicom>=0.28", "scikit-image>=0.25")
"""Packages of results as DICOM objects, and of reviews read from them."""

COHORT_REQUIREMENTS = (*CLINICAL_REQUIREMENTS, "distributed>=2026.1", "filelock>=3.16", "bokeh>=3.6")
"""Packages of a cohort's workers, tables and page of its workers."""


def outdatedSlicer() -> str:
    """Return the reason why this 3D Slicer is too old, or an empty text. `slicer.packaging` came with MIN_SLICER."""
    try:
        importlib.import_module("slicer.packaging")
    except ImportError:
        text = _(
            "CAC needs 3D Slicer {least} or newer; this is {present}. Install the current version from slicer.org."
        )
        return text.format(least=MIN_SLICER, present=slicer.app.applicationVersion)
    return ""


def missingPackages(requirements: Sequence[str] = REQUIREMENTS) -> list[str]:
    """Return the requirements that are not installed in a version that fits."""
    from slicer.packaging import pip_check

    return [requirement for requirement in requirements if not pip_check(requirement)]


def namesOf(requirements: Sequence[str]) -> str:
    """Return the packages' names in one line."""
    return ", ".join(map(_name, requirements))


def downloadMb(requirements: Sequence[str]) -> int:
    """Return the megabytes that requirements download into a new Slicer, dependencies included.

    PyTorch counts with its build for processors; one for graphics cards is several gigabytes.
    """
    megabytes = read_json(Path(__file__).parents[1] / "Resources" / "download_sizes.json")
    files: dict[str, float] = {}
    for requirement in requirements:
        files |= megabytes[_name(requirement)]
    return max(1, round(sum(files.values())))


def ensurePackages(
    requirements: Sequence[str] = REQUIREMENTS, requester: str = "CAC Scoring", purpose: str | None = None
) -> str:
    """Install missing packages after one question that states their names and the size of the download.

    Args:
        requirements: Requirements in pip's format.
        requester: Title of the module that asks.
        purpose: Work that needs the packages, as the beginning of a sentence; None for scoring.

    Returns:
        Reason why the packages cannot be used, or an empty text when all are installed.
    """
    from slicer.packaging import pip_ensure

    missing = missingPackages(tuple(dict.fromkeys(requirements)))
    if not missing:
        return ""
    work = purpose or _("Scoring")
    if not slicer.app.testingEnabled():
        text = _questionAbout(missing, work)
        if not slicer.util.confirmOkCancelDisplay(text, windowTitle=requester):
            return _("{work} needs {packages}. Install them to go on.").format(work=work, packages=namesOf(missing))
    try:
        if TORCH in missing:
            _installTorch()
        if others := [requirement for requirement in missing if requirement != TORCH]:
            pip_ensure(others, requester=requester, prompt_install=False)
    except (RuntimeError, ImportError, OSError, subprocess.CalledProcessError) as error:
        return _("{packages} could not be installed: {error}").format(packages=namesOf(missing), error=error)
    importlib.invalidate_caches()
    if missing := missingPackages(requirements):
        return _("{work} needs {packages}. Install them to go on.").format(work=work, packages=namesOf(missing))
    return ""


def _questionAbout(missing: Sequence[str], work: str) -> str:
    """Return the question whether to install missing packages. work: what needs them."""
    with_cuda = TORCH in missing and hasGraphicsCard()
    size = _("several GB") if with_cuda else _("{megabytes} MB").format(megabytes=downloadMb(missing))
    question = _("{work} needs these Python packages: {packages}. About {size} will be downloaded. Install them?")
    text = question.format(work=work, packages=namesOf(missing), size=size)
    if any(_name(requirement) == "openvino" for requirement in missing):
        note = _("openvino brings openvino-telemetry, which reports its use to Intel; CAC never loads it.")
        text = f"{text}\n\n{note}"
    if replaced := _replacedBy(missing):
        note = _("They replace versions that this Slicer has: {replaced}.")
        text = f"{text}\n\n{note.format(replaced=replaced)}"
    return text


def _replacedBy(requirements: Sequence[str]) -> str:
    """Return the installed versions, in words, that are too old for requirements."""
    old = []
    for name in map(_name, requirements):
        with suppress(PackageNotFoundError):
            old.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(old)


def hasGraphicsCard() -> bool:
    """Return True if this computer has an NVIDIA GPU with its driver."""
    return shutil.which("nvidia-smi") is not None


def _installTorch() -> None:
    """Install PyTorch: through Slicer's PyTorch extension on computers with a graphics card, or else the CPU build."""
    if slicer.app.testingEnabled():
        return
    if hasGraphicsCard() and hasattr(slicer.modules, "pytorchutils"):
        from PyTorchUtils import PyTorchUtilsLogic

        version = TORCH.removeprefix("torch")
        PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=version)
        return
    from slicer.packaging import pip_install

    if sys.platform == "linux" and not hasGraphicsCard():
        try:
            pip_install(f"{TORCH} --index-url {CPU_BUILDS}", requester="CAC")
            return
        except (RuntimeError, subprocess.CalledProcessError) as error:
            text = _("PyTorch could not be downloaded from {host}.").format(host=CPU_BUILDS)
            question = _("Download it from PyPI instead? That build holds CUDA, too, and takes several GB.")
            if not slicer.util.confirmOkCancelDisplay(f"{text} {question}", windowTitle="CAC"):
                raise RuntimeError(text) from error
    pip_install(TORCH, requester="CAC")


def _name(requirement: str) -> str:
    return requirement.partition(">")[0]
