"""Edits of a review in a scene by a reader and by Slicer's tools."""

import numpy as np
import slicer
import vtk

from CACScoringLib.core.grid import Grid
from CACScoringLib.mrml import scene as mrml

METHODS = ("threshold", "decomposition")
PART = (slice(8, 12), slice(30, 50), slice(30, 50))
"""Box of the scan, [k, j, i], with several lesions."""


def numbers(review):
    return {method: (review.result(method).total, review.result(method).arteries) for method in review.methods}


def ids(review, method):
    return [lesion.id for lesion in review.result(method).lesions]


def paint(
    review, segment_id, part, mode=slicer.vtkSlicerSegmentEditorLogic.ModificationModeAdd, overwrite=True, node=None
):
    """Set a box of the scan, [k, j, i], with Slicer's Segment Editor. node: None for the clinical rule's lesions."""
    node = node or review.nodes.calcium
    logic, editor = slicer.vtkSlicerSegmentEditorLogic(), slicer.vtkMRMLSegmentEditorNode()
    review.scene.AddNode(editor)
    logic.SetMRMLScene(review.scene)
    logic.SetSegmentEditorNode(editor)
    logic.SetSegmentationNode(node)
    logic.SetSourceVolumeNode(review.nodes.volume)
    editor.SetOverwriteMode(editor.OverwriteAllSegments if overwrite else editor.OverwriteNone)
    logic.SetCurrentSegmentID(segment_id)
    mask = np.zeros(review.scan.hu.shape, np.uint8)
    mask[part] = 1
    image = Grid.of(review.scan.image).image(mask)
    volume = mrml.add_volume(review.scene, image, "brush")
    labelmap, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    labelmap.ShallowCopy(volume.GetImageData())
    volume.GetIJKToRASMatrix(matrix)
    labelmap.SetImageToWorldMatrix(matrix)
    logic.ModifySegmentByLabelmap(node, segment_id, labelmap, mode, True, False)
    for temporary in (volume, editor):
        review.scene.RemoveNode(temporary)
