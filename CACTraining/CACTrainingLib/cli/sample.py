"""`cac sample`: a digital patient to try the software on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.cli.options import NOTHING_WRITTEN, Command
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.options import argument
from CACScoringLib.core.progress import Progress

from ..phantom import SAMPLES, write_sample


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Write one scan of a digital patient: CT, heart, calcium map, labels and truth.json.

    Attributes:
        directory: A folder that does not exist yet.
    """

    name: str = argument(
        next(iter(SAMPLES)),
        "; ".join(f"{name}: {sample.title}" for name, sample in SAMPLES.items()),
        choices=SAMPLES,
        nargs="?",
    )
    directory: Path = argument(metavar="DIR")


def run(options: SampleOptions, progress: Progress) -> None:
    """Write the sample. Raises OutputError."""
    if options.directory.exists():
        raise OutputError(f"{options.directory} exists already. Choose another folder.")
    progress.begin(["sample"])
    with progress.step("sample"):
        truth = write_sample(options.directory, options.name)
    progress.done(options.directory)
    print(f"{options.directory}: a digital patient with {truth['mass_mg']:.1f} mg of coronary calcium")


add_arguments = Command(SampleOptions, run, interrupted=NOTHING_WRITTEN).declare
