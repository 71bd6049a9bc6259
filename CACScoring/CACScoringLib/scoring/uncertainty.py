"""Uncertainty of lesions and scores: whether a lesion is coronary calcium, an interval for the true score, and how
probable each category is.

The truth of an automatic clinical score is what an expert reader gives the same scan; that of the calcium map is the
score of a still, noise-free scan of the patient.

Each lesion belongs to the true score with its own probability, independently of the others; their sum has the
distribution of a Poisson binomial with amounts. What remains uncertain of a sum, such as lesions that are no candidates
and the outline of those that are, is a lognormal factor, wider for small sums. Intervals are conformal: the level is
that at which nine of ten calibration patients with coronary calcium, and nine of ten without, have their true total
inside (distributional conformal prediction: Chernozhukov, Wüthrich and Zhu 2021, 10.1073/pnas.2107794118, (2nd)).

Reviewed scores have their repeatability: scores of the same patient on the same day differ, and differ more where there
is more calcium. 95 % of such differences stay within factor × (intercept + slope × mean of both scores), from a
regression of absolute differences. The factor is the half-normal one, 1.96 · √(π/2) (Bland and Altman 1999,
10.1177/096228029900800204, (2nd)), or what 95 % of the study's pairs keep to, where that is larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtr

from ..core.categories import CATEGORIES, LIMITS
from ..core.errors import WrongValueError
from ..core.labels import MAIN_ARTERIES, Artery, SiteMap
from ..quality.calibration import CalibrationRange, Repeatability
from ..record.findings import CalibratedOn, Familiarity
from ..record.scores import COUNTED, Lesion, MethodScore, SumScore
from .doubt import decisive_lesions, possible_stents, total_without_stents

LEVEL = 0.9
"""Coverage of all intervals."""

TOTAL = "total"

Bounds = tuple[float, float]

CELL = 0.01
"""Width in ln(1 + sum) within which sums of lesions are taken together."""

CERTAIN = 1e-3
"""Probability below which a lesion is taken as absent, and above 1 minus which as present."""

_HALVINGS = 30
"""Halvings by which a quantile of ln(1 + score) is found."""


COUNTS_FROM = 0.56
"""Probability from which a lesion counts. Chosen on people with and without calcium: of what lies between it and one
half, almost all was false."""

LEAST_PROBABILITY, LEAST_BY_PLACE = 1e-3, 0.02
"""Least probability of either answer that log-odds are taken of, by the networks and by a territory, whose border is no
more exact than some mm."""


class LesionAmounts(NamedTuple):
    """Lesions that may belong to a score.

    Attributes:
        amounts: Score of each, [n].
        probabilities: Probability that each belongs to the true score, [n].
    """

    amounts: Sequence[float]
    probabilities: Sequence[float]


@dataclass(frozen=True)
class ScoreDistribution:
    """Distribution of a true score.

    Attributes:
        sums: Possible sums of the lesions, rising [n].
        weights: Probability of each sum [n].
        spreads: SD of ln(1 + true score) around ln(1 + sum), of each sum [n].
    """

    sums: np.ndarray
    weights: np.ndarray
    spreads: np.ndarray

    @classmethod
    def of(
        cls, amounts: Sequence[float], probabilities: Sequence[float], spread: float, small: float = 0.0
    ) -> ScoreDistribution:
        """Return the distribution of the sum of lesions.

        Args:
            amounts: Score of each lesion, not below 0.
            probabilities: Probability that each belongs to the score.
            spread: SD of ln(1 + true score) around ln(1 + sum) of large sums, and where nothing belongs to the score.
            small: 1 + sum at which the variance of ln(1 + true score) is twice that of large sums.
        """
        amount, p = np.asarray(amounts, float), np.asarray(probabilities, float)
        certain = float(amount[p >= 1 - CERTAIN].sum())
        is_open = (p > CERTAIN) & (p < 1 - CERTAIN) & (amount > 0)
        sums: np.ndarray = np.array([certain])
        weights: np.ndarray = np.ones(1)
        for size, chance in zip(amount[is_open], p[is_open], strict=True):
            sums = np.concatenate([sums, sums + size])
            weights = np.concatenate([(1 - chance) * weights, chance * weights])
            # Sums taken together keep their mean, and small lesions stay beside large ones.
            cells: np.ndarray = np.rint(np.log1p(sums) / CELL).astype(int)
            totals, moments = np.bincount(cells, weights), np.bincount(cells, weights * sums)
            is_possible = totals > 0
            sums, weights = moments[is_possible] / totals[is_possible], totals[is_possible]
        growth = np.where(sums > 0, np.sqrt(1 + small / (1 + sums)), 1.0)
        return cls(sums, weights / weights.sum(), np.maximum(spread * growth, 1e-6))

    def below(self, scores: np.ndarray | float) -> np.ndarray:
        """Return the probability that the true score is at most each score, [n]."""
        distance = np.log1p(np.atleast_1d(scores))[:, None] - np.log1p(self.sums)
        return ndtr(distance / self.spreads) @ self.weights

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval between the quantiles (1 − level) / 2 and (1 + level) / 2, no lower than 0."""
        highest = float((np.log1p(self.sums) + 5 * self.spreads).max()) + 1e-3
        probabilities = np.array(((1 - level) / 2, (1 + level) / 2))
        low, high = np.zeros(2), np.full(2, highest)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            is_too_low = self.below(np.expm1(middle)) < probabilities
            low, high = np.where(is_too_low, middle, low), np.where(is_too_low, high, middle)
        return math.expm1(low[0]), math.expm1(low[1])

    def chances(self, limits: Sequence[float]) -> tuple[float, ...]:
        """Return the probability of each class between limits, which rise; they add up to 1."""
        below = [0.0, *self.below(np.array(limits)).tolist(), 1.0]
        return tuple(max(high - low, 0.0) for low, high in pairwise(below))


