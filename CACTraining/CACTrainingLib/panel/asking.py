"""Asks the user for files and folders, and begins where the last one was."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer


def askForFolder(title: str) -> str:
    """The folder that the user chooses; empty for none."""
    return _askAndRemember(lambda last: qt.QFileDialog.getExistingDirectory(None, title, last))


def askForFile(title: str) -> str:
    """The file that the user chooses; empty for none."""
    return _askAndRemember(lambda last: qt.QFileDialog.getOpenFileName(None, title, last))


def _askAndRemember(ask: Callable[[str], str]) -> str:
    settings = slicer.app.userSettings()
    path = ask(settings.value("CACTraining/lastFolder", ""))
    if path:
        settings.setValue("CACTraining/lastFolder", str(Path(path).parent))
    return path
