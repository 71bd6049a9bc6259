"""Compare models of one network on the same cases, with bootstrap intervals of the differences.

Classifiers are evaluated by labelled slices, decompositions by true calcium maps; no scan
is scored. Results are too good on patients that a model was trained on, so the page reports how many there are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from CACScoringLib.core.ct import CTError, ScanWarning
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import TableError, read_table
from CACScoringLib.models.cards import LoadedModel, ModelError, StoredModel, load_model, read_card

from ..data.datasets import default_cache, find_scans, load_slices, prepare
from ..evaluation.jobs import StudyError, make_folder
from ..evaluation.measures import Comparison, long_table
from ..evaluation.page import table_as_csv, write_study
from ..evaluation.parts import Section, Table, count, heading
from ..project.project import Project, is_project
from ..project.training_scan import TrainingScan
from ..statistics.bootstrap import MIN_PATIENTS, RESAMPLES
from .model_measures import EVALUATORS, Evaluator, Rows
from .scans import ALL_USES, DEFAULT_USE
from .scoring import named_model

CASES = "cases.csv"
"""File in the output folder with the results of each model on each scan."""

Exclusions = list[tuple[str, str]]
"""Names of excluded scans, each with the reason."""


@dataclass(frozen=True)
class ComparisonSettings:
    """Settings of a comparison of models.

    Attributes:
        data: Cohort or project.
        models: Paths of cards, or names of `list_models`; the first is the reference.
        output: Output folder.
        use: Use of a project's scans.
        annotator: Annotator of a project's scans.
        device: Device to compute on.
        workers: Number of processes that prepare scans.
        cache: Folder of prepared scans.
        seed: Seed of the bootstrap.
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


@dataclass(frozen=True)
class Comparator:
    """A compared model.

    Attributes:
        label: Title in tables.
        stored: The stored model.
        training_patients: Patients on which its weights were trained or selected; None if unknown.
    """

    label: str
    stored: StoredModel
    training_patients: frozenset[str] | None

    @property
    def threshold(self) -> float | None:
        return self.stored.card.calibration.get("slice_threshold")


def compare_models(settings: ComparisonSettings, progress: Progress | None = None) -> Path:
    """Evaluate models on the same cases and write `study.html`, its tables and figures, and CASES; return the page.

    The page lists scans that cannot be used; they stop nothing. Raises StudyError for models or scans that cannot be
    compared, ModelError, DataError, ProjectError, OutputError.
    """
    progress = progress or Progress()
    progress.begin(["scans", "models", "page"])
    comparators = _comparators(settings)
    network = comparators[0].stored.card.network
    evaluator = EVALUATORS[network]
    make_folder(settings.output)
    with progress.step("scans"):
        scans, origin, refused = _scans(settings)
        usable, unusable = _usable(scans, evaluator)
        cache = settings.cache or default_cache()
        if evaluator.prepared is not None:
            with suppress(CTError):  # the unfit scan is reported below; the scans before it are in the cache
                prepare([*usable.values()], evaluator.prepared, cache, settings.workers, progress=progress.counted)
    with progress.step("models"):
        models = [load_model(comparator.stored.path, settings.device) for comparator in comparators]
        rows, unfit = _evaluated(usable, evaluator, models, cache, progress)
        cases = {row["scan"]: usable[row["scan"]] for row in rows}
    refused += unusable + unfit
    if not cases:
        name, reason = refused[0]
        raise StudyError(
            f"No scan of {settings.data} can be used to evaluate models for {network!r}; {name}: {reason}. Label or "
            "outline them, or give a cohort of digital patients."
        )
    with progress.step("page"):
        table = long_table(rows, evaluator.conditions)
        warnings = _overlap_warnings(comparators, {scan.patient for scan in cases.values()})
        for text in warnings:
            progress.warning(ScanWarning("trained-on-these-patients", text))
        sections = (
            _models_section(comparators, [*cases.values()], refused, [origin, *warnings]),
            _results_section(comparators, table, evaluator, np.random.default_rng(settings.seed)),
        )
        facts = {
            "Data": str(settings.data),
            "Models": "\n".join(f"{r.label}: {r.stored.path}, {r.stored.card.sha256[:16]}" for r in comparators),
            "Bootstrap": f"seed {settings.seed}, {RESAMPLES} resamples of patients, the same for all models",
            "Every scan": CASES,
        }
        digital = all(scan.calcium_map is not None for scan in cases.values())
        page = write_study(settings.output, f"Models for {network} compared", sections, facts, digital)
        write_text_atomically(settings.output / CASES, table_as_csv(_case_table(comparators, table, evaluator)))
    return page


