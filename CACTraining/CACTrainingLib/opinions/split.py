"""Scans split by patient, each part with its share of every category of score."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from ..table_cells import TableError
from .scan_table import TableScan

CATEGORIES = (0.0, 100.0, 400.0)
"""Scores above 0, from 100 and from 400 are categories of their own."""


def category_of(agatston: np.ndarray) -> np.ndarray:
    """Category of scores, int: 0; 1 above 0; 2 from 100; 3 from 400."""
    score = np.asarray(agatston, float)
    return (score > 0).astype(int) + (score >= CATEGORIES[1]) + (score >= CATEGORIES[2])


def held_out(scans: Sequence[TableScan], share: float = 0.2, seed: int = 0) -> tuple[list[str], list[str]]:
    """Names of the scans to train on, and of about a share of them kept apart, by patient. Raises TableError."""
    return folds(scans, round(1 / share), seed)[0]


def folds(scans: Sequence[TableScan], count: int, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """For each of `count` parts the names of the scans outside it and of those in it.

    Raises TableError where the scans' patients are fewer than the parts.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients = np.array([scan.patient for scan in scans])
    names = np.array([scan.name for scan in scans])
    category = category_of(np.array([scan.total for scan in scans]))
    commonest = max(np.bincount(category), default=0)
    if count < 2 or min(len(np.unique(patients)), commonest) < count:
        raise TableError(
            f"{len(np.unique(patients))} patients, at most {commonest} of one category of score, cannot be split in "
            f"{count} parts. Give more patients."
        )
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a category has fewer patients than there are parts
        split = list(splitter.split(names, category, patients))
    return [(names[outside].tolist(), names[inside].tolist()) for outside, inside in split]
