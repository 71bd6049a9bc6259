"""Uncertainty of a score: an interval for the true score, and how probable each category is.

The truth of an automatic clinical score is what an expert reader gives the same scan; that of the calcium map is the
score of a still, noise-free scan of the patient.

Intervals are conformal and conditional on the class of the truth (label-conditional conformal prediction: Vovk,
Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, chapter 4.5). Of calibration patients, whose true
score is known, the errors ln(1 + truth) − ln(1 + score), divided by what the scan's noise and slices make of them, are
stored by the class of the truth. A possible true score belongs to the interval if its error lies in the shortest range
that holds nine of ten errors of its class: so in each class, not only on average, the interval holds the truth as often
as it says. Classes of few calibration scans share their errors, and what it says holds for them together. Probabilities
of categories come from logistic regressions, one for each limit between two categories, on the same patients.

Reviewed scores have their repeatability: scores of the same patient on the same day differ, and differ more where there
is more calcium. 95 % of such differences stay within factor × (intercept + slope × mean of both scores), from a
regression of absolute differences. The factor is the half-normal one, 1.96 · √(π/2) (Bland and Altman 1999,
10.1177/096228029900800204, (2nd)), or what 95 % of the study's pairs keep to, where that is larger. All errors lie on
the card of the calcium map's model, because they hold for that model alone.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..core.ct import CTScan
from ..core.errors import CTError
from ..models.cards import ModelCard
from ..quality.calibration import CalibrationRange, Repeatability, facts_of, map_cards
from ..record.findings import BloodPool, CalibratedOn, Familiarity
from ..record.score_record import ScoreRecord
from .lesion_calibration import LesionCalibration

LEVEL = 0.9
"""Coverage of all intervals."""

LIMITS = {"agatston": (1.0, 100.0, 400.0), "mass_mg": (0.2, 20.0, 80.0)}
"""Between the classes of the truth: for the Agatston score those of its categories, for mass about as many patients."""

CATEGORIES = ("0", "1-99", "100-399", "400+")

TOTAL = "total"


def category_of(agatston: float) -> str:
    """Return the one of CATEGORIES that a score belongs to."""
    return CATEGORIES[bisect.bisect_right(LIMITS["agatston"], agatston)]


NOISE_HU, THICKNESS_MM = 20.0, 3.0
"""A usual scan, whose errors are divided by 1; also what is taken where a scan's own values are unknown."""


@dataclass(frozen=True)
class ScoreErrors:
    """Errors of one kind of score on calibration patients.

    Attributes:
        quantity: Key of LIMITS.
        noise_weight: Growth of errors, as a proportion, with each doubling of noise above NOISE_HU.
        thickness_weight: Growth of errors, as a proportion, with each factor of two from THICKNESS_MM.
        errors: Errors by class of the truth, rising.
        chances: Weights for each limit of ln(1 + score), of a score of 0, and of 1, which add up to the log-odds that
            the truth reaches the limit.
    """

    quantity: str
    noise_weight: float
    thickness_weight: float
    errors: tuple[tuple[float, ...], ...]
    chances: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        """Raise CTError unless the errors are of the classes of this version."""
        limits = LIMITS.get(self.quantity, ())
        if not limits or (len(self.errors), len(self.chances)) != (len(limits) + 1, len(limits)):
            raise CTError("The errors of scores on a model's card are of other classes. Calibrate the model again.")

    def difficulty(self, noise_hu: float | None, thickness_mm: float | None) -> float:
        """Return the difficulty of a scan, by which its errors are divided."""
        return difficulty((self.noise_weight, self.thickness_weight), noise_hu, thickness_mm)

    def interval(
        self, score: float, noise_hu: float | None = None, thickness_mm: float | None = None, distance: float = 0.0
    ) -> tuple[float, float]:
        """Find where the true score lies.

        Args:
            score: Of one kind.
            noise_hu: Of the scan.
            thickness_mm: Of its slices.
            distance: Of the scan from the calibration's (`Familiarity`).

        Returns:
            Lowest and highest true score that is not too unlike what calibration patients had, widened where needed
            to include the score itself.
        """
        scale, at = self.difficulty(noise_hu, thickness_mm) * (1 + distance), math.log1p(score)
        bounds = (0.0, *LIMITS[self.quantity], math.inf)
        ends = [score]
        for class_errors, (low, high) in zip(self.errors, itertools.pairwise(bounds), strict=True):
            smallest, largest = shortest(class_errors)
            first = max(low, math.expm1(max(0.0, at + scale * smallest)))
            last = min(high, math.expm1(max(0.0, at + scale * largest)))
            if first <= last:
                ends += [first, last]
        return min(ends), max(ends)

    def probabilities(self, score: float, scale: float = 1.0) -> tuple[float, ...]:
        """Probabilities of the classes of the truth, given a score.

        Args:
            score: Of one kind.
            scale: Factor of the errors in this scan: its difficulty times 1 + its distance.

        Returns:
            One per class; they add up to 1. The first, a truth of 0, has none where the score is higher than that of
            any calibration patient without calcium.
        """
        reached = [1.0]
        for weights in self.chances:
            evidence = weights[0] * math.log1p(score) + weights[1] * (score <= 0) + weights[2]
            reached.append(min(reached[-1], 1 / (1 + math.exp(-max(-50.0, min(50.0, evidence))))))
        without = self.errors[0]
        if without and math.log1p(score) > -scale * without[0]:
            reached[1:] = [probability / reached[1] for probability in reached[1:]]
        return tuple(upper - lower for upper, lower in itertools.pairwise([*reached, 0.0]))