def _comparators(settings: ComparisonSettings) -> list[Comparator]:
    """Find the models and check that they differ and are for one network. Raises StudyError, ModelError."""
    if len(settings.models) < 2:
        raise StudyError("A comparison takes two models or more. Name them with --model A --model B.")
    models = [named_model(name) for name in settings.models]
    if len({model.card.network for model in models}) > 1:
        networks = ", ".join(f"{model.card.name} is for {model.card.network}" for model in models)
        raise StudyError(f"Only models of one network can be compared; {networks}.")
    if len({(model.card.sha256, str(model.card.calibration)) for model in models}) < len(models):
        raise StudyError(f"Two of {', '.join(settings.models)} are the same model. Name different ones.")
    names = [model.card.name for model in models]
    labels = [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, 1)]
    folder = Project.open(settings.data).models_folder if is_project(settings.data) else None
    return [Comparator(label, model, _patients_of(model, folder)) for label, model in zip(labels, models, strict=True)]


def _patients_of(model: StoredModel, folder: Path | None) -> frozenset[str] | None:
    """Read a model's training patients from the table beside its card, or beside the same model in a project."""
    places = [model.path]
    if folder is not None:
        places += [path for path in sorted(folder.glob("*.json")) if _sha256(path) == model.card.sha256]
    for path in places:
        try:
            lines = read_table(path.with_name(f"{path.stem}.training") / "data.csv", ("patient", "use")).lines
        except TableError:
            continue
        return frozenset(line.text("patient") for line in lines if line.text("use") in ("training", "validation"))
    return None


def _sha256(path: Path) -> str | None:
    try:
        return read_card(path).sha256
    except ModelError:
        return None


def _scans(settings: ComparisonSettings) -> tuple[list[TrainingScan], str, Exclusions]:
    """Find the scans to evaluate on; return them, a sentence on their origin, and a project's unusable scans."""
    scans = find_scans([settings.data], settings.annotator)
    if not is_project(settings.data):
        if settings.use is not None or settings.annotator is not None:
            raise StudyError(f"{settings.data} is not a project: only a project's scans have a use and annotators.")
        return scans, f"All scans of {settings.data} are used.", []
    use = settings.use or DEFAULT_USE
    annotated = [scan for scan in scans if use in (ALL_USES, scan.use)]
    project = Project.open(settings.data)
    if not annotated:
        raise StudyError(
            f"The project {project.name} has no annotated scans for {use}. Evaluate on scans of another use, split its "
            "patients, or annotate."
        )
    usable = {(scan.ct, scan.series) for scan in annotated}
    of_use = [scan for scan in project.scans if use in (ALL_USES, scan.use)]
    unusable = [scan for scan in of_use if (scan.ct, scan.series) not in usable]
    lost = {scan.id for scan in project.missing()}
    reasons = {True: "its CT is not where it was", False: "it has no labels and no heart"}
    refused = [(scan.name, reasons[scan.id in lost]) for scan in unusable]
    return annotated, f"The scans are those for {use} of the project “{project.name}”.", refused


def _usable(scans: Sequence[TrainingScan], evaluator: Evaluator) -> tuple[dict[str, TrainingScan], Exclusions]:
    """Divide scans into usable ones, by name, and others with the reason."""
    numbers: Counter[str] = Counter()
    usable, refused = {}, []
    for scan in scans:
        numbers[scan.patient] += 1
        name = f"{scan.patient}/{numbers[scan.patient]}"
        if reason := evaluator.unusable(scan):
            refused.append((name, reason))
        else:
            usable[name] = scan
    return usable, refused


def _evaluated(
    scans: Mapping[str, TrainingScan],
    evaluator: Evaluator,
    models: Sequence[LoadedModel],
    cache: Path,
    progress: Progress,
) -> tuple[Rows, Exclusions]:
    """Evaluate the models on each scan; return the rows of the long table, and the scans that cannot be read."""
    rows, refused = Rows(), []
    for n, (name, scan) in enumerate(scans.items(), 1):
        try:
            results = evaluator.run(load_slices(prepare([scan], evaluator.prepared, cache)[0]), models)
            rows += [{"patient": scan.patient, "scan": name, "item": 0, "truth": 0.0, **row} for row in results]
        except CTError as error:
            refused.append((name, str(error)))
        progress.counted(n, len(scans))
    return rows, refused


