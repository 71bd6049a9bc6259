"""The statistics of scan pairs: numbers with their intervals, by a bootstrap over patients.

A patient's scans are not independent, so whole patients are drawn with replacement. Drawing a patient twice is the same
as giving it the weight two; every statistic here therefore takes weights, float [resamples, items], and returns a value
per resample at once. The first resample is the sample itself (all weights one), so it holds the statistic's value.
With weights of one each formula is the textbook's, and the tests hold it against pingouin, statsmodels, scikit-learn,
SciPy and published worked examples. Where patients are the unit and one value is wanted, `agreement_estimate` and
`kappa_estimate` give the libraries' own values and intervals.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95
LEAST_PATIENTS = 5
"""With fewer patients there is no interval: too few different samples can be drawn from them."""
HALF_NORMAL = math.sqrt(math.pi / 2)
"""Standard deviation over mean absolute value of normal differences."""
LIMIT_FACTOR = 1.96 * HALF_NORMAL
"""95 % limit of a difference over its mean absolute value (Bland and Altman 1999, doi:10.1177/096228029900800204)."""

MOST_STEPS = 30
"""Of Newton's method in the logistic regression; far fewer are needed but where size tells all apart."""
_CHUNK = 4_000_000
"""Weights held at once where items are many."""


@dataclass(frozen=True)
class Estimate:
    """A number from a sample of n, with its 95 % interval; low and high are NaN where no interval exists."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3g} (n = {self.n})"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] (n = {self.n})"

    def as_json(self) -> dict[str, float | None]:
        """For a model's card: "estimate", "low" and "high", what is no number as null."""
        values = {"estimate": self.value, "low": self.low, "high": self.high}
        return {name: round(float(value), 4) if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class Difference:
    """Of one method less another, on the same scans. p: two-sided, by the bootstrap (`p_value`)."""

    estimate: Estimate
    p: float


class Bootstrap:
    """Resamples of patients: how often each was drawn.

    patients: all of a study; names may repeat. generator: the source of the draws; the same seed gives the same draws.
    """

    def __init__(
        self, patients: Sequence[Hashable], generator: np.random.Generator, resamples: int = RESAMPLES
    ) -> None:
        names = list(dict.fromkeys(patients))
        self._place = {name: n for n, name in enumerate(names)}
        self._counts = np.ones((1 + resamples, len(names)))
        if names:
            self._counts[1:] = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)

    def weights(self, patients: Sequence[Hashable]) -> np.ndarray:
        """How often each item counts: float [1 + resamples, items]. patients: whose each item is."""
        return self._counts[:, [self._place[name] for name in patients]]

    def share(self, patients: Sequence[Hashable], hits: np.ndarray, of: np.ndarray | None = None) -> Estimate:
        """Share of hits among some items, n of them.

        hits, of: bool [items]; of all items when `of` is None. Where all or none are hits, every resample says the
        same; then the interval is the exact binomial one (Clopper and Pearson 1934) with each patient counted once.
        """
        of = np.ones(len(hits), bool) if of is None else np.asarray(of, bool)
        hits = np.asarray(hits, bool) & of
        n = int(of.sum())
        own = [name for name, counts in zip(patients, of, strict=True) if counts]
        clusters = len(set(own))
        if n and hits.sum() in (0, n):
            exact = stats.binomtest(clusters if hits.any() else 0, clusters).proportion_ci(LEVEL, "exact")
            return Estimate(float(hits.any()), float(exact.low), float(exact.high), n)
        return estimate(ratio(self.weights(own), hits[of], np.ones(n)), n, clusters)


def estimate(values: np.ndarray, n: int, patients: int) -> Estimate:
    """A statistic's value with its percentile interval.

    values: float [1 + resamples], first that of the sample. Resamples for which the statistic is not defined are left
    out; where those are more than half, or there are fewer than LEAST_PATIENTS patients, there is no interval.
    """
    value, drawn = float(values[0]), values[1:]
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or patients < LEAST_PATIENTS or 2 * len(drawn) < len(values) - 1:
        return Estimate(value, math.nan, math.nan, n)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, (tail, 100 - tail))
    return Estimate(value, float(low), float(high), n)


