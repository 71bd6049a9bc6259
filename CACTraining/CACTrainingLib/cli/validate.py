"""The command `cac validate`: automatic scores against a user's own reference scans."""

from __future__ import annotations

import argparse
from pathlib import Path

from CACScoringLib.cli.options import add_progress_argument
from CACScoringLib.core.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Score scans that have reference scores, and write validation.html: agreement in total, by category, artery "
        "and lesion, pictures of what was missed and wrongly counted, tables (CSV) and figures. Rerun the command to "
        "resume."
    )
    add = parser.add_argument
    add(
        "reference",
        type=Path,
        metavar="REFERENCE",
        help="COCA's folder Gated_release_final (contours) or deidentified_nongated (scores.xlsx); a folder of "
        "orCaScore (.mhd), of label maps NAME-lesions beside NAME, or of segmentations NAME.seg.nrrd; or a table (CSV) "
        "with ct or id, and total, LM, LAD, LCX, RCA or lesions; or DeepCAC's table of NLST, with --scans",
    )
    add(
        "--scans",
        type=Path,
        metavar="DIR",
        help="folder below which the scans lie, for references that name them by an id",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder for validation.html and all it is made from")
    add(
        "--calibrate",
        metavar="NAME",
        help="calibrate scoring on these scans, report the agreement before and after with every scan evaluated by "
        "other patients, and store it as the model NAME, to score with by --model NAME",
    )
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="model, or its card NAME.json, to use in place of the bundled one",
    )
    add(
        "--before",
        type=Path,
        metavar="DIR",
        help="output of an earlier cac validate of this reference with other models: adds a paired comparison and a "
        "verdict: better, worse or undecided",
    )
    add("--overwrite", action="store_true", help="score all scans again, whatever the folder holds")
    add("--workers", type=int, metavar="N", help="number of processes (default: one per core, as far as memory allows)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="of the networks (default: auto)")
    add_progress_argument(parser)
    parser.set_defaults(
        run=run,
        extras=lambda options: ("studies", "cohort"),
        interrupted="Interrupted. Rerun the command to resume.",
    )


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Validate. Raises CTError, OutputError."""
    from CACScoringLib.models.choice import ModelChoice

    from ..validation.run import ValidationSettings, validate

    done = validate(
        ValidationSettings(
            options.reference,
            options.output,
            options.scans,
            ModelChoice(tuple(options.model), device=options.device),
            options.workers,
            options.overwrite,
            calibrate=options.calibrate,
            before=options.before,
        ),
        progress,
    )
    print(f"{options.output}: {len(done.scans)} scans compared, {len(done.refused)} left out")
    if done.calibrated is not None:
        name = done.calibrated.card.name
        print(f"Stored {name}. Use it with: cac score CT --model {name}")
        print(f"Take it away with: cac models install {name} --previous")
    for sentence in done.verdicts:
        print(sentence)
    progress.done(options.output)
    print(f"{done.page}: the validation")
