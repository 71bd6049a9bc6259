"""Figures of the results page against its stored tables."""

from pathlib import Path

import pytest

from CACScoringLib.core.ct import CTError
from CACTrainingLib.cli import main as cli
from CACTrainingLib.evaluation.results_page import PAGE, check_results

DOCS = Path(__file__).parents[3] / "docs"

SCORES = """quantity,map,reader,n
κ,".80 [.72, .86]",.91,10
… gated,2.65,".5, .6",4
… not gated,0.75,,6
change,-3.04,"0 of 5",
"""
WRITTEN = """# Results

| no | stored table |
|---|---|
| is linked | 17 |

## Scores

Of 15 patients, 4 were gated. [CSV](results/scores.csv)

| 2026 | map | reader |
|---|---|---|
| κ | **.80** [.72, .86] | .91 |
| … gated (5); not gated (6) | 2.7; .75 | .6 |
| change, [`v2`](x2.md) | −3.0 | 0 of 5 |

## Others

| A | B |
|---|---|
| of another section | 18 |
"""


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "results").mkdir()
    for name, text in ((PAGE, WRITTEN), ("results/scores.csv", SCORES)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def change(file, before, after):
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), encoding="utf-8")


def test_figures_of_the_documentation_are_those_of_its_tables():
    assert int(check_results(DOCS).split()[0]) > 200


def test_cells_of_tables_are_counted(docs):
    assert check_results(docs) == f"7 cells of {docs / PAGE} have the figures of their stored tables."


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        (".72, .86", ".72, .87", ":13: .80, .72, .86"),
        (".5, .6", ".5, .62", None),
        (".5, .6", ".5, .66", ":14: .6"),
        ("gated,2.65", "gated,2.64", ":14: 2.7"),
        ("0.75", "0.76", ":14: .75"),
        ("-3.04", "3.04", ":15: −3.0"),
        ("0 of 5", "0 of 6", ":15: 0, 5"),
    ],
)
def test_differences_name_line_and_figures(docs, before, after, difference):
    change(docs / "results" / "scores.csv", before, after)
    if difference is None:
        check_results(docs)
        return
    with pytest.raises(CTError, match=r"1 cells of .* have figures that no row") as caught:
        check_results(docs)
    assert str(caught.value).endswith(PAGE + difference)


@pytest.mark.parametrize("figure", [".75", ".91"], ids=["another row", "another place of the row"])
def test_figures_of_other_places_are_differences(docs, figure):
    change(docs / PAGE, ".72, .86", f".72, {figure}")
    with pytest.raises(CTError, match=rf":13: \.80, \.72, \{figure}"):
        check_results(docs)


def test_the_command_fails_on_differences(docs, capsys):
    def code(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["evaluate", "--check", *arguments])
        return ended.value.code

    assert code() in (None, 0)
    assert "cells of" in capsys.readouterr().out
    change(docs / "results" / "scores.csv", ".91", ".92")
    assert code(str(docs)) == 3
    assert ":13: .91" in capsys.readouterr().err
    assert code(str(docs / "nowhere")) == 3
