"""A kind of input: how it is made, changed and read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from . import changes, oracle

Arguments = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Target:
    """A kind of input.

    write: makes sound input in an empty folder. change: changes something in a copy of it. arguments: of the command
    that reads it and writes into `out`. judge: what is wrong with its results, beside what is wrong anywhere.
    """

    write: Callable[[Path], None]
    change: changes.Change
    arguments: Arguments
    judge: Callable[[Path], str] | None = None

    def prepare(self, folder: Path) -> None:
        """Write the sound input, see that it is taken, and keep its warnings. Raises AssertionError."""
        self.write(folder)
        outcome = oracle.run(self.arguments(folder))
        wrong = oracle.complaint(outcome, folder)
        assert outcome.code == oracle.DONE, outcome
        assert not wrong, wrong
        record = folder / "out" / "scores.json"
        if record.exists():
            warnings = json.loads(record.read_text(encoding="utf-8"))["warnings"]
            (folder / "usual.json").write_text(json.dumps([warning["code"] for warning in warnings]))
        shutil.rmtree(folder / "out", ignore_errors=True)

    def trial(self, sound: Path, folder: Path, random: Random) -> tuple[str, str]:
        """Change a copy of sound input, in a folder that is not there yet. Returns what was done and what is wrong."""
        shutil.copytree(sound, folder)
        done = self.change(folder, random)
        outcome = oracle.run(self.arguments(folder))
        wrong = oracle.complaint(outcome, folder)
        if not wrong and outcome.code == oracle.DONE and self.judge is not None:
            wrong = self.judge(folder)
        return done, wrong


def of(pattern: str, change: changes.Change) -> changes.Change:
    """A change of one of the files that a pattern finds."""

    def changed(folder: Path, random: Random) -> str:
        return change(random.choice(sorted(folder.glob(pattern))), random)

    return changed
