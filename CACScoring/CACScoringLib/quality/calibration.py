"""Calibration range of a model, a scan's distance from it, and repeatability of scores.

The model of the map stores the range of each fact about its calibration scans: acquisition, noise, and the part of the
heart in view. A scan inside all ranges has distance 0; else its distance is the largest excess over a range, in widths
of its scale. Unknown facts are not rated. Kernels are rated by their noise, as their names are the vendors' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.acquisition import Acquisition
from ..core.ct import CTScan
from ..core.files import resource_rows
from ..models.cards import ModelCard, list_models
from ..record.findings import BloodPool, Familiarity
from ..record.score_record import ScoreRecord

LIMIT = 1.0
"""Distance from which automatic categories and intervals are withheld."""

METAL = "metal among the arteries"
"""Cause that has no range (`Familiarity.flag`)."""

MIN_SCANS = 20
"""Least number of calibration scans from which a range follows."""

Facts = Mapping[str, float | str | None]


@dataclass(frozen=True)
class Fact:
    """Description of a fact about a scan.

    Attributes:
        title: Name in reports.
        unit: Unit in reports.
        least_width: Least width of the scale, so that facts with little spread are not too strict.
        only_above: True if only values above the range make a scan harder, as of noise.
    """

    title: str
    unit: str
    least_width: float
    only_above: bool = False


FACTS = {
    row["fact"]: Fact(row["title"], row["unit"], float(row["least_width"]), bool(row["only_above"]))
    for row in resource_rows("calibration_facts.csv")
}
"""Descriptions of a scan's facts, by name."""


@dataclass(frozen=True)
class CalibrationRange:
    """Calibration range of a model.

    Attributes:
        ranges: Lowest and highest usual value and width of the scale, for FACTS.
        limit: Distance from which a scan is out of range.
    """

    ranges: dict[str, tuple[float, float, float]]
    limit: float = LIMIT

    @classmethod
    def of(cls, scans: Sequence[Facts]) -> CalibrationRange:
        """Take the 1st to the 99th percentile, and as width the interquartile range, at least `Fact.least_width`."""
        ranges = {}
        for name, fact in FACTS.items():
            values = [float(value) for facts in scans if (value := facts.get(name)) is not None]
            if len(values) >= MIN_SCANS:
                low, first, third, high = np.percentile(values, (1, 25, 75, 99), method="nearest").tolist()
                ranges[name] = (low, high, max(third - first, fact.least_width))
        return cls(ranges)

    def familiarity(self, facts: Facts, has_metal: bool = False) -> Familiarity:
        """Rate a scan by its `calibration_facts`. has_metal: True for metal in the arteries, out of any range."""
        excesses = []
        for name, (low, high, width) in self.ranges.items():
            stated = facts.get(name)
            if name not in FACTS or stated is None:
                continue
            value, fact = float(stated), FACTS[name]
            below = 0.0 if fact.only_above else low - value
            excess = max(below, value - high, 0.0) / max(width, fact.least_width)
            if excess > 0:
                cause = f"{fact.title} {_number(value)} {fact.unit}, known {_number(low)} to {_number(high)}"
                excesses.append((excess, cause))
        excesses.sort(reverse=True)
        distance = max((excess for excess, _ in excesses), default=0.0)
        familiarity = Familiarity(distance, tuple(cause for _, cause in excesses), self.limit)
        return familiarity.flag(METAL) if has_metal else familiarity


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def calibration_facts(scan: CTScan, blood: BloodPool | None, heart: np.ndarray) -> dict[str, float | None]:
    """Return FACTS of a scan. heart: Mask on its grid."""
    return _facts(scan.image.GetSpacing(), scan.acquisition, blood, heart)


def recorded_facts(record: ScoreRecord, heart: np.ndarray) -> dict[str, float | None]:
    """Return FACTS of a scored scan.

    Args:
        record: The result.
        heart: `heart.nii.gz` beside it.
    """
    return _facts(record.input.spacing_mm, record.acquisition, record.measured, heart)


