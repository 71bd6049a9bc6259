"""The compiled loops of a scan equal their slow forms in NumPy."""

import numpy as np
import painted_by_numpy as slow

from CACTrainingLib.phantom.scanner import compiled

DIRECTIONS = 64


def spectra(seed: int, count: int) -> np.ndarray:
    g = np.random.default_rng(seed)
    return (g.standard_normal((count, 20, 13)) + 1j * g.standard_normal((count, 20, 13))).astype(np.complex64)


def views(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, DIRECTIONS, (20, 13))


def shares(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 1, (count, DIRECTIONS)).astype(np.float32)


def test_a_slice_changes_by_each_level_in_its_share_of_the_views():
    (spectrum, *changes), transfer = spectra(1, 4), np.random.default_rng(2).uniform(0, 1, (20, 13)).astype(np.float32)
    expected = spectrum.astype(complex)
    facts = (np.array(changes), views(3), shares(4, 4), transfer)
    compiled.add_levels(spectrum, *facts)
    slow.add_levels(expected, *facts)
    np.testing.assert_allclose(spectrum, expected, atol=1e-5)


def test_moving_points_turn_the_phase_of_each_view():
    shifts = np.random.default_rng(5).uniform(-90, 90, (2, DIRECTIONS)).astype(np.float32)
    fx, fy = np.linspace(0, 1.1, 13).astype(np.float32), np.linspace(-1.1, 1.1, 20).astype(np.float32)
    facts = (spectra(6, 3), views(7), shares(8, 3), shifts, fx, fy)
    np.testing.assert_allclose(compiled.moving_spectrum(*facts), slow.moving_spectrum(*facts), atol=2e-4)


def test_points_are_shared_by_their_nearest_pixels():
    g = np.random.default_rng(9)
    positions, weights = g.uniform(-30, 30, (400, 3)), g.uniform(0, 1, 400)
    image, expected = np.zeros((30, 40)), np.zeros((30, 40))
    for scatter, target in ((compiled.scatter, image), (slow.scatter, expected)):
        scatter(positions, weights, (-20.0, -14.0), (1.0, 0.9), target)
    np.testing.assert_allclose(image, expected, atol=1e-12)
    assert image.sum() > 0


def test_noise_is_added_and_values_are_limited():
    g = np.random.default_rng(10)
    clean = (2000 * g.standard_normal((30, 40))).astype(np.float32)
    noise, share = g.standard_normal((2, 30, 40)).astype(np.float32)
    expected = np.rint(np.clip(clean + noise * share * np.float32(30), -1024, 3071))
    compiled.finish(clean, noise, share, 30.0, -1024, 3071)
    assert (np.abs(clean - expected) <= 1).all()
    assert (clean == expected).mean() > 0.99
