"""Opens every page of a panel and tells what is dead: for the self tests of both modules and the smoke test in Slicer.

Slicer prints what setup(), enter(), slots and observers raise, and goes on; so a dead panel is seen by nobody who does
not look for it.
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
    """Collects, while it is entered, the errors that are only printed, and the one that ends its block.

    where: what is being done, to begin a line with. lines: what failed.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: list[str] = []

    def __enter__(self) -> PrintedErrors:
        self._before, sys.excepthook = sys.excepthook, self.keep
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        ends = isinstance(error, Exception)
        if ends:
            self.keep(kind, error, traceback)
        sys.excepthook = self._before
        return ends

    def keep(self, kind, error, traceback) -> None:
        self.lines.append(f"{self.where}: {kind.__name__}: {error}")
        self._before(kind, error, traceback)


def deadPages(moduleName: str) -> list[str]:
    """Open a module's panel, every page of it and every section of a page; afterwards all is as before.

    Works without a main window. Returns what failed, a line each.
    """
    with PrintedErrors(moduleName) as errors:
        panel = slicer.util.getModule(moduleName).widgetRepresentation()
        if panel is None:
            raise RuntimeError("the panel could not be made")
        with entered(panel, moduleName):
            # A panel that died before it was looked at lacks what this needs.
            panel.self().initializeParameterNode()
            _openPages(panel.self().ui.pages, errors)
    return errors.lines


@contextlib.contextmanager
def entered(panel, moduleName: str) -> Iterator[None]:
    """Choose a module, and in the end the one that was chosen before. panel: its widget."""
    window = slicer.util.mainWindow()
    before = slicer.util.selectedModule() if window is not None else None
    left = not panel.isEntered
    if left and window is None:
        panel.enter()
    elif left:
        slicer.util.selectModule(moduleName)
    try:
        yield
    finally:
        if left and window is None:
            panel.exit()
        elif left:
            slicer.util.selectModule(before)


def _openPages(pages, errors: PrintedErrors) -> None:
    """Also the pages within a page."""
    chosen, where = pages.currentIndex, errors.where
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
    pages.setCurrentIndex(chosen)


def _openSections(page) -> None:
    sections = [each for each in slicer.util.findChildren(page) if each.className() in _COLLAPSIBLE]
    collapsed = [each for each in sections if each.collapsed]
    for each in collapsed:
        each.collapsed = False
    slicer.app.processEvents()
    # So that everything is painted, also what is scrolled out of sight.
    for each in (page, *sections):
        each.grab()
    for each in reversed(collapsed):
        each.collapsed = True
    slicer.app.processEvents()
