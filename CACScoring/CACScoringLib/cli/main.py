"""Scoring's commands; also the panel's background worker. `./cac` starts `CACTrainingLib.cli`, which adds its own.

Exit codes: 0 done, 2 bad usage, 3 bad input, 4 interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.ct import CTError
from ..core.output import OutputError
from ..core.progress import progress_for
from . import cohort, compare, drr, models, score
from .options import add_progress_argument

if TYPE_CHECKING:
    from ..run import Sample

DONE, BAD_USAGE, BAD_INPUT, INTERRUPTED = 0, 2, 3, 4


def main(arguments: list[str] | None = None) -> int:
    """Run scoring's commands alone, without those of training, and return the exit code."""
    parser, commands = make_parser()
    add_commands(commands)
    return run(parser.parse_args(arguments))


def make_parser() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction]:
    """An empty command line, and what commands are added to."""
    parser = argparse.ArgumentParser(
        prog="cac", description="Coronary artery calcium scoring on CT. For research only."
    )
    return parser, parser.add_subparsers(dest="command", required=True, metavar="COMMAND")


def add_commands(commands: argparse._SubParsersAction, make_sample: Callable[[], Sample] | None = None) -> None:
    """Add scoring's commands to a parser; each sets `run`, a function of the parsed arguments and
    the progress, and `interrupted`, what to say when it is stopped.

    make_sample: makes the patient of `score --sample`; without it there is no such option.
    """
    parsers = [score.add_command(commands, make_sample)]
    parsers += [module.add_command(commands) for module in (compare, cohort, drr)]
    for parser in (*parsers, *models.add_command(commands)):
        add_progress_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Run a parsed command; turn errors into one line on standard error and an exit code."""
    progress = progress_for(options.progress, sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        options.run(options, progress)
    except OutputError as error:
        progress.failed(str(error), BAD_USAGE)
        return BAD_USAGE
    except CTError as error:
        progress.failed(str(error), BAD_INPUT)
        return BAD_INPUT
    except KeyboardInterrupt:
        progress.failed(options.interrupted, INTERRUPTED)
        return INTERRUPTED
    return DONE


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt
