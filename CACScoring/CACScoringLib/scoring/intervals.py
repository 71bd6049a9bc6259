"""Prediction intervals and category probabilities of a method's scores in a scan."""

from __future__ import annotations

from dataclasses import replace

from ..core.labels import MAIN_ARTERIES
from .doubt import answers
from .methods import MethodResult
from .scores import Score
from .uncertainty import TOTAL, ScanErrors


def with_intervals(
    name: str, result: MethodResult, errors: ScanErrors, spacing_mm: tuple[float, float, float]
) -> MethodResult:
    """Add the intervals of a method's scores, and the category probabilities of an automatic score.

    A calcium map has them until somebody reviews it; a reviewed clinical score has its repeatability. Automatic scores
    of a scan out of the calibration range have neither, nor have scores by other rules than the clinical ones. Where
    doubtful lesions decide an automatic score, its interval spans the scores with and without them.

    Args:
        name: Key of the method.
        result: Scores by the method.
        errors: Errors of scores in this scan.
        spacing_mm: Of the scan along i, j, k.
    """
    if name == "threshold" and not result.rules.is_clinical:
        return result
    if result.reviewed:
        of_reviewed = errors.of_reviewed(result.total, _main_arteries(result)) if name == "threshold" else {}
        return replace(result, intervals=of_reviewed)
    if errors.withholds and result.status == "automatic":
        return replace(result, withheld=True)
    uncertainty = errors.by_kind.get(result.status if name == "threshold" else "decomposition")
    if uncertainty is None or (name == "decomposition" and result.scaled_agatston is None):
        return result
    intervals = uncertainty.intervals(result.total, _main_arteries(result), *errors.facts)
    for answer in answers(result, spacing_mm):
        scores = {TOTAL: answer.total, **_main_arteries(answer)}
        intervals = {part: interval.including(scores[part]) for part, interval in intervals.items()}
    result = replace(result, intervals=intervals, calibrated_on=errors.calibrated_on)
    if result.probabilities_withheld:
        return result
    return replace(result, category_probabilities=uncertainty.probabilities(result.total, *errors.facts))


def _main_arteries(result: MethodResult) -> dict[str, Score]:
    return {artery.key: result.arteries[artery] for artery in MAIN_ARTERIES}
