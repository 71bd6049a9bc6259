"""`cac calibrate`: which lesions of the calcium map count, and their clinical scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.cli.options import Command
from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """Fit, on scans with known calcium, which lesions count, prediction intervals, category probabilities and the
    calibration range.

    They are stored with the calcium map's model.

    Attributes:
        data: Folder of scans.
        territories: Card of the territory model (default: the bundled one).
        slices: Card of the model for slices (default: the bundled one).
        decomposition: Card of the model for maps.
        lesions: Card of the lesion model (default: the bundled one).
        workers: Number of processes.
        cache: Folder that keeps measurements, to resume from.
    """

    data: tuple[Path, ...] = option(metavar="DIR")
    territories: Path | None = option(None, metavar="CARD")
    slices: Path | None = option(None, metavar="CARD")
    decomposition: Path = option(metavar="CARD")
    lesions: Path | None = option(None, metavar="CARD")
    workers: int = option(1, metavar="N")
    cache: Path | None = option(None, metavar="DIR")


def run(options: CalibrateOptions, progress: Progress) -> None:
    """Calibrate. Raises CTError, OutputError."""
    from ..truth import calibration

    calibration.run(options, progress)


add_arguments = Command(CalibrateOptions, run, ("studies",), "Interrupted. The model is unchanged.").declare
