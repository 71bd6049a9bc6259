"""What the effects change: Segment Editor's masking, one segment for a voxel, segments of other grids."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from effect_desk import SHAPE, image_of

from CACScoringLib.core.labels import Artery
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.review.picking import Voxels


class TestMasking:
    """The effects' own masking, which reads only what is edited, is Slicer's."""

    MODES = ("Everywhere", "InsideAllSegments", "InsideVisibleSegments", "OutsideAllSegments")
    MODES += ("OutsideVisibleSegments", "InsideSingleSegment")

    @pytest.mark.parametrize(("mode", "intensity"), list(itertools.product(MODES, [False, True])))
    def test_as_slicers_own(self, desk, mode, intensity):
        desk.give("RCA", (slice(6, 8), slice(18, 22), slice(12, 18)))
        desk.give("LM", (slice(7, 9), slice(21, 25), slice(10, 16)))
        desk.give("LAD", (slice(7, 8), slice(22, 26), slice(16, 19)))
        desk.segmentation.GetDisplayNode().SetSegmentVisibility("LM", False)
        # The editor takes back "inside a single segment" as long as it is not said which one.
        desk.node.SetMaskSegmentID("RCA")
        desk.node.SetMaskMode(getattr(slicer.vtkMRMLSegmentationNode, f"EditAllowed{mode}"))
        desk.node.SetSourceVolumeIntensityMask(intensity)
        desk.node.SetSourceVolumeIntensityMaskRange(40, 299)
        scan = desk.use("CAC Region").scan
        voxels = Voxels((slice(6, 9), slice(17, 27), slice(9, 20)), np.ones((3, 10, 11), bool))
        before = desk.counts()
        editor = slicer.qSlicerSegmentEditorAbstractEffect
        # Inside a single segment, Slicer gives it what is removed from another; an effect removes nothing there.
        edits = [((voxels,), editor.ModificationModeAdd)]
        edits += [((None, voxels), editor.ModificationModeRemove)] if mode != "InsideSingleSegment" else []
        for ours, slicers in edits:
            scan.change("LAD", *ours)
            found = {own: desk.voxels(own) for own in desk.segmentation.GetSegmentation().GetSegmentIDs()}
            if desk.counts() != before:
                desk.editor.undo()
            assert desk.counts() == before
            effect = desk.editor.activeEffect()
            effect.modifySegmentByLabelmap(desk.segmentation, "LAD", scan.labelmap(voxels), slicers)
            for own, mask in found.items():
                np.testing.assert_array_equal(mask, desk.voxels(own), err_msg=own)
            effect.saveStateForUndo()
            desk.editor.undo()
            desk.editor.undo()
            assert desk.counts() == before
        assert desk.node.GetSourceVolumeIntensityMask() == intensity
        assert desk.node.GetMaskMode() == getattr(slicer.vtkMRMLSegmentationNode, f"EditAllowed{mode}")

    def test_a_voxel_lies_in_one_segment_whatever_the_overwrite_mode(self, desk):
        desk.node.SetOverwriteMode(desk.node.OverwriteNone)
        effect = desk.use("CAC Lesion")
        desk.click((7, 21, 15))
        effect.chooseArtery(Artery.RCA)
        desk.click((7, 21, 15))
        assert desk.counts() == {"RCA": 24}
        assert desk.node.GetOverwriteMode() == desk.node.OverwriteNone

    def test_segment_on_another_grid(self, desk):
        """As loaded from elsewhere: half the voxel size, its own extent."""
        fine = sitk.Resample(
            image_of(np.zeros(SHAPE, np.uint8)), (80, 80, 32), sitk.Transform(), sitk.sitkNearestNeighbor,
            (-20.25, -21.25, -15.5), (0.5, 0.5, 1.0),
        )  # fmt: skip
        values = np.zeros(fine.GetSize()[::-1], np.uint8)
        values[14:18, 40:46, 28:36] = 1
        node = mrml.add_volume(slicer.mrmlScene, fine, "fine")
        slicer.util.updateSegmentBinaryLabelmapFromArray(values, desk.segmentation, "RCA", node)
        scan = desk.use("CAC Lesion").scan
        assert scan.segment_at((7, 21, 15)) == "RCA"
        assert scan.voxels_of("RCA").count == 24
        desk.click((7, 21, 15))
        assert desk.counts() == {"LAD": 24}
