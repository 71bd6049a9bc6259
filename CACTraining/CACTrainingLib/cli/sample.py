"""`cac sample`: a digital patient to try the software on."""

from __future__ import annotations

import argparse
from pathlib import Path

from CACScoringLib.cli.options import add_progress_argument
from CACScoringLib.core.files import OutputError
from CACScoringLib.core.progress import Progress

from ..phantom.cohort.cohort import SAMPLES, write_sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = "Write one scan of a digital patient: CT, heart, calcium map, labels and truth.json."
    titles = "; ".join(f"{name}: {sample.title}" for name, sample in SAMPLES.items())
    parser.add_argument("name", nargs="?", choices=SAMPLES, default=next(iter(SAMPLES)), help=titles)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a folder that does not exist yet")
    add_progress_argument(parser)
    parser.set_defaults(run=run, interrupted="Interrupted. Nothing was written.")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Write the sample. Raises OutputError."""
    if options.directory.exists():
        raise OutputError(f"{options.directory} exists already. Choose another folder.")
    progress.begin(["sample"])
    with progress.step("sample"):
        truth = write_sample(options.directory, options.name)
    progress.done(options.directory)
    print(f"{options.directory}: a digital patient with {truth['mass_mg']:.1f} mg of coronary calcium")
