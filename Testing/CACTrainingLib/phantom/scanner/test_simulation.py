"""Whole scans: reproducible, true, and of the right HU."""

from dataclasses import replace

import numpy as np
import pytest

from CACTrainingLib.phantom.anatomy.coronaries import LABELS
from CACTrainingLib.phantom.anatomy.distractors import draw_distractors
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.cohort.labels import BRUSH_MM, annotate
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

pytestmark = pytest.mark.long

STILL = ScanPose(motion_scale=0.0)
SCANNER = Scanner(field_of_view_mm=400, matrix=256, noise_hu=15)
HEART = (-66.0, 66.0)


@pytest.fixture(scope="module")
def patient():
    return draw_patient(8, prevalence=1.0)


@pytest.fixture(scope="module")
def still(patient):
    return scan_patient(patient, SCANNER, STILL, 1, scan_grid(patient, SCANNER, STILL, HEART))


def mass_mg(scan):
    return float(scan.calcium_mg_cm3.sum(dtype=np.float64)) * np.prod(scan.grid.spacing_mm) / 1000


def test_the_map_of_a_still_patient_weighs_the_true_mass(patient, still):
    assert mass_mg(still) == pytest.approx(patient.mass_mg, rel=0.005)


def test_threads_change_no_bit(patient):
    pose = ScanPose(breathing_mm=4, heart_rate_bpm=70)
    grid = scan_grid(patient, SCANNER, pose, (-20.0, 20.0))
    one, two = (scan_patient(patient, SCANNER, pose, 1, grid, threads) for threads in (1, 3))
    assert np.array_equal(one.hu, two.hu)
    assert np.array_equal(one.calcium_mg_cm3, two.calcium_mg_cm3)
    assert not np.array_equal(one.hu, scan_patient(patient, SCANNER, pose, 2, grid, 2).hu)


def test_motion_costs_peak_and_leaves_the_first_order_of_mass(patient, still):
    moving = ScanPose(heart_rate_bpm=75, start_phase=0.2)
    scan = scan_patient(patient, SCANNER, moving, 1, scan_grid(patient, SCANNER, moving, HEART))
    assert scan.calcium_mg_cm3.max() < 0.95 * still.calcium_mg_cm3.max()
    assert scan.calcium_mg_cm3.min() < 2 * still.calcium_mg_cm3.min() < 0
    assert mass_mg(scan) == pytest.approx(patient.mass_mg, rel=0.5)


def test_table_shift_moves_the_whole_picture(patient, still):
    pose = replace(STILL, table_shift_mm=(2 * SCANNER.pixel_mm, 0.0, 3.0))
    shifted = scan_patient(patient, SCANNER, pose, 1, scan_grid(patient, SCANNER, pose, HEART))
    assert np.array_equal(shifted.heart[1:, :, 2:], still.heart[:-1, :, :-2])


def test_tissues_measure_what_they_should(patient, still):
    body = patient.body
    frame_z = int(np.argmin(np.abs(still.grid.z_mm())))
    hu = still.hu[frame_z]
    heart = still.heart[frame_z]
    assert np.median(hu[heart]) == pytest.approx(body.blood_hu, abs=8)
    lung = (hu < -600) & (np.abs(still.grid.y_mm())[:, None] < 60) & (np.abs(still.grid.x_mm())[None] < 110)
    assert -920 < np.median(hu[lung]) < -780
    assert (hu > 500).sum() > 100
    assert hu[0, 0] < -900
    assert still.hu.dtype == np.int16


def test_no_calcium_no_map():
    healthy = draw_patient(8, prevalence=0.0)
    scan = scan_patient(healthy, SCANNER, STILL, 1, scan_grid(healthy, SCANNER, STILL, (-20.0, 20.0)))
    labels = annotate(scan, np.random.default_rng(0))
    assert not scan.calcium_mg_cm3.any()
    assert not labels.arteries.any()
    assert not labels.regions.any()
    assert not any(label.visible for label in labels.slices)


def test_labels_follow_contrast_and_noise(patient, still):
    quiet = annotate(still, np.random.default_rng(0))
    assert any(label.visible for label in quiet.slices)
    loud = annotate(replace(still, noise_sd_hu=still.noise_sd_hu * 100), np.random.default_rng(0))
    assert not any(label.visible for label in loud.slices)
    assert np.array_equal(loud.arteries, quiet.arteries)
    present = {plaque.artery for plaque in patient.plaques}
    assert set(np.unique(quiet.arteries)) - {0} <= {LABELS[a] for a in present}


def test_regions_are_brush_strokes_around_visible_calcium(still):
    labels = annotate(still, np.random.default_rng(0))
    visible = [label.k for label in labels.slices if label.visible]
    for k in range(still.grid.shape[0]):
        painted = labels.regions[k].any()
        if painted:
            assert k in visible
            assert (labels.regions[k] > 0).sum() * still.grid.spacing_mm[0] ** 2 > 0.7 * np.pi * (BRUSH_MM / 2) ** 2
    strong = max(labels.slices, key=lambda label: label.calcium_hu).k
    j, i = np.unravel_index(still.calcium_mg_cm3[strong].argmax(), still.calcium_mg_cm3[strong].shape)
    assert labels.regions[strong, j, i] > 0


def test_distractors_are_seen_but_are_no_coronary_calcium(patient):
    def drawn(kind):
        own = (
            draw_distractors(patient.body, patient.tree, True, np.random.default_rng(n), patient.heart)
            for n in range(99)
        )
        return next(one for found in own for one in found if one.kind == kind)

    grid = scan_grid(patient, SCANNER, STILL, (-40.0, 80.0))
    for kind, least in (("sternal wires", 400), ("aortic valve", 100)):
        with_it, without = (
            scan_patient(replace(patient, plaques=(), distractors=extra), SCANNER, STILL, 1, grid)
            for extra in ((drawn(kind),), ())
        )
        assert (with_it.hu.astype(int) - without.hu).max() > least
        assert not with_it.calcium_mg_cm3.any()
