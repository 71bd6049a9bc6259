"""Patients split into parts of which each has its proportion of every category of score."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

CATEGORIES = (0.0, 100.0, 400.0)
"""Scores above 0, from 100 and from 400 are categories of their own."""
CATEGORY_TITLES = ("0", "1–99", "100–399", "≥ 400")
"""By the numbers that `category_of` gives."""


def category_of(agatston: np.ndarray) -> np.ndarray:
    """Category of scores, int, of the same shape: 0; 1 above 0; 2 from 100; 3 from 400."""
    score = np.asarray(agatston, float)
    return (score > 0).astype(int) + (score >= CATEGORIES[1]) + (score >= CATEGORIES[2])


def parts_by_patient(patients: Sequence, category: np.ndarray, count: int, seed: int | None) -> np.ndarray:
    """Part of each case among `count` parts, int [n]: no patient in two, and the categories in the same proportions.

    There have to be `count` patients at least, and as many cases of one category. By scikit-learn's
    StratifiedGroupKFold.

    Args:
        patients: of the cases, [n].
        category: int [n].
        count: number of parts.
        seed: of the order; None to leave it as it is.
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
