"""Statistics of models that predict from a whole scan, with intervals by resampling patients.

Cross-validation gives a model for each fold. A statistic is the mean over single models, as they would be used; their
predictions are never averaged, which would improve them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..statistics.agreement import Statistic
from ..statistics.bootstrap import Bootstrap, BootstrapResult, ratio
from ..statistics.roc import area_under_curve


@dataclass(frozen=True)
class Prediction:
    """Predictions of one model.

    Attributes:
        rows: Indices of scans, int [m].
        values: Predicted values [m, …].
    """

    rows: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Measure:
    """Column of a study's table. among: selects a proportion's scans by their truth, bool [m]; None for all."""

    title: str
    statistic: Statistic
    among: Callable[[np.ndarray], np.ndarray] | None = None


def proportion(
    title: str, hit: Callable[[np.ndarray, np.ndarray], np.ndarray], among: Callable[[np.ndarray], np.ndarray]
) -> Measure:
    """Return the proportion of hits. hit: bool [m] from truth and predicted values. among: bool [m] from the truth."""

    def statistic(weights: np.ndarray, truth: np.ndarray, values: np.ndarray) -> np.ndarray:
        members = among(truth)
        return ratio(weights, hit(truth, values) & members, members)

    return Measure(title, statistic, among)


class Evaluation:
    """Evaluation of models with resamples of patients shared by all statistics of a study.

    Args:
        patients: Patient of each scan [n].
        truth: True values [n, …].
        seed: Seed of the resamples.
    """

    def __init__(self, patients: Sequence[str] | np.ndarray, truth: np.ndarray, seed: int = 0) -> None:
        self.patients, self.truth = np.array(patients), truth
        self.weights = Bootstrap(patients, np.random.default_rng(seed)).weights(patients)

    def of(self, predictions: Sequence[Prediction], measure: Measure) -> BootstrapResult:
        """Return a measure averaged over models, which may predict the same or different scans."""
        values = [
            measure.statistic(np.take(self.weights, prediction.rows, 1), self.truth[prediction.rows], prediction.values)
            for prediction in predictions
        ]
        rows = np.unique(np.concatenate([prediction.rows for prediction in predictions]))
        if measure.among is not None:
            rows = rows[measure.among(self.truth[rows])]
        result = BootstrapResult(np.mean(values, axis=0), len(rows), len(set(self.patients[rows])))
        return result if measure.among is None else result.exact_where_certain()


def _is_correct(truth: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (values[:, 1] > 0) == truth


AUC = Measure("AUC", lambda weights, truth, values: area_under_curve(weights, truth, values[:, 0]))
SENSITIVITY = proportion("Sensitivity", _is_correct, lambda truth: truth)
SPECIFICITY = proportion("Specificity", _is_correct, lambda truth: ~truth)
ACCURACY = proportion("Accuracy", _is_correct, lambda truth: np.ones(len(truth), bool))


def with_calls(probabilities: np.ndarray, limit: float) -> np.ndarray:
    """Return predicted values [m, 2] from probabilities [m] and the limit from which they count as calcium."""
    return np.stack([probabilities, probabilities >= limit], 1)
