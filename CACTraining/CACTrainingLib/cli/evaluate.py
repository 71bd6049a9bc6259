"""The command `cac evaluate`: the scan–rescan study, on a cohort, a project or anyone's scan pairs; models compared."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from CACScoringLib.cli.cluster_option import add_cluster_argument, extras_of_cluster, shares_out
from CACScoringLib.cli.main import add_progress_argument
from CACScoringLib.core.progress import Progress

from . import experiments
from .study_options import StudyParser, add_options, show_page

REPRODUCIBILITY, ACQUISITION, ALL = "reproducibility", "acquisition", "all"

STUDIES = {
    REPRODUCIBILITY: "reproducibility of two scans of a patient, and accuracy against the true mass",
    "detection": "detection of calcium per scan, artery and lesion",
    "heart": "agreement of the heart outline with the reference",
    "automatic": "agreement of the automatic scores with the truth of digital patients",
    "ablation": "contribution of each part of the method",
    ACQUISITION: "dependence of the score of one digital patient on the acquisition",
}

MODELS = "models"
"""The study that scores nothing and is no part of "all": models of one network on the same cases."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the studies; each has options of its own."""
    parser.description = (
        "Studies of methods and models. Each writes study.html, its tables (CSV) and figures (PNG, "
        "SVG). If it is run again, it continues where it stopped. cac evaluate STUDY --help lists a study's options."
    )
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY", parser_class=StudyParser)
    for name, text in {**STUDIES, ALL: "all of these: " + ", ".join(STUDIES)}.items():
        one = studies.add_parser(name, help=text, description=f"Studies {text}.")
        _add_scan_study(one, name)
        one.set_defaults(run=run)
    text = "two or more models of one network, compared on the same cases; not part of all"
    models = studies.add_parser(MODELS, help=text, description=f"Compare {text}.")
    models.add_argument("--data", type=Path, metavar="COHORT", help="folder of a project, or of a cohort")
    models.add_argument(
        "--compare", nargs="+", default=[], metavar="MODEL", help="model cards, or names from cac models list"
    )
    add_options(models, ("--use", "--annotator", "--workers", "--seed", "--device", "--cache"))
    models.set_defaults(run=_compare)
    experiments.add_studies(studies)
    for one in studies.choices.values():
        add_options(one, ["--output"])
        add_progress_argument(one)
        if shares_out(one):
            add_cluster_argument(one, "scores, prepares scans and trains")
        one.set_defaults(extras=_extras, interrupted="Interrupted. Run the same command again to go on.")


def _extras(options: argparse.Namespace) -> tuple[str, ...]:
    scoring = ("cohort",) if options.study in (*STUDIES, ALL) else ()
    radiomics = ("radiomics",) if options.study == "radiomics" else ()
    return ("studies", *scoring, *radiomics, *extras_of_cluster(options))


def _add_scan_study(parser: argparse.ArgumentParser, name: str) -> None:
    """The options of one of STUDIES, or of all."""
    add = parser.add_argument
    on_scans = name != ACQUISITION
    if on_scans:
        add(
            "--data",
            type=Path,
            metavar="COHORT",
            help="folder of a project, or of a cohort, as cac phantom writes it; or a table (CSV) of your own scan "
            "pairs with the columns patient, scan (1 or 2), ct and, where you have them, series, heart, lesions; paths "
            "are relative to it",
        )
        add(
            "--results", type=Path, metavar="DIR", help="results of cac cohort for these scans, instead of scoring them"
        )
        add("--pairs", type=int, metavar="N", help="only the first N patients that have both scans")
    shared = ("--overwrite", "--use", "--annotator", "--seed") if on_scans else ()
    add_options(parser, ("--model", *shared, "--workers", "--device"))
    if name in (ACQUISITION, ALL):
        add("--patient", type=int, default=950191, metavar="NUMBER", help="the digital patient to scan")
    if name in (REPRODUCIBILITY, ALL):
        add(
            "--store-limits",
            nargs="?",
            const=Path(),
            type=Path,
            metavar="CARD",
            help="store the repeatability coefficient with a model, for cac compare (default: the calcium map model "
            "that was used)",
        )


_ON_SCANS = ("data", "use", "annotator", "results", "pairs", "overwrite", "seed")
"""Options of studies of scan pairs, called like the fields of `evaluation.EvaluationSettings`."""


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Make the studies that were asked for. Raises CTError, OutputError."""
    # Imported here so that `cac --help` and a mistyped option answer at once.
    from CACScoringLib.run import ModelChoice

    from ..studies.acquisition import AcquisitionSettings
    from ..studies.evaluation import EvaluationSettings, evaluate

    given = vars(options)
    done = evaluate(
        EvaluationSettings(
            studies=tuple(STUDIES) if options.study == ALL else (options.study,),
            output=options.output,
            models=ModelChoice(tuple(options.model), device=options.device),
            workers=options.workers,
            acquisition=AcquisitionSettings(options.patient) if "patient" in given else AcquisitionSettings(),
            **{name: given[name] for name in _ON_SCANS if name in given},
        ),
        progress,
    )
    if given.get("store_limits") is not None:
        from ..studies.limits import store_limits

        card = store_limits(done.records, None if options.store_limits == Path() else options.store_limits)
        print(f"{card}: repeatability coefficient, for cac compare")
    show_page(done.page, options.output, progress)


def _compare(options: argparse.Namespace, progress: Progress) -> None:
    from ..experiments.errors import StudyError
    from ..studies.model_comparison import ComparisonSettings, compare_models

    if options.data is None:
        raise StudyError("Name with --data the scans on which the models are evaluated: a project, or a cohort.")
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
    show_page(compare_models(settings, progress), options.output, progress, "the comparison")
