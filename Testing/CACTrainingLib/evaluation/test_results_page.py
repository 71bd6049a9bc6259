"""Figures of the results page against its stored tables."""

from pathlib import Path

import pytest

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.tables import TableError
from CACTrainingLib.cli import main as cli
from CACTrainingLib.evaluation.results_page import PAGE, TEMPLATES, check_page, check_results

DOCS = Path(__file__).parents[3] / "docs"

FIGURES = """
[Scores: scores.csv]
| κ | {map} | {reader} |
| … gated (5) | {κ … gated|map:1} | {reader~} |
| both | {κ … gated & κ … not gated|n} | |
Of the patients, {κ … gated|n} were gated.
"""
SCORES = """quantity,map,reader,n
κ,".80 [.72, .86]",.91,10
… gated,0.85,".5, .6",4
… not gated,0.75,,6
"""
WRITTEN = """# Results

## Scores

Of the patients, 4
were gated. 17 were not.

| | map | reader |
|---|---|---|
| κ | **.80** [.72, .86] | .91 |
| … gated (5) | .9 | .6 |
| both | 10 | |
"""


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "results").mkdir()
    for name, text in ((PAGE, WRITTEN), (TEMPLATES, FIGURES), ("results/scores.csv", SCORES)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def change(file, before, after):
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), encoding="utf-8")


def test_figures_of_the_documentation_are_those_of_its_tables():
    check = check_page(DOCS)
    assert check.differences == []
    assert check.checked > 100


def test_all_that_is_checked_and_what_is_not(docs):
    check = check_page(docs)
    assert (check.checked, check.differences) == (6, [])
    assert check.unchecked == {5: ["17"], 11: ["5"]}
    assert f"{docs / PAGE}:5: 17" in check_results(docs)


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        (".72, .86", ".72, .87", f"{PAGE}:10: κ, map: '.80 [.72, .86]' is stated, '.80 [.72, .87]' stored."),
        (".5, .6", ".5, .62", f"{PAGE}:11: κ … gated, reader: '.6' is stated, '.5, .62' stored."),
        ("gated,0.85", "gated,0.84", f"{PAGE}:11: κ … gated, map: '.9' is stated, '.8' stored."),
        (",,6", ",,7", f"{PAGE}:12: κ … gated & κ … not gated, n: '10' is stated, '11' stored."),
    ],
)
def test_differences_name_line_and_values(docs, before, after, difference):
    change(docs / "results" / "scores.csv", before, after)
    assert check_page(docs).differences == [difference]
    with pytest.raises(CTError, match=r"1 figures of .* are not those of their tables"):
        check_results(docs)


def test_lines_and_rows_that_do_not_exist(docs):
    change(docs / PAGE, "| κ |", "| kappa |")
    assert "0 lines of results.md are like “| κ | {map} | {reader} |”" in check_page(docs).differences[0]
    change(docs / "results" / "scores.csv", "… not gated", "… others")
    with pytest.raises(TableError, match="names the row 'κ … gated & κ … not gated'"):
        check_page(docs)


def test_the_command_fails_on_differences(docs, capsys):
    def code(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["evaluate", "--check", *arguments])
        return ended.value.code

    assert code() in (None, 0)
    assert "cells of" in capsys.readouterr().out
    change(docs / "results" / "scores.csv", ".91", ".92")
    assert code(str(docs)) == 3
    assert "'.91' is stated, '.92' stored" in capsys.readouterr().err
    assert code(str(docs / "nowhere")) == 3
