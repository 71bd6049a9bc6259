"""Tests of the voxels that effects change: masking, one segment per voxel, and segments on other grids."""

import numpy as np
import SimpleITK as sitk
import slicer
from effect_desk import SHAPE, image_of

from CACScoringLib.core.labels import Artery
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.review.picking import Voxels


class TestMasking:
    def test_is_respected_and_unchanged(self, desk):
        """Paint over a lesion of 300 HU, tissue of 40 HU and another artery's voxels."""
        kind = slicer.vtkMRMLSegmentationNode
        desk.give("RCA", (slice(7, 8), slice(20, 23), slice(14, 16)))
        desk.node.SetMaskMode(kind.EditAllowedOutsideAllSegments)
        desk.node.SetSourceVolumeIntensityMask(True)
        desk.node.SetSourceVolumeIntensityMaskRange(200, 400)
        voxels = Voxels((slice(7, 8), slice(19, 24), slice(13, 19)), np.ones((1, 5, 6), bool))
        assert desk.use("CAC Region").scan.change("LAD", voxels) == 6
        assert desk.counts() == {"LAD": 6, "RCA": 6}
        assert desk.node.GetMaskMode() == kind.EditAllowedOutsideAllSegments
        desk.editor.undo()
        assert desk.counts() == {"RCA": 6}

    def test_a_voxel_lies_in_a_single_segment_in_each_overwrite_mode(self, desk):
        desk.node.SetOverwriteMode(desk.node.OverwriteNone)
        effect = desk.use("CAC Lesion")
        desk.click((7, 21, 15))
        effect.chooseArtery(Artery.RCA)
        desk.click((7, 21, 15))
        assert desk.counts() == {"RCA": 24}
        assert desk.node.GetOverwriteMode() == desk.node.OverwriteNone

    def test_segment_on_another_grid(self, desk):
        """Use a segment with half the voxel size and another extent, as from another program."""
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
