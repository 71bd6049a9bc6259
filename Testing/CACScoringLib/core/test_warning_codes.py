"""Codes of warnings, and checks that compare a quantity with limits."""

import ast
import string
from pathlib import Path

import pytest

import CACScoringLib
import CACTrainingLib
from CACScoringLib.core import warning_codes
from CACScoringLib.core.files import resource_blocks
from CACScoringLib.core.slice_checks import _MEASURES
from CACScoringLib.core.warning_codes import ADVICE, CHECKS, SEVERE, run_check

BLOCKS = resource_blocks("Warnings") | resource_blocks("Warnings", CACTrainingLib.__name__)
OF_CODE = {"severe", "advice", "option", "after_review"}
OF_CHECK = {"quantity", "low", "high", "sound", "message"}


@pytest.fixture
def two_checks(monkeypatch):
    monkeypatch.setattr(warning_codes, "CHECKS", {})
    monkeypatch.setattr(warning_codes, "SEVERE", set())
    limits = {"quantity": "width, mm", "low": "1", "high": "2", "message": "It is {value:g} {unit}."}
    deep = {"quantity": "depth, mm", "low": "-3", "message": "Less than {low:g}."}
    warning_codes.declare({"test-wide": limits | {"severe": "yes"}, "test-deep": {}, "test-deep end": deep})


@pytest.mark.usefixtures("two_checks")
@pytest.mark.parametrize(
    ("width", "codes"), [(1, []), (2, []), (0.99, ["test-wide"]), (2.01, ["test-wide"]), (None, []), (float("nan"), [])]
)
def test_a_quantity_outside_its_limits_causes_a_warning(width, codes):
    warnings = run_check("test-wide", width, unit="mm")
    assert [(warning.code, warning.severe) for warning in warnings] == [(code, True) for code in codes]


@pytest.mark.usefixtures("two_checks")
def test_a_check_with_a_word_warns_by_its_code():
    (warning,) = run_check("test-deep end", -4)
    assert (warning.code, warning.message, warning.severe) == ("test-deep", "Less than -3.", False)
    assert run_check("test-deep end", 1e9) == []


def test_every_code_has_a_block_with_advice():
    assert {name.partition(" ")[0] for name in BLOCKS} == set(ADVICE) >= SEVERE
    for name, block in BLOCKS.items():
        keys = set(block)
        is_check = bool(keys & OF_CHECK)
        assert keys <= (OF_CHECK if " " in name else OF_CODE | OF_CHECK), name
        assert not is_check or {"quantity", "message"} < keys, name
        assert is_check == (name in CHECKS) == bool(keys & {"low", "high"}), name


def calls():
    """Calls of `run_check` in both libraries: the name, and the names of facts; None if either is computed."""
    for library in (CACScoringLib, CACTrainingLib):
        for file in Path(library.__file__).parent.rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if "run_check(" in text else ():
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run_check":
                    names = {keyword.arg for keyword in node.keywords}
                    name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                    yield name, None if None in names else names


def test_every_check_runs_with_the_facts_of_its_message():
    facts_given = dict(calls())
    runs_as_clause = {
        name for name in CHECKS if name.startswith("orientation-doubtful ") or CHECKS[name].word in _MEASURES
    }
    assert facts_given.keys() - {None} == CHECKS.keys() - runs_as_clause
    for name, facts in facts_given.items():
        if name and facts is not None:
            used = {fact for _, fact, _, _ in string.Formatter().parse(CHECKS[name].message) if fact}
            assert used - facts <= {"value", "low", "high"}, name
