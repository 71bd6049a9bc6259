"""How good predicted scores of arteries are, and what age, sex and heart size predict without any picture.

Scores, true and predicted, are arrays [m, 4] in the order of ARTERIES.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...statistics.agreement import kappa
from ...statistics.bootstrap import mean
from ...statistics.patient_folds import category_of
from ...statistics.regression import rank_correlation
from ..evaluation import Measure
from ..study import FACTORS, Cohort, Fit

PER_MILLE = 1000.0
"""Mean squared errors are shown in thousandths, as they are of squares of proportions."""


def _rank(weights: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return rank_correlation(weights, true.sum(1), predicted.sum(1))


def _absolute_error(weights: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return mean(weights, np.abs(predicted.sum(1) - true.sum(1)))


def _category_agreement(weights: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return kappa(weights, category_of(true.sum(1)), category_of(np.round(predicted.sum(1))), 4)


RANK = Measure("Rank correlation", _rank)
"""Spearman's, of the total."""

ABSOLUTE_ERROR = Measure("Mean absolute error", _absolute_error)
"""Of the total, in Agatston units."""

CATEGORY_KAPPA = Measure("κ of categories", _category_agreement)
"""Linearly weighted, of the categories 0, 1–99, 100–399 and from 400 of the total, rounded to whole scores."""


def squared_error(scale: float) -> Measure:
    """Mean squared error over patients and arteries of scores divided by `scale`, in thousandths."""

    def statistic(weights: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return PER_MILLE * mean(weights, (((predicted - true) / scale) ** 2).mean(1))

    return Measure("Squared error, ‰", statistic)


def mean_of(scores: np.ndarray) -> Fit:
    """Predict the mean scores of those learned from. scores: [n, 4] of all scans."""

    def fit(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        middle = scores[rows].mean(0)
        return lambda others: np.tile(middle, (len(others), 1))

    return fit


def factors_alone(cohort: Cohort, scores: np.ndarray, logarithm: bool) -> tuple[str, Fit] | None:
    """Linear regression of scores, or of their logarithms, on age, sex and heart size, as far as they are known.

    scores: [n, 4] of all scans. Returns its title and how it is fitted; None where nothing is known of every scan.
    """
    from sklearn.linear_model import LinearRegression

    if not (columns := cohort.known_factors):
        return None
    factors = cohort.factors[:, columns]

    def fit(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        model = LinearRegression().fit(factors[rows], np.log1p(scores[rows]) if logarithm else scores[rows])
        inverse = np.expm1 if logarithm else np.asarray
        return lambda others: np.maximum(0, inverse(model.predict(factors[others])))

    title = ", ".join(FACTORS[n] for n in columns).capitalize()
    return f"{title}{', logarithm' if logarithm else ''}", fit
