"""List the readings of scans by several readers, in each reader's order, with their progress."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from ..core.errors import CTError
from ..review.journal import CHANGES
from .cases import ReviewCase
from .journals import AGAIN, CONSENSUS, FIRST, SHARED, journal_of, reading_by, stamp_of
from .plan import PlannedReading


@dataclass(frozen=True)
class ReadingProgress:
    """Progress of a reading.

    Attributes:
        state: "new", "begun" or "reviewed".
        agatston: Total Agatston score; None for a new reading.
        seconds: Time spent by readers.
        changes: Number of changes.
        problem: Reason why the journal cannot be read, or "".
    """

    state: str = "new"
    agatston: float | None = None
    seconds: float = 0.0
    changes: int = 0
    problem: str = ""


class WorkList:
    """Scans with the readers' progress.

    Attributes:
        cases: Scans by id.
        readers: Names of the readers.
        double: True if each reader has a separate reading, hidden from the others before a consensus; else all share
            one.
        blind: True if names and automatic scores are hidden until a reader has reviewed a scan.
        plan: Planned readings by reader; empty without a plan.
        adjudicator: Who alone decides where readers differ; "" for the readers together.
    """

    def __init__(
        self,
        cases: Sequence[ReviewCase],
        readers: Sequence[str],
        double: bool = False,
        blind: bool = False,
        plan: Sequence[PlannedReading] = (),
        adjudicator: str = "",
    ) -> None:
        self.cases = {case.id: case for case in cases}
        self.readers = tuple(readers)
        self.double = double
        self.blind = blind
        self.adjudicator = adjudicator
        self.people = (*self.readers, *filter(None, [adjudicator]))
        """All who have an address."""
        ids = {case.folder.name: case.id for case in cases}
        plan = [reading for reading in plan if reading.scan in ids]
        self.plan = {r: [(ids[p.scan], p.kind) for p in plan if p.reader == r] for r in readers}
        self._not_before = {(p.reader, ids[p.scan]): p.not_before for p in plan if p.kind == AGAIN}
        self._places: dict[str, dict[tuple[str, str], int]] = {}
        for reader in self.people:
            digests = {case_id: hashlib.sha256(f"{reader}:{case_id}".encode()).hexdigest() for case_id in self.cases}
            case_ids = sorted(self.cases, key=digests.__getitem__) if blind else list(self.cases)
            kind = CONSENSUS if reader == adjudicator else FIRST
            order = self.plan.get(reader) or [(case_id, kind) for case_id in case_ids]
            self._places[reader] = {reading: n for n, reading in enumerate(order)}

    def reading_of(self, reader: str, kind: str) -> str:
        """Return the reading that a reader edits. kind: FIRST, AGAIN or CONSENSUS."""
        if not self.double:
            return SHARED
        return CONSENSUS if kind == CONSENSUS else reading_by(reader, kind)

    def progress(self, case: ReviewCase, reading: str) -> ReadingProgress:
        """Return the progress of a reading, from its journal."""
        stamp = stamp_of(case, reading)
        return ReadingProgress() if stamp is None else _progress(case, reading, stamp)

    def consensus_due(self, case: ReviewCase) -> bool:
        """True if all readers, at least two, have reviewed the scan."""
        states = [self.progress(case, self.reading_of(reader, FIRST)).state for reader in self.readers]
        return self.double and len(states) > 1 and set(states) == {"reviewed"}

    def may_read_again(self, case: ReviewCase, reader: str) -> bool:
        """True if the plan repeats a scan, its date has come, and the reader has finished all first readings."""
        not_before = self._not_before.get((reader, case.id))
        if not_before is None or date.today().isoformat() < not_before:
            return False
        first = [self.cases[case_id] for case_id, kind in self.plan[reader] if kind == FIRST]
        return all(self.progress(read, self.reading_of(reader, FIRST)).state == "reviewed" for read in first)

    def name_of(self, case: ReviewCase, reader: str, kind: str) -> str:
        """Return the name of a scan for a reader; for its readers a consensus has the name of the first reading."""
        if self.hides(case, reader, kind):
            place = (case.id, FIRST if kind == CONSENSUS and reader != self.adjudicator else kind)
            return f"Case {1 + self._places[reader][place]}"
        return f"{case.name} (again)" if kind == AGAIN else case.name

    def order(self, reader: str) -> list[tuple[str, str]]:
        """Return scan and kind of each reading: as planned, else as the cases; if blind, shuffled for each reader."""
        return list(self._places[reader])

    def hides(self, case: ReviewCase, reader: str, kind: str) -> bool:
        """True if a scan's name and automatic results are still hidden from a reader."""
        return self.blind and self.progress(case, self.reading_of(reader, kind)).state != "reviewed"


@lru_cache(maxsize=10_000)
def _progress(case: ReviewCase, reading: str, _stamp: tuple[Any, ...]) -> ReadingProgress:
    try:
        entries = journal_of(case, reading).entries
    except CTError as error:
        return ReadingProgress(problem=str(error))
    if not entries:
        return ReadingProgress()
    changes = sum(entry.kind in CHANGES for entry in entries)
    state = "reviewed" if entries[-1].reviewed else "begun"
    return ReadingProgress(state, entries[-1].agatston, sum(entry.seconds for entry in entries), changes)
