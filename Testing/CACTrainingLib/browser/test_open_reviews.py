"""Open reviews without a server: confirmations, export of a DICOM series, cases of cohorts, plans, repetitions."""

import json
from dataclasses import replace
from datetime import datetime

import dicom_results
import numpy as np
import pydicom
import pytest
from dicom_files import chest_hu, write_series
from review_server import act, write_cohort
from whole_records import whole_record

from CACScoringLib.cli import main as scoring
from CACScoringLib.cohort.folder import TABLE
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.errors import OutputError, UnreadableError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.labels import Labelled, NonCoronary
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import read_table
from CACScoringLib.readings import journals
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.recorded_review import begin_blind
from CACScoringLib.readings.work_list import WorkList, plan_of
from CACScoringLib.record.provenance import JournalRecord
from CACScoringLib.record.score_record import read_result
from CACScoringLib.run import RunSettings, write_result
from CACTrainingLib.browser.open_reviews import OpenReview
from CACTrainingLib.browser.page_state import rows_of
from CACTrainingLib.browser.project import cases_of
from CACTrainingLib.cli.main import main
from CACTrainingLib.cli.review import ReviewOptions, serve_arguments


@pytest.fixture
def case(results):
    return next(case for case in cases_of(results, None) if case.name == "one")


def opened(case, reading="shared"):
    return OpenReview(case, reading, case.scan())


def ids_of(review):
    return [lesion.id for lesion in review.review.lesions("threshold")]


def confirmed(case):
    review = opened(case)
    act(review, "accept", looked_at=ids_of(review)[:1])
    return review


class TestConfirmation:
    def test_lesions_rejected_in_bulk_were_not_shown(self, case):
        begin_blind(case, journals.SHARED)
        review = opened(case)
        review.review.make_blind(journals.SHARED)
        act(review, "reject-rest", looked_at=sorted(review.review.unseen_candidates("threshold"))[:1])
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
        assert record.provenance.created >= confirmation.time
        assert record.review.run == read_result(case.folder).provenance
        assert record.review.journal == JournalRecord(journals.file_of(case, "shared").name, 1)

    def test_sites_outside_the_arteries_that_were_not_shown_stay_automatic(self, case):
        review = opened(case)
        first, *unseen = ids_of(review)
        labelled = review.review.review("threshold").labelled
        flat = review.review.review("threshold").flat_voxels(unseen)
        valve = np.where(np.isin(labelled.flat, flat), NonCoronary.AORTIC_VALVE, labelled.values).astype(np.uint8)
        review.review.give_all("threshold", Labelled(labelled.flat, valve))
        act(review, "accept", looked_at=[first])
        record = read_result(review.export("Ann", dicom=False))
        assert not record.non_coronary.reviewed
        assert {lesion.looked_at for lesion in record.outside} == {False}
        act(review, "accept", looked_at=unseen)
        assert read_result(review.export("Ann", dicom=False)).non_coronary.reviewed

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

    def test_an_edit_of_a_confirmed_score_is_confirmed_by_who_edits_also_when_opened_again(self, case):
        review = confirmed(case)
        lesion = ids_of(review)[1]
        act(review, "assign", reader="Bob", lesions=[lesion], site=3)
        confirmation = review.review.confirmations["threshold"]
        assert confirmation.reader == "Bob"
        assert lesion not in confirmation.not_looked_at, "it was shown to who assigned it"
        review.spend("Bob", 5.0, {"threshold": ids_of(review)[2:3]})
        again = opened(case)
        assert again.journal.seconds == review.journal.seconds == 7.0
        assert again.review.confirmations == review.review.confirmations
        assert again.review.looked_at("threshold") == review.review.looked_at("threshold") != set()

    def test_it_names_who_confirmed_it_after_another_reader_has_edited_the_map(self, case):
        review = opened(case)
        act(review, "accept", reader="Ann")
        act(review, "no-calcium", reader="Bob", method="decomposition")
        assert "reviewed by Ann" in review.page_state()["headline"]["state"]
        page = (review.export("Bob", dicom=False) / "report.html").read_text(encoding="utf-8")
        assert "reviewed by Ann" in page
        assert "reviewed by Bob" not in page


def test_a_consensus_states_the_score_of_each_reader(case):
    for reader, site in (("Ann", 2), ("Bob", 3)):
        review = opened(case, f"reader {reader}")
        ids = ids_of(review)
        act(review, "assign", reader, lesions=ids[:1], site=site)
        act(review, "accept", reader, looked_at=ids)
    consensus = opened(case, journals.CONSENSUS)
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


