"""Base classes of the hidden modules that register the effects with Segment Editor, and of their self tests on a
synthetic lesion.

Modules import this file rather than the classes, which unittest would run when it finds them in a module.
"""

# Slicer's own naming is its API's.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

PREFIX = "SegmentEditorCAC"


class EffectModule(ScriptedLoadableModule):
    """Description of a hidden module, named PREFIX and its effect; the effect is a button of Segment Editor."""

    def __init__(self, parent) -> None:
        super().__init__(parent)
        module = type(self).__name__
        parent.title = module
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "CACScoring"]
        parent.contributors = ["CAC developers"]
        parent.hidden = True
        help_text = _("Adds the effect {effect} to Segment Editor. It is used in the CAC Scoring module, too.")
        parent.helpText = help_text.format(effect=module.replace(PREFIX, "CAC "))
        parent.acknowledgementText = _("Developed by the CAC developers. Licence: Apache-2.0.")
        slicer.app.startupCompleted.connect(lambda: registerEffect(module))


def registerEffect(module: str) -> None:
    """Register the effect of a module; a second call changes nothing."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    # The package has to be imported first, see its `__init__`.
    package = importlib.import_module(f"{module}Lib")
    instance = effects.qSlicerSegmentEditorScriptedEffect(None)
    instance.setPythonSource((Path(package.__file__).parent / "SegmentEditorEffect.py").as_posix())
    instance.self().register()


class EffectTest(ScriptedLoadableModuleTest):
    """Self test of an effect on a synthetic lesion, run in Slicer and in the project's desktop host."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        # Startup has not completed in a test run.
        registerEffect(type(self).__name__.removesuffix("Test"))

    def tearDown(self) -> None:
        slicer.mrmlScene.Clear()


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
