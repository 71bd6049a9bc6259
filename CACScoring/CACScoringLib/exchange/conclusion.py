"""Conclusion of a result in a few sentences, for reports that hold text."""

from __future__ import annotations

from ..core.text import RESEARCH_ONLY
from ..report.headline import category_text, interval_text
from ..results import ScoreResult


def conclusion(result: ScoreResult) -> list[str]:
    """The score and its state, its classes, its interval, severe warnings; nothing that identifies a person."""
    method = result.methods["threshold"]
    if method.status == "candidates":
        count = method.total.lesions
        sentences = [f"{count} unreviewed candidate{'' if count == 1 else 's'}. This is not a calcium score."]
    elif method.reviewed and method.no_calcium:
        sentences = ["Reviewed: no coronary calcium. Agatston score 0."]
    else:
        state = "reviewed" if method.reviewed else "automatic, not reviewed by a person"
        sentences = [f"Agatston score {method.total.agatston:.1f}, {state}."]
    if result.categories is not None:
        classes = result.categories
        sentences.append(f"Risk class: {classes.risk_class}. CAC-DRS: {classes.cac_drs}.")
    if sentence := "; ".join(filter(None, (interval_text(method), category_text(method)))):
        sentences.append(f"{sentence[0].upper()}{sentence[1:]}.")
    sentences += [f"Caution: {warning.message}" for warning in result.warnings if warning.severe]
    return [*map(plain, sentences), RESEARCH_ONLY]


def plain(text: str, encoding: str = "ascii") -> str:
    """Text in the characters of an encoding: ASCII, which every DICOM character set has, or Latin-1, as PDF's fonts."""
    known = {"–": "-", "—": "-", "−": "-", "×": "x", "²": "2", "³": "3", "·": ".", "°": " degrees", "’": "'"}
    known |= {"“": '"', "”": '"', "…": "...", "≥": ">=", "≤": "<=", "µ": "u"}
    return "".join(c if c.encode(encoding, "ignore") else known.get(c, "?") for c in text)
