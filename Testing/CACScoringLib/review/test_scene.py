"""A reader's edits in a scene on Slicer's own MRML: numbers, undo, saving, and what other tools do to the segments."""

import json
from dataclasses import replace

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
from CACScoringLib.io.reading import read_lesion_labels
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import content_of_folder
from CACScoringLib.mrml.segments import segment_mask
from CACScoringLib.pipeline import score_scan
from CACScoringLib.report import files as report
from CACScoringLib.review.scene import SceneReview
from CACScoringLib.scoring.scores import Score

METHODS = ("threshold", "decomposition")


@pytest.fixture(scope="module")
def scored():
    scan, heart = calcified_scan()
    return score_scan(scan, heart=heart, networks=NETWORKS)


@pytest.fixture
def review(opened, scored):
    return opened(scored)


def numbers(review):
    return {method: (review.result(method).total, review.result(method).arteries) for method in review.methods}


def ids(review, method):
    return [lesion.id for lesion in review.result(method).lesions.lesions]


class TestEqualsCacScore:
    def test_before_any_edit(self, review, scored):
        for method in METHODS:
            found, expected = review.result(method), scored.methods[method]
            assert (found.total, found.arteries) == (expected.total, expected.arteries)
            assert found.lesions.lesions == expected.lesions.lesions
        codes = [w.code for w in scored.warnings]
        assert "unreviewed" in codes
        assert [w.code for w in review.warnings] == codes
        assert review.categories() is None

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

    def test_of_a_scan_that_was_normalised(self, opened, tmp_path):
        """The scene holds the scan as it is; what a reader edits is scored as the run scored it."""
        scan = kernel_scans.scan_with(kernel_scans.BONE, calcium=True)
        heart = np.zeros(scan.hu.shape, np.uint8)
        heart[:, 90:190, 90:190] = 1
        heart = sitk.GetImageFromArray(heart)
        heart.CopyInformation(scan.image)
        scored = score_scan(scan, heart=heart)
        review = opened(scored)
        assert (review.scan.hu == scan.hu).all()
        assert review.result("threshold").total == scored.methods["threshold"].total
        review.export(tmp_path / "reviewed")
        record = json.loads((tmp_path / "reviewed" / "scores.json").read_text())
        assert record["normalisation"]["gain"] == list(scored.normalisation.gain)

    @pytest.mark.long
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
def test_assigned_and_rejected_lesions(review, method):
    before = review.result(method)
    node = review.nodes.calcium if method == "threshold" else review.nodes.map_lesions
    first, second, third = [x for x in before.lesions.lesions if x.artery != Artery.OTHER][:3]
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


class TestNoCalcium:
    def test_is_a_reviewed_score_of_0_of_all_methods(self, review, tmp_path):
        review.assign("threshold", ids(review, "threshold")[:2], Artery.LAD)
        review.set_no_calcium()
        for method in METHODS:
            found = review.result(method)
            assert (found.reviewed, found.no_calcium, found.total) == (True, True, Score())
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

    def test_comes_back_with_the_scene(self, review, tmp_path):
        review.set_no_calcium()
        scene = read_mrml(write_mrml(review.scene, tmp_path / "saved"), tmp_path / "cache")
        (record,) = mrml.records_in(scene)
        reopened = SceneReview.of_record(scene, record)
        assert all(reopened.result(method).no_calcium for method in METHODS)
        assert reopened.categories().risk_class == "0"


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

    def test_overlapping_segments_have_no_score(self, review, tmp_path):
        before = numbers(review)
        review.assign("threshold", ids(review, "threshold")[:1], Artery.LAD)
        assigned = numbers(review)
        paint(review, "RCA", PART, overwrite=False)
        assert review.refresh()
        text = review.problems["threshold"]
        assert "belong to" in text
        assert "RCA: right coronary artery" in text
        with pytest.raises(MaskError, match="belong to"):
            review.result("threshold")
        assert set(review.results()) == {"decomposition"}
        with pytest.raises(MaskError, match="belong to"):
            review.reject_unassigned("threshold")
        assert review.categories() is None
        assert text in [w.message for w in review.warnings]
        with pytest.raises(MaskError, match="belong to"):
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
        total = again.result("decomposition").total
        again.reject("decomposition", ids(again, "decomposition")[:1])
        assert again.undo()
        assert again.result("decomposition").total == total
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


class TestExport:
    @pytest.fixture
    def exported(self, review, tmp_path):
        review.assign("threshold", ids(review, "threshold")[:2], Artery.LAD)
        review.reject("threshold", ids(review, "threshold")[2:3])
        review.set_reviewed("threshold", True)
        review.switch_slice(review.result("decomposition").lesions.lesions[0].slice_indices[0], False)
        review.export(tmp_path / "reviewed")
        return tmp_path / "reviewed"

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
        assert document["review"]["program"] == "CAC panel of 3D Slicer"
        assert "slices-switched-off" in codes
        assert "unreviewed" not in codes

    def test_labels(self, review, exported):
        for name, method in (("lesions", "threshold"), ("map_lesions", "decomposition")):
            labels = sitk.ReadImage(exported / f"{name}.nii.gz")
            np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), review.result(method).lesions.artery_map())


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


def test_scored_by_the_clinical_rule_alone(opened, scored):
    alone = score_scan(scored.scan, heart=scored.heart.mask)
    review = opened(alone)
    assert review.methods == ("threshold",)
    assert review.slices() == []
    review.reject("threshold", ids(review, "threshold")[:1])
    assert review.result("threshold").total.lesions == alone.methods["threshold"].total.lesions - 1
    with pytest.raises(MaskError, match="no slice 3"):
        review.switch_slice(3, False)


def test_nobody_knows_of_sites_until_the_reader_does(review):
    assert review.non_coronary is None
    lesion = ids(review, "threshold")[0]
    review.assign("threshold", [lesion], NonCoronary.MITRAL_ANNULUS)
    assert [lesion] == [x.id for x in review.non_coronary.lesions.lesions]
    review.undo()
    assert review.non_coronary is None
