"""Describe the work list, and a review with its scores, warnings and lesions, for the page, as JSON values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from CACScoringLib.core.categories import category_of
from CACScoringLib.core.labels import NOT_CORONARY, Artery
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.journals import CONSENSUS, FIRST
from CACScoringLib.readings.recorded_review import hidden
from CACScoringLib.readings.work_list import ReadingProgress, WorkList
from CACScoringLib.record.columns import BLINDED
from CACScoringLib.record.scores import Lesion
from CACScoringLib.report.attention import STATED_ELSEWHERE, urgency
from CACScoringLib.report.explanation import explanation, gaps_mm
from CACScoringLib.report.headline import blind_headline, headline, score_table, warning_lines
from CACScoringLib.results import METHOD_TITLES
from CACScoringLib.review.journal import runs
from CACScoringLib.review.output import ABOUT_CANDIDATES
from CACScoringLib.review.review import Review
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.scoring.doubt import impact


def page_state(review: ScanReview, version: int, undecided: Mapping[str, Collection[int]]) -> dict[str, Any]:
    """Return the state of a review.

    Args:
        review: The review.
        version: Version of the review, which an action has to name.
        undecided: Ids of disputed lesions by method (`OpenReview.begin_consensus`).
    """
    image, results, warnings = review.scan.image, review.results(), review.warnings
    categories, confirmation = review.categories(), review.confirmations.get("threshold")
    head = headline(results, categories, warnings, confirmation)
    elsewhere = review.non_coronary.scores if review.non_coronary else {}
    return {
        "version": version,
        "size": list(image.GetSize()),
        "spacing_mm": list(image.GetSpacing()),
        "methods": {method: _method(review, method, undecided.get(method, ())) for method in review.methods},
        "non_coronary": {site.full_name: asdict(score) for site, score in elsewhere.items()},
        "categories": None if categories is None else asdict(categories),
        "headline": asdict(head) | {"summary": head.summary},
        "table": asdict(score_table(results)),
        "warnings": [asdict(line) for line in warning_lines(warnings, results)],
        "can_undo": review.can_undo,
        "can_redo": review.can_redo,
    }


BLIND_LESION = dict.fromkeys(("suggested", "probability", "left_out", "why", *BLINDED))
"""Values that replace the networks' results of a lesion for a blind reader."""

BLIND_IMAGES = ("ct", "heart")
"""Images for a blind reader."""


def blind_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state without the networks' results, with a blind reader's decisions alone. state: From `page_state`."""
    method = state["methods"]["threshold"]
    lesions = [lesion | BLIND_LESION for lesion in sorted(method["lesions"], key=lambda lesion: lesion["id"])]
    arteries = {key: score | {"interval_90": None} for key, score in method["arteries"].items()}
    is_reviewed = method["status"] == "reviewed"
    status = "reviewed" if is_reviewed else "blind"
    blind_method = {"status": status, "lesions": lesions, "arteries": arteries}
    blind_method["total"] = method["total"] | {"interval_90": None}
    candidates = sum(lesion["site"] == Artery.UNASSIGNED for lesion in lesions)
    head = blind_headline(is_reviewed, candidates)
    return {
        **{name: state[name] for name in ("version", "size", "spacing_mm", "can_undo", "can_redo")},
        "methods": {"threshold": method | blind_method},
        "non_coronary": {},
        "categories": None,
        "headline": asdict(head) | {"summary": head.summary},
        "table": {"titles": [], "rows": []},
        "warnings": [],
    }


def _method(review: ScanReview, method: str, undecided: Collection[int]) -> dict[str, Any]:
    result = review.result(method)
    recorded = review.record.methods[method]
    # As the run judged them, so that a lesion keeps its place in the list when its site changes.
    changes = {lesion.id: impact(recorded, lesion) for lesion in recorded.listed}
    listed = (*review.lesions(method), *review.left_out(method))
    gaps = gaps_mm(result.lesion_set.every, review.scan.image.GetSpacing())
    method_review = review.review(method)
    lesions = [
        _lesion(method_review, lesion) | {"why": " ".join(explanation(lesion, result, review.record, listed, gaps))}
        for lesion in listed
    ]
    rejected = {"site": NOT_CORONARY, "site_name": "rejected", "why": "Rejected by a reader."}
    lesions += [_lesion(method_review, lesion) | rejected for lesion in method_review.rejected().lesions]
    return {
        "title": METHOD_TITLES[method],
        "status": result.status,
        "no_calcium": result.no_calcium,
        "total": asdict(result.total),
        "arteries": {artery.key: asdict(score) for artery, score in result.arteries.items()},
        "lesions": sorted(lesions, key=lambda lesion: (-changes.get(lesion["id"], 0.0), lesion["id"])),
        "undecided": sorted(undecided),
        "runs": _runs(review, method),
        "looked_at": sorted(review.looked_at(method)),
        "candidates": len(set(review.candidates(method).ids.tolist())),
        "unseen": sorted(review.unseen_candidates(method)),
    }


def _lesion(review: Review, lesion: Lesion) -> dict[str, Any]:
    verdict, suggested = lesion.verdict, review.suggested_site(lesion)
    return {
        "id": lesion.id,
        "site": int(lesion.site),
        "site_name": lesion.site.short_name,
        "suggested": None if suggested is None else suggested.short_name,
        "slices": [lesion.slices[0], lesion.slices[-1]],
        "agatston": lesion.clinical_agatston,
        "volume_mm3": lesion.volume_mm3,
        "peak_hu": lesion.peak_hu,
        "integrated_mass_mg": lesion.integrated_mass_mg,
        "mass_standard_error_mg": lesion.mass_standard_error_mg,
        "probability": review.probability_of(lesion),
        "left_out": None if verdict is None or verdict.counts else verdict.reason,
    }


def _runs(review: ScanReview, method: str) -> list[int]:
    """Return the voxels of lesions as runs along i, five numbers each: k, j, first i, count, id."""
    rejected = review.review(method).rejected().voxels
    columns, rows, _ = review.scan.image.GetSize()
    spans = []
    for flat, ids in (review.review(method).voxels(), (rejected.flat, rejected.ids)):
        spans += runs(flat, flat // columns, ids)
    return [n for first, count, row, lesion in spans for n in (row // rows, row % rows, first % columns, count, lesion)]


def path_of(kind: str) -> str:
    """Return the part of an address that names a reading; a repetition looks like a first reading."""
    return CONSENSUS if kind == CONSENSUS else FIRST


def rows_of(work: WorkList, reader: str) -> list[dict[str, Any]]:
    """Return the rows of a reader's work list; scans that could not be scored come last, with the reason."""
    rows = [_row(work, work.cases[case_id], reader, kind) for case_id, kind in work.order(reader)]
    return rows + [_refused_row(*scan) for scan in work.refused]


