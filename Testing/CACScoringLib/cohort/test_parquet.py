"""Tests of a cohort's parquet tables and report page."""

import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from whole_records import CATEGORIES, MEASURED, whole_record

from CACScoringLib.cohort import parquet
from CACScoringLib.cohort.parquet import SCHEMA, TABLES, write_tables
from CACScoringLib.cohort.report import PAGE, write_cohort_report
from CACScoringLib.cohort.scoring import ScanRecord, write_record
from CACScoringLib.cohort.table import columns as table_columns
from CACScoringLib.cohort.table import result_row
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.progress import ScanState
from CACScoringLib.record.score_record import record_from
from CACScoringLib.scans.source import ScanSource


def _score(agatston):
    numbers = {
        "agatston": agatston,
        "clinical_agatston": agatston,
        "volume_mm3": agatston / 2,
        "mass_mg": None,
        "pseudo_mass_hu_mm3": 9.0,
    }
    return {**numbers, "lesions": 1, "peak_hu": 250}


def method(clinical, raw=1.0):
    """A method's scores. raw: Factor of its own unit, in which `scores.json` has the map's."""

    def score(agatston, **more):
        return {**_score(agatston), "agatston": raw * agatston, **more}

    agatston = clinical
    arteries = {"LAD": score(agatston), "RCA": score(0.0)}
    place = {"id": 1, "artery": "LAD", "voxels": 4, "mean_hu": 200, "centroid_ras_mm": [0.0, 1.0, 2.0]}
    lesions = [{**place, "components": [], **score(agatston)}] if agatston else []
    total = score(agatston, interval_90=[agatston / 2, 2 * agatston])
    return {"status": "automatic", "reviewed": False, "total": total, "arteries": arteries, "lesions": lesions}


def content(agatston, withheld=False):
    return whole_record() | {
        "input": {"name": None, "size": [512, 512, 100], "spacing_mm": [0.7, 0.7, 3.0], "voxels_sha256": ""},
        "acquisition": {"file_format": "DICOM", "kvp": 120.0, "patient_name": "Doe^Jane", "series_number": 3},
        "measured": {**MEASURED, "noise_hu": 21.5},
        "categories": {**CATEGORIES, "cac_drs": "A1"},
        "warnings": [
            {"code": "noisy", "message": "x"},
            {"code": "beyond-calibration" if withheld else "noisy", "message": "y"},
        ],
        "rules": {"threshold": {}, "decomposition": {"equivalent_mg_per_mm3_hu": 0.0007}},
        "seconds": {"reading": 1.0, "heart": 2.5},
        "methods": {"threshold": method(agatston), "decomposition": method(agatston * 1.5, raw=8)},
    }


