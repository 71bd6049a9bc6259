"""Agreement of the declared warning codes with those in the code."""

import ast
from pathlib import Path

import pytest

import CACTrainingLib  # noqa: F401  (declares its warnings)
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.warning_codes import ADVICE, SEVERE

ROOT = Path(__file__).parents[3]


def warnings_in_sources() -> list[tuple[str, str | None]]:
    """List file and code of each warning in the sources; the code is None if it is not a literal."""
    codes = []
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
                codes.append((file.relative_to(ROOT).as_posix(), code if isinstance(code, str) else None))
    return codes


@pytest.mark.long
def test_codes_are_written_out():
    assert [file for file, code in warnings_in_sources() if code is None] == []


@pytest.mark.long
def test_warnings_in_sources_are_the_declared_ones():
    assert {code for _, code in warnings_in_sources() if code is not None} == set(ADVICE)
    assert set(ADVICE) >= SEVERE


def test_a_stored_warning_of_a_later_version_is_not_severe():
    assert ScanWarning("no-such-code", "It was odd.").severe is False
