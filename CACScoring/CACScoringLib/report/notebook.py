"""A result in a notebook's cell: headline, table of scores and pictures of the largest lesions."""

from __future__ import annotations

from ..results import ScoreResult
from ..scoring.scores import component_agatston
from . import pictures
from .headline import headline, score_table
from .page import rendered

MOST_PICTURES = 3


def result_as_fragment(result: ScoreResult) -> str:
    """Render headline, scores and pictures as HTML without a page around it. Raises OutputError."""
    return rendered(
        "notebook.html",
        "",
        headline=headline(result.methods, result.categories, result.warnings),
        table=score_table(result.methods, result.true_mass_mg),
        pictures=_largest_lesions(result),
    )


def _largest_lesions(result: ScoreResult) -> list[pictures.Picture]:
    """The slices with the highest scores."""
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