@dataclass(frozen=True)
class ScoreErrors:
    """Errors of one kind of score on calibration patients.

    Attributes:
        spread: SD of ln(1 + truth) around ln(1 + sum of the lesions that belong to it), of large scores.
        level: Probability between an interval's ends by the distribution alone, such that LEVEL of the calibration
            patients have their true score inside; of totals, LEVEL of those with coronary calcium and of those without.
        sharpness: Weight of the lesions' log odds. The probabilities hold for all lesions, most of which are small;
            above 1, those that make a score are more certain.
        small: 1 + score at which the variance of ln(1 + truth) is twice that of large scores; 0 if all have the same.
    """

    spread: float
    level: float
    sharpness: float = 1.0
    small: float = 0.0

    def __post_init__(self) -> None:
        """Raise WrongValueError for a value below 0, a level that is not between 0 and 1, or no sharpness."""
        valid = {
            "spread": self.spread >= 0,
            "level": 0 < self.level < 1,
            "sharpness": self.sharpness > 0,
            "small": self.small >= 0,
        }
        for name, is_valid in valid.items():
            if not is_valid:
                raise WrongValueError(name, getattr(self, name))

    def distribution(self, lesions: LesionAmounts, distance: float = 0.0) -> ScoreDistribution:
        """Return the distribution of the true score. distance: Of the scan from the calibration range."""
        p = expit(self.sharpness * logit(np.asarray(lesions.probabilities, float)))
        return ScoreDistribution.of(lesions.amounts, p, self.spread * (1 + distance), self.small)

    def interval(self, lesions: LesionAmounts, distance: float = 0.0) -> tuple[float, float]:
        """Return the interval of the true score; arguments as of `distribution`."""
        return self.distribution(lesions, distance).interval(self.level)


@dataclass(frozen=True)
class Uncertainty:
    """Errors of one method's scores, as stored with a model: Agatston scores (`total`, `artery`) and masses.

    A mass has the errors of the Agatston score.
    """

    total: ScoreErrors
    artery: ScoreErrors


