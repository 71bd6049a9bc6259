"""Plaques of a patient: exact masses, and published shares."""

import math

import numpy as np
import pytest

from CACScoringLib.core.labels import ARTERIES
from CACTrainingLib.phantom.anatomy.coronaries import ARTERY_SHARE, PREVALENCE, Plaque, draw_plaques
from CACTrainingLib.phantom.anatomy.patient import HEART_SCALES, draw_patient


def test_a_plaques_mass_is_the_integral_of_its_shape():
    plaque = Plaque(1, "LAD", "LAD", 10.0, 6.0, 90.0, 0.0, 1.2, 400.0, 1.8)
    g = np.random.default_rng(0)
    s, r = g.uniform(-3, 3, 400000), g.uniform(1.8, 3.0, 400000)
    inside = r < 1.8 + 1.2 * np.sqrt(1 - (s / 3) ** 2)
    volume = (inside * r).mean() * 1.2 * 6.0 * math.radians(90)
    assert plaque.volume_mm3 == pytest.approx(volume, rel=0.01)
    assert plaque.mass_mg == pytest.approx(0.4 * volume, rel=0.01)


@pytest.mark.long
def test_hearts_of_any_size_differ_by_the_same_factor_along_all_axes():
    usual, scaled = ([draw_patient(n, any_size=any_size).body for n in range(6)] for any_size in (False, True))
    factors = np.array([b.heart_semi_axes_mm for b in scaled]) / [b.heart_semi_axes_mm for b in usual]
    assert np.ptp(factors, axis=1) == pytest.approx(0, abs=1e-12)
    assert np.ptp(factors[:, 0]) > 0.1
    assert HEART_SCALES[0] <= factors.min()
    assert factors.max() <= HEART_SCALES[1]


def test_points_weigh_the_same_as_the_plaques_and_lie_on_the_wall(patient):
    assert patient.plaques
    for step in (0.35, 0.175):
        total = sum(patient.calcium(artery, step).total for artery in ARTERIES)
        assert total == pytest.approx(patient.mass_mg, rel=1e-9)
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    for plaque in patient.plaques:
        vessel = vessels[plaque.vessel]
        cloud = plaque.cloud(vessel, 0.35)
        gap = np.linalg.norm(cloud.positions_mm[:, None] - vessel.path_mm[None], axis=2).min(axis=1)
        assert gap.max() < plaque.radius_mm + plaque.thickness_mm + 0.4
        assert gap.mean() > 0.6 * plaque.radius_mm


def test_prevalence_and_arteries_follow_the_stated_shares(patient):
    drawn = [draw_plaques(patient.tree, "F", np.random.default_rng(n)) for n in range(1500)]
    assert np.mean([bool(p) for p in drawn]) == pytest.approx(PREVALENCE["F"], abs=0.04)
    arteries = [plaque.artery for plaques in drawn for plaque in plaques]
    for artery, share in ARTERY_SHARE.items():
        assert arteries.count(artery) / len(arteries) == pytest.approx(share, abs=0.04)
    assert not draw_plaques(patient.tree, "F", np.random.default_rng(0), prevalence=0.0)
