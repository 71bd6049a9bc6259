"""The command `cac evaluate STUDY`: studies of scored scans, of people, and of many trainings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from CACScoringLib.cli.options import (
    DEVICES,
    LOCAL,
    Command,
    cluster_option,
    confirms,
    extras_of_cluster,
    from_file,
    settings_option,
)
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.options import GivenOnce, argument, option
from CACScoringLib.core.progress import Progress

from .experiments import EXPERIMENTS

SECTION = "study"
"""Section of a settings file with the fields of a study's settings."""


@dataclass(frozen=True)
class Study:
    """A study of the command.

    Attributes:
        text: Help.
        takes: Options besides the common ones.
        make: Function of the study's name, the values of its options, the settings file and the progress; returns the
            page.
        extras: Extras that it needs.
    """

    text: str
    takes: tuple[str, ...]
    make: Callable[[str, dict[str, Any], Sequence[str], Progress], Path]
    extras: tuple[str, ...] = ("studies",)


def _evaluate_scans(name: str, values: dict[str, Any], sources: Sequence[str], progress: Progress) -> Path:
    # Studies are imported on use, so that `cac --help` and option errors are fast.
    from CACScoringLib.models.choice import ModelChoice

    from ..truth.evaluation import SCAN_STUDIES, EvaluationSettings, evaluate

    studies = SCAN_STUDIES if name == "all" else (name,)
    settings = from_file(sources, SECTION, EvaluationSettings(studies, values["output"], _data(name, values)))
    models = ModelChoice(values.pop("model", ()), device=values.pop("device", "auto"))
    evaluation = evaluate(replace(settings, models=models, **values), progress)
    if (accuracy := evaluation.accuracy) is not None:
        print(f"{settings.output}: {len(accuracy.scans)} scans compared, {len(accuracy.refused)} left out")
        for sentence in accuracy.verdicts:
            print(sentence)
        if accuracy.calibrated is not None:
            model = accuracy.calibrated.card.name
            print(f"Stored {model}. Use it with: cac score CT --model {model}")
            print(f"Take it away with: cac models install {model} --previous")
    if evaluation.limits is not None:
        print(f"{evaluation.limits}: repeatability coefficient, for cac compare")
    return evaluation.page


def _evaluate_people(name: str, values: dict[str, Any], sources: Sequence[str], progress: Progress) -> Path:
    from CACScoringLib.models.choice import ModelChoice

    from ..truth.people import PeopleSettings, evaluate_people

    models = ModelChoice(values.pop("model", ()), device=values.pop("device", "auto"))
    settings = from_file(sources, SECTION, PeopleSettings(_data(name, values), values["output"], models))
    page, figures = evaluate_people(replace(settings, **values), progress)
    for question, answer in figures:
        print(f"{question}: {answer}")
    return page


def _evaluate_prognosis(name: str, values: dict[str, Any], sources: Sequence[str], progress: Progress) -> Path:
    from ..radiograph.prognosis import evaluate_prognosis

    return evaluate_prognosis(_data(name, values), values["output"], values.get("seed", 0), progress)


def _evaluate_trainings(name: str, values: dict[str, Any], sources: Sequence[str], progress: Progress) -> Path:
    from ..evaluation.study import carry_out

    kind = EXPERIMENTS[name].load()
    default: Any = kind.SETTINGS(_data(name, values), values["output"], workers=None, device="auto")
    changed = from_file(sources, SECTION, default)
    budget = replace(changed.budget, seed=values.pop("seed", changed.budget.seed))
    agreed = values.pop("yes", False)
    if "encoder" in values:
        values["encoder"] = replace(changed.encoder, file=values["encoder"])

    def agrees(size: str) -> bool:
        """Ask a person at a terminal; programs and logs go on."""
        return agreed or not sys.stdin.isatty() or confirms(f"{size} Begin?")

    return carry_out(kind, replace(changed, budget=budget, **values), progress, agrees)


def _data(name: str, values: dict[str, Any]) -> Path:
    if "data" not in values:
        raise CTError(f"The study {name} needs scans, or a table of them. Name them with --data.")
    return values["data"]


_SCANS = (
    *("data", "scans", "columns", "results", "pairs", "model", "overwrite", "use", "annotator", "seed", "workers"),
    "device",
)
_COMPARED = ("calibrate", "before")
_TRAININGS = ("data", "seed", "yes", "workers")
_SCORED = ("statistics", "cohort")

