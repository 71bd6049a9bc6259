"""Files of a cohort: complete, readable, resumable, the same every time."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.io.reading import read_ct
from CACTrainingLib.phantom.anatomy.hearts.shape import shipped_models
from CACTrainingLib.phantom.cohort import cohort as cohort_module
from CACTrainingLib.phantom.cohort.cohort import (
    CohortError,
    CohortSettings,
    _check_settings,
    _patient,
    keep_hearts,
    make_scan,
    write_cohort,
    write_patient,
)
from CACTrainingLib.phantom.cohort.export import FILES, as_ct_scan, write_scan
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair

pytestmark = pytest.mark.long

SMALL = CohortSettings(z_range_mm=(0.0, 36.0), prevalence=1.0, first_number=8)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    told = []
    write_cohort(2, folder, SMALL, workers=2, progress=lambda *state: told.append(state))
    return folder, told


@pytest.fixture(scope="module")
def scans():
    """Patient 8's two scans, as `make_scan` gives them, in memory."""
    return {number: make_scan(8, number, SMALL) for number in (1, 2)}


def test_every_file_is_there_and_on_one_grid(cohort):
    folder, told = cohort
    assert told == [(1, 2), (2, 2)]
    for scan in (1, 2):
        place = folder / "patient_00008" / f"scan_{scan}"
        assert sorted(p.name for p in place.iterdir()) == sorted(FILES)
        images = [sitk.ReadImage(place / name) for name in FILES if name.endswith(".gz")]
        assert len({(i.GetSize(), i.GetSpacing(), i.GetOrigin(), i.GetDirection()) for i in images}) == 1
    assert not list(folder.rglob(".*"))


def test_files_hold_what_the_simulation_made(cohort, scans):
    folder, _ = cohort
    patient, scan, labels = scans[1]
    place = folder / "patient_00008" / "scan_1"
    ct = sitk.ReadImage(place / "ct.nii.gz")
    assert np.array_equal(sitk.GetArrayViewFromImage(ct), scan.hu)
    assert np.allclose(ct.GetOrigin(), scan.grid.origin_mm, atol=1e-3)
    assert np.allclose(ct.GetSpacing(), scan.grid.spacing_mm, atol=1e-6)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(place / "regions.nii.gz")), labels.regions)
    truth = json.loads((place / "truth.json").read_text())
    assert truth["mass_mg"] == pytest.approx(sum(lesion["mass_mg"] for lesion in truth["lesions"]))
    assert truth["mass_mg"] == pytest.approx(sum(truth["mass_mg_by_artery"].values()))
    assert truth["mass_mg"] == pytest.approx(patient.mass_mg)


def test_the_table_has_a_row_for_each_scan(cohort):
    folder, _ = cohort
    with (folder / "cohort.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient"], row["scan"]) for row in rows] == [("8", "1"), ("8", "2"), ("9", "1"), ("9", "2")]
    assert rows[0]["breath_hold"] == "True"
    assert rows[1]["breath_hold"] == "False"
    assert rows[0]["mass_mg"] == rows[1]["mass_mg"]
    assert (folder / rows[3]["folder"] / "ct.nii.gz").exists()


def test_an_interrupted_cohort_goes_on_and_ends_the_same(cohort):
    folder, _ = cohort
    place = folder / "patient_00009" / "scan_2"
    before = {p.name: p.read_bytes() for p in place.iterdir()}
    table = (folder / "cohort.csv").read_bytes()
    kept = (folder / "patient_00008" / "scan_1" / "ct.nii.gz").stat().st_mtime_ns
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    (folder / "cohort.csv").unlink()
    write_cohort(2, folder, SMALL, workers=1)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == before
    assert (folder / "cohort.csv").read_bytes() == table
    assert (folder / "patient_00008" / "scan_1" / "ct.nii.gz").stat().st_mtime_ns == kept


def test_other_settings_do_not_mix_into_a_folder(cohort):
    folder, _ = cohort
    with pytest.raises(CohortError, match="other settings"):
        write_cohort(2, folder, CohortSettings(z_range_mm=(0.0, 36.0)))


def test_a_patient_written_alone_is_the_cohorts(cohort, tmp_path):
    folder, _ = cohort
    rows = write_patient(9, tmp_path, SMALL)
    assert len(rows) == 2
    alone = tmp_path / "patient_00009" / "scan_1" / "ct.nii.gz"
    assert alone.read_bytes() == (folder / "patient_00009" / "scan_1" / "ct.nii.gz").read_bytes()


