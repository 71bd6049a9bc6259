"""The pictures of a report with their captions: which slices are drawn, and what stands below them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..core.labels import Site
from ..results import MethodResult, ScoreResult
from ..scoring.lesions import Lesion
from ..scoring.scores import component_agatston
from ..whole_scan.estimates import WholeScanEstimate
from . import pictures

MOST_LISTED = 50
"""Of more candidates that nobody has reviewed, only so many are listed one by one: those that are largest and most
probably coronary. A patient has some dozen; more are noise, and the report would be of many megabytes."""

MOST_DRAWN = 10
"""Of their slices, so many are drawn, those with most of them: a picture of a noisy slice takes 0.1 MB."""

MOST_NAMED = 6
"""Lesions of a slice that its caption names."""

PROBABLY = 0.5
"""Probability of not being coronary above which a report says so instead of naming an artery."""


@dataclass(frozen=True)
class Picture:
    """A JPEG file and its caption."""

    jpeg: bytes
    caption: str


def method_pictures(result: ScoreResult, method: MethodResult) -> tuple[list[Picture], list[Picture]]:
    """The heart region from the front and from the feet, with the outlines of a method's lesions; and the slices with
    these, from head to feet. Of too many lesions, those slices where most of the listed ones are largest."""
    scan, heart, lesions = result.scan, result.heart.mask, method.lesions
    box = pictures.box_around(heart, scan, lesions)
    overviews = [
        Picture(
            pictures.overview_picture(scan, heart, lesions, axis, box),
            f"Maximum intensity projection of the heart region, seen from the {side}",
        )
        for axis, side in ((1, "front"), (0, "feet"))
    ]
    listed = listed_lesions(method, scan.slice_spacing_mm)
    ids = {lesion.id for lesion in listed}
    if len(listed) < len(lesions.lesions):
        largest = Counter(max(x.components, key=lambda c: c.area_mm2 * c.weight).slice_index for x in listed)
        slices = {k for k, _ in largest.most_common(MOST_DRAWN)}
    else:
        slices = {k for lesion in listed for k in lesion.slice_indices}
    drawn = []
    for k in sorted(slices, reverse=True):
        count = sum(c.slice_index == k for lesion in lesions.lesions for c in lesion.components)
        here = [(x, c) for x in listed for c in x.components if c.slice_index == k][:MOST_NAMED]
        names = ", ".join(f"{x.id} {lesion_name(method, x)} {c.peak_hu:.0f} HU" for x, c in here)
        more = f" and {count - len(here)} more" if count > len(here) else ""
        jpeg = pictures.slice_picture(scan, heart, lesions, k, ids, result.territories, box)
        drawn.append(Picture(jpeg, f"{place_of(result, k)}: {names}{more}"))
    return overviews, drawn


def site_pictures(result: ScoreResult) -> list[Picture]:
    """For each site outside the coronary arteries the slice where it has most calcium, with all that lies in it."""
    lesions = result.non_coronary.lesions
    drawn = []
    for k in sorted({_densest_slice(lesions.lesions, s) for s in result.non_coronary.scores} - {None}, reverse=True):
        peaks: dict[Site, float] = {}
        for site, c in ((x.artery, c) for x in lesions.lesions for c in x.components if c.slice_index == k):
            peaks[site] = max(c.peak_hu, peaks.get(site, c.peak_hu))
        names = ", ".join(f"{site.full_name} {peak:.0f} HU" for site, peak in peaks.items())
        jpeg = pictures.slice_picture(result.scan, result.heart.mask, lesions, k, (), result.territories)
        drawn.append(Picture(jpeg, f"{place_of(result, k)}: {names}"))
    return drawn


def saliency_picture(result: ScoreResult, estimate: WholeScanEstimate) -> Picture | None:
    """The slice with the highest saliency of a whole-scan estimate; None where it is 0 everywhere."""
    lesions = result.methods["threshold"].lesions
    drawn = pictures.saliency_picture(result.scan, result.heart.mask, lesions, estimate.saliency)
    if drawn is None:
        return None
    jpeg, k = drawn
    return Picture(
        jpeg,
        f"Slice {k} has the highest saliency. Orange marks where a change would affect the total most. It does not "
        "outline calcium; where it lies on bone or lung, do not rely on the estimate.",
    )


def listed_lesions(method: MethodResult, slice_spacing_mm: float) -> tuple[Lesion, ...]:
    """The lesions that a report lists one by one, in their order: all that were reviewed, else at most MOST_LISTED,
    those with the highest Agatston score times the probability that they are coronary."""
    lesions = method.lesions.lesions
    if method.reviewed or len(lesions) <= MOST_LISTED:
        return lesions

    def weight(lesion: Lesion) -> float:
        suggestion = method.suggestion_of(lesion)
        agatston = sum(component_agatston(c, slice_spacing_mm, method.rules) for c in lesion.components)
        return agatston * (1 if suggestion is None else 1 - suggestion.not_coronary_probability)

    ids = {lesion.id for lesion in sorted(lesions, key=weight, reverse=True)[:MOST_LISTED]}
    return tuple(lesion for lesion in lesions if lesion.id in ids)


def lesion_name(method: MethodResult, lesion: Lesion) -> str:
    """The lesion's artery; for one that nobody has reviewed, the one its place suggests, with a question mark."""
    suggestion = method.suggestion_of(lesion)
    if suggestion is None:
        return lesion.artery.key
    if suggestion.not_coronary_probability > PROBABLY:
        return f"not coronary? {at_most_99_percent(suggestion.not_coronary_probability)}"
    return f"{suggestion.artery.key}? {at_most_99_percent(suggestion.confidence)}"


def place_of(result: ScoreResult, slice_index: int) -> str:
    """Name a slice as Slicer shows it: its index from the feet, and its position on the S axis."""
    size = result.scan.image.GetSize()
    z = result.scan.image.TransformContinuousIndexToPhysicalPoint((size[0] / 2, size[1] / 2, slice_index))[2]
    return f"slice {slice_index} (S {z:.1f} mm)"


def at_most_99_percent(probability: float) -> str:
    """A probability by the territories or an atlas, which is never certain."""
    return f"{min(probability, 0.99):.0%}"


def _densest_slice(lesions: tuple[Lesion, ...], site: Site) -> int | None:
    weights: Counter[int] = Counter()
    for component in (c for lesion in lesions if lesion.artery == site for c in lesion.components):
        weights[component.slice_index] += component.area_mm2 * component.weight
    return max(weights, key=weights.__getitem__, default=None)
