"""The journal of a review: a file to which every change is appended with time and reader, and from which it is rebuilt.

The first line names the schema, the hashes of the result and of the reading plan, and the patient's pseudonym; other
lines are a `JournalEntry` each. The file only grows: an undone change and its undoing are both in it. A line is on the
disk when `append` returns, so that no more than the change in flight is lost. What a killed process left of its last
line is overwritten by the next one.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..core.decoding import WHEN_SET, content_of, decoded, restore
from ..core.errors import JournalError, WrongValueError
from ..core.files import parse_json, read_file, sync_folder
from ..core.labels import NOT_CORONARY, SITES
from ..record.provenance import Confirmation, JournalRecord
from .review import Difference
from .state import ReviewChange

_Line = dict[str, Any]

SCHEMA = "cac-review/3"
CHANGES = ("edit", "undo", "redo")
"""Kinds of entries with a change; entries without are "time" and "export"."""


@dataclass(frozen=True)
class JournalEntry:
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
    change: ReviewChange | None = field(default=None, metadata=WHEN_SET)
    looked_at: dict[str, list[int]] = field(default_factory=dict, metadata=WHEN_SET)
    confirmations: dict[str, Confirmation] = field(default_factory=dict, metadata=WHEN_SET)
    number: int = 0
    time: str = ""


class Journal:
    """Journal in a file, which the first entry makes.

    Args:
        file: The file.
        result_sha256: Hash of the result that is reviewed.
        plan_sha256: Hash of the reading plan; "" without one.
        patient_digest: Pseudonym of the patient (`Acquisition.patient_digest`); "" if unknown.

    Attributes:
        entries: Entries in order.

    Raises:
        JournalError: The file is no journal, is damaged, or belongs to another result or plan.
    """

    def __init__(self, file: Path, result_sha256: str, plan_sha256: str = "", patient_digest: str = "") -> None:
        self.file = file
        self._header = {"schema": SCHEMA, "result": result_sha256, "plan": plan_sha256}
        if patient_digest:
            self._header["patient"] = patient_digest
        self.entries: list[JournalEntry] = []
        lines, self._size = _read_lines(file)
        self._has_header = bool(lines)
        if lines:
            self._take_in(*lines)

    @property
    def steps(self) -> list[tuple[str, ReviewChange]]:
        """Changes in order with their kind, for `ScanReview.restore`; those that no reader made are a "begin"."""
        changes = ((entry, entry.change) for entry in self.entries)
        return [(entry.kind if entry.reader else "begin", change) for entry, change in changes if change is not None]

    @property
    def mark(self) -> JournalRecord | None:
        """The journal as its last entry leaves it; None before the first."""
        return JournalRecord(self.file.name, len(self.entries)) if self.entries else None

    @property
    def seconds(self) -> float:
        """Seconds that readers have spent."""
        return sum(entry.seconds for entry in self.entries)

    def append(self, entry: JournalEntry) -> None:
        """Write an entry to the disk.

        Raises JournalError and leaves the journal as it was if this fails, or if another program has written to it.
        """
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        entry = replace(entry, number=len(self.entries) + 1, time=time, seconds=round(entry.seconds, 1))
        lines = [*([] if self._has_header else [self._header]), _content(entry)]
        try:
            self._size = _append_lines(self.file, lines, self._size)
        except OSError as error:
            self._size = self._file_size()
            raise JournalError(
                f"The change was not saved: {self.file} cannot be written ({error.strerror}). Free some space or check "
                "the permissions of the folder, and make the change again."
            ) from error
        self._has_header = True
        self.entries.append(entry)

    def _file_size(self) -> int:
        try:
            return self.file.stat().st_size
        except OSError:  # of no file, or of a folder that cannot be reached
            return 0

    def _take_in(self, header: _Line, *entries: _Line) -> None:
        """Take in the lines of the file."""
        try:
            if header["schema"] != SCHEMA:
                raise ValueError(f"its schema is {header['schema']}, not {SCHEMA}")
            self.entries += [_entry(entry, number) for number, entry in enumerate(entries, 1)]
            begun_with = header["result"], header["plan"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, WrongValueError) as error:
            raise _damaged(self.file, error) from error
        again = "Move the file away to begin a new review."
        if begun_with[0] != self._header["result"]:
            message = f"{self.file} is the review of another result: the scan was scored again since. {again}"
            raise JournalError(message)
        if begun_with[1] != self._header["plan"]:
            message = f"{self.file} was begun under another reading plan, or under none. Restore the plan. {again}"
            raise JournalError(message)


def _read_lines(file: Path) -> tuple[list[_Line], int]:
    """Return the whole lines of a file, and its size; none without a file.

    Raises JournalError if the file cannot be read or is damaged.
    """
    try:
        content = read_file(file)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise JournalError(f"{file} cannot be read: {error.strerror}. Check its permissions.") from error
    try:
        lines = [parse_json(line) for line in content[: content.rfind(b"\n") + 1].decode().splitlines()]
    except ValueError as error:
        raise _damaged(file, error) from error
    return lines, len(content)


def _damaged(file: Path, error: Exception) -> JournalError:
    return JournalError(f"{file} is damaged ({error}). Restore it from a copy, or move it away.")


def _append_lines(file: Path, lines: Iterable[_Line], size: int) -> int:
    """Write lines to the disk, and return the file's new size.

    size: Size that the file must have. Raises JournalError if another program has written to it, OSError if the disk
    refuses.
    """
    is_new = not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b", buffering=0) as stream:
        _lock(stream)
        stream.seek(0)
        present = stream.readall()
        if size != len(present):
            message = f"The change was not saved: another program has changed {file}. Open the scan again."
            raise JournalError(message)
        end = present.rfind(b"\n") + 1
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        stream.truncate(end)
        try:
            written = 0
            while written < len(text):
                written += stream.write(text[written:])
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise
    if is_new:
        sync_folder(file.parent)
    return end + len(text)


def _lock(stream: io.FileIO) -> None:
    """Wait until no other program writes, if the system can lock the file; closing it ends the lock."""
    with suppress(OSError):
        if sys.platform == "win32":
            import msvcrt

            stream.seek(1 << 40)  # far beyond the content, which stays readable
            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)


def _content(entry: JournalEntry) -> _Line:
    content: _Line = content_of(replace(entry, change=None))
    if (change := entry.change) is not None:
        voxels = {method: runs(diff.flat, diff.before, diff.after) for method, diff in change.voxels.items()}
        slices = {str(k): used for k, used in change.slices.items()}
        content["change"] = {"voxels": voxels, "slices": slices, "reviewed": change.reviewed}
    return content


def _entry(content: _Line, number: int) -> JournalEntry:
    if content["number"] != number:
        raise ValueError(f"entry {content['number']} stands in the place of entry {number}")
    if ((change := content.get("change")) is not None) != (content["kind"] in CHANGES):
        raise ValueError(f"entry {number} is no {content['kind']}")
    entry = restore({**content, "change": None}, JournalEntry)
    if change is None:
        return entry
    voxels = {method: _difference(rows) for method, rows in change["voxels"].items()}
    slices = decoded(change["slices"], dict[int, tuple[bool, bool]], "slices")
    marks = decoded(change["reviewed"], dict[str, tuple[bool, bool]], "reviewed")
    return replace(entry, change=ReviewChange(voxels, slices, marks))


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
