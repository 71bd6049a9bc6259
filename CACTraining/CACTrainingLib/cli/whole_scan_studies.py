"""The studies of second opinions on the command line: `cac evaluate vessels` and `cac evaluate radiomics`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from CACScoringLib.core.progress import Progress

from . import radiomics_study as radiomics_study_cli
from .study_options import NAMES, add_options

VESSELS, RADIOMICS = "vessels", "radiomics"

STUDIES = {
    VESSELS: "how well scores of the arteries are told by regression, without finding lesions",
    RADIOMICS: "how well any coronary calcium is told by radiomics, against features of networks",
}
"""Studies of tables of CTs; no part of "all"."""


def add_studies(studies: argparse._SubParsersAction) -> None:
    """Add the studies to those of `cac evaluate`."""
    for name, text in STUDIES.items():
        parser = studies.add_parser(name, help=f"{text}; of a table", description=f"Studies {text}.")
        parser.add_argument("--data", type=Path, metavar="TABLE", help="table of CTs")
        if name == RADIOMICS:
            radiomics_study_cli.add_arguments(parser)
        else:
            _add_vessel_options(parser)
        add_options(parser, "--test", "--others", "--folds", "--minutes", "--cache", "--workers", "--seed", "--device")
        parser.set_defaults(run=run)


def _add_vessel_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--kinds", **NAMES, help="only cnn, se-cnn, vit, summed (default: all)")
    add(
        "--outputs",
        **NAMES,
        help="scores learned as they are (linear), as logarithms (log), or both; the first is what other tables are "
        "trained with (default: linear,log)",
    )
    add("--preset", default="compact", metavar="NAME", help="compact, or paper: the published size (default: compact)")
    add("--tables", **NAMES, help="only models, augmentation, published, grid (default: all, in this order)")
    add("--steps", type=int, metavar="N", help="at most, of a training (default: as the presets)")
    add_options(parser, "--only-folds")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Make the study that was asked for. Raises CTError, OutputError."""
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from ..experiments.errors import StudyError

    if options.data is None:
        raise StudyError("Name the table of scans with --data.")
    if options.study == RADIOMICS:
        radiomics_study_cli.run(options, progress)
        return
    from ..whole_scan.vessels.plan import KINDS, OUTPUTS, Effort
    from ..whole_scan.vessels.study import VesselStudySettings, evaluate_vessels

    settings = VesselStudySettings(
        data=options.data,
        output=options.output,
        test=options.test,
        others=options.others,
        tables=options.tables,
        effort=Effort(
            kinds=options.kinds or tuple(KINDS),
            outputs=options.outputs or tuple(OUTPUTS),
            folds=options.folds,
            only=dict(options.only_folds),
            steps=options.steps,
            preset=options.preset,
            seed=options.seed,
        ),
        minutes=options.minutes,
        workers=options.workers or os.cpu_count() or 1,
        device=options.device,
        cache=options.cache,
    )
    page = evaluate_vessels(settings, progress)
    progress.done(options.output)
    print(f"{page}: the study")
