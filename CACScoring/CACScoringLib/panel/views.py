"""Layouts of a review: the CT, over which the healthy image can be faded, the calcium map where there is one, a coronal
and a 3-D view. Slice views move together.

Slicer's slice views are at least 343 pixels wide: two of them beside the panel fit on a screen of 1366 pixels.
"""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

from collections.abc import Mapping, Sequence

import slicer
import vtk

LAYOUT_ID, PLAIN_LAYOUT_ID = 20771, 20773
"""With and without a calcium map. Above those that Slicer keeps for itself. Saved with a scene, so they must not
change."""

RADIOGRAPH_LAYOUT_ID = 20772
"""Radiograph beside a 3-D view."""

OWN_LAYOUTS = (LAYOUT_ID, RADIOGRAPH_LAYOUT_ID, PLAIN_LAYOUT_ID)

ORIGINAL, MAP, CORONAL = "CACOriginal", "CACMap", "CACCoronal"
VIEW_GROUP = 20771
"""Of our slice views, so that they move together and leave others alone."""

HEART_OPACITY_3D = 0.25
_ZOOM_MARGIN = 1.15
_RIM = 0.05


def sliceView(name: str, orientation: str, label: str, color: str, group: int = VIEW_GROUP) -> str:
    """A slice view of a layout, in Slicer's XML."""
    properties = {"orientation": orientation, "viewlabel": label, "viewcolor": color, "viewgroup": group}
    lines = "".join(f'<property name="{key}" action="default">{value}</property>' for key, value in properties.items())
    return f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">{lines}</view></item>'


THREE_D_VIEW = """<item><view class="vtkMRMLViewNode" singletontag="CAC3D">
  <property name="viewlabel" action="default">3-D</property>
</view></item>"""


def layoutDescription(withMap: bool) -> str:
    """Slicer's XML description of a layout."""
    # Slicer elides labels of more than about three letters.
    axial = sliceView(ORIGINAL, "Axial", "CT", "#F34A33")
    if withMap:
        axial += sliceView(MAP, "Axial", "Map", "#FFB300")
    return f"""<layout type="vertical" split="true">
  <item><layout type="horizontal">
    {axial}
  </layout></item>
  <item><layout type="horizontal">
    {sliceView(CORONAL, "Coronal", "Cor", "#6EB04B")}
    {THREE_D_VIEW}
  </layout></item>
</layout>"""


def registerLayouts(descriptions: Mapping[int, str] | None = None) -> None:
    """Make layouts known, so that scenes saved with them open with them. Does nothing without a main window.

    descriptions: by their numbers; None for those of a review.
    """
    layoutNode = _layoutNode()
    if descriptions is None:
        descriptions = {LAYOUT_ID: layoutDescription(True), PLAIN_LAYOUT_ID: layoutDescription(False)}
    for layoutId, description in descriptions.items():
        if layoutNode is not None and not layoutNode.IsLayoutDescription(layoutId):
            layoutNode.AddLayoutDescription(layoutId, description)


class _Former:
    """Layout that was shown before the first of ours."""

    layout: int | None = None


def changeLayout(layoutId: int) -> None:
    """Show a layout, so that its views have their sizes. There has to be a main window."""
    manager = slicer.app.layoutManager()
    if manager.layout != layoutId:
        if layoutId in OWN_LAYOUTS and manager.layout not in OWN_LAYOUTS:
            _Former.layout = manager.layout
        manager.setLayout(layoutId)
        # Until Qt has laid the views out, they have the sizes of before.
        slicer.app.processEvents()


def restoreLayout() -> bool:
    """Show the layout of before again where one of ours is shown; False if there is nothing to restore."""
    if shownLayout() not in OWN_LAYOUTS or _Former.layout is None:
        return False
    slicer.app.layoutManager().setLayout(_Former.layout)
    return True


def showLayout(withMap: bool) -> bool:
    """Change to the layout of a result; False if it is shown already, or there is no main window."""
    layoutId = LAYOUT_ID if withMap else PLAIN_LAYOUT_ID
    if shownLayout() in (None, layoutId):
        return False
    registerLayouts()
    changeLayout(layoutId)
    return True