def test_an_exported_review_counts_in_the_table_of_the_cohort(case):
    review = opened(case)
    act(review, "reject", lesions=ids_of(review)[:1])
    review.export("Ann", dicom=False)  # a draft does not count
    table = read_table(case.folder.parent / TABLE)
    assert [line.text("threshold_automatic_agatston") for line in table.lines] == [""] * len(table.lines)
    act(review, "accept", looked_at=ids_of(review))
    reviewed = read_result(review.export("Ann", dicom=False))
    (row,) = [line for line in read_table(case.folder.parent / TABLE).lines if line.text("name") == "one"]
    assert (row.text("threshold_status"), row.text("reader")) == ("reviewed", "Ann")
    assert row.number_in("threshold_agatston") == reviewed.total.clinical_agatston
    before = read_result(case.folder).total.clinical_agatston
    assert row.number_in("threshold_automatic_agatston") == before != reviewed.total.clinical_agatston
    assert row.text("threshold_automatic_status") == "automatic"
    (again,) = [again for again in cases_of(case.folder.parent, None) if again.name == "one"]
    assert (again.status, again.agatston, again.interval) == (case.status, case.agatston, case.interval)


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
    assert all(review.journal.file.name in d.to_json() for d in objects if d.Modality in ("SEG", "SR"))
    assert (folder / "lesions.nii.gz").is_file()


def test_journals_of_readers_have_names_that_are_safe_and_differ(dicom_case):
    names = [
        journals.file_of(dicom_case, reading).name for reading in ("reader A", "reader a", "reader ../../x", "shared")
    ]
    assert len({name.casefold() for name in names}) == 4
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_a_cohorts_table_leads_to_no_folder_that_its_record_lacks(tmp_path):
    results = write_cohort(tmp_path / "cohort", ["one", "two"])
    table = results / "cohort.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("one,one,", "one,../secret,"), encoding="utf-8")
    assert [case.name for case in cases_of(results, None)] == ["two"]


def test_a_damaged_record_of_a_cohort_is_reported(results):
    for text in ("{", "[]", '{"scans": 5}', '{"scans": {"one": 5}}', '{"scans": {"one": {}}}'):
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


@pytest.mark.parametrize("kernels", [("B35f", "B35f", "B35f"), ("B35f", "B70f")])
def test_scored_series_is_read_among_series_with_the_same_number(tmp_path, kernels):
    """Also where the rule prefers another."""
    folder, results = tmp_path / "ct", tmp_path / "results"
    scored, unscored = chest_hu(seed=1), chest_hu(seed=2)
    for name, hu, kernel in zip("abc", (unscored, scored, unscored), kernels, strict=False):
        tags = {"StudyInstanceUID": "1.2", "SeriesNumber": 3, "ConvolutionKernel": kernel}
        write_series(folder, hu, tags=tags, name=f"{name}{{}}.dcm".format)
    uid = str(pydicom.dcmread(folder / "b0.dcm").SeriesInstanceUID)
    content = whole_record()
    content["input"]["series_sha256"] = Acquisition("DICOM", series_uid=uid).series_sha256
    results.mkdir()
    (results / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    assert (ReviewCase("scan", "", folder, id="id", folder=results).scan().hu == scored).all()


def test_a_result_with_readings_is_not_replaced(results, case):
    confirmed(case)
    with pytest.raises(OutputError, match="has been read"):
        OutputFolder(case.folder, overwrite=True)
    assert scoring.main(["score", str(case.ct), "--output", str(case.folder), "--overwrite"]) == 2
    assert scoring.main(["cohort", str(case.ct.parent), "--output", str(results), "--overwrite"]) == 2
    assert len(journals.journal_of(case, "shared").entries) == 1


READERS = ("Ann", "Bob")


@pytest.fixture
def cases(results):
    return cases_of(results, None)


def planned(results, cases, repeated=1 / 3, seed=0):
    return plan_of(results, cases, READERS, repeated, seed)


def read(case, reader, kind):
    """Let a reader confirm a scan."""
    act(OpenReview(case, journals.reading_by(reader, kind), case.scan()), "accept", reader)


class TestPlan:
    def test_plan_is_kept_and_follows_from_the_seed(self, results, cases):
        plan = planned(results, cases, seed=3)
        assert planned(results, cases, seed=4) == plan, "the plan on the disk"
        assert plan_of(results, cases, READERS[:1], None, 0) == plan
        (results / journals.PLAN).unlink()
        assert planned(results, cases, seed=3) == plan
        assert plan_of(results, cases, READERS, None, 0) == plan

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: text.replace(",three,", ",four,"), "is a plan of other scans"),
            (lambda text: text.replace("Bob", "Eve"), "plans no scans for Bob"),
            (lambda text: text.replace(",one,1", ",one,3"), "repetition is '3', not 1 or 2"),
        ],
    )
    def test_a_plan_that_does_not_fit_is_refused(self, results, cases, change, message):
        planned(results, cases)
        file = results / journals.PLAN
        file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
        with pytest.raises(OutputError, match=message):
            planned(results, cases)

    def test_a_plan_binds_without_options_and_in_the_folder_of_a_scan(self, results, cases):
        plan_of(results, cases, READERS, 0.0, blind=True)
        work = serve_arguments(ReviewOptions(results, reader=("Ann",)))[1]
        assert (work.double, work.blind) == (True, True)
        with pytest.raises(OutputError, match="plans no scans for Eve"):
            serve_arguments(ReviewOptions(results, reader=("Eve",)))
        with pytest.raises(OutputError, match="are planned in"):
            serve_arguments(ReviewOptions(cases[0].folder, ct=cases[0].ct, reader=("Ann",)))

    def test_without_a_request_or_out_of_range_there_is_none(self, results, cases):
        assert plan_of(results, cases, READERS, None, 0) == []
        with pytest.raises(OutputError, match="--repeat is 2"):
            planned(results, cases, repeated=2)
        assert not (results / journals.PLAN).exists()

    def test_other_readings_and_a_date_lie_between_both_readings_of_a_scan(self, results, cases):
        scans = [f"s{n}" for n in range(30)]
        named = [replace(cases[0], folder=results / name) for name in scans]
        plan = plan_of(results, named, READERS, 0.5, washout="2999-01-01")
        for reader in READERS:
            order = [reading.scan for reading in plan if reading.reader == reader]
            again = order[30:]
            assert min(30 + n - order.index(scan) for n, scan in enumerate(again)) > 10
            assert again != [scan for scan in order[:30] if scan in again], "in another order"
        assert {reading.not_before for reading in plan if reading.kind == journals.AGAIN} == {"2999-01-01"}


