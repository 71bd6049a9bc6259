"""`cac calibrate`: which lesions of the calcium map count, and their clinical scale."""

from __future__ import annotations

import argparse
from pathlib import Path

from CACScoringLib.cli.options import add_progress_argument

from ..training.calibration import run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Calibrate, on scans with known calcium, which lesions of the calcium map count, and their clinical scale."
    )
    add = parser.add_argument
    add("--data", type=Path, action="append", required=True, metavar="DIR", help="folder of scans")
    add("--heart", type=Path, metavar="CARD", help="card of a model of hearts alone (default: none)")
    add("--territories", type=Path, metavar="CARD", help="card of the territory model (default: the one with CAC)")
    add("--slices", type=Path, required=True, metavar="CARD", help="card of the model for slices")
    add("--decomposition", type=Path, required=True, metavar="CARD", help="card of the model for maps")
    add("--workers", type=int, default=1, metavar="N", help="scans at work")
    add("--cache", type=Path, metavar="DIR", help="where measurements are kept, to continue from there")
    add_progress_argument(parser)
    parser.set_defaults(
        run=run, extras=lambda options: ("studies",), interrupted="Interrupted. The model is unchanged."
    )
