"""Categories of Agatston scores, read from a score as it is printed: rounded to a whole number, above 0 at least 1.

All that states, counts or compares categories asks these functions, so that no two places state two for one score.
"""

from __future__ import annotations

import math

import numpy as np

CATEGORIES = ("0", "1-99", "100-399", "400+")
"""Categories as results have them."""

CATEGORY_TITLES = ("0", "1–99", "100–399", "≥ 400")
"""Titles of CATEGORIES in tables."""

LIMITS = (1.0, 100.0, 400.0)
"""Printed scores at which the categories above 0 begin."""


def whole_scores(agatston: np.ndarray) -> np.ndarray:
    """Return scores as they are printed, whole numbers as float, of the same shape; negative estimates count as 0."""
    score = np.asarray(agatston, float)
    return np.where(score > 0, np.maximum(np.floor(score + 0.5), 1.0), 0.0)


def whole_score(agatston: float) -> int:
    """Return a score as it is printed. Raises ValueError for one that is negative or not finite."""
    if not (agatston >= 0 and math.isfinite(agatston)):
        raise ValueError(f"an Agatston score is a number from 0 up, not {agatston}")
    return int(whole_scores(np.array(agatston)))


def category_numbers(agatston: np.ndarray) -> np.ndarray:
    """Return the place of each score's category in CATEGORIES, int, of the same shape."""
    return np.searchsorted(LIMITS, whole_scores(agatston), side="right")


def category_of(agatston: float) -> str:
    """Return the one of CATEGORIES that a score belongs to."""
    return CATEGORIES[int(category_numbers(np.array(agatston)))]
