"""Experiments: cross-validate models of a task by patient, and test them on held-out patients.

A task is a subclass of `Experiment` that says how scans are read, how a model is trained, what it predicts and by which
measures predictions are judged; the runs, the tables, the comparison with papers and the page (`evaluation.study`) are
the same for all tasks. The model of each fold predicts the patients of that fold and the held-out patients, who affect
no choice.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACScoringLib.statistics.roc import least_difference

from ..data.scan_table import TableScan, folds, table_hash
from .measures import Measure
from .papers import StudyTexts, texts_of
from .parts import Section

if TYPE_CHECKING:
    from ..training.task import Task

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
"""Titles of the patients whose predictions have a table, by key of a training's result."""


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

    def task(self, run: ExperimentRun) -> Task[Any]:
        """Return the training of a run before its first step. Raises CTError if it cannot be done."""
        raise NotImplementedError

    def training_seconds(self, configuration: Any) -> float:
        """Estimate the seconds of a training by one step. Raises CTError if it cannot be done."""
        from ..training.loop import step_seconds  # loads PyTorch

        task = self.task(ExperimentRun(configuration, 0))
        return task.loop.steps * step_seconds(task, task.loop, self.settings.device)

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
        if not positive * negative:
            return f"{positive} patients with calcium and {negative} without show no area. Add some of the other kind."
        difference = least_difference(positive, negative)
        return (
            f"{positive + negative} patients, {positive} with calcium, show a difference in area (above 0) of "
            f"{difference:.2g} or more between two models with a power of 80 %."
        )

    def train(self, run: ExperimentRun, folder: Path) -> dict[str, Any]:
        """Train a run and predict the scans that its fold validates, and the held-out ones if there are any.

        Returns:
            JSON values: "seconds", and the predicted values [m][…] by key of `predicted_by`.

        Raises:
            CTError: The training cannot be done, or its network predicts no numbers.
        """
        predict, seconds = self.fit(run, folder)
        values = {use: predict(rows) for use, rows in self.predicted_by(run.fold)}
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

    def predicted_by(self, fold: int) -> list[tuple[str, np.ndarray]]:
        """Return the rows that a fold's model predicts: by key of USES, and others that an experiment adds."""
        rows = {"validation": self.cohort.validation(fold), "test": self.cohort.held_out}
        return [(use, part) for use, part in rows.items() if len(part)]


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
