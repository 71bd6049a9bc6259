"""The study of radiomics on the command line: `cac evaluate radiomics`."""

from __future__ import annotations

import argparse
from pathlib import Path

from CACScoringLib.core.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this study alone takes."""
    add = parser.add_argument
    add("--contrast-data", type=Path, metavar="TABLE", help="contrast-enhanced scans to learn from too")
    add("--ct-fm", type=Path, metavar="FILE", help="weights of CT-FM, to compare its features")
    add("--radimagenet", type=Path, metavar="FILE", help="weights of RadImageNet, to compare its features")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Make the study. Raises CTError, OutputError."""
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from ..experiments.errors import StudyError
    from ..whole_scan.radiomics.study import RadiomicsStudySettings, evaluate_radiomics

    if options.data is None:
        raise StudyError("Name the table with --data.")
    files = {"ct-fm": options.ct_fm, "radimagenet": options.radimagenet}
    page = evaluate_radiomics(
        RadiomicsStudySettings(
            data=options.data,
            output=options.output,
            test=options.test,
            contrast=options.contrast_data,
            others=options.others,
            encoders={name: file for name, file in files.items() if file is not None},
            folds=options.folds,
            workers=options.workers,
            seed=options.seed,
            cache=options.cache,
            minutes=options.minutes,
            device="cuda" if options.device == "cuda" else "cpu",  # many processes at work share no graphics card
        ),
        progress,
    )
    progress.done(options.output)
    print(f"{page}: the study")
