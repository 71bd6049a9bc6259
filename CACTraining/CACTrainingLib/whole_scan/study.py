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
import pandas as pd

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
from ..evaluation.measures import Comparison, Measure
from ..evaluation.page import write_study
from ..evaluation.parts import Cell, Section, Table, heading, p_cell
from ..statistics.bootstrap import paired_difference
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


def predicted_rows(
    scans: Sequence[TableScan], columns: Mapping[str, np.ndarray], method: str = "model", fold: int = 0
) -> pd.DataFrame:
    """Rows of a long table: scans as a model predicts them. columns: `truth`, `value` and conditions [n]."""
    about = {"patient": [scan.patient for scan in scans], "scan": [scan.name for scan in scans]}
    return pd.DataFrame({**about, "method": method, "item": fold, **columns})


Predicted = tuple[str, str, int, np.ndarray, np.ndarray]
"""Title of a model, "validation" or "held out", fold, rows of the scans, and predicted values [m, …]."""


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
    def columns(self, truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns of `predicted_rows` from true and predicted values."""

    @abstractmethod
    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        """Return the columns of the page's table; models are compared by the first, of which more is better."""

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
        results = sorted(
            finished.items(), key=lambda item: (self.configurations.index(item[0].configuration), item[0].fold)
        )
        predicted = [values for run, result in results for values in self._predicted(run, result)]
        sections = [self._results_section(predicted), self._data_section(failed)]
        self._write_predictions(predicted)
        budget = self.settings.budget
        text = f"{PREDICTIONS}: predictions of each model"
        about = {"Training budget": f"{budget.folds} folds", "Every patient": text}
        facts = self.facts(list(finished.values()), {}, about)
        return write_study(self.settings.output, self.PAGE_TITLE, sections, facts, are_digital(self.cohort.scans))

    def _predicted(self, run: ExperimentRun, result: Mapping[str, Any]) -> Iterator[Predicted]:
        title = run.configuration.title
        for use, rows in (("validation", self.cohort.validation(run.fold)), ("held out", self.cohort.held_out)):
            yield title, use, run.fold, rows, np.array(result["test" if use == "held out" else use], float)

    def _predicted_by(self, title: str, fit: Fit) -> Iterator[Predicted]:
        """Predictions of a comparator, fitted to the training scans of each fold."""
        for fold in range(self.settings.budget.folds):
            predict = fit(self.cohort.training(fold))
            for use, rows in (("validation", self.cohort.validation(fold)), ("held out", self.cohort.held_out)):
                yield title, use, fold, rows, predict(rows)

    def _results_section(self, predicted: Sequence[Predicted]) -> Section:
        comparators = [values for comparator in self.comparators() for values in self._predicted_by(*comparator)]
        tables = [
            predicted_rows(
                [self.cohort.scans[row] for row in rows],
                self.columns(self.truth[rows], values),
                f"{title}, {use}",
                fold,
            )
            for title, use, fold, rows, values in (*predicted, *comparators)
        ]
        table = pd.concat(tables)
        measures = self.measures(table)
        main = measures[0]
        generator = np.random.default_rng(self.settings.budget.seed)
        comparison = Comparison(self.cohort.patients, {}, generator)
        titles = list(dict.fromkeys(title for title, *_ in comparators))
        ranks = [comparison.averaged(main, f"{title}, validation").values[0] for title in titles]
        best = titles[int(np.nanargmax(ranks))] if np.isfinite(ranks).any() else None
        columns = ("Model", *(measure.title for measure in measures), "Cross-validated", "Difference", "p")

        def row(title: str, paired: bool) -> tuple[Cell, ...]:
            results = [comparison.averaged(measure, f"{title}, held out") for measure in measures]
            crossed = comparison.averaged(main, f"{title}, validation").estimate
            cells: tuple[Cell, ...] = (title, *(result.estimate for result in results), crossed)
            if best is None or not paired:
                return (*cells, None, None)
            change = paired_difference(results[0], comparison.averaged(main, f"{best}, held out"))
            return (*cells, change.estimate, p_cell(change.p))

        rows = [row(title, True) for title in dict.fromkeys(title for title, *_ in predicted)]
        rows += [heading("For comparison", columns), *(row(title, False) for title in titles)]
        rows.append((*self.PUBLISHED, *[None] * (len(columns) - len(self.PUBLISHED))))
        note = (
            f"{len(self.cohort.held_out)} held-out scans, predicted by the model of each fold; means over the models. "
            f"Cross-validated: {main.title.lower()} of the patients of each fold by its own model."
        )
        if best is not None:
            note += (
                f" Difference: {main.title.lower()} minus that of “{best}”, the best comparator in the "
                "cross-validation; paired by patient."
            )
        budget = self.settings.budget
        lacking = budget.folds * len(self.configurations) - sum(use == "held out" for _, use, *_ in predicted)
        text = [self.EXPLANATION]
        if lacking:
            text.append(f"{lacking} trainings are missing. Run the same command again.")
        tables_of_models = (Table("results", "Models", columns, tuple(rows), note),)
        return Section("results", "Results", tuple(text), tables_of_models, values=(table,))

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

    def _write_predictions(self, predicted: Sequence[Predicted]) -> None:
        truth = self.truth
        rows = [
            (
                *(title, fold + 1, self.cohort.scans[row].name, self.cohort.scans[row].patient, use),
                *(round(float(value), 4) for value in (*np.atleast_1d(truth[row]), *np.atleast_1d(predicted_values))),
            )
            for title, use, fold, part, values in predicted
            for row, predicted_values in zip(part, values, strict=True)
        ]
        columns = ("network", "fold", "scan", "patient", "use", *self.COLUMNS)
        write_table(self.settings.output / PREDICTIONS, columns, rows)
