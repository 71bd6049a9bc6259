"""Engine of all studies of trainings: run the missing trainings within a time limit, then write the page.

Predictions of a training are stored as a line of JSON, so that a study resumes and its page can be rewritten without
training.
"""

from __future__ import annotations

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.ct import CTError, ScanWarning
from CACScoringLib.core.progress import Progress

from ..data.scan_table import TableScan, table_hash
from ..statistics.bootstrap import RESAMPLES
from ..statistics.patient_folds import CATEGORY_TITLES, category_of
from .jobs import JobSettings, StudyError, kept_jobs, kept_results, make_folder
from .page import write_study
from .parts import Cell, Section, Table

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
    """One training: a configuration, which is a frozen dataclass of its study, on one fold, counted from 0."""

    configuration: Any
    fold: int


@dataclass(frozen=True)
class TrainingBudget:
    """Budget of training. Raises StudyError for too few folds.

    Attributes:
        folds: Number of folds of the cross-validation.
        steps: Steps of a training; None for the preset's.
        seed: Seed of folds, trainings and bootstrap.
    """

    folds: int = 5
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_folds(self.folds, 2)


def check_folds(folds: int, least: int) -> None:
    """Raise StudyError for too few folds."""
    if folds < least:
        raise StudyError(f"Cross-validation takes {least} folds or more, not {folds}.")


def check_known(names: Iterable[str], choices: Iterable[str], kind: str) -> None:
    """Check that all names are among the choices.

    Args:
        names: Names to check.
        choices: Valid names.
        kind: Kind of name, for the message.

    Raises:
        StudyError: A name is invalid.
    """
    if unknown := sorted(set(names) - set(choices)):
        raise StudyError(f"There is no {kind} {unknown[0]!r}; choose one of {', '.join(choices)}.")


@dataclass(frozen=True)
class ExperimentSettings:
    """Settings of an experiment.

    Attributes:
        data: Table, or the folder that holds it.
        output: Output folder.
        budget: Budget of training.
        minutes: Time after which no run begins; 0 only writes the page, None is no limit.
        workers: Number of processes with one core each; None for as many as cores and memory allow.
        device: Device of the networks.
    """

    data: Path
    output: Path
    budget: TrainingBudget = field(default_factory=TrainingBudget)
    minutes: float | None = None
    workers: int | None = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Cohort:
    """Scans of a study, split by patient.

    Attributes:
        scans: Scans [n].
        folds: Fold that validates each scan, or HELD_OUT, int [n].
        score: Reference scores [n].
        factors: Three clinical factors, float [n, 3]; NaN if unknown.
        failed: Reasons of scans that could not be prepared, by name.
    """

    scans: tuple[TableScan, ...]
    folds: np.ndarray
    score: np.ndarray
    factors: np.ndarray
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def patients(self) -> list[str]:
        return [scan.patient for scan in self.scans]

    @property
    def held_out(self) -> np.ndarray:
        """Rows of the held-out scans."""
        return np.flatnonzero(self.folds == HELD_OUT)

    def training(self, fold: int) -> np.ndarray:
        """Return the training rows of a fold's model."""
        return np.flatnonzero((self.folds != fold) & (self.folds != HELD_OUT))

    def validation(self, fold: int) -> np.ndarray:
        """Return the rows of a fold."""
        return np.flatnonzero(self.folds == fold)

    def names(self, rows: np.ndarray) -> list[str]:
        return [self.scans[row].name for row in rows]

    @property
    def known_factors(self) -> list[int]:
        """Columns of `factors` known for every scan."""
        return np.flatnonzero(np.isfinite(self.factors).all(0)).tolist()


