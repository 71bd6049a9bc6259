"""Dialogs for files and folders, which open at the last place."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer


def askForFolder(title: str) -> str:
    """Ask for a folder; empty if the user chooses none."""
    return _askAndRemember(lambda last: qt.QFileDialog.getExistingDirectory(None, title, last))


def askForFile(title: str) -> str:
    """Ask for a file; empty if the user chooses none."""
    return _askAndRemember(lambda last: qt.QFileDialog.getOpenFileName(None, title, last))


def _askAndRemember(ask: Callable[[str], str]) -> str:
    settings = slicer.app.userSettings()
    path = ask(settings.value("CACTraining/lastFolder", ""))
    if path:
        settings.setValue("CACTraining/lastFolder", str(Path(path).parent))
    return path