def showSideBySide(volume, heart, healthy, calciumMap) -> None:
    """Change to the layout and show the images of a result in it, as large as the heart allows.

    heart: its segmentation. healthy, calciumMap: None without a decomposition; then there is one axial view, of the CT.
    """
    manager = slicer.app.layoutManager()
    if manager is None:
        return
    showLayout(calciumMap is not None)
    shown = {ORIGINAL: (volume, healthy), CORONAL: (volume, calciumMap)}
    if calciumMap is not None:
        shown[MAP] = (volume, calciumMap)  # which lies around the heart only
    for name, (background, foreground) in shown.items():
        composite = manager.sliceWidget(name).mrmlSliceCompositeNode()
        # While they are linked, one view's images would become the others'.
        composite.SetLinkedControl(False)
        composite.SetBackgroundVolumeID(background.GetID())
        composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
        composite.SetForegroundOpacity(0.0 if name == ORIGINAL else 1.0)
    _showInSameWindow(volume, healthy)
    bounds = [0.0] * 6
    heart.GetRASBounds(bounds)
    for name in shown:
        sliceNode = manager.sliceWidget(name).mrmlSliceNode()
        sliceNode.RotateToVolumePlane(volume)
        _zoomTo(sliceNode, bounds)
    for name in shown:
        composite = manager.sliceWidget(name).mrmlSliceCompositeNode()
        composite.SetHotLinkedControl(True)
        composite.SetLinkedControl(True)


def showHeart(segmentation) -> None:
    """Show the heart's outline: in a scene that was read it may be invisible."""
    from ..mrml.lesion_segments import HEART_ID

    segmentation.GetDisplayNode().SetVisibility(True)
    segmentation.GetDisplayNode().SetSegmentVisibility(HEART_ID, True)


def isSideBySide() -> bool:
    """Whether one of our layouts is the one shown."""
    layoutNode = _layoutNode()
    return layoutNode is not None and layoutNode.GetViewArrangement() in (LAYOUT_ID, PLAIN_LAYOUT_ID)


def shownLayout() -> int | None:
    """Number of the layout that is shown; None without a main window."""
    manager = slicer.app.layoutManager()
    return None if manager is None else manager.layout


def setFade(opacity: float) -> None:
    """How much of the healthy image covers the original: 0 none, 1 all of it."""
    composite = _compositeNode(ORIGINAL)
    if composite is not None:
        # While it is linked, all views would fade.
        linked = composite.GetLinkedControl()
        composite.SetLinkedControl(False)
        composite.SetForegroundOpacity(opacity)
        composite.SetLinkedControl(linked)


def jumpTo(positionRAS: Sequence[float]) -> None:
    """Show a point, mm, in all slice views. They stay within their planes where it is in sight, so that a heart that
    fills them stays whole; else it becomes their middle."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if _isInSight(node, positionRAS):
            node.JumpSliceByOffsetting(*positionRAS)
        else:
            node.JumpSliceByCentering(*positionRAS)


def scrollTo(positionRAS: Sequence[float]) -> None:
    """Bring the axial views to a point's height, mm, without moving them within their plane."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if abs(_normal(node)[2]) > 0.7:  # nearer to axial than to anything else
            node.JumpSliceByOffsetting(*positionRAS)


def axialSliceNode():
    """The slice node that says which slice is looked at: ours where our layout is shown, else Slicer's red one."""
    name = ORIGINAL if isSideBySide() else "Red"
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return next((node for node in nodes if node.GetLayoutName() == name), None)


def positionOf(sliceNode) -> tuple[float, float, float]:
    """A point of the plane that a slice node shows, RAS, mm."""
    matrix = sliceNode.GetSliceToRAS()
    return tuple(matrix.GetElement(row, 3) for row in range(3))


