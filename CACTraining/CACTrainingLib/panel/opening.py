"""Open a scan of a project for annotation, and show it in the large axial view."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from CACScoringLib.core.errors import CTError
from CACScoringLib.panel import views

from ..project.annotation_files import SliceAnnotations
from ..project.annotations import slice_annotations
from ..project.files import ProjectScan
from ..project.project import Project
from ..project.proposals import Proposal, read_proposal

if TYPE_CHECKING:
    import SimpleITK as sitk


SCAN_ATTRIBUTE, PROJECT_ATTRIBUTE = "CACTraining.scan", "CACTraining.project"
"""Attributes of nodes that belong to a scan of a project: the scan's id and the project's folder."""

VIEW = "Red"
_MARGIN = 1.1
"""Factor between the field of view and the heart."""


@dataclass(frozen=True)
class OpenScan:
    """A scan that is being annotated.

    Attributes:
        project: Project of the scan.
        scan: The scan.
        annotator: Name of the annotator.
        name: Name that the annotator sees.
        volume: Node of the CT.
        grid: Empty uint8 image on the scan's voxels, axes as in `CTScan`.
        positions: Centre of each slice k in RAS mm.
        proposal: Proposed heart and slices; None without one.
        annotations: Slice labels.
    """

    project: Project
    scan: ProjectScan
    annotator: str
    name: str
    volume: slicer.vtkMRMLScalarVolumeNode
    grid: sitk.Image
    positions: tuple[tuple[float, float, float], ...]
    proposal: Proposal | None
    annotations: SliceAnnotations

    @property
    def slices(self) -> tuple[int, ...]:
        """Indices k of the slices to label: those of the heart, or all without a proposal."""
        heart = self.proposal.heart_slices if self.proposal is not None else ()
        return tuple(heart) or tuple(range(len(self.positions)))

    def sliceAt(self, positionRAS: tuple[float, float, float]) -> int | None:
        """Return the index k of the slice at a position; None outside the scan."""
        r, a, s = positionRAS
        k = round(self.grid.TransformPhysicalPointToContinuousIndex((-r, -a, s))[2])
        return k if 0 <= k < len(self.positions) else None


def openVolume(project: Project, scan: ProjectScan, annotator: str, name: str, volume) -> OpenScan:
    """Open a scan whose CT is in the scene. Raises CTError if the node cannot be annotated."""
    import numpy as np
    import SimpleITK as sitk

    from CACScoringLib.mrml.scene import grid_of_volume
    from CACScoringLib.mrml.scene_content import slice_position_ras

    geometry = grid_of_volume(volume)
    # Without the voxels, whose copy would take a second for thin slices.
    grid = sitk.DICOMOrient(geometry.image(np.zeros(geometry.shape, np.uint8)), "LPS")
    positions = tuple(slice_position_ras(grid, k) for k in range(grid.GetSize()[2]))
    annotations = slice_annotations(project, scan.id, annotator)
    proposal = read_proposal(project, scan.id)
    return OpenScan(project, scan, annotator, name, volume, grid, positions, proposal, annotations)


def mark(node, project: Project, scan: ProjectScan) -> None:
    """Mark a node as belonging to a scan."""
    node.SetAttribute(SCAN_ATTRIBUTE, scan.id)
    node.SetAttribute(PROJECT_ATTRIBUTE, str(project.folder))


def volumeInScene(project: Project, scanId: str):
    """Find the CT of a scan in a scene that was saved with it; None if it is absent."""
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        attributes = volume.GetAttribute(PROJECT_ATTRIBUTE), volume.GetAttribute(SCAN_ATTRIBUTE)
        if attributes == (str(project.folder), scanId) and volume.GetImageData() is not None:
            return volume
    return None


def removeNodes(keep=None) -> None:
    """Remove all nodes of opened scans from the scene, except one."""
    from CACScoringLib.mrml.scene import remove_node

    nodes = slicer.util.getNodesByClass("vtkMRMLVolumeNode")
    for node in nodes + slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(SCAN_ATTRIBUTE) is not None and node is not keep:
            remove_node(slicer.mrmlScene, node)


def loadScan(ct: Path, project: Project, scan: ProjectScan, annotator: str, name: str) -> tuple[OpenScan | None, str]:
    """Load a CT into the scene under the name that the annotator sees; None and the reason if that fails."""
    from CACScoringLib.io.image_files import read_image
    from CACScoringLib.mrml.scene import add_volume

    volume = None
    try:
        # Slicer's own reader would store the temporary file's path in the scene.
        volume = add_volume(slicer.mrmlScene, read_image(ct), name)
        mark(volume, project, scan)
        return openVolume(project, scan, annotator, name, volume), ""
    except (CTError, OSError, RuntimeError) as error:
        if volume is not None:
            slicer.mrmlScene.RemoveNode(volume)
        return None, _("{name} could not be opened: {error}").format(name=name, error=error)


def hiddenFrom(name: str, message: str, scan: ProjectScan) -> str:
    """Replace the scan's path and name in a message by the name that a blind annotator sees."""
    for name_of_scan in (str(scan.ct), scan.name) if name != scan.name else ():
        message = message.replace(name_of_scan, name)
    return message


def showsNoOtherScan(opened: OpenScan) -> bool:
    """Return True if the slice views show no other scan; True without views."""
    return views.showNoneBut((opened.volume,))


def showScan(opened: OpenScan) -> None:
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
    views.giveKeys(widget)


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
