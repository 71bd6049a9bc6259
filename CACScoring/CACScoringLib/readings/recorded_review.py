"""Review of a scan by a reader, of which every change is recorded in the journal of the reading."""

from __future__ import annotations

from collections.abc import Callable

from ..record.review_record import JournalRecord
from ..review.journal import CHANGES, Entry
from ..review.scan_review import ScanReview
from ..review.state import Change
from .cases import ReviewCase
from .journals import journal_of


class RecordedReview:
    """Review of a scan that continues its journal, and records every change in it.

    Args:
        case: Scan under review.
        reading: Name of the reading.
        make: Function that makes the review, given the function that records its changes.
        present_action: Function that returns the reader of a change, the action in words, and the reader's seconds
            since the last entry.

    Attributes:
        review: State and edits of the review.
        journal: Journal of the reading.

    Raises:
        CTError: The results or the journal cannot be read.
    """

    def __init__(
        self,
        case: ReviewCase,
        reading: str,
        make: Callable[[Callable[[str, Change], None]], ScanReview],
        present_action: Callable[[], tuple[str, str, float]],
    ) -> None:
        self.case = case
        self.reading = reading
        self._action = present_action
        self.journal = journal_of(case, reading)
        self._looked_at: dict[str, list[int]] = {}
        self.review = make(self._record)
        self.review.journal_mark = self._journal_mark
        self.review.restore(self.journal.steps)
        self._restore_notes()

    def _restore_notes(self) -> None:
        """Set what was looked at and confirmed as the journal has it."""
        self._looked_at = {method: [] for method in self.review.methods}
        entries = self.journal.entries
        for entry in entries:
            for method, voxels in entry.looked_at.items():
                if method in self._looked_at:
                    self._looked_at[method] += voxels
        if entries:
            self.review.restore_notes(self._looked_at, entries[-1].confirmations)

    def last_change(self) -> Entry | None:
        """Return the last entry with a change; None without one."""
        return next((entry for entry in reversed(self.journal.entries) if entry.kind in CHANGES), None)

    def note(self, kind: str, reader: str, words: str, seconds: float) -> None:
        """Append an entry without a change, with the lesions shown since the last entry. Raises JournalError."""
        self._append(kind, reader, words, seconds)

    def _journal_mark(self) -> JournalRecord | None:
        journal = self.journal
        return JournalRecord(journal.file.name, len(journal.entries), journal.hashes[-1]) if journal.hashes else None

    def _record(self, kind: str, change: Change) -> None:
        self._append(kind, *self._action(), change)

    def _append(self, kind: str, reader: str, words: str, seconds: float, change: Change | None = None) -> None:
        if "threshold" in self.review.problems:
            last = self.journal.entries[-1:]
            after = (last[0].reviewed, last[0].agatston) if last else (False, 0.0)
        else:
            result = self.review.result("threshold")
            after = result.reviewed, result.total.agatston
        journaled = self._looked_at.items()
        notes = {m: set(self.review.notes_looked_at(m)) - set(voxels) for m, voxels in journaled}
        new = {method: sorted(voxels) for method, voxels in notes.items() if voxels}
        self.journal.append(Entry(kind, reader, words, seconds, *after, change, new, self.review.confirmations))
        for method, voxels in new.items():
            self._looked_at[method] += voxels
