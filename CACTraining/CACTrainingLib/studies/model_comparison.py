"""Two or more models of one network on the same cases: what each measures, how they differ, and whether by chance.

Nothing is scored here: the heart's network is judged by known outlines, the classifier by labelled slices, the
decomposition by known calcium maps. Patients a model was trained on flatter it, so the page says of how many of them
that is known.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError, ScanWarning
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import TableError, read_table
from CACScoringLib.models.cards import LoadedModel, ModelError, StoredModel, list_models, load_model, read_card

from ..data.datasets import TrainingScan, default_cache, find_scans, load_slices, prepare
from ..experiments.errors import StudyError
from ..experiments.scored import make_folder
from ..project.project import Project, is_project
from ..report.page import table_as_csv, write_study
from ..statistics.bootstrap import RESAMPLES
from .model_comparison_page import Case, Comparator, case_table, flattered, models_section, results_section
from .model_measures import EVALUATORS, Evaluator
from .project_scans import DEFAULT_USE

CASES = "cases.csv"
"""In the output folder: every scan with what each model found."""


@dataclass(frozen=True)
class ComparisonSettings:
    """data: cohort or project. models: cards' paths, or names of `list_models`; the first is what others are compared
    with. use, annotator: of a project, which scans and whose labels. cache: of prepared scans. seed: of the bootstrap.
    """

    data: Path
    models: tuple[str, ...]
    output: Path
    use: str | None = None
    annotator: str | None = None
    device: str = "auto"
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    cache: Path | None = None
    seed: int = 0


def compare_models(settings: ComparisonSettings, progress: Progress | None = None) -> Path:
    """Evaluate models on the same cases and write `study.html`, its tables and figures, and CASES; returns the page.

    Raises StudyError for models or scans that cannot be compared, ModelError, DataError, ProjectError, OutputError. A
    scan that cannot be used is named on the page and stops nothing.
    """
    progress = progress or Progress()
    started = time.perf_counter()
    progress.begin(["scans", "models", "page"])
    comparators = _chosen(settings)
    network = comparators[0].stored.card.network
    evaluator = EVALUATORS[network]()
    make_folder(settings.output)
    with progress.step("scans"):
        scans, origin, refused = _scans(settings)
        usable, more = _usable(scans, evaluator)
        refused += more
        if not usable:
            raise StudyError(
                f"None of the {len(scans)} scans can be used to evaluate models for {network!r}: {refused[0][1]}. "
                "Label "
                "or outline them, or give a cohort of digital patients."
            )
        inputs, more = _prepared(usable, evaluator, settings, progress)
        refused += more
    with progress.step("models"):
        models = [load_model(comparator.stored.path, settings.device) for comparator in comparators]
        cases, more = _evaluated(inputs, evaluator, models, progress)
        refused += more
    if not cases:
        raise StudyError(f"No scan could be used: {refused[0][0]}: {refused[0][1]}")
    with progress.step("page"):
        warnings = flattered(comparators, {case.scan.patient for case in cases})
        for text in warnings:
            progress.warning(ScanWarning("trained-on-these-patients", text))
        thresholds = [comparator.stored.card.calibration.get("slice_threshold") for comparator in comparators]
        sections = (
            models_section(comparators, cases, refused, origin, warnings, evaluator),
            results_section(comparators, cases, evaluator, thresholds, np.random.default_rng(settings.seed)),
        )
        facts = _facts(settings, comparators, time.perf_counter() - started)
        digital = all(case.scan.calcium_map is not None for case in cases)
        title = f"Models for {network} compared"
        page = write_study(settings.output, title, sections, facts, digital)
        write_text_atomically(
            settings.output / CASES, table_as_csv(case_table(comparators, cases, evaluator, thresholds))
        )
    return page


def _chosen(settings: ComparisonSettings) -> list[Comparator]:
    """The models, of one network and no two the same. Raises StudyError, ModelError."""
    if len(settings.models) < 2:
        raise StudyError("A comparison takes two models or more. Name them with --compare A B.")
    stored = [_model(name) for name in settings.models]
    networks = {model.card.network for model in stored}
    if len(networks) > 1:
        named = ", ".join(f"{model.card.name} is for {model.card.network}" for model in stored)
        raise StudyError(f"Only models of one network can be compared; {named}.")
    if len({(model.card.sha256, str(model.card.calibration)) for model in stored}) < len(stored):
        raise StudyError(f"Two of {', '.join(settings.models)} are the same model. Name different ones.")
    names = [model.card.name for model in stored]
    labels = [m.card.name if names.count(m.card.name) == 1 else f"{m.card.name} {m.card.sha256[:8]}" for m in stored]
    if len(set(labels)) < len(labels):  # the same weights with another calibration
        labels = [f"{label} ({number})" for number, label in enumerate(labels, 1)]
    others = Project.open(settings.data).models_folder if is_project(settings.data) else None
    return [Comparator(label, model, _trained_on(model, others)) for label, model in zip(labels, stored, strict=True)]


def _model(name: str) -> StoredModel:
    path = Path(name)
    if path.suffix == ".json" or path.is_file():
        return StoredModel(read_card(path), path, "user")
    found = list_models()
    own = [model for model in found if model.card.name == name]
    if not own:
        names = ", ".join(model.card.name for model in found) or "none"
        raise ModelError(f"There is no model {name!r}. Give the path of a card, or one that is installed: {names}.")
    return own[-1]


def _trained_on(model: StoredModel, others: Path | None) -> dict[str, set[str]] | None:
    """Uses by patient, from the table that training leaves beside the card, or beside the same model in a project."""
    places = [model.path]
    if others is not None:
        places += [path for path in sorted(others.glob("*.json")) if _same(path, model)]
    for path in places:
        table = path.with_name(f"{path.stem}.training") / "data.csv"
        try:
            lines = read_table(table, ("patient", "use")).lines
        except TableError:
            continue
        known: dict[str, set[str]] = {}
        for line in lines:
            known.setdefault(line.text("patient"), set()).add(line.text("use"))
        return known
    return None


def _same(path: Path, model: StoredModel) -> bool:
    try:
        return read_card(path).sha256 == model.card.sha256
    except ModelError:
        return False


def _scans(settings: ComparisonSettings) -> tuple[list[TrainingScan], str, list[tuple[str, str]]]:
    """The scans to evaluate on, where they are from, and those of a project that cannot be used, each with why."""
    scans = find_scans([settings.data], settings.annotator)
    if not is_project(settings.data):
        if settings.use is not None or settings.annotator is not None:
            raise StudyError(f"{settings.data} is not a project: only a project's scans have a use and annotators.")
        return scans, f"All scans of {settings.data} are used.", []
    use = settings.use or DEFAULT_USE
    own = [scan for scan in scans if scan.use == use]
    project = Project.open(settings.data)
    if not own:
        raise StudyError(
            f"The project {project.name} has no annotated scans for {use}. Choose another --use, split its patients "
            "with cac project split, or annotate."
        )
    lost = {scan.id for scan in project.missing()}
    found = {(scan.ct, scan.series) for scan in own}
    refused = [
        (scan.name, "its CT is not where it was" if scan.id in lost else "it has no labels and no heart")
        for scan in project.scans
        if scan.use == use and (scan.ct, scan.series) not in found
    ]
    return own, f"The scans are those for {use} of the project “{project.name}”.", refused


def _usable(
    scans: Sequence[TrainingScan], evaluator: Evaluator
) -> tuple[list[tuple[str, TrainingScan]], list[tuple[str, str]]]:
    """Scans with their names, and of others why not."""
    usable, refused = [], []
    numbers: dict[str, int] = {}
    for scan in scans:
        numbers[scan.patient] = numbers.get(scan.patient, 0) + 1
        name = f"{scan.patient}/{numbers[scan.patient]}"
        why = evaluator.why_not(scan)
        if why is None:
            usable.append((name, scan))
        else:
            refused.append((name, why))
    return usable, refused


def _prepared(
    usable: Sequence[tuple[str, TrainingScan]],
    evaluator: Evaluator,
    settings: ComparisonSettings,
    progress: Progress,
) -> tuple[list[tuple[str, TrainingScan, Path | None]], list[tuple[str, str]]]:
    """Scans with their folders in the cache, where the judge reads them from there; and those that are unfit."""
    if evaluator.prepared is None:
        return [(name, scan, None) for name, scan in usable], []
    cache = settings.cache or default_cache()
    scans = [scan for _, scan in usable]
    try:
        folders = prepare(scans, evaluator.prepared, cache, settings.workers, progress.counted)
        return [(*one, folder) for one, folder in zip(usable, folders, strict=True)], []
    except CTError:
        pass  # one of them is unfit: prepared one by one, it is found, and the rest is in the cache already
    inputs: list[tuple[str, TrainingScan, Path | None]] = []
    refused = []
    for name, scan in usable:
        try:
            inputs.append((name, scan, prepare([scan], evaluator.prepared, cache)[0]))
        except CTError as error:
            refused.append((name, str(error)))
    return inputs, refused


def _evaluated(
    inputs: Sequence[tuple[str, TrainingScan, Path | None]],
    evaluator: Evaluator,
    models: Sequence[LoadedModel],
    progress: Progress,
) -> tuple[list[Case], list[tuple[str, str]]]:
    cases, refused = [], []
    for n, (name, scan, folder) in enumerate(inputs, 1):
        try:
            found = evaluator.run(scan if folder is None else load_slices(folder), models)
            cases.append(Case(name, scan, found))
        except CTError as error:
            refused.append((name, str(error)))
        progress.counted(n, len(inputs))
    return cases, refused


def _facts(settings: ComparisonSettings, comparators: Sequence[Comparator], seconds: float) -> dict[str, str]:
    return {
        "Date": datetime.date.today().isoformat(),
        "Data": str(settings.data),
        "Models": "\n".join(f"{r.label}: {r.stored.path}, SHA-256 {r.stored.card.sha256[:16]}" for r in comparators),
        "Bootstrap": f"seed {settings.seed}, {RESAMPLES} resamples of patients, the same for all models",
        "Every scan": CASES,
        "This run": f"{seconds:.0f} s on the device {settings.device}",
    }