def p_value(values: np.ndarray) -> float:
    """Two-sided p of a difference being zero: twice the share of resamples on the other side of zero, ties counted.

    values: as for `estimate`. Never below 2 / (resamples + 1); NaN where the difference is not defined. It is below
    0.05 where the percentile interval leaves zero out (Efron and Tibshirani 1993, chapter 15.4).
    """
    drawn = values[1:][np.isfinite(values[1:])]
    if not math.isfinite(values[0]) or 2 * len(drawn) < len(values) - 1:
        return math.nan
    below, above = (drawn <= 0).sum(), (drawn >= 0).sum()
    return float(min(1.0, 2 * (1 + min(below, above)) / (1 + len(drawn))))


def difference(first: np.ndarray, second: np.ndarray, n: int, patients: int) -> Difference:
    """The first statistic less the second, of the same resamples; float [1 + resamples] each."""
    change = first - second
    result = estimate(change, n, patients)
    return Difference(result, math.nan if math.isnan(result.low) else p_value(change))


def ratio(weights: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Sum over sum, float [resamples]; NaN where the denominator's is 0. numerator, denominator: [items]."""
    top, bottom = weights @ np.asarray(numerator, float), weights @ np.asarray(denominator, float)
    return np.divide(top, bottom, out=np.full(len(weights), np.nan), where=bottom != 0)


def mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean, float [resamples]. values: [items]."""
    return ratio(weights, values, np.ones(len(values)))


def quantile(weights: np.ndarray, values: np.ndarray, share: float) -> np.ndarray:
    """Quantile by linear interpolation between order statistics, as NumPy's default; float [resamples]."""
    if not len(values):
        return np.full(len(weights), np.nan)
    order = np.argsort(values, kind="stable")
    ordered, reached = np.asarray(values, float)[order], np.cumsum(weights[:, order], axis=1)
    place = share * (reached[:, -1] - 1)
    low, high = ordered[_nth(reached, np.floor(place))], ordered[_nth(reached, np.ceil(place))]
    found = low + (high - low) * (place - np.floor(place))
    return np.where(reached[:, -1] > 0, found, np.nan)


def _nth(reached: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Index of the item that holds the place (from 0) when each is repeated by its weight."""
    return np.minimum((reached <= place[:, None]).sum(1), reached.shape[1] - 1)


def relative_differences(pairs: np.ndarray) -> np.ndarray:
    """|a − b| / mean(a, b) of each pair, 0 to 2 for scores; NaN where both are zero. pairs: [n, 2]."""
    middle = pairs.mean(1)
    return np.divide(np.abs(pairs[:, 0] - pairs[:, 1]), middle, out=np.full(len(pairs), np.nan), where=middle != 0)


def rank_correlation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation with mean ranks for ties, float [resamples]. first, second: [items]."""
    if len(first) < 2:
        return np.full(len(weights), np.nan)
    return correlation(weights, _ranks(weights, first), _ranks(weights, second))


def _ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean rank of each item in each resample, float [resamples, items]."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(sizes, axis=1) - sizes / 2 + 0.5)[:, group]


def correlation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation, float [resamples]. first, second: [items] or [resamples, items]."""
    first, second = (_centred(weights, np.asarray(x, float)) for x in (first, second))
    both = np.einsum("rn,rn->r", weights, first * second)
    spread = np.sqrt(np.einsum("rn,rn->r", weights, first**2) * np.einsum("rn,rn->r", weights, second**2))
    return np.divide(both, spread, out=np.full(len(weights), np.nan), where=spread > 1e-12)


def line(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of the least-squares line of y on x, float [resamples] each. x, y: [items]."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    total = weights.sum(1)
    off = _centred(weights, x)
    spread = np.einsum("rn,rn->r", weights, off**2)
    slope = np.einsum("rn,rn->r", weights, off * y)
    slope = np.divide(slope, spread, out=np.full(len(weights), np.nan), where=spread > 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        return slope, (weights @ y - slope * (weights @ x)) / total


def _centred(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    total = np.maximum(weights.sum(1), 1)
    middle = np.einsum("rn,rn->r", weights, np.broadcast_to(values, weights.shape)) / total
    return values - middle[:, None]


def absolute_difference_line(weights: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How |a − b| grows with the mean of a and b: intercept and slope, neither below zero; float [resamples] each.

    Least squares (Bland and Altman 1999, section 3.2; Sevrukov 2005, doi:10.2214/AJR.04.1589); a limit of agreement at
    the level m is LIMIT_FACTOR × (intercept + slope × m). Where the plain line would start or fall below zero, it is
    the best one that does not, because a limit cannot be negative. pairs: [n, 2].
    """
    level, size = pairs.mean(1), np.abs(pairs[:, 0] - pairs[:, 1])
    slope, intercept = line(weights, level, size)
    through_zero = ratio(weights, level * size, level**2)
    flat = mean(weights, size)
    level_only = ~(slope >= 0)
    from_zero = ~level_only & (intercept < 0)
    slope = np.where(level_only, 0.0, np.where(from_zero, through_zero, slope))
    return np.where(level_only, flat, np.where(from_zero, 0.0, intercept)), slope


def agreement(weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """ICC: two-way random effects, absolute agreement, single measurement; float [resamples].

    ICC(2,1) of Shrout and Fleiss 1979 (doi:10.1037/0033-2909.86.2.420), ICC(A,1) of McGraw and Wong 1996.
    pairs: [n, k], one row per patient and one column per scan.
    """
    if not len(pairs):
        return np.full(len(weights), np.nan)
    rows, columns, rest = _mean_squares(weights, np.asarray(pairs, float))
    n, k = weights.sum(1), pairs.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = rows + (k - 1) * rest + k * (columns - rest) / n
        # Where all scores drawn are the same, only rounding is left.
        return np.where((n > 1) & (whole > 1e-9 * np.var(pairs)), (rows - rest) / whole, np.nan)


def agreement_estimate(pairs: np.ndarray) -> Estimate:
    """`agreement` of a sample with its interval for normal scores, by pingouin (two decimals), as publications have it.

    Scores are anything but normal: the bootstrap's interval is to be trusted more. pairs: [n, k].
    """
    n, k = pairs.shape
    if n < LEAST_PATIENTS or not np.ptp(pairs, axis=1).any():
        return Estimate(float(agreement(np.ones((1, n)), pairs)[0]), math.nan, math.nan, n)
    import pandas
    import pingouin

    columns = {"patient": np.repeat(np.arange(n), k), "scan": np.tile(np.arange(k), n), "score": np.ravel(pairs)}
    with np.errstate(all="ignore"):  # it computes five other coefficients too, which may not exist
        found = pingouin.intraclass_corr(pandas.DataFrame(columns), "patient", "scan", "score")
    # Versions before 0.7 (those for Python 3.10) name it otherwise, and the interval too.
    own = found[found["Type"].isin(["ICC2", "ICC(A,1)"])].iloc[0]
    low, high = own["CI95"] if "CI95" in own else own["CI95%"]
    return Estimate(float(own["ICC"]), float(low), float(high), n)


def _mean_squares(weights: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of rows, of columns and of the rest, float [resamples] each."""
    n, k = weights.sum(1), pairs.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        # Around the sample's own mean, so that sums of squares lose no digits.
        pairs = pairs - pairs.mean()
        by_column = weights @ pairs / n[:, None]
        middle = by_column.mean(1)
        by_row = pairs.mean(1)
        rows = k * (weights @ by_row**2 - n * middle**2)
        columns = n * ((by_column - middle[:, None]) ** 2).sum(1)
        rest = weights @ (pairs**2).sum(1) - n * k * middle**2 - rows - columns
        return rows / (n - 1), columns / (k - 1), np.maximum(rest, 0) / ((n - 1) * (k - 1))


def kappa(weights: np.ndarray, first: np.ndarray, second: np.ndarray, classes: int) -> np.ndarray:
    """Cohen's κ with linear weights (Cohen 1968, doi:10.1037/h0026256), float [resamples].

    first, second: int [items], classes from 0 in their order. NaN where all are of one class in both.
    """
    cells = np.eye(classes * classes)[np.asarray(first, int) * classes + np.asarray(second, int)]
    table = (weights @ cells).reshape(-1, classes, classes)
    distance = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    total = table.sum((1, 2))
    by_chance = np.einsum("ri,rj,ij->r", table.sum(2), table.sum(1), distance)
    found = np.einsum("rij,ij->r", table, distance) * total
    return 1 - np.divide(found, by_chance, out=np.full(len(weights), np.nan), where=by_chance > 0)


def kappa_estimate(first: np.ndarray, second: np.ndarray, classes: int) -> Estimate:
    """`kappa` of a sample with its asymptotic interval, by statsmodels. first, second: int [n]."""
    table = np.zeros((classes, classes), int)
    np.add.at(table, (first, second), 1)
    if len(np.unique(np.concatenate([first, second]))) < 2:
        return Estimate(math.nan, math.nan, math.nan, len(first))
    from statsmodels.stats.inter_rater import cohens_kappa

    with np.errstate(all="ignore"):  # its test against zero may not exist
        found = cohens_kappa(table, wt="linear")
    if not found.std_kappa > 0:
        return Estimate(float(found.kappa), math.nan, math.nan, len(first))
    return Estimate(float(found.kappa), float(found.kappa_low), float(found.kappa_upp), len(first))


def area_under_curve(weights: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, float [resamples]; ties count half. truth: bool [items], scores: float [items]."""
    truth = np.asarray(truth, bool)
    if not len(truth):
        return np.full(len(weights), np.nan)
    areas = []
    rows = max(1, _CHUNK // len(truth))
    for part in (weights[n : n + rows] for n in range(0, len(weights), rows)):
        positive = (part * truth).sum(1)
        negative = part.sum(1) - positive
        wins = (part * truth * _ranks(part, scores)).sum(1) - positive * (positive + 1) / 2
        pairs = positive * negative
        areas.append(np.divide(wins, pairs, out=np.full(len(part), np.nan), where=pairs > 0))
    return np.concatenate(areas)


def half_found(weights: np.ndarray, sizes: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Size at which half are found, by logistic regression of found on the logarithm of size; float [resamples].

    sizes: [items], above 0. found: bool [items]. NaN where that lies outside the sizes seen, or larger ones are not
    found more often.
    """
    if len(sizes) < 2 or sizes.min() == sizes.max():
        return np.full(len(weights), np.nan)
    x = np.log(np.asarray(sizes, float))
    middle, spread = x.mean(), x.std()
    design = np.stack([np.ones(len(x)), (x - middle) / spread], axis=1)
    y = np.asarray(found, float)
    coefficients = np.zeros((len(weights), 2))
    # A slight penalty on the slope keeps it finite where size tells both apart without error.
    penalty = np.diag([1e-6, 1e-2])
    for _ in range(MOST_STEPS):
        p = 1 / (1 + np.exp(-np.clip(coefficients @ design.T, -30, 30)))
        gradient = (weights * (y - p)) @ design - coefficients @ penalty
        curvature = np.einsum("rn,na,nb->rab", weights * p * (1 - p), design, design, optimize=True) + penalty
        step = np.clip(np.linalg.solve(curvature, gradient[..., None])[..., 0], -2, 2)
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-6:
            break
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        half = np.exp(middle - spread * coefficients[:, 0] / coefficients[:, 1])
    seen = (half >= sizes.min()) & (half <= sizes.max()) & (coefficients[:, 1] > 0)
    return np.where(seen, half, np.nan)
