"""Dialogs for files and folders, which open at the last place."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import qt

from CACScoringLib.panel.widgets import ask

_LAST = "CACTraining/lastFolder"


def askForFolder(title: str) -> str:
    """Ask for a folder; empty if the user chooses none."""
    return ask(qt.QFileDialog.getExistingDirectory, title, _LAST)


def askForFile(title: str) -> str:
    """Ask for a file; empty if the user chooses none."""
    return ask(qt.QFileDialog.getOpenFileName, title, _LAST)
