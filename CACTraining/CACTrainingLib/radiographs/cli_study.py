"""The studies of radiographs on the command line: `cac evaluate radiograph` and `cac evaluate prognosis`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from CACScoringLib.progress import Progress

STUDIES = {
    "radiograph": "how well calcium is told from chest radiographs, by every way to train, cross-validated",
    "prognosis": "events by true and by foretold category of calcium",
}
"""Studies of tables, not of scans; no part of "all"."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What these studies alone take; --data, --output, --workers, --seed and --device they share with the others."""
    add = parser.add_argument_group("radiograph, prognosis, vessels and radiomics").add_argument
    add("--external", type=Path, metavar="TABLE", help="radiograph: another cohort's table, judged by once")
    add(
        "--tables",
        type=lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
        default=(),
        metavar="NAME[,NAME…]",
        help="radiograph: only thresholds, fusion, capacity, twins, curriculum, sharpening, external; vessels: only "
        "models, augmentation, published, grid (default: all, in this order)",
    )
    add("--folds", type=int, default=5, metavar="N", help="of the cross-validation (default: 5)")
    add(
        "--only-folds",
        action="append",
        default=[],
        type=_fewer,
        metavar="TABLE=N",
        help="radiograph, vessels: train only the first N folds for a table, which the page then says",
    )
    add(
        "--steps",
        type=int,
        metavar="N",
        help="at most, of a training; radiograph: of a light network's, others in proportion (default: as the presets)",
    )
    add(
        "--minutes",
        type=float,
        metavar="M",
        help="radiograph, vessels: begin no training after M minutes; 0: only the page",
    )


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Make the study that was asked for. Raises CTError, OutputError."""
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from ..study_scans import StudyError

    if options.data is None:
        raise StudyError("Name the table with --data.")
    if options.study == "prognosis":
        from .prognosis import evaluate_prognosis

        page = evaluate_prognosis(options.data, options.output, options.seed, progress)
    else:
        from .study import RadiographStudySettings, evaluate_radiographs
        from .study_plan import Effort

        settings = RadiographStudySettings(
            data=options.data,
            output=options.output,
            external=options.external,
            tables=options.tables,
            effort=Effort(options.folds, dict(options.only_folds), options.steps, options.seed),
            minutes=options.minutes,
            workers=options.workers or os.cpu_count() or 1,
            device=options.device,
        )
        page = evaluate_radiographs(settings, progress)
    progress.done(options.output)
    print(f"{page}: the study")


def _fewer(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if not name or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of folds; write for example capacity=2")
    return name, int(count)
