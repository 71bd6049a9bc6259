"""The studies of radiographs on the command line: `cac evaluate radiograph` and `cac evaluate prognosis`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from CACScoringLib.core.progress import Progress

from .study_options import NAMES, add_options

PROGNOSIS = "prognosis"

STUDIES = {
    "radiograph": "how well calcium is told from chest radiographs, by every way to train, cross-validated",
    PROGNOSIS: "events by true and by foretold category of calcium",
}
"""Studies of tables, not of scans; no part of "all"."""


def add_studies(studies: argparse._SubParsersAction) -> None:
    """Add the studies to those of `cac evaluate`."""
    for name, text in STUDIES.items():
        parser = studies.add_parser(name, help=f"{text}; of a table", description=f"Studies {text}.")
        rows = "patients with their events" if name == PROGNOSIS else "radiographs"
        parser.add_argument("--data", type=Path, metavar="TABLE", help=f"table of {rows}")
        if name == PROGNOSIS:
            add_options(parser, "--seed")
        else:
            _add_radiograph_options(parser)
        parser.set_defaults(run=run)


def _add_radiograph_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--external", type=Path, metavar="TABLE", help="another cohort's table, judged by once")
    add(
        "--tables",
        **NAMES,
        help="only thresholds, fusion, capacity, twins, curriculum, sharpening, external (default: all, in this order)",
    )
    add(
        "--steps",
        type=int,
        metavar="N",
        help="at most, of a light network's training, others in proportion (default: as the presets)",
    )
    add_options(parser, "--folds", "--only-folds", "--minutes", "--workers", "--seed", "--device")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Make the study that was asked for. Raises CTError, OutputError."""
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from ..experiments.errors import StudyError

    if options.data is None:
        raise StudyError("Name the table with --data.")
    if options.study == PROGNOSIS:
        from ..radiograph.study.prognosis import evaluate_prognosis

        page = evaluate_prognosis(options.data, options.output, options.seed, progress)
    else:
        from ..radiograph.study.plan import Effort
        from ..radiograph.study.study import RadiographStudySettings, evaluate_radiographs

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
