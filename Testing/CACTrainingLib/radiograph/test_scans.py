"""Projection of a user's CTs: an elliptic cylinder of water on a couch, with a heart and a block of calcium."""

import os

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of
from in_this_process import InThisProcess
from study_tables import csv_rows

from CACScoringLib.cohort.table import columns
from CACScoringLib.core import tables
from CACScoringLib.core.errors import OutputError
from CACTrainingLib.cli import main as cli
from CACTrainingLib.radiograph import cohort
from CACTrainingLib.radiograph.cases import SCHEMA, SETTINGS, ScanRadiographSettings, read_case
from CACTrainingLib.radiograph.cohort import list_scans, write_scan_radiographs

SPACING = (8.0, 8.0, 6.0)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr("CACScoringLib.cohort.workers.Workers", InThisProcess)


def write_ct(folder):
    """Write a body of 300 × 200 mm, 240 mm high, with a couch 16 mm thick behind it, not touching."""
    folder.mkdir(parents=True)
    k, j, i = np.meshgrid(6.0 * np.arange(40), 8.0 * np.arange(40) - 156, 8.0 * np.arange(48) - 188, indexing="ij")
    hu = np.where((i / 150) ** 2 + (j / 100) ** 2 < 1, 0, -1000)
    hu[:, 36:38] = 200
    hu[0, 20, 24] = 1400
    heart = (i**2 + j**2 + (k - 117) ** 2) < 45**2
    calcium = np.where((abs(i) < 9) & (abs(j) < 9) & (abs(k - 117) < 10), 500, 0)
    arrays = {"scan": hu.astype(np.int16), "heart": heart, "calcium_map": calcium.astype(np.float32)}
    for name, values in arrays.items():
        sitk.WriteImage(image_of(values, SPACING, (-188.0, -156.0, 0.0)), folder / f"{name}.nii.gz")


