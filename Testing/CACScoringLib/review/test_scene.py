"""A reader's edits in a scene on Slicer's own MRML: numbers, undo, saving, and what other tools do to the segments."""

import json

import kernel_scans
import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from scene_edits import METHODS, PART, ids, numbers, paint

from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import NOT_CORONARY_ID, Artery
from CACScoringLib.io.reading import read_lesion_labels
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import content_of_folder
from CACScoringLib.mrml.segments import segment_mask
from CACScoringLib.pipeline import score_scan
from CACScoringLib.report import files as report
from CACScoringLib.review.scene import SceneReview
from CACScoringLib.scoring.scores import score_of


@pytest.mark.parametrize(
    "direction",
    [(0, 0, 1, 1, 0, 0, 0, -1, 0), (-1, 0, 0, 0, -1, 0, 0, 0, 1)],
    ids=["sagittal, upside down", "turned"],
)
def test_a_volume_of_any_axis_order_has_the_scores_of_its_folder(scene, scored, tmp_path, direction):
    """Keep the node's CT and read the worker's results from files, as the panel does."""
    report.write_json(tmp_path / "scores.json", scored.record, {})
    report.write_images(tmp_path, scored)
    image = sitk.DICOMOrient(
        scored.scan.image, sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(direction)
    )
    volume = mrml.add_volume(scene, image, "CT")
    nodes = mrml.add_to_scene(scene, content_of_folder(tmp_path, image, "CT"), volume)
    review = SceneReview(scene, nodes)
    for method in METHODS:
        result, expected = review.result(method), scored.methods[method]
        assert (result.total, result.arteries) == (expected.total, expected.arteries)
        assert result.total.lesions > 5
        np.testing.assert_array_equal(result.lesion_set.id_map, expected.lesion_set.id_map)
        for lesion, reference in zip(result.lesions, expected.lesions, strict=True):
            assert lesion.id == reference.id
            if reference.verdict is None:
                assert lesion.verdict is None
                continue
            assert lesion.verdict.artery == reference.verdict.artery
            assert lesion.verdict.confidence == pytest.approx(reference.verdict.confidence, abs=5e-4)
    lesion = review.result("threshold").lesions[0]
    review.assign("threshold", [lesion.id], Artery.RCA)
    moved = review.result("threshold").arteries[Artery.RCA]
    assert moved.agatston == pytest.approx(sum(c.area_mm2 * c.weight for c in lesion.components) * 2.5 / 3)
    assert nodes.calcium.GetSegmentation().GetNumberOfLayers() == 1
    review.undo()
    assert review.result("threshold").total == scored.methods["threshold"].total


def test_a_scan_that_was_normalised_is_scored_as_in_its_run(opened, tmp_path):
    """The scene holds the scan as it is; what a reader edits is scored as the run scored it."""
    scan = kernel_scans.scan_with(kernel_scans.BONE, calcium=True)
    heart = np.zeros(scan.hu.shape, np.uint8)
    heart[:, 90:190, 90:190] = 1
    heart = Grid.of(scan.image).image(heart)
    scored = score_scan(scan, heart=heart)
    review = opened(scored)
    assert (review.scan.hu == scan.hu).all()
    assert review.result("threshold").total == scored.methods["threshold"].total
    review.export(tmp_path / "reviewed")
    record = json.loads((tmp_path / "reviewed" / "scores.json").read_text(encoding="utf-8"))
    assert record["normalisation"]["gain"] == list(scored.record.normalisation.gain)


@pytest.mark.parametrize("method", METHODS)
def test_assigned_and_rejected_lesions(review, method):
    before = review.result(method)
    node = review.nodes.calcium if method == "threshold" else review.nodes.map_lesions
    first, second, third = [x for x in before.lesions if x.site != Artery.OTHER][:3]
    review.assign(method, [first.id, second.id], Artery.OTHER)
    review.reject(method, [third.id])
    after = review.result(method)
    assert after.arteries[Artery.OTHER].lesions == 2
    assert third.id not in ids(review, method)
    assert after.total.lesions == before.total.lesions - 1
    assert segment_mask(node, NOT_CORONARY_ID, review.scan.image).sum() == third.voxels
    review.set_reviewed(method, True)
    assert review.result(method).reviewed
    assert review.result(method).arteries[Artery.UNASSIGNED].lesions == 0
    review.undo()
    review.reject_unassigned(method)
    assert review.result(method).arteries[Artery.UNASSIGNED].lesions == 0


