"""Record of a review: who confirmed which score, when, and what had been shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.acquisition import PSEUDONYM
from .provenance import Provenance

JOURNAL = ("journal", "entries", "journal_sha256")
SEAL = (*PSEUDONYM, *JOURNAL)
"""Columns that show whose a row is, and by which entry of which journal."""


@dataclass(frozen=True)
class Confirmation:
    """Confirmation of a method's score by a reader; an edit of a confirmed score confirms it anew.

    Attributes:
        reader: Name or ID of the reader.
        time: Local date and time with the zone's offset, ISO 8601.
        sites: Number of lesions that counted, in the arteries and outside them.
        not_looked_at: IDs of those never shown to the reader, which stay automatic; None if unknown, as of labels from
            a file.
        candidates: Number of candidates at the start of the reading (`ScanReview.candidates`), rejected ones included.
        candidates_unseen: Number of these that were never shown to the reader.
        outside: Number of lesions outside the arteries.
        outside_unseen: Number of these that were never shown to the reader.
    """

    reader: str
    time: str
    sites: int
    not_looked_at: tuple[int, ...] | None = None
    candidates: int = 0
    candidates_unseen: int = 0
    outside: int = 0
    outside_unseen: int = 0

    @property
    def part(self) -> str:
        """Part that was looked at, such as "12 of 85 candidates looked at"; empty if all of it, or unknown."""
        count = self.candidates - self.candidates_unseen
        return f"{count} of {self.candidates} candidates looked at" if self.candidates_unseen else ""

    @property
    def in_words(self) -> str:
        """Confirmation in a sentence."""
        part = self.part or ("" if self.not_looked_at is None else f"all {self.candidates} candidates looked at")
        words = f"Confirmed by {self.reader}, {self.time}{part and f', {part}'}."
        count = self.outside - self.outside_unseen
        return f"{words} Outside the arteries: {count} of {self.outside} looked at." if self.outside else words


@dataclass(frozen=True)
class ReaderScore:
    """A reader's own result before a consensus.

    Attributes:
        reader: Name or ID of the reader.
        time: UTC of the last change, ISO 8601.
        agatston: Total Agatston score.
        sites: Site by lesion of the consensus, "rejected" or "none" if it counted nowhere.
    """

    reader: str
    time: str
    agatston: float
    sites: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JournalRecord:
    """The journal of a review as exported. sha256: Hash of its last entry, which the chain proves all before by."""

    file: str
    entries: int
    sha256: str

    @property
    def cells(self) -> dict[str, str | int]:
        """Cells of JOURNAL."""
        return dict(zip(JOURNAL, (self.file, self.entries, self.sha256), strict=True))


@dataclass(frozen=True)
class ReviewRecord:
    """A review.

    Attributes:
        program: Program of the review.
        methods: True for each method that a reader confirmed.
        slices_off: Slices of the calcium map that the reader switched off.
        slices_to_decompose: Slices that the reader switched on, though they were never decomposed.
        confirmations: Confirmation by method.
        readings: Results of the readers before a consensus.
        journal: Journal of the review in the browser.
        run: Provenance of the run that was reviewed.
    """

    program: str
    methods: dict[str, bool]
    slices_off: tuple[int, ...] = ()
    slices_to_decompose: tuple[int, ...] = ()
    confirmations: dict[str, Confirmation] = field(default_factory=dict)
    readings: tuple[ReaderScore, ...] = ()
    journal: JournalRecord | None = None
    run: Provenance | None = None

    @property
    def confirmation(self) -> Confirmation | None:
        """Confirmation of the clinical score."""
        return self.confirmations.get("threshold")

    @property
    def in_words(self) -> str:
        """Confirmation, readings and journal in one line."""
        parts = [f"{r.reader} had {r.agatston:.1f} ({r.time})" for r in self.readings]
        before = f"Before the consensus, {', '.join(parts)}." if parts else ""
        mark = self.journal
        seal = f"Journal {mark.file}, {mark.entries} entries, SHA-256 of the last {mark.sha256}." if mark else ""
        return " ".join(filter(None, (self.confirmation.in_words if self.confirmation else "", before, seal)))
