"""Parts of the self tests of both modules and of the smoke test in Slicer: opening every page, a synthetic chest.

Slicer only prints exceptions of setup(), enter(), slots and observers, so a broken panel is easily overlooked.
"""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
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


def syntheticChest() -> tuple[sitk.Image, np.ndarray]:
    """Return a body with lungs, spine, sternum and heart with one calcification, and the calcification's mask."""
    k, j, i = np.ogrid[0:80, 0:150, 0:190]
    x, y, z = (i - 95) * 2.0, (j - 75) * 2.0, (k - 40) * 3.0  # mm towards left, posterior, superior

    def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        return np.less_equal(sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), centre, radii, strict=True)), 1)

    hu = np.full((80, 150, 190), -1000.0)
    hu[np.broadcast_to((x / 180) ** 2 + (y / 120) ** 2 <= 1, hu.shape)] = 30
    for side in (-1, 1):
        hu[ellipsoid((side * 90, 5, 10), (58, 82, 125))] = -850  # the chest wall is 15 mm thick
    hu[ellipsoid((20, -20, -25), (62, 55, 58))] = 40
    hu[np.broadcast_to((x / 18) ** 2 + ((y - 88) / 18) ** 2 <= 1, hu.shape)] = 500
    hu[np.broadcast_to((abs(x) <= 16) & (abs(y + 105) <= 5) & (z > -60), hu.shape)] = 400
    hu += np.random.default_rng(0).normal(0, 8, hu.shape)
    calcium = np.zeros(hu.shape, bool)
    calcium[36:38, 58:62, 108:112] = True
    hu[calcium] = 350
    image = sitk.GetImageFromArray(np.rint(hu).astype(np.int16))
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((-190.0, -150.0, -120.0))
    return image, calcium
