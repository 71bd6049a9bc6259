"""Settings that are declared once, as options of a command line and rows of a form."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from CACScoringLib.core.options import Row, add_options, option, rows_of, settings_from


@dataclass(frozen=True)
class Inner:
    steps: int = option(help="how many", row=Row("Steps:", "How many", "all"))
    share: float = option(0.5, "how much", metavar="SHARE")
    kept: int = 7


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=lambda: Inner(3))
    limit: float | None = option(None, "no more than this")
    first: int = option(1, "begin here", flag="--begin")
    quick: bool = option(False, "do less")
    mode: str = option("a", choices=("a", "b"))
    folders: tuple[Path, ...] = option((), action="append", metavar="DIR")


@pytest.fixture
def parse():
    parser = argparse.ArgumentParser()
    add_options(parser, Inner, "steps", "share", share={"help": "another help"})
    add_options(parser, Outer, "limit", "first", "quick", "mode", "folders")
    return lambda *words: parser.parse_args(words)


def test_what_is_not_asked_for_stays(parse):
    settings = Outer(Inner(4, 0.1, 9), 2.0, 5, mode="b")
    assert settings_from(parse(), settings) == settings


def test_all_that_is_asked_for(parse):
    words = ("--steps", "6", "--share", "0.25", "--limit", "3", "--begin", "2", "--quick", "--mode", "b")
    asked = settings_from(parse(*words, "--folders", "x", "--folders", "y"), Outer())
    assert asked == Outer(Inner(6, 0.25), 3.0, 2, True, "b", [Path("x"), Path("y")])
    assert isinstance(asked.limit, float)


@pytest.mark.parametrize("words", [("--steps", "1.5"), ("--mode", "c"), ("--limit", "much")])
def test_what_does_not_fit_is_refused(parse, words):
    with pytest.raises(SystemExit):
        parse(*words)


def test_rows_of_a_form():
    assert rows_of(Inner) == {"steps": Row("Steps:", "How many", "all")}