def write_table(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    tables.write_table(path, names, rows)
    return path


FIRST = {
    **{"ct": "in/scan.nii.gz", "patient": "A", "name": "first", "agatston_reader": "120", "age_years": "61"},
    **{"heart": "in/heart.nii.gz", "calcium_map": "in/calcium_map.nii.gz", "sex": "F"},
}


@pytest.fixture
def table(tmp_path):
    write_ct(tmp_path / "in")
    return write_table(tmp_path / "mine.csv", [FIRST, {"ct": "in/missing.nii.gz", "patient": "B"}])


@pytest.mark.long
def test_table_is_projected_and_goes_on(table, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert cli.main(["radiographs", "scans", str(table), "--output", str(out), "--workers", "1"]) == 0
    (failed,) = csv_rows(out / "failures.csv")
    assert failed["name"] == "missing.nii.gz"
    assert "does not exist" in capsys.readouterr().err
    (row,) = csv_rows(out / "radiographs.csv")
    cells = [row[n] for n in ("name", "patient", "file", "agatston_reader", "agatston", "age_years", "sex")]
    assert cells == ["first", "A", "cases/first.npz", "120", "", "61", "F"]
    views = read_case(out / row["file"])
    middle = slice(400, 464)
    # 24 voxels deep and 38 wide; the couch of 200 HU would add 19 mm.
    assert views["PA"].body[middle, middle].mean() == pytest.approx(24 * 8, abs=3)
    assert views["lateral"].body[middle, middle].mean() == pytest.approx(38 * 8, abs=3)
    assert views["PA"].body[430, 10] == 0
    for view in views.values():
        assert view.heart_centre == pytest.approx((431.5, 431.5), abs=4)
        assert view.heart.max() == pytest.approx(12 * 8, abs=1)
        # 500 HU in two voxels.
        assert view.calcium.max() == pytest.approx(0.5 * 2 * 8, abs=0.1)
    case = out / row["file"]
    before = case.stat().st_mtime_ns
    monkeypatch.setattr(cohort, "_project", lambda *args, **more: pytest.fail("projected again"))
    write_table(table, [{**FIRST, "agatston_reader": "130"}])
    written, failed = write_scan_radiographs(table, out)
    assert not failed
    assert [row["agatston_reader"] for row in csv_rows(written)] == ["130"]
    assert case.stat().st_mtime_ns == before
    # A changed heart mask is projected again.
    monkeypatch.undo()
    monkeypatch.setattr("CACScoringLib.cohort.workers.Workers", InThisProcess)
    os.utime(tmp_path / "in" / "heart.nii.gz", (1, 1))
    write_scan_radiographs(table, out)
    assert case.stat().st_mtime_ns != before


def test_super_resolution_of_a_ct_does_not_depend_on_its_axes(table, tmp_path):
    """A sagittal copy of the CT, whose heart has another grid."""
    scan, calcium = (sitk.ReadImage(tmp_path / "in" / f"{name}.nii.gz") for name in ("scan", "calcium_map"))
    calcified = scan + sitk.Cast(calcium, sitk.sitkInt16)
    sitk.WriteImage(calcified, tmp_path / "in" / "scan.nii.gz")
    sitk.WriteImage(sitk.DICOMOrient(calcified, "ASL"), tmp_path / "in" / "sagittal.nii.gz")
    names = {"first": FIRST, "second": {**FIRST, "name": "second", "patient": "B", "ct": "in/sagittal.nii.gz"}}
    nowhere = {**FIRST, "name": "third", "patient": "C", "heart": "in/nowhere.nii.gz"}
    heart = sitk.ReadImage(tmp_path / "in" / "heart.nii.gz")
    sitk.WriteImage(0 * heart, tmp_path / "in" / "nowhere.nii.gz")
    write_table(table, [*names.values(), nowhere])
    settings = ScanRadiographSettings("sharpener-compact", ("PA",))
    written, failed = write_scan_radiographs(table, tmp_path / "out", settings=settings)
    assert "needs the heart" in failed["third"]
    assert [row["warnings"].split()[-1] for row in csv_rows(written)] == ["slices-out-of-range"] * 2
    for way in ("interpolated", "learned"):
        first, second = (read_case(tmp_path / "out" / "cases" / f"{name}.npz", way)["PA"].body for name in names)
        np.testing.assert_allclose(first, second, atol=0.05)
        plain = read_case(tmp_path / "out" / "cases" / "first.npz")["PA"].body
        assert 0.2 < np.abs(first - plain).max() < 30


def test_results_of_a_cohort_become_labels(tmp_path):
    write_ct(tmp_path / "in")
    results = tmp_path / "results"
    header = columns(["threshold", "decomposition"], identify=False)
    done = dict.fromkeys(header, "") | {
        **{"name": "one", "folder": "one", "ct": str(tmp_path / "in" / "scan.nii.gz"), "patient": "P", "state": "done"},
        **{"patient_sex": "M", "patient_age_years": "70", "threshold_agatston": "55.5", "threshold_reviewed": "False"},
        "decomposition_agatston": "44",
    }
    reviewed = {**done, "name": "two", "folder": "two", "threshold_reviewed": "True", "patient": "", "patient_sex": "O"}
    failed = {**done, "name": "three", "folder": "", "state": "failed"}
    (results / "one").mkdir(parents=True)
    for name in ("heart.nii.gz", "calcium_map.nii.gz"):
        (tmp_path / "in" / name).rename(results / "one" / name)
    write_table(results / "cohort.csv", [done, reviewed, failed])
    sources, warnings = list_scans(results)
    assert [scan.name for scan in sources] == ["one", "two"]
    first, second = sources
    assert first.heart == results / "one" / "heart.nii.gz"
    assert first.calcium_map == results / "one" / "calcium_map.nii.gz"
    facts = {"agatston_automatic": "55.5", "agatston_decomposition": "44", "age_years": "70", "sex": "M"}
    assert {name: cell for name, cell in first.facts.items() if cell} == facts
    assert (second.heart, second.facts["agatston_reader"], second.facts["agatston_automatic"]) == (None, "55.5", "")
    assert (second.patient, second.facts["sex"]) == ("two", "")
    assert [warning.code for warning in warnings] == ["patient-id-missing"]
    table, failed = write_scan_radiographs(results, tmp_path / "out")
    assert not failed
    cases = [read_case(tmp_path / "out" / row["file"]) for row in csv_rows(table)]
    assert [case["PA"].heart_centre is not None for case in cases] == [True, False]
    assert [case["lateral"].calcium.any() for case in cases] == [True, False]


def test_folder_of_something_else_is_kept(tmp_path):
    table = write_table(tmp_path / "t.csv", [{"ct": "a.nii"}])
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "letter.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="not empty"):
        write_scan_radiographs(table, folder)
    (folder / SETTINGS).write_text(f'{{"schema": "{SCHEMA}", "settings": {{}}}}', encoding="utf-8")
    with pytest.raises(OutputError, match="other settings"):
        write_scan_radiographs(table, folder)
    with pytest.raises(OutputError, match="At least one worker"):
        write_scan_radiographs(table, tmp_path / "new", 0)
