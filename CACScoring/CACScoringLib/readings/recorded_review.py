"""Review of a scan by a reader, of which every change is recorded in the journal of the reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..review.journal import CHANGES, JournalEntry
from ..review.scan_review import ScanReview
from ..review.state import ReviewChange
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
        make: Callable[[Callable[[str, ReviewChange], None]], ScanReview],
        present_action: Callable[[], tuple[str, str, float]],
    ) -> None:
        self.case = case
        self.reading = reading
        self._action = present_action
        self.journal = journal_of(case, reading)
        self.review = make(self._record)
        self.review.journal_mark = lambda: self.journal.mark
        self.review.restore(self.journal.steps)
        if entries := self.journal.entries:
            looked_at = {method: self._looked_at(method) for method in self.review.methods}
            self.review.restore_notes(looked_at, entries[-1].confirmations)

    def _looked_at(self, method: str) -> list[int]:
        """Return voxels of lesions that were shown to the reader, as the journal has them."""
        return [voxel for entry in self.journal.entries for voxel in entry.looked_at.get(method, ())]

    def last_change(self) -> JournalEntry | None:
        """Return the last entry with a change; None without one."""
        return next((entry for entry in reversed(self.journal.entries) if entry.kind in CHANGES), None)

    def _record(self, kind: str, change: ReviewChange) -> None:
        self.note(kind, *self._action(), change)

    def note(
        self,
        kind: str,
        reader: str,
        words: str,
        seconds: float,
        change: ReviewChange | None = None,
        files: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Append an entry, with the lesions shown since the last entry. Raises JournalError."""
        if "threshold" in self.review.problems:
            last = self.journal.entries[-1:]
            after = (last[0].reviewed, last[0].agatston) if last else (False, 0.0)
        else:
            result = self.review.result("threshold")
            after = result.reviewed, result.total.agatston
        notes = {m: {*self.review.notes_looked_at(m)} - {*self._looked_at(m)} for m in self.review.methods}
        new = {method: sorted(voxels) for method, voxels in notes.items() if voxels}
        confirmations = self.review.confirmations
        self.journal.append(JournalEntry(kind, reader, words, seconds, *after, change, new, confirmations, dict(files)))
