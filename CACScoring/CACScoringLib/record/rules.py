"""The rules by which calcium is scored. Loads nothing that Slicer does not bring along: the panel asks for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from ..core.acquisition import Acquisition
from ..core.ct import ScanWarning
from ..core.errors import CTError
from .findings import MassCalibration

_AGATSTON = "Agatston"
_STANDARD_HU = (130.0, 200.0, 300.0, 400.0)
_REFERENCE_MM = 3.0

TUBE_VOLTAGE_BOUNDS_HU: dict[float, tuple[float, float, float, float]] = {
    70: (207.0, 318.0, 477.0, 636.0),
    80: (177.0, 271.0, 408.0, 544.0),
    100: (145.0, 222.0, 334.0, 446.0),
    135: (119.0, 183.0, 274.0, 364.0),
}
"""Threshold and weight bounds by kVp: Gräni et al. 2018, doi:10.1093/ehjci/jey019 (secondary source). For
100 kVp Nakazato et al. 2009 (Journal of Cardiovascular Computed Tomography 3) found 147 HU in a phantom."""


@dataclass(frozen=True)
class ScoringRules:
    """Scoring rules; the defaults are those of Agatston et al. as clinics apply them.

    Agatston 1990, doi:10.1016/0735-1097(90)90282-T. Impossible values raise CTError.

    Attributes:
        name: Name in reports; one that begins with "Agatston" is kept true to the rules.
        threshold_hu: Voxels of at least this value are candidates (Agatston: 130 HU).
        weight_bounds_hu: A component weighs 1 + the number of bounds that its peak reaches (weights 1–4).
        connectivity: Neighbours to which pixels of a slice are joined, 8 or 4.
        minimum_area_mm2: Smaller components do not count (Agatston: 1 mm²).
        minimum_pixels: Components of fewer pixels do not count (some studies use 3 or 4).
        reference_spacing_mm: Agatston sums are multiplied by slice spacing / this (Agatston: 3 mm).
        calibration_mg_per_mm3_hu: c in mass = c · volume · mean HU, from a phantom scanned with the same protocol; None
            for an uncalibrated scan, which has no mass in mg.
        equivalent_mg_per_mm3_hu: c that converts a calcium map's pseudo-mass to a clinical score; None for the
            clinical rule.
    """

    name: str = _AGATSTON
    threshold_hu: float = _STANDARD_HU[0]
    weight_bounds_hu: tuple[float, float, float] = _STANDARD_HU[1:]
    connectivity: int = 8
    minimum_area_mm2: float = 1.0
    minimum_pixels: int = 1
    reference_spacing_mm: float = _REFERENCE_MM
    calibration_mg_per_mm3_hu: float | None = None
    equivalent_mg_per_mm3_hu: float | None = None

    def __post_init__(self) -> None:
        bounds = self.bounds_hu
        bounds_text = ", ".join(f"{b:g}" for b in bounds)
        if len(bounds) != 4 or not all(map(math.isfinite, bounds)):
            raise CTError(f"The rules need a threshold and three weight bounds in HU, not {bounds_text}.")
        if list(bounds) != sorted(set(bounds)):
            raise CTError(f"Threshold and weight bounds must rise: {bounds_text} HU do not.")
        if self.threshold_hu <= 0:
            raise CTError(f"The threshold must be above 0 HU, but is {self.threshold_hu:g} HU.")
        if self.connectivity not in (4, 8):
            raise CTError(f"Connectivity within a slice is 4 or 8, not {self.connectivity}.")
        for field in fields(self):
            value = getattr(self, field.name)
            if not field.name.startswith(("minimum", "reference", "calibration")) or value is None:
                continue
            if not math.isfinite(value) or value < 0:
                raise CTError(f"{field.name} must be a number from 0 up, but is {value:g}.")
        if self.reference_spacing_mm == 0 or self.calibration_mg_per_mm3_hu == 0:
            raise CTError("The reference spacing and the mass calibration must be above zero.")
        if self.name.startswith(_AGATSTON):
            object.__setattr__(self, "name", self._agatston_name())

    @property
    def bounds_hu(self) -> tuple[float, ...]:
        """Threshold and weight bounds, HU."""
        return (self.threshold_hu, *self.weight_bounds_hu)

    @property
    def is_map(self) -> bool:
        """True for rules of a calcium map, whose scores on the clinical scale follow from masses."""
        return self.equivalent_mg_per_mm3_hu is not None

    @property
    def is_clinical(self) -> bool:
        """True for the published thresholds and weights per 3 mm, which categories and intervals hold for.

        The smallest area and the connectivity vary between clinics.
        """
        published = (_STANDARD_HU, *TUBE_VOLTAGE_BOUNDS_HU.values())
        return self.bounds_hu in published and self.reference_spacing_mm == _REFERENCE_MM

    @property
    def warnings(self) -> tuple[ScanWarning, ...]:
        """Warning that rules are not the clinical ones, if so."""
        if self.is_clinical:
            return ()
        message = f"The score follows other rules than the clinical one ({self.name}): it has no category or interval."
        return (ScanWarning("rules-changed", message),)

    def with_mass_calibration(self, calibration: MassCalibration) -> ScoringRules:
        """Return the rules with a mass calibration; unchanged if it is a published one and not the scanner's own."""
        if not calibration.of_scanner:
            return self
        return replace(self, calibration_mg_per_mm3_hu=calibration.mg_per_cm3_per_hu / 1000)

    def _agatston_name(self) -> str:
        """Return the name that states threshold, published tube voltage, and what else differs from the standard."""
        kvp = next((kvp for kvp, bounds in TUBE_VOLTAGE_BOUNDS_HU.items() if bounds == self.bounds_hu), None)
        name = f"{_AGATSTON}, {self.threshold_hu:g} HU"
        unchanged = {"name", "threshold_hu", "calibration_mg_per_mm3_hu"}
        if kvp is not None:
            name = f"{_AGATSTON} adapted to {kvp:g} kVp, {self.threshold_hu:g} HU (Gräni 2018)"
            unchanged.add("weight_bounds_hu")
        changed = [
            f"{field.name} = {value}"
            for field in fields(self)
            if field.name not in unchanged and (value := getattr(self, field.name)) != field.default
        ]
        return f"{name}, changed: {', '.join(changed)}" if changed else name

    def weight(self, peak_hu: float) -> int:
        """Return the density weight (1 to 4) of a slice component with this highest HU."""
        return 1 + sum(peak_hu >= bound for bound in self.weight_bounds_hu)


