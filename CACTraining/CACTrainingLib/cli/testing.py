"""The commands `test` and `check`, for who changes the code: they need the repository, not the installed package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from CACScoringLib.cli.main import require
from CACScoringLib.core.files import OutputError

EXTRAS = (
    *("scene", "torch", "studies", "radiomics", "archive", "cohort", "cluster", "dicom", "review", "docs", "test"),
)
"""What the tests and checks need: all that there is."""


def test(arguments: list[str]) -> int:
    """Run the tests and return pytest's exit code. Raises OutputError where there are none.

    arguments: pytest's. What is marked `long` is left out, unless --all is among them, or a test is named (`FILE::…`)
    or chosen by markers (`-m`).
    """
    root = _repository()
    require(*EXTRAS)
    chosen = any("::" in argument or argument.startswith("-m") for argument in arguments)
    quick = [] if "--all" in arguments or chosen else ["-m", "not long"]
    given = [argument for argument in arguments if argument != "--all"]
    # Files stay whole, in the order of Testing/conftest.py.
    workers = ["--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder"]
    command = [sys.executable, "-m", "pytest", *workers, *quick, *given]
    return subprocess.run(command, cwd=root).returncode


def check() -> int:
    """Run ruff, mypy and typos, each to its end, and return 1 if one of them reports an error. Raises
    OutputError."""
    root = _repository()
    require("test")
    tools = Path(sys.executable).parent
    commands = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["typos"])
    done = [subprocess.run([str(tools / tool), *words], cwd=root).returncode for tool, *words in commands]
    return int(any(done))


def _repository() -> Path:
    root = Path(__file__).resolve().parents[3]
    if not (root / "Testing").is_dir():
        raise OutputError("The tests come with the repository, not with the installed package.")
    return root
