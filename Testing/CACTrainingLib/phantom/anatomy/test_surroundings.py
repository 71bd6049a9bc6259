"""Surroundings of the heart: what they add, and that they change neither plaque nor a still heart's size."""

from dataclasses import replace

import numpy as np
import pytest
from painted_by_numpy import reliefs
from scipy import ndimage

from CACScoringLib.core.grid import Grid
from CACTrainingLib.phantom.anatomy import surroundings, tissues
from CACTrainingLib.phantom.anatomy.canvas import Canvas
from CACTrainingLib.phantom.anatomy.heart import Heart
from CACTrainingLib.phantom.anatomy.patient import draw_patient, stream
from CACTrainingLib.phantom.anatomy.points import EMPTY
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_patient

NUMBER = 3
GRID = Grid((160, 140, 2), (1.0, 1.0, 3.0), (-60.0, -95.0, 0.0))
SCANNER = Scanner(noise_hu=0.0, field_of_view_mm=512.0, half_scan=True, rotation_s=0.4)


@pytest.fixture(scope="module")
def plain():
    return replace(draw_patient(NUMBER), vessels=EMPTY, grain=EMPTY, distractors=(), plaques=())


@pytest.fixture(scope="module")
def surrounded(plain):
    return replace(plain, body=draw_patient(NUMBER, surroundings=True).body)


@pytest.fixture(scope="module")
def painted(surrounded):
    """A slice of the heart on lung only, without texture, and its places' distances from the pericardium."""
    x, y = np.arange(-60.0, 100.0), np.arange(-95.0, 45.0)
    canvas = Canvas(x, y, 0.0, tissues.LUNG_HU)
    heart = Heart(surrounded.body, ScanPose(motion_scale=0), surrounded.heart)
    zero = np.zeros_like(canvas.hu)
    heart._paint_chambers(canvas, np.ones_like(canvas.hu), zero, np.zeros(3), 0.0)
    places = np.stack([*np.meshgrid(x, y), zero], axis=-1).reshape(-1, 3)
    distance = surrounded.heart.sample(heart.frame.to_heart(places))[:, 0]
    return canvas.hu, distance.reshape(canvas.hu.shape)


@pytest.mark.long
def test_plaques_body_and_heart_are_those_of_the_plain_patient():
    usual, changed = draw_patient(NUMBER), draw_patient(NUMBER, surroundings=True)
    assert (changed.plaques, replace(changed.body, surroundings=None)) == (usual.plaques, usual.body)
    assert np.array_equal(changed.heart.pericardium, usual.heart.pericardium)


def test_the_pericardium_is_a_line_of_soft_tissue_and_fat_lies_outside_it(painted, surrounded):
    hu, distance = painted
    thickness = surrounded.body.surroundings.pericardium_mm
    line = hu[(distance > 0.2 * thickness) & (distance < 0.6 * thickness)]
    assert np.percentile(line, 10) > -90
    outside = hu[(distance > 4) & (distance < 5)]
    is_fat = outside > 0.5 * (tissues.LUNG_HU + tissues.FAT_HU)
    assert 0.1 < is_fat.mean() < 1
    assert outside[is_fat].max() < 0


def test_relief_has_mean_0_and_standard_deviation_1(surrounded):
    places = np.random.default_rng(0).uniform(-400, 400, (4000, 3))
    around = surrounded.body.surroundings
    for relief in reliefs(places, around.waves_per_mm, around.phases):
        assert (relief.mean(), relief.std()) == (pytest.approx(0, abs=0.06), pytest.approx(1, abs=0.06))


def test_a_contracted_heart_is_smaller_and_its_wall_moves_by_millimetres(surrounded):
    heart = Heart(surrounded.body, ScanPose(), surrounded.heart)
    pictures, insides = [], []
    for contraction in (0.0, 1.0):
        canvas = Canvas(np.arange(-60.0, 100.0), np.arange(-95.0, 45.0), -10.0, tissues.LUNG_HU)
        zero = np.zeros_like(canvas.hu)
        insides.append(heart._paint_chambers(canvas, np.ones_like(zero), zero, np.zeros(3), contraction))
        pictures.append(canvas.hu)
    blood = [(np.abs(picture - surrounded.body.blood_hu) < 2).sum() for picture in pictures]
    assert blood[1] < 0.98 * blood[0]
    assert insides[1].sum() < 0.98 * insides[0].sum()
    # No place of the moved pericardium is farther than 20 mm from the still one.
    assert not ((insides[0] > 0.5) & (ndimage.distance_transform_edt(insides[1] < 0.5) > 20)).any()


@pytest.mark.parametrize(("motion", "differs"), [(0.0, False), (1.0, True)])
def test_walls_that_move_differ_between_cardiac_phases_of_a_slice(surrounded, motion, differs):
    """In systole and in diastole; without motion the phase changes nothing."""
    scans = [
        scan_patient(surrounded, SCANNER, ScanPose(motion_scale=motion, start_phase=phase), 1, GRID).hu.astype(float)
        for phase in (0.35, 0.65)
    ]
    assert (np.abs(scans[0] - scans[1]).max() > 40) == differs


def test_pleural_plaques_lie_outside_the_pericardium_and_are_no_coronary_calcium(plain):
    drawn = [
        distractor
        for seed in range(60)
        for distractor in surroundings.surrounding_distractors(plain.body, plain.heart, stream(seed, 61))
    ]
    kinds = [distractor.kind for distractor in drawn]
    assert {"pleural plaque", "abdominal clip"} == set(kinds)
    for distractor in drawn:
        if distractor.kind == "pleural plaque":
            outside = plain.heart.sample(distractor.cloud.positions_mm)[:, 0]
            assert np.median(outside) > 0
            assert distractor.mass_mg > 0
