"""Codes and texts of CAC's DICOM and FHIR objects.

Code values are those of DICOM PS3.16 (annex D for the scheme DCM), SNOMED CT (SCT) and IBSI, whose reference manual is
a scheme of PS3.16. CAC's own scheme, 99CAC, holds concepts that these lack: DCM's calcium score is that of calcium
outside the coronary arteries here. `docs/user/dicom.md` lists them.
"""

from __future__ import annotations

from pydicom.sr.coding import Code

from ..core.files import resource_rows
from ..core.labels import SITE_CONCEPTS, Artery, NonCoronary, Site
from ..results import CalciumResult

OWN_SCHEME = "99CAC"
"""CAC's private coding scheme; private schemes begin with 99 (PS3.16 section 8.2)."""

_ROWS = resource_rows("dicom_codes.csv")
_CODES = {row["name"]: Code(row["value"], row["scheme"], row["meaning"]) for row in _ROWS}


def __getattr__(name: str) -> Code:
    """Return a code of `dicom_codes.csv` by its name, such as CALCIUM_SCORE."""
    try:
        return _CODES[name]
    except KeyError:
        raise AttributeError(f"There is no code {name}.") from None


STATUS = {status: _CODES[status.upper()] for status in ("reviewed", "given", "automatic")}
"""Codes of the status of a score."""

PLACES: dict[Site, Code] = {
    **{site: Code(code, "SCT", text) for site, (code, text) in SITE_CONCEPTS.items()},
    Artery.UNASSIGNED: _CODES["CORONARY"],
    NonCoronary.OTHER: Code("72410000", "SCT", "Mediastinum"),
}


def origin_of(result: CalciumResult) -> dict[str, str]:
    """Return how a result was made, by name in ASCII; empty if that is unknown.

    The command has no folders of paths.
    """
    provenance = result.record.provenance
    if provenance is None:
        return {}
    cells = provenance.stated(identify=False).cells(result.scan.voxels_sha256) | result.record.seal_cells
    return {name: plain(str(value)) for name, value in cells.items() if value}


def plain(text: str, encoding: str = "ascii") -> str:
    """Return a text in the characters of an encoding: ASCII, in every DICOM character set, or Latin-1 of PDF fonts."""
    replacements = {"–": "-", "—": "-", "−": "-", "×": "x", "²": "2", "³": "3", "·": ".", "°": " degrees", "’": "'"}
    replacements |= {"“": '"', "”": '"', "…": "...", "≥": ">=", "≤": "<=", "µ": "u"}
    return "".join(c if c.encode(encoding, "ignore") else replacements.get(c, "?") for c in text)
