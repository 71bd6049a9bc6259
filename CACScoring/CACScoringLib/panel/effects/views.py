"""What the segment editor effects draw in slice views, and the controls they share."""

# Slicer's and Qt's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from ...review.picking import Voxels
from .. import views
from ..widgets import SITE_KEYS, siteButtons

if TYPE_CHECKING:
    from ...core.labels import Site

CANDIDATE_COLOUR = (1.0, 0.9, 0.1)
LEAK_COLOUR = (1.0, 0.25, 0.1)
_OPACITY = 0.55


def sliceWidgets(effect) -> list:
    """Slice views of the layout that may show the segmentation, by name.

    The layout manager names views as well that the layout does not show, in no certain order.
    """
    manager = slicer.app.layoutManager()
    if manager is None:
        return []
    widgets = [manager.sliceWidget(name) for name in sorted(manager.sliceViewNames())]
    shown = [widget for widget in widgets if widget.mrmlSliceNode().IsMappedInLayout()]
    return [widget for widget in shown if effect.segmentationDisplayableInView(widget.mrmlSliceNode())]


def axialSliceWidget(effect):
    """The one of `sliceWidgets` that says which slice is looked at, else the first; None without any."""
    widgets, node = sliceWidgets(effect), views.axialSliceNode()
    return next((widget for widget in widgets if widget.mrmlSliceNode() is node), next(iter(widgets), None))


def viewToRas(viewWidget) -> np.ndarray:
    """4 × 4, from a pixel (x, y, 0, 1) of a slice view to the world."""
    return slicer.util.arrayFromVTKMatrix(viewWidget.mrmlSliceNode().GetXYToRAS())


def pixelRas(viewWidget, position: tuple[int, int]) -> np.ndarray:
    """Where in the world a pixel of a slice view lies, such as that of an event."""
    return (viewToRas(viewWidget) @ [*position, 0.0, 1.0])[:3]


def isSliceWidget(viewWidget) -> bool:
    return viewWidget.className() == "qMRMLSliceWidget"


class _Overlay:
    """Actors in slice views, one a view, made when there is something to draw."""

    def __init__(self, effect) -> None:
        self._effect = effect
        self._pipelines: dict[object, tuple] = {}

    def _pipeline(self, viewWidget):
        if viewWidget not in self._pipelines:
            self._pipelines[viewWidget] = self._make()
            self._effect.addActor2D(viewWidget, self._pipelines[viewWidget][0])
        return self._pipelines[viewWidget]

    def hide(self) -> None:
        for viewWidget, pipeline in self._pipelines.items():
            if pipeline[0].GetVisibility():
                pipeline[0].VisibilityOff()
                self._effect.scheduleRender(viewWidget)

    def remove(self) -> None:
        """Take the actors out of the views."""
        for viewWidget, pipeline in self._pipelines.items():
            self._effect.removeActor2D(viewWidget, pipeline[0])
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
        self._shown = False

    def _make(self) -> tuple:
        reslice = vtk.vtkImageReslice()
        reslice.SetInputData(self._source)
        reslice.SetInterpolationModeToNearestNeighbor()
        reslice.SetOutputSpacing(1, 1, 1)
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
        """indexToRas: 4 × 4, of the grid that the voxels belong to."""
        extent = [n for at in voxels.part[::-1] for n in (at.start, at.stop - 1)]
        self._source.SetExtent(extent)
        values = numpy_to_vtk(voxels.mask.astype(np.uint8).reshape(-1), True, vtk.VTK_UNSIGNED_CHAR)
        self._source.GetPointData().SetScalars(values)
        self._source.Modified()
        self._indexToRas = indexToRas
        self._colours.SetTableValue(1, *colour, _OPACITY)
        self._shown = True
        for viewWidget in sliceWidgets(self._effect):
            self.place(viewWidget)

    def hide(self) -> None:
        self._shown = False
        super().hide()

    def remove(self) -> None:
        # An event of a view that comes after this must not bring the actor back.
        self._shown = False
        super().remove()

    def place(self, viewWidget) -> None:
        """Draw what lies in a view's slice, after the view or the voxels have changed."""
        if not self._shown:
            return
        actor, reslice = self._pipeline(viewWidget)
        toIndex = np.linalg.solve(self._indexToRas, viewToRas(viewWidget))
        rectangle = self._rectangle(viewWidget, np.linalg.inv(toIndex))
        if rectangle is None:
            if actor.GetVisibility():
                actor.VisibilityOff()
                self._effect.scheduleRender(viewWidget)
            return
        x, y, width, height = rectangle
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(toIndex.reshape(-1).tolist())
        reslice.GetResliceTransform().SetMatrix(matrix)
        reslice.SetOutputOrigin(x, y, 0)
        reslice.SetOutputExtent(0, width - 1, 0, height - 1, 0, 0)
        actor.SetPosition(x, y)
        actor.VisibilityOn()
        self._effect.scheduleRender(viewWidget)

    def _rectangle(self, viewWidget, toView: np.ndarray) -> tuple[int, int, int, int] | None:
        """Pixels of the view (x, y, width, height) that may show any of the voxels."""
        low, high = (np.array(self._source.GetExtent()[n::2]) + half for n, half in ((0, -0.5), (1, 0.5)))
        corners = np.array([[(low, high)[bits >> n & 1][n] for n in range(3)] + [1.0] for bits in range(8)])
        xyz = corners @ toView[:3].T
        if xyz[:, 2].min() > 0 or xyz[:, 2].max() < 0:
            return None
        size = np.array(viewWidget.mrmlSliceNode().GetDimensions()[:2])
        first = np.maximum(np.floor(xyz[:, :2].min(0)), 0).astype(int)
        last = np.minimum(np.ceil(xyz[:, :2].max(0)), size - 1).astype(int)
        if (first > last).any():
            return None
        return int(first[0]), int(first[1]), int(last[0] - first[0] + 1), int(last[1] - first[1] + 1)