def _facts(
    spacing: Sequence[float], acquisition: Acquisition, blood: BloodPool | None, heart: np.ndarray
) -> dict[str, float | None]:
    return {
        "pixel_mm": spacing[0],
        "slice_spacing_mm": spacing[2],
        "slice_thickness_mm": acquisition.slice_thickness_mm,
        "kvp": acquisition.kvp,
        "noise_hu": None if blood is None else blood.noise_hu,
        "median_hu": None if blood is None else blood.median_hu,
        **framing(heart, spacing),
    }


def framing(heart: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """Return the FACTS that follow from the heart's mask, uint8 0/1 [k, j, i].

    The proportion cut off is the mask's area at an end or a side of the scan, against its largest area in parallel
    planes.
    """
    areas = [heart.sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]
    cut = max(max(area[0], area[-1]) / max(1, area.max()) for area in areas)
    return {
        "field_of_view_mm": heart.shape[2] * spacing[0],
        "heart_ml": float(areas[0].sum() * np.prod(spacing) / 1000),
        "heart_cut_percent": 100 * float(cut),
    }


@dataclass(frozen=True)
class Limits:
    """Repeatability limits of a score: factor × (intercept + slope × mean of both scores).

    Attributes:
        intercept: Intercept of the regression of absolute differences.
        slope: Slope of the regression.
        factor: Factor to what 95 % of differences stay below.
        pairs: Number of pairs in the study.
        highest: Largest mean of a pair in the study, above which the limits do not hold.
    """

    intercept: float
    slope: float
    factor: float
    pairs: int
    highest: float

    def at(self, mean: float | np.ndarray) -> float | np.ndarray:
        """Return the repeatability coefficient at a mean of both scores; 95 % of absolute differences stay below."""
        return self.factor * np.maximum(0.0, self.intercept + self.slope * mean)

    def interval(self, score: float) -> tuple[float, float]:
        """Find the 90 % interval of a second scan's score.

        Returns:
            Lowest and highest score, if differences are normally distributed.
        """
        width = float(self.at(score)) * 1.645 / 1.960
        return max(0.0, score - width), score + width


@dataclass(frozen=True)
class Repeatability:
    """Result of a scan–rescan study, as stored on a model's card.

    Attributes:
        digital: True if the pairs were of digital patients.
        data: Description of the pairs, a line for readers.
        date: Date of the study.
        models: SHA-256 of the models of the study, by network.
        settings: Settings of its calcium maps, as `decomposition_settings` in `scores.json`.
        acquisition: Lowest and highest value of kvp, slice_thickness_mm and slice_spacing_mm in the study.
        limits: Limits by method, quantity, and "total" or "artery" (one for all four). The method "threshold" is that
            of a reader who assigns lesions to arteries, "automatic" the automatic clinical score.
        candidate_evidence: Calibration of the lesion network's answers, as in `scores.json`.
    """

    digital: bool
    data: str
    date: str
    models: dict[str, str]
    settings: dict[str, object] | None
    acquisition: dict[str, tuple[float, float]]
    limits: dict[str, dict[str, dict[str, Limits]]]
    candidate_evidence: dict[str, object] | None = None


def stored_repeatability(record: ScoreRecord) -> Repeatability | None:
    """Return the limits on the card of the model that made a result's calcium map, or of the bundled model without map.

    Returns None if none are stored. Raises ModelError.
    """
    if "decomposition" in record.model_hashes:
        cards = map_cards(record)
    else:
        cards = [model.card for model in list_models("decomposition") if model.origin == "bundled"]
    stored = [card for card in cards if card.repeatability]
    return stored[-1].repeatability_as(Repeatability) if stored else None


def map_cards(record: ScoreRecord) -> list[ModelCard]:
    """Return installed cards of the model that made a result's calcium map; copies calibrated anew have other names.

    Raises ModelError.
    """
    used = [(model.name, model.sha256) for model in record.models if model.network == "decomposition"]
    return [model.card for model in list_models("decomposition") if (model.card.name, model.card.sha256) in used]
