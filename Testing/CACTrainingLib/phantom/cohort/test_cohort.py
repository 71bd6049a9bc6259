"""Files of a cohort: complete, readable, resumable and reproducible."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from study_tables import csv_rows

from CACScoringLib.core.errors import CTError
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.phantom.cohort.cohort import CohortSettings, draw_setup, make_scan, write_cohort
from CACTrainingLib.phantom.cohort.export import FILES, as_ct_scan, write_scan

SMALL = CohortSettings(z_range_mm=(0.0, 36.0), prevalence=1.0, first_number=8)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    counts = []
    write_cohort(2, folder, SMALL, workers=2, progress=lambda *state: counts.append(state))
    assert counts == [(1, 2), (2, 2)]
    return folder


@pytest.fixture(scope="module")
def scan_of_8():
    """Patient 8, its second scan and its labels, in memory."""
    return make_scan(8, 2, SMALL)


@pytest.mark.long
def test_files_hold_the_simulation(cohort, scan_of_8):
    patient, scan, labels = scan_of_8
    place = cohort / "patient_00008" / "scan_2"
    assert sorted(p.name for p in place.iterdir()) == sorted(FILES)
    images = {name: sitk.ReadImage(place / name) for name in FILES if name.endswith(".gz")}
    assert len({(i.GetSize(), i.GetSpacing(), i.GetOrigin(), i.GetDirection()) for i in images.values()}) == 1
    assert np.array_equal(sitk.GetArrayViewFromImage(images["ct.nii.gz"]), scan.hu)
    assert np.array_equal(sitk.GetArrayViewFromImage(images["regions.nii.gz"]), labels.regions)
    truth = json.loads((place / "truth.json").read_text(encoding="utf-8"))
    for parts in ([lesion["mass_mg"] for lesion in truth["lesions"]], truth["mass_mg_by_artery"].values()):
        assert sum(parts) == pytest.approx(truth["mass_mg"]) == pytest.approx(patient.mass_mg)
    assert not list(cohort.rglob(".*"))


@pytest.mark.long
def test_the_table_has_a_row_for_each_scan(cohort):
    rows = csv_rows(cohort / "cohort.csv")
    assert [(row["patient"], row["scan"]) for row in rows] == [("8", "1"), ("8", "2"), ("9", "1"), ("9", "2")]
    assert ([row["breath_hold"] for row in rows[:2]], rows[0]["mass_mg"]) == (["True", "False"], rows[1]["mass_mg"])
    assert 45 <= float(rows[0]["age_years"]) < 85
    assert (cohort / rows[3]["folder"] / "ct.nii.gz").exists()


@pytest.mark.long
def test_an_interrupted_cohort_goes_on_and_ends_the_same(cohort, tmp_path):
    place = cohort / "patient_00009" / "scan_2"
    before = {p.name: p.read_bytes() for p in place.iterdir()}
    table = (cohort / "cohort.csv").read_bytes()
    first = (cohort / "patient_00008" / "scan_1" / "ct.nii.gz").stat().st_mtime_ns
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    (cohort / "cohort.csv").unlink()
    write_cohort(2, cohort, SMALL, workers=1)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == before
    assert (cohort / "cohort.csv").read_bytes() == table
    assert (cohort / "patient_00008" / "scan_1" / "ct.nii.gz").stat().st_mtime_ns == first
    with pytest.raises(CTError, match="other settings"):
        write_cohort(2, cohort, replace(SMALL, contrast=True))
    single_scans = write_cohort(1, tmp_path, replace(SMALL, scans=1), workers=1).parent
    assert [(row["patient"], row["scan"]) for row in csv_rows(single_scans / "cohort.csv")] == [("8", "1")]
    assert len(list(single_scans.rglob("ct.nii.gz"))) == 1


@pytest.mark.long
def test_a_dicom_series_reads_back_as_the_same_scan(scan_of_8, tmp_path):
    patient, scan, labels = scan_of_8
    write_scan(patient, scan, labels, 2, tmp_path / "new" / "scan", dicom=True)
    ct, in_memory = read_ct(tmp_path / "new" / "scan" / "dicom"), as_ct_scan(scan, patient)
    assert np.array_equal(ct.hu, scan.hu)
    assert np.array_equal(in_memory.hu, scan.hu)
    assert ct.image.GetOrigin() == pytest.approx(scan.grid.origin_mm, abs=1e-3)
    assert ct.image.GetSpacing() == pytest.approx(scan.grid.spacing_mm, abs=1e-5)
    for name in ("kvp", "slice_thickness_mm", "patient_sex", "patient_age_years"):
        assert getattr(ct.acquisition, name) == getattr(in_memory.acquisition, name)
    with pytest.raises(FileExistsError, match="exists already"):
        write_scan(patient, scan, labels, 2, tmp_path / "new" / "scan")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "mri"}, "mri"),
        ({"prevalence": 1.5}, "1.5"),
        ({"z_range_mm": (0.0, 10.0)}, "30 mm"),
        ({"first_number": -1}, "-1"),
        ({"scans": 3}, "once or twice"),
        ({"enriched": True, "prevalence": 0.5}, "leave it out"),
        ({"everywhere": True, "prevalence": 0.5}, "leave it out"),
        ({"everywhere": True, "enriched": True}, "as in people"),
        ({"difficulties": ("noise",)}, "set everywhere"),
        ({"everywhere": True, "difficulties": ("noise", "dextrocardia")}, "dextrocardia"),
    ],
)
def test_settings_that_make_no_sense_say_so(settings, message):
    with pytest.raises(CTError, match=message):
        CohortSettings(**settings)


def test_difficulties_take_turns_and_change_the_scans_of_any_protocol():
    settings = CohortSettings(protocol="cardiac", everywhere=True, difficulties=("thick", "doubled"))
    assert [settings.difficulty(number) for number in (4, 5, 6)] == ["thick", "doubled", "thick"]
    assert CohortSettings(everywhere=True).difficulty(4) is None
    (thick, _), (second, _) = (draw_setup(4, scan, settings) for scan in (1, 2))
    assert thick.slice_thickness_mm == second.slice_thickness_mm > 4.9
    assert thick.gate_phase is not None
    (scanner, pose), (_, later) = (draw_setup(5, scan, settings) for scan in (1, 2))
    assert scanner.gate_phase is None
    assert pose.start_phase != later.start_phase


@pytest.mark.parametrize(("scans", "breathing"), [(1, {True, False}), (2, {False})])
def test_half_of_diverse_single_scans_breathe(scans, breathing):
    settings = CohortSettings(protocol="chest-varied", diverse=True, scans=scans)
    assert {draw_setup(number, 1, settings)[1].breathing_mm > 0 for number in range(20)} == breathing


@pytest.mark.long
def test_contrast_brightens_blood_and_leaves_calcium_and_lungs(scan_of_8):
    patient, plain, _ = scan_of_8
    bright, enhanced, _ = make_scan(8, 2, replace(SMALL, contrast=True))
    assert (bright.number, bright.mass_mg) == (patient.number, patient.mass_mg)
    increase = enhanced.hu.astype(int) - plain.hu
    assert np.array_equal(enhanced.heart, plain.heart)
    assert np.percentile(increase[plain.heart], 90) > 200
    assert np.array_equal(enhanced.calcium_mg_cm3, plain.calcium_mg_cm3)
    assert abs(increase[plain.hu < -980].mean()) < 1
