"""The studies of second opinions on the command line: `cac evaluate vessels` and `cac evaluate radiomics`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from CACScoringLib.progress import Progress

from . import radiomics_study_cli

VESSELS, RADIOMICS = "vessels", "radiomics"

STUDIES = {
    VESSELS: "how well scores of the arteries are told by regression, without finding lesions",
    RADIOMICS: "how well any coronary calcium is told by radiomics, against features of networks",
}
"""Studies of tables of CTs; no part of "all"."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What these studies alone take. --folds, --only-folds, --tables, --steps and --minutes they share with those of
    radiographs; --data, --output, --cache, --workers, --seed and --device with others too.
    """
    both = parser.add_argument_group(f"{VESSELS}, and {RADIOMICS}")
    both.add_argument(
        "--test", type=Path, metavar="TABLE", help="other patients to test on (default: a fifth of --data)"
    )
    both.add_argument(
        "--others",
        type=Path,
        metavar="TABLE",
        help="other patients whose calcium lies in the aorta or valves only, who must not be called coronary",
    )
    add = parser.add_argument_group(VESSELS).add_argument
    add(
        "--kinds",
        type=_names,
        default=(),
        metavar="NAME[,NAME…]",
        help="only cnn, se-cnn, vit, summed (default: all)",
    )
    add(
        "--outputs",
        type=_names,
        default=(),
        metavar="NAME[,NAME…]",
        help="scores learned as they are (linear), as logarithms (log), or both; the first is what other tables are "
        "trained with (default: linear,log)",
    )
    add("--preset", default="compact", metavar="NAME", help="compact, or paper: the published size (default: compact)")
    radiomics_study_cli.add_arguments(both)


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Make the study that was asked for. Raises CTError, OutputError."""
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from ..study_scans import StudyError

    if options.data is None:
        raise StudyError("Name the table of scans with --data.")
    if options.study == RADIOMICS:
        radiomics_study_cli.run(options, progress)
        return
    from .vessel_study import VesselStudySettings, evaluate_vessels
    from .vessel_study_plan import KINDS, OUTPUTS, Effort

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


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
