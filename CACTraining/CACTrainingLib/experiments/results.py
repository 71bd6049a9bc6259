"""What the results of all experiments are made into: differences and rows of their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..statistics.patient_folds import category_of
from .configuration import ExperimentRun

if TYPE_CHECKING:
    from ..report.parts import Cell

CATEGORIES = ("0", "1–99", "100–399", "≥ 400")
"""Titles of the categories of a score, as `statistics.patient_folds.category_of` numbers them."""
SCORE_COLUMNS = ("Patients", "All", *CATEGORIES)
"""Of `score_counts`."""


def by_configuration(kept: Mapping[ExperimentRun, Mapping]) -> dict[object, list[Mapping]]:
    """Results of each configuration, in the order of its folds."""
    found: dict[object, list[Mapping]] = {}
    for run in sorted(kept, key=lambda run: run.fold):
        found.setdefault(run.configuration, []).append(kept[run])
    return found


def score_counts(title: str, patients: Sequence[str], agatston: np.ndarray) -> tuple[Cell, ...]:
    """A row of how many cases there are of each category.

    Args:
        title: first cell of the row.
        patients: of the cases, [n].
        agatston: float [n], NaN where not known.

    Returns:
        Cells as SCORE_COLUMNS names them, the title first.
    """
    known = agatston[np.isfinite(agatston)]
    counts = np.bincount(category_of(known), minlength=len(CATEGORIES))
    return (title, len(set(patients)), len(patients), *map(int, counts))