class CircleOverlay(_Overlay):
    """Where a ball, or a flat disc in the plane of one view, cuts the slices."""

    def _make(self) -> tuple:
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
        """onlyIn: the view whose slice a flat disc lies in; None for a ball."""
        for viewWidget in sliceWidgets(self._effect):
            actor, circle = self._pipeline(viewWidget)
            toRas = viewToRas(viewWidget)
            x, y, z, _one = np.linalg.solve(toRas, [*centreRas, 1.0])
            mmOf = np.linalg.norm(toRas[:3, :3], axis=0)
            left2 = radiusMm**2 - (0.0 if onlyIn is not None else (z * mmOf[2]) ** 2)
            visible = bool(left2 > 0) and onlyIn in (None, viewWidget)
            if visible:
                circle.SetCenter(x, y, 0)
                circle.SetRadius(left2**0.5 / mmOf[0])
                actor.GetProperty().SetColor(*colour)
            if visible or actor.GetVisibility():
                actor.SetVisibility(visible)
                self._effect.scheduleRender(viewWidget)


class SiteButtons:
    """Buttons that choose the artery to edit, and below them the sites outside the arteries; the keys 1 to 5 and 6 to 9
    do the same in a slice view.

    onChosen: called with the `Site` that a user has chosen.
    """

    def __init__(self, onChosen: Callable[[Site], None]) -> None:
        from ...core.labels import site_called

        self._onChosen = onChosen
        self._byKey = {key: site_called(name) for key, name in SITE_KEYS.items()}
        self._siteCalled = site_called
        self.layout, buttons = siteButtons(_("Edit the {site}. Key {key} in a slice view."), onChosen)
        self._buttons = {self._byKey[key]: button for key, button in buttons.items()}
        for button in buttons.values():
            button.setCheckable(True)
            button.setAutoExclusive(False)

    def show(self, segmentName: str) -> None:
        """Mark the site of that name, if it is one."""
        shown = self._siteCalled(segmentName)
        for site, button in self._buttons.items():
            button.setChecked(site == shown)

    def takeKey(self, interactor) -> bool:
        """Choose the site of the key that was pressed. False when it is none of theirs."""
        site = self._byKey.get(pressedKey(interactor))
        if site is None:
            return False
        self._onChosen(site)
        return True

    def takeDigits(self) -> None:
        """Take the digits from the Segment Editor module, where they choose effects, until `giveDigits`."""
        window = slicer.util.mainWindow()
        for child in [] if window is None else window.children():
            if child.className() == "QShortcut" and child.key.toString() in SITE_KEYS and child.enabled:
                child.setEnabled(False)
                # The module may delete its shortcuts meanwhile, so they are marked and not remembered.
                child.setProperty(_TAKEN, True)

    def giveDigits(self) -> None:
        window = slicer.util.mainWindow()
        for child in [] if window is None else window.children():
            if child.className() == "QShortcut" and child.property(_TAKEN):
                child.setEnabled(True)
                child.setProperty(_TAKEN, False)


_TAKEN = "takenByCAC"


def pressedKey(interactor) -> str:
    """The key of a key event in lower case; that of the number block without its prefix."""
    return (interactor.GetKeySym() or "").removeprefix("KP_").lower()


def plainLabel(lines: int):
    """Return a label for messages, which are shown as they are and never as markup. lines: it has room for."""
    label = qt.QLabel()
    label.setMinimumHeight(lines * label.fontMetrics().lineSpacing())
    label.setAlignment(qt.Qt.AlignLeft | qt.Qt.AlignTop)
    label.setWordWrap(True)
    label.setTextFormat(qt.Qt.PlainText)
    return label
