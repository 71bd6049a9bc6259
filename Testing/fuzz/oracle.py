"""A command run in this process, and whether what came of it is right, warned of, or a clear error."""

from __future__ import annotations

import contextlib
import io
import json
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from CACTrainingLib.cli.main import main

DONE, ERRORS = 0, (2, 3)


@dataclass(frozen=True)
class Outcome:
    """What a command did. code: None where it ended by an exception. said: on standard output and error."""

    code: int | None
    said: str


def run(arguments: Sequence[str]) -> Outcome:
    """Run `cac` with arguments."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)  # strict, as a terminal's
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        except Exception:
            said.write(ascii(traceback.format_exc()).replace(r"\n", "\n"))
            code = None
    return Outcome(code, said.buffer.getvalue().decode("utf-8"))


def complaint(outcome: Outcome, folder: Path) -> str:
    """What is wrong about an outcome whatever the command was; empty where nothing is. folder: of input and output."""
    if outcome.code is None:
        return f"traceback: {outcome.said[-1500:]}"
    if outcome.code not in (DONE, *ERRORS):
        return f"exit code {outcome.code}: {outcome.said[-500:]}"
    if outcome.code in ERRORS and not re.search(r"[Ee]rror: \S", outcome.said):
        return f"failed without an error: {outcome.said[-500:]}"
    if strange := sorted({c for c in outcome.said if not c.isprintable() and c not in "\n\r\t"}):
        lines = [line for line in outcome.said.splitlines() if any(c in line for c in strange)]
        return f"control characters in the terminal: {lines[:3]}"
    left = [path.name for path in folder.rglob(".*") if path.name not in (".lock",)]
    if left:
        return f"left behind: {left}"
    if outcome.code in ERRORS and (folder / "out").exists():
        return f"failed, and wrote results: {outcome.said[-300:]}"
    return _files_complaint(folder / "out")


def _files_complaint(folder: Path) -> str:
    for path in folder.rglob("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        except ValueError as error:
            return f"{path.name} is no strict JSON: {error}"
    for path in folder.rglob("*.html"):
        if "<script>alert" in path.read_text(encoding="utf-8"):
            return f"{path.name} holds a script of the input"
    for path in folder.rglob("*.csv"):
        if re.search(r"(^|,)\"?[=@]", path.read_text(encoding="utf-8"), re.M):
            return f"{path.name} holds a formula of the input"
    return ""


def _no_number(name: str) -> None:
    raise ValueError(f"holds {name}")
