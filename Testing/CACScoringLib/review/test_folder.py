"""A review of a folder of results without MRML: numbers, undo, cutting, export, and a journal to rebuild it from."""

from dataclasses import replace

import automatic_patient
import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from images import image_of
from scene_edits import numbers

from CACScoringLib.core.ct import ScanWarning, scan_from_image
from CACScoringLib.core.errors import JournalError, MaskError, UnreadableError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_lesion_labels
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import content_of_folder
from CACScoringLib.record.score_record import InputRecord
from CACScoringLib.review.journal import Journal, JournalEntry
from CACScoringLib.review.output import IN_BROWSER
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.review.scene import SceneReview
from CACScoringLib.review.state import ReviewFolder, whole_map
from CACScoringLib.run import RunSettings, write_result


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "patient"
    return folder, automatic_patient.write(folder)


@pytest.fixture
def review(written):
    return ScanReview(ReviewFolder(written[0], written[1].scan), IN_BROWSER)


def edit(review):
    """Some of everything."""
    first, second, third, *_ = [lesion.id for lesion in review.lesions("threshold")]
    review.assign("threshold", [first], Artery.RCA)
    review.reject("threshold", [second])
    review.assign("threshold", [review.left_out("threshold")[0].id], Artery.LCX)
    review.undo()
    review.redo()
    flat = review.review("threshold").flat_voxels([third])
    review.give("threshold", flat[:4], 0)
    review.undo()
    review.switch_slice(review.slices_off[0] if review.slices_off else _used(review), False)
    review.accept("threshold")


def _used(review):
    return next(row.k for row in review.slices() if row.used)


def without_intervals(score):
    return replace(score, interval_90=None, mass_interval_90=None)


class TestAsInThePanel:
    @pytest.mark.long
    def test_edits_give_the_numbers_of_the_scene_and_of_lesions_read_back(self, review, written, tmp_path):
        """To the last digit: by browser and panel, and by `cac score --lesions` with what they export."""
        slicer.vtkSlicerSegmentationsModuleLogic()
        scene = slicer.vtkMRMLScene()
        folder, result = written
        content = content_of_folder(folder, result.scan.image, "CT")
        in_scene = SceneReview(scene, mrml.add_to_scene(scene, content))
        for edited in (review, in_scene):
            edit(edited)
        assert numbers(review) == numbers(in_scene)
        assert review.categories() == in_scene.categories()
        review.export(tmp_path / "out")
        exported = review.as_result().methods["threshold"]
        again = automatic_patient.scored(lesions=read_lesion_labels(tmp_path / "out" / "lesions.nii.gz"))
        expected = again.methods["threshold"]
        assert without_intervals(exported.total) == without_intervals(expected.total)
        for artery, score in exported.arteries.items():
            assert without_intervals(score) == without_intervals(expected.arteries[artery])
        assert exported.status == expected.status == "reviewed"

    def test_doubts_about_a_label_map_hold_until_the_lesions_are_changed(self, written):
        state = ReviewFolder(written[0], written[1].scan)
        doubt = ScanWarning("labels-off-calcium", "They lie on none.")
        state.record = replace(state.record, warnings=(*state.record.warnings, doubt))
        review = ScanReview(state, IN_BROWSER)
        assert "labels-off-calcium" in [warning.code for warning in review.warnings]
        review.reject("threshold", [review.lesions("threshold")[0].id])
        assert "labels-off-calcium" not in [warning.code for warning in review.warnings]

    def test_a_ct_of_another_size_or_with_a_changed_voxel_is_refused(self, written):
        changed = sitk.Image(written[1].scan.image)
        changed[0, 0, 0] = int(changed[0, 0, 0]) + 1
        for image, reason in ((changed[:-1], "size or spacing differs"), (changed, "voxels differ")):
            with pytest.raises(UnreadableError, match=reason):
                ReviewFolder(written[0], scan_from_image(image, written[1].scan.acquisition))

    @pytest.mark.long
    def test_another_series_of_the_same_voxels_is_refused(self, written, tmp_path):
        scored = written[1]
        scans = [
            replace(scored.scan, acquisition=replace(scored.scan.acquisition, series_uid=uid)) for uid in ("1.2", "1.3")
        ]
        result = replace(scored.stating(input=InputRecord.of(scans[0])), scan=scans[0])
        write_result(OutputFolder(tmp_path, overwrite=True), result, RunSettings(), Progress())
        ReviewFolder(tmp_path, scans[0])
        with pytest.raises(UnreadableError, match="another DICOM series"):
            ReviewFolder(tmp_path, scans[1])


def voxels_of(review, lesion):
    return np.stack(np.unravel_index(review.review("threshold").flat_voxels([lesion.id]), review.scan.hu.shape), 1)


