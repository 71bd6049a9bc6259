"""Errors of automatic scores, learned from calibration patients whose score is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import expit

from CACScoringLib.scoring.uncertainty import LIMITS, ScoreErrors, difficulty

LEAST_OF_CLASS = 60
"""A class with calcium and fewer scans shares errors with its neighbours: one miss in ten would rule it."""


def fitted_errors(
    quantity: str,
    scores: np.ndarray,
    truths: np.ndarray,
    noise_hu: np.ndarray,
    thickness_mm: np.ndarray,
) -> ScoreErrors:
    """Errors of calibration patients' scores. All arrays [n]; scores as they are found in unseen patients."""
    errors = np.log1p(truths) - np.log1p(scores)
    usual = np.array([difficulty((0, 0), *pair) for pair in zip(noise_hu, thickness_mm, strict=True)])
    noise = np.array([difficulty((1, 0), *pair) for pair in zip(noise_hu, thickness_mm, strict=True)]) - usual
    thickness = np.array([difficulty((0, 1), *pair) for pair in zip(noise_hu, thickness_mm, strict=True)]) - usual
    informative = (truths > 0) | (scores > 0)  # that a score of 0 is right says nothing of the scan
    weights = (
        nnls(np.stack([usual, noise, thickness], axis=1)[informative], np.abs(errors[informative]))[0]
        if informative.any()
        else usual[:3]
    )
    relative = [float(min(w / weights[0], 2.0)) if weights[0] > 0 else 0.0 for w in weights[1:]]
    scaled = errors / (usual + relative[0] * noise + relative[1] * thickness)
    limits = LIMITS[quantity]
    of_class = np.searchsorted(limits, truths, side="right")
    own: list[tuple[float, ...]] = []
    for c in range(len(limits) + 1):
        chosen = _alike(of_class, c, len(limits))
        if not (of_class == c).any():
            chosen = (truths >= limits[0]) & (scores >= limits[0])
        own.append(tuple(np.sort(scaled[chosen]).round(4).tolist()))
    chances = tuple(_logistic(scores, truths >= limit) for limit in limits)
    return ScoreErrors(quantity, relative[0], relative[1], tuple(own), chances)


def _alike(of_class: np.ndarray, number: int, highest: int) -> np.ndarray:
    """Which scans a class has its errors from, bool [n]: its own, and while these are too few those of the next class
    above, or if there is none, below; never those without calcium."""
    low = high = number
    chosen = of_class == number
    while number and chosen.sum() < LEAST_OF_CLASS and (low, high) != (1, highest):
        low, high = (low, high + 1) if high < highest else (low - 1, high)
        chosen = (of_class >= low) & (of_class <= high)
    return chosen


def _logistic(scores: np.ndarray, reached: np.ndarray) -> tuple[float, float, float]:
    """Weights of ln(1 + score), of whether it is 0, and of 1, with a small L2 penalty; a higher score never speaks
    against a limit."""
    columns = np.stack([np.log1p(scores), scores <= 0, np.ones(len(scores))], axis=1).astype(float)
    bounds = [(0, None), (None, 0), (None, None)]
    first, second, third = penalised_logistic(columns, reached, np.array([0.02, 0.1, 0.02]), np.zeros(3), bounds)
    return float(first), float(second), float(third)


def penalised_logistic(
    columns: np.ndarray,
    target: np.ndarray,
    penalty: np.ndarray,
    toward: np.ndarray,
    bounds: Sequence[tuple[float | None, float | None]],
) -> np.ndarray:
    """Weights of columns [n, columns] by logistic regression, each within its bounds and drawn to `toward` by its L2
    penalty. target: [n], 0 or 1."""

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        evidence, off = columns @ weights, weights - toward
        cost = float((np.logaddexp(0, evidence) - target * evidence).sum() + penalty * off @ off / 2)
        return cost, (expit(evidence) - target) @ columns + penalty * off

    return minimize(loss, toward, jac=True, bounds=bounds).x
