"""Calcium mass without a threshold in the report: each method's arteries, and the calibration."""

from __future__ import annotations

from ..core.labels import Artery
from ..results import METHOD_TITLES, MethodResult, ScoreResult
from ..scoring.mass import CalciumMass, MassCalibration
from .markup import Markup, fragment, head, row, small, table, tag
from .non_coronary_page import site_name

SOURCES = {
    "insert": "a calibration insert in the scan",
    "given": "the calibration that was given",
    "dicom-patient": "the scanner's factor for this scan (DICOM 0018,9351)",
    "dicom-device": "the scanner's factors by patient size (DICOM 0018,9352)",
    "table": "the table of calibrations that was given",
    "published": "published measurements of such scanners; it is no calibration of this one",
}


def masses_as_html(result: ScoreResult) -> Markup | None:
    """A section of the report, with a heading; None where no mass was measured."""
    measured = {name: method for name, method in result.methods.items() if method.masses is not None}
    if result.mass_calibration is None or not measured:
        return None
    tables = [fragment(tag.h3(METHOD_TITLES[name]), _table(method)) for name, method in measured.items()]
    return fragment(
        tag.h2("Calcium mass without a threshold"),
        tables,
        small(
            "Integrated mass: all that the lesions and the voxels near them hold above their background, with its "
            "standard error by noise and background."
        ),
        small(calibration_text(result.mass_calibration)),
    )


def calibration_text(calibration: MassCalibration) -> str:
    """Where a calibration comes from, its value, and what it is worth."""
    percent, width = calibration.uncertainty_percent, calibration.lateral_width_cm
    worth = "of unknown uncertainty" if percent is None else f"± {percent:.0f} %"
    body = "" if width is None else f" The body is {width:.0f} cm wide."
    return (
        f"Calibrated by {SOURCES[calibration.source]}: {calibration.mg_per_cm3_per_hu:.3f} mg/cm³ per HU, {worth}, "
        f"which holds for all masses alike.{body}"
    )


def _table(method: MethodResult) -> Markup:
    arteries = [a for a in Artery if any(lesion.artery == a for lesion in method.lesions.lesions)]
    rows = [row(site_name(artery), _text(method.mass_of(artery))) for artery in arteries]
    return table([head("Artery", "Integrated mass mg"), *rows, row(tag.b("Total"), _text(method.mass_of()))])


def _text(mass: CalciumMass) -> str:
    value, error = mass.integrated_mass_mg, mass.mass_standard_error_mg
    # The error is 0 where there is no lesion, which tells nothing of what was missed.
    return "–" if value is None else f"{value:.2f}" + (f" ± {error:.2f}" if error else "")
