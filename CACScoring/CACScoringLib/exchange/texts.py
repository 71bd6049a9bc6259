"""Texts of DICOM and FHIR objects: their origin, and characters that every reader shows."""

from __future__ import annotations

from ..results import ScoreResult


def origin_of(result: ScoreResult) -> dict[str, str]:
    """Return how a result was made, by name in ASCII; empty if that is unknown.

    The command has no folders of paths.
    """
    provenance = result.provenance
    if provenance is None:
        return {}
    cells = provenance.stated(identify=False).cells(result.scan.voxels_sha256)
    return {name: plain(value) for name, value in cells.items() if value}


def plain(text: str, encoding: str = "ascii") -> str:
    """Return a text in the characters of an encoding: ASCII, in every DICOM character set, or Latin-1 of PDF fonts."""
    replacements = {"–": "-", "—": "-", "−": "-", "×": "x", "²": "2", "³": "3", "·": ".", "°": " degrees", "’": "'"}
    replacements |= {"“": '"', "”": '"', "…": "...", "≥": ">=", "≤": "<=", "µ": "u"}
    return "".join(c if c.encode(encoding, "ignore") else replacements.get(c, "?") for c in text)