def test_a_scan_never_overwrites_a_folder(scans, tmp_path):
    patient, scan, labels = scans[2]
    write_scan(patient, scan, labels, 2, tmp_path / "new" / "scan")
    with pytest.raises(FileExistsError, match="exists already"):
        write_scan(patient, scan, labels, 2, tmp_path / "new" / "scan")


def test_a_digital_scan_enters_the_scoring_pipeline(scans):
    patient, scan, _ = scans[1]
    ct = as_ct_scan(scan, patient)
    assert ct.acquisition.kvp == 120
    assert ct.acquisition.slice_thickness_mm == scan.scanner.slice_thickness_mm
    assert np.array_equal(ct.hu, scan.hu)


def test_a_dicom_series_reads_back_as_the_same_scan(scans, tmp_path):
    patient, scan, labels = scans[2]
    write_scan(patient, scan, labels, 2, tmp_path / "scan", dicom=True)
    ct = read_ct(tmp_path / "scan" / "dicom")
    assert np.array_equal(ct.hu, scan.hu)
    assert ct.image.GetOrigin() == pytest.approx(scan.grid.origin_mm, abs=1e-3)
    assert ct.image.GetSpacing() == pytest.approx(scan.grid.spacing_mm, abs=1e-5)
    assert ct.acquisition.kvp == 120
    assert ct.acquisition.patient_sex == "F"
    assert ct.acquisition.slice_thickness_mm == scan.scanner.slice_thickness_mm


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"protocol": "mri"}, "mri"),
        ({"sex": "x"}, "'x'"),
        ({"prevalence": 1.5}, "1.5"),
        ({"z_range_mm": (0.0, 10.0)}, "30 mm"),
        ({"first_number": -1}, "-1"),
    ],
)
def test_settings_that_make_no_sense_say_so(wrong, message):
    with pytest.raises(CohortError, match=message):
        CohortSettings(**wrong)


def test_a_cohort_needs_a_pair(tmp_path):
    with pytest.raises(CohortError, match="0 were asked"):
        write_cohort(0, tmp_path)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_scans_of_a_pair_differ_in_all_but_the_machine(name):
    (one, first), (two, second) = draw_pair(PROTOCOLS[name], np.random.default_rng(4))
    assert one.kernel == two.kernel
    assert one.slice_thickness_mm == two.slice_thickness_mm
    assert one.noise_hu != two.noise_hu
    assert first.table_shift_mm != second.table_shift_mm
    assert (first.breathing_mm == 0) == PROTOCOLS[name].breath_hold[0]
    assert (second.breathing_mm == 0) == PROTOCOLS[name].breath_hold[1]


def test_patients_scanned_once_have_the_first_scan(cohort, tmp_path):
    folder, _ = cohort
    write_cohort(1, tmp_path, replace(SMALL, scans=1), workers=1)
    place = tmp_path / "patient_00008"
    assert [scan.name for scan in place.iterdir()] == ["scan_1"]
    first = sitk.ReadImage(folder / "patient_00008" / "scan_1" / "ct.nii.gz")
    assert sitk.Hash(sitk.ReadImage(place / "scan_1" / "ct.nii.gz")) == sitk.Hash(first)
    with (tmp_path / "cohort.csv").open(newline="") as file:
        assert [(row["patient"], row["scan"]) for row in csv.DictReader(file)] == [("8", "1")]


def test_contrast_brightens_blood_and_leaves_calcium_and_lungs():
    settings = CohortSettings(z_range_mm=(0.0, 30.0), prevalence=1.0)
    patient, plain, _ = make_scan(8, 1, settings)
    bright, enhanced, _ = make_scan(8, 1, replace(settings, contrast=True))
    assert (bright.number, bright.mass_mg) == (patient.number, patient.mass_mg)
    assert 280 <= bright.body.blood_hu <= 450
    more = enhanced.hu.astype(int) - plain.hu
    assert np.array_equal(enhanced.heart, plain.heart)
    assert np.percentile(more[plain.heart], 90) > 200
    assert np.array_equal(enhanced.calcium_mg_cm3, plain.calcium_mg_cm3)
    outside = plain.hu < -980
    assert abs(more[outside].mean()) < 1


