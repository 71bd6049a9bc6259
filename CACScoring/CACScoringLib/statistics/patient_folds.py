"""Splits of patients into parts with the same proportions of score categories."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence

import numpy as np

CATEGORY_LIMITS = (0.0, 100.0, 400.0)
"""Agatston scores at which categories begin: above 0, from 100, from 400."""


def parts_by_patient(
    patients: Sequence[Hashable] | np.ndarray, category: np.ndarray, count: int, seed: int | None
) -> np.ndarray:
    """Assign each case to one of `count` parts, int [n], by scikit-learn's StratifiedGroupKFold.

    No patient is in two parts, and all parts have the same proportions of categories. Needs at least `count` patients,
    and as many cases of one category.

    Args:
        patients: Patient of each case, [n].
        category: int [n].
        count: Number of parts.
        seed: Seed of the order; None to keep it.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    parts = np.zeros(len(patients), int)
    splitter = StratifiedGroupKFold(count, shuffle=seed is not None, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a category has fewer patients than there are parts
        split = list(splitter.split(parts, category, np.asarray(patients)))
    for number, (_, inside) in enumerate(split):
        parts[inside] = number
    return parts
