"""Readings of scans by several readers: their plan, and each reader's order with its progress.

The plan states the order in which each reader reads each scan, and which scans again, for intra-reader agreement.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from ..core.errors import CTError, OutputError
from ..core.files import REVIEWS, write_text_atomically
from ..core.tables import read_table, table_text
from ..report.attention import random_share
from ..review.journal import CHANGES
from .cases import ReviewCase, cases_in
from .journals import AGAIN, CONSENSUS, FIRST, PLAN, SHARED, journal_of, reading_by, stamp_of

_KINDS = (FIRST, AGAIN)
_COLUMNS = ("reader", "position", "scan", "repetition", "blind", "not_before")

READINGS_BETWEEN = 10
"""Smallest number of other readings between the two of a scan, as far as there are scans that are read once."""


@dataclass(frozen=True)
class PlannedReading:
    """A reading of the plan.

    Attributes:
        reader: Name of the reader.
        scan: Folder of the scan's results.
        kind: FIRST for the first reading of a scan, AGAIN for its repetition.
        is_blind: True if names and automatic scores are hidden until all readings are reviewed.
        not_before: Date before which a repetition does not begin, ISO 8601; "" for any.
    """

    reader: str
    scan: str
    kind: str
    is_blind: bool = False
    not_before: str = ""


def plan_of(
    folder: Path,
    cases: Sequence[ReviewCase],
    readers: Sequence[str],
    repeated: float | None = None,
    seed: int = 0,
    blind: bool = False,
    washout: str = "",
) -> list[PlannedReading]:
    """Return the plan in a folder of results; make and write it if there is none and `repeated` is given.

    Args:
        folder: Folder of the results.
        cases: Scans to read.
        readers: Names of the readers.
        repeated: Proportion of scans that each reader reads again, 0 to 1; None to ask for no plan.
        seed: Seed of the order.
        blind: True to plan blind readings.
        washout: Date before which no repetition begins, ISO 8601; "" for any.

    Returns:
        Readings of all planned readers in their order; empty without a plan.

    Raises:
        OutputError: The plan is damaged, or not one of these readers and scans.
    """
    file = folder / PLAN
    if not file.exists():
        if repeated is None:
            return []
        if any(any((case.folder / REVIEWS).glob("*.jsonl")) for case in cases):
            message = f"Readings in {folder} were begun without a plan. Move the folders {REVIEWS} away to plan anew."
            raise OutputError(message)
        plan = _random_plan(sorted(case.folder.name for case in cases), readers, repeated, seed)
        dates = {FIRST: "", AGAIN: washout}
        plan = [replace(reading, is_blind=blind, not_before=dates[reading.kind]) for reading in plan]
        _write(file, plan)
        return plan
    plan = _read(file)
    scans = {case.folder.name for case in cases}
    for reader in readers:
        planned = {reading.scan for reading in plan if reading.reader == reader and reading.kind == FIRST}
        if planned != scans:
            fault = f"plans no scans for {reader}" if not planned else "is a plan of other scans"
            raise OutputError(f"{file} {fault}. Name its readers, or move it away to make a new plan.")
    return plan


def is_blinded(folder: Path) -> bool:
    """Return True while blind readings of the plan in a folder of results are to be done.

    Until then nobody may see what the networks found. Raises OutputError, CTError.
    """
    if not (readers := planned_readers(folder)):
        return False
    cases = cases_in(folder)
    plan = plan_of(folder, cases, readers)
    return any(p.is_blind for p in plan) and not WorkList(cases, readers, True, True, plan).is_closed


def planned_readers(folder: Path) -> list[str]:
    """Return the readers of the plan in a folder of results; empty without a plan. Raises OutputError."""
    file = folder / PLAN
    return list(dict.fromkeys(reading.reader for reading in _read(file))) if file.exists() else []


def _random_plan(scans: list[str], readers: Sequence[str], repeated: float, seed: int) -> list[PlannedReading]:
    """Return a random plan. The same scans are repeated by all readers, after all first readings."""
    if not 0 <= repeated <= 1:
        raise OutputError(f"--repeat is {repeated:g}. Give the proportion of scans to read again, from 0 to 1.")
    again = random.Random(seed).sample(scans, round(repeated * len(scans)))
    plan = []
    for reader in readers:
        first, second = (random.Random(f"{seed} {reader} {kind}") for kind in _KINDS)
        order = first.sample(scans, len(scans))
        last = [scan for scan in order if scan not in again][-READINGS_BETWEEN:]
        order = [*(scan for scan in order if scan not in last), *last]
        plan += [PlannedReading(reader, scan, FIRST) for scan in order]
        plan += [PlannedReading(reader, scan, AGAIN) for scan in second.sample(again, len(again))]
    return plan


def _write(file: Path, plan: list[PlannedReading]) -> None:
    positions: dict[str, int] = {}
    rows = []
    for reading in plan:
        positions[reading.reader] = positions.get(reading.reader, 0) + 1
        repetition = 1 + _KINDS.index(reading.kind)
        how = repetition, int(reading.is_blind), reading.not_before
        rows.append((reading.reader, positions[reading.reader], reading.scan, *how))
    try:
        write_text_atomically(file, table_text(_COLUMNS, rows))
    except OSError as error:
        raise OutputError(f"{file} cannot be written ({error.strerror}). Check its folder's permissions.") from error


def _read(file: Path) -> list[PlannedReading]:
    plan = []
    for line in read_table(file, _COLUMNS).lines:
        if (repetition := line.text("repetition")) not in ("1", "2"):
            raise OutputError(f"{file}, line {line.number}: repetition is {repetition!r}, not 1 or 2. Correct it.")
        kind, is_blind = _KINDS[int(repetition) - 1], line.text("blind") == "1"
        plan.append(PlannedReading(line.text("reader"), line.text("scan"), kind, is_blind, line.text("not_before")))
    return plan


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
        blind: True if names and automatic scores are hidden: those of a shared reading until it is reviewed, else until
            all readings are.
        plan: Planned readings by reader; empty without a plan.
        adjudicator: Who alone decides where readers differ; "" for the readers together.
        is_independent: True for blind or planned readings of several readers. Before all are reviewed, they see nothing
            of each other, and nothing of the networks if blind; then no reading is changed any more.
        refused: Name and reason of each scan that could not be scored; empty if blind.
        drawn: Ids of the cases that were drawn at random to be checked.
    """

    def __init__(
        self,
        cases: Sequence[ReviewCase],
        readers: Sequence[str],
        double: bool = False,
        blind: bool = False,
        plan: Sequence[PlannedReading] = (),
        adjudicator: str = "",
        refused: Sequence[tuple[str, str]] = (),
        checked_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        """List the scans. checked_share: Proportion of scans to draw at random, with a seed; the rest as attributes."""
        self.cases = {case.id: case for case in cases}
        self.readers = tuple(readers)
        self.double = double
        self.blind = blind
        self.adjudicator = adjudicator
        self.refused = () if blind else tuple(refused)
        self.drawn = random_share(self.cases, checked_share, seed)
        self.people = (*self.readers, *filter(None, [adjudicator]))
        """All who have an address."""
        ids = {case.folder.name: case.id for case in cases}
        plan = [reading for reading in plan if reading.scan in ids]
        self.plan = {r: [(ids[p.scan], p.kind) for p in plan if p.reader == r] for r in readers}
        self.is_independent = double and (blind or bool(plan))
        self._to_read = [(ids[p.scan], p.reader, p.kind) for p in plan] or list(product(self.cases, readers, [FIRST]))
        self._is_closed = not self.is_independent
        self._not_before = {(p.reader, ids[p.scan]): p.not_before for p in plan if p.kind == AGAIN}
        self._places: dict[str, dict[tuple[str, str], int]] = {}
        for reader in self.people:
            digests = {case_id: hashlib.sha256(f"{reader}:{case_id}".encode()).hexdigest() for case_id in self.cases}
            case_ids = sorted(self.cases, key=digests.__getitem__) if blind else list(self.cases)
            kind = CONSENSUS if reader == adjudicator else FIRST
            order = self.plan.get(reader) or [(case_id, kind) for case_id in case_ids]
            self._places[reader] = {reading: n for n, reading in enumerate(order)}
        self._addresses = {
            (reader, case_id, kind): secrets.token_hex(8) if blind or kind == AGAIN else case_id
            for reader, places in self._places.items()
            for case_id, kind in places
        }
        self._places_at = {(key[0], address): key[1:] for key, address in self._addresses.items()}

    def reading_of(self, reader: str, kind: str) -> str:
        """Return the reading that a reader edits. kind: FIRST, AGAIN or CONSENSUS."""
        if not self.double:
            return SHARED
        return CONSENSUS if kind == CONSENSUS else reading_by(reader, kind)

    def progress(self, case: ReviewCase, reading: str) -> ReadingProgress:
        """Return the progress of a reading, from its journal."""
        stamp = stamp_of(case, reading)
        return ReadingProgress() if stamp is None else _progress(case, reading, stamp)

    @property
    def is_closed(self) -> bool:
        """True if all readings that must be independent are reviewed, also those of planned readers who are absent."""
        self._is_closed = self._is_closed or all(
            self.progress(self.cases[case_id], self.reading_of(reader, kind)).state == "reviewed"
            for case_id, reader, kind in self._to_read
        )
        return self._is_closed

    def consensus_due(self, case: ReviewCase) -> bool:
        """True if all readers, at least two, have reviewed the scan, and all scans if readings are independent."""
        states = [self.progress(case, self.reading_of(reader, FIRST)).state for reader in self.readers]
        return self.double and len(states) > 1 and set(states) == {"reviewed"} and self.is_closed

    def refusal(self, case: ReviewCase, reader: str, kind: str, to_change: bool = False) -> str:
        """Return the reason why a reader may not open a reading, or change it; "" if there is none."""
        if kind == CONSENSUS and not self.consensus_due(case):
            return "A consensus begins when all readers have reviewed the scan, and all scans if blind or planned."
        if self.adjudicator and (kind == CONSENSUS) != (reader == self.adjudicator):
            return f"{self.adjudicator} decides where readers differ, and reads nothing else."
        if kind == AGAIN and not self.may_read_again(case, reader):
            return "This scan is read again after all first readings, and not before the planned date."
        if to_change and self.is_independent and self.is_closed and kind != CONSENSUS:
            return "All readings are reviewed and their results are shown, so that none is changed any more."
        return ""

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

    def address(self, reader: str, case_id: str, kind: str) -> str:
        """Return the identifier of a reading in a reader's addresses, which shows neither scan nor repetition."""
        return self._addresses[reader, case_id, kind]

    def place_at(self, reader: str, address: str) -> tuple[ReviewCase, str] | None:
        """Return the scan and the kind of the reading at an address; None if there is none."""
        place = self._places_at.get((reader, address))
        return place and (self.cases[place[0]], place[1])

    def order(self, reader: str) -> list[tuple[str, str]]:
        """Return scan and kind of each reading: as planned, else as the cases; if blind, shuffled for each reader."""
        return list(self._places[reader])

    def hides(self, case: ReviewCase, reader: str, kind: str) -> bool:
        """True if a scan's name and automatic results are still hidden from a reader."""
        if self.double and kind != CONSENSUS:
            return self.blind and not self.is_closed
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
