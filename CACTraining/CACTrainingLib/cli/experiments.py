"""The experiments on the command line: `cac evaluate radiograph`, `vessels` and `radiomics`; and `prognosis`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from CACScoringLib.core.progress import Progress

from .study_options import NAMES, add_options, show_page

Study = Callable[[argparse.Namespace, Progress], Path]
"""Makes the study that was asked for, and returns its page."""


def add_studies(studies: argparse._SubParsersAction) -> None:
    """Add the studies of tables, which are no part of "all", to those of `cac evaluate`."""
    for name, text, rows, add_own, study in (
        (
            "radiograph",
            "cross-validated detection of coronary calcium on chest radiographs, by training method",
            "radiographs",
            _add_radiograph_options,
            _radiograph,
        ),
        (
            "prognosis",
            "events by true and by predicted category of calcium",
            "patients with their events",
            partial(add_options, names=("--seed",)),
            _prognosis,
        ),
        (
            "vessels",
            "regression of the scores of the arteries, without finding lesions",
            "CTs",
            _add_vessel_options,
            _vessels,
        ),
        (
            "radiomics",
            "detection of any coronary calcium by radiomics",
            "CTs",
            _add_radiomics_options,
            _radiomics,
        ),
    ):
        parser = studies.add_parser(name, help=f"{text}; of a table", description=f"Studies {text}.")
        parser.add_argument("--data", type=Path, metavar="TABLE", help=f"table of {rows}")
        add_own(parser)
        parser.set_defaults(run=partial(run, study))


def run(study: Study, options: argparse.Namespace, progress: Progress) -> None:
    """Make a study and say where its page is. Raises CTError, OutputError."""
    # Imported here, as all below, so that `cac --help` and a mistyped option answer at once.
    from ..experiments.errors import StudyError

    if options.data is None:
        raise StudyError("Name the table with --data.")
    show_page(study(options, progress), options.output, progress)


_SHARED = ("--folds", "--minutes", "--workers", "--seed", "--device")
_OF_SCANS = (*_SHARED, "--test", "--cache")


def _add_radiograph_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--external", type=Path, metavar="TABLE", help="table of another cohort, for a single external test")
    add("--configurations", **NAMES, help="only these training configurations and the base (default: all)")
    light = "training steps at most of a light network, others in proportion (default: those of the presets)"
    add("--steps", type=int, metavar="N", help=light)
    add_options(parser, _SHARED)


def _add_vessel_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    networks = "only some of cnn, se-cnn, vit, voxel-sum and voxel-sum-supervised, each with -linear or -log for the "
    add("--networks", **NAMES, help=f"{networks}scale of scores, for example cnn-log (default: all)")
    add("--preset", default="compact", metavar="NAME", help="compact, or paper: the published size (default: compact)")
    add("--steps", type=int, metavar="N", help="steps at most of a training (default: those of the presets)")
    add_options(parser, _OF_SCANS)


def _add_radiomics_options(parser: argparse.ArgumentParser) -> None:
    contrast = "contrast-enhanced scans to train on as well"
    parser.add_argument("--contrast-data", type=Path, metavar="TABLE", help=contrast)
    add_options(parser, [name for name in _OF_SCANS if name != "--device"])


def _radiograph(options: argparse.Namespace, progress: Progress) -> Path:
    from ..experiments.configuration import TrainingBudget
    from ..radiograph.study.study import RadiographStudySettings, evaluate_radiographs

    settings = RadiographStudySettings(
        **_given(options, "data", "output", "minutes", "device", "external"),
        budget=TrainingBudget(options.folds, steps=options.steps, seed=options.seed),
        names=options.configurations,
        workers=options.workers or os.cpu_count() or 1,
    )
    return evaluate_radiographs(settings, progress)


def _prognosis(options: argparse.Namespace, progress: Progress) -> Path:
    from ..radiograph.study.prognosis import evaluate_prognosis

    return evaluate_prognosis(options.data, options.output, options.seed, progress)


def _vessels(options: argparse.Namespace, progress: Progress) -> Path:
    from ..whole_scan.vessels.study import VesselBudget, VesselStudySettings, evaluate_vessels

    settings = VesselStudySettings(
        **_given(options, "data", "output", "minutes", "device", "test", "cache"),
        budget=VesselBudget(**_given(options, "folds", "steps", "seed", "networks", "preset")),
        workers=options.workers or os.cpu_count() or 1,
    )
    return evaluate_vessels(settings, progress)


def _radiomics(options: argparse.Namespace, progress: Progress) -> Path:
    from ..experiments.configuration import TrainingBudget
    from ..whole_scan.radiomics.study import RadiomicsStudySettings, evaluate_radiomics

    settings = RadiomicsStudySettings(
        **_given(options, "data", "output", "minutes", "workers", "test", "cache"),
        budget=TrainingBudget(options.folds, seed=options.seed),
        contrast=options.contrast_data,
    )
    return evaluate_radiomics(settings, progress)


def _given(options: argparse.Namespace, *names: str) -> dict[str, object]:
    """Options that are called like the fields they are for."""
    return {name: getattr(options, name) for name in names}
