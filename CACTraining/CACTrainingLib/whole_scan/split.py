"""Scans split by patient, each part with its proportion of every category of score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from CACScoringLib.core.tables import TableError

from ..data.scan_table import TableScan
from ..statistics.patient_folds import category_of, parts_by_patient

TESTED = "test "
"""Before the names of scans of another table, so that no two scans have one name."""

OneTable = tuple[tuple[TableScan, ...], list[str], list[str]]
"""All scans, and the names of those to learn from and of those to test on."""


def learned_and_tested(scans: Sequence[TableScan], test: Sequence[TableScan] = ()) -> OneTable:
    """Scans to learn from and to test on: those of `test`; without any, a fifth is kept apart (`held_out`).

    Raises TableError where a patient is in both.
    """
    if not test:
        return (tuple(scans), *held_out(scans))
    if both := {scan.patient for scan in scans} & {scan.patient for scan in test}:
        raise TableError(f"Patient {min(both)} is in --test and is learned from. Test on other patients.")
    tested = tuple(replace(scan, name=TESTED + scan.name) for scan in test)
    return (*scans, *tested), [scan.name for scan in scans], [scan.name for scan in tested]


def held_out(scans: Sequence[TableScan], proportion: float = 0.2, seed: int = 0) -> tuple[list[str], list[str]]:
    """Names of the scans to train on, and of about `proportion` of them kept apart, by patient. Raises TableError."""
    return folds(scans, round(1 / proportion), seed)[0]


def folds(scans: Sequence[TableScan], count: int, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """For each of `count` parts the names of the scans outside it and of those in it.

    Raises TableError where patients, or scans of the commonest category of score, are fewer than the parts.
    """
    patients = np.array([scan.patient for scan in scans])
    names = np.array([scan.name for scan in scans])
    category = category_of(np.array([scan.total for scan in scans]))
    commonest = max(np.bincount(category), default=0)
    if count < 2 or min(len(np.unique(patients)), commonest) < count:
        raise TableError(
            f"{len(np.unique(patients))} patients, at most {commonest} of one category of score, cannot be split into "
            f"{count} parts. Give more patients."
        )
    part = parts_by_patient(patients, category, count, seed)
    return [(names[part != number].tolist(), names[part == number].tolist()) for number in range(count)]
