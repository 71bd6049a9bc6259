"""What a user does, sent through Qt: moving, pressing, keys, and waiting. Errors in slots and observers are raised."""

from __future__ import annotations

import slicer
import vtk

from .errors import raise_errors
from .qt_manner import qt_module

qt = qt_module()


def process_events() -> None:
    """Let Qt do what is due."""
    slicer.app.processEvents()
    raise_errors()


def view_position(slice_widget, ras: tuple[float, float, float]):
    """Where a point (RAS, mm) is in the widget of a slice: a QPointF, y from the top."""
    matrix = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(slice_widget.mrmlSliceNode().GetXYToRAS(), matrix)
    x, y = matrix.MultiplyPoint((*ras, 1.0))[:2]
    return qt.QPointF(round(x), slice_widget.sliceView().height - 1 - round(y))


def _send(slice_widget, kind, ras, button, held, control: bool, shift: bool) -> None:
    modifiers = qt.Qt.NoModifier
    if control:
        modifiers |= qt.Qt.ControlModifier
    if shift:
        modifiers |= qt.Qt.ShiftModifier
    view, position = slice_widget.sliceView(), view_position(slice_widget, ras)
    event = qt.QMouseEvent(kind, position, qt.QPointF(view.mapToGlobal(position)), button, held, modifiers)
    qt.QApplication.sendEvent(view, event)
    process_events()


def move(slice_widget, ras, pressed: bool = False, control: bool = False, shift: bool = False) -> None:
    """Move the mouse in a slice to a point (RAS, mm); pressed: with the left button down."""
    held = qt.Qt.LeftButton if pressed else qt.Qt.NoButton
    _send(slice_widget, qt.QEvent.MouseMove, ras, qt.Qt.NoButton, held, control, shift)


def press(slice_widget, ras, control: bool = False, shift: bool = False) -> None:
    """Press the left button at a point (RAS, mm)."""
    _send(slice_widget, qt.QEvent.MouseButtonPress, ras, qt.Qt.LeftButton, qt.Qt.LeftButton, control, shift)


def release(slice_widget, ras, control: bool = False, shift: bool = False) -> None:
    """Release the left button at a point (RAS, mm)."""
    _send(slice_widget, qt.QEvent.MouseButtonRelease, ras, qt.Qt.LeftButton, qt.Qt.NoButton, control, shift)


def click(slice_widget, ras, control: bool = False, shift: bool = False) -> None:
    """Move to a point (RAS, mm), press and release the left button there."""
    move(slice_widget, ras, control=control, shift=shift)
    press(slice_widget, ras, control, shift)
    release(slice_widget, ras, control, shift)


def enter(slice_widget) -> None:
    """The mouse comes into a slice's view, which gets the keys from then on."""
    view = slice_widget.sliceView()
    view.setFocus()
    centre = qt.QPointF(view.rect.center())
    qt.QApplication.sendEvent(view, qt.QEnterEvent(centre, centre, centre))
    process_events()


def leave(slice_widget) -> None:
    """The mouse leaves a slice's view."""
    qt.QApplication.sendEvent(slice_widget.sliceView(), qt.QEvent(qt.QEvent.Leave))
    process_events()


def key(widget, keys: str) -> None:
    """Press a key (as in QKeySequence: "1", "X", "Ctrl+Z") on a widget or a slice.

    Shortcuts of the window come first.
    """
    from PySide6.QtTest import QTest

    target = widget.sliceView() if hasattr(widget, "sliceView") else widget
    window = target.window()
    window.activateWindow()
    slicer.app.processEvents()
    combination = qt.QKeySequence(keys)[0]
    QTest.keyClick(target, combination.key(), combination.keyboardModifiers())
    # Else Qt takes Ctrl and Shift to be held from then on.
    QTest.keyRelease(target, qt.Qt.Key_Control)
    process_events()
