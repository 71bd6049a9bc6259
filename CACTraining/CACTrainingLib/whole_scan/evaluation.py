"""Statistics of models that predict from a whole scan, with intervals by resampling patients.

Cross-validation gives a model for each fold. A statistic is that of one model, as one would be in use, averaged over
the models; their predictions are never averaged, which would flatter them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..statistics.bootstrap import Bootstrap, BootstrapResult, ratio
from ..statistics.roc import area_under_curve

Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Function of weights [resamples, m], truth [m, …] and predicted values [m, …]; returns float [resamples]."""


@dataclass(frozen=True)
class Prediction:
    """Predictions of one model. rows: int [m], indices of scans. values: [m, …]."""

    rows: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Measure:
    """A column of a study's table. among: of a proportion, selects its scans by their truth, bool [m]."""

    title: str
    statistic: Statistic
    among: Callable[[np.ndarray], np.ndarray] | None = None


def proportion(
    title: str, hit: Callable[[np.ndarray, np.ndarray], np.ndarray], among: Callable[[np.ndarray], np.ndarray]
) -> Measure:
    """Proportion of hits. hit: bool [m] from truth and predicted values. among: bool [m] from the truth."""

    def statistic(weights: np.ndarray, truth: np.ndarray, values: np.ndarray) -> np.ndarray:
        members = among(truth)
        return ratio(weights, hit(truth, values) & members, members)

    return Measure(title, statistic, among)


class Evaluation:
    """Resamples of patients that all statistics of a study share. patients: of each scan. truth: [n, …]."""

    def __init__(self, patients: Sequence[str], truth: np.ndarray, seed: int = 0) -> None:
        self.patients, self.truth = np.array(patients), truth
        self.weights = Bootstrap(patients, np.random.default_rng(seed)).weights(patients)

    def of(self, predictions: Sequence[Prediction], measure: Measure) -> BootstrapResult:
        """A measure, averaged over models that each predicted the same scans or scans of their own."""
        values = [
            measure.statistic(np.take(self.weights, one.rows, 1), self.truth[one.rows], one.values)
            for one in predictions
        ]
        rows = np.unique(np.concatenate([one.rows for one in predictions]))
        if measure.among is not None:
            rows = rows[measure.among(self.truth[rows])]
        result = BootstrapResult(np.mean(values, axis=0), len(rows), len(set(self.patients[rows])))
        return result if measure.among is None else result.exact_where_certain()


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
