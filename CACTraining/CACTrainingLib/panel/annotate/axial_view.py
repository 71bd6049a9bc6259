"""The one large axial view that scans are annotated in."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer

from CACScoringLib.panel import views

if TYPE_CHECKING:
    from .opening import OpenScan

VIEW = "Red"
_MARGIN = 1.1
"""Of the view around the heart."""


def viewWidget():
    """The slice widget; None without a main window."""
    manager = slicer.app.layoutManager()
    return None if manager is None else manager.sliceWidget(VIEW)


def show(opened: OpenScan) -> None:
    """Show the CT alone in one axial view, as large as the heart allows."""
    manager = slicer.app.layoutManager()
    if manager is None:
        return
    views.changeLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    widget = viewWidget()
    composite = widget.mrmlSliceCompositeNode()
    composite.SetBackgroundVolumeID(opened.volume.GetID())
    composite.SetForegroundVolumeID(None)
    composite.SetLabelVolumeID(None)
    node = widget.mrmlSliceNode()
    node.SetOrientation("Axial")
    node.RotateToVolumePlane(opened.volume)
    widget.sliceLogic().FitSliceToBackground()
    if (box := _heartBox(opened)) is not None:
        _zoomTo(node, opened, box)
    widget.sliceView().setFocus()


def showSlice(opened: OpenScan, k: int) -> None:
    """Go to a slice without a move within its plane."""
    views.scrollTo(opened.positions[k])


def shownSlice(opened: OpenScan) -> int | None:
    """k of the slice that the view shows; None outside the scan, or without a view."""
    node = views.axialSliceNode()
    return None if node is None else opened.sliceAt(views.positionOf(node))


def sliceNode():
    """The node of the view, which says when another slice is shown; None without a main window."""
    return views.axialSliceNode()


def _heartBox(opened: OpenScan) -> tuple[int, int, int, int] | None:
    """First column, first row, columns and rows around the proposed heart; None without one."""
    import numpy as np
    import SimpleITK as sitk

    from CACScoringLib.core.ct import CTError
    from CACScoringLib.io.image_files import read_image

    if opened.proposal is None:
        return None
    try:
        mask = read_image(opened.proposal.heart_file)
    except CTError:
        return None
    flat = sitk.GetArrayViewFromImage(mask).any(0)
    rows, columns = (flat.any(axis).nonzero()[0] for axis in (1, 0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def _zoomTo(node, opened: OpenScan, box: tuple[int, int, int, int]) -> None:
    i, j, columns, rows = box
    spacing = opened.grid.GetSpacing()
    height, width = rows * spacing[1] * _MARGIN, columns * spacing[0] * _MARGIN
    across, down = (max(1, pixels) for pixels in node.GetDimensions()[:2])
    scale = max(width / across, height / down)
    node.SetFieldOfView(across * scale, down * scale, node.GetFieldOfView()[2])
    middle = (i + (columns - 1) / 2, j + (rows - 1) / 2, len(opened.positions) / 2)
    x, y, z = opened.grid.TransformContinuousIndexToPhysicalPoint(middle)
    node.JumpSliceByCentering(-x, -y, z)
