"""The command `cac evaluate`: the scan–rescan study, on a cohort, a project or anyone's scan pairs; models compared."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from CACScoringLib.cli import add_progress_argument
from CACScoringLib.progress import Progress

from .opinions import cli_study as opinions
from .radiographs import cli_study

STUDIES = {
    "reproducibility": "how well two scans of a patient agree, and with the truth",
    "detection": "which scans, arteries and lesions are found",
    "heart": "how well the heart is found",
    "ablation": "what each part of the method is good for",
    "acquisition": "how a score changes with the way one digital patient is scanned",
}

MODELS = "models"
"""The study that scores nothing and is no part of "all": models of one network on the same cases."""


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Add the command to a parser (see `CACScoringLib.cli`)."""
    parser = commands.add_parser(
        "evaluate",
        help="study how well scans of the same patients agree, with tables and figures",
        description="Score scan pairs, compare methods with each other and, on digital patients, with the truth. "
        "Writes study.html, its tables (CSV) and figures (PNG, SVG). Run again, it goes on where it stopped.",
        epilog="Studies: "
        + "; ".join(f"{name}: {text}" for name, text in STUDIES.items())
        + f"; {MODELS}: two or more models of one network on the same cases (--compare), which is no part of all; "
        + "; ".join(f"{name}: {text}" for name, text in (cli_study.STUDIES | opinions.STUDIES).items())
        + ", of a table (--data).",
    )
    add = parser.add_argument
    others = (MODELS, *cli_study.STUDIES, *opinions.STUDIES)
    add(
        "study",
        choices=(*STUDIES, "all", *others),
        metavar="STUDY",
        help=f"{', '.join(STUDIES)}, all; or one of {', '.join(others)}",
    )
    add(
        "--data",
        type=Path,
        metavar="COHORT",
        help="folder of a project, or of a cohort, as cac phantom writes it; or a table (CSV) of your own scan pairs "
        "with the columns patient, scan (1 or 2), ct and, where you have them, series, heart, lesions; paths are "
        "relative to it",
    )
    add("--use", choices=("test", "validation", "training"), help="of a project: which scans (default: test)")
    add("--annotator", metavar="NAME", help="of a project: whose annotations count, where several annotated")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for study.html and all it is made from")
    add("--results", type=Path, metavar="DIR", help="what cac cohort made of these scans, instead of scoring them")
    add("--pairs", type=int, metavar="N", help="only the first N patients that have both scans")
    add("--workers", type=int, metavar="N", help="processes at work (default: one per core, as far as memory allows)")
    add("--overwrite", action="store_true", help="score all anew, whatever is in the folder")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add("--model", action="append", default=[], metavar="NAME", help="model instead of the one that comes with CAC")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--compare", nargs="+", default=[], metavar="MODEL", help=f"{MODELS}: cards, or names of cac models list")
    add("--cache", type=Path, metavar="DIR", help=f"{MODELS}, vessels: where prepared scans are kept")
    ablation = parser.add_argument_group("ablation")
    ablation.add_argument(
        "--ablation-pairs", type=int, default=30, metavar="N", help="pairs to score again in every way (default: 30)"
    )
    ablation.add_argument(
        "--variant",
        action="append",
        default=[],
        type=_variant,
        metavar="NAME=CARD[,CARD…]",
        help="other trained models to compare with; names that differ only behind a # are seeds of one variant",
    )
    parser.add_argument(
        "--patient", type=int, default=950341, metavar="NUMBER", help="the digital patient of the study of acquisition"
    )
    parser.add_argument(
        "--store-limits",
        nargs="?",
        const=Path(),
        type=Path,
        metavar="CARD",
        help="store with a model what repeats, for cac compare (default: the model for the calcium map that was used)",
    )
    cli_study.add_arguments(parser)
    opinions.add_arguments(parser)
    add_progress_argument(parser)
    parser.set_defaults(run=run, interrupted="Interrupted. Run the same command again to go on.")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Make the studies that were asked for. Raises CTError, OutputError."""
    if options.study == MODELS:
        _compare(options, progress)
        return
    if options.study in cli_study.STUDIES:
        cli_study.run(options, progress)
        return
    if options.study in opinions.STUDIES:
        opinions.run(options, progress)
        return
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from CACScoringLib.scan_run import ModelChoice

    from .ablation import AblationSettings
    from .acquisition_study import AcquisitionSettings
    from .evaluation import EvaluationSettings, evaluate
    from .study_scans import StudyError

    if options.compare:
        raise StudyError(f"--compare is of the study {MODELS}: cac evaluate {MODELS} --data … --compare A B.")
    variants = dict(options.variant)
    if len(variants) < len(options.variant):
        raise StudyError("Two variants have one name. Seeds of a variant differ behind a #: alpha-10#1, alpha-10#2.")
    done = evaluate(
        EvaluationSettings(
            studies=tuple(STUDIES) if options.study == "all" else (options.study,),
            output=options.output,
            data=options.data,
            use=options.use,
            annotator=options.annotator,
            results=options.results,
            pairs=options.pairs,
            models=ModelChoice(tuple(options.model), device=options.device),
            workers=options.workers,
            overwrite=options.overwrite,
            seed=options.seed,
            ablation=AblationSettings(options.ablation_pairs, variants),
            acquisition=AcquisitionSettings(options.patient),
        ),
        progress,
    )
    if options.store_limits is not None:
        from .study_limits import store_limits

        card = store_limits(done.records, None if options.store_limits == Path() else options.store_limits)
        print(f"{card}: what repeats, for cac compare")
    progress.done(options.output)
    print(f"{done.page}: the study")


def _compare(options: argparse.Namespace, progress: Progress) -> None:
    from .model_comparison import ComparisonSettings, compare_models
    from .study_scans import StudyError

    if options.data is None:
        raise StudyError("Say with --data by which scans the models are judged: a project, or a cohort.")
    settings = ComparisonSettings(
        data=options.data,
        models=tuple(options.compare),
        output=options.output,
        use=options.use,
        annotator=options.annotator,
        device=options.device,
        workers=options.workers or os.cpu_count() or 1,
        cache=options.cache,
        seed=options.seed,
    )
    page = compare_models(settings, progress)
    progress.done(options.output)
    print(f"{page}: the comparison")


def _variant(text: str) -> tuple[str, tuple[Path, ...]]:
    name, _, cards = text.partition("=")
    if not name or not cards:
        raise argparse.ArgumentTypeError(f"{text!r} is no variant; write for example alpha-10#1=models/map.json")
    return name, tuple(Path(card) for card in cards.split(","))
