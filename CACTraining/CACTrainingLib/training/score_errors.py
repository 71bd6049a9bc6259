"""Fit the errors of automatic scores to calibration patients with a known score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import expit

from CACScoringLib.scoring.uncertainty import LIMITS, ScoreErrors, difficulty

MIN_CLASS_SCANS = 40
"""Number of scans below which a class with calcium shares errors with its neighbours, lest single misses dominate."""


def fitted_errors(
    quantity: str,
    scores: np.ndarray,
    truths: np.ndarray,
    noise_hu: np.ndarray,
    thickness_mm: np.ndarray,
) -> ScoreErrors:
    """Fit the errors of cross-fitted scores; all arrays [n]."""
    errors = np.log1p(truths) - np.log1p(scores)
    usual = np.array([difficulty((0, 0), *pair) for pair in zip(noise_hu, thickness_mm, strict=True)])
    noise = np.array([difficulty((1, 0), *pair) for pair in zip(noise_hu, thickness_mm, strict=True)]) - usual
    thickness = np.array([difficulty((0, 1), *pair) for pair in zip(noise_hu, thickness_mm, strict=True)]) - usual
    informative = (truths > 0) | (scores > 0)  # a correct score of 0 does not depend on the scan
    weights = (
        nnls(np.stack([usual, noise, thickness], axis=1)[informative], np.abs(errors[informative]))[0]
        if informative.any()
        else usual[:3]
    )
    relative = [float(min(w / weights[0], 2.0)) if weights[0] > 0 else 0.0 for w in weights[1:]]
    scaled = errors / (usual + relative[0] * noise + relative[1] * thickness)
    limits = LIMITS[quantity]
    of_class = np.searchsorted(limits, truths, side="right")
    class_errors: list[tuple[float, ...]] = []
    for c in range(len(limits) + 1):
        members = _class_members(of_class, c, len(limits))
        if not (of_class == c).any():
            members = (truths >= limits[0]) & (scores >= limits[0])
        class_errors.append(tuple(np.sort(scaled[members]).round(4).tolist()))
    chances = tuple(_logistic(scores, truths >= limit) for limit in limits)
    return ScoreErrors(quantity, relative[0], relative[1], tuple(class_errors), chances)


def _class_members(of_class: np.ndarray, number: int, highest: int) -> np.ndarray:
    """Select the scans that give a class its errors, bool [n].

    While these are fewer than MIN_CLASS_SCANS, the next class above is added, or below if there is none above; never
    the class without calcium.
    """
    low = high = number
    members = of_class == number
    while number and members.sum() < MIN_CLASS_SCANS and (low, high) != (1, highest):
        low, high = (low, high + 1) if high < highest else (low - 1, high)
        members = (of_class >= low) & (of_class <= high)
    return members


def _logistic(scores: np.ndarray, reached: np.ndarray) -> tuple[float, float, float]:
    """Fit the probability of reaching a limit, with a small L2 penalty; it never falls with the score.

    Returns the weights of ln(1 + score), of a score of 0, and of 1.
    """
    columns = np.stack([np.log1p(scores), scores <= 0, np.ones(len(scores))], axis=1).astype(float)
    bounds = [(0, None), (None, 0), (None, None)]
    first, second, third = penalised_logistic(columns, reached, np.array([0.02, 0.1, 0.02]), np.zeros(3), bounds)
    return float(first), float(second), float(third)


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
