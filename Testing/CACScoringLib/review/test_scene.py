"""A reader's edits in a scene on Slicer's own MRML: numbers, undo, saving, and what other tools do to the segments."""

import json
from dataclasses import replace

import automatic_patient
import heart_with_territories
import kernel_scans
import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from calcified_heart import NETWORKS, calcified_scan
from saved_scenes import read_mrb, read_mrml, write_mrml

from CACScoringLib.core.ct import MaskError, UnreadableError
from CACScoringLib.core.labels import NOT_CORONARY_ID, Artery, NonCoronary
from CACScoringLib.core.output import OutputError
from CACScoringLib.io.reading import read_lesion_labels
from CACScoringLib.models.cards import ModelError, StoredModel
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import content_of_folder, content_of_result
from CACScoringLib.mrml.segments import segment_mask
from CACScoringLib.pipeline import score_scan
from CACScoringLib.report import files as report
from CACScoringLib.review.scene import SceneReview
from CACScoringLib.scoring import repeatability
from CACScoringLib.scoring.scores import Score
from CACScoringLib.scoring.uncertainty import TOTAL

METHODS = ("threshold", "decomposition")


@pytest.fixture(scope="module")
def scored():
    scan, heart = calcified_scan()
    return score_scan(scan, heart=heart, networks=NETWORKS)


@pytest.fixture
def scene():
    slicer.vtkSlicerSegmentationsModuleLogic()
    return slicer.vtkMRMLScene()


@pytest.fixture
def review(scene, scored):
    content = content_of_result(scored, report.result_as_json(scored, {}))
    return SceneReview(scene, mrml.add_to_scene(scene, content))


def numbers(review):
    return {method: (review.result(method).total, review.result(method).arteries) for method in review.methods}


def ids(review, method):
    return [lesion.id for lesion in review.result(method).lesions.lesions]


class TestEqualsCacScore:
    def test_before_any_edit(self, review, scored):
        assert review.methods == METHODS
        for method in METHODS:
            found, expected = review.result(method), scored.methods[method]
            assert found.total.lesions > 5
            assert (found.total, found.arteries) == (expected.total, expected.arteries)
            assert found.lesions.lesions == expected.lesions.lesions
        codes = [w.code for w in scored.warnings]
        assert "unreviewed" in codes
        assert [w.code for w in review.warnings] == codes
        assert review.categories() is None

    def test_of_a_result_of_an_earlier_version_without_the_maps_scale(self, scene, scored):
        record = report.result_as_json(scored, {})
        del record["rules"]["decomposition"]["equivalent_mg_per_mm3_hu"]
        review = SceneReview(scene, mrml.add_to_scene(scene, content_of_result(scored, record)))
        found, expected = (of("decomposition").total for of in (review.result, scored.methods.__getitem__))
        assert 0 < found.clinical_agatston == expected.clinical_agatston < found.agatston

    @pytest.mark.parametrize(
        "direction",
        [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, 1, 1, 0, 0, 0, -1, 0), (-1, 0, 0, 0, -1, 0, 0, 0, 1)],
        ids=["axial", "sagittal, upside down", "turned"],
    )
    def test_of_a_volume_of_any_axis_order_scored_in_a_folder(self, scene, scored, tmp_path, direction):
        """As the panel does it: the node's CT stays as it is, the worker's results come from files."""
        report.write_json(tmp_path / "scores.json", scored, {})
        report.write_images(tmp_path, scored)
        own = sitk.DICOMOrient(
            scored.scan.image, sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(direction)
        )
        volume = mrml.add_volume(scene, own, "CT")
        nodes = mrml.add_to_scene(scene, content_of_folder(tmp_path, own, "CT"), volume)
        review = SceneReview(scene, nodes)
        for method in METHODS:
            found, expected = review.result(method), scored.methods[method]
            assert (found.total, found.arteries) == (expected.total, expected.arteries)
        lesion = review.result("threshold").lesions.lesions[0]
        review.assign("threshold", [lesion.id], Artery.RCA)
        moved = review.result("threshold").arteries[Artery.RCA]
        assert moved.agatston == pytest.approx(sum(c.area_mm2 * c.weight for c in lesion.components) * 2.5 / 3)
        assert nodes.calcium.GetSegmentation().GetNumberOfLayers() == 1
        review.undo()
        assert review.result("threshold").total == scored.methods["threshold"].total

    def test_of_a_scan_that_was_normalised(self, scene, tmp_path):
        """The scene holds the scan as it is; what a reader edits is scored as the run scored it."""
        scan = kernel_scans.scan_with(kernel_scans.BONE, calcium=True)
        heart = np.zeros(scan.hu.shape, np.uint8)
        heart[:, 90:190, 90:190] = 1
        heart = sitk.GetImageFromArray(heart)
        heart.CopyInformation(scan.image)
        scored = score_scan(scan, heart=heart)
        content = content_of_result(scored, json.loads(json.dumps(report.result_as_json(scored, {}))))
        review = SceneReview(scene, mrml.add_to_scene(scene, content))
        assert (review.scan.hu == scan.hu).all()
        assert review.result("threshold").total == scored.methods["threshold"].total
        review.export(tmp_path / "reviewed")
        record = json.loads((tmp_path / "reviewed" / "scores.json").read_text())
        assert record["normalisation"]["gain"] == list(scored.normalisation.gain)

    def test_after_a_review(self, review, scored, tmp_path):
        first, second, third, *rest = ids(review, "threshold")
        review.assign("threshold", [first, second], Artery.LAD)
        review.assign("threshold", [third], Artery.RCA)
        review.reject("threshold", rest[:2])
        review.set_reviewed("threshold", True)
        review.export(tmp_path / "reviewed")
        labels = read_lesion_labels(tmp_path / "reviewed" / "lesions.nii.gz")
        rerun = score_scan(scored.scan, heart=scored.heart.mask, lesions=labels)
        found, expected = review.result("threshold"), rerun.methods["threshold"]
        assert (found.total, found.arteries) == (expected.total, expected.arteries)
        assert found.total.lesions == 3
        assert review.categories() == rerun.categories


