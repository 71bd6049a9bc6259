"""CAC Lesion: registers the effect of that name with Segment Editor."""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, PT009

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest


class SegmentEditorCACLesion(ScriptedLoadableModule):
    """Description of the hidden module for Slicer; its effect is a button of Segment Editor."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "SegmentEditorCACLesion"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "CACScoring"]
        parent.contributors = ["CAC developers"]
        parent.hidden = True
        parent.helpText = _("Adds the effect CAC Lesion to Segment Editor. It is used in the CAC Scoring module, too.")
        parent.acknowledgementText = _("Developed by the CAC developers. Licence: Apache-2.0.")
        slicer.app.startupCompleted.connect(registerEffect)


def registerEffect() -> None:
    """Register the effect; a second call changes nothing."""
    import SegmentEditorCACLesionLib

    from CACScoringLib.panel.effects import base as effect_base

    effect_base.registerEffect(SegmentEditorCACLesionLib)


class SegmentEditorCACLesionTest(ScriptedLoadableModuleTest):
    """Self test on a synthetic lesion, run in Slicer and in the project's desktop host."""

    def setUp(self):
        slicer.mrmlScene.Clear()
        # Startup has not completed in a test run.
        registerEffect()

    def tearDown(self):
        slicer.mrmlScene.Clear()

    def test_addAndReject(self):
        from CACScoringLib.core.labels import Artery
        from CACScoringLib.panel.effects.self_test import countVoxels, editorOnLesion

        with editorOnLesion("CAC Lesion") as (editor, segmentation, effect):
            effect.chooseArtery(Artery.LAD)
            self.assertEqual(effect.addAt((0.4, 0.4, 0.4)), 8)
            self.assertEqual(countVoxels(segmentation, "LAD"), 8)
            effect.chooseArtery(Artery.RCA)
            self.assertEqual(effect.addAt((0.4, 0.4, 0.4)), 8)
            self.assertEqual((countVoxels(segmentation, "LAD"), countVoxels(segmentation, "RCA")), (0, 8))
            self.assertEqual(effect.rejectAt((0.4, 0.4, 0.4)), 8)
            self.assertEqual(countVoxels(segmentation, "not-coronary"), 8)
            self.assertEqual(effect.addAt((9.0, 0.0, 0.0)), 0)
            editor.undo()
            self.assertEqual(countVoxels(segmentation, "RCA"), 8)
