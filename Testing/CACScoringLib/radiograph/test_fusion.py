"""Probabilities from logits and clinical factors, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from CACScoringLib.radiograph.score import probabilities

CALIBRATION = {
    "image_100": {"offset": -1.0, "logit": 2.0},
    "factors_100": {"offset": -6.0, "logit": 1.0, "age_years": 0.1, "male": 0.5, "bmi_kg_m2": 0.0},
    "image_0": {"offset": 0.0, "logit": 1.0},
    "factors_0": None,
    "slice_threshold": 0.3,
}


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def test_from_the_image_alone():
    result = probabilities(np.array([[0.5, 1.5], [0.0, 0.5]]), None, CALIBRATION)
    np.testing.assert_allclose(result, [[sigmoid(0.5), sigmoid(2)], [0.5, 0.5]])


def test_with_factors():
    result = probabilities(np.array([[0.0, 0.5]]), np.array([[60.0, 1.0, 27.0]]), CALIBRATION)
    assert math.isnan(result[0, 0])  # the card has no fit with factors
    assert result[0, 1] == pytest.approx(sigmoid(1.0))