@pytest.mark.parametrize("method", METHODS)
class TestEdits:
    def test_assign(self, review, method):
        before = review.result(method)
        chosen = [x for x in before.lesions.lesions if x.artery != Artery.OTHER][:2]
        review.assign(method, [lesion.id for lesion in chosen], Artery.OTHER)
        after = review.result(method)
        assert after.arteries[Artery.OTHER].lesions == 2
        assert after.total.agatston == pytest.approx(before.total.agatston)
        assert {x.id: x.artery for x in after.lesions.lesions} == {
            x.id: Artery.OTHER if x in chosen else x.artery for x in before.lesions.lesions
        }

    def test_reject(self, review, method):
        before, nodes = review.result(method), review.nodes
        lesion = before.lesions.lesions[0]
        review.reject(method, [lesion.id])
        after = review.result(method)
        assert after.total.lesions == before.total.lesions - 1
        assert after.total.agatston < before.total.agatston
        node = nodes.calcium if method == "threshold" else nodes.map_lesions
        assert segment_mask(node, NOT_CORONARY_ID, review.scan.image).sum() == lesion.voxels
        arteries = [segment_mask(node, artery.key, review.scan.image).sum() for artery in Artery]
        assert sum(arteries) == sum(x.voxels for x in after.lesions.lesions)

    def test_the_other_method_is_left_alone(self, review, method):
        (other,) = set(METHODS) - {method}
        before = review.result(other)
        review.reject(method, ids(review, method)[:3])
        assert review.result(other) is before

    def test_lesion_that_is_gone(self, review, method):
        with pytest.raises(MaskError, match="no lesion 999"):
            review.assign(method, [999], Artery.LM)
        assert not review.can_undo

    def test_reviewed(self, review, method):
        first, *_ = ids(review, method)
        review.assign(method, [first], Artery.LM)
        review.set_reviewed(method, True)
        result = review.result(method)
        assert result.reviewed
        assert result.suggestions == ()
        assert result.arteries[Artery.UNASSIGNED].lesions == 0
        assert first in [lesion.id for lesion in result.lesions.lesions]


def test_reject_unassigned(review):
    first, *rest = ids(review, "threshold")
    review.assign("threshold", [first], Artery.LM)
    review.reject_unassigned("threshold")
    assert ids(review, "threshold") == [first]
    review.undo()
    assert sorted(ids(review, "threshold")) == sorted([first, *rest])


class TestNoCalcium:
    def test_is_a_reviewed_score_of_0_of_all_methods(self, review):
        review.assign("threshold", ids(review, "threshold")[:2], Artery.LAD)
        review.set_no_calcium()
        for method in METHODS:
            found = review.result(method)
            assert (found.reviewed, found.no_calcium, found.total) == (True, True, Score())
        assert (review.categories().risk_class, review.categories().cac_drs) == ("0", "A0")
        assert "unassigned-left-out" not in [w.code for w in review.warnings]

    def test_is_one_step_to_undo(self, review):
        before = numbers(review)
        review.set_no_calcium()
        assert review.undo()
        assert numbers(review) == before
        assert not any(review.reviewed.values())
        assert not review.can_undo
        assert review.redo()
        assert all(review.result(method).no_calcium for method in METHODS)

    def test_holds_until_a_lesion_is_marked(self, review):
        review.set_no_calcium()
        paint(review, "LAD", PART)
        review.refresh()
        assert not review.result("threshold").no_calcium

    def test_comes_back_with_the_scene(self, review, tmp_path):
        review.set_no_calcium()
        scene = read_mrml(write_mrml(review.scene, tmp_path / "saved"), tmp_path / "cache")
        (record,) = mrml.records_in(scene)
        reopened = SceneReview.of_record(scene, record)
        assert all(reopened.result(method).no_calcium for method in METHODS)
        assert reopened.categories().risk_class == "0"

    def test_leaves_a_scene_with_a_problem_alone(self, review):
        review.problems["threshold"] = "Two segments overlap."
        with pytest.raises(MaskError, match="overlap"):
            review.set_no_calcium()
        assert not any(review.reviewed.values())

    def test_is_exported(self, review, tmp_path):
        review.set_no_calcium()
        review.export(tmp_path / "out")
        document = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
        assert document["methods"]["threshold"]["no_calcium"]
        assert document["categories"]["cac_drs"] == "A0"
        assert "Reviewed: no coronary calcium." in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert not sitk.GetArrayFromImage(read_lesion_labels(tmp_path / "out" / "lesions.nii.gz")).any()