def test_no_calcium_is_a_reviewed_score_of_0_of_the_shown_method(review, tmp_path):
    review.assign("threshold", ids(review, "threshold")[:2], Artery.LAD)
    review.set_no_calcium("threshold")
    result = review.result("threshold")
    assert (result.reviewed, result.no_calcium, result.total) == (True, True, score_of((), has_masses=True))
    confirmation = review.confirmations["threshold"]
    assert 0 < confirmation.candidates_unseen == confirmation.candidates - 2, "two were assigned"
    assert f"2 of {confirmation.candidates} candidates looked at" in confirmation.in_words
    assert not review.reviewed["decomposition"], "the map was hidden"
    assert (review.categories().risk_class, review.categories().cac_drs) == ("0", "A0")
    review.export(tmp_path / "out")
    document = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert document["methods"]["threshold"]["no_calcium"]
    assert not sitk.GetArrayFromImage(read_lesion_labels(tmp_path / "out" / "lesions.nii.gz")).any()
    review.undo()
    assert not any(review.reviewed.values())
    review.redo()
    paint(review, "LAD", PART)
    review.refresh()
    assert not review.result("threshold").no_calcium


class TestSlices:
    def test_rows(self, review, scored):
        rows = review.slices()
        assert [row.k for row in rows] == list(range(24))
        in_heart = scored.region.mask.any((1, 2))
        assert [row.probability for row in rows] == [1.0 if inside else None for inside in in_heart]
        assert [row.used for row in rows] == [row.decomposed for row in rows] == in_heart.tolist()
        i, j, k = 47.5, 47.5, 3
        x, y, z = scored.scan.image.TransformContinuousIndexToPhysicalPoint((i, j, k))
        assert rows[3].position_ras == pytest.approx((-x, -y, z))

    def test_switched_off_and_on_again(self, review):
        before = numbers(review)
        k = review.result("decomposition").lesions[0].slices[1]
        review.switch_slice(k, False)
        off = numbers(review)
        assert off["threshold"] == before["threshold"]
        assert off["decomposition"][0].agatston < before["decomposition"][0].agatston
        assert not review.slices()[k].used
        assert review.slices_off == (k,)
        assert "slices-switched-off" in [w.code for w in review.warnings]
        review.switch_slice(k, True)
        assert numbers(review) == before

    def test_never_decomposed_waits_for_a_new_run(self, review):
        before = numbers(review)
        assert not review.slices()[0].decomposed
        review.switch_slice(0, True)
        assert review.slices_wished == (0,)
        assert numbers(review) == before
        assert [w.code for w in review.warnings].count("slices-to-decompose") == 1


def test_every_kind_of_edit_is_undone_in_order(review):
    states = [numbers(review)]

    def done():
        states.append(numbers(review))

    review.assign("threshold", ids(review, "threshold")[:1], Artery.LCX)
    done()
    review.reject("decomposition", ids(review, "decomposition")[1:3])
    done()
    review.switch_slice(review.result("decomposition").lesions[0].slices[0], False)
    done()
    paint(review, "RCA", (slice(8, 12), slice(30, 50), slice(30, 50)))
    review.refresh()
    done()
    review.set_reviewed("threshold", True)
    done()
    assert len({str(state) for state in states}) == len(states)
    for state in states[-2::-1]:
        assert review.can_undo
        assert review.undo()
        assert numbers(review) == state
    assert not review.can_undo
    assert not review.undo()
    for state in states[1:]:
        assert review.can_redo
        assert review.redo()
        assert numbers(review) == state
    assert not review.redo()


def test_observers_never_see_a_half_written_state(review):
    """The panel refreshes when segments change, which they do several times in one edit."""
    separate_layers(review.nodes.calcium)
    review.refresh()
    refreshes = []
    for node in (review.nodes.calcium, review.nodes.map_lesions):
        node.GetSegmentation().AddObserver(
            slicer.vtkSegmentation.SourceRepresentationModified, lambda *_: refreshes.append(review.refresh())
        )
    before = numbers(review)
    review.assign("threshold", ids(review, "threshold")[:3], Artery.LCX)
    assert refreshes
    assert not any(refreshes)
    assert review.undo()
    assert numbers(review) == before
    assert not review.can_undo


