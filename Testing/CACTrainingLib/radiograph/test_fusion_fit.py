"""Calibration and fusion recover known coefficients."""

import numpy as np

from CACTrainingLib.radiograph.fitting import fit_calibration


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def patients(count, seed):
    """Simulate factors, a logit and a score with log odds 0.8 logit + 0.08 (age - 60) + 0.6 (male) - 0.3."""
    generator = np.random.default_rng(seed)
    factors = np.column_stack(
        [generator.normal(60, 10, count), generator.integers(0, 2, count), generator.normal(27, 5, count)]
    )
    logit = generator.normal(0, 1.5, count)
    odds = 0.8 * logit + 0.08 * (factors[:, 0] - 60) + 0.6 * factors[:, 1] - 0.3
    return factors, logit, (generator.random(count) < sigmoid(odds)) * 50.0


def test_known_coefficients_are_recovered():
    train_factors, _, train_scores = patients(20000, 0)
    factors, logit, scores = patients(20000, 1)
    calibration = fit_calibration((0,), train_scores, train_factors, logit[:, None], scores, factors)["factors_0"]
    np.testing.assert_allclose(
        [calibration[name] for name in ("logit", "age_years", "male", "bmi_kg_m2")], [0.8, 0.08, 0.6, 0], atol=0.06
    )
    assert abs(calibration["offset"] - (-0.3 - 0.08 * 60)) < 0.4
