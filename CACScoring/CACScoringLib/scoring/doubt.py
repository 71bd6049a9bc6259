"""Doubts about an automatic score: lesions of middling probability that change it, and possible stents."""

from __future__ import annotations

from ..core.ct import ScanWarning
from ..core.text import abbreviated_list
from .arteries import ArterySuggestion
from .evidence import LesionSelection
from .lesions import Lesion
from .methods import MethodResult
from .scores import class_number, score_lesions

DOUBTFUL = (0.1, 0.9)
"""Probabilities of being coronary calcium between which a lesion is doubtful."""

LARGE_SHARE = 0.2
"""Share of the higher of two totals, with a doubtful lesion and without, that makes it decisive."""


def decisive_warning(method: MethodResult, spacing_mm: tuple[float, float, float]) -> list[ScanWarning]:
    """Warn of doubtful lesions that alone change the risk class, or a fifth of an automatic clinical score.

    Args:
        method: Automatic clinical score, with what it leaves out.
        spacing_mm: Of the scan along i, j, k.
    """
    if method.left_out is None:
        return []
    total = method.total.agatston
    counted = zip(method.lesions.lesions, method.suggestions, strict=True)
    candidates: list[tuple[Lesion, ArterySuggestion, int]] = [(lesion, x, -1) for lesion, x in counted]
    candidates += [(lesion, x, 1) for lesion, x, _ in method.left_out.candidates()]
    decisive = []
    for lesion, suggestion, sign in candidates:
        if not DOUBTFUL[0] < 1 - suggestion.not_coronary_probability < DOUBTFUL[1]:
            continue
        agatston = score_lesions([lesion], spacing_mm, method.rules).agatston
        alternative = max(total + sign * agatston, 0.0)
        changes_class = class_number(alternative) != class_number(total)
        if changes_class or agatston > LARGE_SHARE * max(total, alternative):
            decisive.append((agatston, alternative, lesion, suggestion))
    if not decisive:
        return []
    agatston, alternative, lesion, suggestion = max(decisive, key=lambda row: row[0])
    subject = "One doubtful lesion decides" if len(decisive) == 1 else f"{len(decisive)} doubtful lesions decide"
    first, last = lesion.slice_indices[0], lesion.slice_indices[-1]
    slices = f"slice {first}" if first == last else f"slices {first} to {last}"
    word = "with" if alternative > total else "without"
    message = (
        f"{subject}: {total:.0f}, or {alternative:.0f} {word} lesion {lesion.id} "
        f"({suggestion.artery.key}, {slices}, Agatston score {agatston:.0f}, probability "
        f"{1 - suggestion.not_coronary_probability:.2f})."
    )
    return [ScanWarning("doubt-decides", message)]


def stent_warning(selection: LesionSelection) -> list[ScanWarning]:
    """Warn, severely, of candidates that count although they look like a stent."""
    stents = [lesion for lesion in selection.lesions.lesions if lesion.id in selection.stents]
    if not stents:
        return []
    arteries = ", ".join(dict.fromkeys(lesion.artery.key for lesion in stents))
    ids = abbreviated_list(str(lesion.id) for lesion in stents)
    verb = "looks" if len(stents) == 1 else "look"
    message = (
        f"{len(stents)} of {len(selection.lesions.lesions)} counted lesions ({arteries}; lesion {ids}) {verb} like a "
        "stent or a heavily calcified artery. A stent is no calcium: reject it, and do not use the score of its vessel "
        "or the category."
    )
    return [ScanWarning("possible-stent", message)]
