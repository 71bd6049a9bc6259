"""Keyboard shortcuts of a panel, which work everywhere except in text fields."""

# Qt's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt
import slicer


def windowOf(widget):
    """Return the window in which a panel's keys work: Slicer's main window, or else the widget's own window."""
    window = slicer.util.mainWindow()
    return widget.window() if window is None else window


def undoKeys(undo: Callable[[], object], redo: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """Return the usual keys of undo and redo with these actions."""
    return {"Ctrl+Z": undo, "Ctrl+Y": redo, "Ctrl+Shift+Z": redo}


class Keys:
    """Shortcuts that are switched on and off together.

    A line edit keeps its letters, digits and Backspace, because Qt asks it before the shortcuts of its window.
    """

    def __init__(self, owners: Sequence[Any], actions: Mapping[str, Callable[[], object]]) -> None:
        """Make the shortcuts, switched off.

        Args:
            owners: Widgets within which the keys work, children included; a window stands for all it contains.
            actions: Function to call, by the key's name in QKeySequence.
        """
        self._shortcuts = []
        for owner in owners:
            for key, action in actions.items():
                shortcut = qt.QShortcut(owner)
                shortcut.setKey(qt.QKeySequence(key))
                window = owner.isWindow()
                shortcut.setContext(qt.Qt.WindowShortcut if window else qt.Qt.WidgetWithChildrenShortcut)
                shortcut.activated.connect(lambda action=action: action())
                shortcut.setEnabled(False)
                self._shortcuts.append(shortcut)

    def setEnabled(self, on: bool) -> None:
        """Switch all shortcuts on or off."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(on)

    def remove(self) -> None:
        """Remove the shortcuts from their owners, which outlive the panel."""
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