def _overlap_warnings(comparators: Sequence[Comparator], patients: set[str]) -> list[str]:
    """Sentences about models that were trained on some of the patients."""
    counts = {comparator.label: len(patients & (comparator.training_patients or set())) for comparator in comparators}
    return [
        f"{label} was trained or chosen on {n} of these {count(patients, 'patient')}: its results here are better than "
        "on new patients, and so is its difference from a model that has not seen them."
        for label, n in counts.items()
        if n
    ]


def _models_section(
    comparators: Sequence[Comparator], scans: Sequence[TrainingScan], refused: Exclusions, origin: Sequence[str]
) -> Section:
    patients = {scan.patient for scan in scans}
    counts = f"{count(scans, 'scan')} of {count(patients, 'patient')}"
    text = [*origin, f"{counts} could be used, and every model was evaluated on the same ones."]
    if unknown := [comparator.label for comparator in comparators if comparator.training_patients is None]:
        text.append(
            f"It is not known which patients {', '.join(unknown)} saw in training: the list that training writes does "
            "not lie beside the model. Make sure that none of these patients is among them."
        )
    rows = []
    for comparator in comparators:
        card = comparator.stored.card
        overlap = None if comparator.training_patients is None else len(patients & comparator.training_patients)
        rows.append(
            (comparator.label, comparator.stored.origin, card.preset, card.sha256[:16], overlap, card.training.data)
        )
    columns = ("Model", "From", "Preset", "SHA-256", "Patients seen in training", "Training data")
    tables = [Table("models", "The models", columns, tuple(rows))]
    if refused:
        tables.append(Table("scans_left_out", "Scans that are left out", ("Scan", "Why"), tuple(refused)))
    return Section("models", "The models and the scans", tuple(text), tuple(tables))


def _results_section(
    comparators: Sequence[Comparator], table: pd.DataFrame, evaluator: Evaluator, generator: np.random.Generator
) -> Section:
    labels = [comparator.label for comparator in comparators]
    patients = table.drop_duplicates("scan").patient.tolist()
    comparison = Comparison(patients, dict(enumerate(labels)), generator, 0)
    measures = evaluator.measures(table, [comparator.threshold for comparator in comparators])
    rows = [
        (
            *(measure.title, evaluator.better[measure.title]),
            *(comparison.estimate(measure, n) for n in comparison.titles),
        )
        for measure in measures
        if any(map(measure.exists_for, comparison.titles))
    ]
    text = [
        "Intervals and p are by a bootstrap over patients whose resamples all models share, so that differences are "
        f"paired; each is a model minus {labels[0]}. p is not adjusted for the number of measures."
    ]
    if len(set(patients)) < MIN_PATIENTS:
        text.append(f"There are fewer than {MIN_PATIENTS} patients: too few for intervals, and for any conclusion.")
    if not all(measure.exists_for(n) for measure in measures for n in comparison.titles):
        text.append("Measures at a threshold are missing for models without one on their card.")
    changes, columns = [], ("Measure", "This model", labels[0], "Difference", "p")
    for n, label in list(enumerate(labels))[1:]:
        differences = comparison.paired_rows(measures, n, 0)
        changes += [heading(label, columns), *((f"  {row[0]}", *row[1:]) for row in differences)]
    note = f"Each model minus {labels[0]} on the same cases. Which direction is better is in [[model_measures]]."
    tables = (
        Table("model_measures", "Results of each model", ("Measure", "Better", *labels), tuple(rows), evaluator.note),
        Table("model_differences", "Differences between the models", columns, tuple(changes), note),
    )
    values = (table.assign(method=table.method.map(comparison.titles)),)
    return Section("comparison", "The comparison", tuple(text), tables, values=values)


def _case_table(comparators: Sequence[Comparator], table: pd.DataFrame, evaluator: Evaluator) -> Table:
    columns = ("Scan", "Patient", "Model", *evaluator.columns)
    rows = tuple(
        (scan, patient, comparators[n].label, *evaluator.row(rows, comparators[n].threshold))
        for (scan, patient, n), rows in table.groupby(["scan", "patient", "method"], sort=False)
    )
    return Table("cases", "Every scan", columns, rows)
