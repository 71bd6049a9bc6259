"""A synthetic lesion for the effects' self tests in Slicer."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import slicer


@contextlib.contextmanager
def editorOnLesion(effectName: str, withMap: bool = False) -> Iterator[tuple[Any, ...]]:
    """Open Segment Editor on a small CT with a lesion of eight voxels at the origin, with an effect active.

    The editor is deleted in the end, because Slicer crashes at exit in its own effects if several editors exist.

    Args:
        effectName: Name of the effect.
        withMap: Add a calcium map of sixteen voxels at the lesion.

    Yields:
        The editor, the segmentation and the effect's Python object.
    """
    from ...mrml import lesion_segments
    from ...mrml import scene as mrml

    hu = np.full((12, 24, 24), 40, np.int16)
    hu[5:7, 11:13, 11:13] = 400
    volume = mrml.add_volume(slicer.mrmlScene, _image(hu), "CT")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lesions")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for label in range(1, 8):
        lesion_segments.add_lesion_segment(segmentation, label)
    if withMap:
        calcium = np.zeros(hu.shape, np.float32)
        calcium[5:7, 11:13, 10:14] = 60
        calciumMap = mrml.add_volume(slicer.mrmlScene, _image(calcium), "Calcium map")
        segmentation.SetNodeReferenceID(mrml.CALCIUM_MAP_ROLE, calciumMap.GetID())
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(slicer.mrmlScene)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.setMRMLSegmentEditorNode(node)
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
    editor.setActiveEffectByName(effectName)
    try:
        yield editor, segmentation, editor.activeEffect().self()
    finally:
        editor.setActiveEffect(None)
        editor.delete()


def countVoxels(segmentation: slicer.vtkMRMLSegmentationNode, segmentId: str) -> int:
    """Return the number of voxels of a segment on the CT's grid."""
    from ...mrml import scene as mrml
    from ...mrml import segments

    volume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    return int(segments.segment_mask(segmentation, segmentId, mrml.image_of_volume(volume)).sum())


def _image(values: np.ndarray):
    """Return an image of 1 mm voxels centred on the origin."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(values)
    image.SetOrigin([-(n - 1) / 2 for n in image.GetSize()])
    return image
