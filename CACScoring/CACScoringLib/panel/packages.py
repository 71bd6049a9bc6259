"""Python packages that the networks need and Slicer does not bring along: installed on first use, after asking."""

# Slicer's names.
# ruff: noqa: N802

from __future__ import annotations

import importlib
import importlib.util
import subprocess

import slicer
from slicer.i18n import tr as _

TORCH_VERSION = ">=2.13"
"""The version that the bundled networks were trained and measured with, or a newer one."""

REQUIREMENTS = {"torch": f"torch{TORCH_VERSION}", "safetensors": "safetensors>=0.8"}


def missingPackages() -> list[str]:
    """Names of the packages that are not installed."""
    return [name for name in REQUIREMENTS if importlib.util.find_spec(name) is None]


def ensurePackages() -> str:
    """Install what is missing, after asking. Returns why the networks cannot run, or an empty text when they can."""
    missing = missingPackages()
    if not missing:
        return ""
    try:
        if "torch" in missing and hasattr(slicer.modules, "pytorchutils"):
            _installTorchForThisGraphicsCard()
        _install([REQUIREMENTS[name] for name in missingPackages()])
    except (RuntimeError, ImportError, OSError, subprocess.CalledProcessError) as error:
        return _("{packages} could not be installed: {error}").format(packages=", ".join(missing), error=error)
    importlib.invalidate_caches()
    if missing := missingPackages():
        return _("The networks need {packages}. Install them, or choose the clinical rule alone.").format(
            packages=", ".join(missing)
        )
    return ""


def _installTorchForThisGraphicsCard() -> None:
    from PyTorchUtils import PyTorchUtilsLogic

    PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH_VERSION)
    importlib.invalidate_caches()
    if "torch" in missingPackages():
        raise RuntimeError(_("PyTorch was not installed."))


def _install(requirements: list[str]) -> None:
    if not requirements:
        return
    try:
        from slicer.packaging import pip_ensure
    except ImportError:  # before Slicer 5.12
        question = _("The networks need these Python packages: {packages}. Install them into Slicer's Python?")
        if not slicer.util.confirmOkCancelDisplay(question.format(packages=", ".join(requirements))):
            raise RuntimeError(_("It was declined.")) from None
        for requirement in requirements:
            slicer.util.pip_install(requirement)
        return
    pip_ensure(requirements, requester="CAC Scoring")
