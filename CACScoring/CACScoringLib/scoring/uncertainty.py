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

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.ct import CTError
from ..models.cards import ModelCard
from ..quality.calibration import CalibratedOn, Familiarity, Repeatability, map_cards
from .scores import Score

LEVEL = 0.9
"""Of all intervals."""

LIMITS = {"agatston": (1.0, 100.0, 400.0), "mass_mg": (0.2, 20.0, 80.0)}
"""Between the classes of the truth: for the Agatston score those of its categories, for mass about as many patients."""

CATEGORIES = ("0", "1-99", "100-399", "400+")

TOTAL = "total"

NOISE_HU, THICKNESS_MM = 20.0, 3.0
"""A usual scan, whose errors are divided by 1; also what is taken where a scan's own values are unknown."""


@dataclass(frozen=True)
class ScoreErrors:
    """Errors of one kind of score on calibration patients.

    quantity: key of LIMITS. noise_weight, thickness_weight: how errors grow with noise above NOISE_HU and slices
    other than THICKNESS_MM, as a proportion for twice as much. errors: by class of the truth, rising. chances: of each
    limit, weights of ln(1 + score), of whether the score is 0, and of 1, for the log-odds that the truth reaches it.
    """

    quantity: str
    noise_weight: float
    thickness_weight: float
    errors: tuple[tuple[float, ...], ...]
    chances: tuple[tuple[float, float, float], ...]

    @classmethod
    def stored(cls, content: Mapping[str, Any]) -> ScoreErrors:
        """From a model's card. Raises CTError when it does not match this version."""
        try:
            errors = tuple(tuple(map(float, one)) for one in content["errors"])
            chances = tuple((float(one[0]), float(one[1]), float(one[2])) for one in content["chances"])
            found = cls(
                content["quantity"], float(content["noise_weight"]), float(content["thickness_weight"]), errors, chances
            )
            limits = len(LIMITS[found.quantity])
        except (IndexError, KeyError, TypeError, ValueError) as error:
            message = f"The errors of scores on a model's card cannot be read ({error!r}). Calibrate the model again."
            raise CTError(message) from error
        if len(errors) != limits + 1 or len(chances) != limits:
            raise CTError("The errors of scores on a model's card are of other classes. Calibrate the model again.")
        return found

    def difficulty(self, noise_hu: float | None, thickness_mm: float | None) -> float:
        """Difficulty of a scan, by which its errors are divided."""
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
        for own, (low, high) in zip(self.errors, itertools.pairwise(bounds), strict=True):
            smallest, largest = shortest(own)
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
            reached[1:] = [one / reached[1] for one in reached[1:]]
        return tuple(one - other for one, other in itertools.pairwise([*reached, 0.0]))


def difficulty(weights: Sequence[float], noise_hu: float | None, thickness_mm: float | None) -> float:
    """1 for a usual scan, more for noise and for thin or thick slices. weights: of noise and of thickness."""
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


@dataclass(frozen=True)
class Intervals:
    """90 % prediction intervals, lowest and highest: Agatston score, and mass in mg if known."""

    agatston: tuple[float, float]
    mass_mg: tuple[float, float] | None = None

    def within(self, total: Intervals, score: Score) -> Intervals:
        """The intervals of a part, no higher than the total's; each holds the part's own score."""
        low, high = self.agatston
        agatston = low, max(score.clinical_agatston, min(high, total.agatston[1]))
        if self.mass_mg is None or total.mass_mg is None or score.mass_mg is None:
            return Intervals(agatston, self.mass_mg)
        low, high = self.mass_mg
        return Intervals(agatston, (low, max(score.mass_mg, min(high, total.mass_mg[1]))))


