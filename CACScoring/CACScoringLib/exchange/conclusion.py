"""Conclusion of a result in a few sentences, for reports that hold text."""

from __future__ import annotations

from ..core.text import RESEARCH_ONLY
from ..report.headline import headline, warning_lines
from ..results import ScoreResult


def conclusion(result: ScoreResult) -> list[str]:
    """Return the headline and the severe warnings, without anything that identifies a person."""
    head = headline(result.methods, result.categories, result.warnings)
    sentences = [f"{head.score}, {head.state}.", f"{head.summary}."]
    lines = warning_lines(result.warnings, result.methods)
    sentences += [f"Caution: {line.line} {line.why}" for line in lines if line.severe]
    return [*map(plain, sentences), RESEARCH_ONLY]


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
