"""Layouts of a review: the CT with the healthy image over it, the calcium map if there is one, a coronal and a 3-D
view. The slice views move together.

Slicer's slice views are at least 343 pixels wide, so two of them fit beside the panel on a screen of 1366 pixels.
"""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

from collections.abc import Mapping, Sequence

import slicer
import vtk

from ..core.files import read_file, resource_folder
from ..core.labels import WINDOW_HU

LAYOUT_ID, PLAIN_LAYOUT_ID = 20771, 20773
"""Numbers of the layouts with and without a calcium map, above Slicer's own. Scenes store them, so they must not
change."""

RADIOGRAPH_LAYOUT_ID = 20772
"""Number of the layout with a radiograph beside a 3-D view."""

CAC_LAYOUTS = {LAYOUT_ID: "result", PLAIN_LAYOUT_ID: "plain", RADIOGRAPH_LAYOUT_ID: "radiograph"}
"""Names of the layouts' descriptions among the resources."""

LAYOUTS = resource_folder("Layouts")

ORIGINAL, MAP, CORONAL, RADIOGRAPH = "CACOriginal", "CACMap", "CACCoronal", "CACRadiograph"

HEART_OPACITY_3D = 0.25
_FROM_THE_FRONT_MM = (0.0, 1000.0, 0.0)
_ZOOM_MARGIN = 1.15
_RIM = 0.05


def registerLayouts(descriptions: Mapping[int, str] | None = None) -> None:
    """Register layouts, so that scenes saved with them open with them. Does nothing without a main window.

    descriptions: XML by layout number; None for the layouts of reviews and radiographs.
    """
    manager = slicer.app.layoutManager()
    if manager is None:
        return
    layoutNode = manager.layoutLogic().GetLayoutNode()
    if descriptions is None:
        descriptions = {number: read_file(LAYOUTS / f"{name}.xml").decode() for number, name in CAC_LAYOUTS.items()}
    for layoutId, description in descriptions.items():
        if not layoutNode.IsLayoutDescription(layoutId):
            layoutNode.AddLayoutDescription(layoutId, description)


_BEFORE = "CACLayoutBefore"
"""Property of the layout manager: layout that was shown before ours."""


def changeLayout(layoutId: int) -> None:
    """Show a layout and let its views take their sizes. Needs a main window."""
    manager = slicer.app.layoutManager()
    if manager.layout != layoutId:
        if layoutId in CAC_LAYOUTS and manager.layout not in CAC_LAYOUTS:
            manager.setProperty(_BEFORE, manager.layout)
        manager.setLayout(layoutId)
        # Views keep their former sizes until Qt processes events.
        slicer.app.processEvents()


def restoreLayout() -> bool:
    """Restore the layout shown before ours; return False if ours is not shown.

    Before the layout of a scene that was saved with ours there was none, and Slicer's own takes its place.
    """
    manager = slicer.app.layoutManager()
    if shownLayout() not in CAC_LAYOUTS:
        return False
    before = manager.property(_BEFORE)
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView if before is None else before)
    return True


def showLayout(withMap: bool) -> bool:
    """Change to the layout of a result; return False if it is shown already or there is no main window."""
    layoutId = LAYOUT_ID if withMap else PLAIN_LAYOUT_ID
    if shownLayout() in (None, layoutId):
        return False
    registerLayouts()
    changeLayout(layoutId)
    return True


def showSideBySide(volume, heart, healthy, calciumMap) -> None:
    """Change to the layout and show the images of a result in it, zoomed to the heart.

    Args:
        volume: The CT.
        heart: Segmentation of the heart.
        healthy: Healthy image; None without a decomposition.
        calciumMap: Calcium map; None without a decomposition, which leaves one axial view.
    """
    manager = slicer.app.layoutManager()
    if manager is None:
        return
    showLayout(calciumMap is not None)
    images = {ORIGINAL: (volume, healthy), CORONAL: (volume, calciumMap)}
    if calciumMap is not None:
        images[MAP] = (volume, calciumMap)  # the map covers the heart only
    for name, (background, foreground) in images.items():
        composite = manager.sliceWidget(name).mrmlSliceCompositeNode()
        # Linked views would take over each other's images.
        composite.SetLinkedControl(False)
        composite.SetBackgroundVolumeID(background.GetID())
        composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
        composite.SetForegroundOpacity(0.0 if name == ORIGINAL else 1.0)
    _showInSameWindow(volume, healthy)
    bounds = [0.0] * 6
    heart.GetRASBounds(bounds)
    for name in images:
        sliceNode = manager.sliceWidget(name).mrmlSliceNode()
        sliceNode.RotateToVolumePlane(volume)
        _zoomTo(sliceNode, bounds)
    for name in images:
        composite = manager.sliceWidget(name).mrmlSliceCompositeNode()
        composite.SetHotLinkedControl(True)
        composite.SetLinkedControl(True)


