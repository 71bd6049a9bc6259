"""Every warning that the code can make is declared, and every declared one is made."""

import ast
from pathlib import Path

import pytest

import CACTrainingLib  # noqa: F401  (declares its warnings)
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.warning_codes import ADVICE, SEVERE

ROOT = Path(__file__).parents[3]
READ_BACK = "CACScoring/CACScoringLib/core/records.py"  # stored warnings, which another version may have made


def codes_made() -> list[tuple[str, str | None]]:
    """The file and the code, None where it is not written out, of every warning that is made."""
    made = []
    for file in [*ROOT.glob("CACScoring/**/*.py"), *ROOT.glob("CACTraining/**/*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ScanWarning":
                code = node.args[0] if node.args else None
                code = constants.get(code.id) if isinstance(code, ast.Name) else getattr(code, "value", None)
                made.append((file.relative_to(ROOT).as_posix(), code if isinstance(code, str) else None))
    return made


@pytest.mark.long
def test_codes_are_written_out_but_for_those_read_back():
    assert [file for file, code in codes_made() if code is None] == [READ_BACK]


@pytest.mark.long
def test_what_is_made_is_declared_and_what_is_declared_is_made():
    assert {code for _, code in codes_made() if code is not None} == set(ADVICE)
    assert set(ADVICE) >= SEVERE


def test_an_undeclared_code_is_refused_but_in_what_was_stored():
    with pytest.raises(ValueError, match="'no-such-code' is not declared"):
        ScanWarning("no-such-code", "It is odd.")
    assert ScanWarning(code="no-such-code", message="It was odd.", severe=False).severe is False
