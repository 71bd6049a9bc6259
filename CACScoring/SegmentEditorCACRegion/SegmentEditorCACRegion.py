"""CAC Region: registers the effect of that name with Segment Editor."""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, N803, PT009

from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest


class SegmentEditorCACRegion(ScriptedLoadableModule):
    """What Slicer knows of the module, which is not shown: its effect is a button of Segment Editor."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "SegmentEditorCACRegion"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "CACScoring"]
        parent.contributors = ["CAC developers"]
        parent.hidden = True
        parent.helpText = _("Adds the effect CAC Region to Segment Editor. It is used in the CAC Scoring module, too.")
        parent.acknowledgementText = _("Developed by the CAC developers. Licence: Apache-2.0.")
        slicer.app.startupCompleted.connect(registerEffect)


def registerEffect() -> None:
    """Make the effect known; a second call changes nothing."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    # Imported as a package first: see its __init__.
    import SegmentEditorCACRegionLib

    instance = effects.qSlicerSegmentEditorScriptedEffect(None)
    instance.setPythonSource((Path(SegmentEditorCACRegionLib.__file__).parent / "SegmentEditorEffect.py").as_posix())
    instance.self().register()


class SegmentEditorCACRegionTest(ScriptedLoadableModuleTest):
    """The effect on a made-up heart. The same runs in Slicer and in the project's desktop host."""

    def setUp(self):
        slicer.mrmlScene.Clear()
        # Startup has not completed in a test run.
        registerEffect()

    def tearDown(self):
        slicer.mrmlScene.Clear()

    def _editor(self):
        """Segment Editor on a small CT with a lesion of eight voxels at the origin, the effect active."""
        import numpy as np

        from CACScoringLib import lesion_segments, mrml

        hu = np.full((12, 24, 24), 40, np.int16)
        hu[5:7, 11:13, 11:13] = 400
        volume = mrml.add_volume(slicer.mrmlScene, _image(hu), "CT")
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lesions")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        for label in range(1, 8):
            lesion_segments.add_lesion_segment(segmentation, label)
        editor = slicer.qMRMLSegmentEditorWidget()
        editor.setMRMLScene(slicer.mrmlScene)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        editor.setMRMLSegmentEditorNode(node)
        editor.setSegmentationNode(segmentation)
        editor.setSourceVolumeNode(volume)
        editor.setActiveEffectByName("CAC Region")
        effect = editor.activeEffect().self()
        return editor, segmentation, effect

    def _count(self, segmentation, segmentId):
        from CACScoringLib import mrml, segments

        volume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        return int(segments.segment_mask(segmentation, segmentId, mrml.image_of_volume(volume)).sum())

    def test_ballIsPainted(self):
        from CACScoringLib.lesions import Artery

        editor, segmentation, effect = self._editor()
        effect.chooseArtery(Artery.LCX)
        effect.scriptedEffect.setParameter("DiameterMm", 6.0)
        painted = effect.paint(effect.brushAt((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
        # So many points of a grid of 1 mm lie within 3 mm of one of them.
        self.assertEqual(painted, 123)
        self.assertEqual(self._count(segmentation, "LCX"), painted)
        editor.undo()
        self.assertEqual(self._count(segmentation, "LCX"), 0)
        editor.setActiveEffect(None)


def _image(hu):
    """An image of 1 mm voxels whose middle lies at the origin."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(hu)
    image.SetOrigin([-(n - 1) / 2 for n in image.GetSize()])
    return image
