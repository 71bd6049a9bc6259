"""Open reviews without a server: confirmations, export of a DICOM series, and cases of cohorts."""

import json
from datetime import datetime

import dicom_results
import numpy as np
import pydicom
import pytest
from dicom_files import chest_hu, write_series
from review_server import act, write_cohort
from whole_records import whole_record

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.labels import Labelled, NonCoronary
from CACScoringLib.core.progress import Progress
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.journals import CONSENSUS, SHARED, file_of, journal_of
from CACScoringLib.readings.recorded_review import begin_blind
from CACScoringLib.record.score_record import read_result
from CACScoringLib.run import RunSettings, write_result
from CACTrainingLib.browser.open_reviews import OpenReview
from CACTrainingLib.browser.project import cases_of


@pytest.fixture
def case(results):
    return next(case for case in cases_of(results, None) if case.name == "one")


def opened(case, reading="shared"):
    return OpenReview(case, reading, case.scan())


def ids_of(review):
    return [lesion.id for lesion in review.review.lesions("threshold")]


def confirmed(case, looked_at=1):
    review = opened(case)
    act(review, "accept", looked_at=ids_of(review)[:looked_at])
    return review


class TestConfirmation:
    @pytest.mark.parametrize("action", ["no-calcium", "reject-rest"])
    def test_lesions_rejected_in_bulk_were_not_shown(self, case, action):
        begin_blind(case, SHARED)
        review = opened(case)
        review.review.make_blind(SHARED)
        act(review, action, looked_at=sorted(review.review.unseen_candidates("threshold"))[:1])
        act(review, "accept")
        confirmation = review.review.confirmations["threshold"]
        assert confirmation.part == "1 of 15 candidates looked at"
        assert not review.review.reviewed.get("decomposition"), "a hidden map is not confirmed"

    def test_confirmation_states_reader_time_and_lesions_shown(self, case):
        review = opened(case)
        first, *unseen = ids_of(review)
        act(review, "accept", looked_at=[first])
        record = read_result(review.export("Ann", dicom=False))
        confirmation = record.review.confirmations["threshold"]
        assert confirmation.reader == "Ann"
        assert datetime.fromisoformat(confirmation.time).utcoffset() is not None
        assert (confirmation.sites, confirmation.not_looked_at) == (len(unseen) + 1, tuple(unseen))
        # Nine of fifteen candidates count.
        assert (confirmation.candidates, confirmation.candidates_unseen) == (15, 14)
        method = record.methods["threshold"]
        looks = {lesion.id: lesion.looked_at for lesion in method.lesions}
        assert looks == {first: True, **dict.fromkeys(unseen, False)}
        assert method.reviewed

    def test_sites_outside_the_arteries_that_were_not_shown_stay_automatic(self, case):
        review = opened(case)
        first, *unseen = ids_of(review)
        labelled = review.review.review("threshold").labelled
        flat = review.review.review("threshold").flat_voxels(unseen)
        valve = np.where(np.isin(labelled.flat, flat), NonCoronary.AORTIC_VALVE, labelled.values).astype(np.uint8)
        review.review.give_all("threshold", Labelled(labelled.flat, valve))
        act(review, "accept", looked_at=[first])
        elsewhere = read_result(review.export("Ann", dicom=False)).non_coronary
        assert not elsewhere.reviewed
        assert {lesion.looked_at for lesion in elsewhere.lesion_list} == {False}
        act(review, "accept", looked_at=unseen)
        assert read_result(review.export("Ann", dicom=False)).non_coronary.reviewed

    def test_the_export_states_the_run_and_the_review(self, case):
        record = read_result(confirmed(case).export("Ann", dicom=False))
        assert record.provenance.created >= record.review.confirmations["threshold"].time
        assert record.review.run == read_result(case.folder).provenance
        assert record.review.journal.sha256 in journal_of(case, "shared").hashes

    def test_confirmation_is_complete_once_all_was_shown_ends_with_the_mark_and_returns_with_undo(self, case):
        review = confirmed(case)
        act(review, "accept", reader="Bob", looked_at=sorted(review.review.unseen_candidates("threshold")))
        confirmation = review.review.confirmations["threshold"]
        assert (confirmation.reader, confirmation.not_looked_at) == ("Bob", ())
        assert review.review.non_coronary.reviewed
        act(review, "reviewed", on=False)
        assert review.review.confirmations == {}
        act(review, "undo", reader="Bob")
        assert review.review.confirmations["threshold"].reader == "Bob"

    def test_an_edit_of_a_confirmed_score_is_confirmed_by_who_edits(self, case):
        review = confirmed(case)
        lesion = ids_of(review)[1]
        act(review, "assign", reader="Bob", lesions=[lesion], site=3)
        confirmation = review.review.confirmations["threshold"]
        assert confirmation.reader == "Bob"
        assert lesion not in confirmation.not_looked_at, "it was shown to who assigned it"

    def test_confirmation_is_kept_when_the_review_is_opened_again(self, case):
        review = confirmed(case, looked_at=2)
        again = opened(case).review
        assert again.confirmations == review.review.confirmations
        assert again.looked_at("threshold") == review.review.looked_at("threshold") != set()


