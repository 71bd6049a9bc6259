"""Options that several studies of `cac evaluate` and `cac validate` share; a study takes those that it uses."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from CACScoringLib.core.progress import Progress


class StudyParser(argparse.ArgumentParser):
    """The command line of one study, which refuses options of other studies instead of leaving them unheeded."""

    def parse_known_args(self, args=None, namespace=None):
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"this study does not take {' '.join(unknown)} (see {self.prog} --help)")
        return found, unknown


def add_options(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add shared options, by name."""
    for name in names:
        parser.add_argument(name, **_OPTIONS[name])


def show_page(page: Path, output: Path, progress: Progress, what: str = "the study") -> None:
    """Say that a study is done and where its page is."""
    progress.done(output)
    print(f"{page}: {what}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _fewer(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if not name or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of folds; write for example capacity=2")
    return name, int(count)


NAMES = {"type": _names, "default": (), "metavar": "NAME[,NAME…]"}
"""How an option takes several names."""

_OPTIONS = {
    "--model": {
        "action": "append",
        "default": [],
        "metavar": "NAME",
        "help": "model to use instead of the one that comes with CAC",
    },
    "--overwrite": {"action": "store_true", "help": "score all scans again, whatever the folder holds"},
    "--output": {
        "type": Path,
        "required": True,
        "metavar": "DIR",
        "help": "folder for study.html, its tables and figures",
    },
    "--use": {"choices": ("test", "validation", "training"), "help": "use of the scans of a project (default: test)"},
    "--annotator": {
        "metavar": "NAME",
        "help": "annotator whose annotations of a project count, where there are several",
    },
    "--workers": {
        "type": int,
        "metavar": "N",
        "help": "number of processes (default: one per core, as far as memory allows)",
    },
    "--seed": {"type": int, "default": 0, "help": "random seed of the bootstrap and of trainings"},
    "--device": {"choices": ("auto", "cpu", "cuda"), "default": "auto"},
    "--cache": {"type": Path, "metavar": "DIR", "help": "where prepared scans are kept"},
    "--test": {
        "type": Path,
        "metavar": "TABLE",
        "help": "other patients to test on (default: a fifth of --data)",
    },
    "--folds": {
        "type": int,
        "default": 5,
        "metavar": "N",
        "help": "number of folds of the cross-validation (default: 5)",
    },
    "--only-folds": {
        "action": "append",
        "default": [],
        "type": _fewer,
        "metavar": "TABLE=N",
        "help": "train only the first N folds for a table; the page states it",
    },
    "--minutes": {"type": float, "metavar": "M", "help": "begin no training after M minutes; 0 only writes the page"},
}
