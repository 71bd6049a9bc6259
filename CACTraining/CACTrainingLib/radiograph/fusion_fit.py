"""Calibration of a radiograph model, and its fusion with clinical factors, from few patients.

Of each threshold three logistic models are fitted: of the factors alone, on the training patients; of the image's
logit, on the validation patients, whom the network has not learned from (Platt 1999); and of both together, on these
too. The first model's coefficients are held near 0, the other two's near 1, where both simply add; how strongly, is as
if so many patients had said so. What is stored is the sum, `CACScoringLib.networks.radiograph_fusion`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize

from CACScoringLib.networks.radiograph_fusion import FACTORS, factors_key, image_key

from ..statistics.roc import above

LEAST_PATIENTS = 20
"""With all factors known, on either side, for these to be used."""

_MIDDLE, _STEP = np.array([60.0, 0.5, 27.0]), np.array([10.0, 0.5, 5.0])
"""About the mean and standard deviation of FACTORS, so that all coefficients are held alike."""

_HOLD_FACTORS, _HOLD_IMAGE, _HOLD_BOTH, _HOLD_OFFSET = 1.0, 1.0, 4.0, 0.01


def fitted_calibration(
    thresholds: Sequence[float],
    training_scores: np.ndarray,
    training_factors: np.ndarray,
    logits: np.ndarray,
    scores: np.ndarray,
    factors: np.ndarray,
) -> dict[str, dict[str, float] | None]:
    """The card's `calibration`. logits: [n, thresholds], scores: [n] and factors: [n, 3] of the validation patients."""
    calibration: dict[str, dict[str, float] | None] = {}
    truth, training_truth = above(scores, thresholds), above(training_scores, thresholds)
    known, training_known = ~np.isnan(factors).any(1), ~np.isnan(training_factors).any(1)
    enough = min(known.sum(), training_known.sum()) >= LEAST_PATIENTS
    for number, threshold in enumerate(thresholds):
        logit, positive = logits[:, number], truth[:, number]
        offset, slope = held_logistic(logit[:, None], positive, [1.0], _HOLD_IMAGE)
        calibration[image_key(threshold)] = {"offset": offset, "logit": slope}
        if not enough:
            calibration[factors_key(threshold)] = None
            continue
        alone = held_logistic(
            _standard(training_factors[training_known]), training_truth[training_known, number], [0] * 3, _HOLD_FACTORS
        )
        # Of the factors, what they tell beyond how common the score is; that is in the image's offset already.
        told = _standard(factors) @ alone[1:]
        both = np.stack([offset + slope * logit, told], 1)
        base, image_part, factors_part = held_logistic(both[known], positive[known], [1.0, 1.0], _HOLD_BOTH)
        per_unit = factors_part * alone[1:] / _STEP
        calibration[factors_key(threshold)] = {
            "offset": float(base + image_part * offset - per_unit @ _MIDDLE),
            "logit": float(image_part * slope),
            **dict(zip(FACTORS, map(float, per_unit), strict=True)),
        }
    return calibration


def held_logistic(x: np.ndarray, y: np.ndarray, near: Sequence[float], hold: float) -> np.ndarray:
    """Offset and coefficients of the logistic model of y [n] by x [n, k], held near given ones by a Gaussian prior.

    hold: the prior's precision. The offset is hardly held; enough to be finite where all y are the same.
    """
    design = np.column_stack([np.ones(len(x)), x]).astype(float)
    middle = np.array([0.0, *near])
    precision = np.array([_HOLD_OFFSET, *[hold] * len(near)])

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        z = design @ b
        value = np.logaddexp(0, z).sum() - y @ z + 0.5 * precision @ (b - middle) ** 2
        return value, design.T @ (1 / (1 + np.exp(-np.clip(z, -50, 50))) - y) + precision * (b - middle)

    found = optimize.minimize(loss, middle, jac=True, method="BFGS")
    return np.array([float(b) if math.isfinite(b) else 0.0 for b in found.x])


def _standard(factors: np.ndarray) -> np.ndarray:
    return (factors - _MIDDLE) / _STEP
