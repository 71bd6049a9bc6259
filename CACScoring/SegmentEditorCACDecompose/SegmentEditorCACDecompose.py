"""CAC Decompose: registers the effect of that name with Segment Editor."""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, PT009

from CACScoringLib.panel.effects import module


class SegmentEditorCACDecompose(module.EffectModule):
    """Description of the hidden module for Slicer; its effect is a button of Segment Editor."""


class SegmentEditorCACDecomposeTest(module.EffectTest):
    """Self test on a synthetic lesion with a calcium map, run in Slicer and in the project's desktop host."""

    def test_paintedRegionBecomesItsCalcium(self):
        import numpy as np

        from CACScoringLib.core.labels import Artery
        from CACScoringLib.review.picking import Voxels

        with module.editorOnLesion("CAC Decompose", withMap=True) as (editor, segmentation, effect):
            effect.chooseArtery(Artery.LM)
            part = (slice(3, 9), slice(9, 15), slice(9, 12))
            effect.scan.change("LM", Voxels(part, np.ones((6, 6, 3), bool)))
            effect.onApply()
            # Eight of the map's sixteen voxels lie in the region.
            self.assertEqual(module.countVoxels(segmentation, "LM"), 8)
            editor.undo()
            self.assertEqual(module.countVoxels(segmentation, "LM"), 108)
