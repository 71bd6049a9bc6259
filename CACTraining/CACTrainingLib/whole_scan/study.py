"""Common parts of the studies of vessel regression and radiomics: patients, trainings, comparators and the table.

Patients who are not held out are cross-validated. The model of each fold predicts the patients of that fold and the
held-out patients, who affect no choice.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from CACScoringLib.core.tables import write_table

from ..data.scan_table import TableScan, table_hash
from ..evaluation.experiment import (
    PREDICTIONS,
    SCORE_COLUMNS,
    Experiment,
    ExperimentRun,
    ExperimentSettings,
    score_counts,
)
from ..evaluation.jobs import StudyError
from ..evaluation.page import write_study
from ..evaluation.parts import Cell, Section, Table, heading, p_cell
from ..statistics.bootstrap import paired_difference
from .evaluation import Evaluation, Measure, Prediction
from .scan_table import are_digital, folds, read_scan_table, split_or_join

HELD_OUT = -1
"""Fold number of held-out scans."""

FACTORS = ("age", "sex", "heart size")
"""Columns of `ScanCohort.factors`."""

Fit = Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""Function from training rows to a function that predicts the values of other rows."""


@dataclass(frozen=True)
class WholeScanStudySettings(ExperimentSettings):
    """Settings of a study, besides `ExperimentSettings`.

    Attributes:
        test: Table for the test; None for a fifth of data, the same for every seed.
        cache: Folder of prepared scans; None for one in the output folder.
    """

    test: Path | None = None
    cache: Path | None = None

    @property
    def prepared(self) -> Path:
        """Folder of prepared scans."""
        return self.cache or self.output / "prepared"

    def read(self) -> tuple[tuple[TableScan, ...], list[str]]:
        """Read all scans without contrast agent, and the names of held-out ones. Raises TableError."""
        data, test = (
            [scan for scan in read_scan_table(path) if not scan.contrast] if path else []
            for path in (self.data, self.test)
        )
        if self.test and not test:
            raise StudyError(f"{self.test} holds no scan without contrast agent. Give others with --test.")
        scans, _, held_out = split_or_join(data, test)
        return scans, held_out


@dataclass(frozen=True)
class ScanCohort:
    """Prepared scans of a study.

    Attributes:
        scans: Scans [n].
        folds: Fold that validates each scan, or HELD_OUT, int [n].
        factors: Age in years, sex (1 for men) and heart volume in ml, float [n, 3]; NaN if unknown.
        failed: Reasons of scans that could not be prepared, by name.
    """

    scans: tuple[TableScan, ...]
    folds: np.ndarray
    factors: np.ndarray
    failed: Mapping[str, str]

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


def cohort_of(
    scans: Sequence[TableScan],
    test_names: Sequence[str],
    heart_ml: Mapping[str, float],
    failed: Mapping[str, str],
    count: int,
    seed: int,
) -> ScanCohort:
    """Split the prepared scans.

    Args:
        scans: All scans of the tables.
        test_names: Names of held-out scans.
        heart_ml: Volume of the heart by name, for prepared scans only.
        failed: Reasons of the others by name.
        count: Number of folds.
        seed: Seed of the folds.

    Raises:
        StudyError: None of the held-out scans could be prepared.
        TableError: Patients are too few.
    """
    scans = tuple(scan for scan in scans if scan.name in heart_ml)
    test_set = set(test_names)
    parts = folds([scan for scan in scans if scan.name not in test_set], count, seed)
    fold_of = {name: fold for fold, (_, inside) in enumerate(parts) for name in inside}
    numbers = np.array([fold_of.get(scan.name, HELD_OUT) for scan in scans])
    if not (numbers == HELD_OUT).any():
        raise StudyError("None of the scans that were held out could be prepared. Look at the warnings.")
    factors = np.array([(*scan.factors[:2], heart_ml[scan.name]) for scan in scans], float)
    return ScanCohort(scans, numbers, factors, failed)


