"""The command line of `./cac`: commands for scoring, and for training and evaluation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from CACScoringLib.cli import main as scoring
from CACScoringLib.cli.main import CommandParser, declare_command, declared_commands
from CACScoringLib.core.errors import OutputError

from . import testing

if TYPE_CHECKING:
    from CACScoringLib.run import SamplePatient

COMMANDS = {
    "sample": "write a digital patient to try the software on",
    "phantom": "write a cohort of digital patients, scanned twice or once, with known calcium",
    "insert": "insert coronary plaque of known mass into a real scan",
    "train": "train a network",
    "calibrate": "fit on scans with known calcium which lesions count, and how wide intervals are",
    "evaluate": "compare scores with reference scores or repeated scans, with tables and figures",
    "review": "review scored scans in the browser",
    "data": "list public collections of scans, and import them into a project",
    "project": "create, fill, check and split a project of annotated scans",
    "radiographs": "compute radiographs from CTs, for training and studies",
    "completion": "print the completion of commands and options for bash or zsh",
}
"""Commands and their help. Each command's module here declares its options in `add_arguments`, imported on use."""

DEVELOPER_COMMANDS = {
    "docs": "build the documentation as a site",
    "test": "run the quick tests, or --all, with pytest's arguments",
    "check": "check style, types and spelling of the code",
}
"""Commands for developers, a separate group in the help."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code (see `CACScoringLib.cli`)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # The arguments of `test` are pytest's, so they are not parsed here.
        if arguments[:1] == ["test"] and not {"-h", "--help"} & set(arguments):
            return testing.test(arguments[1:])
        if arguments == ["check"]:
            return testing.check()
        options = make_parser().parse_args(arguments)
    except OutputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return scoring.BAD_USAGE
    return scoring.run(options)


def make_parser() -> CommandParser:
    """Return the parser of the command line, which declares a command's options on use."""
    parser, commands = scoring.make_parser()
    scoring.add_commands(commands, _sample)
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, declare=_declare(name), add_help=name != "train")  # it has its own help
    parser.formatter_class = _GroupedHelp
    commands.add_parser("docs", help=DEVELOPER_COMMANDS["docs"], declare=_declare("docs"))
    for name in ("test", "check"):
        text = DEVELOPER_COMMANDS[name]
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == "test":  # for the help; `testing.test` reads them
            command.add_argument("--all", action="store_true", help="run all tests, those that take long too")
            command.add_argument(
                "pytest", nargs="*", metavar="ARGUMENT", help="arguments of pytest, such as a folder of tests"
            )
    return parser


class _GroupedHelp(argparse.HelpFormatter):
    """Help formatter that lists the developer commands below a title."""

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        return f"\n  for developers:\n{text}" if action.dest == next(iter(DEVELOPER_COMMANDS)) else text


def complete_parser() -> CommandParser:
    """Return the parser with all options of all commands declared."""
    parser = make_parser()
    declared_commands(parser)
    return parser


def _declare(name: str) -> Callable[[CommandParser], None]:
    return lambda parser: declare_command(parser, __package__, name)


def _sample() -> SamplePatient:
    from ..phantom import make_sample

    return make_sample()
