"""Agreement of pairs of measurements: correlation, regression, relative differences, limits of agreement, ICC, kappa.

Statistics take weights, float [resamples, items], as `bootstrap` has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from ..quality.calibration import Limits
from .bootstrap import mean, ratio

HALF_NORMAL = math.sqrt(math.pi / 2)
"""Standard deviation over mean absolute value of normal differences."""
LIMIT_FACTOR = 1.96 * HALF_NORMAL
"""95 % limit of a difference over its mean absolute value (Bland and Altman 1999, doi:10.1177/096228029900800204)."""

Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Function of weights [resamples, items], reference values [items, …] and a method's: float [resamples]."""


def relative_differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """|a − b| / mean(a, b) of each pair, 0 to 2 for scores; NaN where both are zero. first, second: [n]."""
    middle = (first + second) / 2
    return np.divide(np.abs(first - second), middle, out=np.full(len(middle), np.nan), where=middle != 0)


def mean_relative_difference(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean of `relative_differences`, a `Statistic`."""
    return mean(weights, relative_differences(first, second))


def absolute_difference_fit(
    weights: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Linear fit of |a − b| on the mean of a and b.

    Least squares (Bland and Altman 1999, section 3.2; Sevrukov 2005, doi:10.2214/AJR.04.1589); a limit of agreement at
    the level m is LIMIT_FACTOR × (intercept + slope × m). Intercept and slope are constrained to be non-negative,
    because a limit cannot be negative.

    Args:
        weights: float [resamples, items].
        first, second: Measurements [items].

    Returns:
        Intercept and slope, neither below zero, float [resamples] each.
    """
    level, size = (first + second) / 2, np.abs(first - second)
    slope, intercept = linear_fit(weights, level, size)
    through_zero = ratio(weights, level * size, level**2)
    flat = mean(weights, size)
    level_only = ~(slope >= 0)
    from_zero = ~level_only & (intercept < 0)
    slope = np.where(level_only, 0.0, np.where(from_zero, through_zero, slope))
    return np.where(level_only, flat, np.where(from_zero, 0.0, intercept)), slope


def limits_of_agreement(first: np.ndarray, second: np.ndarray, empirical: bool = False) -> Limits:
    """Limits of agreement of pairs: 95 % of differences lie within factor × (intercept + slope × mean).

    Intercept and slope are those of `absolute_difference_fit`.

    Args:
        first, second: Measurements [n].
        empirical: True to raise the factor from LIMIT_FACTOR, which holds for normal differences, to the one that
            covers 95 % of these pairs. Differences of scores are not normal (a score may be zero in one scan), and
            change must not be reported too often.
    """
    level = (first + second) / 2
    intercept, slope = (float(x[0]) for x in absolute_difference_fit(np.ones((1, len(level))), first, second))
    factor, expected = LIMIT_FACTOR, intercept + slope * level
    if empirical and expected.any():
        factor = max(factor, float(np.quantile(np.abs(first - second) / expected, 0.95, method="higher")))
    return Limits(intercept, slope, factor, len(level), float(level.max()))


def icc_of_pairs(weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """ICC: two-way random effects, absolute agreement, single measurement; float [resamples].

    ICC(2,1) of Shrout and Fleiss 1979 (doi:10.1037/0033-2909.86.2.420), ICC(A,1) of McGraw and Wong 1996.

    Args:
        weights: float [resamples, items].
        pairs: [n, k], one row per patient and one column per scan.
    """
    if not len(pairs):
        return np.full(len(weights), np.nan)
    rows, columns, residual = _mean_squares(weights, np.asarray(pairs, float))
    n, k = weights.sum(1), pairs.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        total_variance = rows + (k - 1) * residual + k * (columns - residual) / n
        # Equal scores in a resample leave only rounding errors.
        return np.where((n > 1) & (total_variance > 1e-9 * np.var(pairs)), (rows - residual) / total_variance, np.nan)


def agreement_interval(pairs: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of `icc_of_pairs` of normal values by the F distribution, NaN if all rows agree (McGraw and Wong 1996).

    Args:
        pairs: [n, k], one row per patient and one column per scan.
        level: Confidence.
    """
    (n, k), weights = pairs.shape, np.ones((1, len(pairs)))
    rows, columns, residual = (float(square[0]) for square in _mean_squares(weights, np.asarray(pairs, float)))
    value = float(icc_of_pairs(weights, pairs)[0])
    if not value < 1 or residual <= 0:
        return math.nan, math.nan
    of_columns, of_residual = k * value / (n * (1 - value)), 1 + k * value * (n - 1) / (n * (1 - value))
    parts = of_columns * columns, of_residual * residual
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (k - 1) + parts[1] ** 2 / ((n - 1) * (k - 1)))
    tail, noise = (1 + level) / 2, k * columns + (k * n - k - n) * residual
    low, high = stats.f.ppf(tail, n - 1, freedom), stats.f.ppf(tail, freedom, n - 1)
    # Of two or three rows the formula may leave the range of a correlation.
    return (
        max(-1.0, float(n * (rows - low * residual) / (low * noise + n * rows))),
        min(1.0, float(n * (high * rows - residual) / (noise + n * high * rows))),
    )


def icc(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """ICC of two measurements as by `icc_of_pairs`, a `Statistic`."""
    return icc_of_pairs(weights, np.stack([first, second], axis=1))


def _mean_squares(weights: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean squares of rows, columns and residuals, float [resamples] each."""
    n, k = weights.sum(1), pairs.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        # Around the sample's own mean, so that sums of squares lose no digits.
        pairs = pairs - pairs.mean()
        by_column = weights @ pairs / n[:, None]
        middle = by_column.mean(1)
        by_row = pairs.mean(1)
        rows = k * (weights @ by_row**2 - n * middle**2)
        columns = n * ((by_column - middle[:, None]) ** 2).sum(1)
        residual = weights @ (pairs**2).sum(1) - n * k * middle**2 - rows - columns
        return rows / (n - 1), columns / (k - 1), np.maximum(residual, 0) / ((n - 1) * (k - 1))


def kappa(weights: np.ndarray, first: np.ndarray, second: np.ndarray, classes: int, power: int = 1) -> np.ndarray:
    """Cohen's κ with linear or quadratic weights (Cohen 1968, doi:10.1037/h0026256), float [resamples].

    NaN if both raters give all items one class.

    Args:
        weights: float [resamples, items].
        first, second: int [items], classes from 0 in their order.
        classes: Number of classes.
        power: 1 for linear weights, 2 for quadratic ones, 0 for none.
    """
    cells = np.eye(classes * classes)[np.asarray(first, int) * classes + np.asarray(second, int)]
    table = (weights @ cells).reshape(-1, classes, classes)
    steps = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    distance = np.where(steps > 0, steps**power, 0)
    total = table.sum((1, 2))
    by_chance = np.einsum("ri,rj,ij->r", table.sum(2), table.sum(1), distance)
    disagreement = np.einsum("rij,ij->r", table, distance) * total
    return 1 - np.divide(disagreement, by_chance, out=np.full(len(weights), np.nan), where=by_chance > 0)


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