class TestSlices:
    def test_rows(self, review, scored):
        rows = review.slices()
        assert [row.k for row in rows] == list(range(24))
        in_heart = sitk.GetArrayViewFromImage(scored.heart.mask).any((1, 2))
        assert [row.probability for row in rows] == [1.0 if inside else None for inside in in_heart]
        assert [row.used for row in rows] == [row.decomposed for row in rows] == in_heart.tolist()
        i, j, k = 47.5, 47.5, 3
        x, y, z = scored.scan.image.TransformContinuousIndexToPhysicalPoint((i, j, k))
        assert rows[3].position_ras == pytest.approx((-x, -y, z))

    def test_switched_off_and_on_again(self, review):
        before = numbers(review)
        k = review.result("decomposition").lesions.lesions[0].slice_indices[1]
        review.switch_slice(k, False)
        off = numbers(review)
        assert off["threshold"] == before["threshold"]
        assert off["decomposition"][0].agatston < before["decomposition"][0].agatston
        assert not review.slices()[k].used
        assert review.slices_off == (k,)
        assert "slices-switched-off" in [w.code for w in review.warnings]
        review.switch_slice(k, True)
        assert numbers(review) == before
        assert review.undo()
        assert numbers(review) == off
        assert review.undo()
        assert numbers(review) == before
        assert review.redo()
        assert numbers(review) == off

    def test_never_decomposed_waits_for_a_new_run(self, review):
        before = numbers(review)
        assert not review.slices()[0].decomposed
        review.switch_slice(0, True)
        assert review.slices_wished == (0,)
        assert numbers(review) == before
        assert [w.code for w in review.warnings].count("slices-to-decompose") == 1

    def test_no_such_slice(self, review):
        with pytest.raises(MaskError, match="no slice 24"):
            review.switch_slice(24, False)


class TestUndo:
    def test_every_kind_of_edit_in_one_stack(self, review):
        states = [numbers(review)]

        def done():
            states.append(numbers(review))

        review.assign("threshold", ids(review, "threshold")[:1], Artery.LCX)
        done()
        review.reject("decomposition", ids(review, "decomposition")[1:3])
        done()
        review.switch_slice(review.result("decomposition").lesions.lesions[0].slice_indices[0], False)
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

    def test_segments_are_as_before(self, review):
        before = all_masks(review)
        review.assign("threshold", ids(review, "threshold")[:4], Artery.LCX)
        review.reject("threshold", ids(review, "threshold")[:2])
        assert any((a != b).any() for a, b in zip(before, all_masks(review), strict=True))
        review.undo()
        review.undo()
        for was, now in zip(before, all_masks(review), strict=True):
            np.testing.assert_array_equal(was, now)

    def test_a_new_edit_ends_redo(self, review):
        review.assign("threshold", ids(review, "threshold")[:1], Artery.LCX)
        review.undo()
        review.reject("threshold", ids(review, "threshold")[:1])
        assert not review.can_redo
        assert not review.redo()

    def test_observers_never_see_a_half_written_state(self, review):
        """The panel refreshes when segments change, which they do several times in one edit."""
        separate_layers(review.nodes.calcium)
        review.refresh()
        seen = []
        for node in (review.nodes.calcium, review.nodes.map_lesions):
            node.GetSegmentation().AddObserver(
                slicer.vtkSegmentation.SourceRepresentationModified, lambda *_: seen.append(review.refresh())
            )
        before = numbers(review)
        review.assign("threshold", ids(review, "threshold")[:3], Artery.LCX)
        assert seen
        assert not any(seen)
        assert review.undo()
        assert numbers(review) == before
        assert not review.can_undo


def paint(review, segment_id, part, mode=slicer.vtkSlicerSegmentEditorLogic.ModificationModeAdd, overwrite=True):
    """Set a part of the scan, [k, j, i], with Slicer's own Segment Editor."""
    logic, editor = slicer.vtkSlicerSegmentEditorLogic(), slicer.vtkMRMLSegmentEditorNode()
    review.scene.AddNode(editor)
    logic.SetMRMLScene(review.scene)
    logic.SetSegmentEditorNode(editor)
    logic.SetSegmentationNode(review.nodes.calcium)
    logic.SetSourceVolumeNode(review.nodes.volume)
    editor.SetOverwriteMode(editor.OverwriteAllSegments if overwrite else editor.OverwriteNone)
    logic.SetCurrentSegmentID(segment_id)
    mask = np.zeros(review.scan.hu.shape, np.uint8)
    mask[part] = 1
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(review.scan.image)
    volume = mrml.add_volume(review.scene, image, "brush")
    labelmap, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    labelmap.ShallowCopy(volume.GetImageData())
    volume.GetIJKToRASMatrix(matrix)
    labelmap.SetImageToWorldMatrix(matrix)
    logic.ModifySegmentByLabelmap(review.nodes.calcium, segment_id, labelmap, mode, True, False)
    for node in (volume, editor):
        review.scene.RemoveNode(node)


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


PART = (slice(8, 12), slice(30, 50), slice(30, 50))


