"""The large axial view for annotation."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer

from CACScoringLib.core.errors import CTError
from CACScoringLib.panel import views

if TYPE_CHECKING:
    from .opening import OpenScan

VIEW = "Red"
_MARGIN = 1.1
"""Factor between the field of view and the heart."""


def show(opened: OpenScan) -> None:
    """Show the CT in one axial view, zoomed to the heart, without other scans' segmentations."""
    manager = slicer.app.layoutManager()
    if manager is None:
        return
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if segmentation.GetDisplayNode() is not None:
            segmentation.GetDisplayNode().SetVisibility(False)
    views.changeLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    widget = manager.sliceWidget(VIEW)
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


def _heartBox(opened: OpenScan) -> tuple[int, int, int, int] | None:
    """First column, first row, columns and rows around the proposed heart; None without one."""
    import SimpleITK as sitk

    from CACScoringLib.io.image_files import read_image

    if opened.proposal is None:
        return None
    try:
        mask = read_image(opened.proposal.heart_file)
    except CTError:
        return None
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(mask != 0, sitk.sitkUInt8))
    if not shape.HasLabel(1):
        return None
    i, j, _k, columns, rows, _slices = shape.GetBoundingBox(1)
    return i, j, columns, rows


def _zoomTo(node, opened: OpenScan, box: tuple[int, int, int, int]) -> None:
    i, j, columns, rows = box
    spacing = opened.grid.GetSpacing()
    views.setFieldOfView(node, columns * spacing[0] * _MARGIN, rows * spacing[1] * _MARGIN)
    middle = (i + (columns - 1) / 2, j + (rows - 1) / 2, len(opened.positions) / 2)
    x, y, z = opened.grid.TransformContinuousIndexToPhysicalPoint(middle)
    node.JumpSliceByCentering(-x, -y, z)