def showSurface(segmentation, opacity: float, on: bool) -> None:
    """Show a segmentation's surface in 3-D views, or take it away. It follows every change from then on."""
    display = segmentation.GetDisplayNode()
    if on:
        # Smoothing takes most of the time, in which Slicer does not answer.
        segmentation.GetSegmentation().SetConversionParameter("Smoothing factor", "0.0")
        segmentation.CreateClosedSurfaceRepresentation()
        display.SetOpacity3D(opacity)
    else:
        segmentation.RemoveClosedSurfaceRepresentation()
    display.SetVisibility3D(on)


def lookAtSurfaces() -> None:
    """Bring the surfaces into sight in the 3-D view that is shown, without its box and the labels of its axes."""
    widget = shownThreeDWidget()
    if widget is None:
        return
    widget.mrmlViewNode().SetBoxVisible(False)
    widget.mrmlViewNode().SetAxisLabelsVisible(False)
    view = widget.threeDView()
    view.resetFocalPoint()
    fitCamera(view)


def shownThreeDWidget():
    """The widget of a 3-D view of the layout, the first by name; None where there is none.

    The layout manager counts views as well that the layout does not show, in no certain order.
    """
    manager = slicer.app.layoutManager()
    widgets = [] if manager is None else [manager.threeDWidget(n) for n in range(manager.threeDViewCount)]
    shown = {w.mrmlViewNode().GetName(): w for w in widgets if w.mrmlViewNode().IsMappedInLayout()}
    return shown[min(shown)] if shown else None


def fitCamera(view, turn: bool = True) -> None:
    """Bring all that a 3-D view shows into sight. turn: to the nearest axis of the patient."""
    view.resetCamera(turn)
    camera, taller = view.cameraNode(), view.height / max(view.width, 1)
    if camera is not None and taller > 1:  # Slicer looks at the view's height alone
        focus = camera.GetFocalPoint()
        away = [taller * (p - f) for p, f in zip(camera.GetPosition(), focus, strict=True)]
        camera.SetPosition([f + step for f, step in zip(focus, away, strict=True)])
        camera.ResetClippingRange()


def _layoutNode():
    manager = slicer.app.layoutManager()
    return None if manager is None else manager.layoutLogic().GetLayoutNode()


def _showInSameWindow(volume, healthy) -> None:
    """Original and healthy image can be compared only where the same HU has the same grey."""
    from ..report.pictures import WINDOW_HU

    low, high = WINDOW_HU
    for node in filter(None, (volume, healthy)):
        display = node.GetScalarVolumeDisplayNode()
        if display is not None:
            display.SetAutoWindowLevel(False)
            display.SetWindowLevel(high - low, (high + low) / 2)


def _zoomTo(sliceNode, bounds: Sequence[float]) -> None:
    """Fill a view with a box, RAS, mm: minimum and maximum of each axis."""
    centre = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
    size = max(bounds[2 * axis + 1] - bounds[2 * axis] for axis in range(3)) * _ZOOM_MARGIN
    width, height = (max(1, pixels) for pixels in sliceNode.GetDimensions()[:2])
    scale = size / min(width, height)
    sliceNode.SetFieldOfView(width * scale, height * scale, sliceNode.GetFieldOfView()[2])
    sliceNode.JumpSliceByCentering(*centre)


def _isInSight(sliceNode, positionRAS: Sequence[float]) -> bool:
    """Whether a point lies within a view, and not at its rim, but for its depth."""
    toView = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(sliceNode.GetXYToRAS(), toView)
    across = zip(toView.MultiplyPoint((*positionRAS, 1.0)), sliceNode.GetDimensions()[:2], strict=False)
    return all(_RIM < at / max(pixels, 1) < 1 - _RIM for at, pixels in across)


def _compositeNode(name: str):
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return next((node for node in nodes if node.GetLayoutName() == name), None)


def _normal(sliceNode) -> tuple[float, float, float]:
    matrix: vtk.vtkMatrix4x4 = sliceNode.GetSliceToRAS()
    return tuple(matrix.GetElement(row, 2) for row in range(3))
