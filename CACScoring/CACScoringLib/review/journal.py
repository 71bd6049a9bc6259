"""The journal of a review: a file to which every change is appended with time and reader, and from which it is rebuilt.

The first line names the schema and the SHA-256 of the `scores.json` that the review began with; every other line is an
`Entry`. Lines are chained: each holds the hash of the one before (`previous`) and of its own content (`sha256`), which
shows a later change of any line. A line is on the disk when `append` returns. What a killed process left of its last
line is passed over, and overwritten by the next one, so that no more than the change in flight is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..core.decoding import WHEN_SET, content_of, decoded, restore
from ..core.errors import JournalError, WrongValueError
from ..core.files import parse_json, sync_folder
from ..core.labels import NOT_CORONARY, SITES
from ..record.review_record import Confirmation
from .review import Difference
from .state import Change

SCHEMA = "cac-review/1"
CHANGES = ("edit", "undo", "redo")
"""Kinds of entries with a change; entries without are "time" and "export"."""


@dataclass(frozen=True)
class Entry:
    """Entry of the journal.

    Attributes:
        kind: Kind of the action.
        reader: Name of the reader.
        what: Action in words.
        seconds: Seconds of the reader since the previous entry.
        reviewed: True if the clinical score is reviewed after the action.
        agatston: Total of the clinical score after the action.
        change: Change of the labels; None if they stayed.
        looked_at: Flat index of a voxel of each lesion shown to the reader since the previous entry, by method.
        confirmations: Confirmation of each confirmed score after the action, by method.
        number: Number from 1, given by the journal.
        time: UTC in ISO 8601, given by the journal.
    """

    kind: str
    reader: str
    what: str
    seconds: float
    reviewed: bool
    agatston: float
    change: Change | None = field(default=None, metadata=WHEN_SET)
    looked_at: dict[str, list[int]] = field(default_factory=dict, metadata=WHEN_SET)
    confirmations: dict[str, Confirmation] = field(default_factory=dict, metadata=WHEN_SET)
    number: int = 0
    time: str = ""


class Journal:
    """Journal in a file, which the first entry makes.

    Args:
        file: The file.
        result_sha256: SHA-256 of the `scores.json` that is reviewed.
        patient_digest: `Acquisition.patient_digest`, which a new journal keeps; empty if unknown.

    Raises:
        JournalError: The file is no journal, is damaged, or belongs to another result.
    """

    def __init__(self, file: Path, result_sha256: str, patient_digest: str = "") -> None:
        self.file = file
        self._result, self._patient = result_sha256, patient_digest
        self.entries: list[Entry] = []
        self.hashes: list[str] = []
        """Hash of each line."""
        self._size = 0
        """Size of the file as it was read or written here."""
        self._end = self._read()

    @property
    def steps(self) -> list[tuple[str, Change]]:
        """Changes in order with their kind, for `ScanReview.restore`; those that no reader made are a "begin"."""
        changes = ((entry, entry.change) for entry in self.entries)
        return [(entry.kind if entry.reader else "begin", change) for entry, change in changes if change is not None]

    @property
    def seconds(self) -> float:
        """Seconds that readers have spent."""
        return sum(entry.seconds for entry in self.entries)

    def append(self, entry: Entry) -> None:
        """Write an entry to the disk.

        Raises JournalError and leaves the journal as it was if this fails, or if another program has written to it.
        """
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        entry = replace(entry, number=len(self.entries) + 1, time=time, seconds=round(entry.seconds, 1))
        contents = [_content(entry)]
        if not self._end:
            of_patient = {"patient": self._patient} if self._patient else {}
            contents.insert(0, {"schema": SCHEMA, "result": self._result, **of_patient})
        previous, lines = self.hashes[-1] if self.hashes else "", []
        for content in contents:
            content["previous"] = previous
            previous = _hash_of(content)
            lines.append(content | {"sha256": previous})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        if self._file_size() != self._size:
            raise JournalError(
                f"The change was not saved: another program has changed {self.file}. Open the scan again."
            )
        try:
            if not self._end:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("r+b" if self.file.exists() else "w+b") as file:
                file.truncate(self._end)
                file.seek(self._end)
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
                end = file.tell()
            if not self._end:
                sync_folder(self.file.parent)
        except OSError as error:
            self._size = self._file_size()
            raise JournalError(
                f"The change was not saved: {self.file} cannot be written ({error.strerror}). Free some space or check "
                "the permissions of the folder, and make the change again."
            ) from error
        self._end = self._size = end
        self.hashes += [str(line["sha256"]) for line in lines]
        self.entries.append(entry)

    def _file_size(self) -> int:
        try:
            return self.file.stat().st_size
        except OSError:  # of no file, or of a folder that cannot be reached
            return 0

    def _read(self) -> int:
        """Read the entries of the file; return the position after its last whole line."""
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise JournalError(f"{self.file} cannot be read: {error.strerror}. Check its permissions.") from error
        self._size, end = len(content), content.rfind(b"\n") + 1
        if not end:
            return 0
        try:
            header, *entries = lines = [parse_json(line) for line in content[:end].decode().splitlines()]
            if header["schema"] != SCHEMA:
                raise ValueError(f"its schema is {header['schema']}, not {SCHEMA}")
            self._check_chain(lines)
            self.entries += [_entry(entry, number) for number, entry in enumerate(entries, 1)]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, WrongValueError) as error:
            raise JournalError(f"{self.file} is damaged ({error}). Restore it from a copy, or move it away.") from error
        if header["result"] != self._result:
            raise JournalError(
                f"{self.file} is the review of another result: the scan was scored again since. Move the file away to "
                "begin a new review."
            )
        return end

    def _check_chain(self, lines: list[dict[str, Any]]) -> None:
        """Check the hashes of all lines. Raises JournalError with the first line that was changed."""
        for number, line in enumerate(lines, 1):
            content = {name: value for name, value in line.items() if name != "sha256"}
            self.hashes.append(_hash_of(content))
            fault = ""
            if line.get("sha256") != self.hashes[-1]:
                fault = f"line {number} was changed after it was written"
            elif line.get("previous") != (self.hashes[-2] if number > 1 else ""):
                fault = f"line {number - 1} was replaced, or lines before line {number} were removed"
            if fault:
                raise JournalError(
                    f"{self.file}: {fault}. Restore the file from a copy, or move it away to begin a new review."
                )


def _hash_of(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a line's content as JSON, its own hash left out."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _content(entry: Entry) -> dict[str, Any]:
    content: dict[str, Any] = content_of(replace(entry, change=None))
    if (change := entry.change) is not None:
        voxels = {method: runs(diff.flat, diff.before, diff.after) for method, diff in change.voxels.items()}
        # Keys are text, as in the file, so that a line has the same hash when it is read.
        slices = {str(k): used for k, used in change.slices.items()}
        content["change"] = {"voxels": voxels, "slices": slices, "reviewed": change.reviewed}
    return content


def _entry(content: Mapping[str, Any], number: int) -> Entry:
    if content["number"] != number:
        raise ValueError(f"entry {content['number']} stands in the place of entry {number}")
    if ((change := content.get("change")) is not None) != (content["kind"] in CHANGES):
        raise ValueError(f"entry {number} is no {content['kind']}")
    entry = restore({**content, "change": None}, Entry)
    if change is None:
        return entry
    voxels = {method: _difference(rows) for method, rows in change["voxels"].items()}
    slices = decoded(change["slices"], dict[int, tuple[bool, bool]], "slices")
    marks = decoded(change["reviewed"], dict[str, tuple[bool, bool]], "reviewed")
    return replace(entry, change=Change(voxels, slices, marks))


def runs(flat: np.ndarray, *values: np.ndarray) -> list[list[int]]:
    """Return rows [first voxel, count, values]: one per run of consecutive voxels with equal values."""
    breaks = [np.diff(flat) != 1, *(np.diff(column.astype(np.int64)) != 0 for column in values)]
    first = np.flatnonzero(np.append(True, np.any(breaks, axis=0))[: len(flat)])
    count = np.diff(np.append(first, len(flat)))
    return np.stack([flat[first], count, *(column[first] for column in values)], 1).tolist()


def _difference(voxel_runs: Iterable[Iterable[int]]) -> Difference:
    rows = np.array(list(voxel_runs), np.int64).reshape(-1, 4)
    first, count, *labels = rows.T
    if (rows < 0).any() or not np.isin(labels, [0, NOT_CORONARY, *SITES]).all():
        raise ValueError("a voxel or a label is out of range")
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    flat = np.repeat(first, count) + within
    if (np.diff(flat) <= 0).any():
        raise ValueError("voxels do not rise")
    return Difference(flat, *(np.repeat(label, count).astype(np.uint8) for label in labels))
