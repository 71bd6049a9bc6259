"""The table of warnings and the engine that compares facts with its limits."""

import ast
import string
from pathlib import Path

import pytest

import CACScoringLib
import CACTrainingLib
from CACScoringLib.core import warning_codes
from CACScoringLib.core.files import resource_rows
from CACScoringLib.core.warning_codes import run_checks

ROWS = [*resource_rows("checks.csv"), *resource_rows("checks.csv", CACTrainingLib.__name__)]
COLUMNS = ("code", "severe", "when", "fact", "low", "high", "after", "message", "advice", "option", "after_review")


def row_of(code, fact, low="", high="", after="", message="It is {value:g}.", severe=""):
    return dict(zip(COLUMNS, (code, severe, "test", fact, low, high, after, message, "", "", ""), strict=True))


@pytest.fixture(autouse=True)
def three_checks(monkeypatch):
    monkeypatch.setattr(warning_codes, "_CHECKS", {})
    monkeypatch.setattr(warning_codes, "SEVERE", set())
    warning_codes.declare(
        [
            row_of("test-wide", "width", "1", "2", severe="severe"),
            row_of("test-names", "names", high="0", message="{value} are named: {names}."),
            row_of("test-late", "late", high="0", after="test-wide"),
        ]
    )


@pytest.mark.parametrize(
    ("width", "codes"), [(1, []), (2, []), (0.99, ["test-wide"]), (2.01, ["test-wide"]), (None, []), (float("nan"), [])]
)
def test_a_number_outside_its_limits_causes_a_warning(width, codes):
    assert [(warning.code, warning.severe) for warning in run_checks("test", width=width, names=[], late=False)] == [
        (code, True) for code in codes
    ]


def test_a_list_counts_by_its_length_and_is_abbreviated():
    (warning,) = run_checks("test", width=None, names=list("abcdefg"), late=None)
    assert (warning.message, warning.severe) == ("7 are named: a, b, c, d, e and 2 more.", False)
    assert run_checks("test", width=None, names="", late=None) == []
    assert run_checks("test", width=None, names="some", late=None)[0].message == "4 are named: some."


def test_a_finding_that_another_explains_is_not_asked_for():
    assert [warning.code for warning in run_checks("test", width=3, names=[], late=lambda: 1 / 0)] == ["test-wide"]
    assert [warning.code for warning in run_checks("test", width=2, names=[], late=lambda: 1)] == ["test-late"]


def test_advice_stands_in_the_first_row_of_a_code():
    first = {row["code"]: row for row in reversed(ROWS)}
    assert [code for code, row in first.items() if not row["advice"]] == []
    later = [row for row in ROWS if row is not first[row["code"]]]
    assert [row["code"] for row in later if row["advice"] or row["option"] or row["after_review"]] == []
    assert [row["code"] for row in ROWS if bool(row["fact"]) != bool(row["message"])] == []


def calls():
    """Calls of `run_checks` in both libraries: the step, and the names of facts; None if some are computed."""
    for library in (CACScoringLib, CACTrainingLib):
        for file in Path(library.__file__).parent.rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if "run_checks(" in text else ():
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run_checks":
                    names = {keyword.arg for keyword in node.keywords}
                    when = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                    yield when, None if None in names else names


def test_facts_of_rows_and_messages_are_given():
    facts_given = dict(calls())
    steps = {row["when"] for row in ROWS if row["when"]}
    assert steps - {"slice", "back", "left", "beside", "up"} == facts_given.keys() - {None}  # of clauses
    for row in ROWS:
        if names := facts_given.get(row["when"]):
            used = {name for _, name, _, _ in string.Formatter().parse(row["message"]) if name}
            assert {row["fact"], *used} - names <= {"value", "low", "high"}, row["code"]
