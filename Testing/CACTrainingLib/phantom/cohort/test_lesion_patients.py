"""Patients that are difficult on request: ostia, heavy calcium, motion and devices."""

import functools
from typing import get_args

import numpy as np
import pytest
from scipy.spatial import cKDTree

from CACTrainingLib.phantom.anatomy.distractors import DEVICES
from CACTrainingLib.phantom.anatomy.hearts.shape import PARTS
from CACTrainingLib.phantom.anatomy.hearts.valves import posterior_arc
from CACTrainingLib.phantom.anatomy.hearts.wall_calcium import (
    HEAVY_MG,
    curtain_calcium,
    heavy_mitral_annulus,
    right_ring,
    sinus_shells,
)
from CACTrainingLib.phantom.anatomy.patient import OSTIUM
from CACTrainingLib.phantom.anatomy.points import EMPTY, join_clouds
from CACTrainingLib.phantom.cohort import lesion_patients, lesion_scans, severe_plaque
from CACTrainingLib.phantom.cohort.lesion_patients import Difficulty, draw_lesion_patient
from CACTrainingLib.phantom.cohort.lesion_scans import draw_lesion_scan

NUMBER = 6_000_002


@pytest.fixture(autouse=True, scope="module")
def drawn_once():
    """Draw each usual patient once for all difficulties."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesion_patients, "_draw_usual_patient", functools.cache(lesion_patients._draw_usual_patient))
        yield


@pytest.fixture(scope="module")
def patients():
    return {difficulty: draw_lesion_patient(NUMBER, difficulty) for difficulty in (None, *get_args(Difficulty))}


def added(patients, difficulty):
    """Calcium that a difficulty adds to the usual patient, by kind."""
    usual = len(patients[None].distractors)
    return {distractor.kind: distractor.cloud for distractor in patients[difficulty].distractors[usual:]}


def test_difficulty_adds_to_the_usual_patient(patients):
    usual = patients[None]
    assert usual.ostial_plaques == frozenset()
    for difficulty in ("ostium", "heavy"):
        patient = patients[difficulty]
        assert patient.plaques[: len(usual.plaques)] == usual.plaques
        assert len(patient.plaques) > len(usual.plaques)
        assert len({plaque.id for plaque in patient.plaques}) == len(patient.plaques)
        np.testing.assert_array_equal(patient.tree.vessels[0].path_mm, usual.tree.vessels[0].path_mm)
    again = draw_lesion_patient(NUMBER, "ostium")
    assert again.plaques == patients["ostium"].plaques
    assert again.distractors[-1].mass_mg == patients["ostium"].distractors[-1].mass_mg


def test_ostial_plaque_begins_at_the_ostium_and_moves_with_the_root(patients):
    patient = patients["ostium"]
    ostial = [plaque for plaque in patient.plaques if plaque not in patients[None].plaques]
    for plaque in ostial:
        assert plaque.vessel in ("LM", "RCA")
        assert plaque.middle_mm - plaque.length_mm / 2 <= 2.5
    beat, phase = patient.beat, np.array([0.3, 0.9])
    expected = sum(share * beat.displacement_mm(group, phase) for group, share in lesion_patients.OSTIUM_BLEND.items())
    np.testing.assert_allclose(beat.displacement_mm(OSTIUM, phase), expected)
    moving = patient.moving_calcium("RCA")
    assert (OSTIUM in moving) == bool(patient.ostial_plaques)
    assert join_clouds(list(moving.values())).total == pytest.approx(patient.calcium("RCA").total)


def test_shells_lie_on_the_wall_and_leave_the_lumen_free(patients):
    patient = patients["ostium"]
    heart, tree = patient.heart, patient.tree
    ostia = {vessel.name: vessel for vessel in tree.vessels if vessel.name in ("LM", "RCA")}
    for seed in range(6):
        cloud = sinus_shells(heart, tree, EMPTY, np.random.default_rng(seed))
        distance = heart.sample(cloud.positions_mm)[:, 1 + PARTS.index("aorta")]
        assert np.percentile(distance, 5) > -0.5
        assert np.percentile(distance, 95) < 4.5
        for vessel in ostia.values():
            assert cKDTree(vessel.path_mm[:16]).query(cloud.positions_mm)[0].min() >= vessel.radius_mm[0]


def test_some_shells_touch_the_ostial_plaque_and_most_do_not(patients):
    patient = patients["ostium"]
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    plaques = join_clouds([p.cloud(vessels[p.vessel], 0.7) for p in patient.plaques if p.vessel in ("LM", "RCA")])
    gaps = []
    for seed in range(30):
        cloud = sinus_shells(patient.heart, patient.tree, plaques, np.random.default_rng(seed))
        gaps.append(cKDTree(plaques.positions_mm).query(cloud.positions_mm)[0].min())
    touching = np.mean(np.array(gaps) < 1.2)
    assert 0.1 < touching < 0.7


def test_heavy_calcium_is_heavy_and_without_devices(patients):
    patient = patients["heavy"]
    assert not any(distractor.metal for distractor in patient.distractors)
    heavy = [plaque for plaque in patient.plaques if plaque not in patients[None].plaques]
    for plaque in heavy:
        low, high = severe_plaque.HEAVY_MASS_MG
        assert 0.8 * low <= plaque.mass_mg <= 1.2 * high
        assert plaque.density_mg_cm3 >= severe_plaque.HEAVY_DENSITY_MG_CM3[0]


def test_a_heavy_annulus_lies_beside_plaque_of_the_circumflex_or_none():
    patients = [draw_lesion_patient(number, "annulus") for number in range(NUMBER, NUMBER + 6)]
    circumflex = [sum(plaque.vessel == "LCX" for plaque in patient.plaques) for patient in patients]
    assert min(circumflex) == 0 < max(circumflex)
    for patient in patients:
        assert patient.distractors[-1].kind == "mitral annulus"
        assert patient.distractors[-1].mass_mg >= 0.5 * HEAVY_MG[0]
        assert len({plaque.id for plaque in patient.plaques}) == len(patient.plaques)


def test_scans_are_noisy_thick_or_of_a_small_field():
    usual, noisy, thick, field = (draw_lesion_scan(NUMBER, d)[0] for d in (None, "noise", "thick", "field"))
    assert 1 <= noisy.slice_thickness_mm == noisy.slice_spacing_mm <= 1.5
    assert 40 <= noisy.noise_hu <= 90
    assert 5 <= thick.slice_thickness_mm <= 8
    assert 0.6 <= thick.slice_spacing_mm / thick.slice_thickness_mm <= 1
    assert 138 <= field.field_of_view_mm <= 202
    assert field.pixel_mm == pytest.approx(usual.pixel_mm)


def test_devices_are_added_and_no_stents():
    assert set(lesion_patients.DEVICE_WEIGHTS) == set(DEVICES)
    kinds = set()
    for number in (NUMBER + 1, NUMBER + 3, NUMBER + 6):
        usual, patient = draw_lesion_patient(number), draw_lesion_patient(number, "device")
        assert patient.plaques == usual.plaques
        added = patient.distractors[len(usual.distractors) :]
        assert all(distractor.metal for distractor in added)
        kinds |= {distractor.kind for distractor in added}
    assert {"prosthetic valve", "bypass clips"} <= kinds <= set(lesion_patients.DEVICE_SHARES)


def test_heavy_annuli_reach_from_the_ring_into_the_groove(patients):
    patient = patients[None]
    clouds = [heavy_mitral_annulus(patient.heart, patient.tree, np.random.default_rng(seed)) for seed in range(5)]
    tree = cKDTree(posterior_arc(patient.heart))
    for cloud in clouds:
        assert 0.5 * HEAVY_MG[0] < cloud.total <= 1.5 * HEAVY_MG[1]
        assert np.median(tree.query(cloud.positions_mm)[0]) < 6
    assert max(tree.query(cloud.positions_mm)[0].max() for cloud in clouds) > 8


def test_curtain_and_right_rings_lie_at_their_valves(patients):
    heart, tree = patients[None].heart, patients[None].tree
    for draw, valves in ((curtain_calcium, ("mitral", "aortic")), (right_ring, ("pulmonary", "tricuspid"))):
        middles = np.array([heart.landmarks_mm[valve] for valve in valves])
        cloud = draw(heart, tree, np.random.default_rng(3))
        assert cloud.total > 0
        assert np.median(cKDTree(middles).query(cloud.positions_mm)[0]) < 25


def test_motion_is_fast_and_half_of_its_patients_have_no_plaque(patients):
    around = patients["motion"].body.surroundings
    assert around is not None
    assert around.most_lumen > 1
    scanner, pose = draw_lesion_scan(NUMBER, "motion")
    assert scanner.half_scan
    assert scanner.gate_phase is None
    assert pose.motion_scale >= lesion_scans.MOVING_SCALE[0]
