"""Locate the stored readings of a scan, and compare their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort.folder import safe_name
from ..core.files import LAST_FILE
from ..core.labels import NOT_CORONARY, Artery, Labelled, site_of
from ..review.folder import labels_as_scored
from ..review.journal import Journal
from .cases import ReviewCase

FOLDER = "reviews"
"""Subfolder of a scan's results with the journals, one file for each reading."""

SHARED, CONSENSUS = "shared", "consensus"
"""Readings that belong to no single reader."""

FIRST, AGAIN = "own", "again"
"""Kinds of a reader's own readings: the first, and its repetition. The third kind is CONSENSUS."""

_PREFIXES = {FIRST: "reader ", AGAIN: "repeat "}


def reading_by(reader: str, kind: str = FIRST) -> str:
    """Return the name of a reader's own reading."""
    return _PREFIXES[kind] + reader


def reader_of(reading: str) -> str:
    """Return the reader of an own reading."""
    return reading.partition(" ")[2]


def file_of(case: ReviewCase, reading: str) -> Path:
    """Return the file of a reading's journal, with a name that is safe for any name of a reader."""
    digest = hashlib.sha256(reading.encode()).hexdigest()[:8]
    return case.folder / FOLDER / f"{safe_name(reading)}-{digest}.jsonl"


def journal_of(case: ReviewCase, reading: str) -> Journal:
    """Open the journal of a reading. Raises CTError."""
    return Journal(file_of(case, reading), case.result_sha256(), case.patient_digest)


def readers_of(cases: Iterable[ReviewCase]) -> list[str]:
    """Return the names of all readers with a reading of their own. Raises CTError."""
    names: set[str] = set()
    for case in cases:
        files = set((case.folder / FOLDER).glob("*.jsonl"))
        for file in files:
            readers = {entry.reader for entry in Journal(file, case.result_sha256()).entries if entry.reader}
            names |= {reader for reader in readers if file_of(case, reading_by(reader)) == file}
    return sorted(names)


def stamp_of(case: ReviewCase, reading: str) -> tuple[Any, ...] | None:
    """Return a value that changes with the journal and with the result that it begins with; None without a journal."""
    try:
        stats = [file.stat() for file in (file_of(case, reading), case.folder / LAST_FILE)]
    except OSError:
        return None
    return tuple((stat.st_mtime, stat.st_size) for stat in stats)


def labels_of(case: ReviewCase, reading: str) -> dict[str, Labelled]:
    """Return the labels of a reading by method, without opening the scan. Raises CTError."""
    labels = labels_as_scored(case.folder)
    for kind, change in journal_of(case, reading).steps:
        for method, voxels in change.voxels.items():
            values = voxels.before if kind == "undo" else voxels.after
            labels[method] = labels[method].with_labels(voxels.flat, values)
    return labels


def agreed_labels(labels: Sequence[Labelled]) -> Labelled:
    """Return the labels on which all readings agree; voxels with different sites are unassigned."""
    flat, values = _stack_labels(labels)
    is_agreed = (values == values[0]).all(0)
    return Labelled(flat, np.where(is_agreed, values[0], np.uint8(Artery.UNASSIGNED)))


def disputed_voxels(labels: Sequence[Labelled]) -> np.ndarray:
    """Return the flat indices, rising, of voxels that readings assign to different sites or to none."""
    flat, values = _stack_labels(labels)
    values[(values == Artery.UNASSIGNED) | (values == NOT_CORONARY)] = 0
    return flat[(values != values[0]).any(0)]


def site_in(labelled: Labelled, flat: np.ndarray) -> str:
    """Return where a reading puts most voxels of a lesion: key of a site, "rejected", or "none" if it has no label."""
    values = labelled.values[np.isin(labelled.flat, flat)]
    if 2 * len(values) <= len(flat):
        return "none"
    label = int(np.bincount(values).argmax())
    return "rejected" if label == NOT_CORONARY else site_of(label).key


def _stack_labels(labels: Sequence[Labelled]) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat indices of all labelled voxels, and their labels [reading, voxel]."""
    flat = np.unique(np.concatenate([reading.flat for reading in labels]))
    values = np.zeros((len(labels), len(flat)), np.uint8)
    for row, reading in zip(values, labels, strict=True):
        row[np.searchsorted(flat, reading.flat)] = reading.values
    return flat, values