@dataclass(frozen=True)
class Uncertainty:
    """Errors of one method's scores, as stored with a model. total, artery: by quantity (key of LIMITS)."""

    total: dict[str, ScoreErrors]
    artery: dict[str, ScoreErrors]

    @classmethod
    def stored(cls, calibration: Mapping[str, Any], kind: str) -> Uncertainty | None:
        """From a model's calibration; None where it holds none.

        kind: "automatic" for the clinical rule, "decomposition" for the map. Raises CTError.
        """
        content = calibration.get("uncertainty", {}).get(kind)
        if content is None:
            return None
        return cls(*({q: ScoreErrors.stored(own) for q, own in content[part].items()} for part in ("total", "artery")))

    def probabilities(
        self, total: Score, noise_hu: float | None, thickness_mm: float | None, distance: float = 0.0
    ) -> dict[str, float]:
        """Probability of each of CATEGORIES. The scan's facts are as of `intervals`."""
        errors = self.total["agatston"]
        scale = errors.difficulty(noise_hu, thickness_mm) * (1 + distance)
        return dict(zip(CATEGORIES, errors.probabilities(total.clinical_agatston, scale), strict=True))

    def intervals(
        self,
        total: Score,
        arteries: Mapping[str, Score],
        noise_hu: float | None,
        thickness_mm: float | None,
        distance: float = 0.0,
    ) -> dict[str, Intervals]:
        """Intervals of the total (TOTAL) and of each artery, by its key, if errors of such scores are known.

        An artery's ends where the total's does: none holds more than all of them together.
        """
        scan = noise_hu, thickness_mm, distance
        parts = {TOTAL: (total, self.total), **{key: (score, self.artery) for key, score in arteries.items()}}
        found: dict[str, Intervals] = {}
        for key, (score, errors) in parts.items():
            if (of_agatston := errors.get("agatston")) is None:
                continue
            mass, of_mass = None, errors.get("mass_mg")
            if of_mass is not None and score.mass_mg is not None:
                mass = of_mass.interval(score.mass_mg, *scan)
            own = Intervals(of_agatston.interval(score.clinical_agatston, *scan), mass)
            found[key] = own.within(found[TOTAL], score) if TOTAL in found else own
        return found


@dataclass(frozen=True)
class ScanErrors:
    """Errors of scores in one scan.

    known: by kind (`Uncertainty.stored`). noise_hu, thickness_mm: of the scan; None where unknown. familiarity: None
    where the model holds nothing to tell it by. calibrated_on: whose errors they are; None for digital patients.
    repeatability: of reviewed scores among others; None where no study is stored.
    """

    known: dict[str, Uncertainty]
    noise_hu: float | None
    thickness_mm: float | None
    familiarity: Familiarity | None = None
    calibrated_on: CalibratedOn | None = None
    repeatability: Repeatability | None = None

    @property
    def withholds(self) -> bool:
        """True if the scan is beyond what the models know, so that nothing is said of how far scores err that nobody
        has reviewed."""
        return self.familiarity is not None and self.familiarity.out_of_range

    @property
    def facts(self) -> tuple[float | None, float | None, float]:
        """Facts of the scan.

        Returns:
            Noise, thickness and distance, as `Uncertainty.intervals` takes them.
        """
        return self.noise_hu, self.thickness_mm, 0.0 if self.familiarity is None else self.familiarity.distance

    def of_reviewed(self, total: Score, arteries: Mapping[str, Score]) -> dict[str, Intervals]:
        """Intervals of a reviewed clinical score, by its repeatability; none beyond the scores that were studied."""
        every = {} if self.repeatability is None else self.repeatability.limits
        limits = every.get("threshold", {}).get("agatston", {})
        parts = {TOTAL: (total, "total"), **{key: (score, "artery") for key, score in arteries.items()}}
        return {
            key: Intervals(limits[part].interval(score.clinical_agatston))
            for key, (score, part) in parts.items()
            if part in limits and score.clinical_agatston <= limits[part].highest
        }

    @classmethod
    def stored(
        cls,
        card: ModelCard,
        noise_hu: float | None,
        thickness_mm: float | None,
        familiarity: Familiarity | None = None,
    ) -> ScanErrors:
        """card: of the calcium map's model. Raises CTError."""
        kinds = ("automatic", "decomposition")
        known = {kind: own for kind in kinds if (own := Uncertainty.stored(card.calibration, kind)) is not None}
        repeatability = Repeatability.of(card.repeatability) if card.repeatability else None
        calibrated_on = CalibratedOn.stored(card.calibration)
        return cls(known, noise_hu, thickness_mm, familiarity, calibrated_on, repeatability)

    @classmethod
    def recorded(cls, content: dict[str, Any]) -> ScanErrors:
        """Uncertainty of a result, by the model that made its calcium map; nothing where that is not installed, and
        nothing of automatic scores where it has been calibrated again since. content: of `scores.json`. Raises CTError.
        """
        cards = map_cards(content)
        familiarity = Familiarity.recorded(content)
        if not cards:
            return cls({}, None, None, familiarity)
        noise_hu = (content["measured"] or {}).get("noise_hu")
        found = cls.stored(cards[-1], noise_hu, content["acquisition"].get("slice_thickness_mm"), familiarity)
        if cards[-1].calibration.get("candidates") != content.get("candidate_evidence"):
            found.known.pop("automatic", None)
        return found
