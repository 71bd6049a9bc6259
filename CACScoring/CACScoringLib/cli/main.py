"""Scoring's commands; also the panel's background worker. `./cac` starts `CACTrainingLib.cli`, which adds its own.

Exit codes: 0 done, 2 bad usage, 3 bad input, 4 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.output import OutputError
from ..core.version import VERSION
from .cluster_option import on_cluster
from .extras import require
from .options import add_progress_argument
from .parser import CommandParser, declared_commands

if TYPE_CHECKING:
    from ..run import Sample

DONE, BAD_USAGE, BAD_INPUT, INTERRUPTED = 0, 2, 3, 4

UNWRITABLE = {
    number: advice
    for advice, names in {
        "Make room there": ("ENOSPC", "EDQUOT", "EFBIG"),
        "Check the permissions": ("EACCES", "EPERM", "EROFS"),
        "Choose another place": ("EEXIST", "ENOTDIR", "EISDIR"),
        "Check the disk": ("EIO", "ESTALE", "ENODEV", "ENXIO"),
    }.items()
    for name in names
    if (number := getattr(errno, name, None)) is not None
}
"""What to do about errors of the system that no command has made one of its own of."""

COMMANDS = {
    "score": "score one CT, or a chest radiograph",
    "compare": "compare two scans of one patient",
    "cohort": "score many CTs in parallel",
    "pull": "fetch series from a DICOM archive",
    "push": "store DICOM files in a DICOM archive",
    "watch": "score new CTs of a DICOM archive, and send the results back",
    "drr": "compute a radiograph from a CT",
    "models": "list, verify or install trained models",
}
"""What each command does. The module of its name declares its options, by `add_arguments`, when it is used."""


def main(arguments: list[str] | None = None) -> int:
    """Run scoring's commands alone, without those of training, and return the exit code."""
    parser, commands = make_parser()
    add_commands(commands)
    return run(parser.parse_args(arguments))


def make_parser() -> tuple[CommandParser, argparse._SubParsersAction]:
    """An empty command line, and what commands are added to."""
    parser = CommandParser(prog="cac", description="Coronary artery calcium scoring on CT. For research only.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    return parser, parser.add_subparsers(dest="command", required=True, metavar="COMMAND")


def add_commands(commands: argparse._SubParsersAction, make_sample: Callable[[], Sample] | None = None) -> None:
    """Add scoring's commands to a parser.

    Each sets `run`, a function of the parsed arguments and the progress; `interrupted`, what to say when it is stopped;
    and where the base is not enough `extras`, a function of the parsed arguments that names the extras it needs.

    make_sample: makes the patient of `score --sample`; without it there is no such option.
    """

    def declare(parser: CommandParser, name: str) -> None:
        module = importlib.import_module(f".{name}", __package__)
        module.add_arguments(parser, *([make_sample] if name == "score" else []))
        for command in declared_commands(parser).values() or [parser]:
            add_progress_argument(command)

    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, declare=lambda parser, name=name: declare(parser, name))


def run(options: argparse.Namespace) -> int:
    """Run a parsed command; turn errors into one line on standard error and an exit code."""
    from ..core.ct import CTError
    from ..core.progress import progress_for

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold what the terminal cannot show
    progress = progress_for(options.progress, sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if "extras" in options:
            require(*options.extras(options))
        with on_cluster(options):
            options.run(options, progress)
    except OutputError as error:
        progress.failed(str(error), BAD_USAGE)
        return BAD_USAGE
    except CTError as error:
        progress.failed(str(error), BAD_INPUT)
        return BAD_INPUT
    except KeyboardInterrupt:
        progress.interrupted(options.interrupted, INTERRUPTED)
        return INTERRUPTED
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        place = f"{error.filename} cannot be used" if error.filename else "A file cannot be written"
        advice = UNWRITABLE[error.errno]
        progress.failed(f"{place}: {error.strerror}. {advice}, then run the same command again.", BAD_USAGE)
        return BAD_USAGE
    return DONE


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt
