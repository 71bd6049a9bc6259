"""Display of radiographs in a layout of a radiograph view beside a 3-D view, and as small pictures."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

import qt
import slicer

from . import views

if TYPE_CHECKING:
    import numpy as np

_MARGIN = 1.02
_FROM_THE_SIDE_MM = (-1600.0, 1200.0, 700.0)
"""The patient's left, front and above, from where the beams of all standard views are visible."""


def showLayout(volume=None) -> None:
    """Change to the layout and fit the scene into its 3-D view.

    Does nothing without a main window, or if the layout already shows a picture, because a reader may have turned the
    view. volume: volume for the slice view while there is no radiograph.
    """
    manager, is_shown = slicer.app.layoutManager(), views.shownLayout() == views.RADIOGRAPH_LAYOUT_ID
    if manager is None or (
        is_shown and manager.sliceWidget(views.RADIOGRAPH).mrmlSliceCompositeNode().GetBackgroundVolumeID()
    ):
        return
    views.registerLayouts()
    views.changeLayout(views.RADIOGRAPH_LAYOUT_ID)
    if volume is not None:
        widget = manager.sliceWidget(views.RADIOGRAPH)
        widget.mrmlSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        widget.sliceLogic().FitSliceToBackground()
    widget = views.shownThreeDWidget()
    if widget is not None:
        view = widget.threeDView()
        view.resetFocalPoint()
        views.lookFrom(view.cameraNode(), _FROM_THE_SIDE_MM)
        views.fitCamera(view)


def showPicture(picture, over=None, outline=None, opacity: float = 0.0) -> None:
    """Show an entire radiograph, upright, in the layout's own view.

    Args:
        picture: Volume of one slice.
        over: Volume of one slice in colours over the picture, or None.
        outline: Label map whose outline is drawn, or None.
        opacity: Opacity of `over`.
    """
    from ..mrml.drr_nodes import slice_axes

    manager = slicer.app.layoutManager()
    if manager is None:
        return
    showLayout()
    widget = manager.sliceWidget(views.RADIOGRAPH)
    composite = widget.mrmlSliceCompositeNode()
    composite.SetLinkedControl(False)
    composite.SetBackgroundVolumeID(picture.GetID())
    composite.SetForegroundVolumeID(over.GetID() if over is not None else None)
    composite.SetForegroundOpacity(opacity)
    composite.SetLabelVolumeID(outline.GetID() if outline is not None else None)
    composite.SetLabelOpacity(1.0)
    node = widget.mrmlSliceNode()
    node.SetUseLabelOutline(True)
    normal, right, centre = slice_axes(picture)
    node.SetSliceToRASByNTP(*normal, *right, *centre, 0)
    (columns, rows, _slices), spacing = picture.GetImageData().GetDimensions(), picture.GetSpacing()
    views.setFieldOfView(node, columns * spacing[0] * _MARGIN, rows * spacing[1] * _MARGIN)


def setOpacity(picture, opacity: float) -> None:
    """Set the opacity of the volume over a picture, if the radiograph view shows that picture."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() == views.RADIOGRAPH and composite.GetBackgroundVolumeID() == picture.GetID():
            composite.SetForegroundOpacity(opacity)


def pixmapOf(picture: np.ndarray, height: int):
    """Return a picture, uint8 [row, column, RGB], as a pixmap of a given height."""
    rows, columns, _colours = picture.shape
    pixmap = qt.QPixmap()
    # In the PPM format, raw pixels follow a line of text.
    pixmap.loadFromData(qt.QByteArray(b"P6 %d %d 255\n" % (columns, rows) + picture.tobytes()))
    return pixmap.scaledToHeight(height, qt.Qt.SmoothTransformation)
