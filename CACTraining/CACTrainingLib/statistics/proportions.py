"""Comparing proportions: of two groups of patients, and of two methods on the same ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .bootstrap import Difference, Found, paired_difference


def difference_of_proportions(found: Found, other: Found) -> Difference:
    """Of the proportions of two groups of different patients.

    Where all or none of a group are hits, each of its resamples gives the same value; then the interval is Newcombe's
    (1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I) and p is Fisher's exact one, both with
    each patient counted once.

    Args:
        found, other: proportions of two groups of different patients.
    """
    change = paired_difference(found, other)
    if (found.exact is None and other.exact is None) or not (found.patients and other.patients):
        return change
    from scipy.stats import fisher_exact
    from statsmodels.stats.proportion import confint_proportions_2indep

    sizes = found.patients, other.patients
    hits = [round(float(one.values[0]) * size) for one, size in zip((found, other), sizes, strict=True)]
    low, high = confint_proportions_2indep(hits[0], sizes[0], hits[1], sizes[1], method="newcomb")
    p = fisher_exact([[hit, size - hit] for hit, size in zip(hits, sizes, strict=True)]).pvalue
    return Difference(replace(change.estimate, low=float(low), high=float(high)), float(p))


def mcnemar_p(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p of two methods being right equally often on the same scans (McNemar 1947), by statsmodels.

    Args:
        first, second: whether each was right, bool [n].
    """
    from statsmodels.stats.contingency_tables import mcnemar

    table = [[int((first == a)[second == b].sum()) for b in (True, False)] for a in (True, False)]
    return float(mcnemar(table, exact=True).pvalue)
