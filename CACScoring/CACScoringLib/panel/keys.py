"""Keys of a panel, which work wherever the keyboard is but in a field that takes text."""

# Qt's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import qt
import slicer


def windowOf(widget):
    """The window in which a panel's keys work: Slicer's main window; without one, that of a widget of the panel."""
    window = slicer.util.mainWindow()
    return widget.window() if window is None else window


def undoKeys(undo: Callable[[], object], redo: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """The usual keys of undo and redo."""
    return {"Ctrl+Z": undo, "Ctrl+Y": redo, "Ctrl+Shift+Z": redo}


class Keys:
    """Shortcuts that are switched on and off together.

    A line edit keeps its letters, digits and Backspace, because Qt asks it before the shortcuts of its window.
    actions: what each key does, by its name as in QKeySequence. owners: widgets within which the keys work; a window
    for all of it.
    """

    def __init__(self, owners: Sequence, actions: Mapping[str, Callable[[], object]]) -> None:
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
        """Let the keys work, or not."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(on)

    def remove(self) -> None:
        """Let go of the widgets, which outlive the panel."""
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
