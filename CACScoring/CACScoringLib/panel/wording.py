"""Messages of the library in the panels' words: fields and buttons instead of options of the command line."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from ..core.text import without_options

_PANEL_WORDS = {
    r"give (?:a )?--heart MASK": "choose a heart mask under Input",
    r"Give --heart MASK": "Choose a heart mask under Input",
    r"Review them in 3D Slicer or the browser; or correct their labels in .* with --lesions(?: and --reader)?": (
        "Review them in the list"
    ),
    r"score again with (?:--lesions and --reader|--lesions|--reader NAME)": "confirm the score",
    r"(?:another|a folder with) --output": "another folder",
    r", or (?:replace (?:it|results)|score all scans again) with --overwrite": "",
    r"\(--allow-unusual\)": "(under Input, Advanced)",
    r", or leave (?:out --dicom|--model out|--whole-scan out)": "",
    r" \(cac calibrate\)": " in CAC Training, page Evaluate",
    r"with cac calibrate": "in CAC Training, page Evaluate",
    r"[Gg]o on with --resume": "press Resume",
    r"--device cpu(?: or auto)?": "the device Processor",
    r"State the (?:tube voltage, such as --kvp 120|thickness, such as --settings '.*')": (
        "Load the scan from its DICOM files, which state it"
    ),
    r"\(--start\)": "(Start from)",
    r"--start needs": "Start from needs",
    r" \(--start\)": "",
}
"""Replacements of the command line's words in panels, by pattern."""


def inPanel(message: str) -> str:
    """Return a message with options and commands replaced by the panels' words.

    A sentence with an option that has no replacement is left out, unless that would leave the line empty.
    """
    return without_options(message, _PANEL_WORDS)
