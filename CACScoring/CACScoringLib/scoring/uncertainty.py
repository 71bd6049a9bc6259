"""Uncertainty of a score: an interval for the true score, and how probable each category is.

The truth of an automatic clinical score is what an expert reader gives the same scan; that of the calcium map is the
score of a still, noise-free scan of the patient.

Each lesion belongs to the true score with its own probability; the distribution of their sum, spread by what
calibration patients show beside it, gives interval and categories (`ScoreDistribution`). Intervals are conformal: the
level is that at which nine of ten calibration patients have their true score inside (distributional conformal
prediction: Chernozhukov, Wüthrich and Zhu 2021, 10.1073/pnas.2107794118, (2nd)).

Reviewed scores have their repeatability: scores of the same patient on the same day differ, and differ more where there
is more calcium. 95 % of such differences stay within factor × (intercept + slope × mean of both scores), from a
regression of absolute differences. The factor is the half-normal one, 1.96 · √(π/2) (Bland and Altman 1999,
10.1177/096228029900800204, (2nd)), or what 95 % of the study's pairs keep to, where that is larger.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

from ..core.errors import WrongValueError
from ..quality.calibration import CalibrationRange, Repeatability
from ..record.findings import CalibratedOn, Familiarity
from .distribution import ScoreDistribution
from .lesion_calibration import LesionCalibration

LEVEL = 0.9
"""Coverage of all intervals."""

LIMITS = (1.0, 100.0, 400.0)
"""Agatston scores between the categories."""

CATEGORIES = ("0", "1-99", "100-399", "400+")

TOTAL = "total"


def category_of(agatston: float) -> str:
    """Return the one of CATEGORIES that a score belongs to."""
    return CATEGORIES[bisect.bisect_right(LIMITS, agatston)]


class LesionAmounts(NamedTuple):
    """Lesions that may belong to a score.

    Attributes:
        amounts: Score of each, [n].
        probabilities: Probability that each belongs to the true score, [n].
    """

    amounts: Sequence[float]
    probabilities: Sequence[float]


@dataclass(frozen=True)
class ScoreErrors:
    """Errors of one kind of score on calibration patients.

    Attributes:
        spread: SD of ln(1 + truth) around ln(1 + sum of the lesions that belong to it).
        level: Probability between an interval's ends by the distribution alone, such that LEVEL of the calibration
            patients have their true score inside.
        sharpness: Weight of the lesions' log odds. The probabilities hold for all lesions, most of which are small;
            above 1, those that make a score are more certain.
    """

    spread: float
    level: float
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        """Raise WrongValueError for a spread below 0, a level that is not between 0 and 1, or no sharpness."""
        valid = {"spread": self.spread >= 0, "level": 0 < self.level < 1, "sharpness": self.sharpness > 0}
        for name, is_valid in valid.items():
            if not is_valid:
                raise WrongValueError(name, getattr(self, name))

    def distribution(self, lesions: LesionAmounts, distance: float = 0.0) -> ScoreDistribution:
        """Return the distribution of the true score. distance: Of the scan from the calibration range."""
        p = expit(self.sharpness * logit(np.asarray(lesions.probabilities, float)))
        return ScoreDistribution.of(lesions.amounts, p, self.spread * (1 + distance))

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
        """Return the intervals of a reviewed clinical score by its repeatability; none above the study's scores.

        agatston: Score of the total (TOTAL) and of arteries.
        """
        every = {} if self.repeatability is None else self.repeatability.limits
        limits = every.get("threshold", {}).get("agatston", {})
        parts = {key: limits.get("total" if key == TOTAL else "artery") for key in agatston}
        return {
            key: limit.interval(agatston[key])
            for key, limit in parts.items()
            if limit is not None and agatston[key] <= limit.highest
        }