def showNoneBut(volumes) -> bool:
    """Return True if the slice views show none but these volumes, apart from a radiograph; True without views."""
    manager = slicer.app.layoutManager()
    if manager is None:
        return True
    widgets = [manager.sliceWidget(name) for name in manager.sliceViewNames() if name != RADIOGRAPH]
    visible = [widget for widget in widgets if widget.mrmlSliceNode().IsMappedInLayout()]
    backgrounds = {widget.mrmlSliceCompositeNode().GetBackgroundVolumeID() for widget in visible}
    return backgrounds - {None, ""} <= {volume.GetID() for volume in volumes if volume is not None}


def showVolume(volume) -> None:
    """Show a CT alone in all slice views, in the layout before ours. volume: None for empty views."""
    restoreLayout()
    slicer.util.setSliceViewerLayers(background=volume, foreground=None, fit=True)


def showHeart(segmentation) -> None:
    """Show the heart's outline, which may be invisible in a loaded scene."""
    from ..mrml.lesion_segments import HEART_ID

    segmentation.GetDisplayNode().SetVisibility(True)
    segmentation.GetDisplayNode().SetSegmentVisibility(HEART_ID, True)


def shownLayout() -> int | None:
    """Return the number of the layout that is shown; None without a main window."""
    manager = slicer.app.layoutManager()
    return None if manager is None else manager.layout


def setFade(opacity: float) -> None:
    """Set the opacity of the healthy image over the CT, 0 to 1."""
    composite = _viewNode("vtkMRMLSliceCompositeNode", ORIGINAL)
    if composite is not None:
        # In a linked view, this would change all views.
        linked = composite.GetLinkedControl()
        composite.SetLinkedControl(False)
        composite.SetForegroundOpacity(opacity)
        composite.SetLinkedControl(linked)


def setForeground(composite, volumeId: str | None) -> None:
    """Set the volume over the background of one view; None for none."""
    # In a linked view, this would change all views.
    linked = composite.GetLinkedControl()
    composite.SetLinkedControl(False)
    composite.SetForegroundVolumeID(volumeId)
    composite.SetLinkedControl(linked)


def jumpTo(positionRAS: Sequence[float]) -> None:
    """Show a point, in mm, in all slice views. Views where it is in sight change only their slice, so that the heart
    stays in view; others are centred on it."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if _isInSight(node, positionRAS):
            node.JumpSliceByOffsetting(*positionRAS)
        else:
            node.JumpSliceByCentering(*positionRAS)


def scrollTo(positionRAS: Sequence[float]) -> None:
    """Move the axial views to a point's slice, in mm, without moving them within their plane."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        # Views whose normal is closer to axial than to any other orientation.
        if abs(node.GetSliceToRAS().GetElement(2, 2)) > 0.7:
            node.JumpSliceByOffsetting(*positionRAS)


def giveKeys(sliceWidget) -> None:
    """Give a slice view the keys, as a click in it does."""
    # VTK's widget, the only one in the view's layout, handles them.
    sliceWidget.sliceView().layout().itemAt(0).widget().setFocus()


def axialSliceNode():
    """Return the slice node of the main axial view: ours if our layout is shown, else Slicer's red one."""
    return _viewNode("vtkMRMLSliceNode", ORIGINAL if shownLayout() in (LAYOUT_ID, PLAIN_LAYOUT_ID) else "Red")


def positionOf(sliceNode) -> tuple[float, float, float]:
    """Return a point of a slice node's plane, RAS in mm."""
    return tuple(slicer.util.arrayFromVTKMatrix(sliceNode.GetSliceToRAS())[:3, 3])


