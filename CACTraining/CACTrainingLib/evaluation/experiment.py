"""Experiments: cross-validate models by patient, test them on held-out patients, and train a model on all others.

A subclass of `Experiment` declares its data (`read`, `for_training`), estimator (`fit`), target (`truth`) and measures.
The runs, the tables, the comparison with papers and the page (`evaluation.study`) are the same for all. The model of
each fold predicts the patients of that fold and the held-out patients, who affect no choice. `train`, the last step,
fits one model on all patients that are not held out, and writes it with its card.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.inference import use_threads
from CACScoringLib.statistics.roc import least_difference

from ..data.scan_table import TableScan, folds, table_hash
from .measures import Measure
from .papers import StudyTexts
from .parts import Section

if TYPE_CHECKING:
    from ..training.runs import TrainedModel
    from ..training.settings import RunOptions
    from ..training.task import Task

HELD_OUT, CONTROL = -1, -2
"""Fold numbers of scans outside the cross-validation: held-out ones, and controls without coronary calcium. The model
of the last step has the fold HELD_OUT: it learns from all folds."""


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
        folds: Fold that validates each scan in each cross-validation, or HELD_OUT or CONTROL, int [n, repeats].
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
        outside: Mapping[str, int],
        budget: TrainingBudget,
        factors: np.ndarray,
        failed: Mapping[str, str],
    ) -> Cohort:
        """Split scans into folds and those outside.

        Args:
            scans: All scans that could be prepared.
            outside: HELD_OUT or CONTROL by name of scans outside the cross-validation, also of unprepared ones.
            budget: Number and seed of the folds.
            factors: Clinical factors [n, 3].
            failed: Reasons of the other scans by name.

        Raises:
            CTError: None of the held-out scans could be prepared.
            TableError: Patients are too few.
        """
        learned = [scan for scan in scans if scan.name not in outside]
        numbers = np.empty((len(scans), budget.repeats), int)
        for repeat in range(budget.repeats):
            parts = folds(learned, budget.folds, budget.seed + repeat)
            inside = {name: fold for fold, names in enumerate(parts, repeat * budget.folds) for name in names}
            fold_of = inside | dict(outside)
            numbers[:, repeat] = [fold_of[scan.name] for scan in scans]
        if HELD_OUT in outside.values() and not (numbers == HELD_OUT).any():
            raise CTError("None of the scans that were held out could be prepared. Look at the warnings.")
        return cls(tuple(scans), numbers, np.array([scan.total for scan in scans], float), factors, failed)

    @property
    def patients(self) -> list[str]:
        return [scan.patient for scan in self.scans]

    @property
    def held_out(self) -> np.ndarray:
        """Rows of the held-out scans."""
        return np.flatnonzero(self.folds[:, 0] == HELD_OUT)

    @property
    def controls(self) -> np.ndarray:
        """Rows of the controls."""
        return np.flatnonzero(self.folds[:, 0] == CONTROL)

    def training(self, fold: int) -> np.ndarray:
        """Return the training rows of a fold's model; of all folds for HELD_OUT."""
        return np.flatnonzero(((self.folds != fold) & (self.folds >= 0)).all(1))

    def validation(self, fold: int) -> np.ndarray:
        """Return the rows of a fold."""
        return np.flatnonzero((self.folds == fold).any(1))

    def scans_at(self, rows: np.ndarray) -> list[TableScan]:
        return [self.scans[row] for row in rows]

    def names(self, rows: np.ndarray) -> list[str]:
        return [scan.name for scan in self.scans_at(rows)]

    def n_patients(self, rows: np.ndarray) -> int:
        """Return the number of patients of rows."""
        return len({scan.patient for scan in self.scans_at(rows)})

    @property
    def known_factors(self) -> list[int]:
        """Columns of `factors` known for every scan."""
        return np.flatnonzero(np.isfinite(self.factors).all(0)).tolist()


Predict = Callable[[np.ndarray], np.ndarray]
"""Function that predicts the values [m, …] of rows."""

Fit = Callable[[np.ndarray], Predict]
"""Function from training rows to a function that predicts the values of other rows."""


@dataclass(frozen=True)
class FittedModel:
    """FittedModel model.

    Attributes:
        model: The model, as the experiment makes it.
        predict: Function that predicts the values [m, …] of rows.
        seconds: Duration of the training.
    """

    model: Any
    predict: Predict
    seconds: float


USES = {"validation": "Cross-validated", "test": "Held out"}
"""Titles of the patients whose predictions have a table, by key of a training's result."""


