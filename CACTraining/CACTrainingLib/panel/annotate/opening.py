"""Opens a scan of a project for annotation."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from CACScoringLib.core.ct import CTError

from ...project.annotations import SliceAnnotations, slice_annotations
from ...project.project import Project, ProjectScan
from ...project.proposals import Proposal, read_proposal

if TYPE_CHECKING:
    import SimpleITK as sitk


SCAN_ATTRIBUTE, PROJECT_ATTRIBUTE = "CACTraining.scan", "CACTraining.project"
"""Attributes of nodes that belong to a scan of a project: the scan's id and the project's folder."""


@dataclass(frozen=True)
class OpenScan:
    """A scan that is being annotated.

    name: what the annotator sees. volume: the CT. grid: uint8 image without content on the scan's voxels, axes as in
    `CTScan`. positions: of the middle of each slice k, RAS, mm. proposal: None where none was made.
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
        """k of the slices that are to be labelled: those of the heart, or all where no heart is known."""
        heart = self.proposal.heart_slices if self.proposal is not None else ()
        return tuple(heart) or tuple(range(len(self.positions)))

    def sliceAt(self, positionRAS: tuple[float, float, float]) -> int | None:
        """k of the slice that a position lies in; None outside the scan."""
        r, a, s = positionRAS
        k = round(self.grid.TransformPhysicalPointToContinuousIndex((-r, -a, s))[2])
        return k if 0 <= k < len(self.positions) else None


def openVolume(project: Project, scan: ProjectScan, annotator: str, name: str, volume) -> OpenScan:
    """Begin to annotate a scan whose CT is in the scene. Raises CTError when the node cannot be annotated any more."""
    from CACScoringLib.mrml.scene_content import slice_position_ras

    grid = _gridOf(volume)
    positions = tuple(slice_position_ras(grid, k) for k in range(grid.GetSize()[2]))
    annotations = slice_annotations(project, scan.id, annotator)
    proposal = read_proposal(project, scan.id)
    return OpenScan(project, scan, annotator, name, volume, grid, positions, proposal, annotations)


def _gridOf(volume) -> sitk.Image:
    """The voxels of a volume node without their values, uint8, with axes as in `CTScan`. Raises SliceGeometryError.

    Unlike `mrml.scene.image_of_volume` it copies nothing, which takes a second with thin slices.
    """
    import numpy as np
    import SimpleITK as sitk

    from CACScoringLib.mrml.segments import check_no_transform

    check_no_transform(volume)
    axes = [[0.0] * 3 for _axis in range(3)]
    volume.GetIJKToRASDirections(axes)
    to_lps = np.array([-1.0, -1.0, 1.0])
    grid = sitk.Image(volume.GetImageData().GetDimensions(), sitk.sitkUInt8)
    grid.SetSpacing(volume.GetSpacing())
    grid.SetOrigin((np.array(volume.GetOrigin()) * to_lps).tolist())
    grid.SetDirection((np.array(axes) * to_lps[:, None]).reshape(-1).tolist())
    return sitk.DICOMOrient(grid, "LPS")


def mark(node, project: Project, scan: ProjectScan) -> None:
    """Note of a node that it belongs to a scan."""
    node.SetAttribute(SCAN_ATTRIBUTE, scan.id)
    node.SetAttribute(PROJECT_ATTRIBUTE, str(project.folder))


def volumeInScene(project: Project, scanId: str):
    """The CT of a scan in a scene that was saved with it; None when it is not there."""
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        attributes = volume.GetAttribute(PROJECT_ATTRIBUTE), volume.GetAttribute(SCAN_ATTRIBUTE)
        if attributes == (str(project.folder), scanId) and volume.GetImageData() is not None:
            return volume
    return None


def removeNodes(keep=None) -> None:
    """Take everything of opened scans out of the scene but one node, as what an earlier session left in it."""
    nodes = slicer.util.getNodesByClass("vtkMRMLVolumeNode")
    for node in nodes + slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(SCAN_ATTRIBUTE) is not None and node is not keep:
            slicer.mrmlScene.RemoveNode(node)


def loadScan(ct: Path, project: Project, scan: ProjectScan, annotator: str, name: str) -> tuple[OpenScan | None, str]:
    """Put a CT into the scene, to be annotated; None, and why, when that fails. name: what the annotator sees."""
    from CACScoringLib.io.image_files import read_image
    from CACScoringLib.mrml.scene import add_volume

    volume = None
    try:
        # Not by Slicer's own reader: it would remember a file that is gone when the scene is saved.
        volume = add_volume(slicer.mrmlScene, read_image(ct), name)
        mark(volume, project, scan)
        return openVolume(project, scan, annotator, name, volume), ""
    except (CTError, OSError, RuntimeError) as error:
        if volume is not None:
            slicer.mrmlScene.RemoveNode(volume)
        return None, _("{name} could not be opened: {error}").format(name=name, error=error)


def hiddenFrom(name: str, message: str, scan: ProjectScan) -> str:
    """A message without what a blind annotator must not see. name: what the scan is called to them."""
    for name_of_scan in (str(scan.ct), scan.name) if name != scan.name else ():
        message = message.replace(name_of_scan, name)
    return message
