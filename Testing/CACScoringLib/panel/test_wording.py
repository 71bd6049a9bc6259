"""Tests of the library's messages in the panels' words."""

import ast
import re
from pathlib import Path

import pytest

from CACScoringLib.core.warning_codes import ADVICE
from CACScoringLib.panel.wording import inPanel

ROOT = Path(__file__).parents[3]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "The region between the lungs was used. Check the heart outline; give --heart MASK if it is wrong.",
            "The region between the lungs was used. Check the heart outline; choose a heart mask under Input if it is "
            "wrong.",
        ),
        (
            "Nobody has reviewed them. Review them in 3D Slicer or the browser; or correct their labels in "
            "lesions.nii.gz, where excluded ones are labelled 6, and score again with --lesions.",
            "Nobody has reviewed them. Review them in the list.",
        ),
        (
            "Cannot write beside /a/b-cac: No such file or directory. Choose another --output.",
            "Cannot write beside /a/b-cac: No such file or directory. Choose another folder.",
        ),
        ("Memory ran out. Score it with fewer --workers.", "Memory ran out."),
        (
            "Calibrate it on scans with known calcium (cac calibrate).",
            "Calibrate it on scans with known calcium in CAC Training, page Evaluate.",
        ),
        ("The folder /data/cac scored.v2 -- old is empty.", "The folder /data/cac scored.v2 -- old is empty."),
        ("⚠ It is cut. Give --series.\n⚠ It is noisy.", "⚠ It is cut.\n⚠ It is noisy."),
        ("0.5 mg of 3.25.\nSecond line.", "0.5 mg of 3.25.\nSecond line."),
        ("Give --series.", "Give --series."),
    ],
)
def test_messages(message, expected):
    assert inPanel(message) == expected


def test_advice_never_names_an_option():
    for code, advice in ADVICE.items():
        text = inPanel(advice)
        assert not OPTION.search(text), code
        assert not re.search(r"\bcac [a-z]", text), code


def sentences() -> list[str]:
    """Return messages that name an option, from all code that the panels run."""
    files = [path for name in ("CACScoring", "CACTraining") for path in (ROOT / name / f"{name}Lib").rglob("*.py")]
    texts = []
    for path in files:
        if {"cli", "archive", "browser"} & set(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise):
                texts += [ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.JoinedStr)]
    return [text[2:-1] for text in texts if OPTION.search(text)]


def test_no_error_names_an_option():
    texts = sentences()
    assert len(texts) > 20
    for text in texts:
        assert not OPTION.search(inPanel(f"This is wrong. {text}")), text
