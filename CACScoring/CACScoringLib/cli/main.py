"""The commands of scoring; also the panel's background worker. Other libraries add theirs (`make_parser`, `run`).

Exit codes: 0 done, 2 bad usage, 3 bad input, 4 interrupted.
"""

from __future__ import annotations

import argparse
import ctypes
import difflib
import errno
import importlib
import io
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..core.acquisition import FILE, key_file
from ..core.errors import OutputError
from ..core.text import printable
from ..core.version import VERSION
from .options import add_progress_argument, on_cluster

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from Python 3.12

    from ..run import SamplePatient

PACKAGE = "slicer-cac"

M_ARENA_MAX = -8
"""glibc's parameter (malloc.h): each arena keeps memory that its threads have freed."""

DONE, BAD_USAGE, BAD_INPUT, INTERRUPTED = 0, 2, 3, 4

UNWRITABLE = {
    number: advice
    for advice, names in {
        "Make room there": ("ENOSPC", "EDQUOT", "EFBIG"),
        "Check the permissions": ("EACCES", "EPERM", "EROFS"),
        "Choose another place": ("EEXIST", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP"),
        "Check the disk": ("EIO", "ESTALE", "ENODEV", "ENXIO"),
    }.items()
    for name in names
    if (number := getattr(errno, name, None)) is not None
}
"""Advice on errors of the operating system, by number."""

COMMANDS = {
    "score": "score one CT, or a chest radiograph",
    "info": "list what a folder holds, and what would be scored",
    "explain": "state why a lesion counts or is left out",
    "compare": "compare two scans of one patient",
    "cohort": "score many CTs in parallel",
    "drr": "compute a radiograph from a CT",
    "models": "list, verify or install trained models",
}
"""Commands and their one-line help. Each command's module declares its options in add_arguments, imported on use."""


class CommandParser(argparse.ArgumentParser):
    """The parser of the command line, of a command, or of a command's action.

    Some commands take their options from modules that load slowly, so a command's options are declared when its own
    are parsed: `cac --help` and another command do without them.

    declare: Adds the options to a parser.
    """

    def __init__(
        self,
        prog: str | None = None,
        description: str | None = None,
        declare: Callable[[CommandParser], None] | None = None,
        add_help: bool = True,
    ) -> None:
        super().__init__(prog, description=description, allow_abbrev=False, add_help=add_help)
        self._declare = declare

    def parse_known_args(  # type: ignore[override]  # argparse allows a namespace of any class
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        self.declare()
        arguments = list(sys.argv[1:] if args is None else args)
        # Before argparse, which complains of a required option only when another name was given for it.
        has_commands = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)
        if not has_commands and not {"-h", "--help"} & {*arguments}:
            long_options = (text for text in itertools.takewhile("--".__ne__, arguments) if text.startswith("--"))
            if wrong := [text for text in long_options if " " not in text and not self._knows(text)]:
                self.error(f"unrecognized arguments: {' '.join(wrong)}{self._suggestions(wrong)}")
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._suggestions(unknown)}")
        return parsed, unknown

    def parse_args(  # type: ignore[override]  # argparse allows a namespace of any class
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        from ..record.provenance import remember_command

        remember_command([self.prog, *(sys.argv[1:] if args is None else args)])
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        super().error(printable(message, message=True))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            names = [name for name in action.choices or () if isinstance(name, str)]
            if not (alike := difflib.get_close_matches(str(value).lower(), names, 1)):
                raise
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; did you mean {alike[0]}?") from error

    def _knows(self, option: str) -> bool:
        return option.partition("=")[0] in self._option_string_actions

    def _suggestions(self, unknown: list[str]) -> str:
        """Return a question with the options that unknown ones abbreviate or resemble."""
        names = [name for name in self._option_string_actions if name.startswith("--")]
        long_options = [text.split("=")[0] for text in unknown if text.startswith("--")]
        alike = [name for text in long_options for name in names if name.startswith(text)]
        alike = alike or [name for text in long_options for name in difflib.get_close_matches(text, names, 1)]
        return f"; did you mean {' or '.join(alike)}?" if alike else ""

    def declare(self) -> None:
        """Declare the options, once."""
        declare, self._declare = self._declare, None
        if declare is not None:
            declare(self)


def declared_commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a parser by name, with all options declared; empty if it has none."""
    if isinstance(parser, CommandParser):
        parser.declare()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                declared_commands(command)
            return dict(action.choices)
    return {}


def main(arguments: list[str] | None = None) -> int:
    """Run the commands of scoring and return the exit code."""
    parser, commands = make_parser()
    add_commands(commands)
    return run(parser.parse_args(arguments))


def make_parser() -> tuple[CommandParser, argparse._SubParsersAction[CommandParser]]:
    """Return the command line's parser and its empty group of commands."""
    parser = CommandParser(prog="cac", description="Coronary artery calcium scoring on CT. For research only.")
    parser.epilog = f"Results keep pseudonyms of patients, made with the key in {key_file()} (or ${FILE})."
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    return parser, parser.add_subparsers(dest="command", required=True, metavar="COMMAND")


def add_commands(
    commands: argparse._SubParsersAction[CommandParser], make_sample: Callable[[], SamplePatient] | None = None
) -> None:
    """Add scoring's commands to a parser.

    Each sets `run`, a function of the parsed arguments and the progress; `interrupted`, what to say when it is stopped;
    and where the base is not enough `extras`, a function of the parsed arguments that names the extras it needs.

    make_sample: makes the patient of `score --sample`; without it there is no such option.
    """

    def declare(parser: CommandParser, name: str) -> None:
        _spare_processor_and_memory()
        declare_command(parser, __package__, name, *([make_sample] if name == "score" else []))

    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, declare=lambda parser, name=name: declare(parser, name))