def _refused_row(name: str, reason: str) -> dict[str, Any]:
    row = {"id": "", "reading": FIRST, "name": name, "state": "refused", "seconds": 0.0, "hidden": False}
    return row | _HIDDEN_FACTS | {"problem": reason}


def _row(work: WorkList, case: ReviewCase, reader: str, kind: str) -> dict[str, Any]:
    progress, is_hidden = work.progress(case, work.reading_of(reader, kind)), work.hides(case, reader, kind)
    name = work.name_of(case, reader, kind)
    row: dict[str, Any] = {"id": work.address(reader, case.id, kind), "reading": path_of(kind), "name": name}
    row |= {"state": progress.state, "seconds": progress.seconds, "hidden": is_hidden}
    row |= _HIDDEN_FACTS if is_hidden else _facts(work, case, progress)
    row["problem"] = hidden(case, name, progress.problem) if is_hidden else progress.problem
    if work.double:
        is_due = kind == FIRST and work.consensus_due(case)
        row["consensus"] = work.progress(case, CONSENSUS).state if is_due else None
    return row


_HIDDEN_FACTS = {
    **{"need": 0.0, "patient": "", "group": "", "status": "", "agatston": None, "category": "", "interval": None},
    **{"warnings": [], "other_warnings": 0, "severe": False, "reasons": [], "drawn": False},
}


def _facts(work: WorkList, case: ReviewCase, progress: ReadingProgress) -> dict[str, Any]:
    """Return the facts of a scan that is not hidden, for its row of the work list."""
    is_reviewed = progress.state == "reviewed"
    agatston = progress.agatston if is_reviewed else case.agatston
    states_category = is_reviewed or case.has_category
    kept = [code not in ABOUT_CANDIDATES for code in case.severe]
    codes = [code for code in case.warnings if not (is_reviewed and code in ABOUT_CANDIDATES)]
    of_scan = [reason for reason, is_kept in zip(case.reasons, kept, strict=False) if is_kept]
    return {
        "need": _need(work, case),
        "patient": case.patient,
        "group": case.group,
        "status": "reviewed" if is_reviewed else case.status,
        "agatston": agatston,
        "category": category_of(agatston) if agatston is not None and states_category else "",
        "interval": None if is_reviewed else case.interval,
        "warnings": codes,
        "other_warnings": len(set(codes) - {*case.severe, *STATED_ELSEWHERE}),
        "severe": any(kept) if is_reviewed else bool(case.severe),
        "reasons": of_scan if is_reviewed else list(case.reasons),
        "drawn": case.id in work.drawn,
    }


def _need(work: WorkList, case: ReviewCase) -> float:
    """Return how urgently a scan needs a reader (`attention.urgency`); candidates have no category that could hold."""
    probability = 0.0 if case.status == "candidates" else case.category_probability
    return urgency(bool(case.severe), case.withheld, case.is_undecided, probability, case.id in work.drawn)