class TestOtherTools:
    def test_painting_updates_the_numbers(self, review, scored):
        assert not review.refresh()
        before = review.result("threshold")
        paint(review, "RCA", PART)
        assert review.refresh()
        assert not review.refresh()
        after = review.result("threshold")
        ids_there = set(np.unique(before.lesions.id_map[PART])) - {0}
        assert ids_there
        assert after.arteries[Artery.RCA].agatston > 0
        hu = scored.scan.hu
        painted = np.zeros(hu.shape, bool)
        painted[PART] = True
        assert not painted[after.lesions.artery_map() == Artery.UNASSIGNED].any()
        # Tissue under the brush is no lesion.
        assert (hu[after.lesions.artery_map() == Artery.RCA] >= 130).all()
        assert review.undo()
        assert review.result("threshold").total == before.total

    def test_erasing(self, review, scored):
        before = review.result("threshold").total
        lesion = review.result("threshold").lesions.lesions[0]
        kji = np.unravel_index(review.review("threshold").flat_voxels([lesion.id]), scored.scan.hu.shape)
        part = tuple(slice(axis.min(), axis.max() + 1) for axis in kji)
        paint(review, "unassigned", part, slicer.vtkSlicerSegmentEditorLogic.ModificationModeRemove)
        assert review.refresh()
        assert lesion.id not in ids(review, "threshold")
        review.undo()
        assert review.result("threshold").total == before

    @pytest.mark.parametrize("separate", [False, True], ids=["one layer", "a layer each"])
    def test_layers_make_no_difference(self, review, separate):
        if separate:
            separate_layers(review.nodes.calcium)
            assert not review.refresh()
        first, second, third, *_ = ids(review, "threshold")
        review.assign("threshold", [first, second], Artery.LAD)
        review.assign("threshold", [second], Artery.LCX)
        review.reject("threshold", [third])
        result = review.result("threshold")
        assert {x.id: x.artery for x in result.lesions.lesions if x.id in (first, second, third)} == {
            first: Artery.LAD,
            second: Artery.LCX,
        }
        assert not review.problems

    def test_overlapping_segments_have_no_score(self, review):
        before = numbers(review)
        review.assign("threshold", ids(review, "threshold")[:1], Artery.LAD)
        assigned = numbers(review)
        paint(review, "RCA", PART, overwrite=False)
        assert review.refresh()
        text = review.problems["threshold"]
        assert "belong to two segments" in text
        assert "RCA: right coronary artery" in text
        with pytest.raises(MaskError, match="belong to two segments"):
            review.result("threshold")
        assert set(review.results()) == {"decomposition"}
        with pytest.raises(MaskError, match="belong to two segments"):
            review.reject_unassigned("threshold")
        assert review.categories() is None
        assert text in [w.message for w in review.warnings]
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
        total = again.result("decomposition").total
        again.reject("decomposition", ids(again, "decomposition")[:1])
        assert again.undo()
        assert again.result("decomposition").total == total
        paint(again, "RCA", PART, slicer.vtkSlicerSegmentEditorLogic.ModificationModeRemove, overwrite=False)
        assert again.refresh()
        assert again.result("threshold").total == review.result("threshold").total

    def test_overlap_erased_by_hand(self, review):
        before = numbers(review)
        paint(review, "RCA", PART, overwrite=False)
        review.refresh()
        mode = slicer.vtkSlicerSegmentEditorLogic.ModificationModeRemove
        paint(review, "RCA", PART, mode, overwrite=False)
        assert review.refresh()
        assert not review.problems
        assert numbers(review) == before

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

    def test_under_a_transform(self, review):
        transform = review.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
        review.nodes.calcium.SetAndObserveTransformNodeID(transform.GetID())
        assert review.refresh()
        assert "lies under a transform" in review.problems["threshold"]
        review.nodes.calcium.SetAndObserveTransformNodeID(None)
        assert review.refresh()
        assert not review.problems

    def test_segmentation_stays_in_its_folder(self, review):
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(review.scene)
        item = hierarchy.GetItemByDataNode(review.nodes.calcium)
        paint(review, "RCA", PART)
        hierarchy.SetItemParent(item, hierarchy.GetSceneItemID())  # as Segment Editor does beside a volume elsewhere
        review.refresh()
        assert hierarchy.GetItemParent(item) == review.nodes.folder


