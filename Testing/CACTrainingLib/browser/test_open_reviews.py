"""Test open reviews without a server: export of a DICOM series, and cases of cohorts."""

import json

import dicom_results
import pydicom
import pytest
from dicom_files import chest_hu, write_series
from review_server import act, write_cohort
from whole_records import whole_record

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.progress import Progress
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.journals import file_of
from CACScoringLib.run import RunSettings, write_result
from CACTrainingLib.browser.open_reviews import OpenReview
from CACTrainingLib.browser.project import cases_of


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


def write_scores(results, uid):
    content = whole_record()
    content["input"]["series_sha256"] = Acquisition("DICOM", series_uid=uid).series_sha256
    results.mkdir()
    (results / "scores.json").write_text(json.dumps(content), encoding="utf-8")


def test_scored_series_is_read_among_series_with_the_same_number(tmp_path):
    folder, results = tmp_path / "ct", tmp_path / "results"
    scored, unscored = chest_hu(seed=1), chest_hu(seed=2)
    for name, hu in (("a{}.dcm", unscored), ("b{}.dcm", scored), ("c{}.dcm", unscored)):
        write_series(folder, hu, tags={"SeriesNumber": 3}, name=name.format)
    write_scores(results, str(pydicom.dcmread(folder / "b0.dcm").SeriesInstanceUID))
    assert (ReviewCase("scan", "", folder, id="id", folder=results).scan().hu == scored).all()


def test_scored_series_is_read_though_the_rule_prefers_another(tmp_path):
    folder, results = tmp_path / "ct", tmp_path / "results"
    soft, sharp = chest_hu(seed=1), chest_hu(seed=2)
    for name, hu, kernel in (("a{}.dcm", soft, "B35f"), ("b{}.dcm", sharp, "B70f")):
        tags = {"StudyInstanceUID": "1.2", "SeriesNumber": 3, "ConvolutionKernel": kernel}
        write_series(folder, hu, tags=tags, name=name.format)
    write_scores(results, str(pydicom.dcmread(folder / "b0.dcm").SeriesInstanceUID))
    assert (ReviewCase("scan", "", folder, id="id", folder=results).scan().hu == sharp).all()