@dataclass(frozen=True, kw_only=True)
class ScoringSwitches:
    """Choices of the user that are on or off.

    Attributes:
        adapt_to_tube_voltage: Use the threshold and weights published for the scan's kVp, not those for 120 kVp; off
            for tin-filtered scans.
        allow_contrast: Score a contrast-enhanced scan, with a warning: contrast medium counts as calcium.
        allow_reversed: Score a scan whose anatomy contradicts its header's orientation, as in dextrocardia, with a
            warning.
    """

    adapt_to_tube_voltage: bool = True
    allow_contrast: bool = False
    allow_reversed: bool = False


def rules_for_tube_voltage(acquisition: Acquisition, rules: ScoringRules | None = None) -> ScoringRules:
    """Return the rules, those of Agatston et al. by default, with threshold and weights of a scan's tube voltage.

    They are unchanged at 120 kVp, if the voltage is unknown or nothing is published for it, and if the threshold or
    the weights were changed by hand.
    """
    rules = rules or ScoringRules()
    bounds = TUBE_VOLTAGE_BOUNDS_HU.get(acquisition.calcium_kvp or 0.0)
    if bounds is None or rules.bounds_hu != _STANDARD_HU:
        return rules
    return replace(rules, threshold_hu=bounds[0], weight_bounds_hu=bounds[1:])
