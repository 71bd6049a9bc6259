"""Prediction intervals and category probabilities of a method's scores in a scan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ..core.labels import MAIN_ARTERIES, Artery, SiteMap
from ..record.scores import MethodScore, Score, SumScore
from .doubt import answers_of, decisive_lesions, probability_of_error
from .uncertainty import TOTAL, Amount, Intervals, ScanErrors


def with_intervals(method: MethodScore, errors: ScanErrors, decided: Collection[int] = ()) -> MethodScore:
    """Add the intervals of a method's scores, and the category probabilities of an automatic score.

    A calcium map has them until somebody reviews it; a reviewed clinical score has its repeatability. Automatic scores
    of a scan out of the calibration range have neither, nor have scores by other rules than the clinical ones. The
    interval of an automatic score spans the scores with and without its doubtful lesions; where one decides, the
    categories of both answers about the largest are weighed by its probability.

    Args:
        method: Scores by the method.
        errors: Errors of scores in this scan.
        decided: IDs of lesions that a reader has decided about.
    """
    decisive, answers = decisive_lesions(method, decided), answers_of(method)
    if decisive:
        method = replace(method, alternative_agatston=decisive[0][1], alternative_lesion=decisive[0][0].id)
    if not method.is_map and not method.rules.is_clinical:
        return method
    amounts = _amounts(method, method.total, method.arteries)
    if method.reviewed:
        return method if method.is_map else _with(method, errors.of_reviewed(amounts))
    if errors.withholds and method.status == "automatic":
        return replace(method, withheld=True)
    uncertainty = errors.by_kind.get("decomposition" if method.is_map else method.status)
    if uncertainty is None:
        return method
    intervals = uncertainty.intervals(amounts, *errors.facts)
    for answer in (_amounts(method, *scores) for scores in answers):
        intervals = {part: interval.including(answer[part]) for part, interval in intervals.items()}
    method = replace(_with(method, intervals), calibrated_on=errors.calibrated_on)
    if method.probabilities_withheld:
        return method
    probabilities = uncertainty.probabilities(method.total.clinical_agatston, *errors.facts)
    if decisive:
        lesion, alternative = decisive[0]
        assert lesion.verdict is not None
        weight = probability_of_error(lesion.verdict)
        of_alternative = uncertainty.probabilities(alternative, *errors.facts)
        probabilities = {key: (1 - weight) * p + weight * of_alternative[key] for key, p in probabilities.items()}
    return replace(method, category_probabilities=probabilities)


def _amounts(method: MethodScore, total: Score, arteries: Mapping[Artery, Score]) -> dict[str, Amount]:
    """Return the total and the main arteries' scores, with their masses at or above the threshold, as errors have."""
    parts = {TOTAL: total, **{artery.key: arteries[artery] for artery in MAIN_ARTERIES}}
    c = method.rules.calibration_mg_per_mm3_hu
    return {
        key: Amount(score.clinical_agatston, None if c is None else c * score.pseudo_mass_hu_mm3)
        for key, score in parts.items()
    }


def _with(method: MethodScore, intervals: Mapping[str, Intervals]) -> MethodScore:
    """Return scores with their intervals."""

    def stated(key: str, score: SumScore) -> SumScore:
        interval = intervals.get(key)
        if interval is None:
            return score
        return replace(score, interval_90=interval.agatston, mass_interval_90=interval.mass_mg)

    arteries = SiteMap({artery: stated(artery.key, score) for artery, score in method.arteries.items()})
    return replace(method, total=stated(TOTAL, method.total), arteries=arteries)
