"""A command that begins before it is wanted: `python -m CACScoringLib.cli.ready` imports what scoring needs, then reads
the command's arguments, a list in JSON, from standard input."""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import suppress

from .main import main

NEEDED = ("..run", "..report.files", "..report.page", "..models.graph")


def run() -> int:
    """Run the command; returns its exit code, 0 where none was given."""
    for name in NEEDED:
        with suppress(ImportError):  # which the command says, if it needs it
            importlib.import_module(name, __package__)
    line = sys.stdin.readline()
    return main(json.loads(line)) if line else 0


if __name__ == "__main__":
    sys.exit(run())
