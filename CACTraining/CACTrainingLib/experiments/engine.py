"""The engine of all experiments: it trains what is not yet kept, within the time given, and has the page written.

What a training predicted is kept as a line of JSON, so that a study resumes and its page can be made
again without training.
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

from ..report.parts import Cell, Table
from ..statistics.bootstrap import RESAMPLES
from ..statistics.patient_folds import CATEGORY_TITLES, category_of
from .jobs import TIME_IS_UP, InTime, JobSettings, Prepared, StudyError, kept_jobs, kept_results, make_folder

MEMORY_EACH_BYTES = 500_000_000
"""Of a process that trains, where the number of processes is chosen here."""

TRAININGS, PREDICTIONS = "trainings.jsonl", "predictions.csv"
"""In the output folder: what each training predicted, a line each; and what was predicted of each patient."""

LEAST_FOLDS = 2

SCORE_COLUMNS = ("Patients", "All", *CATEGORY_TITLES)
"""Of `score_counts`."""


@dataclass(frozen=True)
class ExperimentRun:
    """One training: a configuration, which is a frozen dataclass of the study's own, on one fold, counted from 0."""

    configuration: Any
    fold: int


@dataclass(frozen=True)
class TrainingBudget:
    """Budget of training. folds: of the cross-validation. steps: of a training; None: as the presets say. seed: of
    folds, trainings and bootstrap. Raises StudyError for too few folds.
    """

    folds: int = 5
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < LEAST_FOLDS:
            raise StudyError(f"Cross-validation takes {LEAST_FOLDS} folds or more, not {self.folds}.")


def check_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Check that all names are known.

    Args:
        names: those asked for.
        known: those that there are.
        what: the kind of name, for the message.

    Raises:
        StudyError: a name is not among those known.
    """
    if unknown := sorted(set(names) - set(known)):
        raise StudyError(f"There is no {what} {unknown[0]!r}; choose one of {', '.join(known)}.")


Trainer = Callable[[Any, TrainingBudget], Prepared]
"""Prepares, in a process of its own, what does an `ExperimentRun`, of the experiment's data and budget; picklable."""


@dataclass(frozen=True)
class ExperimentSettings:
    """data: a table, or the folder that holds it. minutes: after which no run begins; 0 only makes the page. workers:
    processes, of one processor core each; as many as cores and memory allow when None. device: of networks.
    """

    data: Path
    output: Path
    budget: TrainingBudget = field(default_factory=TrainingBudget)
    minutes: float | None = None
    workers: int | None = 1
    device: str = "cpu"


class Experiment(ABC):
    """A study of many trainings: a study defines its trainings, their keys and the content of its page.

    settings, data: as asked for, and as the trainer takes it.
    """

    settings: ExperimentSettings
    data: Any

    @abstractmethod
    def stages(self) -> Iterator[Sequence[ExperimentRun]]:
        """All runs, those first that are worth most if the rest is never done; a stage begins when the last is done."""

    @abstractmethod
    def key(self, run: ExperimentRun) -> str:
        """All that a run's result depends on."""

    @abstractmethod
    def write_page(self, failed: Mapping[ExperimentRun, str]) -> Path:
        """Write the page of what is kept. failed: why runs that were begun, or were late (TIME_IS_UP), are not."""

    def title_of(self, run: ExperimentRun) -> str:
        """Title of a failed run."""
        return run.configuration.name

    def kept(self, runs: Sequence[ExperimentRun]) -> dict[ExperimentRun, dict]:
        """Results of those of the runs that are done."""
        found = kept_results(self.settings.output / TRAININGS)
        return {run: found[key] for run in runs if (key := self.key(run)) in found}

    def failed_tables(self, failed: Mapping[ExperimentRun, str]) -> list[Table]:
        """A table of them, if there are any that were begun."""
        rows = {self.title_of(run): reason for run, reason in failed.items() if reason != TIME_IS_UP}
        return [Table("failed", "Trainings that failed", ("Training", "Why"), tuple(rows.items()))] if rows else []

    def facts(self, results: Collection[Mapping], data: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
        """Facts of the study for its page.

        Args:
            results: of the trainings.
            data, others: the study's own facts, before and after the trainings.
        """
        minutes = sum(result["seconds"] for result in results) / 60
        text = f"{len(results)}, {minutes:.0f} min of one processor core in all, kept in {TRAININGS}"
        seed = self.settings.budget.seed
        return {
            "Data": str(self.settings.data),
            **data,
            "Trainings": text,
            **others,
            "Bootstrap": f"{RESAMPLES} resamples of patients; seed {seed}, also of folds and trainings",
        }


def carry_out(
    settings: ExperimentSettings,
    read: Callable[[], Experiment],
    train: Trainer,
    steps: tuple[str, str, str],
    progress: Progress | None = None,
) -> Path:
    """Train what is not yet kept, write `study.html` with its tables and figures, and return the page.

    A run that fails is reported as a warning and on the page, and stops nothing.

    Args:
        settings: where to write, and how much to train.
        read: reads the data; what it raises is passed on.
        train: prepares what does a run.
        steps: names of reading, training and writing, for the progress.
        progress: of these steps.

    Raises:
        OutputError: the output folder cannot be written to.
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
    """A row of how many cases there are of each category.

    Args:
        title: first cell of the row.
        patients: of the cases, [n].
        agatston: float [n], NaN where not known.

    Returns:
        Cells as SCORE_COLUMNS names them, the title first.
    """
    scores = agatston[np.isfinite(agatston)]
    counts = np.bincount(category_of(scores), minlength=len(CATEGORY_TITLES))
    return (title, len(set(patients)), len(patients), *map(int, counts))


@contextmanager
def running_folder(output: Path, name: str, key: str) -> Iterator[Path]:
    """Working folder of a training; removed when it is done, else kept to resume.

    Args:
        output: the study's folder.
        name: of the training.
        key: all that its result depends on.
    """
    folder = output / "running" / f"{name}-{sha256(key.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