@dataclass(frozen=True)
class LesionCalibration:
    """Weights of log-odds that add up to those of a lesion being coronary calcium, stored with the calibration.

    Gated scans and others have weights of their own, because motion makes rims that look like calcium.

    Attributes:
        network: Weight of the lesion network's answer.
        territories: Weight of the arteries' territories.
        intercept: Addend.
        gated_network: Weight of the lesion network's answer in gated scans.
        gated_territories: Weight of the arteries' territories in gated scans.
        gated_intercept: Addend in gated scans.
    """

    network: float = 1.0
    territories: float = 0.0
    intercept: float = 0.0
    gated_network: float = 1.0
    gated_territories: float = 0.0
    gated_intercept: float = 0.0

    def probability(self, coronary: np.ndarray, in_artery: np.ndarray, is_gated: bool) -> np.ndarray:
        """Return the calibrated probability of being coronary calcium, [n].

        Args:
            coronary: Probability by the lesion network, [n].
            in_artery: Probability of lying in an artery's territory, [n].
            is_gated: True if the scan was gated.
        """
        weights = (self.network, self.territories, self.intercept)
        if is_gated:
            weights = (self.gated_network, self.gated_territories, self.gated_intercept)
        evidence = weights[0] * log_odds(coronary) + weights[1] * place_log_odds(in_artery) + weights[2]
        return 1 / (1 + np.exp(-evidence))


def place_log_odds(in_artery: np.ndarray) -> np.ndarray:
    """Return the log-odds of lying in an artery's territory, bounded by LEAST_BY_PLACE."""
    return log_odds(np.clip(in_artery, LEAST_BY_PLACE, 1 - LEAST_BY_PLACE))


