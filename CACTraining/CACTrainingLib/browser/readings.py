"""Readings of a scan: where each is kept, the labels that it left, and on what readers disagree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from CACScoringLib.cohort.folder import safe_name
from CACScoringLib.core.files import LAST_FILE
from CACScoringLib.core.labels import NOT_CORONARY, Artery, Labelled
from CACScoringLib.review.folder import labels_as_scored
from CACScoringLib.review.journal import Journal

from .cases import Case

FOLDER = "reviews"
"""Below the results of a scan: the journals, a file for each reading."""

SHARED, CONSENSUS = "shared", "consensus"
"""Readings that belong to no single reader."""


def file_of(case: Case, reading: str) -> Path:
    """The journal of a reading, whose name is safe whatever the reader's is."""
    digest = hashlib.sha256(reading.encode()).hexdigest()[:8]
    return case.folder / FOLDER / f"{safe_name(reading)}-{digest}.jsonl"


def journal_of(case: Case, reading: str) -> Journal:
    """The journal of a reading. Raises CTError."""
    return Journal(file_of(case, reading), case.result_sha256())


def stamp_of(case: Case, reading: str) -> tuple | None:
    """A value that differs whenever a journal or the result that it begins with has changed; None without a journal."""
    try:
        stats = [file.stat() for file in (file_of(case, reading), case.folder / LAST_FILE)]
    except OSError:
        return None
    return tuple((stat.st_mtime, stat.st_size) for stat in stats)


def labels_of(case: Case, reading: str) -> dict[str, Labelled]:
    """The labels of a reading by method, without opening the scan. Raises CTError."""
    labels = labels_as_scored(case.folder)
    for kind, change in journal_of(case, reading).steps:
        for method, voxels in change.voxels.items():
            values = voxels.before if kind == "undo" else voxels.after
            labels[method] = labels[method].given(voxels.flat, values)
    return labels


def agreed(labels: Sequence[Labelled]) -> Labelled:
    """Labels on which all agree; voxels with different sites are unassigned."""
    flat, values = _side_by_side(labels)
    same = (values == values[0]).all(0)
    return Labelled(flat, np.where(same, values[0], np.uint8(Artery.UNASSIGNED)))


def disputed(labels: Sequence[Labelled]) -> np.ndarray:
    """Flat indices of voxels, rising, that one counts and another does not, or for another site."""
    flat, values = _side_by_side(labels)
    values[(values == Artery.UNASSIGNED) | (values == NOT_CORONARY)] = 0
    return flat[(values != values[0]).any(0)]


def _side_by_side(labels: Sequence[Labelled]) -> tuple[np.ndarray, np.ndarray]:
    """All voxels that any labels, and [reading, voxel] the labels."""
    flat = np.unique(np.concatenate([each.flat for each in labels]))
    values = np.zeros((len(labels), len(flat)), np.uint8)
    for row, each in zip(values, labels, strict=True):
        row[np.searchsorted(flat, each.flat)] = each.values
    return flat, values
