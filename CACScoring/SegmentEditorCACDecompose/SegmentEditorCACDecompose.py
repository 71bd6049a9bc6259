"""CAC Decompose: registers the effect of that name with Segment Editor."""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, PT009

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest


class SegmentEditorCACDecompose(ScriptedLoadableModule):
    """Description of the hidden module for Slicer; its effect is a button of Segment Editor."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "SegmentEditorCACDecompose"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "CACScoring"]
        parent.contributors = ["CAC developers"]
        parent.hidden = True
        parent.helpText = _(
            "Adds the effect CAC Decompose to Segment Editor. It is used in the CAC Scoring module, too."
        )
        parent.acknowledgementText = _("Developed by the CAC developers. Licence: Apache-2.0.")
        slicer.app.startupCompleted.connect(registerEffect)


def registerEffect() -> None:
    """Register the effect; a second call changes nothing."""
    import SegmentEditorCACDecomposeLib

    from CACScoringLib.panel.effects import base as effect_base

    effect_base.registerEffect(SegmentEditorCACDecomposeLib)


class SegmentEditorCACDecomposeTest(ScriptedLoadableModuleTest):
    """Self test on a synthetic lesion with a calcium map, run in Slicer and in the project's desktop host."""

    def setUp(self):
        slicer.mrmlScene.Clear()
        # Startup has not completed in a test run.
        registerEffect()

    def tearDown(self):
        slicer.mrmlScene.Clear()

    def test_paintedRegionBecomesItsCalcium(self):
        import numpy as np

        from CACScoringLib.core.labels import Artery
        from CACScoringLib.panel.effects.self_test import countVoxels, editorOnLesion
        from CACScoringLib.review.picking import Voxels

        with editorOnLesion("CAC Decompose", withMap=True) as (editor, segmentation, effect):
            effect.chooseArtery(Artery.LM)
            part = (slice(3, 9), slice(9, 15), slice(9, 12))
            effect.scan.change("LM", Voxels(part, np.ones((6, 6, 3), bool)))
            effect.onApply()
            # Eight of the map's sixteen voxels lie in the region.
            self.assertEqual(countVoxels(segmentation, "LM"), 8)
            editor.undo()
            self.assertEqual(countVoxels(segmentation, "LM"), 108)
