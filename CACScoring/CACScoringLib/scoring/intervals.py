"""Prediction intervals and category probabilities of a method's scores in a scan."""

from __future__ import annotations

from dataclasses import replace

from ..core.labels import MAIN_ARTERIES
from .doubt import decisive_lesions, doubtful_lesions, rescored
from .methods import MethodResult
from .scores import Score
from .uncertainty import TOTAL, ScanErrors


def with_intervals(
    name: str, result: MethodResult, errors: ScanErrors, spacing_mm: tuple[float, float, float]
) -> MethodResult:
    """Add the intervals of a method's scores, and the category probabilities of an automatic score.

    A calcium map has them until somebody reviews it; a reviewed clinical score has its repeatability. Automatic scores
    of a scan out of the calibration range have neither, nor have scores by other rules than the clinical ones. The
    interval of an automatic score spans the scores with and without its doubtful lesions; where one decides, the
    categories of both answers about the largest are weighed by its probability.

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
    doubts = doubtful_lesions(result)
    for answer in (rescored(result, doubts, are_counted, spacing_mm) for are_counted in (False, True) if doubts):
        scores = {TOTAL: answer.total, **_main_arteries(answer)}
        intervals = {part: interval.including(scores[part]) for part, interval in intervals.items()}
    result = replace(result, intervals=intervals, calibrated_on=errors.calibrated_on)
    if result.probabilities_withheld:
        return result
    probabilities = uncertainty.probabilities(result.total, *errors.facts)
    if decisive := decisive_lesions(result, spacing_mm):
        largest = decisive[0]
        alternative = rescored(result, [largest], not largest.is_counted, spacing_mm)
        weight = largest.alternative_probability
        of_alternative = uncertainty.probabilities(alternative.total, *errors.facts)
        probabilities = {key: (1 - weight) * p + weight * of_alternative[key] for key, p in probabilities.items()}
    return replace(result, category_probabilities=probabilities)


def _main_arteries(result: MethodResult) -> dict[str, Score]:
    return {artery.key: result.arteries[artery] for artery in MAIN_ARTERIES}
