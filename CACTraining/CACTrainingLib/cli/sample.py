"""`cac sample`: a digital patient to try the software on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from CACScoringLib.cli.options import NOTHING_WRITTEN, command
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.options import argument
from CACScoringLib.core.progress import Progress

from ..phantom import SAMPLES, write_sample

FIRST_SAMPLE = next(iter(SAMPLES))
SampleName = Annotated[
    str,
    argument(text="; ".join(f"{name}: {title}" for name, (_, title) in SAMPLES.items()), choices=SAMPLES, nargs="?"),
]


def run(
    *, name: SampleName = FIRST_SAMPLE, directory: Annotated[Path, argument(metavar="DIR")], progress: Progress
) -> None:
    """Write one scan of a digital patient: CT, heart, calcium map, labels and truth.json.

    Args:
        directory: A folder that does not exist yet.

    Raises:
        OutputError: The folder exists, or cannot be written.
    """
    if directory.exists():
        raise OutputError(f"{directory} exists already. Choose another folder.")
    progress.begin(["sample"])
    with progress.step("sample"):
        truth = write_sample(directory, name)
    progress.done(directory)
    print(f"{directory}: a digital patient with {truth['mass_mg']:.1f} mg of coronary calcium")


add_arguments = command(run, ("phantom",), NOTHING_WRITTEN).declare
