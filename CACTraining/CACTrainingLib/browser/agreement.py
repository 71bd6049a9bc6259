"""Agreement of readers: κ of categories, intraclass correlation of totals, Dice of what counts."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import numpy as np

from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.uncertainty import CATEGORIES

from ..statistics.agreement import agreement, kappa
from ..statistics.bootstrap import Estimate, patient_estimate, patient_mean
from ..statistics.patient_folds import category_of
from .cases import Case
from .readings import labels_of, stamp_of
from .work_list import WorkList

LEAST_SCANS = 2
"""That two readers have both reviewed, before κ and correlation are worked out."""


def agreement_of_pairs(work: WorkList) -> list[dict]:
    """For every two readers, over the scans that both have reviewed: κ of the four categories, intraclass correlation
    of the total, and mean Dice of the voxels that count for an artery, by the clinical rule; of scans in which either
    counts any. Raises CTError."""
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
        of_totals = _of_totals(cases, np.array(totals).reshape(-1, 2))
        pairs.append({"readers": list(pair), "scans": len(cases), **of_totals, "dice": dice})
    return pairs


def _dice(cases: list[Case], readings: list[str]) -> Estimate:
    values = []
    for case in cases:
        first, second = (_coronary(case, reading, stamp_of(case, reading)) for reading in readings)
        if either := len(first) + len(second):
            common = len(np.intersect1d(first, second, assume_unique=True))
            values.append((case.patient or case.id, 2 * common / either))
    return patient_mean(values)


@lru_cache(maxsize=10_000)
def _coronary(case: Case, reading: str, _stamp: tuple) -> np.ndarray:
    """Flat indices of the voxels that count for an artery, rising."""
    labelled = labels_of(case, reading)["threshold"]
    return labelled.flat[labelled.values < Artery.UNASSIGNED]


def _of_totals(cases: list[Case], pairs: np.ndarray) -> dict:
    if len(pairs) < LEAST_SCANS:
        return {"kappa": None, "icc": None}
    first, second = category_of(pairs.T)
    patients = [case.patient or case.id for case in cases]
    statistics = {
        "kappa": lambda weights: kappa(weights, first, second, len(CATEGORIES)),
        "icc": lambda weights: agreement(weights, pairs),
    }
    return {name: patient_estimate(statistic, patients).as_json() for name, statistic in statistics.items()}