class TestWorkList:
    def test_rows_are_in_the_order_of_the_plan_and_a_repetition_follows_the_first_reading(self, results, cases):
        work = WorkList(cases, READERS, double=True, blind=True, plan=planned(results, cases))
        listed = rows_of(work, "Ann")
        places = [work.place_at("Ann", row["id"]) for row in listed]
        assert [(case.id, kind) for case, kind in places] == work.plan["Ann"]
        assert {row["reading"] for row in listed} == {journals.FIRST}, "nothing shows the repetition"
        assert len({row["id"] for row in [*listed, *rows_of(work, "Bob")]} | {case.id for case in cases}) == 11
        assert [row["name"] for row in listed] == [f"Case {n}" for n in range(1, 5)]
        case = work.cases[work.plan["Ann"][-1][0]]
        assert not work.may_read_again(case, "Ann")
        for unread in cases:
            assert not work.may_read_again(case, "Ann"), "all first readings come before"
            read(unread, "Ann", journals.FIRST)
        assert work.may_read_again(case, "Ann")
        assert not any(work.may_read_again(scan, "Ann") for scan in cases if scan is not case)
        later = [replace(reading, not_before="2999-01-01") for reading in planned(results, cases)]
        assert not WorkList(cases, READERS, double=True, plan=later).may_read_again(case, "Ann"), "not before its date"
        assert {row["name"][:4] for row in rows_of(work, "Ann")} == {"Case"}, "still hidden"
        read(case, "Ann", journals.AGAIN)
        alone = WorkList(cases, ["Ann"], double=True, blind=True, plan=planned(results, cases))
        assert not alone.is_closed, "Bob has not read"
        for scan in cases:
            assert not work.consensus_due(scan)
            read(scan, "Bob", journals.FIRST)
        assert work.hides(case, "Ann", journals.FIRST)
        read(work.cases[work.plan["Bob"][-1][0]], "Bob", journals.AGAIN)
        assert work.is_closed
        assert alone.is_closed
        assert work.consensus_due(case)
        assert {row["name"] for row in rows_of(work, "Ann")} == {"one", "two", "three", f"{case.name} (again)"}
        assert "none is changed any more" in work.refusal(case, "Ann", journals.AGAIN, to_change=True)
        assert not work.refusal(case, "Ann", journals.AGAIN)

    def test_repetitions_have_addresses_of_their_own_also_if_not_blind(self, results, cases):
        work = WorkList(cases, READERS, double=True, plan=planned(results, cases))
        rows = rows_of(work, "Ann")
        assert [row["id"] for row in rows[:3]] == [case_id for case_id, _ in work.plan["Ann"][:3]]
        assert rows[3]["id"] not in work.cases
        assert work.place_at("Bob", rows[3]["id"]) is None
        assert not work.hides(cases[0], "Ann", journals.FIRST)
        assert not work.is_closed


def test_tables_need_readers_who_read_alone(results, capsys):
    assert main(["review", str(results), "--tables", str(results / "tables")]) == 2
    assert "Add --double" in capsys.readouterr().err