class TestSavedScene:
    @pytest.fixture(params=["mrb", "mrml"])
    def reopened(self, request, review, tmp_path):
        """A scene with all kinds of edits, saved and opened again; and what its numbers were."""
        review.assign("threshold", ids(review, "threshold")[:2], Artery.LAD)
        review.reject("threshold", ids(review, "threshold")[2:4])
        review.assign("decomposition", ids(review, "decomposition")[:1], Artery.RCA)
        paint(review, "LCX", PART)
        review.refresh()
        k = review.result("decomposition").lesions.lesions[0].slice_indices[0]
        review.switch_slice(k, False)
        review.set_reviewed("decomposition", True)
        review.update_tables()
        if request.param == "mrb":
            assert review.scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
            scene = read_mrb(tmp_path / "scene.mrb", tmp_path / "cache")
        else:
            scene = read_mrml(write_mrml(review.scene, tmp_path / "saved"), tmp_path / "cache")
        (record,) = mrml.records_in(scene)
        return review, SceneReview.of_record(scene, record), k

    def test_numbers_and_marks_come_back(self, reopened):
        review, again, k = reopened
        assert numbers(again) == numbers(review)
        assert again.reviewed == {"threshold": False, "decomposition": True}
        for found, expected in zip(again.slices(), review.slices(), strict=True):
            assert found.position_ras == pytest.approx(expected.position_ras)  # a file may round the origin
            assert replace(found, position_ras=expected.position_ras) == expected
        assert again.slices_off == (k,)
        assert again.warnings == review.warnings
        assert not again.can_undo
        assert again.result("threshold").suggestions == review.result("threshold").suggestions
        assert ids(again, "threshold")[3:] == ids(review, "threshold")[3:]

    def test_can_be_edited_on(self, reopened):
        _, review, k = reopened
        before = numbers(review)
        first, second, *_ = ids(review, "threshold")
        review.assign("threshold", [first], Artery.OTHER)
        review.reject("threshold", [second])
        review.switch_slice(k, True)
        paint(review, "RCA", (slice(12, 16), slice(50, 70), slice(30, 50)))
        assert review.refresh()
        assert review.result("threshold").arteries[Artery.OTHER].lesions == 1
        after = numbers(review)
        assert after["decomposition"] != before["decomposition"]
        while review.undo():
            continue
        assert numbers(review) == before
        while review.redo():
            continue
        assert numbers(review) == after


class TestTables:
    def test_hold_the_present_numbers(self, review):
        review.assign("threshold", ids(review, "threshold")[:2], Artery.LAD)
        review.set_reviewed("threshold", True)
        review.update_tables()
        table = review.nodes.scores.GetTable()
        rows = [
            {table.GetColumnName(c): table.GetValue(row, c) for c in range(table.GetNumberOfColumns())}
            for row in range(table.GetNumberOfRows())
        ]
        by_place = {(row["Method"].ToString(), row["Artery"].ToString()): row for row in rows}
        for method in METHODS:
            result = review.result(method)
            assert by_place[method, "total"]["Agatston"].ToDouble() == result.total.agatston
            for artery, score in result.arteries.items():
                assert by_place[method, artery.key]["Lesions"].ToInt() == score.lesions
        assert review.nodes.lesions.GetNumberOfRows() == sum(len(ids(review, method)) for method in METHODS)
        assert review.nodes.lesions.GetLocked()

    def test_leave_a_method_with_a_problem_out(self, review):
        paint(review, "RCA", PART, overwrite=False)
        review.refresh()
        review.update_tables()
        column = review.nodes.scores.GetTable().GetColumnByName("Method")
        assert {column.GetValue(n) for n in range(column.GetNumberOfValues())} == {"decomposition"}


def test_position_of_a_lesion_lies_in_it(review):
    for method in METHODS:
        found = review.result(method)
        for lesion in found.lesions.lesions:
            r, a, s = review.position_of(method, lesion.id)
            i, j, k = review.scan.image.TransformPhysicalPointToIndex((-r, -a, s))
            assert found.lesions.id_map[k, j, i] == lesion.id


class TestExport:
    @pytest.fixture
    def exported(self, review, tmp_path):
        review.assign("threshold", ids(review, "threshold")[:2], Artery.LAD)
        review.reject("threshold", ids(review, "threshold")[2:3])
        review.set_reviewed("threshold", True)
        review.switch_slice(review.result("decomposition").lesions.lesions[0].slice_indices[0], False)
        review.export(tmp_path / "reviewed")
        return tmp_path / "reviewed"

    def test_files(self, exported):
        assert sorted(file.name for file in exported.iterdir()) == [
            *("lesions.csv", "lesions.nii.gz", "map_lesions.nii.gz", "report.html", "scores.json"),
        ]

    def test_scores(self, review, scored, exported):
        document = json.loads((exported / "scores.json").read_text(encoding="utf-8"))
        recorded = report.result_as_json(scored, {})
        for method in METHODS:
            found = document["methods"][method]
            assert found["total"]["agatston"] == review.result(method).total.agatston
            assert document["rules"][method] == json.loads(json.dumps(recorded["rules"][method]))
        same = ("schema", "input", "acquisition", "measured", "heart", "models", "slice_probabilities")
        for key in same:
            assert document[key] == json.loads(json.dumps(recorded[key]))
        assert document["review"]["methods"] == {"threshold": True, "decomposition": False}
        assert document["review"]["slices_off"] == list(review.slices_off)
        assert document["categories"]["risk_class"] == review.categories().risk_class
        codes = [warning["code"] for warning in document["warnings"]]
        assert codes[0] == "reviewed-in-panel"
        assert "slices-switched-off" in codes
        assert "unreviewed" not in codes

    def test_report_says_where_it_comes_from(self, review, exported):
        text = (exported / "report.html").read_text(encoding="utf-8")
        assert "exported from the panel in 3D Slicer" in text
        assert f"<b>{review.result('threshold').total.agatston:.1f}</b>" in text
        assert "Risk class" in text

    def test_labels(self, review, exported):
        for name, method in (("lesions", "threshold"), ("map_lesions", "decomposition")):
            labels = sitk.ReadImage(exported / f"{name}.nii.gz")
            np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), review.result(method).lesions.artery_map())

    def test_does_not_replace_without_a_word(self, review, exported):
        with pytest.raises(OutputError, match="not empty"):
            review.export(exported)
        review.export(exported, overwrite=True)

    def test_not_while_there_is_a_problem(self, review, tmp_path):
        paint(review, "RCA", PART, overwrite=False)
        review.refresh()
        with pytest.raises(MaskError, match="two segments"):
            review.export(tmp_path / "reviewed")
        assert not (tmp_path / "reviewed").exists()


