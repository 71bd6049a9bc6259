"""Part of the self tests of both modules and of the smoke test in Slicer: opening every page.

Slicer only prints exceptions of setup(), enter(), slots and observers, so a broken panel is easily overlooked.
"""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import slicer

_COLLAPSIBLE = ("ctkCollapsibleButton", "ctkCollapsibleGroupBox")


class PrintedErrors:
    """Context manager that collects errors that are only printed, and the error that ends its block.

    Attributes:
        where: Current step, with which an error's line begins.
        lines: Errors so far, one a line.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: list[str] = []

    def __enter__(self) -> PrintedErrors:
        self._previousHook, sys.excepthook = sys.excepthook, self.keep
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        ends_block = isinstance(error, Exception)
        if ends_block:
            self.keep(kind, error, traceback)
        sys.excepthook = self._previousHook
        return ends_block

    def keep(self, kind, error, traceback) -> None:
        self.lines.append(f"{self.where}: {kind.__name__}: {error}")
        self._previousHook(kind, error, traceback)


def deadPages(moduleName: str) -> list[str]:
    """Open every page and section of a module's panel, then restore the state. Returns errors, one a line.

    Works without a main window.
    """
    with PrintedErrors(moduleName) as errors:
        panel = slicer.util.getModule(moduleName).widgetRepresentation()
        if panel is None:
            raise RuntimeError("the panel could not be made")
        with entered(panel, moduleName):
            # This raises if the panel's setup() failed before.
            panel.self().initializeParameterNode()
            _openPages(panel.self().ui.pages, errors)
    return errors.lines


@contextlib.contextmanager
def entered(panel, moduleName: str) -> Iterator[None]:
    """Select a module, and in the end the former one. panel: the module's widget."""
    window = slicer.util.mainWindow()
    previous_module = slicer.util.selectedModule() if window is not None else None
    is_outside = not panel.isEntered
    if is_outside and window is None:
        panel.enter()
    elif is_outside:
        slicer.util.selectModule(moduleName)
    try:
        yield
    finally:
        if is_outside and window is None:
            panel.exit()
        elif is_outside:
            slicer.util.selectModule(previous_module)


def _openPages(pages, errors: PrintedErrors) -> None:
    """Open each page, nested pages included."""
    initial_index, where = pages.currentIndex, errors.where
    for index in range(pages.count):
        errors.where = f"{where}, page {pages.tabText(index)}"
        try:
            pages.setCurrentIndex(index)
            _openSections(pages.widget(index))
            for inner in slicer.util.findChildren(pages.widget(index), className="QTabWidget"):
                _openPages(inner, errors)
        except Exception:
            errors.keep(*sys.exc_info())
    errors.where = where
    pages.setCurrentIndex(initial_index)


def _openSections(page) -> None:
    sections = [widget for widget in slicer.util.findChildren(page) if widget.className() in _COLLAPSIBLE]
    collapsed = [section for section in sections if section.collapsed]
    for section in collapsed:
        section.collapsed = False
    slicer.app.processEvents()
    # grab() also paints what is scrolled out of sight.
    for widget in (page, *sections):
        widget.grab()
    for section in reversed(collapsed):
        section.collapsed = True
    slicer.app.processEvents()