@dataclass(frozen=True)
class Entry:
    """Row of the table: predictions of each fold's model for its fold, and for the held-out scans."""

    title: str
    crossed: tuple[Prediction, ...]
    held_out: tuple[Prediction, ...]


@dataclass(frozen=True)
class WholeScanStudy(Experiment):
    """Study of models that predict from a whole scan.

    A training returns "fold", "seconds", and values [m][…] under "validation" and "test", in the order of the rows.

    Attributes:
        settings: Settings of the study.
        cohort: Patients of the study.
        data: Argument of the trainer.
        configurations: Frozen dataclasses with `name` and `title`.
    """

    PAGE_TITLE: ClassVar[str]
    PUBLISHED: ClassVar[tuple[Cell, ...]]
    """Row of published figures: a title, and a cell for each measure."""
    EXPLANATION: ClassVar[str]
    COLUMNS: ClassVar[tuple[str, ...]]
    """Columns of predictions.csv: true, then predicted values."""

    settings: WholeScanStudySettings
    cohort: ScanCohort
    data: Any
    configurations: tuple[Any, ...]

    @property
    @abstractmethod
    def truth(self) -> np.ndarray:
        """True values [n, …]."""

    @abstractmethod
    def measures(self) -> Sequence[Measure]:
        """Return the columns of the table; models are compared by the first, of which more is better."""

    @abstractmethod
    def comparators(self) -> Sequence[tuple[str, Fit]]:
        """Return titles and fits of simple predictors."""

    def stages(self) -> Iterator[Sequence[ExperimentRun]]:
        folds = range(self.settings.budget.folds)
        yield [ExperimentRun(configuration, fold) for fold in folds for configuration in self.configurations]

    def key(self, run: ExperimentRun) -> str:
        budget = self.settings.budget
        settings = {"fold": run.fold, "folds": budget.folds, "steps": budget.steps, "seed": budget.seed}
        return json.dumps(asdict(run.configuration) | settings | {"data": self.stamp}, sort_keys=True)

    @cached_property
    def stamp(self) -> str:
        """Digest of the tables and of the scans that could not be prepared."""
        return " ".join([table_hash(self.cohort.scans)[:16], *sorted(self.cohort.failed)])

    def title_of(self, run: ExperimentRun) -> str:
        return f"{run.configuration.title}, fold {run.fold + 1}"

    def write_page(self, failed: Mapping[ExperimentRun, str]) -> Path:
        finished = self.finished_runs([run for stage in self.stages() for run in stage])
        results: dict[object, list[Mapping[str, Any]]] = {}
        for run in sorted(finished, key=lambda run: run.fold):
            results.setdefault(run.configuration, []).append(finished[run])
        entries = [self._entry(config, results[config]) for config in self.configurations if config in results]
        sections = [self._results_section(entries), self._data_section(failed)]
        self._write_predictions(results)
        budget = self.settings.budget
        text = f"{PREDICTIONS}: predictions of each model"
        about = {"Training budget": f"{budget.folds} folds", "Every patient": text}
        facts = self.facts(list(finished.values()), {}, about)
        return write_study(self.settings.output, self.PAGE_TITLE, sections, facts, are_digital(self.cohort.scans))

    def _entry(self, configuration: Any, results: Sequence[Mapping[str, Any]]) -> Entry:
        crossed = tuple(
            Prediction(self.cohort.validation(result["fold"]), np.array(result["validation"], float))
            for result in results
        )
        held_out = tuple(Prediction(self.cohort.held_out, np.array(result["test"], float)) for result in results)
        return Entry(configuration.title, crossed, held_out)

    def _comparator_entry(self, title: str, fit: Fit) -> Entry:
        fits = [fit(self.cohort.training(fold)) for fold in range(self.settings.budget.folds)]
        parts = [(self.cohort.validation(fold), predict) for fold, predict in enumerate(fits)]
        crossed = tuple(Prediction(rows, predict(rows)) for rows, predict in parts)
        rows = self.cohort.held_out
        return Entry(title, crossed, tuple(Prediction(rows, predict(rows)) for predict in fits))

    def _results_section(self, entries: Sequence[Entry]) -> Section:
        evaluation = Evaluation(self.cohort.patients, self.truth, self.settings.budget.seed)
        measures = self.measures()
        main = measures[0]
        comparators = [self._comparator_entry(*comparator) for comparator in self.comparators()]
        ranks = [evaluation.of(comparator.crossed, main).values[0] for comparator in comparators]
        best = comparators[int(np.nanargmax(ranks))] if np.isfinite(ranks).any() else None
        columns = ("Model", *(measure.title for measure in measures), "Cross-validated", "Difference", "p")

        def row(entry: Entry, paired: bool) -> tuple[Cell, ...]:
            results = [evaluation.of(entry.held_out, measure) for measure in measures]
            crossed = evaluation.of(entry.crossed, main).estimate
            cells: tuple[Cell, ...] = (entry.title, *(result.estimate for result in results), crossed)
            if best is None or not paired:
                return (*cells, None, None)
            change = paired_difference(results[0], evaluation.of(best.held_out, main))
            return (*cells, change.estimate, p_cell(change.p))

        rows = [row(entry, True) for entry in entries]
        rows += [heading("For comparison", columns), *(row(entry, False) for entry in comparators)]
        rows.append((*self.PUBLISHED, *[None] * (len(columns) - len(self.PUBLISHED))))
        note = (
            f"{len(self.cohort.held_out)} held-out scans, predicted by the model of each fold; means over the models. "
            f"Cross-validated: {main.title.lower()} of the patients of each fold by its own model."
        )
        if best is not None:
            note += (
                f" Difference: {main.title.lower()} minus that of “{best.title}”, the best comparator in the "
                "cross-validation; paired by patient."
            )
        budget = self.settings.budget
        lacking = budget.folds * len(self.configurations) - sum(len(entry.crossed) for entry in entries)
        text = [self.EXPLANATION]
        if lacking:
            text.append(f"{lacking} trainings are missing. Run the same command again.")
        return Section("results", "Results", tuple(text), (Table("results", "Models", columns, tuple(rows), note),))

    def _data_section(self, failed: Mapping[ExperimentRun, str]) -> Section:
        cohort = self.cohort
        parts = {"Cross-validated": np.flatnonzero(cohort.folds != HELD_OUT), "Held out": cohort.held_out}
        rows = []
        for title, part in parts.items():
            totals = np.array([cohort.scans[row].total for row in part], float)
            rows.append(score_counts(title, [cohort.patients[row] for row in part], totals))
        tables = [Table("scans", "Scans by true Agatston score", ("Scans", *SCORE_COLUMNS), tuple(rows))]
        if cohort.failed:
            lost = tuple(sorted(cohort.failed.items()))
            tables.append(Table("left_out", "Scans that could not be prepared", ("Scan", "Why"), lost))
        text = "Patients are split, never scans of one patient. Contrast-enhanced scans are left out."
        return Section("data", "The scans", (text,), (*tables, *self.failed_tables(failed)))

    def _write_predictions(self, results: Mapping[Any, Sequence[Mapping[str, Any]]]) -> None:
        cohort, truth = self.cohort, self.truth
        rows = [
            (
                *(configuration.title, result["fold"] + 1, cohort.scans[row].name, cohort.scans[row].patient, use),
                *(round(float(value), 4) for value in (*np.atleast_1d(truth[row]), *np.atleast_1d(values))),
            )
            for configuration, trainings in results.items()
            for result in trainings
            for use, part, key in (
                ("validation", cohort.validation(result["fold"]), "validation"),
                ("held out", cohort.held_out, "test"),
            )
            for row, values in zip(part, result[key], strict=True)
        ]
        columns = ("network", "fold", "scan", "patient", "use", *self.COLUMNS)
        write_table(self.settings.output / PREDICTIONS, columns, rows)
