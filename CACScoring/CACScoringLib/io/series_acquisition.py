"""Acquisition of a series from its DICOM headers."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from datetime import datetime

from ..core.acquisition import Acquisition, agent_named, unnamed
from ..core.header_ranges import AGE
from .dicom import DicomSlice, first_value

_IDENTIFYING = {
    "PatientName": "patient_name",
    "PatientID": "patient_id",
    "PatientBirthDate": "patient_birth_date",
    "StudyDate": "study_date",
}
"""Fields of `Acquisition` that free texts may repeat, by keyword."""

_TEXTS = ("FilterType", "SeriesDescription", "ProtocolName", "ImageComments")
_TIN = re.compile(r"(?<![A-Z])(SN ?(70|80|1[0-5]0)|(TIN|SN)[ -]?FILT|FILT[A-Z]* (TIN|SN)|ZINN)(?!\d)", re.IGNORECASE)
"""Tin filters as manufacturers and users write them: "CaSc Sn100", "Sn 150 kV", "Filtre Sn", "tin filter"."""


def clock(time: str) -> str:
    """Format a DICOM time (PS3.5 6.2, VR TM) as HH:MM:SS, or HH:MM without seconds; empty for other text."""
    digits = time.partition(".")[0]
    return ":".join(digits[n : n + 2] for n in range(0, len(digits), 2)) if digits.isdecimal() else ""


def free_text(slices: Sequence[DicomSlice], keyword: str, of_device: bool = False) -> str | None:
    """Return the first stated value of a free text, without words that identify the patient; None if none is stated.

    Scanner operators type names and IDs into such texts. of_device: As in `unnamed`.
    """
    text, *facts = (first_value(slices, DicomSlice.text, name) for name in (keyword, *_IDENTIFYING))
    person = dict(zip(_IDENTIFYING.values(), facts, strict=True))
    dates = {name: _date(person[name]) for name in ("patient_birth_date", "study_date")}
    return text and unnamed(text, Acquisition("DICOM", **(person | dates)), every_date=True, of_device=of_device)


def contrast_agent_of(slices: Sequence[DicomSlice]) -> str | None:
    """Return Contrast/Bolus Agent: as `free_text`, or as it stands if it says that there was none."""
    text = first_value(slices, DicomSlice.text, "ContrastBolusAgent")
    return text if agent_named(text) is None else free_text(slices, "ContrastBolusAgent")


def acquisition_of(slices: list[DicomSlice]) -> Acquisition:
    """Return the acquisition of a series: the first stated value of each element, the median exposure."""

    def text(keyword: str) -> str | None:
        return first_value(slices, DicomSlice.text, keyword)

    def device(keyword: str) -> str | None:
        return free_text(slices, keyword, of_device=True)

    def number(keyword: str) -> float | None:
        return first_value(slices, DicomSlice.number, keyword)

    def factors(keyword: str, count: int) -> tuple[float | None, ...]:
        values = first_value(slices, lambda slice_, name: slice_.numbers(name, count), keyword)
        return values or (None,) * count

    small, medium, large = factors("CalciumScoringMassFactorDevice", 3)
    series_number = number("SeriesNumber")
    sex = (text("PatientSex") or "").upper()
    return Acquisition(
        file_format="DICOM",
        kvp=number("KVP"),
        kernel=device("ConvolutionKernel"),
        contrast_agent=contrast_agent_of(slices),
        gating=_gating(device("CardiacSynchronizationTechnique"), text("ScanOptions")),
        manufacturer=device("Manufacturer"),
        scanner_model=device("ManufacturerModelName"),
        slice_thickness_mm=number("SliceThickness"),
        exposure_mas=_exposure_mas(slices),
        filter_material=_filter_material(slices),
        series_number=None if series_number is None else int(series_number),
        series_description=free_text(slices, "SeriesDescription"),
        series_uid=text("SeriesInstanceUID"),
        study_date=_date(text("StudyDate")),
        patient_sex=sex if sex in ("F", "M", "O") else None,
        patient_age_years=_age_years(text("PatientAge")),
        patient_id=text("PatientID"),
        patient_id_issuer=text("IssuerOfPatientID"),
        patient_name=text("PatientName"),
        patient_birth_date=_date(text("PatientBirthDate")),
        patient_height_m=number("PatientSize"),
        patient_weight_kg=number("PatientWeight"),
        mass_factor_patient=factors("CalciumScoringMassFactorPatient", 1)[0],
        mass_factor_small=small,
        mass_factor_medium=medium,
        mass_factor_large=large,
    )


def _gating(technique: str | None, scan_options: str | None) -> str | None:
    """Return the gating technique (PS3.3 C.7.6.18.1) except NONE, or "ECG" if Scan Options states it clearly.

    Scan Options has no defined terms for CT; CG is the MR term for cardiac gating. Acquisition Type (0018,9302)
    describes the table's motion, not gating.
    """
    if technique is not None and technique.upper() != "NONE":
        return technique.upper()
    pattern = r"(^| )(CG|(ECG|EKG|CARDIAC)[-_ ]?(GATED|GATING|TRIGGERED|TRIGGERING))( |$)"
    if scan_options and re.search(pattern, scan_options.upper()) and not re.search(r"\bNON?\b", scan_options.upper()):
        return "ECG"
    return None


def _exposure_mas(slices: list[DicomSlice]) -> float | None:
    """Return the median over the slices, because tube current modulation changes it from slice to slice."""
    for keyword, per_mas in (("Exposure", 1), ("ExposureInuAs", 1000)):
        values = [value for value in (s.number(keyword) for s in slices) if value is not None]
        if values:
            return statistics.median(values) / per_mas
    return None


def _filter_material(slices: list[DicomSlice]) -> str | None:
    """Return Filter Material, or "tin" if another text of the header names a tin filter."""
    if material := free_text(slices, "FilterMaterial", of_device=True):
        return material
    texts = (first_value(slices, DicomSlice.text, keyword) or "" for keyword in _TEXTS)
    return "tin" if any(map(_TIN.search, texts)) else None


def _date(text: str | None) -> str | None:
    """Format a DICOM date as YYYY-MM-DD; None for other text."""
    try:
        return datetime.strptime(text or "", "%Y%m%d").date().isoformat()
    except ValueError:
        return None


def _age_years(text: str | None) -> int | None:
    """Return the completed years of a DICOM age string (PS3.5: three digits and D, W, M or Y)."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", (text or "").upper())
    per_year = {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}
    years = int(int(match[1]) / per_year[match[2]]) if match else None
    return years if years is not None and AGE.holds(years) else None
