"""Sending keys through Qt and processing events. Errors in slots and observers are raised."""

from __future__ import annotations

import slicer

from .errors import raise_errors
from .qt_manner import qt_module

qt = qt_module()


def process_events() -> None:
    """Process Qt's pending events."""
    slicer.app.processEvents()
    raise_errors()


def key(widget, keys: str) -> None:
    """Press a key (as in QKeySequence: "1", "X", "Ctrl+Z") on a widget or a slice.

    Shortcuts of the window come first.
    """
    from PySide6.QtTest import QTest

    target = widget.sliceView().layout().itemAt(0).widget() if hasattr(widget, "sliceView") else widget
    window = target.window()
    window.activateWindow()
    slicer.app.processEvents()
    combination = qt.QKeySequence(keys)[0]
    QTest.keyClick(target, combination.key(), combination.keyboardModifiers())
    # Without this, Qt would treat Ctrl and Shift as held from then on.
    QTest.keyRelease(target, qt.Qt.Key_Control)
    process_events()