STUDIES = {
    "accuracy": Study("scores against those of a reference", (*_SCANS, *_COMPARED), _evaluate_scans, _SCORED),
    "reproducibility": Study("two scans of each patient", _SCANS, _evaluate_scans, _SCORED),
    "detection": Study("calcium per scan, artery and lesion", _SCANS, _evaluate_scans, _SCORED),
    "heart": Study("agreement of the heart outline with the reference", _SCANS, _evaluate_scans, _SCORED),
    "ablation": Study("contribution of each part of the method", _SCANS, _evaluate_scans, _SCORED),
    "all": Study("all of the above", _SCANS, _evaluate_scans, _SCORED),
    "people": Study(
        "people of public collections whose calcium was read, as on the front page",
        ("data", "model", "overwrite", "workers", "device"),
        _evaluate_people,
        _SCORED,
    ),
    **{
        name: Study(
            experiment.study, (*_TRAININGS, *experiment.of_study), _evaluate_trainings, ("studies", *experiment.extras)
        )
        for name, experiment in EXPERIMENTS.items()
    },
    "prognosis": Study("events by true and by predicted category", ("data", "seed"), _evaluate_prognosis),
}
"""Studies by name, in the order of the help."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Evaluate methods or models: study.html with tables (CSV) and figures (PNG, SVG). Rerun the command to resume.

    Attributes:
        data: COCA's folder Gated_release_final (contours) or deidentified_nongated (scores.xlsx); a folder of orCaScore
            (.mhd), of label maps NAME-lesions beside NAME, or of segmentations NAME.seg.nrrd; a table (CSV) with ct or
            id, and total, LM, LAD, LCX, RCA or lesions; DeepCAC's table of NLST, with --scans; a project; digital
            patients of cac phantom; or a table of scan pairs with patient, scan (1 or 2), ct and optionally series,
            heart, lesions. Paths are relative to the table. For studies that train models, a project that cac data
            import has filled, or their table. For people, the folder of their scans.
        scans: Folder below which the scans lie, for references that name them by an id.
        columns: Columns of a table that are called otherwise, by what they mean, such as
            id=Patient,total="Manual Agatston"; the other columns are not read.
        results: Results of cac cohort; only scans that it does not list are scored.
        pairs: Only the first N patients that have both scans.
        calibrate: Calibrate scoring on these scans, report the agreement before and after with every scan evaluated by
            other patients, and store it as the model NAME, to score with by --model NAME.
        before: Output of an earlier cac evaluate accuracy of this reference with other models: adds a paired comparison
            and a verdict: better, worse or undecided.
        model: Model, or its card NAME.json, to use in place of the bundled one.
        overwrite: Score all scans again, whatever the folder holds.
        use: Use of the scans of a project (default: test); all is for models that learned from none of them.
        annotator: Annotator whose annotations of a project count, where there are several.
        seed: Random seed of the bootstrap and of trainings (default: 0).
        yes: Begin trainings of more than an hour without asking.
        encoder: TorchScript encoder of a box about the heart, beside radiomics; its box in --settings (default: that of
            the bundled territories).
        workers: Number of processes (default: one per core, as far as memory allows).
        device: Of the networks (default: auto).
        output: Folder for study.html, its tables and figures.
    """

    study: str = argument(
        text="; ".join(f"{name}: {study.text}" for name, study in STUDIES.items()), choices=STUDIES, metavar="STUDY"
    )
    data: Path | None = option(None, metavar="DATA", action=GivenOnce)
    scans: Path | None = option(None, metavar="DIR")
    columns: str | None = option(None, metavar="MEANING=COLUMN,…")
    results: Path | None = option(None, metavar="DIR")
    pairs: int | None = option(None, metavar="N")
    calibrate: str | None = option(None, metavar="NAME")
    before: Path | None = option(None, metavar="DIR")
    model: tuple[str, ...] = option((), metavar="NAME")
    overwrite: bool | None = None
    use: str | None = option(None, choices=("test", "validation", "training", "all"))
    annotator: str | None = option(None, metavar="NAME")
    seed: int | None = option(None, metavar="N")
    yes: bool | None = None
    encoder: Path | None = option(None, metavar="FILE")
    workers: int | None = option(None, metavar="N")
    device: str | None = option(None, choices=DEVICES)
    output: Path = option(metavar="DIR")
    settings: tuple[str, ...] = settings_option()
    cluster: str = cluster_option("score, prepare scans and train")


def _extras(options: EvaluateOptions) -> tuple[str, ...]:
    """Return the extras of a study. Raises CTError of a table that cannot be used, before they are installed."""
    study = STUDIES[options.study]
    if options.data is not None and study.make is _evaluate_scans:
        from ..references.registry import check_study

        check_study(options.data, options.scans, options.columns)
    cuda = ("torch",) if options.device == "cuda" and "studies" not in study.extras else ()
    return (*study.extras, *cuda, *extras_of_cluster(options))


def run(options: EvaluateOptions, progress: Progress) -> None:
    """Make a study. Raises CTError, OutputError."""
    study = STUDIES[options.study]
    values = {
        name: value
        for name in (*_SCANS, *_COMPARED, "yes", "encoder")
        if (value := getattr(options, name)) not in (None, ())
    }
    if foreign := sorted(values.keys() - set(study.takes)):
        takes = ", ".join(f"--{name}" for name in study.takes)
        raise CTError(f"The study {options.study} does not take --{foreign[0]}; it takes {takes}.")
    if options.study == "prognosis" and options.cluster != LOCAL:
        raise CTError("The study prognosis computes nothing on a cluster. Leave --cluster out.")
    values["output"] = options.output
    page = study.make(options.study, values, options.settings, progress)
    progress.done(options.output)
    print(f"{page}: the study")


add_arguments = Command(EvaluateOptions, run, _extras).declare
