"""Prediction intervals and category probabilities of a method's scores in a scan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from ..core.labels import MAIN_ARTERIES, Artery, SiteMap
from ..record.scores import COUNTED, Lesion, MethodScore, SumScore
from .doubt import decisive_lesions
from .uncertainty import CATEGORIES, LIMITS, TOTAL, LesionAmounts, ScanErrors

MAX_RATIO = 30.0
"""Ratio of an interval's ends, each plus 1, above which the score is not determined and has no interval."""

Bounds = tuple[float, float]


def with_intervals(method: MethodScore, errors: ScanErrors, decided: Collection[int] = ()) -> MethodScore:
    """Add the intervals of a method's scores, and the category probabilities of an automatic score.

    A calcium map has them until somebody reviews it; a reviewed clinical score has its repeatability. Automatic scores
    of a scan out of the calibration range have neither, nor have scores by other rules than the clinical ones.

    Args:
        method: Scores by the method.
        errors: Errors of scores in this scan.
        decided: IDs of lesions that a reader has decided about.
    """
    decisive = decisive_lesions(method, decided)
    if decisive:
        method = replace(method, alternative_agatston=decisive[0][1], alternative_lesion=decisive[0][0].id)
    if not method.is_map and not method.rules.is_clinical:
        return method
    if method.reviewed:
        scores = {TOTAL: method.total, **{artery.key: method.arteries[artery] for artery in MAIN_ARTERIES}}
        agatston = {key: score.clinical_agatston for key, score in scores.items()}
        return method if method.is_map else _with(method, errors.of_reviewed(agatston), {})
    if errors.withholds and method.status == "automatic":
        return replace(method, withheld=True)
    uncertainty = errors.by_kind.get("decomposition" if method.is_map else method.status)
    if uncertainty is None:
        return method
    candidates = method.lesions if method.is_map else method.listed
    lesions = [(lesion, _probability(lesion, decided)) for lesion in candidates]
    c = method.rules.calibration_mg_per_mm3_hu

    def amounts(measure: Callable[[Lesion], float], artery: Artery | None = None) -> LesionAmounts:
        part = [(measure(x), p) for x, p in lesions if p > 0 and artery in (None, _artery(x))]
        return LesionAmounts([amount for amount, _ in part], [p for _, p in part])

    def intervals(measure: Callable[[Lesion], float]) -> dict[str, Bounds]:
        total = uncertainty.total.interval(amounts(measure), errors.distance)
        of_arteries = {x.key: uncertainty.artery.interval(amounts(measure, x), errors.distance) for x in MAIN_ARTERIES}
        return {TOTAL: total, **of_arteries}

    of_scores = intervals(lambda lesion: lesion.clinical_agatston)
    low, high = of_scores[TOTAL]
    if (high + 1) / (low + 1) > MAX_RATIO and method.total.clinical_agatston >= LIMITS[0]:
        return replace(method, undetermined=True)
    masses = {} if c is None else intervals(lambda lesion: c * lesion.pseudo_mass_hu_mm3)
    method = replace(_with(method, of_scores, masses), calibrated_on=errors.calibrated_on)
    if method.probabilities_withheld:
        return method
    distribution = uncertainty.total.distribution(amounts(lambda lesion: lesion.clinical_agatston), errors.distance)
    return replace(method, category_probabilities=dict(zip(CATEGORIES, distribution.chances(LIMITS), strict=True)))


def _probability(lesion: Lesion, decided: Collection[int]) -> float:
    """Return the probability that a lesion belongs to the true score."""
    if lesion.verdict is None or lesion.id in decided:
        return float(lesion.status == COUNTED)
    return lesion.verdict.probability


def _artery(lesion: Lesion) -> Artery | None:
    """Return the artery that a lesion belongs to if it is coronary."""
    if lesion.status == COUNTED and isinstance(lesion.site, Artery):
        return lesion.site
    return None if lesion.verdict is None else lesion.verdict.artery


def _with(method: MethodScore, agatston: Mapping[str, Bounds], masses: Mapping[str, Bounds]) -> MethodScore:
    """Return scores with their intervals, widened where needed to hold the scores and masses themselves."""
    c = method.rules.calibration_mg_per_mm3_hu

    def stated(key: str, score: SumScore) -> SumScore:
        if key not in agatston:
            return score
        interval = _holding(agatston[key], score.clinical_agatston)
        mass = _holding(masses[key], (c or 0.0) * score.pseudo_mass_hu_mm3) if key in masses else None
        return replace(score, interval_90=interval, mass_interval_90=mass)

    arteries = SiteMap({artery: stated(artery.key, score) for artery, score in method.arteries.items()})
    return replace(method, total=stated(TOTAL, method.total), arteries=arteries)


def _holding(interval: Bounds, score: float) -> Bounds:
    return min(interval[0], score), max(interval[1], score)