def showSurface(segmentation, opacity: float, on: bool) -> None:
    """Show or remove a segmentation's surface in 3-D views. A surface follows every later change."""
    display = segmentation.GetDisplayNode()
    if on:
        # Smoothing would take most of the time, during which Slicer blocks.
        segmentation.GetSegmentation().SetConversionParameter("Smoothing factor", "0.0")
        segmentation.CreateClosedSurfaceRepresentation()
        display.SetOpacity3D(opacity)
    else:
        segmentation.RemoveClosedSurfaceRepresentation()
    display.SetVisibility3D(on)


def lookAtSurfaces() -> None:
    """Fit the surfaces into the 3-D view, and hide its box and axis labels."""
    widget = shownThreeDWidget()
    if widget is None:
        return
    widget.mrmlViewNode().SetBoxVisible(False)
    widget.mrmlViewNode().SetAxisLabelsVisible(False)
    view = widget.threeDView()
    view.resetFocalPoint()
    lookFrom(view.cameraNode(), _FROM_THE_FRONT_MM)  # a new focus alone leaves the camera oblique
    fitCamera(view)


def shownThreeDWidget():
    """Return the widget of the layout's first 3-D view by name, or None.

    The layout manager also lists views that the layout does not show, in no particular order.
    """
    manager = slicer.app.layoutManager()
    widgets = [] if manager is None else [manager.threeDWidget(n) for n in range(manager.threeDViewCount)]
    widgetsByName = {w.mrmlViewNode().GetName(): w for w in widgets if w.mrmlViewNode().IsMappedInLayout()}
    return widgetsByName[min(widgetsByName)] if widgetsByName else None


def lookFrom(camera, offsetMm: Sequence[float]) -> None:
    """Place the camera of a 3-D view, upright, at an offset, RAS, from its focus."""
    if camera is not None:
        camera.SetPosition([at + step for at, step in zip(camera.GetFocalPoint(), offsetMm, strict=True)])
        camera.SetViewUp([0.0, 0.0, 1.0])


def fitCamera(view) -> None:
    """Fit the contents of a 3-D view into it, from where its camera looks."""
    view.resetCamera(False)
    camera, aspect = view.cameraNode(), view.height / max(view.width, 1)
    if camera is not None and aspect > 1:  # Slicer fits the contents to the view's height only
        focus = camera.GetFocalPoint()
        offset = [aspect * (p - f) for p, f in zip(camera.GetPosition(), focus, strict=True)]
        camera.SetPosition([f + step for f, step in zip(focus, offset, strict=True)])
        camera.ResetClippingRange()


def _showInSameWindow(volume, healthy) -> None:
    """Show CT and healthy image with the same window, so that the same HU has the same grey."""
    low, high = WINDOW_HU
    for node in filter(None, (volume, healthy)):
        display = node.GetScalarVolumeDisplayNode()
        if display is not None:
            display.SetAutoWindowLevel(False)
            display.SetWindowLevel(high - low, (high + low) / 2)


def _zoomTo(sliceNode, bounds: Sequence[float]) -> None:
    """Fit a box into a view. bounds: minimum and maximum of each axis, RAS in mm."""
    size = max(bounds[2 * axis + 1] - bounds[2 * axis] for axis in range(3)) * _ZOOM_MARGIN
    setFieldOfView(sliceNode, size, size)
    sliceNode.JumpSliceByCentering(*((bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)))


def setFieldOfView(sliceNode, widthMm: float, heightMm: float) -> None:
    """Let a view show at least a rectangle around its centre."""
    across, down = (max(1, pixels) for pixels in sliceNode.GetDimensions()[:2])
    scale = max(widthMm / across, heightMm / down)
    sliceNode.SetFieldOfView(across * scale, down * scale, sliceNode.GetFieldOfView()[2])


def _isInSight(sliceNode, positionRAS: Sequence[float]) -> bool:
    """Return True if a point, projected onto a view's plane, lies within the view and not at its rim."""
    rasToXY = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(sliceNode.GetXYToRAS(), rasToXY)
    coordinates = zip(rasToXY.MultiplyPoint((*positionRAS, 1.0)), sliceNode.GetDimensions()[:2], strict=False)
    return all(_RIM < at / max(pixels, 1) < 1 - _RIM for at, pixels in coordinates)


def _viewNode(kind: str, name: str):
    """Return the node of a class that belongs to a view; None without one."""
    nodes = slicer.util.getNodesByClass(kind)
    return next((node for node in nodes if node.GetLayoutName() == name), None)