def test_a_consensus_states_the_score_of_each_reader(case):
    for reader, site in (("Ann", 2), ("Bob", 3)):
        review = opened(case, f"reader {reader}")
        ids = ids_of(review)
        act(review, "assign", reader, lesions=ids[:1], site=site)
        act(review, "accept", reader, looked_at=ids)
    consensus = opened(case, CONSENSUS)
    consensus.begin_consensus(["reader Ann", "reader Bob"])
    act(consensus, "assign", lesions=ids[:1], site=2)
    act(consensus, "accept")
    folder = consensus.export("Ann", dicom=False)
    ann, bob = read_result(folder).review.readings
    assert (ann.reader, bob.reader) == ("Ann", "Bob")
    assert (ann.sites[str(ids[0])], bob.sites[str(ids[0])]) == ("LAD", "LCX")
    assert ann.agatston == bob.agatston > 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "reviewed by Ann (consensus of Ann, Bob)" in page
    assert f"Before the consensus, Ann had {ann.agatston:.1f}" in page


@pytest.fixture(scope="module")
def dicom_case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dicom")
    scan = dicom_results.chest_series(folder)
    result = dicom_results.score(scan)
    write_result(OutputFolder(folder / "out"), result, RunSettings(), Progress())
    return cases_of(folder / "out", scan.ct)[0]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The string .Ann.:UserWarning")
def test_a_review_of_a_dicom_series_is_exported_as_dicom_objects(dicom_case):
    pytest.importorskip("highdicom")
    review = OpenReview(dicom_case, "shared", dicom_case.scan())
    act(review, "accept")
    folder = review.export("Ann", dicom=True)
    objects = [pydicom.dcmread(file) for file in (folder / "dicom").glob("*.dcm")]
    assert {"SEG", "SR"} <= {dataset.Modality for dataset in objects}
    assert {str(dataset.PatientID) for dataset in objects} == {"ID 7"}
    assert all(review.journal.hashes[-2] in d.to_json() for d in objects if d.Modality in ("SEG", "SR"))
    assert (folder / "lesions.nii.gz").is_file()


def test_journals_of_readers_have_names_that_are_safe_and_differ(dicom_case):
    names = [file_of(dicom_case, reading).name for reading in ("reader A", "reader a", "reader ../../x", "shared")]
    assert len({name.casefold() for name in names}) == 4
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_a_cohorts_table_leads_to_no_folder_that_its_record_lacks(tmp_path):
    results = write_cohort(tmp_path / "cohort", ["one", "two"])
    table = results / "cohort.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("one,one,", "one,../secret,"), encoding="utf-8")
    assert [case.name for case in cases_of(results, None)] == ["two"]


@pytest.mark.long
@pytest.mark.parametrize("text", ["{", "[]", '{"scans": 5}', '{"scans": {"one": 5}}', '{"scans": {"one": {}}}'])
def test_a_damaged_record_of_a_cohort_is_reported(tmp_path, text):
    results = write_cohort(tmp_path / "cohort", ["one"])
    (results / "cohort.json").write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableError, match=r"cohort.json is damaged.*again, with --overwrite"):
        cases_of(results, None)


def test_relative_cts_are_found_from_the_folder_of_the_scoring(tmp_path, monkeypatch):
    results = write_cohort(tmp_path / "cohort", ["one"])
    table = results / "cohort.csv"
    table.write_text(
        table.read_text(encoding="utf-8").replace(str(tmp_path / "cohort" / "cts"), "cts"), encoding="utf-8"
    )
    monkeypatch.chdir("/")
    assert cases_of(results, None)[0].ct == tmp_path / "cohort" / "cts" / "one.nii.gz"


@pytest.mark.parametrize("kernels", [("B35f", "B35f", "B35f"), ("B35f", "B70f", "B35f")])
def test_scored_series_is_read_among_series_with_the_same_number(tmp_path, kernels):
    """Also where the rule prefers another."""
    folder, results = tmp_path / "ct", tmp_path / "results"
    scored, unscored = chest_hu(seed=1), chest_hu(seed=2)
    for name, hu, kernel in zip("abc", (unscored, scored, unscored), kernels, strict=True):
        tags = {"SeriesNumber": 3, "ConvolutionKernel": kernel}
        tags |= {"StudyInstanceUID": "1.2"} if "B70f" in kernels else {}
        write_series(folder, hu, tags=tags, name=f"{name}{{}}.dcm".format)
    uid = str(pydicom.dcmread(folder / "b0.dcm").SeriesInstanceUID)
    content = whole_record()
    content["input"]["series_sha256"] = Acquisition("DICOM", series_uid=uid).series_sha256
    results.mkdir()
    (results / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    assert (ReviewCase("scan", "", folder, id="id", folder=results).scan().hu == scored).all()
