"""The work list: how far each scan's reading is, and where a reader helps most."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.warning_codes import SEVERE
from CACScoringLib.review.export import ABOUT_CANDIDATES
from CACScoringLib.review.journal import CHANGES
from CACScoringLib.scoring.uncertainty import CATEGORIES

from ..statistics.patient_folds import category_of
from .cases import Case
from .readings import CONSENSUS, SHARED, journal_of, stamp_of


@dataclass(frozen=True)
class Progress:
    """Progress of a reading. state: "new", "begun" or "reviewed". agatston: the total, None before it was begun.
    seconds: that readers spent. problem: why the journal cannot be read, or ""."""

    state: str = "new"
    agatston: float | None = None
    seconds: float = 0.0
    changes: int = 0
    problem: str = ""


class WorkList:
    """The scans with what readers have done.

    cases: the scans. readers: by name. double: each reader reads every scan alone, and sees nobody else's reading
    before a consensus; else all share one. blind: names and automatic scores are hidden until a reader has reviewed a
    scan.
    """

    def __init__(
        self, cases: Sequence[Case], readers: Sequence[str], double: bool = False, blind: bool = False
    ) -> None:
        self.cases = {case.id: case for case in cases}
        self.readers = tuple(readers)
        self.double = double
        self.blind = blind

    def reading_of(self, reader: str, consensus: bool) -> str:
        """The reading that a reader edits."""
        if not self.double:
            return SHARED
        return CONSENSUS if consensus else f"reader {reader}"

    def progress(self, case: Case, reading: str) -> Progress:
        """Progress of a reading, from its journal."""
        stamp = stamp_of(case, reading)
        return Progress() if stamp is None else _progress(case, reading, stamp)

    def consensus_due(self, case: Case) -> bool:
        """True if every reader has reviewed the scan, two at least."""
        done = [self.progress(case, self.reading_of(reader, False)).state == "reviewed" for reader in self.readers]
        return self.double and len(done) > 1 and all(done)

    def name_of(self, case: Case, reader: str) -> str:
        """Name of a scan."""
        hidden = self.hides(case, reader)
        return f"Case {1 + self._mixed(reader).index(case.id)}" if hidden else case.name

    def rows(self, reader: str) -> list[dict]:
        """Rows of the work list, in the order of the cases; if blind, shuffled for each reader."""
        ids = self._mixed(reader) if self.blind else list(self.cases)
        return [self._row(self.cases[case_id], reader) for case_id in ids]

    def _mixed(self, reader: str) -> list[str]:
        return sorted(self.cases, key=lambda case_id: hashlib.sha256(f"{reader}:{case_id}".encode()).hexdigest())

    def hides(self, case: Case, reader: str) -> bool:
        """True if a reader must not see yet what the networks found in a scan, nor its name."""
        return self.blind and self.progress(case, self.reading_of(reader, False)).state != "reviewed"

    def _row(self, case: Case, reader: str) -> dict:
        progress, hidden = self.progress(case, self.reading_of(reader, False)), self.hides(case, reader)
        row = {"id": case.id, "name": self.name_of(case, reader), "state": progress.state, "seconds": progress.seconds}
        row |= {"problem": progress.problem} | (_HIDDEN if hidden else _facts(case, progress))
        if self.double:
            row["consensus"] = self.progress(case, CONSENSUS).state if self.consensus_due(case) else None
        return row


_HIDDEN = {
    **{"need": 0.0, "patient": "", "group": "", "status": "", "agatston": None, "category": "", "interval": None},
    **{"warnings": [], "severe": False},
}


def _facts(case: Case, progress: Progress) -> dict:
    """What a row of the work list holds of a scan whose name and scores a reader may see."""
    reviewed = progress.state == "reviewed"
    agatston = progress.agatston if reviewed else case.agatston
    categorised = agatston is not None and (reviewed or case.has_category)
    codes = [code for code in case.warnings if not (reviewed and code in ABOUT_CANDIDATES)]
    return {
        "need": need(case),
        "patient": case.patient,
        "group": case.group,
        "status": "reviewed" if reviewed else case.status,
        "agatston": agatston,
        "category": CATEGORIES[int(category_of(np.array([agatston]))[0])] if categorised else "",
        "interval": None if reviewed else case.interval,
        "warnings": sorted(codes, key=lambda code: code not in SEVERE),
        "severe": any(code in SEVERE for code in codes),
    }


def need(case: Case) -> float:
    """From 0 to 1, how much a reader helps with a scan: the probability that its likeliest category is wrong; of
    candidates that nothing evaluated 1, of what is unknown between."""
    if case.status == "candidates":
        return 1.0
    return 0.5 if case.category_probability is None else 1.0 - case.category_probability


@lru_cache(maxsize=10_000)
def _progress(case: Case, reading: str, _stamp: tuple) -> Progress:
    try:
        entries = journal_of(case, reading).entries
    except CTError as error:
        return Progress(problem=str(error))
    if not entries:
        return Progress()
    changes = sum(entry.kind in CHANGES for entry in entries)
    state = "reviewed" if entries[-1].reviewed else "begun"
    return Progress(state, entries[-1].agatston, sum(entry.seconds for entry in entries), changes)
