"""Cohort of digital radiographs: four patients on a coarse grid, in this process."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
from in_this_process import InThisProcess
from study_tables import csv_rows

from CACScoringLib.core.errors import OutputError
from CACScoringLib.drr.geometry import centre_mm
from CACScoringLib.models.cards import find_model
from CACScoringLib.quality.mass_calibration import calcium_hu_per_mg_cm3
from CACTrainingLib.cli import main as cli
from CACTrainingLib.phantom.anatomy.patient import AGATSTON_PER_MG, demographics, draw_patient, stratum_of
from CACTrainingLib.phantom.scanner.simulation import scan_grid
from CACTrainingLib.radiograph import cohort
from CACTrainingLib.radiograph.cases import SUPER_RESOLUTIONS, project_view, read_case, read_drawings
from CACTrainingLib.radiograph.cohort import RadiographCohortSettings, geometries, write_radiographs

pytestmark = pytest.mark.long

draw = functools.cache(draw_patient)

SETTINGS = RadiographCohortSettings(
    first_number=40, patients=4, super_resolution=find_model("super_resolution").card.name
)


@pytest.fixture(autouse=True)
def coarse():
    with pytest.MonkeyPatch.context() as patch:
        yield make_coarse(patch)


def make_coarse(patch):
    """Use voxels of 6 mm and the heart's height only, and draw each patient once."""
    patch.setattr(cohort, "MATRIX", 72)
    patch.setattr(cohort.phantom, "scan_grid", lambda scanner: scan_grid(scanner, (-84.0, 66.0)))
    patch.setattr(cohort.phantom, "draw_patient", draw)
    patch.setattr("CACScoringLib.cohort.workers.Workers", InThisProcess)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of the cohort."""
    folder = tmp_path_factory.mktemp("radiographs")
    settings = {"first_number": 40, "super_resolution": SETTINGS.super_resolution}
    command = ["radiographs", "digital", "--patients", "4", "--output", str(folder), "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        make_coarse(patch)
        assert cli.main([*command, "--settings", json.dumps(settings)]) == 0
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    return csv_rows(folder / "radiographs.csv")


def test_table(folder, rows):
    strata = sorted(stratum_of(float(row["agatston"])) for row in rows)
    assert strata == [0, 1, 2, 3]
    for row in rows:
        patient = draw(int(row["patient"]))
        facts = demographics(patient)
        assert (folder / row["file"]).exists()
        assert float(row["mass_mg"]) == pytest.approx(patient.mass_mg, abs=1e-4)
        assert float(row["agatston"]) == pytest.approx(AGATSTON_PER_MG * patient.mass_mg, abs=0.01)
        assert (float(row["age_years"]), row["sex"]) == (facts.age_years, facts.sex)
        assert float(row["bmi_kg_m2"]) == facts.bmi_kg_m2
        if patient.mass_mg == 0:
            assert float(row["agatston_reader"]) == 0


def test_body_without_calcium_is_the_healthy_counterfactual_pairs_picture(folder, rows):
    """Projection is linear: subtracting the calcium equals scanning the patient without plaque."""
    number = int(max(rows, key=lambda row: float(row["mass_mg"]))["patient"])
    patient = draw(number)
    counterfactual = cohort._scan(replace(patient, plaques=()))
    image = counterfactual.grid.image(counterfactual.hu)
    stands = geometries(number, centre_mm(image))
    healthy = {name: project_view(stand, image, None, None) for name, stand in stands.items()}
    for name, view in read_case(folder / f"cases/patient_{number:05d}.npz").items():
        assert view.calcium.max() > 0.5
        difference = view.body - view.calcium - healthy[name].body
        # HU are rounded.
        assert np.abs(difference).max() < 0.08 * view.calcium.max()
        calcified = view.calcium > 0.2 * view.calcium.max()
        assert abs(difference[calcified].mean()) < 0.02 * view.calcium[calcified].mean()


def test_thin_slices_change_the_heart_alone(folder, rows):
    for row in rows:
        plain, smooth, learned = (read_case(folder / row["file"], way)["PA"] for way in SUPER_RESOLUTIONS)
        assert np.abs(learned.body - smooth.body).max() > 0.05
        assert np.abs(smooth.body - plain.body)[:60].max() < 0.05


def test_goes_on_with_what_is_there(folder, monkeypatch):
    monkeypatch.setattr(cohort, "_scan", lambda *args: pytest.fail("scanned again"))
    monkeypatch.setattr(cohort.phantom, "stratified_patients", lambda *args: pytest.fail("chosen again"))
    before = (folder / "radiographs.csv").read_text(encoding="utf-8")
    (folder / "radiographs.csv").unlink()
    write_radiographs(folder, SETTINGS, 1)
    assert (folder / "radiographs.csv").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("change", [{"natural": True}, {"super_resolution": None}])
def test_other_settings_are_refused(folder, change):
    with pytest.raises(OutputError, match="other settings"):
        write_radiographs(folder, replace(SETTINGS, **change), 1)


def test_a_patient_without_a_ct(tmp_path):
    """Points conserve mass, and other calcium lies on the same heart."""
    number = 41
    cells = cohort.write_patient_case(number, tmp_path / "one.npz", RadiographCohortSettings(drawings=2))
    patient = draw_patient(number, surroundings=True, ages=True)
    assert cells["agatston"] == pytest.approx(AGATSTON_PER_MG * patient.mass_mg, abs=0.01)
    views, drawings = read_case(tmp_path / "one.npz"), read_drawings(tmp_path / "one.npz")
    for name, view in views.items():
        assert view.body.shape == (864, 864)
        rows, columns = np.nonzero(view.heart)
        for drawing in drawings:
            at, steps = drawing.paths[name]
            row, column = np.divmod(at, 864)
            assert drawing.agatston > 0
            for place, heart in ((row, rows), (column, columns)):
                assert heart.min() - 20 < place.min() <= place.max() < heart.max() + 20
            # The shadow of 1 mg: HU per mg/cm³ times the magnification's square, in mm · mm².
            mass = drawing.agatston / AGATSTON_PER_MG
            assert steps.sum() / 1024 * 0.25 / mass == pytest.approx(1.27 * calcium_hu_per_mg_cm3(120.0), rel=0.1)
