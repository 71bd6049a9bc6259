"""Common parts of the studies of vessel regression and radiomics: patients, trainings, comparators and the table.

Patients who are not held out are cross-validated. The model of each fold predicts the patients of that fold and the
held-out patients, who affect no choice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from CACScoringLib.core.tables import write_table

from ..data.scan_table import TableScan
from ..evaluation.experiment import (
    HELD_OUT,
    PREDICTIONS,
    Cohort,
    Experiment,
    ExperimentRun,
    ExperimentSettings,
    scores_table,
)
from ..evaluation.jobs import StudyError
from ..evaluation.measures import Comparison, Measure
from ..evaluation.parts import Cell, Section, Table, heading, p_cell
from ..statistics.bootstrap import paired_difference
from .scan_table import are_digital, folds, read_scan_table, split_or_join

FACTORS = ("age", "sex", "heart size")
"""Columns of `Cohort.factors`."""

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


def cohort_of(
    scans: Sequence[TableScan],
    test_names: Sequence[str],
    heart_ml: Mapping[str, float],
    failed: Mapping[str, str],
    count: int,
    seed: int,
) -> Cohort:
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
    return Cohort(scans, numbers, np.array([scan.total for scan in scans], float), factors, failed)


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
    """

    PUBLISHED: ClassVar[tuple[Cell, ...]]
    """Row of published figures: a title, and a cell for each measure."""
    EXPLANATION: ClassVar[str]
    COLUMNS: ClassVar[tuple[str, ...]]
    """Columns of predictions.csv: true, then predicted values."""

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

    @property
    def is_digital(self) -> bool:
        return are_digital(self.cohort.scans)

    def sections(
        self, results: Mapping[ExperimentRun, dict[str, Any]], failures: Sequence[Table]
    ) -> tuple[list[Section], dict[str, str]]:
        ordered = sorted(
            results.items(), key=lambda item: (self.configurations.index(item[0].configuration), item[0].fold)
        )
        predicted = [values for run, result in ordered for values in self._predicted(run, result)]
        self._write_predictions(predicted)
        facts = {
            "Training budget": f"{self.settings.budget.folds} folds",
            "Every patient": f"{PREDICTIONS}: predictions of each model",
        }
        return [self._results_section(predicted), self._data_section(failures)], facts

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

    def _data_section(self, failures: Sequence[Table]) -> Section:
        cohort = self.cohort
        parts = {"Cross-validated": np.flatnonzero(cohort.folds != HELD_OUT), "Held out": cohort.held_out}
        cohorts = {title: (cohort, rows) for title, rows in parts.items()}
        tables = [scores_table("scans", "Scans by true Agatston score", cohorts)]
        if cohort.failed:
            lost = tuple(sorted(cohort.failed.items()))
            tables.append(Table("left_out", "Scans that could not be prepared", ("Scan", "Why"), lost))
        text = "Patients are split, never scans of one patient. Contrast-enhanced scans are left out."
        return Section("data", "The scans", (text,), (*tables, *failures))

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