def log_odds(probability: np.ndarray | float) -> np.ndarray:
    """Return the log-odds of probabilities, bounded by LEAST_PROBABILITY."""
    p = np.clip(np.asarray(probability, float), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.log(p / (1 - p))


@dataclass(frozen=True)
class VerdictCalibration:
    """All that verdicts follow from beside the networks' answers: weights, limits and temperature.

    Attributes:
        lesions: Weights of the lesion network's answers; None to judge no dense lesion by them.
        counts_from: Probability from which a dense lesion counts.
        temperature: Factor of the territories' overconfidence in an artery.
        map_weights: Weights of the probability that a lesion of the calcium map where nothing is dense is coronary
            calcium (`sites.MAP_FEATURES`); None for its place alone.
        most_not_coronary: Probability of not being coronary above which such a lesion is left out.
    """

    lesions: LesionCalibration | None = None
    counts_from: float = COUNTS_FROM
    temperature: float = 1.0
    map_weights: dict[str, float] | None = None
    most_not_coronary: float = 1.0

    @property
    def evidence(self) -> dict[str, object] | None:
        """Weights and limit of dense lesions, as `scores.json` states them; None without weights."""
        return None if self.lesions is None else {**asdict(self.lesions), "counts_from": self.counts_from}


@dataclass(frozen=True)
class ScoreCalibration:
    """Calibration of scores, as stored with the model of the calcium map beside the map's settings.

    Attributes:
        candidates: Calibration of the lesion network's answers; None if lesions are not judged.
        uncertainty: Errors of scores: "automatic" for the clinical rule, "decomposition" for the map.
        known: Calibration range; None if unknown.
        calibrated_on: Reference scans of the errors; None for digital patients.
    """

    candidates: LesionCalibration | None = None
    uncertainty: dict[str, Uncertainty] = field(default_factory=dict)
    known: CalibrationRange | None = None
    calibrated_on: CalibratedOn | None = None


@dataclass(frozen=True)
class ScanErrors:
    """Errors of scores in one scan.

    Attributes:
        by_kind: Errors by kind of score (`ScoreCalibration`).
        familiarity: Distance from the calibration range; None if the model holds none.
        calibrated_on: Reference scans of the errors; None for digital patients.
        repeatability: Repeatability, of reviewed scores among others; None if no study is stored.
    """

    by_kind: dict[str, Uncertainty] = field(default_factory=dict)
    familiarity: Familiarity | None = None
    calibrated_on: CalibratedOn | None = None
    repeatability: Repeatability | None = None

    @property
    def withholds(self) -> bool:
        """True if the scan is out of the calibration range, so that automatic scores have no intervals."""
        return self.familiarity is not None and self.familiarity.out_of_range

    @property
    def distance(self) -> float:
        """Distance from the calibration range; 0 if it is unknown."""
        return 0.0 if self.familiarity is None else self.familiarity.distance

    def of_reviewed(self, agatston: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Return the intervals of a reviewed clinical score by its repeatability, which is that of scores above 0.

        There are none of 0, or above the study's scores.

        agatston: Score of the total (TOTAL) and of arteries.
        """
        every = {} if self.repeatability is None else self.repeatability.limits
        limits = every.get("threshold", {}).get("agatston", {})
        parts = {key: limits.get("total" if key == TOTAL else "artery") for key in agatston}
        return {
            key: limit.interval(agatston[key])
            for key, limit in parts.items()
            if limit is not None and 0 < agatston[key] <= limit.highest
        }


def with_intervals(
    method: MethodScore,
    errors: ScanErrors,
    decided: Collection[int] = (),
    ostial: Sequence[Lesion] = (),
    withheld: bool = False,
) -> MethodScore:
    """Add the intervals of a method's scores, and the category probabilities of an automatic score.

    A calcium map has them until somebody reviews it; a reviewed clinical score has its repeatability. Automatic scores
    of a scan out of the calibration range, or whose class possible stents make, have neither, nor have scores by other
    rules than the clinical ones.

    Args:
        method: Scores by the method.
        errors: Errors of scores in this scan.
        decided: IDs of lesions that a reader has decided about.
        ostial: Calcium of the aortic root that may be an artery's, as lesions of the artery. It belongs to the true
            score with an even chance in the upper ends of intervals, and in the category probabilities.
        withheld: True for the calcium map beside a clinical score whose interval is withheld.
    """
    without_stents = None if method.is_map else total_without_stents(method, decided)
    if without_stents is not None:
        largest = possible_stents(method, decided)[0]
        method = replace(method, alternative_agatston=without_stents, alternative_lesion=largest.id)
    elif decisive := decisive_lesions(method, decided):
        method = replace(method, alternative_agatston=decisive[0][1], alternative_lesion=decisive[0][0].id)
    if not method.is_map and not method.rules.is_clinical:
        return method
    if method.reviewed:
        scores = {TOTAL: method.total, **{artery.key: method.arteries[artery] for artery in MAIN_ARTERIES}}
        agatston = {key: score.clinical_agatston for key, score in scores.items()}
        return method if method.is_map else _with(method, errors.of_reviewed(agatston), {})
    if (errors.withholds or withheld or without_stents is not None) and method.status == "automatic":
        return replace(method, withheld=True)
    uncertainty = errors.by_kind.get("decomposition" if method.is_map else method.status)
    if uncertainty is None:
        return method
    candidates = method.lesions if method.is_map else method.listed
    likely = [(lesion, _probability(lesion, decided)) for lesion in candidates]
    possible = [*likely, *((lesion, 0.5) for lesion in ostial)]
    c, distance = method.rules.calibration_mg_per_mm3_hu, errors.distance

    def interval(kind: ScoreErrors, measure: Callable[[Lesion], float], artery: Artery | None = None) -> Bounds:
        low, high = kind.interval(_amounts(likely, measure, artery), distance)
        return (low, max(high, kind.interval(_amounts(possible, measure, artery), distance)[1]) if ostial else high)

    def intervals(measure: Callable[[Lesion], float]) -> dict[str, Bounds]:
        of_arteries = {artery.key: interval(uncertainty.artery, measure, artery) for artery in MAIN_ARTERIES}
        return {TOTAL: interval(uncertainty.total, measure), **of_arteries}

    of_scores = intervals(attrgetter("clinical_agatston"))
    masses = {} if c is None else intervals(lambda lesion: c * lesion.pseudo_mass_hu_mm3)
    method = replace(_with(method, of_scores, masses), calibrated_on=errors.calibrated_on)
    if method.probabilities_withheld:
        return method
    distribution = uncertainty.total.distribution(_amounts(possible, attrgetter("clinical_agatston")), distance)
    return replace(method, category_probabilities=dict(zip(CATEGORIES, distribution.chances(LIMITS), strict=True)))


def _amounts(
    lesions: Sequence[tuple[Lesion, float]], measure: Callable[[Lesion], float], artery: Artery | None = None
) -> LesionAmounts:
    """Return the amounts of lesions, each with its probability of belonging to the score, of an artery or of all."""
    part = [(measure(x), p) for x, p in lesions if p > 0 and artery in (None, _artery(x))]
    return LesionAmounts([amount for amount, _ in part], [p for _, p in part])


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
