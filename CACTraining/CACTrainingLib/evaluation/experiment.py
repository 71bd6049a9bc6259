"""Studies of trainings: cross-validate models of a task by patient, test them on held-out patients, and write a page.

A task is a subclass of `Experiment` that says how scans are read, how a model is trained, what it predicts and by which
measures predictions are judged; the runs, the tables, the comparison with papers and the page are the same for all
tasks. The model of each fold predicts the patients of that fold and the held-out patients, who affect no choice.

Predictions of a training are stored as a line of JSON, so that a study resumes and its page can be rewritten without
training.
"""

from __future__ import annotations

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.progress import Progress, duration_text
from CACScoringLib.core.tables import write_table

from ..data.scan_table import TableScan, folds, table_hash
from ..statistics.bootstrap import RESAMPLES, BootstrapResult, paired_difference
from ..statistics.patient_folds import CATEGORY_TITLES, category_of
from ..statistics.roc import least_difference
from .jobs import JobSettings, kept_jobs, kept_results, make_folder
from .measures import ExperimentComparison, Measure
from .page import write_study
from .papers import Quantity, StudyTexts, findings_section, published_figures, texts_of
from .parts import Cell, Section, TablePart, heading, p_cell

MEMORY_EACH_BYTES = 500_000_000
"""Memory of one training process in bytes, for the default number of processes."""

TRAININGS, PREDICTIONS = "trainings.jsonl", "predictions.csv"
"""Files in the output folder: predictions of each training, a line each; predictions of each patient."""

STEPS = ("scans", "trainings", "page")

TIME_IS_UP = "The time given is used up."
"""Reason of a training that did not begin in time."""

HELD_OUT = -1
"""Fold number of scans, or of a training's test, outside the cross-validation."""


@dataclass(frozen=True)
class ExperimentRun:
    """One training: a configuration, which is a frozen dataclass of its study, on one fold.

    Folds are counted from 0 through all cross-validations.
    """

    configuration: Any
    fold: int


@dataclass(frozen=True)
class TrainingBudget:
    """Budget of training.

    Attributes:
        folds: Number of folds of the cross-validation.
        repeats: Number of cross-validations, each with other folds.
        steps: Steps of a training; None for the preset's.
        seed: Seed of folds, trainings and bootstrap.
    """

    folds: int = 5
    repeats: int = 1
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class ExperimentSettings:
    """Settings of an experiment.

    Attributes:
        data: Table, or the folder that holds it.
        output: Output folder.
        test: Table of other patients for the test; None for those whose use is test, or the task's own choice.
        gated: True for gated scans alone, False for the others, None for all.
        names: Configurations to train; none for all.
        budget: Budget of training.
        minutes: Time after which no run begins; 0 only writes the page, None is no limit.
        workers: Number of processes with one core each; None for as many as cores and memory allow.
        device: Device of the networks.
    """

    data: Path
    output: Path
    test: Path | None = None
    gated: bool | None = None
    names: tuple[str, ...] = ()
    budget: TrainingBudget = field(default_factory=TrainingBudget)
    minutes: float | None = None
    workers: int | None = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Cohort:
    """Scans of a study, split by patient.

    Attributes:
        scans: Scans [n].
        folds: Fold that validates each scan in each cross-validation, or HELD_OUT, int [n, repeats].
        score: Reference scores [n].
        factors: Three clinical factors, float [n, 3]; NaN if unknown.
        failed: Reasons of scans that could not be prepared, by name.
    """

    scans: tuple[TableScan, ...]
    folds: np.ndarray
    score: np.ndarray
    factors: np.ndarray
    failed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def split(
        cls,
        scans: Sequence[TableScan],
        test_names: Sequence[str],
        budget: TrainingBudget,
        factors: np.ndarray,
        failed: Mapping[str, str],
    ) -> Cohort:
        """Split scans into held-out ones and folds.

        Args:
            scans: All scans that could be prepared.
            test_names: Names of held-out scans.
            budget: Number and seed of the folds.
            factors: Clinical factors [n, 3].
            failed: Reasons of the other scans by name.

        Raises:
            CTError: None of the held-out scans could be prepared.
            TableError: Patients are too few.
        """
        held_out = set(test_names)
        learned = [scan for scan in scans if scan.name not in held_out]
        numbers = np.full((len(scans), budget.repeats), HELD_OUT)
        for repeat in range(budget.repeats):
            parts = folds(learned, budget.folds, budget.seed + repeat)
            fold_of = {name: fold for fold, names in enumerate(parts, repeat * budget.folds) for name in names}
            numbers[:, repeat] = [fold_of.get(scan.name, HELD_OUT) for scan in scans]
        if held_out and not (numbers == HELD_OUT).any():
            raise CTError("None of the scans that were held out could be prepared. Look at the warnings.")
        return cls(tuple(scans), numbers, np.array([scan.total for scan in scans], float), factors, failed)

    @property
    def patients(self) -> list[str]:
        return [scan.patient for scan in self.scans]

    @property
    def held_out(self) -> np.ndarray:
        """Rows of the held-out scans."""
        return np.flatnonzero(self.folds[:, 0] == HELD_OUT)

    def training(self, fold: int) -> np.ndarray:
        """Return the training rows of a fold's model."""
        return np.flatnonzero(((self.folds != fold) & (self.folds != HELD_OUT)).all(1))

    def validation(self, fold: int) -> np.ndarray:
        """Return the rows of a fold."""
        return np.flatnonzero((self.folds == fold).any(1))

    def names(self, rows: np.ndarray) -> list[str]:
        return [self.scans[row].name for row in rows]

    @property
    def known_factors(self) -> list[int]:
        """Columns of `factors` known for every scan."""
        return np.flatnonzero(np.isfinite(self.factors).all(0)).tolist()


