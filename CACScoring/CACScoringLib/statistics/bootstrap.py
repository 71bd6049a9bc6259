"""The bootstrap over patients: numbers with their intervals, and paired differences.

A patient's scans are not independent, so whole patients are drawn with replacement (Efron and Tibshirani 1993). Drawing
a patient twice is the same as giving it the weight two; every statistic here therefore takes weights, float [resamples,
items], and returns a value per resample at once. The first resample is the sample itself (all weights one), so it holds
the statistic's value. With weights of one each formula is the textbook's, and the tests hold it against statsmodels,
scikit-learn, SciPy and published worked examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95
MIN_PATIENTS = 5
"""Fewest patients for an interval; fewer allow too few different resamples."""


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
        """Form in a model's card: "estimate", "low" and "high", with NaN as null."""
        values = {"estimate": self.value, "low": self.low, "high": self.high}
        return {name: round(float(value), 4) if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class PairedDifference:
    """One method minus another on the same scans, with its two-sided bootstrap p (`p_value`)."""

    estimate: Estimate
    p: float


@dataclass(frozen=True)
class BootstrapResult:
    """A measure in resamples.

    Attributes:
        values: float [1 + resamples]; the first is the sample's value.
        n: Number of items.
        patients: Number of patients.
        exact: Estimate with the exact interval, if all or no items are hits and resamples give none.
    """

    values: np.ndarray
    n: int
    patients: int
    exact: Estimate | None = None

    @property
    def estimate(self) -> Estimate:
        return self.exact or estimate(self.values, self.n, self.patients)

    def exact_where_certain(self) -> BootstrapResult:
        """Add the exact interval to a proportion if all or no items are hits."""
        if not self.n or self.values[0] not in (0, 1):
            return self
        return replace(self, exact=exact_proportion(bool(self.values[0]), self.n, self.patients))


class Bootstrap:
    """Resamples of patients, held as the number of times that each was drawn.

    Args:
        patients: All patients of a study; names may repeat.
        generator: Source of the draws; the same seed gives the same draws.
    """

    def __init__(self, patients: Sequence[Hashable] | np.ndarray, generator: np.random.Generator) -> None:
        names = list(dict.fromkeys(patients))
        self._place = {name: n for n, name in enumerate(names)}
        self._counts = np.ones((1 + RESAMPLES, len(names)))
        if names:
            self._counts[1:] = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)

    def result(
        self, statistic: Callable[[np.ndarray], np.ndarray], patients: Sequence[Hashable] | np.ndarray
    ) -> BootstrapResult:
        """Compute a statistic of items in all resamples, in chunks.

        Args:
            statistic: Function of weights, float [resamples, items].
            patients: Patient of each item.
        """
        place = [self._place[name] for name in patients]
        rows = max(1, _CHUNK // max(1, len(place)))
        parts = (self._counts[n : n + rows][:, place] for n in range(0, len(self._counts), rows))
        return BootstrapResult(np.concatenate([statistic(part) for part in parts]), len(place), len(set(patients)))

    def proportion(self, patients: Sequence[Hashable] | np.ndarray, hits: np.ndarray) -> BootstrapResult:
        """Proportion of hits among items; its interval is exact (`exact_proportion`) if all or none are hits.

        Args:
            patients: Patient of each item.
            hits: bool [items].
        """
        return self.result(partial(mean, values=np.asarray(hits, float)), patients).exact_where_certain()


_CHUNK = 4_000_000
"""Number of weights held in memory at once."""


def patient_estimate(
    statistic: Callable[[np.ndarray], np.ndarray], patients: Sequence[Hashable] | np.ndarray, seed: int = 0
) -> Estimate:
    """Statistic of items with its interval.

    Args:
        statistic: Function of weights, float [resamples, items].
        patients: Patient of each item.
        seed: Seed of the draws.
    """
    return Bootstrap(patients, np.random.default_rng(seed)).result(statistic, patients).estimate


def patient_mean(values: Sequence[tuple[Hashable, float]], seed: int = 0) -> Estimate:
    """Mean with its interval of (patient, value) pairs; NaN without any."""
    if not values:
        return Estimate(math.nan, math.nan, math.nan, 0)
    patients, items = zip(*values, strict=True)
    return patient_estimate(partial(mean, values=np.array(items)), patients, seed)


def estimate(values: np.ndarray, n: int, patients: int) -> Estimate:
    """A statistic's value with its percentile interval (Efron and Tibshirani 1993, chapter 13.3).

    Resamples with an undefined statistic are left out. There is no interval if those are more than half, or if there
    are fewer than MIN_PATIENTS patients.

    Args:
        values: float [1 + resamples]; the first is the sample's value.
        n: number of items.
        patients: number of patients.
    """
    value, resampled = float(values[0]), values[1:]
    resampled = resampled[np.isfinite(resampled)]
    if not math.isfinite(value) or patients < MIN_PATIENTS or 2 * len(resampled) < len(values) - 1:
        return Estimate(value, math.nan, math.nan, n)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(resampled, (tail, 100 - tail))
    return Estimate(value, float(low), float(high), n)


def exact_proportion(hits: bool, n: int, patients: int) -> Estimate:
    """The proportion 1 (hits) or 0 of n items with its exact binomial interval, each patient counted once.

    Clopper and Pearson 1934 (doi:10.1093/biomet/26.4.404), by SciPy.

    Args:
        hits: True if all items are hits, False if none is.
        n: number of items.
        patients: number of patients.
    """
    interval = stats.binomtest(patients if hits else 0, patients).proportion_ci(LEVEL, "exact")
    return Estimate(float(hits), float(interval.low), float(interval.high), n)


def p_value(values: np.ndarray) -> float:
    """Two-sided p of a difference being zero: twice the proportion of resamples beyond zero, ties counted.

    Never below 2 / (resamples + 1); NaN if the difference is not defined; below 0.05 where the percentile interval
    excludes zero (Efron and Tibshirani 1993, chapter 15.4). Values as for `estimate`.
    """
    resampled = values[1:][np.isfinite(values[1:])]
    if not math.isfinite(values[0]) or 2 * len(resampled) < len(values) - 1:
        return math.nan
    below, above = (resampled <= 0).sum(), (resampled >= 0).sum()
    return float(min(1.0, 2 * (1 + min(below, above)) / (1 + len(resampled))))


def paired_difference(first: BootstrapResult, second: BootstrapResult) -> PairedDifference:
    """The first measure minus the second.

    Args:
        first, second: measures in the same resamples, or in resamples of groups that share no patient.
    """
    change = first.values - second.values
    result = estimate(change, min(first.n, second.n), min(first.patients, second.patients))
    return PairedDifference(result, math.nan if math.isnan(result.low) else p_value(change))


def ratio(weights: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Ratio of weighted sums, float [resamples]; NaN where the denominator is 0.

    Args:
        weights: float [resamples, items].
        numerator, denominator: [items].
    """
    top, bottom = weights @ np.asarray(numerator, float), weights @ np.asarray(denominator, float)
    return np.divide(top, bottom, out=np.full(len(weights), np.nan), where=bottom != 0)


def mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean, float [resamples].

    Args:
        weights: float [resamples, items].
        values: [items].
    """
    return ratio(weights, values, np.ones(len(values)))
