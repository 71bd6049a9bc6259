"""Fit the errors of scores, which prediction intervals are made of, and logistic regressions with bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from CACScoringLib.scoring.lesion_calibration import COUNTS_FROM
from CACScoringLib.scoring.uncertainty import LEVEL, LesionAmounts, ScoreErrors

SPREADS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
"""Spreads of a true score around the sum of its lesions that are tried."""

SHARPNESSES = (1.0, 1.5)
"""Weights of the lesions' log odds that are tried."""

MAX_LEVEL = 0.998
"""Highest level of intervals; few patients determine none above."""

MIN_SCORE = 10.0
"""Sum of a scan's likely lesions from which the width of its interval counts."""


def fitted_errors(
    lesions: Sequence[LesionAmounts], truths: np.ndarray, spreads: Sequence[float] = SPREADS
) -> ScoreErrors:
    """Fit the errors of scores.

    Of some spreads and sharpnesses, each with the level at which LEVEL of all true scores are held, those with the
    narrowest intervals (median) are taken.

    Args:
        lesions: Lesions of each scan with cross-fitted probabilities, [n].
        truths: True score of each scan, [n].
        spreads: Spreads that are tried.
    """
    likely = [
        sum(amount for amount, p in zip(part.amounts, part.probabilities, strict=True) if p >= COUNTS_FROM)
        for part in lesions
    ]
    fits = []
    for spread, sharpness in itertools.product(spreads, SHARPNESSES):
        fitted = ScoreErrors(spread, LEVEL, sharpness)
        distributions = [fitted.distribution(part) for part in lesions]
        places = [float(d.below(truth)[0]) for d, truth in zip(distributions, truths, strict=True)]
        needed = _conformal_quantile(np.abs(2 * np.array(places) - 1))
        level = float(np.clip(needed, 0.5, MAX_LEVEL))
        ends = [d.interval(level) for d, score in zip(distributions, likely, strict=True) if score >= MIN_SCORE]
        width = float(np.median([math.log1p(high) - math.log1p(low) for low, high in ends])) if ends else 0.0
        fits.append((needed > MAX_LEVEL, width, ScoreErrors(spread, level, sharpness)))
    return min(fits, key=lambda fit: fit[:2])[2]


def _conformal_quantile(values: np.ndarray) -> float:
    """Return the value that a further one stays below with the probability LEVEL; the highest of too few."""
    if not len(values):
        return 0.0
    return float(np.sort(values)[min(len(values), math.ceil((len(values) + 1) * LEVEL)) - 1])


def penalised_logistic(
    columns: np.ndarray,
    target: np.ndarray,
    penalty: np.ndarray,
    toward: np.ndarray,
    bounds: Sequence[tuple[float | None, float | None]] | None = None,
) -> np.ndarray:
    """Fit the weights of columns [n, columns] to the target [n] (0 or 1) by logistic regression.

    Each weight stays within its bounds, if given; its L2 penalty draws it to `toward`.
    """

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        evidence, off = columns @ weights, weights - toward
        cost = float((np.logaddexp(0, evidence) - target * evidence).sum() + penalty * off @ off / 2)
        return cost, (expit(evidence) - target) @ columns + penalty * off

    return minimize(loss, toward, jac=True, bounds=bounds).x
