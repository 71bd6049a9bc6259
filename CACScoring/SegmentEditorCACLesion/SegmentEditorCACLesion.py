"""CAC Lesion: registers the effect of that name with Segment Editor."""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, PT009

from CACScoringLib.panel.effects import module


class SegmentEditorCACLesion(module.EffectModule):
    """Description of the hidden module for Slicer; its effect is a button of Segment Editor."""


class SegmentEditorCACLesionTest(module.EffectTest):
    """Self test on a synthetic lesion, run in Slicer and in the project's desktop host."""

    def test_addAndReject(self):
        from CACScoringLib.core.labels import Artery

        with module.editorOnLesion("CAC Lesion") as (editor, segmentation, effect):
            effect.chooseArtery(Artery.LAD)
            self.assertEqual(effect.addAt((0.4, 0.4, 0.4)), 8)
            self.assertEqual(module.countVoxels(segmentation, "LAD"), 8)
            effect.chooseArtery(Artery.RCA)
            self.assertEqual(effect.addAt((0.4, 0.4, 0.4)), 8)
            self.assertEqual((module.countVoxels(segmentation, "LAD"), module.countVoxels(segmentation, "RCA")), (0, 8))
            self.assertEqual(effect.rejectAt((0.4, 0.4, 0.4)), 8)
            self.assertEqual(module.countVoxels(segmentation, "not-coronary"), 8)
            self.assertEqual(effect.addAt((9.0, 0.0, 0.0)), 0)
            editor.undo()
            self.assertEqual(module.countVoxels(segmentation, "RCA"), 8)
