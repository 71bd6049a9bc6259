"""Conclusion of a result in a few sentences, for reports that hold text."""

from __future__ import annotations

from ..core.text import RESEARCH_ONLY
from ..report.headline import headline, warning_lines
from ..results import ScoreResult


def conclusion(result: ScoreResult) -> list[str]:
    """The headline and the severe warnings; nothing that identifies a person."""
    head = headline(result.methods, result.categories, result.warnings)
    sentences = [f"{head.score}, {head.state}.", f"{head.summary}."]
    sentences += [
        f"Caution: {one.line} {one.why}" for one in warning_lines(result.warnings, result.methods) if one.severe
    ]
    return [*map(plain, sentences), RESEARCH_ONLY]


def plain(text: str, encoding: str = "ascii") -> str:
    """Text in the characters of an encoding: ASCII, which every DICOM character set has, or Latin-1, as PDF's fonts."""
    known = {"–": "-", "—": "-", "−": "-", "×": "x", "²": "2", "³": "3", "·": ".", "°": " degrees", "’": "'"}
    known |= {"“": '"', "”": '"', "…": "...", "≥": ">=", "≤": "<=", "µ": "u"}
    return "".join(c if c.encode(encoding, "ignore") else known.get(c, "?") for c in text)