Predict = Callable[[np.ndarray], np.ndarray]
"""Function that predicts the values [m, …] of rows."""

Fit = Callable[[np.ndarray], Predict]
"""Function from training rows to a function that predicts the values of other rows."""

USES = {"validation": "Cross-validated", "test": "Held out"}
"""Titles of the patients that a fold's model predicts, by key of a training's result."""


@dataclass(frozen=True)
class Experiment(ABC):
    """A task whose trainings a study compares.

    Each worker process gets it.

    Attributes:
        settings: Settings of the study.
        cohort: Patients of the study.
        configurations: Frozen dataclasses with `title`, the most important first.
    """

    NAME: ClassVar[str]
    """Name of the file with its texts (`papers.texts_of`)."""
    SETTINGS: ClassVar[type[ExperimentSettings]] = ExperimentSettings
    CONFIGURATIONS: ClassVar[Mapping[str, Any]]
    """All configurations by name."""
    COLUMNS: ClassVar[tuple[str, ...]]
    """Columns of PREDICTIONS: true, then predicted values."""
    ROWS: ClassVar[Mapping[str, Sequence[str]]] = {"": ("",)}
    """Outcomes that a row of a model in the tables summarises, by title."""

    settings: Any
    cohort: Cohort
    configurations: tuple[Any, ...]

    @classmethod
    @abstractmethod
    def read(cls, settings: Any, progress: Progress) -> Experiment:
        """Read and prepare the data."""

    @property
    @abstractmethod
    def is_digital(self) -> bool:
        """True for digital patients."""

    @property
    @abstractmethod
    def truth(self) -> np.ndarray:
        """True values [n, …]."""

    @property
    @abstractmethod
    def reference(self) -> str:
        """Title of the model or comparator with which all are compared."""

    @abstractmethod
    def fit(self, run: ExperimentRun, folder: Path) -> tuple[Predict, float]:
        """Train in a folder that an ended training is resumed from.

        Returns:
            A function that predicts the values [m, …] of rows, and the training's seconds.
        """

    @abstractmethod
    def training_seconds(self, configuration: Any) -> float:
        """Estimate the seconds of a training by one step. Raises CTError if it cannot be done."""

    def alike(self, configuration: Any) -> Hashable:
        """Return what the time of a configuration's training depends on."""
        return configuration

    def cost(self, runs: Sequence[ExperimentRun]) -> float:
        """Estimate the seconds of trainings on one processor core, without those that cannot be done."""
        counts: dict[Hashable, list[Any]] = {}
        for run in runs:
            counts.setdefault(self.alike(run.configuration), []).append(run.configuration)
        seconds = 0.0
        for configurations in counts.values():
            with suppress(CTError):  # the training reports it
                seconds += len(configurations) * self.training_seconds(configurations[0])
        return seconds

    def power(self) -> str:
        """Return a sentence on the least difference that the patients of the cross-validation can show."""
        cohort = self.cohort
        rows = np.flatnonzero(cohort.folds[:, 0] != HELD_OUT)
        by_patient = pd.Series(cohort.score[rows]).groupby([cohort.patients[row] for row in rows]).max()
        positive, negative = int((by_patient > 0).sum()), int((by_patient == 0).sum())
        difference = least_difference(positive, negative)
        return (
            f"{positive + negative} patients, {positive} with calcium, show a difference in area (above 0) of "
            f"{difference:.2g} or more between two models with a power of 80 %."
        )

    def train(self, run: ExperimentRun, folder: Path) -> dict[str, Any]:
        """Train a run and predict the scans that its fold validates, and the held-out ones if there are any.

        Returns:
            JSON values: "seconds", and the predicted values [m][…] by key of USES.

        Raises:
            CTError: The training cannot be done, or its network predicts no numbers.
        """
        predict, seconds = self.fit(run, folder)
        values = {use: predict(rows) for use, rows in self._rows(run.fold)}
        if not all(np.isfinite(predicted).all(0).any() for predicted in values.values()):  # some columns may be unknown
            raise CTError(f"{run.configuration.title} gave no numbers. Choose fewer --steps, or another --seed.")
        return {**{use: values_of(predicted) for use, predicted in values.items()}, "seconds": seconds}

    @abstractmethod
    def outcomes(self, rows: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """Return truth, value and conditions [m] of scans by outcome, for a long table."""

    @abstractmethod
    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        """Return the columns of the tables; models are compared by the first. table: of `outcomes`."""

    @abstractmethod
    def comparators(self) -> Mapping[str, Fit]:
        """Return simple predictors by title."""

    def predictors(self, configuration: Any, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values [m, …] of each predictor that a training's values hold, by title."""
        return {configuration.title: values}

    def notes(self) -> Sequence[str]:
        """Return paragraphs before the tables, besides the explanation."""
        return ()

    def more_sections(self, predicted: pd.DataFrame) -> Sequence[Section]:
        """Return sections of the page between results and data. predicted: as of `predicted_values`, of all models."""
        return ()

    @property
    def n_models(self) -> int:
        """Number of trainings of a configuration."""
        return self.settings.budget.folds * self.settings.budget.repeats

    @cached_property
    def texts(self) -> StudyTexts:
        """Texts of the page."""
        return texts_of(self.NAME)

    def runs(self) -> list[ExperimentRun]:
        """Return all runs, the most important first."""
        folds = range(self.n_models)
        return [ExperimentRun(configuration, fold) for configuration in self.configurations for fold in folds]

    def stamp(self) -> str:
        """Return a digest of all data that results depend on."""
        return " ".join([table_hash(self.cohort.scans)[:16], *sorted(self.cohort.failed)])

    def key(self, run: ExperimentRun) -> str:
        """Return the key of a run's result, which further repeats leave as it is."""
        budget = {name: value for name, value in asdict(self.settings.budget).items() if name != "repeats"}
        return json.dumps(asdict(run.configuration) | budget | {"fold": run.fold, "data": self.stamp()}, sort_keys=True)

    def write_page(self, failed: Mapping[ExperimentRun, str]) -> Path:
        """Write the page of the finished runs. failed: reason of each other run, TIME_IS_UP if late."""
        stored, settings = kept_results(self.settings.output / TRAININGS), self.settings
        results = {run: stored[key] for run in self.runs() if (key := self.key(run)) in stored}
        reasons = {
            f"{run.configuration.title}, fold {run.fold + 1}": reason
            for run, reason in failed.items()
            if reason != TIME_IS_UP
        }
        minutes = sum(result["seconds"] for result in results.values()) / 60
        facts = {
            "Data": str(settings.data),
            "Trainings": f"{len(results)} of {len(self.runs())}, {minutes:.0f} min of one processor core in all, kept "
            f"in {TRAININGS}",
            "Power": self.power(),
            "Training budget": f"{settings.budget.folds} folds, repeated {settings.budget.repeats}×, "
            f"{settings.budget.steps or 'steps of the presets'}",
            "Every patient": f"{PREDICTIONS}: predictions of each model",
            "Bootstrap": f"{RESAMPLES} resamples of patients; seed {settings.budget.seed}, also of folds and trainings",
        }
        predicted, incomplete = self._all_predicted(results)
        self._write_predictions(predicted)
        sections = [*self._results_sections(predicted, incomplete), *self.more_sections(predicted)]
        sections.append(self._data_section(reasons))
        return write_study(settings.output, self.texts.title, sections, facts, self.is_digital)

    def _all_predicted(self, results: Mapping[ExperimentRun, Mapping[str, Any]]) -> tuple[pd.DataFrame, dict[str, str]]:
        """Return the values of all models and comparators, and how many folds of other models are trained.

        Models with a value that is unknown in any fold are left out.
        """
        parts: list[pd.DataFrame] = []
        incomplete: dict[str, str] = {}
        for configuration in self.configurations:
            runs = sorted((run for run in results if run.configuration == configuration), key=lambda run: run.fold)
            if len(runs) < self.n_models:
                incomplete[configuration.title] = f"{len(runs)} of {self.n_models} folds"
                continue
            parts += [
                predicted_values(title, use, run.fold, rows, values)
                for run in runs
                for use, rows in self._rows(run.fold)
                for title, values in self.predictors(configuration, np.array(results[run][use], float)).items()
            ]
        for title, fit in self.comparators().items():
            for fold in range(self.n_models):
                predict = fit(self.cohort.training(fold))
                parts += [predicted_values(title, use, fold, rows, predict(rows)) for use, rows in self._rows(fold)]
        predicted = pd.concat(parts) if parts else pd.DataFrame(columns=[*MADE_BY, "row"])
        unknown = set(predicted.model[predicted.isna().any(axis=1)])
        return predicted[~predicted.model.isin(unknown)], incomplete

    def _results_sections(self, predicted: pd.DataFrame, incomplete: Mapping[str, str]) -> list[Section]:
        text = (self.texts.explanation, *self.notes())
        if predicted.empty:
            return [Section("results", "Results", (*text, "No configuration was trained in all folds yet."))]
        table = pd.concat(self._long_table(part) for _, part in predicted.groupby([*MADE_BY], sort=False))
        comparison = ExperimentComparison(self.cohort.patients, {}, np.random.default_rng(self.settings.budget.seed))
        tables = [self._table(use, table[table.use == use], comparison, incomplete) for use, _ in self._rows(0)]
        results = Section("results", "Results", text, tuple(tables), values=(table,))
        return [results, *findings_section(self.texts.papers, partial(self._result, table, comparison))]

    def _result(
        self, table: pd.DataFrame, comparison: ExperimentComparison, quantity: Quantity
    ) -> BootstrapResult | None:
        """Return a figure of the tables; None if the model has none."""
        outcomes = self.ROWS[quantity.row]
        rows = table[(table.use == quantity.use) & (table.method == quantity.model) & table.outcome.isin(outcomes)]
        if rows.empty:
            return None
        measure = next(measure for measure in self.measures(rows) if measure.title == quantity.measure)
        return comparison.averaged(measure, quantity.model, quantity.spread)

    def _rows(self, fold: int) -> list[tuple[str, np.ndarray]]:
        """Return the rows that a fold's model predicts, by key of USES."""
        rows = {"validation": self.cohort.validation(fold), "test": self.cohort.held_out}
        return [(use, part) for use, part in rows.items() if len(part)]

    def _long_table(self, predicted: pd.DataFrame) -> pd.DataFrame:
        """Return the long table of one model of a fold on patients of one use."""
        (title, use, fold), rows = predicted[[*MADE_BY]].iloc[0], predicted.row.to_numpy()
        scans = [self.cohort.scans[row] for row in rows]
        parts = [
            predicted_rows(scans, columns, title, f"{outcome} {fold + 1}").assign(outcome=outcome)
            for outcome, columns in self.outcomes(rows, values_in(predicted)).items()
        ]
        return pd.concat(parts).assign(use=use)

    def _table(
        self, use: str, table: pd.DataFrame, comparison: ExperimentComparison, incomplete: Mapping[str, str]
    ) -> TablePart:
        """Return the table of all models and comparators on patients of a use; means over the models of the folds."""
        measures = self.measures(table)
        columns = ("Model", *(measure.title for measure in measures), "Difference", "p")
        parts = {
            title: [replace(measure, rows=measure.rows[measure.rows.outcome.isin(outcomes)]) for measure in measures]
            for title, outcomes in self.ROWS.items()
        }
        has_reference = self.reference in set(table.method)
        rows: list[tuple[Cell, ...]] = []
        for model in dict.fromkeys([*table.method, *incomplete]):
            if model in incomplete:
                rows.append((model, incomplete[model], *[None] * (len(columns) - 2)))
                continue
            rows += [heading(model, columns)] if len(self.ROWS) > 1 else []
            for title, items in parts.items():
                results = [comparison.averaged(item, model) if len(item.rows) else None for item in items]
                cells: list[Cell] = [None if result is None else result.estimate for result in results]
                change: tuple[Cell, ...] = (None, None)
                if results[0] is not None and has_reference and model != self.reference:
                    difference = paired_difference(results[0], comparison.averaged(items[0], self.reference))
                    change = (difference.estimate, p_cell(difference.p))
                rows.append((f"  {title}" if title else model, *cells, *change))
        published = published_figures(self.texts.papers, use)
        rows += [(title, *map(values.get, columns[1:])) for title, values in published.items()]
        note = (
            f"Means over the models of {self.n_models} folds. Difference: {measures[0].title} minus that of "
            f"“{self.reference}”, paired by patient; p is not adjusted for the number of comparisons."
        )
        return TablePart(use, f"{USES[use]} patients", columns, tuple(rows), note)

    def _data_section(self, reasons: Mapping[str, str]) -> Section:
        cohort = self.cohort
        counts: list[tuple[Cell, ...]] = [
            (
                *(title, len({cohort.patients[row] for row in rows}), len(rows)),
                *map(int, np.bincount(category_of(cohort.score[rows]), minlength=len(CATEGORY_TITLES))),
            )
            for title, rows in zip(
                USES.values(), (np.flatnonzero(cohort.folds[:, 0] != HELD_OUT), cohort.held_out), strict=True
            )
        ]
        columns, failed = ("Scans", "Patients", "All", *CATEGORY_TITLES), tuple(sorted(cohort.failed.items()))
        tables = [
            TablePart("scans", "Scans by true Agatston score", columns, tuple(counts)),
            TablePart("left_out", "Scans that could not be prepared", ("Scan", "Why"), failed),
            TablePart("failed", "Trainings that failed", ("Training", "Why"), tuple(reasons.items())),
        ]
        text = (
            "Patients are split, never scans of one patient. The best of many models does better here than in others."
        )
        return Section("data", "The scans", (text,), tuple(table for table in tables if table.rows))

    def _write_predictions(self, predicted: pd.DataFrame) -> None:
        truth = self.truth.reshape(len(self.truth), -1)
        rows = [
            (
                *(title, fold + 1, self.cohort.scans[row].name, self.cohort.scans[row].patient, use),
                *(round(float(value), 4) for value in (*truth[row], *values)),
            )
            for title, use, fold, row, *values in predicted.itertuples(index=False)
        ]
        columns = ("model", "fold", "scan", "patient", "use", *self.COLUMNS)
        write_table(self.settings.output / PREDICTIONS, columns, rows)


MADE_BY = ("model", "use", "fold")
"""Columns of `predicted_values`: title of the model, key of USES, and fold of the model."""


def predicted_values(model: str, use: str, fold: int, rows: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """Return a table of the values [m, …] that a model predicts of scans: MADE_BY, row, and a column per value."""
    about = {"model": model, "use": use, "fold": fold, "row": rows}
    return pd.DataFrame(about | dict(enumerate(np.reshape(values, (len(rows), -1)).T)))


def values_in(predicted: pd.DataFrame) -> np.ndarray:
    """Return the values of `predicted_values` [m, n]."""
    return predicted.drop(columns=[*MADE_BY, "row"]).to_numpy(float)


def predicted_rows(
    scans: Sequence[TableScan], columns: Mapping[str, np.ndarray], model: str = "model", item: str = ""
) -> pd.DataFrame:
    """Return rows of a long table: scans as a model predicts them. columns: truth, value and conditions [n]."""
    about = {"patient": [scan.patient for scan in scans], "scan": [scan.name for scan in scans]}
    return pd.DataFrame({**about, "method": model, "item": item, **columns})


def values_of(predicted: np.ndarray) -> list[Any]:
    """Return predicted values [m, …] as JSON, unknown ones as None."""
    cells = predicted.astype(object)
    cells[~np.isfinite(predicted)] = None
    return cells.tolist()


LONG_SECONDS = 3600
"""Seconds of trainings above which a study asks before it begins."""


def carry_out(
    kind: type[Experiment],
    settings: ExperimentSettings,
    progress: Progress | None = None,
    agrees: Callable[[str], bool] = lambda question: True,
) -> Path:
    """Run the missing trainings, write `study.html` with its tables and figures, and return the page.

    A failed run is reported as a warning and on the page, and stops no other.

    Args:
        kind: Study.
        settings: Its settings.
        progress: Progress of STEPS.
        agrees: Asks whether to begin, from LONG_SECONDS on.

    Raises:
        OutputError: The output folder cannot be written to, or a person does not agree.
        CTError: The data cannot be read, or all trainings of a configuration failed; the page is there then.
    """
    progress = progress or Progress()
    if unknown := sorted(set(settings.names) - set(kind.CONFIGURATIONS)):
        choices = ", ".join(kind.CONFIGURATIONS)
        raise CTError(f"There is no configuration {unknown[0]!r}; choose one of {choices}.")
    if settings.budget.folds < 2:
        raise CTError(f"Cross-validation takes 2 folds or more, not {settings.budget.folds}.")
    if settings.budget.repeats < 1:
        raise CTError(f"A study takes one cross-validation or more; repeats is {settings.budget.repeats}.")
    limit = None if settings.minutes is None else time.time() + 60 * settings.minutes
    progress.begin(list(STEPS))
    make_folder(settings.output)
    with progress.step("scans"):
        experiment = kind.read(settings, progress)
        by_key = {experiment.key(run): run for run in experiment.runs()}
    with progress.step("trainings"):
        work = JobSettings(settings.workers or sensible_count(MEMORY_EACH_BYTES), settings.device, progress)
        stored = kept_results(settings.output / TRAININGS)
        waiting = [run for key, run in by_key.items() if key not in stored]
        if waiting and settings.minutes != 0:
            seconds = experiment.cost(waiting) / min(work.workers, len(waiting))
            size = f"{len(waiting)} trainings take about {duration_text(seconds)}. {experiment.power()}"
            progress.note(size)
            if seconds > LONG_SECONDS and not agrees(size):
                raise OutputError("The study was not begun. Choose fewer configurations (names), folds or steps.")
        do_job = partial(_train, experiment, limit)
        _, reasons = kept_jobs(by_key, settings.output / TRAININGS, lambda: do_job, work)
    with progress.step("page"):
        for reason in sorted(set(reasons.values()) - {TIME_IS_UP}):
            progress.warning(ScanWarning("training-failed", f"A training failed: {reason}"))
        failed = {by_key[key]: reason for key, reason in reasons.items()}
        page = experiment.write_page(failed)
    _require_trainings(experiment, failed, page)
    return page


def _require_trainings(experiment: Experiment, failed: Mapping[ExperimentRun, str], page: Path) -> None:
    """Raise CTError if all trainings of a configuration failed. failed: Reason by run."""
    for configuration in experiment.configurations:
        reasons = [reason for run, reason in failed.items() if run.configuration == configuration]
        if len(reasons) == experiment.n_models and TIME_IS_UP not in reasons:
            raise CTError(
                f"No training of {configuration.title} ended: {reasons[0]} The page of the others is {page}. Correct "
                "the cause and run the study again; finished trainings are kept."
            )


def _train(experiment: Experiment, limit: float | None, run: ExperimentRun) -> dict[str, Any]:
    """Train a run. Raises CTError after the limit, in seconds of `time.time`."""
    if limit is not None and time.time() >= limit:
        raise CTError(TIME_IS_UP)
    with running_folder(experiment.settings.output, experiment.key(run)) as folder:
        return experiment.train(run, folder)


@contextmanager
def running_folder(output: Path, key: str) -> Iterator[Path]:
    """Make a training's working folder; remove it when the training is finished, else leave it to resume from.

    Args:
        output: Output folder of the study.
        key: Key of the training.
    """
    folder = output / "running" / sha256(key.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
