"""How well logits tell scores above thresholds: areas under the ROC curve, with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .regression import ranks

_CHUNK = 4_000_000
"""Weights held at once where items are many."""


def above(scores: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Which scores [n] are above thresholds: float32 0 or 1, [n, thresholds]. Above 0 is more than 0, else at least.

    Args:
        scores: [n].
        thresholds: of the score.
    """
    scores, limits = np.asarray(scores)[:, None], np.asarray(thresholds)[None]
    return np.where(limits == 0, scores > 0, scores >= limits).astype(np.float32)


def area_name(threshold: float) -> str:
    """Of a threshold's area under the ROC curve, among metrics."""
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
    areas = []
    rows = max(1, _CHUNK // len(truth))
    for part in (weights[n : n + rows] for n in range(0, len(weights), rows)):
        positive = (part * truth).sum(1)
        negative = part.sum(1) - positive
        wins = (part * truth * ranks(part, scores)).sum(1) - positive * (positive + 1) / 2
        pairs = positive * negative
        areas.append(np.divide(wins, pairs, out=np.full(len(part), np.nan), where=pairs > 0))
    return np.concatenate(areas)


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


def area_interval(values: np.ndarray, positive: np.ndarray, seed: int, draws: int = 1000) -> tuple[float, float]:
    """Central 95 % of the area over resamples of the patients; NaN where one class is missing.

    Positives and negatives are each drawn anew, so that none is ever missing.

    Args:
        values: [n].
        positive: bool [n].
        seed: of the draws.
        draws: number of resamples.

    Returns:
        Low and high end of the interval.
    """
    positive = np.asarray(positive, bool)
    parts = np.nonzero(positive)[0], np.nonzero(~positive)[0]
    if not all(map(len, parts)):
        return float("nan"), float("nan")
    generator = np.random.default_rng([seed, 5])
    drawn = [np.concatenate([generator.choice(part, len(part)) for part in parts]) for _ in range(draws)]
    weights = np.stack([np.bincount(one, minlength=len(values)) for one in drawn]).astype(float)
    low, high = np.percentile(area_under_curve(weights, positive, values), [2.5, 97.5])
    return float(low), float(high)


_MOST_PAIRS = 4_000_000
"""Of a fold, that are looked at one by one."""


def area_within(weights: np.ndarray, folds: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of pairs within a fold, float [resamples].

    Args:
        weights: float [resamples, items].
        folds: int [items].
        truth: bool [items].
        scores: [items].
    """
    won = np.zeros(len(weights))
    pairs = np.zeros(len(weights))
    for fold in np.unique(folds):
        own, other = (np.flatnonzero((folds == fold) & (truth == sign)) for sign in (True, False))
        if not (own.size and other.size):
            continue
        count = weights[:, own].sum(1) * weights[:, other].sum(1)
        pairs += count
        if own.size * other.size > _MOST_PAIRS:
            both = np.concatenate([own, other])
            won += count * np.nan_to_num(area_under_curve(weights[:, both], truth[both], scores[both]))
            continue
        # Who wins against whom is the same in every resample, so that it is looked at once.
        first, second = scores[own][:, None], scores[other][None]
        wins = (first > second) + 0.5 * (first == second)
        won += ((weights[:, own] @ wins) * weights[:, other]).sum(1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