@dataclass(frozen=True)
class Experiment(ABC):
    """A study of many trainings, which defines its runs, a training, and the content of its page.

    Each worker process gets the study.

    Attributes:
        settings: Settings of the study.
        cohort: Patients of the study.
        configurations: Frozen dataclasses with `title`.
    """

    PAGE_TITLE: ClassVar[str]

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

    @abstractmethod
    def train(self, run: ExperimentRun, folder: Path) -> dict[str, Any]:
        """Train in a folder that an ended training is resumed from; return JSON values, among them "seconds"."""

    @abstractmethod
    def sections(
        self, results: Mapping[ExperimentRun, dict[str, Any]], failures: Sequence[Table]
    ) -> tuple[list[Section], dict[str, str]]:
        """Return sections and facts of the page.

        Args:
            results: Results of the finished runs.
            failures: Table of the failed runs, for the section on the data.
        """

    def runs(self) -> list[ExperimentRun]:
        """Return all runs, the most important first."""
        folds = range(self.settings.budget.folds)
        return [ExperimentRun(configuration, fold) for fold in folds for configuration in self.configurations]

    def stamp(self, run: ExperimentRun) -> str:
        """Return a digest of all data that the result of a run depends on."""
        return " ".join([table_hash(self.cohort.scans)[:16], *sorted(self.cohort.failed)])

    def key(self, run: ExperimentRun) -> str:
        """Return the key of a run's result."""
        budget = self.settings.budget
        folds = 0 if run.fold == HELD_OUT else budget.folds
        settings = {"fold": run.fold, "folds": folds, "steps": budget.steps, "seed": budget.seed}
        return json.dumps(asdict(run.configuration) | settings | {"data": self.stamp(run)}, sort_keys=True)

    def write_page(self, failed: Mapping[ExperimentRun, str]) -> Path:
        """Write the page of the finished runs. failed: reason of each other run, TIME_IS_UP if late."""
        stored = kept_results(self.settings.output / TRAININGS)
        results = {run: stored[key] for run in self.runs() if (key := self.key(run)) in stored}
        reasons = {self.title_of(run): reason for run, reason in failed.items() if reason != TIME_IS_UP}
        failures = [Table("failed", "Trainings that failed", ("Training", "Why"), tuple(reasons.items()))]
        sections, facts = self.sections(results, failures if reasons else ())
        minutes = sum(result["seconds"] for result in results.values()) / 60
        facts = {
            "Data": str(self.settings.data),
            "Trainings": f"{len(results)}, {minutes:.0f} min of one processor core in all, kept in {TRAININGS}",
            **facts,
            "Bootstrap": f"{RESAMPLES} resamples of patients; seed {self.settings.budget.seed}, also of folds and "
            "trainings",
        }
        return write_study(self.settings.output, self.PAGE_TITLE, sections, facts, self.is_digital)

    def title_of(self, run: ExperimentRun) -> str:
        """Return the title of a failed run."""
        return f"{run.configuration.title}, fold {run.fold + 1}"


def carry_out(kind: type[Experiment], settings: ExperimentSettings, progress: Progress | None = None) -> Path:
    """Run the missing trainings, write `study.html` with its tables and figures, and return the page.

    A failed run is reported as a warning and on the page, and stops nothing.

    Args:
        kind: Study.
        settings: Its settings.
        progress: Progress of STEPS.

    Raises:
        OutputError: The output folder cannot be written to.
        CTError: The data cannot be read.
    """
    progress = progress or Progress()
    limit = None if settings.minutes is None else time.time() + 60 * settings.minutes
    progress.begin(list(STEPS))
    make_folder(settings.output)
    with progress.step("scans"):
        experiment = kind.read(settings, progress)
    with progress.step("trainings"):
        work = JobSettings(settings.workers or sensible_count(MEMORY_EACH_BYTES), settings.device, progress)
        by_key = {experiment.key(run): run for run in experiment.runs()}
        do_job = partial(_train, experiment, limit)
        _, reasons = kept_jobs(by_key, settings.output / TRAININGS, lambda: do_job, work)
    with progress.step("page"):
        for reason in sorted(set(reasons.values()) - {TIME_IS_UP}):
            progress.warning(ScanWarning("training-failed", f"A training failed: {reason}"))
        return experiment.write_page({by_key[key]: reason for key, reason in reasons.items()})


def _train(experiment: Experiment, limit: float | None, run: ExperimentRun) -> dict[str, Any]:
    """Train a run. Raises CTError after the limit, in seconds of `time.time`."""
    if limit is not None and time.time() >= limit:
        raise CTError(TIME_IS_UP)
    with running_folder(experiment.settings.output, experiment.key(run)) as folder:
        return experiment.train(run, folder)


def scores_table(name: str, title: str, parts: Mapping[str, tuple[Cohort, np.ndarray]]) -> Table:
    """Return a table with the number of scans in each category, a row for each part of a cohort.

    Args:
        name: Name of the table's file, and of what is counted.
        title: Caption.
        parts: Cohort and its rows by title.
    """
    rows: list[tuple[Cell, ...]] = []
    for part, (cohort, members) in parts.items():
        counts = np.bincount(category_of(cohort.score[members]), minlength=len(CATEGORY_TITLES))
        patients = {cohort.scans[row].patient for row in members}
        rows.append((part, len(patients), len(members), *map(int, counts)))
    return Table(name, title, (name.capitalize(), "Patients", "All", *CATEGORY_TITLES), tuple(rows))


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
