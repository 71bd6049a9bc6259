"""The journal of a review: a file to which every change is appended with time and reader, and from which it is rebuilt.

The first line names the schema and the hashes of the result, of its files, of the reading plan and of the register's
last line when the review began; other lines are a `JournalEntry` each. Lines are chained and signed (`chain`). A line
is on the disk when `append` returns, so that no more than the change in flight is lost. A register notes the first
entry and those of a confirmed score, which shows that a journal was removed or cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..core.decoding import WHEN_SET, content_of, decoded, restore
from ..core.errors import JournalError, WrongValueError
from ..core.labels import NOT_CORONARY, SITES
from ..record.provenance import Confirmation, JournalRecord
from .chain import Line, append_lines, damaged, last_hash, read_lines, register
from .review import Difference
from .state import ReviewChange

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
        files: SHA-256 of the files of an export, by name.
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
    files: dict[str, str] = field(default_factory=dict, metadata=WHEN_SET)
    number: int = 0
    time: str = ""


class Journal:
    """Journal in a file, which the first entry makes.

    Args:
        file: The file.
        result_sha256: Hash of the result that is reviewed.
        plan_sha256: Hash of the reading plan; "" without one.
        register: File in which the journal is registered; None for none.
        facts: Function that returns what the first line of a new journal keeps besides.

    Attributes:
        entries: Entries in order.
        lines: Lines as in the file; the first is the header.

    Raises:
        JournalError: The file is no journal, is damaged, or belongs to another result or plan.
    """

    def __init__(
        self,
        file: Path,
        result_sha256: str,
        plan_sha256: str = "",
        register: Path | None = None,
        facts: Callable[[], Line] = dict,
    ) -> None:
        self.file = file
        self._header = {"schema": SCHEMA, "result": result_sha256, "plan": plan_sha256}
        self._register, self._facts = register, facts
        self.entries: list[JournalEntry] = []
        self.lines, self._size = read_lines(file)
        if self.lines:
            self._take_in(*self.lines)

    @property
    def hashes(self) -> list[str]:
        """Hash of each line."""
        return [line["sha256"] for line in self.lines]

    @property
    def steps(self) -> list[tuple[str, ReviewChange]]:
        """Changes in order with their kind, for `ScanReview.restore`; those that no reader made are a "begin"."""
        changes = ((entry, entry.change) for entry in self.entries)
        return [(entry.kind if entry.reader else "begin", change) for entry, change in changes if change is not None]

    @property
    def mark(self) -> JournalRecord | None:
        """The journal as its last entry leaves it; None before the first."""
        return JournalRecord(self.file.name, len(self.entries), self.hashes[-1]) if self.lines else None

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
        contents = [*([] if self.lines else [self._first_line()]), _content(entry)]
        try:
            lines, self._size = append_lines(self.file, contents, self._size)
        except OSError as error:
            self._size = self._file_size()
            raise JournalError(
                f"The change was not saved: {self.file} cannot be written ({error.strerror}). Free some space or check "
                "the permissions of the folder, and make the change again."
            ) from error
        was_confirmed = bool(self.entries) and self.entries[-1].reviewed
        self.lines += lines
        self.entries.append(entry)
        if self._register is not None and (entry.number == 1 or was_confirmed or entry.reviewed):
            name = self.file.relative_to(self._register.parent).as_posix()
            register(self._register, "journal", file=name, entries=entry.number, last=self.hashes[-1])

    def _first_line(self) -> Line:
        return self._header | self._facts() | {"register": "" if self._register is None else last_hash(self._register)}

    def _file_size(self) -> int:
        try:
            return self.file.stat().st_size
        except OSError:  # of no file, or of a folder that cannot be reached
            return 0

    def _take_in(self, header: Line, *entries: Line) -> None:
        """Take in the lines of the file."""
        try:
            if header["schema"] != SCHEMA:
                raise ValueError(f"its schema is {header['schema']}, not {SCHEMA}")
            self.entries += [_entry(entry, number) for number, entry in enumerate(entries, 1)]
            begun_with = header["result"], header["plan"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, WrongValueError) as error:
            raise damaged(self.file, error) from error
        again = "Move the file away to begin a new review."
        if begun_with[0] != self._header["result"]:
            message = f"{self.file} is the review of another result: the scan was scored again since. {again}"
            raise JournalError(message)
        if begun_with[1] != self._header["plan"]:
            message = f"{self.file} was begun under another reading plan, or under none. Restore the plan. {again}"
            raise JournalError(message)


def _content(entry: JournalEntry) -> dict[str, Any]:
    content: dict[str, Any] = content_of(replace(entry, change=None))
    if (change := entry.change) is not None:
        voxels = {method: runs(diff.flat, diff.before, diff.after) for method, diff in change.voxels.items()}
        # Keys are text, as in the file, so that a line has the same hash when it is read.
        slices = {str(k): used for k, used in change.slices.items()}
        content["change"] = {"voxels": voxels, "slices": slices, "reviewed": change.reviewed}
    return content


def _entry(content: Mapping[str, Any], number: int) -> JournalEntry:
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
