"""Engine of all experiments: run the missing trainings within a time limit, then write the page.

Predictions of a training are stored as a line of JSON, so that a study resumes and its page can be rewritten without
training.
"""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.progress import Progress

from ..statistics.bootstrap import RESAMPLES
from ..statistics.patient_folds import CATEGORY_TITLES, category_of
from .jobs import TIME_IS_UP, InTime, JobSettings, Prepared, StudyError, kept_jobs, kept_results, make_folder
from .parts import Cell, Table

MEMORY_EACH_BYTES = 500_000_000
"""Memory of one training process in bytes, for the default number of processes."""

TRAININGS, PREDICTIONS = "trainings.jsonl", "predictions.csv"
"""Files in the output folder: predictions of each training, a line each; predictions of each patient."""

MIN_FOLDS = 2

SCORE_COLUMNS = ("Patients", "All", *CATEGORY_TITLES)
"""Columns of `score_counts`."""


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
        if self.folds < MIN_FOLDS:
            raise StudyError(f"Cross-validation takes {MIN_FOLDS} folds or more, not {self.folds}.")


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


Trainer = Callable[[Any, Any], Prepared]
"""Function of data and budget that returns the function for an `ExperimentRun`; called in each process, picklable."""


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


class Experiment(ABC):
    """A study of many trainings, which defines its runs, their keys and the content of its page.

    Attributes:
        settings: Settings of the study.
        data: Data that the trainer takes.
    """

    settings: ExperimentSettings
    data: Any

    @abstractmethod
    def stages(self) -> Iterator[Sequence[ExperimentRun]]:
        """All runs in stages, the most important first; a stage begins when the previous one is finished."""

    @abstractmethod
    def key(self, run: ExperimentRun) -> str:
        """Key of a run, made of all that its result depends on."""

    @abstractmethod
    def write_page(self, failed: Mapping[ExperimentRun, str]) -> Path:
        """Write the page of the finished runs; `failed` has the reason of each other run, TIME_IS_UP if late."""

    def title_of(self, run: ExperimentRun) -> str:
        """Title of a failed run."""
        return run.configuration.name

    def finished_runs(self, runs: Sequence[ExperimentRun]) -> dict[ExperimentRun, dict[str, Any]]:
        """Results of the finished runs."""
        results = kept_results(self.settings.output / TRAININGS)
        return {run: results[key] for run in runs if (key := self.key(run)) in results}

    def failed_tables(self, failed: Mapping[ExperimentRun, str]) -> list[Table]:
        """Table of the failed runs, without late ones; empty if there are none."""
        rows = {self.title_of(run): reason for run, reason in failed.items() if reason != TIME_IS_UP}
        return [Table("failed", "Trainings that failed", ("Training", "Why"), tuple(rows.items()))] if rows else []

    def facts(
        self, results: Collection[Mapping[str, Any]], first: Mapping[str, str], last: Mapping[str, str]
    ) -> dict[str, str]:
        """Facts of the study for its page.

        Args:
            results: Results of the trainings.
            first: Facts of the study listed before the trainings.
            last: Facts of the study listed after the trainings.
        """
        minutes = sum(result["seconds"] for result in results) / 60
        text = f"{len(results)}, {minutes:.0f} min of one processor core in all, kept in {TRAININGS}"
        seed = self.settings.budget.seed
        return {
            "Data": str(self.settings.data),
            **first,
            "Trainings": text,
            **last,
            "Bootstrap": f"{RESAMPLES} resamples of patients; seed {seed}, also of folds and trainings",
        }


def carry_out(
    settings: ExperimentSettings,
    read: Callable[[], Experiment],
    train: Trainer,
    steps: tuple[str, str, str],
    progress: Progress | None = None,
) -> Path:
    """Run the missing trainings, write `study.html` with its tables and figures, and return the page.

    A failed run is reported as a warning and on the page, and stops nothing.

    Args:
        settings: Settings of the experiment.
        read: Function that reads the data; its errors are passed on.
        train: Trainer of the runs.
        steps: Names of reading, training and writing, for the progress.
        progress: Progress of these steps.

    Raises:
        OutputError: The output folder cannot be written to.
    """
    progress = progress or Progress()
    limit = None if settings.minutes is None else time.time() + 60 * settings.minutes
    progress.begin(list(steps))
    make_folder(settings.output)
    with progress.step(steps[0]):
        experiment = read()
    failed: dict[ExperimentRun, str] = {}
    with progress.step(steps[1]):
        prepare = partial(InTime, partial(train, experiment.data, experiment.settings.budget), limit)
        work = JobSettings(settings.workers or sensible_count(MEMORY_EACH_BYTES), settings.device, progress)
        for runs in experiment.stages():
            by_key = {experiment.key(run): run for run in runs}
            _, reasons = kept_jobs(by_key, settings.output / TRAININGS, prepare, work)
            failed |= {by_key[key]: reason for key, reason in reasons.items()}
    with progress.step(steps[2]):
        for reason in sorted(set(failed.values()) - {TIME_IS_UP}):
            progress.warning(ScanWarning("training-failed", f"A training failed: {reason}"))
        return experiment.write_page(failed)


def score_counts(title: str, patients: Sequence[str], agatston: np.ndarray) -> tuple[Cell, ...]:
    """Row with the number of cases in each category.

    Args:
        title: First cell of the row.
        patients: Patient of each case, [n].
        agatston: float [n], NaN if unknown.

    Returns:
        The title, then cells for SCORE_COLUMNS.
    """
    scores = agatston[np.isfinite(agatston)]
    counts = np.bincount(category_of(scores), minlength=len(CATEGORY_TITLES))
    return (title, len(set(patients)), len(patients), *map(int, counts))


@contextmanager
def running_folder(output: Path, name: str, key: str) -> Iterator[Path]:
    """Make a training's working folder; remove it when the training is finished, else leave it to resume from.

    Args:
        output: Output folder of the study.
        name: Name of the training.
        key: Key of the training.
    """
    folder = output / "running" / f"{name}-{sha256(key.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
