"""Whose scans these are: no file names a person unasked, and two people are not compared."""

import csv
import gzip
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series
from images import image_of
from in_this_process import InThisProcess
from noisy_hearts import noisy_heart
from review_server import act

from CACScoringLib.cli import main as cli
from CACScoringLib.cohort import cohort
from CACScoringLib.core.files import REVIEWS
from CACScoringLib.readings.cases import cases_in
from CACScoringLib.readings.journals import open_journal, reading_by
from CACScoringLib.record.score_record import read_result
from CACTrainingLib.browser.open_reviews import OpenReview
from CACTrainingLib.cli import main as training

SPACING_MM, ORIGIN_MM = (1.0, 1.0, 3.0), (-100.0, -120.0, 30.0)
PERSON = {
    "PatientName": "ROE^JANE",
    "PatientID": "ID-4711",
    "IssuerOfPatientID": "CLINIC-X",
    "PatientBirthDate": "19500817",
    "StudyID": "S-0815",
    "AccessionNumber": "ACC-99",
    "SeriesInstanceUID": "1.2.3.4711",
}
DATES = {"a": "20210317", "b": "20240419", "c": "20240420"}
NAMING = (*PERSON.values(), *DATES.values(), *(f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in DATES.values()))


def series(folder, rows_of_lesion, **tags):
    """Write a DICOM series of the person with a lesion, and the mask of its heart; return its folder."""
    scan, heart = noisy_heart((10, 50, 50), [(np.s_[5, 20 : 20 + rows_of_lesion, 20:24], 250)])
    write_series(folder, scan.hu, spacing_mm=SPACING_MM, origin_mm=ORIGIN_MM, tags={**PERSON, **tags})
    mask = image_of(sitk.GetArrayFromImage(heart), SPACING_MM, ORIGIN_MM)
    sitk.WriteImage(mask, folder.with_name(f"{folder.name}-heart.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def written_scans(tmp_path_factory):
    """A folder with a table of DICOM series: a and b of one person, c of another."""
    folder, rows = tmp_path_factory.mktemp("scans"), ["ct,heart,patient,session"]
    for rows_of_lesion, (name, date) in enumerate(DATES.items(), 4):
        tags = {"PatientID": "ID-4712"} if name == "c" else {}
        series(folder / name, rows_of_lesion, StudyDate=date, **tags)
        rows.append(f"{name},{name}-heart.nii.gz,study-{name},1")
    (folder / "scans.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def scans(written_scans, tmp_path, monkeypatch):
    """A copy of the folder for one test."""
    monkeypatch.setattr(cohort, "Workers", InThisProcess)
    return shutil.copytree(written_scans, tmp_path / "scans")


@pytest.fixture(scope="module")
def scored_scans(written_scans, tmp_path_factory):
    """The scored cohort of the folder, to be read only."""
    folder = shutil.copytree(written_scans, tmp_path_factory.mktemp("scored") / "scans")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, "Workers", InThisProcess)
        score_all(folder)
    return folder


def run(*words):
    return cli.main([*map(str, words), "--progress", "none"])


def score_all(scans, *options):
    assert run("cohort", scans / "scans.csv", "--output", scans / "out", "--threshold-only", *options) == 0
    return scans / "out"


def read_by_ann(case):
    """Read a scan as Ann in the browser; return the folder of the export."""
    review = OpenReview(case, reading_by("Ann"), case.scan())
    ids = [lesion.id for lesion in review.review.lesions("threshold")]
    act(review, "assign", lesions=ids, site=2)
    act(review, "accept")
    return review.export("Ann", dicom=False)


def contents(file: Path) -> bytes:
    """Return the content of a file, unpacked, with its path."""
    data = file.read_bytes()
    if file.suffix == ".gz":
        data = gzip.decompress(data)
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            data = b"".join(name.encode() + archive.read(name) for name in archive.namelist())
    return str(file).encode() + data


def test_no_file_names_a_person_unasked_but_dicom_objects(scans):
    out = score_all(scans, "--settings", json.dumps({"results": {"scene": True}}))
    assert run("compare", out / "a", out / "b", "--output", scans / "compared") == 0
    assert run("cohort", "report", out) == 0
    heart = ("--heart", scans / "b-heart.nii.gz", "--threshold-only", "--output", scans / "scored")
    assert run("score", scans / "b", "--earlier", out / "a", *heart) == 0
    exported = read_by_ann(cases_in(out)[0])
    double = ("--double", "--reader", "Ann", "--reader", "Bob", "--tables", scans / "tables")
    assert training.main(["review", *map(str, (out, *double))]) == 0
    places = ("out", "compared", "scored", "tables")
    files = [f for place in places for f in (scans / place).rglob("*") if f.is_file()]
    assert {".jsonl", ".html", ".json", ".csv", ".mrb", ".gz"} <= {f.suffix for f in files}
    identities = {(f.name, word) for f in files for word in NAMING if word.encode() in contents(f)}
    assert not identities
    digest = read_result(out / "a").acquisition.patient_digest
    journal = open_journal(next((out / "a" / REVIEWS).iterdir()))
    assert json.loads(journal.file.read_text(encoding="utf-8").splitlines()[0])["patient"] == digest
    for table, entries in ((exported / "lesions.csv", "2"), (scans / "tables" / "readings.csv", "3")):
        row = next(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
        assert (row["patient_digest"], row["journal"], row["entries"]) == (digest, journal.file.name, entries)
    shutil.rmtree(out)  # what has been read is not replaced
    named = score_all(scans, "--identify") / "a" / "scores.json"
    assert b"ID-4711" in contents(named)
    assert b"2021-03-17" in contents(named)


@pytest.mark.parametrize("name", ["Roe, Jane", "20210317"])
def test_a_folder_with_the_name_of_a_person(scans, name):
    (scans / "a").rename(scans / name)
    heart = ("--heart", scans / "a-heart.nii.gz", "--threshold-only", "--output", scans / f"{name}-cac")
    settings = json.dumps({"results": {"scene": True}})
    assert run("score", scans / name, *heart, "--settings", settings) == 0
    assert run("score", scans / "b", "--earlier", scans / f"{name}-cac", *heart[:-1], scans / "later") == 0
    # The date of the earlier scan is unknown to the later one.
    folders = (f"{name}-cac", *(() if name == DATES["a"] else ("later",)))
    files = [file for folder in folders for file in (scans / folder).iterdir()]
    written = {file.name: contents(file)[len(str(file)) :] for file in files}
    assert not {(file, word) for file, text in written.items() for word in (*NAMING, name) if word.encode() in text}
    record = read_result(scans / f"{name}-cac")
    assert record.input.name == f"scan-{record.acquisition.study_digest[:8]}"
    assert "--heart" in record.provenance.command
    assert run("score", scans / name, *heart, "--settings", '{"results": {"identify": true}}', "--overwrite") == 0
    assert read_result(scans / f"{name}-cac").input.name == name


def test_tables_join_scans_of_a_person_and_outcomes(scored_scans):
    table = (scored_scans / "out" / "cohort.csv").read_text(encoding="utf-8-sig")
    rows = {row["patient"]: row for row in csv.DictReader(table.splitlines())}
    digests = [rows[f"study-{name}"]["patient_digest"] for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert len({row["study_digest"] for row in rows.values()}) == 3
    assert {row["session"] for row in rows.values()} == {"1"}
    assert int(rows["study-b"]["shifted_day"]) - int(rows["study-a"]["shifted_day"]) == 1129


def test_two_people_are_refused_before_scoring_and_compared_on_request(scored_scans, tmp_path, capsys):
    scans, out = scored_scans, scored_scans / "out"
    files = ("--heart", scans / "c-heart.nii.gz", "--threshold-only", "--output", tmp_path / "scored")
    for command in (
        ("compare", out / "a", out / "c", "--output", tmp_path / "compared"),
        ("compare", out / "a", scans / "c", "--output", tmp_path / "compared"),
        ("score", scans / "c", "--earlier", out / "a", *files),
    ):
        assert run(*command) == cli.BAD_INPUT
        assert "differ in patient ID" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run("score", scans / "c", "--earlier", out / "a", *files, "--different-patients") == 0
    assert "comparison-patients" in (tmp_path / "scored" / "scores.json").read_text(encoding="utf-8")
    assert run("compare", out / "b", out / "a", "--output", tmp_path / "compared") == 0
    assert "acquired first" in capsys.readouterr().err


def test_a_lost_key_leaves_scores_and_a_warning(written_scans, tmp_path, monkeypatch):
    monkeypatch.setenv("CAC_PATIENT_KEY", str(tmp_path / "lost.key"))
    heart = ("--heart", written_scans / "a-heart.nii.gz", "--threshold-only")
    assert run("score", written_scans / "a", *heart, "--output", tmp_path / "out") == 0
    record = read_result(tmp_path / "out")
    assert "patient-key" in record.warning_codes
    assert record.acquisition.patient_digest is None
    assert not (tmp_path / "lost.key").exists()


@pytest.mark.parametrize(
    ("tags", "difference"),
    [
        ({"IssuerOfPatientID": "CLINIC-Y"}, "patient ID issuer"),
        ({"PatientName": "DOE^JOHN", "PatientBirthDate": "19600101"}, "patient birth date and patient name"),
        ({"PatientName": "DOE^JANE"}, ""),
    ],
)
def test_patients_are_compared_by_all_facts_of_their_headers(scored_scans, tmp_path, capsys, tags, difference):
    scan = series(tmp_path / "d", 5, StudyDate=DATES["c"], **tags)
    heart = ("--heart", tmp_path / "d-heart.nii.gz", "--threshold-only", "--output", tmp_path / "scored")
    status = run("score", scan, "--earlier", scored_scans / "out" / "a", *heart)
    assert status == (cli.BAD_INPUT if difference else 0)
    assert f"differ in {difference}," in capsys.readouterr().err if difference else (tmp_path / "scored").is_dir()
