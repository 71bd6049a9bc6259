"""Options in the advice of warnings and errors exist, and its examples remove the doubt."""

import argparse
import ast
import re
import shlex
from pathlib import Path

import pytest
from lesion_scans import write_ct, write_labels

import CACScoringLib
from CACScoringLib.core.warning_codes import ADVICE, CHECKS, OPTIONS
from CACScoringLib.record.score_record import read_result
from CACTrainingLib.cli import main as cli

PARSER = cli.complete_parser()
COMMANDS = next(action for action in PARSER._actions if action.dest == "command").choices


def options_of(parser):
    """All options of a parser and of its commands."""
    choices = [action.choices.values() for action in parser._actions if isinstance(action.choices, dict)]
    commands = [command for values in choices for command in values if isinstance(command, argparse.ArgumentParser)]
    return set(parser._option_string_actions).union(*map(options_of, commands))


def texts():
    """All texts of the library but docstrings, and the messages of its checks."""
    yield from (check.message for check in CHECKS.values())
    for file in Path(CACScoringLib.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                yield node.value


@pytest.mark.long
def test_every_option_and_command_that_is_advised_exists():
    options = options_of(PARSER)
    advised = {word for text in texts() for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    of_other_programs = {"--add-extras", "--editable", "--index-url", "--extra-index-url", "--image-type", "--no-deps"}
    of_git = {"--always", "--abbrev", "--dirty", "--exclude"}
    assert advised - options - of_other_programs - of_git == set()
    commands = {word for text in OPTIONS.values() for word in re.findall(r"\bcac ([a-z]+)", text)}
    assert commands <= set(COMMANDS)


def test_stored_advice_names_no_option():
    assert not [text for text in ADVICE.values() if re.search(r"(?<![\w-])--[a-z]|\bcac [a-z]", text)]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    write_ct(folder / "ct.nii.gz")
    write_labels(folder / "labels.nrrd")

    def score(*options):
        output = folder / "out"
        fixed = ["--heart", str(folder / "heart.nrrd"), "--lesions", str(folder / "labels.nrrd"), "--threshold-only"]
        command = ["score", str(folder / "ct.nii.gz"), *fixed, "--output", str(output), "--overwrite", *options]
        assert cli.main(command) == 0
        return read_result(output)

    return score


@pytest.mark.long
def test_the_remedy_of_a_warning_removes_it(scored):
    codes = ("kvp-unknown", "thickness-unknown", "lesions-given")
    assert set(codes) <= set(scored().warning_codes)
    for code in codes:
        assert code not in scored(*shlex.split(OPTIONS[code])).warning_codes


def test_a_tube_voltage_and_an_acquisition_are_those_of_the_result(scored):
    assert scored("--kvp", "140").acquisition.kvp == 140
    settings = '{"scan": {"acquisition": {"kvp": 140, "kernel": "B30f"}}}'
    acquisition = scored("--settings", settings).acquisition
    assert (acquisition.kvp, acquisition.kernel, acquisition.file_format) == (140, "B30f", "NIfTI")


def test_a_tube_voltage_that_no_scanner_has_is_refused(tmp_path, capsys):
    write_ct(tmp_path / "ct.nii.gz")
    assert cli.main(["score", str(tmp_path / "ct.nii.gz"), "--threshold-only", "--kvp", "1200"]) != 0
    assert "1200 kV" in capsys.readouterr().err