def separate_layers(segmentation):
    for segment_id in segmentation.GetSegmentation().GetSegmentIDs():
        segmentation.GetSegmentation().SeparateSegmentLabelmap(segment_id)
    assert segmentation.GetSegmentation().GetNumberOfLayers() == 11


def all_masks(review):
    return [
        segment_mask(node, segment_id, review.scan.image)
        for node in (review.nodes.calcium, review.nodes.map_lesions)
        for segment_id in node.GetSegmentation().GetSegmentIDs()
    ]


class TestOtherTools:
    def test_layers_make_no_difference(self, review):
        separate_layers(review.nodes.calcium)
        assert not review.refresh()
        first, second, third, *_ = ids(review, "threshold")
        review.assign("threshold", [first, second], Artery.LAD)
        review.assign("threshold", [second], Artery.LCX)
        review.reject("threshold", [third])
        result = review.result("threshold")
        assert {x.id: x.site for x in result.lesions if x.id in (first, second, third)} == {
            first: Artery.LAD,
            second: Artery.LCX,
        }
        assert not review.problems

    def test_overlapping_segments_have_no_score(self, review, tmp_path):
        before = numbers(review)
        review.assign("threshold", ids(review, "threshold")[:1], Artery.LAD)
        assigned = numbers(review)
        paint(review, "RCA", PART, overwrite=False)
        assert review.refresh()
        text = review.problems["threshold"]
        assert "RCA" in text
        with pytest.raises(MaskError, match="RCA"):
            review.result("threshold")
        assert set(review.results()) == {"decomposition"}
        with pytest.raises(MaskError, match="RCA"):
            review.reject_unassigned("threshold")
        assert review.categories() is None
        assert text in [w.message for w in review.warnings]
        with pytest.raises(MaskError, match="RCA"):
            review.export(tmp_path / "reviewed")
        assert not (tmp_path / "reviewed").exists()
        review.update_tables()
        column = review.nodes.scores.GetTable().GetColumnByName("Method")
        assert {column.GetValue(n) for n in range(column.GetNumberOfValues())} == {"decomposition"}
        assert review.can_undo
        assert review.undo()
        assert not review.problems
        assert numbers(review) == assigned
        assert review.undo()
        assert numbers(review) == before

    def test_scene_that_came_with_an_overlap_keeps_its_segments(self, review):
        """There is no earlier state to go back to."""
        paint(review, "RCA", PART, overwrite=False)
        again = SceneReview(review.scene, review.nodes)
        assert set(again.problems) == {"threshold"}
        before = all_masks(again)
        assert not again.can_undo
        assert not again.undo()
        for was, now in zip(before, all_masks(again), strict=True):
            np.testing.assert_array_equal(was, now)
        paint(again, "RCA", PART, slicer.vtkSlicerSegmentEditorLogic.ModificationModeRemove, overwrite=False)
        assert again.refresh()
        assert again.result("threshold").total == review.result("threshold").total

    def test_segment_of_the_users_own(self, review):
        segments = review.nodes.calcium.GetSegmentation()
        segments.AddEmptySegment("Segment_1", "valve")
        review.refresh()
        assert not review.problems  # without voxels it changes no score
        paint(review, "Segment_1", PART)
        assert review.refresh()
        assert "segment valve" in review.problems["threshold"]
        segments.GetSegment("Segment_1").SetName("LCX")
        assert review.refresh()
        assert not review.problems
        assert review.result("threshold").arteries[Artery.LCX].lesions > 0

    def test_segment_that_was_removed_comes_back(self, review):
        for segment_id in ("LCX", NOT_CORONARY_ID):
            review.nodes.calcium.GetSegmentation().RemoveSegment(segment_id)
        first, second, *_ = ids(review, "threshold")
        review.assign("threshold", [first], Artery.LCX)
        review.reject("threshold", [second])
        assert review.result("threshold").arteries[Artery.LCX].lesions == 1
        assert second not in ids(review, "threshold")


def test_scored_by_the_clinical_rule_alone(opened, scored):
    alone = score_scan(scored.scan, heart=scored.scan.grid.image(scored.region.mask))
    review = opened(alone)
    assert review.methods == ("threshold",)
    assert review.slices() == []
    review.reject("threshold", ids(review, "threshold")[:1])
    assert review.result("threshold").total.lesions == alone.methods["threshold"].total.lesions - 1
    with pytest.raises(MaskError, match="no slice 3"):
        review.switch_slice(3, False)
