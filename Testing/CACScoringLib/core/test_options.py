"""Settings declared once, as command-line options and rows of a form."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.options import (
    GivenOnce,
    add_options,
    argument,
    changed_settings,
    command_line,
    description_of,
    option,
    options_from,
    options_of,
    settings_from,
)


@dataclass(frozen=True)
class Inner:
    steps: int = option(help="how many")
    share: float = option(0.5, "how much", metavar="SHARE", action=GivenOnce)
    limit: int = 7


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
    add_options(parser, Inner, "steps", "share")
    add_options(parser, Outer, "limit", "first", "quick", "mode", "folders")
    return lambda *words: parser.parse_args(words)


def test_settings_without_an_argument_stay(parse):
    settings = Outer(Inner(4, 0.1, 9), 2.0, 5, mode="b")
    assert settings_from(parse(), settings) == settings


def test_arguments_become_settings(parse):
    words = ("--steps", "6", "--share", "0.25", "--limit", "3", "--begin", "2", "--quick", "--mode", "b")
    settings = settings_from(parse(*words, "--folders", "x", "--folders", "y"), Outer())
    assert settings == Outer(Inner(6, 0.25), 3.0, 2, True, "b", [Path("x"), Path("y")])
    assert isinstance(settings.limit, float)


@pytest.mark.parametrize("words", [("--steps", "1.5"), ("--mode", "c"), ("--share", "0.1", "--share", "0.2")])
def test_invalid_arguments_are_refused(parse, words):
    with pytest.raises(SystemExit):
        parse(*words)


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """Options of several commands.

    Attributes:
        device: Device of the networks.
    """

    device: str = option("auto", group="networks", choices=("auto", "cpu"))


@dataclass(frozen=True, kw_only=True)
class CommandOptions(SharedOptions):
    """Score a scan.

    Rerun the command to resume.

    Attributes:
        ct: CT of the chest.
        names: A name of the scan, for the table; may
            be repeated.
        output: Folder for the results.
    """

    ct: Path = argument(metavar="CT")
    names: tuple[str, ...] = ()
    masks: tuple[Path, ...] = option((), "masks of the heart", flag="--mask")
    output: Path = option(metavar="DIR")
    pairs: int | None = option(None, exclusive="required")
    single: int | None = option(None, exclusive="required")


@pytest.fixture
def command():
    parser = argparse.ArgumentParser()
    add_options(parser, CommandOptions)
    return parser


def test_arguments_become_options(command):
    options = options_from(command.parse_args(["x", "--output", "o", "--pairs", "2"]), CommandOptions)
    assert options == CommandOptions(ct=Path("x"), output=Path("o"), pairs=2)
    words = ["x", "--names", "a", "--names", "b", "--mask", "m", "--output", "o", "--single", "1", "--device", "cpu"]
    options = options_from(command.parse_args(words), CommandOptions)
    assert (options.names, options.masks, options.single, options.device) == (("a", "b"), (Path("m"),), 1, "cpu")


@pytest.mark.parametrize("words", ["x --pairs 1", "x --output o", "x --output o --pairs 1 --single 1"])
def test_options_that_are_needed(command, words):
    with pytest.raises(SystemExit):
        command.parse_args(words.split())


def test_a_functions_parameters_are_options():
    def convert(ct: Annotated[Path, argument(metavar="CT")], *, output: Path, pairs: int = 1, progress: object) -> None:
        """Convert a scan.

        Args:
            ct: CT of the chest.
            output: Folder for
                the results.
            pairs: Number of pairs.
            progress: Not an option.
        """

    kind = options_of(convert)
    parser = argparse.ArgumentParser()
    add_options(parser, kind)
    options = options_from(parser.parse_args(["x", "--output", "o", "--pairs", "2"]), kind)
    assert vars(options) == {"ct": Path("x"), "output": Path("o"), "pairs": 2}
    assert "folder for the results" in parser.format_help()
    assert description_of(kind) == "Convert a scan."
    with pytest.raises(SystemExit):
        parser.parse_args(["x"])


@dataclass(frozen=True)
class Values:
    number: float = 1.0
    count: int | None = 2
    bounds: tuple[float, float] = (1.0, 2.0)
    names: tuple[str, ...] = ()
    file: Path | None = None
    slices: dict[int, bool] = field(default_factory=dict)
    mode: str = option("a", choices=("a", "b"))
    inner: Inner = field(default_factory=lambda: Inner(3))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, Values()),
        ({"number": 3}, Values(3.0)),
        ({"count": None}, Values(count=None)),
        ({"bounds": [3, 4.5]}, Values(bounds=(3.0, 4.5))),
        ({"names": ["x"]}, Values(names=("x",))),
        ({"file": "t.csv"}, Values(file=Path("folder/t.csv"))),
        ({"slices": {"7": True, "123456789": False}}, Values(slices={7: True, 123456789: False})),
        ({"inner": {"steps": 9}}, Values(inner=Inner(9))),
    ],
)
def test_settings_from_a_file(content, expected):
    settings = changed_settings(Values(), content, "", Path("folder"))
    assert settings == expected
    assert isinstance(settings.number, float)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ([], "The content"),
        ({"numbers": 1}, "The content"),
        ({"number": "1"}, "number"),
        ({"number": True}, "number"),
        ({"number": 10**400}, "number"),
        ({"count": 1.0}, "count"),
        ({"bounds": [1, 2, 3]}, "bounds"),
        ({"bounds": [1, "2"]}, r"bounds\[1\]"),
        ({"names": "x"}, "names"),
        ({"slices": {"x": True}}, "slices"),
        ({"slices": {"1234567890": True}}, "slices"),
        ({"slices": {"7": 1}}, "slices.7"),
        ({"mode": "c"}, "mode"),
        ({"inner": {"steps": "9"}}, "inner.steps"),
    ],
)
def test_settings_from_a_file_that_do_not_fit(content, place):
    with pytest.raises(OutputError, match=f"^{place} "):
        changed_settings(Values(), content, "")


class TestCommandLine:
    def test_words_are_parsed_back(self, parse):
        values = {"limit": 2.5, "quick": True, "mode": "b", "folders": (Path("x y"), None, "z"), "first": 0}
        words = command_line(Outer, values)
        assert words == [
            "--limit",
            "2.5",
            "--quick",
            "--mode",
            "b",
            "--folders",
            "x y",
            "--folders",
            "z",
            "--begin",
            "0",
        ]
        assert settings_from(parse(*words), Outer()).folders == [Path("x y"), Path("z")]

    def test_what_is_unset_is_left_out(self):
        assert command_line(Outer, {"limit": None, "quick": False, "mode": "", "folders": ()}) == []

    def test_positional_arguments_come_first(self):
        from CACScoringLib.cli.cohort import CohortOptions

        assert command_line(CohortOptions, {"output": "out", "source": "scans"}) == ["scans", "--output", "out"]
