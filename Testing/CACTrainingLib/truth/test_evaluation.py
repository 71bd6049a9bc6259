"""The study from one command: scored, stored, written, and resumed after faults."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from digital_pairs import CALCIFIED, CLEAN, scored_in_this_process
from study_tables import csv_rows

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.tables import write_table
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.truth import comparison
from CACTrainingLib.truth.evaluation import EvaluationSettings, evaluate


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The scans that were scored."""
    return scored_in_this_process(monkeypatch)


@pytest.fixture
def pairs(digital_pairs, tmp_path):
    """Copy of a cohort that a test can damage."""
    shutil.copytree(digital_pairs, tmp_path / "cohort")
    return tmp_path / "cohort"


def page_of(result):
    return result.page.read_text(encoding="utf-8")


@pytest.mark.long
def test_scans_are_scored_once_and_bad_ones_stop_nothing(pairs, tmp_path, quick, monkeypatch):
    scans = pairs / f"patient_{CALCIFIED}"
    shutil.copytree(scans / "scan_1", scans / "broken")
    truth = json.loads((scans / "broken" / "truth.json").read_text(encoding="utf-8"))
    (scans / "broken" / "truth.json").write_text(json.dumps({**truth, "patient": 77}), encoding="utf-8")
    (scans / "broken" / "ct.nii.gz").write_bytes(b"no image")
    shutil.copytree(scans / "scan_1", scans / "unreadable")
    (scans / "unreadable" / "truth.json").write_text("{", encoding="utf-8")

    settings = EvaluationSettings(("reproducibility", "detection", "heart"), tmp_path / "out", pairs, workers=1)
    result = evaluate(settings)
    text = page_of(result)
    assert {record.name: record.refused is None for record in result.records} == {
        f"patient_{CLEAN}/scan_1": True,
        f"patient_{CLEAN}/scan_2": True,
        f"patient_{CALCIFIED}/broken": False,
        f"patient_{CALCIFIED}/scan_1": True,
        f"patient_{CALCIFIED}/scan_2": True,
    }
    assert "broken" in text
    assert "unreadable" in text
    assert "77" in text, "the patient with one scan alone"
    assert "Digital patients" in text
    assert "counts everything dense in" in text
    assert not list((tmp_path / "out" / "scans").rglob("healthy.nii.gz"))
    monkeypatch.setattr(comparison, "compare", lambda *_: pytest.fail("records are kept"))
    assert evaluate(replace(settings, studies=("heart",))).records == result.records
    assert len(quick) == 4


@pytest.fixture
def results(digital_results, tmp_path):
    """Results in a folder as `cac cohort` leaves them, without those of the last scan."""
    scans, folders = digital_results
    place = tmp_path / "results"
    place.mkdir()
    for folder in folders[:-1]:
        shutil.copytree(folder, place / folder.name)
    rows = [(folder.name, scan.ct, "done", "") for scan, folder in zip(scans[:-1], folders[:-1], strict=True)]
    write_table(place / "cohort.csv", ("folder", "ct", "state", "reason"), rows)
    return place


def heart(digital_pairs, tmp_path, results, **more):
    return EvaluationSettings(("heart",), tmp_path / "out", digital_pairs, results, workers=1, **more)


@pytest.mark.long
def test_a_record_is_made_anew_when_its_truth_changes(pairs, digital_results, results, tmp_path, quick):
    table = (results / "cohort.csv").read_text(encoding="utf-8")
    original = digital_results[0][0].ct.parents[2]
    (results / "cohort.csv").write_text(table.replace(str(original), str(pairs)), encoding="utf-8")
    records = evaluate(heart(pairs, tmp_path, results)).records
    assert [record.refused for record in records] == [None] * 4
    assert records[0].truth_mg["total"] == 0
    assert len(quick) == 1, "the scan without a result"
    assert len(list((tmp_path / "out" / "scans").glob("*/scores.json"))) == 1
    truth = pairs / f"patient_{CLEAN}" / "scan_1" / "truth.json"
    content = {**json.loads(truth.read_text(encoding="utf-8")), "mass_mg": 2.5}
    truth.write_text(json.dumps(content), encoding="utf-8")
    assert evaluate(heart(pairs, tmp_path, results)).records[0].truth_mg["total"] == 2.5


@pytest.mark.long
def test_results_that_are_there_serve_every_study(digital_pairs, results, tmp_path, quick):
    """Accuracy links their reports, and a scan that could not be scored there stays out, with the reason."""
    table = (results / "cohort.csv").read_text(encoding="utf-8").splitlines()
    scan = digital_pairs / f"patient_{CALCIFIED}" / "scan_2" / "ct.nii.gz"
    (results / "cohort.csv").write_text("\n".join([*table, f",{scan},failed,Slices are missing."]), encoding="utf-8")
    settings = EvaluationSettings(("accuracy", "heart"), tmp_path / "out", digital_pairs, results, workers=1)
    result = evaluate(settings)
    assert not quick
    assert [record.refused for record in result.records] == [None] * 3 + ["Slices are missing."]
    assert len(result.accuracy.scans) == 3
    assert {section.name for section in result.accuracy.sections} >= {"reference", "totals", "lesions"}
    rows = csv_rows(tmp_path / "out" / "comparison.csv")
    readers = {record.name: record.values["reader"]["total"][1] for record in result.records if not record.refused}
    assert {row["scan"]: float(row["reference"]) for row in rows} == pytest.approx(readers)
    links = set(re.findall(r'href="([^"]+report.html)"', page_of(result)))
    assert all((tmp_path / "out" / link).resolve().parent.parent == results for link in links)


@pytest.fixture
def project(digital_pairs, tmp_path):
    """The first scan of each digital patient to test on; the second ones are not in it."""
    project = Project.create(tmp_path / "project", "my <hearts>")
    truths = sorted(digital_pairs.rglob("scan_1/truth.json"))
    project.add([NewScan(t.parts[-3], t.parts[-3], t.parent / "ct.nii.gz", source="digital", truth=t) for t in truths])
    project.set_use({scan.patient: "test" for scan in project.scans})
    return project


@pytest.mark.long
def test_a_project_of_single_scans(project, results, tmp_path):
    """Detection needs no pairs; the reproducibility study reports that there are none."""
    settings = EvaluationSettings(
        ("reproducibility", "detection", "heart"), tmp_path / "out", project.folder, results, use="test", workers=1
    )
    result = evaluate(settings)
    assert {record.patient: record.refused for record in result.records} == {
        f"patient_{CALCIFIED}": None,
        f"patient_{CLEAN}": None,
    }
    index = json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))
    texts = [text for section in index["sections"] for text in section["text"]]
    sentence = next(text for text in texts if "my <hearts>" in text)
    assert "for test of the project “my <hearts>”, 2 scans of 2 patients" in sentence
    assert "my &lt;hearts&gt;" in page_of(result)
    assert any("0 complete pairs" in text for text in texts)
    assert "tables/detection_scans.csv" in index["captions"]
    rows = {row["Method"]: row for row in csv_rows(tmp_path / "out" / "tables" / "detection_scans.csv")}
    assert rows["Calcium map"]["Sensitivity"] == "1.0"


def test_an_ablation_needs_a_pair(tmp_path):
    with pytest.raises(CTError, match="at least one pair; ablation_pairs is 0"):
        EvaluationSettings(("ablation",), tmp_path / "out", tmp_path, ablation_pairs=0)
