"""The developer commands `test` and `check`, which need the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from CACScoringLib.cli.main import require
from CACScoringLib.core.errors import OutputError

EXTRAS = (
    *("scene", "torch", "studies", "statistics", "radiomics", "cohort", "cluster", "dicom", "phantom"),
    *("review", "docs", "test"),
)
"""Extras that the tests and checks need: all of them."""


def test(arguments: list[str]) -> int:
    """Run the tests with pytest's arguments and return its exit code. Raises OutputError outside the repository.

    Tests marked `long` are left out, unless the arguments have --all, a test (`FILE::…`) or markers (`-m`).
    """
    root = _repository()
    require(*EXTRAS)
    selects_tests = any("::" in argument or argument.startswith("-m") for argument in arguments)
    quick = [] if "--all" in arguments or selects_tests else ["-m", "not long"]
    options = [argument for argument in arguments if argument != "--all"]
    # Files stay whole, in the order of Testing/conftest.py.
    workers = ["--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder"]
    command = [sys.executable, "-m", "pytest", *workers, *quick, *options]
    # Without bytecode, each worker and each process that a test starts would compile all files again.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(command, cwd=root, env=environment).returncode


def check() -> int:
    """Run ruff, mypy and typos, and return 1 if any reports an error. Raises OutputError."""
    root = _repository()
    require("test")
    tools = Path(sys.executable).parent
    commands = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["typos"])
    codes = [subprocess.run([str(tools / tool), *words], cwd=root).returncode for tool, *words in commands]
    return int(any(codes))


def _repository() -> Path:
    root = Path(__file__).resolve().parents[3]
    if not (root / "Testing").is_dir():
        raise OutputError("The tests come with the repository, not with the installed package.")
    return root
