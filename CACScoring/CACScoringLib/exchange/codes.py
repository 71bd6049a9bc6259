"""Codes and texts of CAC's DICOM objects.

Code values are those of DICOM PS3.16 (annex D for the scheme DCM), SNOMED CT (SCT) and IBSI. CAC's own scheme, 99CAC,
holds concepts that these lack. `docs/user/dicom.md` lists them.
"""

from __future__ import annotations

from pydicom.sr.coding import Code

from ..core.labels import SITE_CONCEPTS, Artery, NonCoronary, Site
from ..results import ScoreResult

OWN_SCHEME = "99CAC"
"""CAC's private coding scheme; private schemes begin with 99 (PS3.16 section 8.2)."""

# Scores
CALCIUM_SCORE = Code("450360000", "SCT", "Coronary artery calcium score")
OTHER_CALCIUM_SCORE = Code("112058", "DCM", "Calcium score")
"""Score of calcium outside the coronary arteries, to which CALCIUM_SCORE does not apply."""
EQUIVALENT_SCORE = Code("agatston-equivalent", OWN_SCHEME, "Agatston equivalent of a calcium map")
CALCIUM_VOLUME = Code("122660", "DCM", "Calcium Volume")
CALCIUM_MASS = Code("122661", "DCM", "Calcium Mass")
NUMBER_OF_LESIONS = Code("246206008", "SCT", "Number of lesions")
AGATSTON_THRESHOLD = Code("122657", "DCM", "Agatston Score Threshold")
CALIBRATION = Code("122659", "DCM", "Calcium Scoring Calibration")

# Features; percentiles by IBSI's reference manual, whose codes are a scheme of PS3.16
MEDIAN_HU = Code("112182", "DCM", "Median Attenuation Coefficient")
SD_HU = Code("112183", "DCM", "Standard Deviation of Attenuation Coefficient")
P10_HU = Code("QG58", "IBSI", "10th Intensity Percentile")
P90_HU = Code("8DWT", "IBSI", "90th Intensity Percentile")
LENGTH = Code("410668003", "SCT", "Length")
VOLUME = Code("118565006", "SCT", "Volume")
MEAN_HU = Code("112181", "DCM", "Mean Attenuation Coefficient")

# Methods
AGATSTON_METHOD = Code("112055", "DCM", "Agatston scoring method")
MAP_METHOD = Code("calcium-map", OWN_SCHEME, "Calcium map without threshold")
REVIEW_STATUS = Code("review-status", OWN_SCHEME, "Review status")
STATUS = {
    "reviewed": Code("reviewed", OWN_SCHEME, "Reviewed by a person"),
    "given": Code("given", OWN_SCHEME, "Labels given, not reviewed"),
    "automatic": Code("automatic", OWN_SCHEME, "Automatic, not reviewed"),
}
WARNING = Code("warning", OWN_SCHEME, "Warning: the numbers may mean nothing")
GATED_PROCEDURE = Code("426005005", "SCT", "Cardiac CT for calcium scoring")
PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")

# Findings and sites
CATEGORY = Code("49755003", "SCT", "Morphologically Abnormal Structure")
CALCIFICATION = Code("18115005", "SCT", "pathologic calcification")
FAT = Code("55603005", "SCT", "Fat")
TISSUE = Code("85756007", "SCT", "Tissue")
PERICARDIUM = Code("76848001", "SCT", "Pericardium")
CORONARY = Code("41801008", "SCT", "Coronary artery")
PLACES: dict[Site, Code] = {
    **{site: Code(code, "SCT", text) for site, (code, text) in SITE_CONCEPTS.items()},
    Artery.UNASSIGNED: CORONARY,
    NonCoronary.OTHER: Code("72410000", "SCT", "Mediastinum"),
}

# Units
NO_UNITS = Code("1", "UCUM", "no units")
MILLIMETER = Code("mm", "UCUM", "mm")
CUBIC_MM = Code("mm3", "UCUM", "cubic millimeter")
CUBIC_CM = Code("cm3", "UCUM", "cubic centimeter")
MILLIGRAM = Code("mg", "UCUM", "milligram")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
LESIONS = Code("{lesions}", "UCUM", "lesions")
CALIBRATION_UNIT = Code("mg/mm3/[hnsf'U]", "UCUM", "milligram per cubic millimeter and Hounsfield unit")


def provenance_texts(result: ScoreResult) -> dict[str, str]:
    """Return how a result was made, by name in ASCII; empty if that is unknown.

    The command has no folders of paths.
    """
    provenance = result.record.provenance
    if provenance is None:
        return {}
    cells = provenance.stated(identify=False).cells(result.scan.voxels_sha256) | result.record.patient_and_journal_cells
    return {name: plain(str(value)) for name, value in cells.items() if value}


def plain(text: str) -> str:
    """Return a text in ASCII, which every DICOM character set holds."""
    replacements = {"–": "-", "—": "-", "−": "-", "×": "x", "²": "2", "³": "3", "·": ".", "°": " degrees", "’": "'"}
    replacements |= {"“": '"', "”": '"', "…": "...", "≥": ">=", "≤": "<=", "µ": "u"}
    return "".join(c if c.isascii() else replacements.get(c, "?") for c in text)
