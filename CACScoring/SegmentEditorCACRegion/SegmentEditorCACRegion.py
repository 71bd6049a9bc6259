"""CAC Region: registers the effect of that name with Segment Editor."""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, PT009

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest


class SegmentEditorCACRegion(ScriptedLoadableModule):
    """Description of the hidden module for Slicer; its effect is a button of Segment Editor."""

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
    """Register the effect; a second call changes nothing."""
    import SegmentEditorCACRegionLib

    from CACScoringLib.panel.effects import base as effect_base

    effect_base.registerEffect(SegmentEditorCACRegionLib)


class SegmentEditorCACRegionTest(ScriptedLoadableModuleTest):
    """Self test on a synthetic lesion, run in Slicer and in the project's desktop host."""

    def setUp(self):
        slicer.mrmlScene.Clear()
        # Startup has not completed in a test run.
        registerEffect()

    def tearDown(self):
        slicer.mrmlScene.Clear()

    def test_ballIsPainted(self):
        from CACScoringLib.core.labels import Artery
        from CACScoringLib.panel.effects.self_test import countVoxels, editorOnLesion

        with editorOnLesion("CAC Region") as (editor, segmentation, effect):
            effect.chooseArtery(Artery.LCX)
            effect.scriptedEffect.setParameter("DiameterMm", 6.0)
            painted = effect.paint(effect.brushAt((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
            # Number of points of a 1 mm grid within 3 mm of one of them.
            self.assertEqual(painted, 123)
            self.assertEqual(countVoxels(segmentation, "LCX"), painted)
            editor.undo()
            self.assertEqual(countVoxels(segmentation, "LCX"), 0)
