"""Doubts about an automatic score: lesions of middling probability that change it, and possible stents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..core.ct import ScanWarning
from ..core.text import abbreviated_list
from .arteries import ArterySuggestion
from .lesions import Lesion
from .methods import MethodResult
from .scores import class_number, score_lesions, score_sites

DOUBTFUL = (0.1, 0.9)
"""Probabilities of being coronary calcium between which a lesion is doubtful."""

LARGE_SHARE = 0.2
"""Share of the higher of two totals, with a doubtful lesion and without, that makes it decisive."""


@dataclass(frozen=True)
class DoubtfulLesion:
    """Lesion of middling probability of being coronary calcium, or possible stent.

    Attributes:
        lesion: The lesion.
        suggestion: Its suggested artery, with its probability.
        is_counted: True if it counts.
    """

    lesion: Lesion
    suggestion: ArterySuggestion
    is_counted: bool

    @property
    def alternative_probability(self) -> float:
        """Probability that it counts wrongly, or is left out wrongly."""
        not_coronary = self.suggestion.not_coronary_probability
        return not_coronary if self.is_counted else 1 - not_coronary


@dataclass(frozen=True)
class DecisiveLesion(DoubtfulLesion):
    """Doubtful lesion that alone changes the risk class, or a fifth of an automatic clinical score.

    Attributes:
        agatston: Its Agatston score.
        alternative: Total Agatston score without it if it counts, else with it.
    """

    agatston: float
    alternative: float


def doubtful_lesions(method: MethodResult) -> list[DoubtfulLesion]:
    """Return the lesions of middling probability, and possible stents, of an automatic score; none of another score."""
    if method.status != "automatic":
        return []
    counted = ((lesion, method.suggestion_of(lesion)) for lesion in method.lesions.lesions)  # none in a label map
    judged = [(lesion, suggestion, True) for lesion, suggestion in counted if suggestion is not None]
    if method.left_out is not None:
        judged += [(lesion, suggestion, False) for lesion, suggestion, _ in method.left_out.candidates()]
    return [
        DoubtfulLesion(lesion, suggestion, is_counted)
        for lesion, suggestion, is_counted in judged
        if DOUBTFUL[0] < 1 - suggestion.not_coronary_probability < DOUBTFUL[1] or lesion.id in method.possible_stents
    ]


def decisive_lesions(method: MethodResult, spacing_mm: tuple[float, float, float]) -> list[DecisiveLesion]:
    """Return the doubtful lesions that decide an automatic clinical score, the largest first.

    spacing_mm: Of the scan along i, j, k.
    """
    if method.left_out is None:
        return []
    total = method.total.agatston
    decisive = []
    for doubt in doubtful_lesions(method):
        if doubt.alternative_probability <= DOUBTFUL[0]:
            continue  # a possible stent that certainly lies in an artery
        agatston = score_lesions([doubt.lesion], spacing_mm, method.rules).agatston
        alternative = max(total - agatston if doubt.is_counted else total + agatston, 0.0)
        changes_class = class_number(alternative) != class_number(total)
        if changes_class or agatston > LARGE_SHARE * max(total, alternative):
            decisive.append(DecisiveLesion(doubt.lesion, doubt.suggestion, doubt.is_counted, agatston, alternative))
    return sorted(decisive, key=lambda doubt: -doubt.agatston)


def rescored(
    method: MethodResult, doubts: Sequence[DoubtfulLesion], are_counted: bool, spacing_mm: tuple[float, float, float]
) -> MethodResult:
    """Return a score with doubtful lesions, or without them.

    Args:
        method: Automatic clinical score.
        doubts: Its doubtful lesions.
        are_counted: True to count them all, False to count none of them.
        spacing_mm: Of the scan along i, j, k.
    """
    ids = {doubt.lesion.id for doubt in doubts}
    lesions = [lesion for lesion in method.lesions.lesions if lesion.id not in ids]
    if are_counted:
        lesions += [replace(doubt.lesion, artery=doubt.suggestion.artery) for doubt in doubts]
    total = score_lesions(lesions, spacing_mm, method.rules)
    return replace(method, total=total, arteries=score_sites(lesions, spacing_mm, method.rules))


def decisive_warning(method: MethodResult, spacing_mm: tuple[float, float, float]) -> list[ScanWarning]:
    """Warn of doubtful lesions that decide a score. spacing_mm: Of the scan along i, j, k."""
    decisive = decisive_lesions(method, spacing_mm)
    if not decisive:
        return []
    doubt = decisive[0]
    subject = "One doubtful lesion decides" if len(decisive) == 1 else f"{len(decisive)} doubtful lesions decide"
    first, last = doubt.lesion.slice_indices[0], doubt.lesion.slice_indices[-1]
    slices = f"slice {first}" if first == last else f"slices {first} to {last}"
    word = "without" if doubt.is_counted else "with"
    message = (
        f"{subject}: {method.total.agatston:.0f}, or {doubt.alternative:.0f} {word} lesion {doubt.lesion.id} "
        f"({doubt.suggestion.artery.key}, {slices}, Agatston score {doubt.agatston:.0f}, probability "
        f"{1 - doubt.suggestion.not_coronary_probability:.2f})."
    )
    return [ScanWarning("doubt-decides", message)]


def stent_warning(method: MethodResult) -> list[ScanWarning]:
    """Warn of lesions that count although they look like a stent."""
    stents = [lesion for lesion in method.lesions.lesions if lesion.id in method.possible_stents]
    if not stents:
        return []
    arteries = ", ".join(dict.fromkeys(lesion.artery.key for lesion in stents))
    ids = abbreviated_list(str(lesion.id) for lesion in stents)
    verb = "looks" if len(stents) == 1 else "look"
    message = (
        f"{len(stents)} of {len(method.lesions.lesions)} counted lesions ({arteries}; lesion {ids}) {verb} like a "
        "stent or a heavily calcified artery. Reject stents: an interval of the score also holds that without them."
    )
    return [ScanWarning("possible-stent", message)]
