"""Position and size of devices as in people."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from CACTrainingLib.phantom.anatomy.distractors import DEVICES, device


def draw_parts(kind, patient, seed=0):
    return device(kind, patient.body, patient.tree, np.random.default_rng(seed), patient.heart)


@pytest.mark.parametrize("kind", DEVICES)
def test_devices_are_metal_with_streaks_and_weigh_something(kind, patient):
    for part in draw_parts(kind, patient):
        assert part.metal
        assert part.mass_mg == 0
        assert 1 < part.cloud.total < 600
        assert part.view_gain.mean() == pytest.approx(1)


def test_a_stent_lies_in_an_artery(patient):
    (part,) = draw_parts("stent", patient)
    vessel = next(v for v in patient.tree.vessels if v.name == part.group)
    gap, _ = cKDTree(vessel.path_mm).query(part.cloud.positions_mm)
    assert 0.8 * vessel.radius_mm.min() < gap.min() < gap.max() < 1.2 * vessel.radius_mm.max()
    assert 8 < np.ptp(part.cloud.positions_mm, axis=0).max() < 30
