"""Test open reviews without a server: export of a DICOM series, and cases of cohorts."""

import dicom_results
import pydicom
import pytest
from dicom_files import chest_hu, write_series
from review_server import write_cohort

from CACScoringLib.cohort.scoring import ScanRecord, content_key, files_key, write_record
from CACScoringLib.core.ct import UnreadableError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.progress import Progress
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.journals import file_of
from CACScoringLib.run import RunSettings, write_result
from CACScoringLib.scans.source import ScanSource
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
    request = {"action": "accept", "method": "threshold", "version": 0, "seconds": 0}
    review.act("Ann", review.request_of(request))
    folder = review.export("Ann", dicom=True)
    objects = [pydicom.dcmread(file) for file in (folder / "dicom").glob("*.dcm")]
    assert {"SEG", "SR"} <= {dataset.Modality for dataset in objects}
    assert {str(dataset.PatientID) for dataset in objects} == {"ID 7"}
    assert (folder / "lesions.nii.gz").is_file()


def test_journals_of_readers_have_names_that_are_safe_and_differ(dicom_case):
    names = [file_of(dicom_case, reading).name for reading in ("reader A", "reader a", "reader ../../x", "shared")]
    assert len({name.casefold() for name in names}) == 4
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_a_cohorts_table_leads_to_no_folder_that_its_record_lacks(tmp_path):
    results = write_cohort(tmp_path / "cohort", ["one", "two"])
    table = results / "cohort.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("one,one,", "one,../secret,"))
    assert [case.name for case in cases_of(results, None)] == ["two"]


@pytest.mark.long
@pytest.mark.parametrize("text", ["{", "[]", '{"scans": 5}', '{"scans": {"one": 5}}', '{"scans": {"one": {}}}'])
def test_a_damaged_record_of_a_cohort_is_reported(tmp_path, text):
    results = write_cohort(tmp_path / "cohort", ["one"])
    (results / "cohort.json").write_text(text)
    with pytest.raises(UnreadableError, match=r"cohort.json is damaged.*again, with --overwrite"):
        cases_of(results, None)


def test_relative_cts_are_found_from_the_folder_of_the_scoring(tmp_path, monkeypatch):
    results = write_cohort(tmp_path / "cohort", ["one"])
    table = results / "cohort.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(str(tmp_path / "cohort" / "cts"), "cts"))
    monkeypatch.chdir("/")
    assert cases_of(results, None)[0].ct == tmp_path / "cohort" / "cts" / "one.nii.gz"


@pytest.mark.parametrize(("key", "make"), [("files", files_key), ("content", content_key)])
def test_scored_series_is_read_though_the_rule_prefers_another(tmp_path, key, make):
    folder, results = tmp_path / "ct", tmp_path / "results"
    results.mkdir()
    for name, seed, kernel in (("a{}.dcm", 1, "B35f"), ("b{}.dcm", 2, "B70f"), ("c{}.dcm", 3, "B35f")):
        tags = {"StudyInstanceUID": "1.2", "SeriesNumber": 3, "ConvolutionKernel": kernel}
        write_series(folder, chest_hu(seed=seed), tags=tags, name=name.format)
    scored = ScanSource("scan", "", folder, str(pydicom.dcmread(folder / "b0.dcm").SeriesInstanceUID))
    write_record(results, ScanRecord(**{"content": "", "files": "", key: make(scored)}, settings=""))
    assert (ReviewCase("scan", "", folder, id="id", folder=results).scan().hu == chest_hu(seed=2)).all()
