"""How good a model is that detects any coronary calcium. Predicted values are [m, 2]: probability, and 1 where it
reaches the model's limit; the truth is bool [m]."""

from __future__ import annotations

import numpy as np

from ...statistics.roc import area_under_curve
from ..evaluation import Measure, proportion


def _area(weights: np.ndarray, truth: np.ndarray, values: np.ndarray) -> np.ndarray:
    return area_under_curve(weights, truth, values[:, 0])


def _right(truth: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (values[:, 1] > 0) == truth


AUC = Measure("AUC", _area)
SENSITIVITY = proportion("Sensitivity", _right, lambda truth: truth)
SPECIFICITY = proportion("Specificity", _right, lambda truth: ~truth)
ACCURACY = proportion("Accuracy", _right, lambda truth: np.ones(len(truth), bool))


def with_calls(probabilities: np.ndarray, limit: float) -> np.ndarray:
    """Predicted values [m, 2] from probabilities [m] and the limit from which they count as calcium."""
    return np.stack([probabilities, probabilities >= limit], 1)