def cohort(folder, *scores, identify=False, withheld=()):
    """Write a cohort of scans with these scores, None for a failure. withheld: scores without a category."""
    record, scans = {"scans": {}}, []
    for i, agatston in enumerate(scores):
        name = f"Doe_Jane_{i}"
        scan = ScanSource(name, "Jane", Path(f"/data/{name}/ct.nii.gz"), key=name, group="women")
        state = ScanState(i, name, folder / name, scan.ct, state="done")
        record["scans"][name] = {"scan": f"{i:032x}"}
        if agatston is None:
            reason = f"/data/{name}/ct.nii.gz is empty ({i} bytes). {name} cannot be read."
            state = replace(state, state="failed", reason=reason, code="unreadable")
        else:
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "scores.json").write_text(
                json.dumps(content(agatston, agatston in withheld)), encoding="utf-8"
            )
            write_record(folder / name, ScanRecord("c" * 64, "f", "s"))
        scans.append((f"{i:032x}", scan, state))
    write_tables(folder, scans, identify)
    (folder / "cohort.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def rows(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_tables_have_a_row_per_scan_per_artery_and_per_lesion(tmp_path):
    cohort(tmp_path, 40.0, None, 0.0)
    assert [row["state"] for row in rows(tmp_path, "scans")] == ["done", "failed", "done"]
    first = rows(tmp_path, "scans")[0]
    assert (first["image_columns"], first["slices"], first["pixel_mm"], first["noise_hu"]) == (512, 100, 0.7, 21.5)
    assert first["seconds"] == 3.5
    assert (first["kvp"], first["warnings"], first["risk_class"]) == (120.0, ["noisy"], "11–100")
    scores = rows(tmp_path, "scores")
    assert len(scores) == 2 * 2 * 3
    total = next(row for row in scores if row["artery"] == "total")
    assert (total["method"], total["agatston"], total["interval_low"]) == ("threshold", 40.0, 20.0)
    assert [(row["method"], row["lesion"], row["agatston"]) for row in rows(tmp_path, "lesions")] == [
        ("threshold", 1, 40.0),
        ("decomposition", 1, 60.0),
    ]
    assert all(pq.read_schema(tmp_path / f"{name}.parquet").metadata[b"schema"] == SCHEMA.encode() for name in TABLES)


def test_agatston_is_on_the_clinical_scale_in_every_table_and_on_the_page(tmp_path):
    cohort(tmp_path, 40.0, 0.0)
    for name in ("scores", "lesions"):
        mapped = [row for row in rows(tmp_path, name) if row["method"] == "decomposition" and row["agatston"]]
        assert {(row["agatston"], row["adjusted_agatston"]) for row in mapped} == {(60.0, 480.0)}
    row = result_row(record_from(content(40.0), "scores.json"))
    assert (row["decomposition_agatston"], row["decomposition_adjusted_agatston"]) == (60.0, 480.0)
    assert row["decomposition_agatston_LAD"] == 60.0
    page = write_cohort_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<td>30.0</td>") == 1, "mean of the map's LAD"


def test_tables_identify_a_person_only_on_request(tmp_path):
    for identify in (False, True):
        folder = tmp_path / str(identify)
        folder.mkdir()
        cohort(folder, 40.0, None, identify=identify)
        content_text = str([rows(folder, name) for name in TABLES])
        assert ("Doe" in content_text) == identify
        assert {row["patient"] for row in rows(folder, "scans")} == {"Jane"}, "as in the table that the user gave"
        assert "women" in content_text


def test_an_empty_cohort_has_tables(tmp_path):
    cohort(tmp_path)
    assert rows(tmp_path, "scores") == []
    assert not list(tmp_path.glob(".*"))


def test_page_counts_categories_warnings_and_failures(tmp_path):
    cohort(tmp_path, 40.0, None, 0.0, None, 500.0)
    page = write_cohort_report(tmp_path).read_text(encoding="utf-8")
    assert "5 scans: 3 done, 2 failed." in page
    assert "median 40.0, quartiles 20.0 and 270.0, largest 500.0; 1 without calcium" in page
    assert "<td>unreadable</td><td>2</td>" in page
    assert "<td>&gt; 400</td><td>1</td><td>33.3 %</td>" in page
    assert "<td>LAD</td><td>2</td><td>180.0</td>" in page
    assert "<code>noisy</code></td><td>3</td><td>100.0 %</td>" in page
    assert "Doe_Jane" not in page


def test_page_counts_no_category_that_is_withheld(tmp_path):
    page = write_cohort_report(cohort(tmp_path, 40.0, 0.0, 500.0, 600.0, withheld=(500.0,))).read_text(encoding="utf-8")
    assert "<td>&gt; 400</td><td>1</td><td>25.0 %</td>" in page
    assert "<td>category withheld</td><td>1</td><td>25.0 %</td>" in page


def test_page_escapes_texts_from_files(tmp_path):
    scan = ScanSource("a", "", Path("a"), key="a", group="<b>")
    state = ScanState(0, "a", tmp_path / "a", scan.ct, state="failed", reason="<script>alert(1)<script>")
    write_tables(tmp_path, [("0", scan, state)], False)
    assert "<script>" not in write_cohort_report(tmp_path).read_text(encoding="utf-8")


def test_page_needs_the_tables_of_its_schema(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"scans\.parquet"):
        write_cohort_report(tmp_path)
    monkeypatch.setattr(parquet, "SCHEMA", "cac-cohort-tables/0")
    cohort(tmp_path, 1.0)
    with pytest.raises(OutputError, match="schema"):
        write_cohort_report(tmp_path)
    assert not (tmp_path / PAGE).exists()


def test_queries_of_the_documentation_run(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "reference" / "tables.md").read_text(encoding="utf-8")
    cohort(tmp_path, 1.0, 200.0)
    monkeypatch.chdir(tmp_path)
    queries, of_sqlite = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    names = table_columns(["threshold"], identify=False)
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE cohort ({', '.join(names)})")
    row = {"scan_group": "a", "threshold_agatston": "12.5"}
    values = [row.get(name, "") for name in names]
    connection.execute(f"INSERT INTO cohort VALUES ({', '.join('?' * len(names))})", values)
    assert connection.execute(of_sqlite).fetchall() == [("a", 1, 12.5)]
    duckdb = pytest.importorskip("duckdb")
    first, *further = queries.split(";\n")[:-1]
    assert sorted(row[1] for row in duckdb.sql(first).fetchall()) == [1.0, 200.0]
    for query in further:
        duckdb.sql(query).fetchall()