def difficulty(weights: Sequence[float], noise_hu: float | None, thickness_mm: float | None) -> float:
    """Return 1 for a usual scan, more for noise and thin or thick slices. weights: Weights of noise and thickness."""
    noise = max(0.0, (NOISE_HU if noise_hu is None else noise_hu) / NOISE_HU - 1)
    thickness = abs(math.log2((thickness_mm or THICKNESS_MM) / THICKNESS_MM))
    return 1 + weights[0] * noise + weights[1] * thickness


def shortest(errors: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Bound rising errors.

    Returns:
        The ends of the shortest range that holds this share of them and of one more, so that few misses widen no other
        interval; of too few errors the extremes. No bounds without any errors.
    """
    count = len(errors)
    if not count:
        return -math.inf, math.inf
    held = min(count, math.ceil((count + 1) * level - 1e-9))
    ranges = zip(errors, errors[held - 1 :], strict=False)
    return min(ranges, key=lambda ends: (ends[1] - ends[0], abs(ends[0] + ends[1])))


class Amount(NamedTuple):
    """Score of a part of a scan: Agatston score on the clinical scale, and mass at or above the threshold if known."""

    agatston: float
    mass_mg: float | None = None


@dataclass(frozen=True)
class Intervals:
    """90 % prediction intervals, lowest and highest: Agatston score, and mass in mg if known."""

    agatston: tuple[float, float]
    mass_mg: tuple[float, float] | None = None

    def including(self, score: Amount) -> Intervals:
        """Return the smallest intervals that hold these and a score."""
        low, high = self.agatston
        mass_mg = self.mass_mg
        if mass_mg is not None and score.mass_mg is not None:
            mass_mg = min(mass_mg[0], score.mass_mg), max(mass_mg[1], score.mass_mg)
        return Intervals((min(low, score.agatston), max(high, score.agatston)), mass_mg)

    def within(self, total: Intervals, score: Amount) -> Intervals:
        """Return the intervals of a part, no higher than the total's but including the part's score."""
        low, high = self.agatston
        agatston = low, max(score.agatston, min(high, total.agatston[1]))
        if self.mass_mg is None or total.mass_mg is None or score.mass_mg is None:
            return Intervals(agatston, self.mass_mg)
        low, high = self.mass_mg
        return Intervals(agatston, (low, max(score.mass_mg, min(high, total.mass_mg[1]))))


@dataclass(frozen=True)
class Uncertainty:
    """Errors of one method's scores, as stored with a model.

    Attributes:
        total: Errors of totals, by quantity (key of LIMITS).
        artery: Errors of single arteries, by quantity.
    """

    total: dict[str, ScoreErrors]
    artery: dict[str, ScoreErrors]

    def probabilities(
        self, agatston: float, noise_hu: float | None, thickness_mm: float | None, distance: float = 0.0
    ) -> dict[str, float]:
        """Return the probability of each of CATEGORIES, given a total; other arguments as of `intervals`."""
        errors = self.total["agatston"]
        scale = errors.difficulty(noise_hu, thickness_mm) * (1 + distance)
        return dict(zip(CATEGORIES, errors.probabilities(agatston, scale), strict=True))

    def intervals(
        self,
        amounts: Mapping[str, Amount],
        noise_hu: float | None,
        thickness_mm: float | None,
        distance: float = 0.0,
    ) -> dict[str, Intervals]:
        """Return the intervals of the total (TOTAL, which comes first) and of arteries, if their errors are known.

        An artery's interval ends where the total's does.
        """
        scan = noise_hu, thickness_mm, distance
        intervals: dict[str, Intervals] = {}
        for key, score in amounts.items():
            errors = self.total if key == TOTAL else self.artery
            if (of_agatston := errors.get("agatston")) is None:
                continue
            mass, of_mass = None, errors.get("mass_mg")
            if of_mass is not None and score.mass_mg is not None:
                mass = of_mass.interval(score.mass_mg, *scan)
            interval = Intervals(of_agatston.interval(score.agatston, *scan), mass)
            intervals[key] = interval.within(intervals[TOTAL], score) if TOTAL in intervals else interval
        return intervals


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
        noise_hu: Noise of the scan; None if unknown.
        thickness_mm: Thickness of its slices; None if unknown.
        familiarity: Distance from the calibration range; None if the model holds none.
        calibrated_on: Reference scans of the errors; None for digital patients.
        repeatability: Repeatability, of reviewed scores among others; None if no study is stored.
    """

    by_kind: dict[str, Uncertainty]
    noise_hu: float | None
    thickness_mm: float | None
    familiarity: Familiarity | None = None
    calibrated_on: CalibratedOn | None = None
    repeatability: Repeatability | None = None

    @property
    def withholds(self) -> bool:
        """True if the scan is out of the calibration range, so that automatic scores have no intervals."""
        return self.familiarity is not None and self.familiarity.out_of_range

    @property
    def facts(self) -> tuple[float | None, float | None, float]:
        """Facts of the scan.

        Returns:
            Noise, thickness and distance, as `Uncertainty.intervals` takes them.
        """
        return self.noise_hu, self.thickness_mm, 0.0 if self.familiarity is None else self.familiarity.distance

    def of_reviewed(self, amounts: Mapping[str, Amount]) -> dict[str, Intervals]:
        """Return the intervals of a reviewed clinical score by its repeatability; none above the study's scores."""
        every = {} if self.repeatability is None else self.repeatability.limits
        limits = every.get("threshold", {}).get("agatston", {})
        parts = {key: limits.get("total" if key == TOTAL else "artery") for key in amounts}
        return {
            key: Intervals(limit.interval(amounts[key].agatston))
            for key, limit in parts.items()
            if limit is not None and amounts[key].agatston <= limit.highest
        }

    @classmethod
    def of(
        cls, card: ModelCard | None, scan: CTScan, blood: BloodPool | None, heart: np.ndarray, has_metal: bool
    ) -> ScanErrors:
        """Return the errors of scores in a scan.

        Args:
            card: Card of the calcium map's model; None for no errors.
            scan: The scan as scored.
            blood: Blood and noise; None if not measured.
            heart: Mask of the heart on the scan's grid.
            has_metal: True if there is metal among the arteries.

        Raises:
            CTError: The calibration does not match this version.
        """
        if card is None:
            return cls({}, None, None)
        facts, calibration_range = facts_of(scan, blood, heart), card.calibration_as(ScoreCalibration).known
        familiarity = None if calibration_range is None else calibration_range.familiarity(facts, has_metal)
        return cls.stored(card, facts["noise_hu"], facts["slice_thickness_mm"], familiarity)

    @classmethod
    def stored(
        cls,
        card: ModelCard,
        noise_hu: float | None,
        thickness_mm: float | None,
        familiarity: Familiarity | None = None,
    ) -> ScanErrors:
        """Read the errors on the card of the calcium map's model. Raises CTError."""
        stored = card.calibration_as(ScoreCalibration)
        errors, repeatability = dict(stored.uncertainty), card.repeatability_as(Repeatability)
        return cls(errors, noise_hu, thickness_mm, familiarity, stored.calibrated_on, repeatability)

    @classmethod
    def recorded(cls, record: ScoreRecord) -> ScanErrors:
        """Return the errors of a recorded result by the model that made its calcium map.

        There are none without that model, and none of automatic scores if it has been calibrated again since.
        Raises CTError.
        """
        cards = map_cards(record)
        familiarity = record.familiarity
        if not cards:
            return cls({}, None, None, familiarity)
        errors = cls.stored(cards[-1], record.noise_hu, record.acquisition.slice_thickness_mm, familiarity)
        if cards[-1].calibration.get("candidates") != record.candidate_evidence:
            errors.by_kind.pop("automatic", None)
        return errors