def declare_command(parser: CommandParser, package: str, name: str, *arguments: object) -> None:
    """Declare the options of a command by the module of its name in a package, and --progress."""
    importlib.import_module(f".{name}", package).add_arguments(parser, *arguments)
    for command in declared_commands(parser).values() or [parser]:
        add_progress_argument(command)


def _spare_processor_and_memory() -> None:
    """Multiply matrices in one thread, as small ones take longer in several, limit glibc's arenas of memory, and keep
    NumPy from huge pages, with which a mask of a heart takes the memory of the whole scan.

    To be called before NumPy is imported.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    with suppress(AttributeError, TypeError):  # without glibc
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def run(options: argparse.Namespace) -> int:
    """Run a parsed command; turn errors into one line on standard error and an exit code."""
    from ..core.errors import CTError
    from ..core.progress import progress_for

    guard_streams()
    progress = progress_for(options.progress, sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if "extras" in options:
            if getattr(options, "device", None) == "cuda":
                from ..models.inference import check_gpu

                check_gpu()
            require(*options.extras(options))
        with on_cluster(options):
            options.run(options, progress)
        sys.stdout.flush()  # raises here, not when Python ends
    except OutputError as error:
        progress.failed(str(error), BAD_USAGE)
        return BAD_USAGE
    except CTError as error:
        progress.failed(str(error), BAD_INPUT)
        return BAD_INPUT
    except KeyboardInterrupt:
        progress.interrupted(options.interrupted, INTERRUPTED)
        return INTERRUPTED
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError):  # Path.resolve, before Python 3.13
            if not str(error).startswith("Symlink loop"):
                raise
            error = OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(error).partition("'")[2][:-1])
        if error.errno not in UNWRITABLE:
            raise
        place = f"{error.filename} cannot be used" if error.filename else "A file cannot be written"
        advice = UNWRITABLE[error.errno]
        progress.failed(f"{place}: {error.strerror}. {advice}, then run the same command again.", BAD_USAGE)
        return BAD_USAGE
    return DONE


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


def require(*extras: str) -> None:
    """Have the packages of some extras ("scene", "studies", …).

    In the launcher's environment those that are missing are installed. Elsewhere raises OutputError, which says how to
    install them. Nothing is asked of an environment that CAC is not installed in, such as Slicer's: there the panel
    installs what it needs.
    """
    missing = [extra for extra in extras if _lacks(extra)]
    if not missing:
        return
    import subprocess

    launcher = Path(__file__).resolve().parents[3] / "cac"
    names = ",".join(missing)
    if not launcher.is_file() or Path(sys.prefix).resolve() != launcher.with_name(".venv").resolve():
        raise OutputError(f"This command needs {PACKAGE}[{names}]. Install it with: {_installation(names)}")
    if subprocess.run([sys.executable, str(launcher), "--add-extras", names]).returncode != 0:
        raise OutputError(f"{PACKAGE}[{names}] could not be installed. The reason is given above.")
    importlib.invalidate_caches()


def _installation(extras: str) -> str:
    """Return the command that adds extras, with a comma between, from where the package was installed (PEP 610)."""
    from importlib.metadata import distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    origin = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")
    url, requirement = origin.get("url", ""), f"{PACKAGE}[{extras}]"
    if url.startswith("file:"):
        editable = "--editable " if origin.get("dir_info", {}).get("editable") else ""
        return f'pip install {editable}"{url2pathname(urlsplit(url).path)}[{extras}]"'
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f'pip install "{requirement} @ {url}"' if url else f'pip install "{requirement}"'


def _lacks(extra: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distributions, requires

    try:
        requirements = requires(PACKAGE) or []
    except PackageNotFoundError:
        return False
    of_extra = [text for text in requirements if re.search(rf"extra == ['\"]{extra}['\"]", text)]
    names = [match.group() for text in of_extra if (match := re.match(r"[\w.-]+", text))]
    return not all(any(distributions(name=name)) for name in names)


class _Pipe(io.FileIO):
    """Raw output that drops what nobody reads any more.

    An error of the system, such as a full disk, is raised once, and never for standard error, which holds no results.
    """

    def __init__(self, number: int, stream: str) -> None:
        super().__init__(number, "w", closefd=False)
        self._stream, self._drops = stream, stream == "stderr"

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            is_closed = error.errno in (errno.EPIPE, errno.EINVAL, errno.EBADF)  # EINVAL: a closed pipe of Windows
            if not (is_closed or self._drops):
                self._drops = True
                raise OSError(error.errno, error.strerror, "Standard output") from error
            return memoryview(data).nbytes


def guard_streams() -> None:
    """Make standard output and error of this process take any text at any time.

    A stream that was closed before the start is opened anew, so that no file of results takes its number and receives
    what a library writes there.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper):
            with suppress(io.UnsupportedOperation):  # a stream in memory has no number
                if not stream.isatty():
                    stream.flush()
                    raw = io.BufferedWriter(_Pipe(stream.fileno(), name))
                    is_prompt = stream.line_buffering or stream.write_through  # the latter with PYTHONUNBUFFERED
                    stream = io.TextIOWrapper(raw, stream.encoding, line_buffering=is_prompt)
            stream.reconfigure(errors="backslashreplace")  # names of files may hold what the terminal cannot show
            setattr(sys, name, stream)
