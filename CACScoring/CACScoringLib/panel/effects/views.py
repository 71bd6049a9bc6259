"""Overlays of the segment editor effects in slice views, and their common controls."""

# Slicer's and Qt's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from ...core.labels import Site, site_called
from ...review.picking import Voxels
from .. import views
from ..widgets import SITE_KEYS, siteButtons

CANDIDATE_COLOUR = (1.0, 0.9, 0.1)
LEAK_COLOUR = (1.0, 0.25, 0.1)
_OPACITY = 0.55


def sliceWidgets(effect) -> list[Any]:
    """Return the layout's slice views that may show the segmentation, sorted by name.

    The layout manager also lists views that the layout does not show, in no particular order.
    """
    manager = slicer.app.layoutManager()
    if manager is None:
        return []
    widgets = [manager.sliceWidget(name) for name in sorted(manager.sliceViewNames())]
    visible = [widget for widget in widgets if widget.mrmlSliceNode().IsMappedInLayout()]
    return [widget for widget in visible if effect.segmentationDisplayableInView(widget.mrmlSliceNode())]


def axialSliceWidget(effect):
    """Return the main axial view among `sliceWidgets`, or else the first view; None without any."""
    widgets, node = sliceWidgets(effect), views.axialSliceNode()
    return next((widget for widget in widgets if widget.mrmlSliceNode() is node), next(iter(widgets), None))


def viewToRas(viewWidget) -> np.ndarray:
    """Return the 4 × 4 matrix from a pixel (x, y, 0, 1) of a slice view to RAS."""
    return slicer.util.arrayFromVTKMatrix(viewWidget.mrmlSliceNode().GetXYToRAS())


def pixelRas(viewWidget, position: tuple[int, int]) -> np.ndarray:
    """Return the RAS position of a pixel of a slice view."""
    return (viewToRas(viewWidget) @ [*position, 0.0, 1.0])[:3]


def isSliceWidget(viewWidget) -> bool:
    return viewWidget.className() == "qMRMLSliceWidget"


class _Overlay:
    """Actors in slice views, one per view, made when there is something to draw."""

    _make: Callable[[], tuple[Any, ...]]

    def __init__(self, effect) -> None:
        self._effect = effect
        self._pipelines: dict[object, tuple[Any, ...]] = {}

    def _pipeline(self, viewWidget):
        if viewWidget not in self._pipelines:
            self._pipelines[viewWidget] = self._make()
            self._effect.addActor2D(viewWidget, self._pipelines[viewWidget][0])
        return self._pipelines[viewWidget]

    def hide(self) -> None:
        for viewWidget, (actor, _source) in self._pipelines.items():
            if actor.GetVisibility():
                actor.VisibilityOff()
                self._effect.scheduleRender(viewWidget)

    def remove(self) -> None:
        """Remove the actors from the views."""
        for viewWidget, (actor, _source) in self._pipelines.items():
            self._effect.removeActor2D(viewWidget, actor)
        self._pipelines = {}


class VoxelOverlay(_Overlay):
    """Voxels as a coloured layer in all slice views."""

    def __init__(self, effect) -> None:
        super().__init__(effect)
        self._source = vtk.vtkImageData()
        self._indexToRas = np.eye(4)
        self._colours = vtk.vtkLookupTable()
        self._colours.SetNumberOfTableValues(2)
        self._colours.SetTableRange(0, 1)
        self._colours.SetTableValue(0, 0, 0, 0, 0)
        self._isVisible = False

    def _make(self) -> tuple[Any, ...]:
        reslice = vtk.vtkImageReslice()
        reslice.SetInputData(self._source)
        reslice.SetInterpolationModeToNearestNeighbor()
        reslice.SetOutputSpacing(1, 1, 1)
        reslice.SetOutputOrigin(0, 0, 0)
        reslice.SetResliceTransform(vtk.vtkTransform())
        colour = vtk.vtkImageMapToRGBA()
        colour.SetInputConnection(reslice.GetOutputPort())
        colour.SetLookupTable(self._colours)
        mapper = vtk.vtkImageMapper()
        mapper.SetInputConnection(colour.GetOutputPort())
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        return actor, reslice

    def show(self, voxels: Voxels, indexToRas: np.ndarray, colour: tuple[float, float, float]) -> None:
        """Show voxels in a colour. indexToRas: 4 × 4 matrix of the voxels' grid."""
        extent = [n for at in voxels.part[::-1] for n in (at.start, at.stop - 1)]
        self._source.SetExtent(extent)
        values = numpy_to_vtk(voxels.mask.astype(np.uint8).reshape(-1), True, vtk.VTK_UNSIGNED_CHAR)
        self._source.GetPointData().SetScalars(values)
        self._source.Modified()
        self._indexToRas = indexToRas
        self._colours.SetTableValue(1, *colour, _OPACITY)
        self._isVisible = True
        for viewWidget in sliceWidgets(self._effect):
            self.place(viewWidget)

    def hide(self) -> None:
        self._isVisible = False
        super().hide()

    def remove(self) -> None:
        # A later event of a view must not show the actor again.
        self._isVisible = False
        super().remove()

    def place(self, viewWidget) -> None:
        """Redraw a view after the view or the voxels have changed."""
        if not self._isVisible:
            return
        actor, reslice = self._pipeline(viewWidget)
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(np.linalg.solve(self._indexToRas, viewToRas(viewWidget)).reshape(-1).tolist())
        reslice.GetResliceTransform().SetMatrix(matrix)
        width, height = viewWidget.mrmlSliceNode().GetDimensions()[:2]
        reslice.SetOutputExtent(0, width - 1, 0, height - 1, 0, 0)
        actor.VisibilityOn()
        self._effect.scheduleRender(viewWidget)


