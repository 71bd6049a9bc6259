"""How far a scan is from those that the models were calibrated on, as one distance with named causes.

Of each fact about a scan (how it was made, how noisy it is, what of the heart it shows) the range that calibration
scans had is stored with the model of the map. A scan inside all ranges has distance 0; else its distance is the largest
excess over a range, in widths of what is usual. Facts that a scan does not tell are not judged. Kernels are seen by
their noise, because their names are the vendors' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTError, CTScan, ScanWarning
from .acquisition import BloodPool

LIMIT = 1.0
"""Distance from which automatic categories and intervals are withheld."""

METAL = "metal among the arteries"
"""A cause that has no range (`Familiarity.flag`)."""

LEAST_SCANS = 20
"""Fewer calibration scans do not tell what is usual."""

Facts = Mapping[str, float | str | None]


@dataclass(frozen=True)
class Fact:
    """least_width: what does not matter, so that facts in which calibration scans hardly differ are not too strict.
    only_above: whether a lower value is never harder, as less noise is not."""

    title: str
    unit: str
    least_width: float
    only_above: bool = False


FACTS = {
    "field_of_view_mm": Fact("field of view", "mm", 50.0),
    "pixel_mm": Fact("pixels", "mm", 0.1),
    "slice_spacing_mm": Fact("slice spacing", "mm", 1.0),
    "slice_thickness_mm": Fact("slice thickness", "mm", 1.0),
    "kvp": Fact("tube voltage", "kVp", 10.0),
    "noise_hu": Fact("noise", "HU", 5.0, only_above=True),
    "median_hu": Fact("blood", "HU", 15.0),
    "heart_ml": Fact("heart region", "mL", 300.0),
    "heart_cut_percent": Fact("heart cut off", "%", 20.0),
}
"""What is told of a scan, by name."""


@dataclass(frozen=True)
class Familiarity:
    """distance: of a scan from the calibration's. causes: what exceeds its range, in words, the most first. limit: the
    distance from which the scan is beyond what the models know."""

    distance: float
    causes: tuple[str, ...]
    limit: float

    @property
    def out_of_range(self) -> bool:
        return self.distance >= self.limit

    def flag(self, cause: str) -> Familiarity:
        """The same of a scan that is beyond what the models know by what has no range, as metal."""
        return Familiarity(max(self.distance, self.limit), (cause, *self.causes), self.limit)

    @classmethod
    def recorded(cls, content: Mapping) -> Familiarity | None:
        """Of a result; None where it has none. content: of `scores.json`."""
        own = content.get("familiarity")
        return None if own is None else cls(own["distance"], tuple(own["causes"]), own["limit"])

    @property
    def warnings(self) -> list[ScanWarning]:
        """The doubt about automatic scores of a scan unlike the others; it stays whatever a reader has reviewed."""
        if not self.distance:
            return []
        unlike = f"The scan is unlike those that the models were calibrated on: {'; '.join(self.causes)}."
        if self.out_of_range:
            message = f"{unlike} So categories and intervals of automatic scores are withheld."
            return [ScanWarning("beyond-calibration", message)]
        return [
            ScanWarning("unlike-calibration", f"{unlike} Automatic scores are less certain; their intervals are wider.")
        ]


@dataclass(frozen=True)
class CalibrationRange:
    """What calibration scans were like. ranges: of FACTS, lowest and highest usual value, and the width of the scale.
    limit: as of `Familiarity`."""

    ranges: dict[str, tuple[float, float, float]]
    limit: float = LIMIT

    @classmethod
    def of(cls, scans: Sequence[Facts]) -> CalibrationRange:
        """From the 1st to the 99th percentile; the width is the interquartile range, or `Fact.least_width`."""
        ranges = {}
        for name, fact in FACTS.items():
            values = [float(value) for facts in scans if (value := facts.get(name)) is not None]
            if len(values) >= LEAST_SCANS:
                low, first, third, high = np.percentile(values, (1, 25, 75, 99), method="nearest").tolist()
                ranges[name] = (low, high, max(third - first, fact.least_width))
        return cls(ranges)

    @classmethod
    def stored(cls, calibration: Mapping) -> CalibrationRange | None:
        """From a model's calibration; None where it holds none. Raises CTError when it does not match this version."""
        content = calibration.get("known")
        if content is None:
            return None
        try:
            ranges = {name: (float(a), float(b), float(width)) for name, (a, b, width) in content["ranges"].items()}
            return cls(ranges, float(content["limit"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            message = f"What the model's calibration scans were like cannot be read ({error!r}). Calibrate it again."
            raise CTError(message) from error

    def familiarity(self, facts: Facts) -> Familiarity:
        """Of a scan; see `facts_of`."""
        found = []
        for name, (low, high, width) in self.ranges.items():
            known = facts.get(name)
            if name not in FACTS or known is None:
                continue
            value, fact = float(known), FACTS[name]
            below = 0.0 if fact.only_above else low - value
            excess = max(below, value - high, 0.0) / max(width, fact.least_width)
            if excess > 0:
                cause = f"{fact.title} {_number(value)} {fact.unit}, known {_number(low)} to {_number(high)}"
                found.append((excess, cause))
        found.sort(reverse=True)
        return Familiarity(max((excess for excess, _ in found), default=0.0), tuple(c for _, c in found), self.limit)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def facts_of(scan: CTScan, blood: BloodPool | None, heart: sitk.Image) -> dict[str, float | None]:
    """FACTS of a scan. heart: mask on its grid."""
    spacing, acquisition = scan.image.GetSpacing(), scan.acquisition
    return {
        "pixel_mm": spacing[0],
        "slice_spacing_mm": spacing[2],
        "slice_thickness_mm": acquisition.slice_thickness_mm,
        "kvp": acquisition.kvp,
        "noise_hu": None if blood is None else blood.noise_hu,
        "median_hu": None if blood is None else blood.median_hu,
        **framing(sitk.GetArrayViewFromImage(heart), spacing),
    }


def recorded_facts(content: Mapping, heart: sitk.Image) -> dict[str, float | None]:
    """FACTS of a scan, from its results.

    Args:
        content: Of `scores.json`.
        heart: `heart.nii.gz` beside it.
    """
    acquisition, measured, spacing = content["acquisition"], content["measured"] or {}, content["input"]["spacing_mm"]
    return {
        "pixel_mm": spacing[0],
        "slice_spacing_mm": spacing[2],
        "slice_thickness_mm": acquisition.get("slice_thickness_mm"),
        "kvp": acquisition.get("kvp"),
        "noise_hu": measured.get("noise_hu"),
        "median_hu": measured.get("median_hu"),
        **framing(sitk.GetArrayViewFromImage(heart), spacing),
    }


def framing(heart: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """What of the body the scan shows: those of FACTS that follow from the heart's mask, uint8 0/1 [k, j, i].

    The heart is cut off where the mask reaches an end or a side of the scan: the area of the mask there, as a
    proportion of its largest area in parallel planes.
    """
    areas = [heart.sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]
    cut = max(max(area[0], area[-1]) / max(1, area.max()) for area in areas)
    return {
        "field_of_view_mm": heart.shape[2] * spacing[0],
        "heart_ml": float(areas[0].sum() * np.prod(spacing) / 1000),
        "heart_cut_percent": 100 * float(cut),
    }
