"""Lesions and candidates that a report lists, and their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.labels import Artery
from ..scoring.lesions import Lesion
from ..scoring.scores import component_agatston

if TYPE_CHECKING:
    from ..results import ScoreResult
    from ..scoring.arteries import ArterySuggestion
    from ..scoring.methods import MethodResult

MAX_LISTED = 50
"""Unreviewed candidates listed one by one, those that are largest and most probably coronary first. A patient has some
dozen; more are noise, and the report would take many megabytes."""

PROBABLY = 0.5
"""Probability of not being coronary above which a report says so of a candidate instead of naming an artery."""


DOUBTFUL_BELOW = 0.9
"""Probability of being coronary calcium below which a counted lesion is marked as doubtful."""


@dataclass(frozen=True)
class LeftOutCandidate:
    """A candidate that an automatic score leaves out.

    Attributes:
        lesion: Candidate.
        agatston: Agatston units that it would add to the score.
        suggestion: Suggested artery, and probability of not being coronary.
        reason: Reason for leaving it out, in words.
    """

    lesion: Lesion
    agatston: float
    suggestion: ArterySuggestion
    reason: str

    @property
    def probability(self) -> str:
        """Probability of being coronary calcium, as a percentage."""
        return at_most_99_percent(1 - self.suggestion.not_coronary_probability)


def left_out_candidates(result: ScoreResult) -> list[LeftOutCandidate]:
    """Return the candidates that the automatic clinical score leaves out, by their expected addition to it."""
    method = result.methods["threshold"]
    left_out = method.left_out
    if left_out is None:
        return []
    candidates = [
        LeftOutCandidate(lesion, lesion_agatston(result, lesion), suggestion, reason)
        for lesion, suggestion, reason in left_out.candidates()
    ]
    return sorted(candidates, key=lambda c: -c.agatston * (1 - c.suggestion.not_coronary_probability))


def listed_lesions(method: MethodResult, slice_spacing_mm: float) -> tuple[Lesion, ...]:
    """Return the lesions that a report lists one by one, in their order.

    All reviewed lesions, else at most MAX_LISTED: those with the highest Agatston score times probability of being
    coronary.
    """
    lesions = method.lesions.lesions
    if method.reviewed or len(lesions) <= MAX_LISTED:
        return lesions

    def weight(lesion: Lesion) -> float:
        suggestion = method.suggestion_of(lesion)
        agatston = sum(component_agatston(c, slice_spacing_mm, method.rules) for c in lesion.components)
        return agatston * (1 if suggestion is None else 1 - suggestion.not_coronary_probability)

    ids = {lesion.id for lesion in sorted(lesions, key=weight, reverse=True)[:MAX_LISTED]}
    return tuple(lesion for lesion in lesions if lesion.id in ids)


def probability_of(method: MethodResult, lesion: Lesion) -> float | None:
    """Return the probability that a counted lesion of an automatic score is coronary calcium; None of other scores."""
    suggestion = method.suggestion_of(lesion)
    return None if method.status != "automatic" or suggestion is None else 1 - suggestion.not_coronary_probability


def is_doubtful(method: MethodResult, lesion: Lesion) -> bool:
    """True if the probability of a counted lesion is below DOUBTFUL_BELOW."""
    probability = probability_of(method, lesion)
    return probability is not None and round(probability, 2) < DOUBTFUL_BELOW


def number_of(method: MethodResult, lesion: Lesion) -> str:
    """Return the number of a lesion, with a question mark if it is doubtful."""
    return f"{lesion.id}?" if is_doubtful(method, lesion) else str(lesion.id)


def probability_text(method: MethodResult, lesion: Lesion) -> str:
    """Return "probability 71 %" of a counted lesion; empty if unknown."""
    probability = probability_of(method, lesion)
    return "" if probability is None else f"probability {at_most_99_percent(probability)}"


def doubtful_text(method: MethodResult, artery: Artery | None = None) -> str:
    """Return "13 of 84 doubtful" of an artery, or of all lesions; empty if none is doubtful."""
    lesions = [lesion for lesion in method.lesions.lesions if artery in (None, lesion.artery)]
    count = sum(is_doubtful(method, lesion) for lesion in lesions)
    return f"{count} of {len(lesions)} doubtful" if count else ""


def lesion_name(method: MethodResult, lesion: Lesion) -> str:
    """Name the lesion's artery: for one that nobody has reviewed, the one, or two, that its place suggests.

    The percentage is the probability by the lesion's place alone, which is not that of being calcium: a lesion that an
    automatic score counts is never called "not coronary?", as its evidence was stronger than its place.
    """
    suggestion = method.suggestion_of(lesion)
    if suggestion is None or suggestion.artery == Artery.UNASSIGNED:
        return lesion.artery.key
    if method.status == "candidates" and suggestion.not_coronary_probability > PROBABLY:
        return f"not coronary? (place {at_most_99_percent(suggestion.not_coronary_probability)})"
    return f"{suggestion.arteries}? (place {at_most_99_percent(suggestion.confidence)})"


def place_of(result: ScoreResult, slice_index: int) -> str:
    """Name a slice as Slicer shows it: its index from the feet, and its position on the S axis."""
    size = result.scan.image.GetSize()
    z = result.scan.image.TransformContinuousIndexToPhysicalPoint((size[0] / 2, size[1] / 2, slice_index))[2]
    return f"slice {slice_index} (S {z:.1f} mm)"


def at_most_99_percent(probability: float) -> str:
    """Return a probability as a percentage, capped because it is never certain."""
    return f"{min(probability, 0.99):.0%}"


def lesion_agatston(result: ScoreResult, lesion: Lesion) -> float:
    """Agatston score of one lesion or candidate by the clinical rule."""
    rules = result.methods["threshold"].rules
    return sum(component_agatston(c, result.scan.slice_spacing_mm, rules) for c in lesion.components)
