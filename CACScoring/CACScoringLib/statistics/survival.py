"""Statistics of events over time, by SciPy and statsmodels; what the bootstrap resamples is counted here.

Kaplan–Meier with Greenwood's error and intervals on the log(−log) scale (Kalbfleisch and Prentice), the log-rank test,
Cox's hazard ratios with Efron's ties. statsmodels does not have Harrell's C.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .bootstrap import LEVEL, Estimate

MAX_LOG_HAZARD = 10.0
"""Absolute log hazard ratio above which a fit did not converge, because a group has no event."""

_CHUNK = 20_000_000
"""Number of pairs held in memory at once."""


@dataclass(frozen=True)
class StepFunction:
    """Proportion without event over time.

    Attributes:
        times: 0, and the times of events and of losses to follow-up.
        proportion: Proportion from each time on.
        low: Lower limit of the interval; NaN where the proportion is 0 or 1.
        high: Upper limit of the interval; NaN where the proportion is 0 or 1.
        n: Number of patients.
    """

    times: np.ndarray
    proportion: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int

    def at(self, time: float) -> Estimate:
        """Proportion at a time; NaN after the end of follow-up."""
        if not self.n or time > self.times[-1]:
            return Estimate(math.nan, math.nan, math.nan, self.n)
        place = int(np.searchsorted(self.times, time, "right")) - 1
        value, low, high = (float(values[place]) for values in (self.proportion, self.low, self.high))
        return Estimate(value, low, high, self.n)


def kaplan_meier(time: np.ndarray, event: np.ndarray) -> StepFunction:
    """Proportion without event over time.

    Args:
        time: from 0 up, [n].
        event: bool [n], false where lost to follow-up.
    """
    curve = stats.ecdf(stats.CensoredData.right_censored(time, ~event)).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # proportions of 0 and 1 have no interval
        interval = curve.confidence_interval(LEVEL, method="log-log")
    low, high = interval.low.probabilities, interval.high.probabilities
    starts = ((0.0, curve.quantiles), (1.0, curve.probabilities), (np.nan, low), (np.nan, high))
    times, proportion, low, high = (np.concatenate([[first], part]) for first, part in starts)
    return StepFunction(times, proportion, low, high, len(time))


def log_rank(time: np.ndarray, event: np.ndarray, group: np.ndarray) -> float | None:
    """p of the log-rank test; None for a single group or too few events.

    Args:
        time: from 0 up, [n].
        event: bool [n], false where lost to follow-up.
        group: [n].
    """
    from statsmodels.duration.survfunc import survdiff

    if len(np.unique(group)) < 2 or not event.any():
        return None
    try:
        return float(survdiff(time, event.astype(int), group)[1])
    except np.linalg.LinAlgError:  # too few events to compare so many groups
        return None


def hazard_ratios(time: np.ndarray, event: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """Cox's hazard ratio per unit of each column, all in one model.

    NaN for a column whose ratio is infinite or undefined (no patient with it had an event), and for all columns if the
    model cannot be fitted.

    Args:
        time: from 0 up, [n].
        event: bool [n], false where lost to follow-up.
        columns: [n] each.
    """
    from statsmodels.duration.hazard_regression import PHReg

    n = len(time)
    undefined = dict.fromkeys(columns, Estimate(math.nan, math.nan, math.nan, n))
    design = np.column_stack(list(columns.values())).astype(float)
    if not event.any() or np.linalg.matrix_rank(design - design.mean(0)) < design.shape[1]:
        return undefined
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ratios that did not converge are recognised by their size
            fit = PHReg(time, design, status=event.astype(int), ties="efron").fit(disp=0)
            ends = np.asarray(fit.conf_int(alpha=1 - LEVEL))
    except (np.linalg.LinAlgError, ValueError):
        return undefined
    ratios = {}
    for number, name in enumerate(columns):
        log, limits = float(fit.params[number]), ends[number]
        has_converged = abs(log) < MAX_LOG_HAZARD and (np.abs(limits) < 2 * MAX_LOG_HAZARD).all()
        value, low, high = (math.exp(v) if has_converged else math.nan for v in (log, *limits))
        ratios[name] = Estimate(value, low, high, n)
    return ratios


def concordance(weights: np.ndarray, time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """Harrell's C, float [resamples].

    A pair is a patient with an event and a patient followed longer without. C is the proportion of pairs in which the
    first has the higher risk; equal risks count half. A patient lost at the time of an event counts as followed longer;
    two events at the same time are no pair (Harrell 1996,
    10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4).

    Args:
        weights: float [resamples, n].
        time: from 0 up, [n].
        event: bool [n], false where lost to follow-up.
        risk: [n], higher for an earlier event.
    """
    won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    happened = np.flatnonzero(event)
    rows = max(1, _CHUNK // max(1, len(time)))
    for part in (happened[n : n + rows] for n in range(0, len(happened), rows)):
        later = (time[None] > time[part][:, None]) | ((time[None] == time[part][:, None]) & ~event[None])
        higher = (risk[part][:, None] > risk[None]) + 0.5 * (risk[part][:, None] == risk[None])
        won += ((weights[:, part] @ (later * higher)) * weights).sum(1)
        pairs += ((weights[:, part] @ later.astype(float)) * weights).sum(1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
