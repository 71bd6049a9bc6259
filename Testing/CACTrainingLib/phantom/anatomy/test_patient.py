"""Anatomy, coronaries, plaque and distractors of a patient."""

import math

import numpy as np
import pytest

from CACTrainingLib.phantom.anatomy.body import draw_body
from CACTrainingLib.phantom.anatomy.coronaries import ARTERIES, RIGHT_DOMINANT_SHARE, draw_coronaries
from CACTrainingLib.phantom.anatomy.heart import fat_thickness_mm, reference_frame
from CACTrainingLib.phantom.anatomy.patient import HEART_SHAPES, draw_patient, stream
from CACTrainingLib.phantom.anatomy.plaque import ARTERY_SHARE, PREVALENCE, Plaque, draw_plaques
from CACTrainingLib.phantom.anatomy.points import tube


@pytest.fixture(scope="module", params=HEART_SHAPES)
def patient(request):
    return draw_patient(8, prevalence=1.0, heart_shape=request.param)


def test_the_number_is_the_patient(patient):
    shape = "drawn" if patient.heart is None else "anatomical"
    again, other = (draw_patient(number, prevalence=1.0, heart_shape=shape) for number in (8, 9))
    assert again.body == patient.body
    assert again.plaques == patient.plaques
    assert np.array_equal(again.vessels.positions_mm, patient.vessels.positions_mm)
    assert other.body != patient.body


def test_numbers_start_at_zero():
    with pytest.raises(ValueError, match="-3"):
        draw_patient(-3)


@pytest.mark.parametrize("number", range(6))
def test_coronaries_run_in_the_fat_below_the_pericardium(number):
    body = draw_body(stream(number, 1))
    frame = reference_frame(body)
    for vessel in draw_coronaries(body, stream(number, 2)).vessels:
        if vessel.name == "LM":
            continue
        u, v, w = vessel.path_mm[30:].T
        a, b, c = frame.semi_axes_mm
        angle = np.arctan2(w / c, v / b)
        shape = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
        depth = (1 - shape) * 0.5 * (b + c)
        assert (depth > -1.0).mean() > 0.95, vessel.name
        assert (depth < fat_thickness_mm(body, u, angle, frame) + 1.5).mean() > 0.75, vessel.name


def test_calibres_and_lengths_are_those_of_coronaries(patient):
    by_name = {vessel.name: vessel for vessel in patient.tree.vessels}
    assert 3.2 < 2 * by_name["LM"].radius_mm[0] < 6.2
    assert by_name["LAD"].radius_mm[-1] < 0.7 * by_name["LAD"].radius_mm[0]
    assert 70 < by_name["LAD"].length_mm < 160
    assert 60 < by_name["RCA"].length_mm < 190
    assert {vessel.artery for vessel in patient.tree.vessels} == set(ARTERIES)


def test_dominance_decides_who_feeds_the_posterior_artery():
    trees = [draw_coronaries(draw_body(stream(n, 1)), stream(n, 2)) for n in range(60)]
    for tree in trees:
        owner = next(vessel.artery for vessel in tree.vessels if vessel.name == "PDA")
        assert owner == ("RCA" if tree.dominance == "right" else "LCX")
    right = np.mean([tree.dominance == "right" for tree in trees])
    assert abs(right - RIGHT_DOMINANT_SHARE) < 0.15


def test_a_plaques_mass_is_the_integral_of_its_shape(patient):
    plaque = Plaque(1, "LAD", "LAD", 10.0, 6.0, 90.0, 0.0, 1.2, 400.0, 1.8)
    g = np.random.default_rng(0)
    s, r = g.uniform(-3, 3, 400000), g.uniform(1.8, 3.0, 400000)
    inside = r < 1.8 + 1.2 * np.sqrt(1 - (s / 3) ** 2)
    volume = (inside * r).mean() * 1.2 * 6.0 * math.radians(90)
    assert plaque.volume_mm3 == pytest.approx(volume, rel=0.01)
    assert plaque.mass_mg == pytest.approx(0.4 * volume, rel=0.01)


def test_points_weigh_what_the_plaques_weigh(patient):
    assert patient.plaques
    for step in (0.35, 0.175):
        total = sum(patient.calcium(artery, step).total for artery in ARTERIES)
        assert total == pytest.approx(patient.mass_mg, rel=1e-9)


def test_plaques_lie_on_the_wall_of_their_vessel(patient):
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    for plaque in patient.plaques:
        vessel = vessels[plaque.vessel]
        cloud = plaque.cloud(vessel, 0.35)
        gap = np.linalg.norm(cloud.positions_mm[:, None] - vessel.path_mm[None], axis=2).min(axis=1)
        assert gap.max() < plaque.radius_mm + plaque.thickness_mm + 0.4
        assert gap.mean() > 0.6 * plaque.radius_mm


def test_prevalence_and_arteries_follow_the_stated_shares():
    tree = draw_coronaries(draw_body(stream(1, 1), "F"), stream(1, 2))
    drawn = [draw_plaques(tree, "F", np.random.default_rng(n)) for n in range(1500)]
    assert np.mean([bool(p) for p in drawn]) == pytest.approx(PREVALENCE["F"], abs=0.04)
    arteries = [plaque.artery for plaques in drawn for plaque in plaques]
    for artery, share in ARTERY_SHARE.items():
        assert arteries.count(artery) / len(arteries) == pytest.approx(share, abs=0.04)
    assert not draw_plaques(tree, "F", np.random.default_rng(0), prevalence=0.0)


def test_a_tube_weighs_its_volume():
    t = np.linspace(0, 1, 50)
    path = np.stack([30 * t, 10 * np.sin(3 * t), 5 * t], axis=1)
    length = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    cloud = tube(path, np.full(50, 1.5), 1.0, 0.5)
    assert cloud.total == pytest.approx(math.pi * 1.5**2 * length, rel=1e-6)


def test_bodies_vary_and_stay_human():
    bodies = [draw_body(np.random.default_rng(n)) for n in range(200)]
    women = [body for body in bodies if body.sex == "F"]
    assert 0.45 < len(women) / len(bodies) < 0.75
    assert all((body.breast_mm > 0) == (body.sex == "F") for body in bodies)
    volume = [4 / 3 * math.pi * math.prod(body.heart_semi_axes_mm) / 1000 for body in bodies]
    assert 500 < min(volume) < max(volume) < 1700
    assert np.std([body.fat_mm for body in bodies]) > 3