class TestNodesThatDoNotFit:
    def test_other_ct(self, scene, review, scored):
        smaller = mrml.add_volume(scene, scored.scan.image[:, :, 2:], "other")
        review.nodes.record.SetNodeReferenceID("CAC.volume", smaller.GetID())
        with pytest.raises(UnreadableError, match="other is not the scan that was scored"):
            SceneReview.of_record(scene, review.nodes.record)

    def test_slices_without_their_columns(self, scene, review):
        review.nodes.slices.RemoveAllColumns()
        with pytest.raises(UnreadableError, match="lost columns"):
            SceneReview.of_record(scene, review.nodes.record)


def test_scored_by_the_clinical_rule_alone(scene, scored):
    alone = score_scan(scored.scan, heart=scored.heart.mask)
    content = content_of_result(alone, report.result_as_json(alone, {}))
    review = SceneReview(scene, mrml.add_to_scene(scene, content))
    assert review.methods == ("threshold",)
    assert review.slices() == []
    review.reject("threshold", ids(review, "threshold")[:1])
    assert review.result("threshold").total.lesions == alone.methods["threshold"].total.lesions - 1
    with pytest.raises(MaskError, match="no slice 3"):
        review.switch_slice(3, False)


class TestSites:
    """Calcium outside the coronary arteries: moved there and back, undone, exported, and scored again."""

    @pytest.fixture
    def with_sites(self, scene, monkeypatch):
        result = heart_with_territories.score(monkeypatch, patient_sex="M")
        content = content_of_result(result, report.result_as_json(result, {}))
        return SceneReview(scene, mrml.add_to_scene(scene, content)), result

    def test_before_any_edit(self, with_sites):
        review, result = with_sites
        assert review.result("threshold").total == result.methods["threshold"].total
        assert review.non_coronary.scores == result.non_coronary.scores
        assert review.non_coronary.lesions.lesions == result.non_coronary.lesions.lesions
        assert not review.non_coronary.reviewed
        sites = [lesion.artery for lesion in review.lesions("threshold")]
        assert sites == list(heart_with_territories.SITES)

    def test_a_lesion_moves_to_a_site_and_back(self, with_sites):
        review, result = with_sites
        (lesion,) = review.result("threshold").lesions.lesions
        review.assign("threshold", [lesion.id], NonCoronary.AORTIC_VALVE)
        assert review.result("threshold").total.agatston == 0
        assert review.non_coronary.scores[NonCoronary.AORTIC_VALVE].agatston == pytest.approx(128 + 64)
        review.update_tables()
        table = review.nodes.scores.GetTable()
        assert "192" in [table.GetValueByName(n, "Agatston").ToString() for n in range(table.GetNumberOfRows())]
        review.undo()
        assert review.non_coronary.scores == result.non_coronary.scores
        review.redo()
        review.assign("threshold", [lesion.id], Artery.LAD)
        assert review.result("threshold").total == result.methods["threshold"].total

    def test_no_coronary_calcium_leaves_the_other_sites(self, with_sites):
        review, result = with_sites
        review.set_no_calcium()
        assert review.result("threshold").no_calcium
        assert review.non_coronary.scores == result.non_coronary.scores

    def test_a_rejected_lesion_stays_rejected(self, with_sites, tmp_path):
        review, _ = with_sites
        valve = next(x for x in review.lesions("threshold") if x.artery == NonCoronary.AORTIC_VALVE)
        review.reject("threshold", [valve.id])
        assert review.non_coronary.scores[NonCoronary.AORTIC_VALVE].lesions == 0
        review.export(tmp_path / "out")
        labels = sitk.ReadImage(str(tmp_path / "out" / "lesions.nii.gz"))
        assert NonCoronary.AORTIC_VALVE not in sitk.GetArrayViewFromImage(labels)

    def test_the_export_scored_again_gives_the_same_numbers(self, with_sites, monkeypatch, tmp_path):
        review, _ = with_sites
        aorta = next(x for x in review.lesions("threshold") if x.artery == NonCoronary.THORACIC_AORTA)
        review.assign("threshold", [aorta.id], NonCoronary.OTHER)
        review.set_reviewed("threshold", True)
        review.export(tmp_path / "out")
        document = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
        again = heart_with_territories.score(monkeypatch, read_lesion_labels(tmp_path / "out" / "lesions.nii.gz"))
        assert document["non_coronary"]["reviewed"]
        assert document["non_coronary"]["other"]["agatston"] == pytest.approx(96)
        assert again.non_coronary.scores == review.non_coronary.scores
        assert again.methods["threshold"].total == review.result("threshold").total
        assert document["territories"]["model"] == "stand-in"
        exported = sitk.ReadImage(str(tmp_path / "out" / "territories.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(exported), sitk.GetArrayFromImage(again.territories))
        html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert "The sites have been reviewed." in html
        assert "<td>men</td>" in html

    def test_sites_of_a_review_of_arteries_alone_are_not_reviewed(self, scene, monkeypatch):
        lad = heart_with_territories.score(monkeypatch).methods["threshold"].lesions
        result = heart_with_territories.score(monkeypatch, lad.label_image(heart_with_territories.scan().image))
        nodes = mrml.add_to_scene(scene, content_of_result(result, report.result_as_json(result, {})))
        review = SceneReview(scene, nodes)
        assert review.result("threshold").reviewed
        assert not review.non_coronary.reviewed
        assert review.non_coronary.scores == result.non_coronary.scores

    def test_nobody_knows_of_sites_until_the_reader_does(self, review):
        assert review.non_coronary is None
        lesion = ids(review, "threshold")[0]
        review.assign("threshold", [lesion], NonCoronary.MITRAL_ANNULUS)
        assert [lesion] == [x.id for x in review.non_coronary.lesions.lesions]
        review.undo()
        assert review.non_coronary is None


class TestAutomaticScore:
    @pytest.fixture(scope="class")
    @staticmethod
    def automatic():
        return automatic_patient.scored()

    @pytest.fixture
    def review(self, scene, automatic):
        content = content_of_result(automatic, report.result_as_json(automatic, {}))
        return SceneReview(scene, mrml.add_to_scene(scene, content))

    def test_begins_as_the_run_left_it(self, review, automatic):
        found, expected = review.result("threshold"), automatic.methods["threshold"]
        assert (found.status, found.total, found.arteries) == ("automatic", expected.total, expected.arteries)
        own, others = review.left_out("threshold"), expected.left_out
        assert {lesion.id for lesion in own.lesions.lesions} == {lesion.id for lesion in others.lesions.lesions}
        assert own.reasons == others.reasons
        assert review.categories().status == "automatic"

    def test_what_is_left_out_is_evaluated_and_can_be_looked_at_and_counted(self, review):
        lesion = review.left_out("threshold").lesions.lesions[0]
        known = review.review("threshold")
        assert (
            0 < known.probability_of(lesion) < 0.5 < known.probability_of(review.result("threshold").lesions.lesions[0])
        )
        assert len(review.position_of("threshold", lesion.id)) == 3
        review.assign("threshold", [lesion.id], Artery.LCX)
        assert lesion.id in ids(review, "threshold")
        assert lesion.id not in [other.id for other in review.left_out("threshold").lesions.lesions]

    def test_accepted_as_it_stands(self, review):
        before, out = review.result("threshold"), review.left_out("threshold")
        review.accept("threshold")
        after = review.result("threshold")
        assert (after.status, after.total, after.arteries) == ("reviewed", before.total, before.arteries)
        assert (after.left_out, review.left_out("threshold").reasons) == (None, out.reasons)
        assert review.categories().status == "reviewed"
        assert not review.reviewed["decomposition"]
        review.undo()
        assert review.result("threshold").status == "automatic"

    def test_beyond_what_the_models_know_categories_wait_for_a_reader(self, scene, tmp_path):
        beyond = automatic_patient.scored(known={"ranges": {"slice_spacing_mm": [0.1, 0.2, 0.1]}, "limit": 1.0})
        content = content_of_result(beyond, report.result_as_json(beyond, {}))
        review = SceneReview(scene, mrml.add_to_scene(scene, content))
        assert review.categories() is None
        assert review.result("threshold").intervals == review.result("decomposition").intervals == {}
        assert "beyond-calibration" in [warning.code for warning in review.warnings]
        review.accept("threshold")
        assert review.categories().status == "reviewed"
        assert not review.result("threshold").withheld
        assert "beyond-calibration" in [warning.code for warning in review.warnings]
        review.export(tmp_path / "reviewed")
        document = json.loads((tmp_path / "reviewed" / "scores.json").read_text())
        assert document["familiarity"]["causes"] == list(beyond.familiarity.causes)
        assert document["categories"]["status"] == "reviewed"
        assert "beyond-calibration" in [warning["code"] for warning in document["warnings"]]

    def test_candidates_without_an_artery_cannot_be_accepted(self, scene):
        without = automatic_patient.scored(evidence=False)
        content = content_of_result(without, report.result_as_json(without, {}))
        review = SceneReview(scene, mrml.add_to_scene(scene, content))
        assert review.left_out("threshold") is None
        lesion = review.result("threshold").lesions.lesions[0]
        review.assign("threshold", [lesion.id], Artery.UNASSIGNED)
        with pytest.raises(MaskError, match="1 lesion has no artery"):
            review.accept("threshold")
        review.reject("threshold", [lesion.id])
        review.accept("threshold")
        assert review.result("threshold").total.lesions == len(automatic_patient.LESIONS) - 1

    def test_what_is_left_out_is_an_outline(self, review):
        display = review.nodes.calcium.GetDisplayNode()
        assert display.GetSegmentOpacity2DFill("unassigned") == 0
        assert display.GetSegmentOpacity2DOutline("unassigned") == 1
        assert display.GetSegmentOpacity2DFill("LAD") == 1
        assert display.GetSegmentOpacity3D("unassigned") < 0.5 < display.GetSegmentOpacity3D("LAD")
        map_display = review.nodes.map_lesions.GetDisplayNode()
        assert map_display.GetSegmentOpacity2DFill("unassigned") == 1

    def test_tables_tell_what_is_left_out_and_why(self, review, automatic, tmp_path):
        report.write_json(tmp_path / "scores.json", automatic, {})
        report.write_images(tmp_path, automatic)
        rows = content_of_folder(tmp_path, automatic.scan.image, "chest").lesion_rows
        out = [row for row in rows if row.method == "threshold_left_out"]
        assert [row.reason for row in out] == list(automatic.methods["threshold"].left_out.reasons)
        content = content_of_result(automatic, report.result_as_json(automatic, {}))
        assert [(row.method, row.id, row.suggested) for row in content.lesion_rows] == [
            (row.method, row.id, row.suggested) for row in rows
        ]
        review.update_tables()
        table = review.nodes.lesions.GetTable()
        methods = [table.GetValueByName(n, "Method").ToString() for n in range(table.GetNumberOfRows())]
        reasons = [table.GetValueByName(n, "Left out").ToString() for n in range(table.GetNumberOfRows())]
        assert methods.count("threshold_left_out") == len(out)
        assert [bool(reason) for reason in reasons] == [method == "threshold_left_out" for method in methods]

    def test_an_automatic_zero_becomes_a_reviewed_one(self, scene, automatic):
        """Rejecting what counts leaves 0, which is accepted with one key."""
        content = content_of_result(automatic, report.result_as_json(automatic, {}))
        review = SceneReview(scene, mrml.add_to_scene(scene, content))
        review.reject("threshold", ids(review, "threshold"))
        review.accept("threshold")
        result = review.result("threshold")
        assert (result.status, result.total.agatston) == ("reviewed", 0)
        assert (review.categories().status, review.categories().risk_class) == ("reviewed", "0")

    def test_intervals_follow_the_score(self, scene, automatic, monkeypatch, tmp_path):
        """They are those of the kind that the score is at the moment, by the model that made the map."""
        model = StoredModel(automatic_patient.map_card(), tmp_path / "map.json", "user")
        monkeypatch.setattr(repeatability, "list_models", lambda _network: [model])
        content = content_of_result(automatic, report.result_as_json(automatic, {}))
        review = SceneReview(scene, mrml.add_to_scene(scene, content))
        for method in METHODS:
            found, expected = review.result(method), automatic.methods[method]
            assert (found.intervals, found.category_probabilities) == (
                expected.intervals,
                expected.category_probabilities,
            )
        assert review.categories().probabilities == automatic.categories.probabilities

        def spread(method):
            result = review.result(method)
            low, high = np.log1p(result.intervals[TOTAL].agatston)
            assert (low + high) / 2 == pytest.approx(np.log1p(result.total.clinical_agatston))
            return (high - low) / 2

        assert spread("threshold") == pytest.approx(automatic_patient.SPREADS["automatic"])
        assert spread("decomposition") == pytest.approx(automatic_patient.SPREADS["decomposition"])
        before = review.result("threshold").total.agatston
        review.reject("threshold", ids(review, "threshold")[:3])
        assert review.result("threshold").total.agatston < before
        assert spread("threshold") == pytest.approx(automatic_patient.SPREADS["automatic"])
        review.accept("threshold")
        result = review.result("threshold")
        assert result.category_probabilities == {}
        low, high = result.intervals[TOTAL].agatston
        assert low < result.total.agatston < high
        assert high - low == pytest.approx(2 * automatic_patient.REPEATS * 1.645 / 1.960)
        assert spread("decomposition") == pytest.approx(automatic_patient.SPREADS["decomposition"])
        review.export(tmp_path / "out")
        document = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
        total = review.result("threshold").intervals[TOTAL]
        assert document["methods"]["threshold"]["total"]["interval_90"] == list(total.agatston)
        assert document["categories"]["probabilities"] == review.result("threshold").category_probabilities
        again = automatic_patient.scored(lesions=sitk.ReadImage(str(tmp_path / "out" / "lesions.nii.gz")))
        for method, found in again.methods.items():
            expected = review.result(method)
            assert (found.status, found.total, found.arteries) == (expected.status, expected.total, expected.arteries)
            assert found.intervals == expected.intervals
        review.set_reviewed("decomposition", True)
        assert review.result("decomposition").intervals == {}

    def test_no_intervals_without_the_models_card(self, scene, review, automatic, monkeypatch, tmp_path):
        """Of a model that is not installed, or whose evidence is another by now; a broken card hinders nobody."""
        assert review.result("threshold").intervals == {}
        card = automatic_patient.map_card()
        other = replace(card, calibration={**card.calibration, "candidates": {"most_not_coronary": 0.1}})
        model = StoredModel(other, tmp_path / "map.json", "user")
        monkeypatch.setattr(repeatability, "list_models", lambda _network: [model])
        again = SceneReview(scene, review.nodes)
        assert again.result("threshold").intervals == {}
        again.accept("threshold")
        assert again.result("threshold").intervals

        def broken(_network):
            raise ModelError("broken")

        monkeypatch.setattr(repeatability, "list_models", broken)
        assert SceneReview(scene, review.nodes).result("threshold").intervals == {}
