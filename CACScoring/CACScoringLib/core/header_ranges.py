"""Ranges of the numbers in headers of CT and radiographs; a number outside its range states nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class HeaderRange:
    """Range of a number that scanners write.

    Attributes:
        name: Name of the number in messages.
        low: Least value.
        high: Largest value.
        unit: Unit, if any.
        is_nonzero: True if 0 is no value although it lies in the range.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    is_nonzero: bool = False

    def holds(self, value: float) -> bool:
        """True if a value lies in the range."""
        return self.low <= value <= self.high and not (self.is_nonzero and value == 0)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.low:g} to {self.high:g}{unit}{', not 0' if self.is_nonzero else ''}"


KVP = HeaderRange("tube voltage", 50.0, 200.0, "kV")
SLICE_THICKNESS = HeaderRange("slice thickness", 0.1, 100.0, "mm")
PIXEL_SPACING = HeaderRange("pixel spacing", 0.01, 10.0, "mm")
EXPOSURE = HeaderRange("exposure", 0.0, 20_000.0, "mAs", is_nonzero=True)
HEIGHT = HeaderRange("patient's height", 0.4, 2.5, "m")
WEIGHT = HeaderRange("patient's weight", 3.0, 400.0, "kg")
AGE = HeaderRange("patient's age", 0, 120, "years")
MASS_FACTOR = HeaderRange("mass factor", 0.3, 2.0, "mg/cm³ per HU")
"""Factors of 70 to 140 kVp are 0.4 to 1."""

RANGES = {
    "KVP": KVP,
    "SliceThickness": SLICE_THICKNESS,
    "PixelSpacing": PIXEL_SPACING,
    "ImagerPixelSpacing": PIXEL_SPACING,
    "NominalScannedPixelSpacing": PIXEL_SPACING,
    "Exposure": EXPOSURE,
    "ExposureInuAs": HeaderRange("exposure", 0.0, 1000 * EXPOSURE.high, "µAs", is_nonzero=True),
    "RescaleSlope": HeaderRange("rescale slope", -1000.0, 1000.0, is_nonzero=True),
    "RescaleIntercept": HeaderRange("rescale intercept", -100_000.0, 100_000.0, "HU"),
    "ReconstructionDiameter": HeaderRange("reconstruction diameter", 1.0, 2000.0, "mm"),
    "ImagePositionPatient": HeaderRange("image position", -1e5, 1e5, "mm"),
    "ImagesInAcquisition": HeaderRange("images in the acquisition", 0.0, 1e5),
    "EstimatedRadiographicMagnificationFactor": HeaderRange("magnification", 0.5, 10.0),
    "PatientSize": HEIGHT,
    "PatientWeight": WEIGHT,
    "CalciumScoringMassFactorPatient": MASS_FACTOR,
    "CalciumScoringMassFactorDevice": MASS_FACTOR,
}
"""Ranges by keyword of the DICOM element; numbers of other elements have none."""

FIELD_RANGES = {
    "kvp": KVP,
    "slice_thickness_mm": SLICE_THICKNESS,
    "exposure_mas": EXPOSURE,
    "patient_height_m": HEIGHT,
    "patient_weight_kg": WEIGHT,
    "mass_factor_patient": MASS_FACTOR,
    "mass_factor_small": MASS_FACTOR,
    "mass_factor_medium": MASS_FACTOR,
    "mass_factor_large": MASS_FACTOR,
    "patient_age_years": AGE,
}
"""Ranges by field of `Acquisition`."""


def are_in_range(keyword: str, values: Iterable[float]) -> bool:
    """True if all numbers of an element are finite and in its range."""
    allowed = RANGES.get(keyword)
    return all(math.isfinite(value) and (allowed is None or allowed.holds(value)) for value in values)
