"""Filters of normalisation on values whose result is known on paper."""

import numpy as np
import pytest

from CACScoringLib.quality.normalisation import averaged, filtered, slice_weights


@pytest.mark.parametrize(
    ("thickness_mm", "spacing_mm", "weights"),
    [
        (0.0, 1.0, (1 / 3, 1 / 3, 1 / 3)),
        (0.0, 1.5, (0.25, 0.5, 0.25)),
        (1.8, 0.6, (0.125, 0.25, 0.25, 0.25, 0.125)),  # √(3² − 1.8²) = 2.4 mm are four slices
        (1.8, 2.0, (1 / 12, 10 / 12, 1 / 12)),
        (1.8, 2.4, ()),
        (3.0, 1.0, ()),
        (5.0, 1.0, ()),
    ],
)
def test_weights_of_slices_by_hand(thickness_mm, spacing_mm, weights):
    assert slice_weights(thickness_mm, spacing_mm) == pytest.approx(weights, abs=1e-6)


def test_averaged_slices_by_hand():
    hu = np.array([0.0, 10.0, 40.0, 80.0], np.float32).reshape(4, 1, 1)
    filtered_hu = averaged(hu, (0.25, 0.5, 0.25))
    assert filtered_hu.ravel().tolist() == [2.5, 15.0, 42.5, 70.0]
    assert averaged((hu + 2).astype(np.int16), (0.25, 0.5, 0.25)).ravel().tolist() == [4, 17, 44, 72]


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize(
    ("waves", "expected"),
    [(0, 0.9), (8, 0.8), (16, 0.7), (32, 0.4), (40, 0.4)],  # at 0, 0.1, 0.2, 0.4 and 0.5 per mm
)
def test_the_gain_of_waves_by_hand(axis, waves, expected):
    """Half waves in 64 pixels, of 0.625 mm along the wave and of 0.8 mm across."""
    wave = 100 * np.cos(np.pi * waves * (np.arange(64) + 0.5) / 64)
    hu = np.broadcast_to(wave if axis == 2 else wave[:, None], (2, 64, 64)).astype(np.float32)
    spacing = (0.625, 0.8, 3.0) if axis == 2 else (0.8, 0.625, 3.0)
    filtered_hu = filtered(hu, spacing, np.array([0.0, 0.2, 0.3, 0.4]), np.array([0.9, 0.7, 0.5, 0.4]))
    np.testing.assert_allclose(filtered_hu, expected * hu, atol=1e-3)
