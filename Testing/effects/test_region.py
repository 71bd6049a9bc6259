"""Tests of CAC Region, and of the voxels that all effects change: masks, one segment per voxel, other grids."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from effect_desk import SHAPE, image_of, rotation

from CACScoringLib.core.labels import Artery
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.review.picking import Voxels


class TestRegion:
    def test_brush_is_a_centimetre_and_free_of_threshold(self, desk):
        effect = desk.use("CAC Region")
        assert effect.boxes["DiameterMm"].value == 10
        desk.click((7, 20, 20))
        painted = np.argwhere(desk.voxels("LAD"))
        assert set(painted[:, 0]) == {7}
        assert len(painted) == pytest.approx(np.pi * 5**2, rel=0.1)

    @pytest.mark.parametrize(("order", "direction"), [("LPS", None), ("SAR", ("x", 25))], ids=str)
    def test_stroke_in_any_axes_is_a_single_layer(self, make_desk, order, direction):
        desk = make_desk(order, direction and rotation(*direction))
        desk.use("CAC Region")
        painted = np.argwhere(stroke(desk, [15, 19, 25]))
        assert set(painted[:, 0]) == {7}
        # Along voxel centres the area is up to 191, because eleven rows rather than ten lie within 5 mm.
        assert len(painted) == pytest.approx(np.pi * 25 + 10 * 10, rel=0.08)

    def test_keys_wheel_and_undo(self, desk):
        effect = desk.use("CAC Region")
        desk.click((7, 15, 15))
        first = desk.counts()["LAD"]
        desk.key("3")
        desk.click((7, 15, 15))
        assert desk.counts() == {"LCX": first}
        desk.at((7, 15, 15))
        desk.interactor.SetShiftKey(1)
        desk.interactor.InvokeEvent("MouseWheelForwardEvent")
        assert effect.boxes["DiameterMm"].value == 12
        desk.interactor.InvokeEvent("MouseWheelBackwardEvent")
        assert effect.boxes["DiameterMm"].value == pytest.approx(10, abs=0.06)
        desk.editor.undo()
        assert desk.counts() == {"LAD": first}


def stroke(desk, columns) -> np.ndarray:
    """Paint along a row of slice 7 and return the painted voxels."""
    for act, column in zip([desk.press, *[desk.move] * (len(columns) - 2), desk.release], columns, strict=True):
        act((7, 20, column))
    return desk.voxels("LAD")


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
