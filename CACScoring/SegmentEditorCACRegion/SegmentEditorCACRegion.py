"""CAC Region: registers the effect of that name with Segment Editor."""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, PT009

from CACScoringLib.panel.effects import module


class SegmentEditorCACRegion(module.EffectModule):
    """Description of the hidden module for Slicer; its effect is a button of Segment Editor."""


class SegmentEditorCACRegionTest(module.EffectTest):
    """Self test on a synthetic lesion, run in Slicer and in the project's desktop host."""

    def test_ballIsPainted(self):
        from CACScoringLib.core.labels import Artery

        with module.editorOnLesion("CAC Region") as (editor, segmentation, effect):
            effect.chooseArtery(Artery.LCX)
            effect.scriptedEffect.setParameter("DiameterMm", 6.0)
            painted = effect.paint(effect.brushAt((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
            # Number of points of a 1 mm grid within 3 mm of one of them.
            self.assertEqual(painted, 123)
            self.assertEqual(module.countVoxels(segmentation, "LCX"), painted)
            editor.undo()
            self.assertEqual(module.countVoxels(segmentation, "LCX"), 0)
