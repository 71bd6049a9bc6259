"""Locate the stored readings of a scan, and compare their labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort.folder import RECORD, safe_name
from ..core.errors import UnreadableError
from ..core.files import LAST_FILE, REVIEWS, file_sha256, parse_json, read_file
from ..core.labels import NOT_CORONARY, Artery, Labelled, site_of
from ..review.journal import Journal
from ..review.state import labels_as_scored, replayed
from .cases import ReviewCase

PLAN = "reading_plan.csv"
"""File of the reading plan in the folder of results."""

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
    return case.folder / REVIEWS / f"{safe_name(reading)}-{digest}.jsonl"


def journal_of(case: ReviewCase, reading: str) -> Journal:
    """Open the journal of a reading. Raises CTError."""
    return open_journal(file_of(case, reading), case.patient_digest)


def open_journal(file: Path, patient_digest: str = "") -> Journal:
    """Open a journal below its result. Raises CTError.

    patient_digest: `Acquisition.patient_digest`, which a new journal keeps.
    """
    folder = file.parent.parent
    return Journal(file, result_sha256(folder), plan_sha256(root_of(folder)), patient_digest)


def root_of(folder: Path) -> Path:
    """Return the folder of the results of a scan's result: its cohort's, or itself."""
    return folder.parent if (folder.parent / RECORD).is_file() else folder


def plan_sha256(root: Path) -> str:
    """Return the hash of the reading plan in a folder of results; "" without one. Raises UnreadableError."""
    try:
        return file_sha256(root / PLAN)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UnreadableError(f"{root / PLAN} cannot be read ({error.strerror}). Check its permissions.") from error


def result_sha256(folder: Path) -> str:
    """Return the hash of a result's content, whenever and wherever it was computed. Raises UnreadableError."""
    file = folder / LAST_FILE
    try:
        return _content_sha256(file, file.stat().st_mtime_ns)
    except (OSError, ValueError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableError(f"The result {file} cannot be read ({reason}). Score the scan again.") from error


@lru_cache(maxsize=10_000)
def _content_sha256(file: Path, _changed_ns: int) -> str:
    content = parse_json(read_file(file))
    parts = {name: part for name, part in content.items() if name not in ("provenance", "seconds")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def readers_of(cases: Iterable[ReviewCase]) -> list[str]:
    """Return the names of all readers with a reading of their own. Raises CTError."""
    files = [(case, file) for case in cases for file in (case.folder / REVIEWS).glob("*.jsonl")]
    readings = [reading_in(case, file) for case, file in files]
    return sorted({reader_of(reading) for reading in readings if reading.startswith(_PREFIXES[FIRST])})


def reading_in(case: ReviewCase, file: Path) -> str:
    """Return the name of the reading in a journal. Raises CTError."""
    readers = {entry.reader for entry in open_journal(file).entries}
    names = [SHARED, CONSENSUS, *(reading_by(reader, kind) for reader in readers for kind in _PREFIXES)]
    return next((name for name in names if file_of(case, name) == file), SHARED)


def stamp_of(case: ReviewCase, reading: str) -> tuple[Any, ...] | None:
    """Return a value that changes with the journal and with the result that it begins with; None without a journal."""
    try:
        stats = [file.stat() for file in (file_of(case, reading), case.folder / LAST_FILE)]
    except OSError:
        return None
    return tuple((stat.st_mtime, stat.st_size) for stat in stats)


def labels_of_reading(case: ReviewCase, reading: str) -> dict[str, Labelled]:
    """Return the labels of a reading by method, without opening the scan. Raises CTError."""
    return replayed(labels_as_scored(case.folder), journal_of(case, reading).steps)


def agreed_labels(labels: Sequence[Labelled]) -> Labelled:
    """Return the labels on which all readings agree; voxels with different sites are unassigned."""
    flat, values = stack_labels(labels)
    is_agreed = (values == values[0]).all(0)
    return Labelled(flat, np.where(is_agreed, values[0], np.uint8(Artery.UNASSIGNED)))


def disputed_voxels(labels: Sequence[Labelled]) -> np.ndarray:
    """Return the flat indices, rising, of voxels that readings assign to different sites or to none."""
    flat, values = stack_labels(labels)
    values[(values == Artery.UNASSIGNED) | (values == NOT_CORONARY)] = 0
    return flat[(values != values[0]).any(0)]


def site_in(labelled: Labelled, flat: np.ndarray) -> str:
    """Return where a reading puts most voxels of a lesion: key of a site, "rejected", or "none" if it has no label."""
    values = labelled.values[np.isin(labelled.flat, flat)]
    if 2 * len(values) <= len(flat):
        return "none"
    return site_name(int(np.bincount(values).argmax()))


def site_name(label: int) -> str:
    """Return the key of a label's site, "rejected", or "none" for no label."""
    return {0: "none", NOT_CORONARY: "rejected"}.get(label) or site_of(label).key


def stack_labels(labels: Sequence[Labelled]) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat indices of all labelled voxels, and their labels [reading, voxel]."""
    flat = np.unique(np.concatenate([np.zeros(0, int), *(reading.flat for reading in labels)]))
    values = np.zeros((len(labels), len(flat)), np.uint8)
    for row, reading in zip(values, labels, strict=True):
        row[np.searchsorted(flat, reading.flat)] = reading.values
    return flat, values
