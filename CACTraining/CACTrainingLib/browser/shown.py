"""What the page shows of a review: lesions, totals, categories and warnings, as JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict

import numpy as np

from CACScoringLib.core.labels import NonCoronary
from CACScoringLib.results import CLINICAL_TITLES, METHOD_TITLES, STATUSES, MethodResult
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.scoring.lesions import Lesion, ScoringRules
from CACScoringLib.scoring.scores import score_lesions
from CACScoringLib.scoring.uncertainty import TOTAL


def shown(review: ScanReview, version: int, undecided: Mapping[str, Collection[int]]) -> dict:
    """The state of a review. version: of it, which an action has to name. undecided: lesions by method, see
    `OpenReview.begin_consensus`."""
    image = review.scan.image
    categories, elsewhere = review.categories(), review.non_coronary
    return {
        "version": version,
        "size": list(image.GetSize()),
        "spacing_mm": list(image.GetSpacing()),
        "methods": {method: _method(review, method, undecided.get(method, ())) for method in review.methods},
        "non_coronary": None
        if elsewhere is None
        else {site.full_name: asdict(score) for site, score in elsewhere.scores.items()},
        "categories": None if categories is None else asdict(categories),
        "warnings": [asdict(w) for w in sorted(review.warnings, key=lambda w: not w.severe)],
        "estimates": [o.network for o in review.estimates],
        "slices": [[row.k, row.probability, row.used, row.decomposed] for row in review.slices()],
        "can_undo": review.can_undo,
        "can_redo": review.can_redo,
    }


def _method(review: ScanReview, method: str, undecided: Collection[int]) -> dict:
    result, left_out = review.result(method), review.left_out(method)
    counted = [_lesion(review, method, lesion, result) for lesion in review.lesions(method)]
    others = left_out.lesions.lesions if left_out is not None else ()
    reasons = left_out.reasons if left_out is not None else ()
    for lesion, reason in zip(others, reasons, strict=True):
        counted.append({**_lesion(review, method, lesion, result), "left_out": reason})
    return {
        "title": METHOD_TITLES[method],
        "score_title": CLINICAL_TITLES[method],
        "status": result.status,
        "status_words": STATUSES[result.status],
        "no_calcium": result.no_calcium,
        "threshold_hu": result.rules.threshold_hu,
        "total": asdict(result.total) | _interval(result, TOTAL),
        "arteries": {a.key: asdict(score) | _interval(result, a.key) for a, score in result.arteries.items()},
        "category_probabilities": result.category_probabilities,
        # By id, so that a lesion keeps its place in the list whatever it is given to.
        "lesions": sorted(counted, key=lambda lesion: lesion["id"]),
        "undecided": sorted(undecided),
        "runs": _runs(review, method),
    }


def _interval(result: MethodResult, part: str) -> dict:
    own = result.intervals.get(part)
    return {"interval_90": None if own is None else list(own.agatston)}


def _lesion(review: ScanReview, method: str, lesion: Lesion, result: MethodResult) -> dict:
    rules: ScoringRules = result.rules
    own = review.review(method)
    score = score_lesions([lesion], review.scan.image.GetSpacing(), rules)
    suggested = own.suggested_site(lesion)
    integrated_mass_mg, standard_error_mg = own.integrated_mass_of(lesion)
    return {
        "id": lesion.id,
        "site": int(lesion.artery),
        "site_name": lesion.artery.short_name,
        "elsewhere": isinstance(lesion.artery, NonCoronary),
        "suggested": None if suggested is None else suggested.short_name,
        "slices": [lesion.slice_indices[0], lesion.slice_indices[-1]],
        "weighted_area_mm2": sum(c.area_mm2 * c.weight for c in lesion.components),
        "agatston": score.clinical_agatston,
        "volume_mm3": score.volume_mm3,
        "mass_mg": score.mass_mg,
        "peak_hu": lesion.peak_hu,
        "integrated_mass_mg": integrated_mass_mg,
        "mass_standard_error_mg": standard_error_mg,
        "probability": own.probability_of(lesion),
        "left_out": None,
    }


def _runs(review: ScanReview, method: str) -> list[int]:
    """Voxels of lesions as runs along i, five numbers each: k, j, first i, count, id."""
    flat, ids = review.review(method).voxels()
    if not flat.size:
        return []
    size = review.scan.image.GetSize()
    kj = flat // size[0]
    new = np.append(True, (np.diff(flat) != 1) | (np.diff(ids.astype(int)) != 0) | (np.diff(kj) != 0))
    first = np.flatnonzero(new)
    count = np.diff(np.append(first, len(flat)))
    rows = (kj[first] // size[1], kj[first] % size[1], flat[first] % size[0], count, ids[first])
    return np.stack(rows, 1).reshape(-1).tolist()