class CircleOverlay(_Overlay):
    """Outline of a sphere in all slice views, or of a flat disc in one."""

    def _make(self) -> tuple[Any, ...]:
        circle = vtk.vtkRegularPolygonSource()
        circle.SetNumberOfSides(64)
        circle.GeneratePolygonOff()
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputConnection(circle.GetOutputPort())
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        actor.GetProperty().SetLineWidth(2)
        return actor, circle

    def show(self, centreRas, radiusMm: float, colour: tuple[float, float, float], onlyIn=None) -> None:
        """Show a sphere or a disc. onlyIn: view in whose slice the disc lies; None for a sphere."""
        for viewWidget in sliceWidgets(self._effect):
            actor, circle = self._pipeline(viewWidget)
            toRas = viewToRas(viewWidget)
            x, y, z, _w = np.linalg.solve(toRas, [*centreRas, 1.0])
            mmPerPixel = np.linalg.norm(toRas[:3, :3], axis=0)
            squaredRadius = radiusMm**2 - (0.0 if onlyIn is not None else (z * mmPerPixel[2]) ** 2)
            visible = bool(squaredRadius > 0) and onlyIn in (None, viewWidget)
            if visible:
                circle.SetCenter(x, y, 0)
                circle.SetRadius(squaredRadius**0.5 / mmPerPixel[0])
                actor.GetProperty().SetColor(*colour)
            if visible or actor.GetVisibility():
                actor.SetVisibility(visible)
                self._effect.scheduleRender(viewWidget)


class SiteButtons:
    """Buttons that choose the artery to edit, with the sites outside the arteries below them.

    In a slice view, the keys 1 to 5 and 6 to 9 do the same.
    """

    def __init__(self, onChosen: Callable[[Site], None]) -> None:
        """Make the buttons. onChosen: called with the `Site` that a user chooses."""
        self._onChosen = onChosen
        self._byKey = {key: site_called(name) for key, name in SITE_KEYS.items()}
        self.layout, buttons = siteButtons(_("Edit the {site}. Key {key} in a slice view."), onChosen)
        self._buttons = {self._byKey[key]: button for key, button in buttons.items()}
        for button in buttons.values():
            button.setCheckable(True)
            button.setAutoExclusive(False)

    def show(self, segmentName: str) -> None:
        """Check the button of the segment's site, if it has one."""
        site_of_name = site_called(segmentName)
        for site, button in self._buttons.items():
            button.setChecked(site == site_of_name)

    def takeKey(self, interactor) -> bool:
        """Choose the site of the key that was pressed. Returns False for other keys."""
        site = self._byKey.get(pressedKey(interactor))
        if site is None:
            return False
        self._onChosen(site)
        return True

    def takeDigits(self) -> None:
        """Disable the digits' shortcuts of the Segment Editor module, which choose effects, until `giveDigits`."""
        for shortcut in _shortcuts():
            if shortcut.key.toString() in SITE_KEYS and shortcut.enabled:
                shortcut.setEnabled(False)
                # The shortcuts are marked, because the module may delete them meanwhile.
                shortcut.setProperty(_TAKEN_PROPERTY, True)

    def giveDigits(self) -> None:
        for shortcut in _shortcuts():
            if shortcut.property(_TAKEN_PROPERTY):
                shortcut.setEnabled(True)
                shortcut.setProperty(_TAKEN_PROPERTY, False)


def _shortcuts() -> list[Any]:
    """Return the shortcuts of the main window; none without one."""
    window = slicer.util.mainWindow()
    return [] if window is None else [child for child in window.children() if child.className() == "QShortcut"]


_TAKEN_PROPERTY = "takenByCAC"
"""Property of a shortcut that `takeDigits` has disabled."""


def hasModifier(interactor) -> bool:
    """Return True while Shift, Ctrl or Alt is held."""
    return any((interactor.GetShiftKey(), interactor.GetControlKey(), interactor.GetAltKey()))


def pressedKey(interactor) -> str:
    """Return the key of a key event in lower case, without the prefix of the numeric keypad."""
    return (interactor.GetKeySym() or "").removeprefix("KP_").lower()


def plainLabel(lines: int):
    """Return a label that shows messages as plain text. lines: minimum height in lines."""
    label = qt.QLabel()
    label.setMinimumHeight(lines * label.fontMetrics().lineSpacing())
    label.setAlignment(qt.Qt.AlignLeft | qt.Qt.AlignTop)
    label.setWordWrap(True)
    label.setTextFormat(qt.Qt.PlainText)
    return label
