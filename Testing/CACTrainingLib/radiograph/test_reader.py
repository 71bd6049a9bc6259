"""Model readers in noise in which their areas are expected."""

import numpy as np
import pytest
from scipy.stats import norm

from CACTrainingLib.radiograph.reader import READERS, areas_of, largest_part, reader_areas

RATIO = 1.8
"""Signal-to-noise ratio of a blob in one view."""


def blob(row, column):
    y, x = np.mgrid[:40, :40]
    shape = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8)
    return shape / np.sqrt((shape**2).sum())


def areas(noise, added, expected, shifts=(0.0, 10.0)):
    scores = np.where(np.arange(len(noise)) < 100, 150.0, 0.0)
    return areas_of(noise, added, expected, scores, (0, 100, 400), 1.0, shifts)


def test_the_area_is_that_of_the_signal_to_noise_ratio_and_falls_with_the_unknown_place():
    noise = 5 + np.random.default_rng(0).normal(0, 2.0, (400, 2, 40, 40)).astype(np.float32)
    signals = np.zeros_like(noise)
    signals[:100] = blob(20, 20) * RATIO * 2.0
    single, double = (areas(noise[:, :n], signals[:, :n], signals[:, :n], (0.0, 10.0, 30.0)) for n in (1, 2))
    assert single[0][0] == pytest.approx(norm.cdf(RATIO / np.sqrt(2)), abs=0.03)
    assert double[0][100] == pytest.approx(norm.cdf(RATIO), abs=0.03)
    assert single[0][0] > single[1][0] + 0.08
    assert single[1][0] > single[2][0] > 0.55
    assert double[1][0] > single[1][0] + 0.05
    assert np.isnan(single[0][400])


def test_the_largest_lesion_alone_shows_less_than_all_calcium():
    noise = np.random.default_rng(1).normal(0, 1, (300, 1, 40, 40)).astype(np.float32)
    added, largest = np.zeros((2, *noise.shape), np.float32)
    largest[:100] = blob(12, 12) * RATIO
    added[:100] = largest[:100] + blob(28, 28) * RATIO
    assert areas(noise, added, added)[0][0] == pytest.approx(norm.cdf(RATIO), abs=0.03)
    assert areas(noise, added, largest)[0][0] == pytest.approx(norm.cdf(RATIO / np.sqrt(2)), abs=0.03)


def test_calcium_shows_beside_noise():
    noise = np.random.default_rng(2).normal(0, 1, (300, 1, 40, 40)).astype(np.float32)
    noise[..., 24:] *= 20
    signals = np.zeros_like(noise)
    signals[:100] = blob(20, 8) * RATIO
    assert areas(noise, signals, signals)[0][0] == pytest.approx(norm.cdf(RATIO / np.sqrt(2)), abs=0.06)


def test_the_largest_part_has_the_most_calcium_not_the_most_pixels():
    path = np.zeros((10, 10))
    path[1, 1:6] = 1
    path[5:7, 5:7] = 3
    np.testing.assert_array_equal(largest_part(path), np.where(path == 3, path, 0))
    assert not largest_part(0 * path).any()


def test_much_calcium_on_digital_patients_is_seen(drawn):
    by_reader = reader_areas(drawn, (0, 400), 0)["PA"]
    assert tuple(by_reader) == READERS
    assert by_reader["shape known, within 30 mm"][400] > 0.9
