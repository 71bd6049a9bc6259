"""Discrimination of logits at thresholds: areas under the ROC curve, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .agreement import ranks


def above(scores: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Indicators of scores that reach thresholds: float32 0 or 1, [n, thresholds].

    Args:
        scores: [n].
        thresholds: Scores to reach; the threshold 0 has to be exceeded.
    """
    scores, limits = np.asarray(scores)[:, None], np.asarray(thresholds)[None]
    return np.where(limits == 0, scores > 0, scores >= limits).astype(np.float32)


def area_name(threshold: float) -> str:
    """Name of a threshold's area under the ROC curve."""
    return "auc_above_0" if threshold == 0 else f"auc_from_{threshold:g}"


def area_under_curve(weights: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, float [resamples]; ties count half.

    By the sum of the positives' ranks (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747).

    Args:
        weights: float [resamples, items].
        truth: bool [items].
        scores: float [items].
    """
    truth = np.asarray(truth, bool)
    if not len(truth):
        return np.full(len(weights), np.nan)
    positive = weights @ truth
    pairs = positive * (weights.sum(1) - positive)
    wins = np.einsum("rn,rn->r", weights * truth, ranks(weights, scores)) - positive * (positive + 1) / 2
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def area(values: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve; NaN where one class is missing.

    Args:
        values: [n].
        positive: bool [n].
    """
    return float(area_under_curve(np.ones((1, len(values))), positive, values)[0])


def areas(values: np.ndarray, scores: np.ndarray, thresholds: Sequence[float]) -> dict[str, float]:
    """Area for each threshold by `area_name`.

    Args:
        values: logits or probabilities, [n, thresholds].
        scores: [n].
        thresholds: of the score.
    """
    truth = above(scores, thresholds)
    return {area_name(t): area(values[:, k], truth[:, k]) for k, t in enumerate(thresholds)}


AREA, CORRELATION, NORMAL = 0.754, 0.5, 2.8016
"""Expected area (that of Saeed et al. 2025), correlation of two models' areas on the same patients, and sum of the
normal quantiles of a two-sided 5 % level and of a power of 80 %."""


def least_difference(positive: int, negative: int) -> float:
    """Return the least difference in area of two models on the same patients that is shown with a power of 80 %.

    By the standard error of an area (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747) and that of the
    difference of two correlated ones (1983, doi:10.1148/radiology.148.3.6878708). NaN if a class has no patient.
    """
    if not positive * negative:
        return math.nan
    square = AREA**2
    of_positive, of_negative = AREA / (2 - AREA) - square, 2 * square / (1 + AREA) - square
    pairs = AREA * (1 - AREA) + (positive - 1) * of_positive + (negative - 1) * of_negative
    variance = pairs / (positive * negative)
    return NORMAL * math.sqrt(2 * (1 - CORRELATION) * variance)


def threshold_at(negative: np.ndarray, most_false: float) -> float:
    """Return the lowest threshold, 0 to 1, that at most the proportion `most_false` of the negatives reaches."""
    ordered = np.sort(negative)[::-1]
    allowed = int(most_false * len(ordered))
    return float(min(1.0, np.nextafter(ordered[allowed], ordered.dtype.type(2)))) if allowed < len(ordered) else 0.0
