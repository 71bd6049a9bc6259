"""Complete scans: reproducible, with the true mass and HU."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from CACTrainingLib.phantom.anatomy.coronaries import LABELS
from CACTrainingLib.phantom.anatomy.distractors import Distractor, device
from CACTrainingLib.phantom.anatomy.hearts.valves import deposits
from CACTrainingLib.phantom.anatomy.patient import surround
from CACTrainingLib.phantom.anatomy.points import EMPTY
from CACTrainingLib.phantom.cohort.export import annotate
from CACTrainingLib.phantom.scanner import simulation
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

pytestmark = pytest.mark.long

STILL = ScanPose(motion_scale=0.0)
SCANNER = Scanner(field_of_view_mm=400, matrix=256, noise_hu=15)
HEART = (-66.0, 66.0)


@pytest.fixture(scope="module")
def still(patient):
    return scan_patient(patient, SCANNER, STILL, 1, scan_grid(SCANNER, HEART))


def test_the_map_of_a_still_patient_weighs_the_true_mass(patient, still):
    mass_mg = float(still.calcium_mg_cm3.sum(dtype=np.float64)) * np.prod(still.grid.spacing_mm) / 1000
    assert mass_mg == pytest.approx(patient.mass_mg, rel=0.005)


def test_outside_the_bodys_box_there_is_only_air_and_the_couch(patient, still, monkeypatch):
    monkeypatch.setattr(simulation, "body_box", lambda body, canvas, heights_mm: canvas.box(-1e4, 1e4, -1e4, 1e4))
    unboxed = scan_patient(patient, SCANNER, STILL, 1, scan_grid(SCANNER, HEART))
    difference = np.abs(unboxed.hu.astype(int) - still.hu)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4


def test_some_fields_are_round_with_padding_in_the_corners(still):
    gated = replace(still, scanner=replace(SCANNER, gate_phase=0.75))
    assert simulation.draw_field(still, np.random.default_rng(2)) is still
    drawn = [simulation.draw_field(gated, np.random.default_rng(seed)) for seed in range(40)]
    padded = [scan for scan in drawn if scan is not gated]
    assert 8 < len(padded) < 28
    inside = np.hypot(*np.meshgrid(*2 * [np.arange(256) - 127.5])) < 127
    for scan in padded:
        assert set(np.unique(scan.hu[:, 0, 0])) <= set(simulation.PADDING_HU)
        assert np.array_equal(scan.hu[:, inside], still.hu[:, inside])
    assert {int(scan.hu[0, 0, 0]) for scan in padded} == set(simulation.PADDING_HU)


def test_breath_during_a_slice_moves_the_heart_but_not_the_chest(patient):
    """Rims at the heart's border where half a turn takes a second, none where it takes no time."""
    body = surround(8, patient.body, patient.heart)[0]
    quiet = replace(patient, body=body, plaques=(), distractors=(), vessels=EMPTY, grain=EMPTY)
    pose = ScanPose(motion_scale=0.0, breathing_mm=9.0, breathing_s=4.0, breathing_phase=0.2)
    heights = scan_grid(SCANNER, (-62.0, -32.0))
    fast, slow = (
        scan_patient(quiet, replace(SCANNER, noise_hu=0, half_scan=True, rotation_s=seconds), pose, 1, heights)
        for seconds in (0.01, 2.0)
    )
    border = ndimage.binary_dilation(fast.heart, iterations=4) & ~ndimage.binary_erosion(fast.heart, iterations=4)
    difference = np.abs(fast.hu.astype(int) - slow.hu)
    assert np.percentile(difference[border], 90) > 40
    chest = ~ndimage.binary_dilation(fast.heart, iterations=25)
    assert np.percentile(difference[chest], 99) < np.percentile(difference[border], 90) / 4


def test_labels_follow_contrast_and_noise(patient, still):
    quiet = annotate(still, np.random.default_rng(0))
    assert any(label.visible for label in quiet.slices)
    loud = annotate(replace(still, noise_sd_hu=still.noise_sd_hu * 100), np.random.default_rng(0))
    assert not any(label.visible for label in loud.slices)
    assert np.array_equal(loud.arteries, quiet.arteries)
    present = {plaque.artery for plaque in patient.plaques}
    assert set(np.unique(quiet.arteries)) - {0} <= {LABELS[a] for a in present}


def test_distractors_are_seen_but_are_no_coronary_calcium(patient):
    body, tree, heart = patient.body, patient.tree, patient.heart
    wires = tuple(device("sternal wires", body, tree, np.random.default_rng(0), heart))
    cloud = deposits("aortic valve", heart, tree, np.random.default_rng(0))
    valve = (Distractor("aortic valve", "heart", "valve", cloud),)
    grid = scan_grid(SCANNER, (-40.0, 80.0))
    for distractors, least in ((wires, 400), (valve, 100)):
        with_distractors, plain = (
            scan_patient(replace(patient, plaques=(), distractors=extra), SCANNER, STILL, 1, grid)
            for extra in (distractors, ())
        )
        assert (with_distractors.hu.astype(int) - plain.hu).max() > least
        assert not with_distractors.calcium_mg_cm3.any()
