"""Correlation and regression in resamples; weights, float [resamples, items], as `bootstrap` has them."""

from __future__ import annotations

import numpy as np


def rank_correlation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation (1904, doi:10.2307/1412159) with mean ranks for ties, float [resamples].

    Args:
        weights: float [resamples, items].
        first, second: [items].
    """
    if len(first) < 2:
        return np.full(len(weights), np.nan)
    return correlation(weights, ranks(weights, first), ranks(weights, second))


def ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean rank of each item in each resample, float [resamples, items].

    Args:
        weights: float [resamples, items].
        values: [items].
    """
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(sizes, axis=1) - sizes / 2 + 0.5)[:, group]


def correlation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation, float [resamples].

    Args:
        weights: float [resamples, items].
        first, second: [items] or [resamples, items].
    """
    first, second = (_centred(weights, np.asarray(x, float)) for x in (first, second))
    covariance = np.einsum("rn,rn->r", weights, first * second)
    spread = np.sqrt(np.einsum("rn,rn->r", weights, first**2) * np.einsum("rn,rn->r", weights, second**2))
    return np.divide(covariance, spread, out=np.full(len(weights), np.nan), where=spread > 1e-12)


def linear_fit(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of the least-squares line of y on x.

    Args:
        weights: float [resamples, items].
        x, y: [items].

    Returns:
        Slope and intercept, float [resamples] each.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    total = weights.sum(1)
    off = _centred(weights, x)
    spread = np.einsum("rn,rn->r", weights, off**2)
    slope = np.einsum("rn,rn->r", weights, off * y)
    slope = np.divide(slope, spread, out=np.full(len(weights), np.nan), where=spread > 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        return slope, (weights @ y - slope * (weights @ x)) / total


def slope(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slope of `linear_fit`."""
    return linear_fit(weights, x, y)[0]


def _centred(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    total = np.maximum(weights.sum(1), 1)
    middle = np.einsum("rn,rn->r", weights, np.broadcast_to(values, weights.shape)) / total
    return values - middle[:, None]
