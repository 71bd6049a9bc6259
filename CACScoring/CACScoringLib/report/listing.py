"""Lesions and candidates that a report lists, and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.labels import Artery
from ..record.scores import Lesion, MethodScore, Verdict
from ..scoring.doubt import MAX_ERROR, impact

if TYPE_CHECKING:
    from ..results import CalciumResult

MAX_LISTED = 50
"""Unreviewed candidates listed one by one, those that are largest and most probably coronary first. A patient has some
dozen; more are noise, and the report would take many megabytes."""

PROBABLY = 0.5
"""Probability of not being coronary above which a report says so of a candidate instead of naming an artery."""


def left_out_candidates(result: CalciumResult) -> list[tuple[Lesion, Verdict]]:
    """Return the candidates that the automatic clinical score leaves out, by `doubt.impact`."""
    method = result.methods["threshold"]
    judged = [(lesion, lesion.verdict) for lesion in method.left_out if lesion.verdict is not None]
    return sorted(judged, key=lambda pair: -impact(method, pair[0]))


def listed_lesions(method: MethodScore) -> tuple[Lesion, ...]:
    """Return the lesions that a report lists one by one, in their order.

    All reviewed lesions, else at most MAX_LISTED: those with the highest Agatston score times probability of being
    coronary.
    """
    if method.reviewed or len(method.lesions) <= MAX_LISTED:
        return method.lesions

    def weight(lesion: Lesion) -> float:
        return lesion.agatston * (1 if lesion.verdict is None else lesion.verdict.probability)

    ids = {lesion.id for lesion in sorted(method.lesions, key=weight, reverse=True)[:MAX_LISTED]}
    return tuple(lesion for lesion in method.lesions if lesion.id in ids)


def probability_of(method: MethodScore, lesion: Lesion) -> float | None:
    """Return the probability that a counted lesion of an automatic score is coronary calcium; None of other scores."""
    return None if method.status != "automatic" or lesion.verdict is None else lesion.verdict.probability


def is_doubtful(method: MethodScore, lesion: Lesion) -> bool:
    """True if a counted lesion is doubtful (`doubt.MAX_ERROR`)."""
    probability = probability_of(method, lesion)
    return probability is not None and round(1 - probability, 2) > MAX_ERROR


def number_of(method: MethodScore, lesion: Lesion) -> str:
    """Return the number of a lesion, with a star if it is doubtful."""
    return f"{lesion.id}*" if is_doubtful(method, lesion) else str(lesion.id)


def probability_text(method: MethodScore, lesion: Lesion) -> str:
    """Return "probability 71 %" of a counted lesion; empty if unknown."""
    probability = probability_of(method, lesion)
    return "" if probability is None else f"probability {at_most_99_percent(probability)}"


def doubtful_text(method: MethodScore, artery: Artery | None = None) -> str:
    """Return "13 of 84 doubtful" of an artery, or of all lesions; empty if none is doubtful."""
    lesions = [lesion for lesion in method.lesions if artery in (None, lesion.site)]
    count = sum(is_doubtful(method, lesion) for lesion in lesions)
    return f"{count} of {len(lesions)} doubtful" if count else ""


def lesion_name(method: MethodScore, lesion: Lesion) -> str:
    """Name the lesion's artery: for one that nobody has reviewed, the likeliest, or both likely ones.

    The percentage is the probability of that artery if the lesion is coronary calcium. A lesion that an automatic score
    counts is never called "not coronary?".
    """
    verdict = lesion.verdict
    if verdict is None or verdict.artery == Artery.UNASSIGNED:
        return lesion.site.key
    if method.status == "candidates" and verdict.not_coronary_probability > PROBABLY:
        return f"not coronary? ({at_most_99_percent(verdict.not_coronary_probability)})"
    return f"{verdict.arteries} ({at_most_99_percent(verdict.confidence)})"


def place_of(result: CalciumResult, slice_index: int) -> str:
    """Name a slice as Slicer shows it: its index from the feet, and its position on the S axis."""
    size = result.scan.image.GetSize()
    z = result.scan.image.TransformContinuousIndexToPhysicalPoint((size[0] / 2, size[1] / 2, slice_index))[2]
    return f"slice {slice_index} (S {z:.1f} mm)"


def at_most_99_percent(probability: float) -> str:
    """Return a probability as a percentage, capped because it is never certain."""
    return f"{min(probability, 0.99):.0%}"
