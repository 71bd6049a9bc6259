"""Measure the agreement of readers: κ of categories, intraclass correlation of totals, Dice of scored voxels."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.uncertainty import CATEGORIES

from ..statistics.agreement import agreement, kappa
from ..statistics.bootstrap import Estimate, patient_estimate, patient_mean
from ..statistics.patient_folds import category_of
from .cases import ReviewCase
from .readings import labels_of, stamp_of
from .work_list import WorkList

MIN_SCANS = 2
"""Smallest number of scans reviewed by both readers for κ and correlation."""


def agreement_of_pairs(work: WorkList) -> list[dict[str, Any]]:
    """Return the agreement of every two readers over the scans that both have reviewed, as JSON values.

    It is measured on the clinical score: κ of the four categories, intraclass correlation of the total, and mean Dice
    of voxels assigned to an artery, over scans in which either reader has any. Raises CTError.
    """
    pairs = []
    for pair in combinations(work.readers, 2):
        readings = [work.reading_of(reader, False) for reader in pair]
        cases, totals = [], []
        for case in work.cases.values():
            progress = [work.progress(case, reading) for reading in readings]
            if all(reading.state == "reviewed" for reading in progress):
                cases.append(case)
                totals.append([reading.agatston for reading in progress])
        dice = _dice(cases, readings).as_json()
        statistics = _total_statistics(cases, np.array(totals).reshape(-1, 2))
        pairs.append({"readers": list(pair), "scans": len(cases), **statistics, "dice": dice})
    return pairs


def _dice(cases: list[ReviewCase], readings: list[str]) -> Estimate:
    values = []
    for case in cases:
        first, second = (_coronary(case, reading, stamp_of(case, reading)) for reading in readings)
        if count := len(first) + len(second):
            common = len(np.intersect1d(first, second, assume_unique=True))
            values.append((case.patient or case.id, 2 * common / count))
    return patient_mean(values)


@lru_cache(maxsize=10_000)
def _coronary(case: ReviewCase, reading: str, _stamp: tuple[Any, ...]) -> np.ndarray:
    """Return the flat indices of voxels assigned to an artery, in rising order."""
    labelled = labels_of(case, reading)["threshold"]
    return labelled.flat[labelled.values < Artery.UNASSIGNED]


def _total_statistics(cases: list[ReviewCase], pairs: np.ndarray) -> dict[str, Any]:
    if len(pairs) < MIN_SCANS:
        return {"kappa": None, "icc": None}
    first, second = category_of(pairs.T)
    patients = [case.patient or case.id for case in cases]
    statistics = {
        "kappa": lambda weights: kappa(weights, first, second, len(CATEGORIES)),
        "icc": lambda weights: agreement(weights, pairs),
    }
    return {name: patient_estimate(statistic, patients).as_json() for name, statistic in statistics.items()}
