"""List the scans of the work list for the page, with their need of a reader."""

from __future__ import annotations

from typing import Any

import numpy as np

from CACScoringLib.core.warning_codes import SEVERE
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.journals import CONSENSUS, FIRST
from CACScoringLib.readings.work_list import ReadingProgress, WorkList
from CACScoringLib.review.export import ABOUT_CANDIDATES
from CACScoringLib.scoring.uncertainty import CATEGORIES

from ..statistics.patient_folds import category_of


def rows_of(work: WorkList, reader: str) -> list[dict[str, Any]]:
    """Return the rows of a reader's work list."""
    return [_row(work, work.cases[case_id], reader, kind) for case_id, kind in work.order(reader)]


def _row(work: WorkList, case: ReviewCase, reader: str, kind: str) -> dict[str, Any]:
    progress, is_hidden = work.progress(case, work.reading_of(reader, kind)), work.hides(case, reader, kind)
    row: dict[str, Any] = {"id": case.id, "reading": kind, "name": work.name_of(case, reader, kind)}
    row |= {"state": progress.state, "seconds": progress.seconds}
    row |= {"problem": progress.problem} | (_HIDDEN_FACTS if is_hidden else _facts(case, progress))
    if work.double:
        is_due = kind == FIRST and work.consensus_due(case)
        row["consensus"] = work.progress(case, CONSENSUS).state if is_due else None
    return row


_HIDDEN_FACTS = {
    **{"need": 0.0, "patient": "", "group": "", "status": "", "agatston": None, "category": "", "interval": None},
    **{"warnings": [], "severe": False},
}


def _facts(case: ReviewCase, progress: ReadingProgress) -> dict[str, Any]:
    """Return the facts of a scan that is not hidden, for its row of the work list."""
    is_reviewed = progress.state == "reviewed"
    agatston = progress.agatston if is_reviewed else case.agatston
    has_category = agatston is not None and (is_reviewed or case.has_category)
    codes = [code for code in case.warnings if not (is_reviewed and code in ABOUT_CANDIDATES)]
    return {
        "need": need(case),
        "patient": case.patient,
        "group": case.group,
        "status": "reviewed" if is_reviewed else case.status,
        "agatston": agatston,
        "category": CATEGORIES[int(category_of(np.array([agatston]))[0])] if has_category else "",
        "interval": None if is_reviewed else case.interval,
        "warnings": sorted(codes, key=lambda code: code not in SEVERE),
        "severe": any(code in SEVERE for code in codes),
    }


def need(case: ReviewCase) -> float:
    """Return a scan's need of a reader from 0 to 1: the probability that its likeliest category is wrong.

    It is 1 for candidates without a score, and 0.5 if the probability is unknown.
    """
    if case.status == "candidates":
        return 1.0
    return 0.5 if case.category_probability is None else 1.0 - case.category_probability
