"""A result as a notebook shows it: scores by artery and pictures of the largest lesions."""

from __future__ import annotations

from ..results import CLINICAL_TITLES, METHOD_TITLES, STATUSES, ScoreResult
from ..scoring.scores import component_agatston
from . import pictures
from .files import interval_sentence
from .page import rendered

MOST_PICTURES = 3


def result_as_fragment(result: ScoreResult) -> str:
    """Render scores, severe warnings and pictures as HTML without a page around it. Raises OutputError."""
    return rendered(
        "notebook.html",
        "",
        result=result,
        severe_warnings=[warning for warning in result.warnings if warning.severe],
        method_titles=METHOD_TITLES,
        clinical_titles=CLINICAL_TITLES,
        statuses=STATUSES,
        interval_sentence=interval_sentence,
        pictures=_largest_lesions(result),
    )


def _largest_lesions(result: ScoreResult) -> list[pictures.Picture]:
    """The slices in which the lesions with the highest scores are largest."""
    method = result.methods["threshold"]
    by_slice: dict[int, float] = {}
    for lesion in method.lesions.lesions:
        for component in lesion.components:
            points = component_agatston(component, result.scan.slice_spacing_mm, method.rules)
            by_slice[component.slice_index] = by_slice.get(component.slice_index, 0.0) + points
    largest = sorted(by_slice, key=by_slice.__getitem__, reverse=True)[:MOST_PICTURES]
    return [
        pictures.Picture(
            pictures.slice_picture(result.scan, result.heart.mask, method.lesions, k, None, result.territories),
            f"{pictures.place_of(result, k)}: Agatston {by_slice[k]:.1f}",
        )
        for k in largest
    ]