@dataclass(frozen=True)
class Experiment(ABC):
    """Models of one kind that a study compares, and one of which `train` stores.

    Each worker process of a study gets it.

    Attributes:
        settings: Settings of the study.
        cohort: Patients of the study.
        configurations: Frozen dataclasses with `title`, the most important first; of `train`, the settings of its fit.
    """

    NAME: ClassVar[str]
    """Name of the model's kind."""
    TEXTS: ClassVar[StudyTexts]
    """Texts of the page, of a file in Resources/Papers if it repeats papers (`papers.texts_of`)."""
    SETTINGS: ClassVar[type[ExperimentSettings]] = ExperimentSettings
    """Settings of its study."""
    PRESETS: ClassVar[Mapping[str, Any]]
    """Settings of `train` by name, the default first."""
    CONFIGURATIONS: ClassVar[Mapping[str, Any]]
    """All configurations by name."""
    COLUMNS: ClassVar[tuple[str, ...]]
    """Columns of PREDICTIONS: true, then predicted values."""
    ROWS: ClassVar[Mapping[str, Sequence[str]]] = {"": ("",)}
    """Outcomes that a row of a model in the tables summarises, by title."""
    FACTORS: ClassVar[Sequence[str]]
    """Titles of the columns of `Cohort.factors`."""

    settings: Any
    cohort: Cohort
    configurations: tuple[Any, ...]

    @classmethod
    @abstractmethod
    def read(cls, settings: Any, progress: Progress) -> Experiment:
        """Read and prepare the data of a study."""

    @classmethod
    @abstractmethod
    def for_training(cls, options: RunOptions, settings: Any, progress: Progress) -> Experiment:
        """Read and prepare the data of `train`. settings: as of PRESETS."""

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
    def fit_settings(self, configuration: Any) -> Any:
        """Return the settings of `fit` of a configuration."""

    @abstractmethod
    def fit(self, settings: Any, fold: int, folder: Path, progress: Progress | None = None) -> FittedModel:
        """Fit the model of a fold, or of the last step, in a folder that an ended training is resumed from.

        Args:
            settings: Settings of `fit_settings`.
            fold: Fold to leave out, or HELD_OUT.
            folder: Folder for checkpoint and curves.
            progress: Progress of the present step.
        """

    @abstractmethod
    def trained_model(self, options: RunOptions, settings: Any, fitted: FittedModel) -> TrainedModel:
        """Return the model of the last step, `fitted`, with what its card states. settings: those of its fit."""

    @classmethod
    def train(cls, options: RunOptions, settings: Any, progress: Progress) -> Path:
        """Fit a model on all patients that are not held out, and write it with its card; return the card's path.

        settings: as of PRESETS. Raises CTError, OutputError.
        """
        from ..training.runs import training_run  # loads PyTorch

        with training_run(options, cls.NAME, getattr(settings, "training", settings), {}, progress) as run:
            with progress.step("scans"):
                experiment = cls.for_training(options, settings, progress)
                (fit_settings,) = experiment.configurations
            with progress.step("training"):
                fitted = experiment.fit(fit_settings, HELD_OUT, options.folder, progress)
            with progress.step("model"):
                return run.write_network(experiment.trained_model(options, fit_settings, fitted))

    def task(self, settings: Any, fold: int) -> Task[Any]:
        """Return the training of a fold before its first step. Raises CTError if it cannot be done."""
        raise NotImplementedError

    def training_seconds(self, configuration: Any) -> float:
        """Estimate the seconds of a training by one step. Raises CTError if it cannot be done."""
        from ..training.loop import step_seconds  # loads PyTorch

        use_threads(1)  # as in a worker
        task = self.task(self.fit_settings(configuration), 0)
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
        rows = np.flatnonzero(cohort.folds[:, 0] >= 0)
        by_patient = pd.Series(cohort.score[rows]).groupby([cohort.patients[row] for row in rows]).max()
        positive, negative = int((by_patient > 0).sum()), int((by_patient == 0).sum())
        if not positive * negative:
            return f"{positive} patients with calcium and {negative} without show no area. Add some of the other kind."
        difference = least_difference(positive, negative)
        return (
            f"{positive + negative} patients, {positive} with calcium, show a difference in area (above 0) of "
            f"{difference:.2g} or more between two models with a power of 80 %."
        )

    def validate(self, run: ExperimentRun, folder: Path) -> dict[str, Any]:
        """Fit a run and predict the scans that its fold validates, and the held-out ones if there are any.

        Returns:
            JSON values: "seconds", and the predicted values [m][…] by key of `predicted_by`.

        Raises:
            CTError: The training cannot be done, or its model predicts no numbers.
        """
        use_threads(1)  # the other workers use the rest
        fitted = self.fit(self.fit_settings(run.configuration), run.fold, folder)
        values = {use: fitted.predict(rows) for use, rows in self.predicted_by(run.fold)}
        if not all(np.isfinite(predicted).all(0).any() for predicted in values.values()):  # some columns may be unknown
            raise CTError(f"{run.configuration.title} gave no numbers. Choose fewer --steps, or another --seed.")
        return {**{use: values_of(predicted) for use, predicted in values.items()}, "seconds": fitted.seconds}

    @abstractmethod
    def outcomes(self, rows: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """Return truth, value and conditions [m] of scans by outcome, for a long table."""

    @abstractmethod
    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        """Return the columns of the tables; models are compared by the first. table: of `outcomes`."""

    @abstractmethod
    def comparators(self) -> Mapping[str, Fit]:
        """Return simple predictors by title."""

    @abstractmethod
    def fit_factors(self, factors: np.ndarray, truth: np.ndarray) -> Predict:
        """Fit a predictor by clinical factors alone.

        Args:
            factors: Known factors of the training scans [n, k].
            truth: Their true values [n, …].

        Returns:
            A function that predicts the values [m, …] from the factors [m, k] of other scans.
        """

    def factors_alone(self, rows: np.ndarray) -> Predict:
        """Fit the known clinical factors on training rows, a `Fit`."""
        factors = self.cohort.factors[:, self.cohort.known_factors]
        predict = self.fit_factors(factors[rows], self.truth[rows])
        return lambda cases: predict(factors[cases])

    @property
    def factors_title(self) -> str:
        """Titles of the known clinical factors."""
        return ", ".join(self.FACTORS[column] for column in self.cohort.known_factors)

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
