"""Tests of CAC Decompose."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from effect_desk import LESION, SECOND_LESION, SHAPE, arrays, image_of
from whole_records import automatic_record

from CACScoringLib.core.labels import Artery
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import SceneContent


class TestDecompose:
    def test_painted_region_becomes_its_calcium(self, desk):
        desk.give("LAD", (slice(6, 10), slice(15, 30), slice(10, 32)))
        effect = desk.use("CAC Decompose")
        slicer.app.processEvents()
        assert effect.hintLabel.text == "128.0 of 2640.0 mm³ in 4 slices; calcium adds 60 HU at most."
        effect.applyButton.click()
        expected = np.zeros(SHAPE, bool)
        expected[7:9, 19:24, 13:19] = True
        expected[SECOND_LESION] = True
        np.testing.assert_array_equal(desk.voxels("LAD"), expected)
        desk.editor.undo()
        assert desk.counts() == {"LAD": 4 * 15 * 22}, "one step takes all back"

    def test_lesions_that_were_not_painted_stay(self, make_desk):
        """Leave a lesion whose map is empty alone, in other slices and beside the region, though a part is painted."""
        desk = make_desk("SAR")
        desk.segmentation.GetNodeReference(mrml.CALCIUM_MAP_ROLE).GetImageData().GetPointData().GetScalars().Fill(0)
        desk.give("LAD", LESION)
        before = desk.voxels("LAD")
        effect = desk.use("CAC Decompose")
        slicer.app.processEvents()
        assert not effect.applyButton.enabled
        painted = before.copy()
        painted[8, 18:26, 12:20] = painted[5, 10:14, 10:14] = painted[7, 10:14, 10:14] = True
        desk.give("LAD", painted)
        slicer.app.processEvents()
        effect.applyButton.click()
        before[8] = False
        np.testing.assert_array_equal(desk.voxels("LAD"), before)

    def test_floor_and_preview(self, desk):
        from CACScoringLib.panel.effects.views import CANDIDATE_COLOUR

        desk.give("LAD", (slice(7, 8), slice(15, 30), slice(10, 32)))
        desk.segmentation.GetDisplayNode().SetVisibility(False)
        effect = desk.use("CAC Decompose")
        slicer.app.processEvents()
        low = desk.lit(CANDIDATE_COLOUR)
        effect.boxes["FloorHU"].setValue(30)
        slicer.app.processEvents()
        high = desk.lit(CANDIDATE_COLOUR)
        assert high == pytest.approx(low * 30 / 34, rel=0.05)
        assert desk.counts() == {"LAD": 330}
        effect.cancelButton.click()
        assert desk.editor.activeEffect() is None
        assert desk.lit(CANDIDATE_COLOUR) == 0
        assert desk.counts() == {"LAD": 330}

    @pytest.mark.long
    def test_visible_slice_leaves_other_arteries_alone(self, desk):
        desk.give("RCA", (slice(7, 8), slice(19, 24), slice(13, 15)))
        desk.give("unassigned", (slice(7, 8), slice(19, 24), slice(15, 16)))
        desk.give("not-coronary", SECOND_LESION)
        effect = desk.use("CAC Decompose")
        desk.click((7, 21, 15))
        effect.visibleButton.setChecked(True)
        slicer.app.processEvents()
        effect.applyButton.click()
        assert desk.counts() == {"LAD": 20, "RCA": 10, "not-coronary": 4}
        assert set(np.argwhere(desk.voxels("LAD"))[:, 0]) == {7}

    def test_preview_follows_slice_segment_and_undo(self, desk):
        desk.give("RCA", (slice(7, 9), slice(15, 30), slice(10, 22)))
        effect = desk.use("CAC Decompose")
        slicer.app.processEvents()
        assert "no painted region" in effect.hintLabel.text
        assert not effect.applyButton.enabled
        desk.key("4")
        slicer.app.processEvents()
        assert effect.hintLabel.text.startswith("120.0 of")
        effect.applyButton.click()
        slicer.app.processEvents()
        assert "no painted region" in effect.hintLabel.text, "it is decomposed"
        desk.editor.undo()
        slicer.app.processEvents()
        assert effect.hintLabel.text.startswith("120.0 of 720.0")
        effect.visibleButton.setChecked(True)
        desk.show_slice(2)
        slicer.app.processEvents()
        assert effect.hintLabel.text.startswith("0.0 of")

    def test_floor_is_that_of_the_map_until_changed_by_the_reader(self, desk):
        hu, heart, calcium = (image_of(values) for values in arrays())
        labels = sitk.Cast(calcium > 0, sitk.sitkUInt8) * int(Artery.LAD)
        record = automatic_record({"threshold": 130.0, "decomposition": 130.0})
        record["decomposition_settings"] = {"floor_hu": 25.0}
        content = SceneContent("scan", hu, heart, labels, json.dumps(record), calcium, hu, labels)
        assert desk.use("CAC Decompose").boxes["FloorHU"].value == 10, "of no result: the published one"
        nodes = mrml.add_to_scene(slicer.mrmlScene, content)
        for segmentation in (nodes.map_lesions, nodes.calcium):
            desk.editor.setSegmentationNode(segmentation)
            desk.editor.setSourceVolumeNode(nodes.volume)
            desk.editor.setCurrentSegmentID("LAD")
            effect = desk.use("CAC Decompose")
            assert effect.boxes["FloorHU"].value == 25
            effect.boxes["FloorHU"].setValue(40)
            desk.editor.setActiveEffect(None)
            assert desk.use("CAC Decompose").boxes["FloorHU"].value == 40, "the reader's own choice stays"
            slicer.app.processEvents()
            assert "no painted region" in effect.hintLabel.text, "lesions of the result"

    def test_other_region_is_previewed_and_applied(self, desk):
        """Follow a parameter, whose change does not modify the node."""
        desk.give("LAD", (slice(7, 8), slice(15, 30), slice(10, 32)))
        effect = desk.use("CAC Decompose")
        slicer.app.processEvents()
        assert effect.hintLabel.text == "68.0 of 660.0 mm³ in 1 slice; calcium adds 60 HU at most."
        desk.editor.activeEffect().setParameter("Region", "Shown")
        slicer.app.processEvents()
        assert effect.visibleButton.checked
        assert effect.hintLabel.text == "68.0 of 3200.0 mm³ in 1 slice; calcium adds 60 HU at most."
        effect.applyButton.click()
        assert desk.counts() == {"LAD": 15 * 22}, "nothing of the painted region goes"
        effect.paintedButton.setChecked(True)
        slicer.app.processEvents()
        assert effect.hintLabel.text.startswith("68.0 of 660.0")
        effect.applyButton.click()
        assert desk.counts() == {"LAD": 34}

    def test_without_a_map(self, desk):
        desk.segmentation.SetNodeReferenceID(mrml.CALCIUM_MAP_ROLE, None)
        effect = desk.use("CAC Decompose")
        slicer.app.processEvents()
        assert "Compute the map" in effect.hintLabel.text
        assert not effect.applyButton.enabled
