"""Ideal observer in white noise, whose areas are known."""

import numpy as np
import pytest
from scipy.stats import norm

from CACTrainingLib.radiograph.bound import bound_of, ideal_areas


def test_the_area_is_that_of_the_signal_to_noise_ratio_and_falls_with_the_unknown_place():
    generator = np.random.default_rng(0)
    noise = 5 + generator.normal(0, 2.0, (800, 2, 40, 40)).astype(np.float32)
    signals = np.zeros_like(noise)
    y, x = np.mgrid[:40, :40] - 20
    blob = np.exp(-(x**2 + y**2) / 8)
    ratio = 1.8  # of each view
    signals[:100] = blob * ratio * 2.0 / np.sqrt((blob**2).sum())
    scores = np.where(np.arange(800) < 100, 150.0, 0.0)
    single, double = (ideal_areas(noise[:, :n], signals[:, :n], scores, (0, 100, 400), 1.0) for n in (1, 2))
    assert single[0.0][0] == pytest.approx(norm.cdf(ratio / np.sqrt(2)), abs=0.03)
    assert double[0.0][100] == pytest.approx(norm.cdf(ratio), abs=0.03)
    assert single[0.0][0] > single[10.0][0] + 0.08
    assert single[10.0][0] > single[30.0][0] > 0.55
    assert double[10.0][0] > single[10.0][0] + 0.05
    assert np.isnan(single[0.0][400])


def test_much_calcium_on_digital_patients_is_seen(drawn):
    assert bound_of(drawn, (0, 400), 0)["PA"][30.0][400] > 0.9
