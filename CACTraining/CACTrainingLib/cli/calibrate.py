"""`cac calibrate`: which lesions of the calcium map count, and their clinical scale."""

from __future__ import annotations

import argparse
from pathlib import Path

from CACScoringLib.cli.options import add_progress_argument
from CACScoringLib.core.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Fit, on scans with known calcium, which lesions count, prediction intervals, category probabilities and the "
        "calibration range. They are stored with the calcium map's model."
    )
    add = parser.add_argument
    add("--data", type=Path, action="append", required=True, metavar="DIR", help="folder of scans")
    add("--heart", type=Path, metavar="CARD", help="card of a model for the heart alone (default: none)")
    add("--territories", type=Path, metavar="CARD", help="card of the territory model (default: the bundled one)")
    add("--slices", type=Path, metavar="CARD", help="card of the model for slices (default: the bundled one)")
    add("--decomposition", type=Path, required=True, metavar="CARD", help="card of the model for maps")
    add("--lesions", type=Path, metavar="CARD", help="card of the lesion model (default: the bundled one)")
    add("--intervals-only", action="store_true", help="fit intervals and probabilities; what counts stays as stored")
    add("--workers", type=int, default=1, metavar="N", help="number of processes")
    add("--cache", type=Path, metavar="DIR", help="folder that keeps measurements, to resume from")
    add_progress_argument(parser)
    parser.set_defaults(
        run=_run, extras=lambda options: ("studies",), interrupted="Interrupted. The model is unchanged."
    )


def _run(options: argparse.Namespace, progress: Progress) -> Path:
    from ..training.calibration import run

    return run(options, progress)
