"""Tests of CAC Lesion: hovering, clicks, drags, keys, rejection, and leaks."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from effect_desk import LESION, SHAPE, arrays, image_of, rotation
from whole_records import automatic_record

from CACScoringLib.core.labels import Artery
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import SceneContent


class TestLesion:
    def test_click_gives_the_lesion_to_the_selected_artery(self, desk):
        effect = desk.use("CAC Lesion")
        desk.click((7, 21, 15))
        np.testing.assert_array_equal(np.argwhere(desk.voxels("LAD")).min(0), [7, 20, 14])
        assert desk.counts() == {"LAD": 24}
        assert effect.statusLabel.text == "Added to LAD: 48.0 mm³, peak 300 HU."
        desk.move((7, 21, 29))
        assert effect.statusLabel.text == "Added to LAD: 48.0 mm³, peak 300 HU.", "it stays in sight"
        assert effect.hintLabel.text == "8.0 mm³, peak 200 HU"

    def test_nothing_is_changed_in_a_view_of_another_scan(self, desk):
        effect = desk.use("CAC Lesion")
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Other")
        composite = desk.view.mrmlSliceCompositeNode()
        composite.SetBackgroundVolumeID(other.GetID())
        desk.click((7, 21, 15))
        assert desk.counts() == {}
        assert "Other" in effect.hintLabel.text
        composite.SetBackgroundVolumeID(desk.volume.GetID())
        desk.click((7, 21, 15))
        assert desk.counts() == {"LAD": 24}

    def test_a_click_stops_at_another_site_and_a_second_click_takes_both(self, desk):
        """Click on 16 voxels of the RCA that touch 8 voxels of the valve."""
        desk.give("RCA", (slice(7, 9), slice(20, 22), slice(14, 18)))
        desk.give("aortic-valve-and-root", (slice(7, 9), slice(22, 23), slice(14, 18)))
        effect = desk.use("CAC Lesion")
        desk.editor.setCurrentSegmentID("RCA")
        before = desk.counts()
        assert before == {"RCA": 16, "aortic-valve-and-root": 8}
        desk.click((7, 21, 15))
        assert desk.counts() == before, "it is the RCA's already"
        assert effect.statusLabel.text.endswith("Left: aortic valve and root 16.0 mm³. Click again to take it too.")
        desk.click((7, 21, 15))
        assert desk.counts() == {"RCA": 24}
        desk.editor.undo()
        desk.editor.setCurrentSegmentID("LAD")
        desk.click((7, 22, 15))
        assert desk.counts() == {"RCA": 16, "LAD": 8}, "a click on the other site takes that alone"
        assert effect.statusLabel.text.startswith("Moved to LAD from aortic valve and root: 16.0 mm³, peak 300 HU.")

    def test_a_labelled_lesion_is_added_unchanged(self, desk):
        """Click on a lesion outside the heart, beside an unlabelled device above 130 HU."""
        listed = (slice(7, 8), slice(35, 37), slice(14, 16))
        desk.give("other", listed)
        effect = desk.use("CAC Lesion")
        desk.editor.setCurrentSegmentID("LAD")
        desk.click((7, 36, 15))
        assert desk.counts() == {"LAD": 4}
        assert effect.statusLabel.text == "Moved to LAD from other: 8.0 mm³, peak 600 HU."

    def test_a_click_at_another_place_or_another_artery_ends_the_offer(self, desk):
        desk.give("LAD", (slice(7, 9), slice(20, 23), slice(16, 18)))
        desk.use("CAC Lesion")
        desk.editor.setCurrentSegmentID("RCA")
        desk.click((7, 21, 14))
        desk.click((7, 21, 29))
        assert desk.counts() == {"LAD": 12, "RCA": 16}
        desk.click((7, 21, 14))
        assert desk.counts() == {"LAD": 12, "RCA": 16}
        desk.editor.setCurrentSegmentID("LCX")
        desk.click((7, 21, 14))
        assert desk.counts() == {"LAD": 12, "LCX": 12, "RCA": 4}

    def test_a_drag_takes_voxels_of_any_site_in_its_sphere(self, desk):
        desk.give("LAD", (slice(7, 9), slice(20, 23), slice(16, 18)))
        desk.use("CAC Lesion")
        desk.editor.setCurrentSegmentID("RCA")
        desk.press((7, 21, 16))
        desk.move((7, 21, 17.2))
        desk.release((7, 21, 17.2))
        assert desk.counts() == {"LAD": 8, "RCA": 5}

    @pytest.mark.parametrize(
        ("order", "direction"),
        [("LPS", ("z", 40)), ("RAS", None), ("SAR", ("x", 25)), ("ILP", ("z", 40))],
        ids=str,
    )
    def test_any_axes(self, make_desk, order, direction):
        desk = make_desk(order, direction and rotation(*direction))
        desk.use("CAC Lesion")
        desk.click((7, 22.4, 17.6))
        assert desk.counts() == {}, "beside the lesion's last voxel"
        desk.click((7, 22.4, 17.4))
        expected = np.zeros(SHAPE, bool)
        expected[LESION] = True
        np.testing.assert_array_equal(desk.voxels("LAD"), expected)

    def test_hover_lights_the_candidate_up(self, desk):
        from CACScoringLib.panel.effects.views import CANDIDATE_COLOUR

        before = desk.overlays()
        desk.use("CAC Lesion")
        assert desk.lit(CANDIDATE_COLOUR) == 0
        desk.move((7, 21, 15))
        assert desk.overlays() > before
        pixel_mm = np.linalg.norm([desk.view.mrmlSliceNode().GetXYToRAS().GetElement(row, 0) for row in range(3)])
        assert desk.lit(CANDIDATE_COLOUR) == pytest.approx(12 / pixel_mm**2, rel=0.1)
        assert desk.counts() == {}
        desk.show_slice(10)
        assert desk.lit(CANDIDATE_COLOUR) == 0
        desk.move((10, 21, 15))
        desk.show_slice(8)
        assert desk.lit(CANDIDATE_COLOUR) > 0, "the slice that has come under the mouse"
        desk.interactor.InvokeEvent("LeaveEvent")
        assert desk.lit(CANDIDATE_COLOUR) == 0
        desk.editor.setActiveEffect(None)
        assert desk.overlays() == before, "the effect takes its actors along"

    def test_keys_choose_the_artery(self, desk):
        desk.use("CAC Lesion")
        desk.move((7, 21, 15))
        for key, artery in zip("12345", ("LM", "LAD", "LCX", "RCA", "other"), strict=True):
            desk.key(key)
            assert desk.node.GetSelectedSegmentID() == artery
            desk.click((7, 21, 15))
            assert desk.counts() == {artery: 24}

    def test_the_view_under_the_mouse_takes_the_keys_before_the_first_click(self, desk):
        for name in ("CAC Lesion", "CAC Region", "CAC Decompose"):
            desk.editor.setCurrentSegmentID("LAD")
            slicer.util.mainWindow().moduleSelector().setFocus()
            desk.use(name)
            desk.interactor.InvokeEvent("EnterEvent")
            desk.key_where_the_focus_is("4")
            assert desk.node.GetSelectedSegmentID() == "RCA"

    def test_keys_are_not_the_editors_while_the_effect_is_active(self, desk):
        desk.editor.installKeyboardShortcuts()
        desk.use("CAC Lesion")
        desk.key("4")
        assert desk.node.GetSelectedSegmentID() == "RCA"
        assert desk.editor.activeEffect().name == "CAC Lesion"
        desk.editor.setActiveEffect(None)
        desk.key("1")
        assert desk.editor.activeEffect() is not None, "the editor has its own digits back"
        assert desk.node.GetSelectedSegmentID() == "RCA"
        desk.editor.uninstallKeyboardShortcuts()

    def test_x_rejects_the_lesion_under_the_cursor(self, desk):
        effect = desk.use("CAC Lesion")
        desk.click((7, 21, 15))
        desk.key("x")
        assert desk.counts() == {"not-coronary": 24}
        assert "Rejected: 48.0 mm³" in effect.statusLabel.text
        desk.key("x")
        desk.move((7, 21, 29))
        desk.key("x")
        assert desk.counts() == {"not-coronary": 28}

    def test_leak_into_bone_is_shown_and_not_added(self, desk):
        from CACScoringLib.panel.effects.views import LEAK_COLOUR

        effect = desk.use("CAC Lesion")
        desk.node.SetAttribute("CAC Lesion.InsideHeart", "0")
        desk.node.SetAttribute("CAC Lesion.MostVolumeMm3", "1000")
        desk.move((7, 32, 20))
        assert desk.lit(LEAK_COLOUR) > 0
        desk.click((7, 32, 20))
        assert desk.counts() == {}
        assert "larger than 1000 mm³" in effect.statusLabel.text
        desk.press((7, 32, 20))
        desk.move((7, 34, 20))
        desk.release((7, 34, 20))
        assert 0 < desk.counts()["LAD"] * 2 < 4 / 3 * np.pi * 3**3

    def test_only_inside_the_heart(self, desk):
        effect = desk.use("CAC Lesion")
        effect.boxes["MostVolumeMm3"].setValue(5000)
        desk.click((7, 32, 20))
        assert set(np.argwhere(desk.voxels("LAD"))[:, 1]) == {30, 31, 32, 33}, "bone as far as the heart's outline goes"
        desk.click((7, 36, 20))
        assert "Outside the heart" in effect.statusLabel.text
        desk.show_slice(1)
        desk.node.SetAttribute("CAC Lesion.InsideHeart", "0")
        before = desk.counts()
        desk.click((1, 36, 20))
        assert desk.counts() == before, "no slice of the heart"

    def test_scored_scene_is_edited_with_its_own_threshold_and_heart(self, desk):
        hu, heart, calcium = (image_of(values) for values in arrays())
        candidates = sitk.Cast(hu >= 145, sitk.sitkUInt8) * int(Artery.UNASSIGNED)
        record = json.dumps(automatic_record({"threshold": 145.0, "decomposition": 10.0}))
        content = SceneContent("scan", hu, heart, candidates, record, calcium, hu, candidates)
        nodes = mrml.add_to_scene(slicer.mrmlScene, content)
        desk.segmentation = nodes.calcium
        desk.editor.setSegmentationNode(nodes.calcium)
        desk.editor.setSourceVolumeNode(nodes.volume)
        desk.view.mrmlSliceCompositeNode().SetBackgroundVolumeID(nodes.volume.GetID())
        effect = desk.use("CAC Lesion")
        assert effect.boxes["ThresholdHU"].value == 145
        effect.chooseArtery(Artery.RCA)
        before = desk.counts()["unassigned"]
        desk.click((7, 21, 15))
        assert desk.counts() == {"RCA": 24, "unassigned": before - 24}
        desk.click((7, 36, 20))
        assert "larger than 2000 mm³" in effect.statusLabel.text, "a candidate outside the heart, as it is listed"
        effect.boxes["ThresholdHU"].setValue(160)
        desk.editor.setActiveEffect(None)
        desk.use("CAC Lesion")
        assert effect.boxes["ThresholdHU"].value == 160, "the reader's own choice stays"
        desk.editor.setSegmentationNode(nodes.map_lesions)
        desk.use("CAC Lesion")
        assert effect.boxes["ThresholdHU"].value == 145, "on the CT, which has 10 HU everywhere"
        desk.segmentation = nodes.map_lesions
        desk.segmentation.GetDisplayNode().SetVisibility(True)
        effect.chooseArtery(Artery.LAD)
        desk.click((7, 21, 15))
        assert desk.counts()["LAD"] == 24
        effect = desk.use("CAC Decompose")
        slicer.app.processEvents()
        assert "No calcium map" not in effect.statusLabel.text

    def test_segmentation_under_a_transform(self, desk):
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 6.0)
        transform.SetMatrixTransformToParent(matrix)
        for node in (desk.volume, desk.segmentation):
            node.SetAndObserveTransformNodeID(transform.GetID())
        desk.use("CAC Lesion")
        desk.click((7, 21, 15 - 6))
        desk.segmentation.SetAndObserveTransformNodeID(None)
        assert desk.counts() == {"LAD": 24}

    def test_without_a_volume(self, desk):
        desk.use("CAC Lesion")
        slicer.mrmlScene.RemoveNode(desk.volume)
        desk.move((7, 21, 15))
        desk.click((7, 21, 15))
        assert desk.counts() == {}