class TestDrawing:
    def test_a_cut_gives_the_far_side_to_another_artery_and_keeps_the_volume(self, review):
        lesion = review.lesions("threshold")[0]
        artery = Artery.RCA if lesion.site != Artery.RCA else Artery.LAD
        before, i = review.result("threshold").arteries, voxels_of(review, lesion)[:, 2]
        review.cut("threshold", lesion.id, (0, 0, i.min() + 0.5), (0, 0, 1), int(artery))
        after = review.result("threshold").arteries
        moved = int((i > i.min()).sum()) * 27.0  # mm³
        assert after[artery].volume_mm3 == pytest.approx(before[artery].volume_mm3 + moved)
        assert after[lesion.site].volume_mm3 == pytest.approx(before[lesion.site].volume_mm3 - moved)
        with pytest.raises(MaskError, match="does not divide"):
            review.cut("threshold", review.lesions("threshold")[0].id, (0, 0, 0), (0, 0, 1), int(Artery.LM))

    def test_a_pick_leaves_touching_calcium_of_another_site(self, review):
        lesion = review.lesions("threshold")[0]
        voxels = voxels_of(review, lesion)
        i = voxels[:, 2]
        review.cut("threshold", lesion.id, (0, 0, i.min() + 0.5), (0, 0, 1), int(Artery.LCX))
        before = review.result("threshold").arteries
        near_side = voxels[i == i.min()]
        review.pick("threshold", tuple(map(int, near_side[0])), Artery.RCA)
        after = review.result("threshold").arteries
        assert after[Artery.RCA].volume_mm3 == pytest.approx(before[Artery.RCA].volume_mm3 + 27.0 * len(near_side))
        assert after[Artery.LCX] == before[Artery.LCX]

    def test_a_picked_candidate_counts_whole_until_erased(self, review):
        before, lesion = review.result("threshold").total, review.left_out("threshold")[0]
        voxels = voxels_of(review, lesion)
        review.pick("threshold", tuple(map(int, voxels[0])), Artery.LAD)
        assert review.result("threshold").total.volume_mm3 == pytest.approx(before.volume_mm3 + 27.0 * len(voxels))
        review.paint("threshold", [tuple(map(float, voxel)) for voxel in voxels], 1.0, False, 0)
        assert review.result("threshold").total == before

    def test_a_click_that_leaks_into_an_aorta_changes_nothing(self, review):
        shape = review.scan.hu.shape
        flat = np.ravel_multi_index(np.indices(shape)[:, 7:12, 7:12, 7:12].reshape(3, -1), shape)
        review.give("threshold", flat, int(NonCoronary.THORACIC_AORTA))
        before = review.review("threshold").labelled
        with pytest.raises(MaskError, match="more likely aorta, valve or bone"):
            review.pick("threshold", (7, 7, 7), Artery.RCA)
        assert review.review("threshold").labelled is before

    def test_nothing_that_is_too_faint_is_taken(self, review):
        with pytest.raises(MaskError, match="130 HU"):
            review.pick("threshold", (0, 0, 0), Artery.LAD)
        for label, words in ((2, "130 HU"), (0, "eraser")):
            with pytest.raises(MaskError, match=words):
                review.paint("threshold", [(0.0, 0.0, 0.0)], 2.0, True, label)


@pytest.mark.parametrize("moved", [(0.3, 0, 0), (0, 0, 2.5)])
def test_the_map_lies_on_the_scans_voxels(moved):
    """Scenes of earlier versions hold the whole of it, later ones a part."""
    calcium_map = image_of(np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4), (0.7, 0.7, 2.5))
    expected = sitk.GetArrayFromImage(calcium_map)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(whole_map(calcium_map, calcium_map)), expected)
    part = calcium_map[1:3, 0:2, 1:2]
    expected[0] = expected[:, 2:] = expected[:, :, [0, 3]] = 0
    np.testing.assert_array_equal(sitk.GetArrayFromImage(whole_map(part, calcium_map)), expected)
    part.SetOrigin(np.add(part.GetOrigin(), moved).tolist())
    with pytest.raises(UnreadableError, match="does not lie on"):
        whole_map(part, calcium_map)


class TestJournal:
    @pytest.fixture
    def edited(self, written, tmp_path):
        """A review whose journal holds some of everything, and the journal's file."""
        journal = Journal(tmp_path / "reviews" / "a.jsonl", "0" * 64)
        state = ReviewFolder(written[0], written[1].scan)
        review = ScanReview(
            state, record_change=lambda kind, c: journal.append(JournalEntry(kind, "A", kind, 1.5, False, 9.5, c))
        )
        edit(review)
        return review, journal.file

    def rebuilt(self, file, written):
        review = ScanReview(ReviewFolder(written[0], written[1].scan))
        review.restore(Journal(file, "0" * 64).steps)
        return review

    def test_a_review_is_rebuilt_from_the_journal(self, edited, written):
        review, file = edited
        again = self.rebuilt(file, written)
        assert numbers(again) == numbers(review)
        assert again.reviewed == review.reviewed
        assert again.slices() == review.slices()
        while review.undo():
            assert again.undo()
            assert numbers(again) == numbers(review)
        assert not again.undo()

    def test_a_journal_cut_off_anywhere_loses_the_last_change_at_most(self, edited, written):
        file = edited[1]
        content = file.read_bytes()
        ends = [n + 1 for n, byte in enumerate(content) if byte == 10]
        for cut in {5, *ends[:2], *ends[-2:], *(end - 1 for end in ends[-2:]), len(content) - 40}:
            file.write_bytes(content[:cut])
            journal = Journal(file, "0" * 64)
            assert len(journal.entries) == max(0, sum(end <= cut for end in ends) - 1)
            journal.append(JournalEntry("time", "A", "", 2, False, 9.5))
            assert len(Journal(file, "0" * 64).entries) == len(journal.entries)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('"number": 2', '"number": 3'),
            ('"kind": "edit"', '"kind": "time"'),
            ("cac-review/3", "cac-review/9"),
            ('"threshold": [[', '"threshold": [[-'),
            ('"seconds"', '"minutes"'),
            ('"seconds":', '"seconds"'),
        ],
    )
    def test_a_journal_damaged_in_the_middle_is_refused(self, edited, old, new):
        text = edited[1].read_text(encoding="utf-8")
        assert old in text
        edited[1].write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(JournalError, match="damaged"):
            Journal(edited[1], "0" * 64)