def test_enriched_patients_are_chosen_by_their_calcium(monkeypatch):
    monkeypatch.setattr(cohort_module, "chosen_patients", lambda first, count, *_: [first + 3, first + 9][:count] * 2)
    assert CohortSettings(first_number=5, enriched=True).numbers(4) == [8, 14, 8, 14]
    assert CohortSettings(first_number=5).numbers(3) == [5, 6, 7]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scans": 3}, "once or twice"),
        ({"enriched": True, "sex": "F"}, "leave both out"),
        ({"heart_shape": "drawn", "hearts": "meshes"}, "Measured hearts are anatomical"),
        ({"heart_shape": "round"}, "'round'; choose of anatomical, drawn"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(CohortError, match=words):
        CohortSettings(**settings)


def test_too_few_patients_for_every_stratum(tmp_path):
    with pytest.raises(CohortError, match="4 at least, not 3"):
        write_cohort(3, tmp_path / "new", CohortSettings(enriched=True))
    assert not (tmp_path / "new").exists()


def test_a_folder_whose_settings_an_earlier_version_wrote_goes_on(cohort, tmp_path):
    folder, _ = cohort
    content = json.loads((folder / "cohort.json").read_text())
    for name in ("scans", "contrast", "enriched"):
        del content["settings"][name]
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "cohort.json").write_text(json.dumps(content))
    write_cohort(2, tmp_path / "copy", SMALL, workers=1)
    with pytest.raises(CohortError, match="other settings"):
        write_cohort(2, tmp_path / "copy", replace(SMALL, contrast=True), workers=1)


def test_hearts_of_a_cohort_of_an_earlier_version_were_drawn(cohort, tmp_path):
    folder, _ = cohort
    content = json.loads((folder / "cohort.json").read_text())
    assert content["settings"].pop("heart_shape") == "anatomical"
    (tmp_path / "cohort.json").write_text(json.dumps(content))
    _check_settings(tmp_path, replace(SMALL, heart_shape="drawn"))
    with pytest.raises(CohortError, match="other settings"):
        _check_settings(tmp_path, SMALL)


def test_hearts_of_a_file_are_kept_with_the_cohort(tmp_path):
    models, file, folder = shipped_models(), tmp_path / "hearts.npz", tmp_path / "cohort"
    settings = replace(SMALL, hearts=str(file))
    with pytest.raises(CohortError, match="holds no measured hearts"):
        write_cohort(1, folder, settings)
    assert not folder.exists()
    one = replace(
        models, names=models.names[:1], coefficients=models.coefficients[:1], landmarks_mm=models.landmarks_mm[:1]
    )
    replace(one, lines={key: line for key, line in models.lines.items() if key.startswith("VH_M")}).save(file)
    used = keep_hearts(folder, settings)
    file.unlink()
    assert keep_hearts(folder, settings) == used
    assert used.models.names == ("VH_M",)
    with pytest.raises(CohortError, match="other settings"):
        keep_hearts(folder, replace(settings, hearts=str(tmp_path / "other")))
    with pytest.raises(CohortError, match="other settings"):
        write_cohort(1, folder, SMALL)
    own, usual = _patient(8, used), _patient(8, SMALL)
    assert set(own.heart.weights) == {"VH_M"}
    apexes = [patient.heart.landmarks_mm["apex"] for patient in (own, usual)]
    assert not np.allclose(*apexes, atol=1)
    assert own.body.heart_semi_axes_mm == usual.body.heart_semi_axes_mm


def test_a_folder_without_hearts_says_what_is_missing(tmp_path):
    with pytest.raises(CohortError, match=r"holds no VH_M_Heart\.glb.*ccf-3d-reference-object-library.*allparts_NAME"):
        write_cohort(1, tmp_path / "cohort", replace(SMALL, hearts=str(tmp_path)))
    assert not (tmp_path / "cohort").exists()


def test_the_truth_names_the_hearts_shape(cohort, tmp_path):
    folder, _ = cohort
    truth = json.loads(next(folder.rglob("truth.json")).read_text())
    assert truth["heart_shape"] == "anatomical"
    assert sum(truth["heart_blend"].values()) == pytest.approx(1, abs=0.01)
    write_cohort(1, tmp_path / "c", replace(SMALL, heart_shape="drawn"), workers=1)
    assert json.loads(next((tmp_path / "c").rglob("truth.json")).read_text())["heart_shape"] == "drawn"
