"""Measures of a long table of values, with intervals by resampling patients, and the page's tables of them.

A long table has a row for each method and item that it measured: columns of COLUMNS, and one for each condition that
measures select by. Rows of two methods with the same scan and item are compared as pairs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from CACScoringLib.statistics.agreement import Statistic
from CACScoringLib.statistics.bootstrap import (
    Bootstrap,
    BootstrapResult,
    Estimate,
    PairedDifference,
    mean,
    paired_difference,
    ratio,
)

from .papers import StudyTexts
from .parts import PUBLISHED, Cell, TablePart, heading, p_cell

COLUMNS = ("patient", "scan", "method", "item", "truth", "value")
"""Columns of a long table. Item: what of the scan was measured, such as an artery. Truth: value to compare with."""


def value_row(
    scan: Any, method: Hashable, value: float, truth: float = 0.0, item: Hashable = 0, **conditions: Any
) -> dict[str, Any]:
    """Row of a long table. scan: has a `patient` and a `name`. conditions: values of further columns."""
    about = {"patient": scan.patient, "scan": scan.name, "method": method, "item": item}
    return {**about, "truth": truth, "value": value, **conditions}


def long_table(rows: Iterable[Mapping[str, Any]], conditions: Sequence[str] = ()) -> pd.DataFrame:
    """Make a long table.

    Args:
        rows: Values by column (`value_row`).
        conditions: Further columns.
    """
    return pd.DataFrame(rows, columns=[*COLUMNS, *conditions])


@dataclass(frozen=True)
class Measure:
    """A statistic by which methods are compared.

    Attributes:
        title: Column or row title in tables.
        statistic: Function of weights [resamples, rows], truth and value of the rows; returns float [resamples].
        rows: Rows of a long table that it is computed of, for all methods.
        proportion: True for a mean of hits, whose interval is exact if all or no items are hits.
        methods: Methods that have this measure; None for all.
    """

    title: str
    statistic: Statistic
    rows: pd.DataFrame
    proportion: bool = False
    methods: Sequence[Hashable] | None = None

    def exists_for(self, method: Hashable) -> bool:
        return self.methods is None or method in self.methods

    def rows_of(self, method: Hashable, comparator: Hashable = None) -> pd.DataFrame:
        """Rows of a method; with a comparator only those of items that both have."""
        rows = self.rows[self.rows.method == method]
        if comparator is None:
            return rows
        key = ["scan", "item"]
        compared = pd.MultiIndex.from_frame(self.rows.loc[self.rows.method == comparator, key])
        return rows[pd.MultiIndex.from_frame(rows[key]).isin(compared)]


class ExperimentComparison:
    """Comparison of methods on shared resamples of patients.

    Attributes:
        titles: Title by method, in table order.
        reference: Method that the others are compared with.
        ceiling: Method left out of comparisons.
        bootstrap: Resamples of patients.
    """

    def __init__(
        self,
        patients: Sequence[Hashable] | np.ndarray,
        titles: Mapping[Any, str],
        generator: np.random.Generator,
        reference: Hashable = None,
        ceiling: Hashable = None,
    ) -> None:
        self.titles, self.reference, self.ceiling = dict(titles), reference, ceiling
        self.bootstrap = Bootstrap(patients, generator)

    def result(self, measure: Measure, method: Hashable, comparator: Hashable = None) -> BootstrapResult:
        """Result of a measure on all rows of a method; with a comparator only on those of items that both have."""
        return self._result_of(measure, measure.rows_of(method, comparator))

    def averaged(self, measure: Measure, method: Hashable, spread: bool = False) -> BootstrapResult:
        """Mean of a measure's results for each item, of a method that stands for several models, one for each item.

        Items whose result is not defined, as an area without one of the classes, are left out. spread: True for the
        standard deviation instead of the mean.
        """
        rows = measure.rows_of(method)
        values = np.array([self._result_of(measure, part).values for _, part in rows.groupby("item")])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resample may leave all items undefined
            summary = np.nanstd(values, 0) if spread else np.nanmean(values, 0)
        result = BootstrapResult(summary, rows.scan.nunique(), rows.patient.nunique())
        return result.exact_where_certain() if measure.proportion and not spread else result

    def _result_of(self, measure: Measure, rows: pd.DataFrame) -> BootstrapResult:
        truth, value = (rows[name].to_numpy(float) for name in ("truth", "value"))
        result = self.bootstrap.result(lambda weights: measure.statistic(weights, truth, value), rows.patient.tolist())
        return result.exact_where_certain() if measure.proportion else result

    def estimate(self, measure: Measure, method: Hashable) -> Estimate | None:
        """Estimate of a measure; None if the method has no such measure."""
        return self.result(measure, method).estimate if measure.exists_for(method) else None

    def difference(
        self, measure: Measure, comparator: Hashable, reference: Hashable | None = None
    ) -> tuple[BootstrapResult, BootstrapResult, PairedDifference]:
        """Results of the reference and a comparator on the same items, and their difference.

        Args:
            measure: Measure to compare.
            comparator: Method that is subtracted.
            reference: Method that it is subtracted from; None for the comparison's reference.
        """
        reference = self.reference if reference is None else reference
        first, second = self.result(measure, reference, comparator), self.result(measure, comparator, reference)
        return first, second, paired_difference(first, second)

    def measure_row(self, title: str, measure: Measure) -> tuple[Cell, ...]:
        """Row of a measure's estimates for all methods; None where a method has no rows."""
        return (title, *(self._cell(measure, method) for method in self.titles))

    def method_row(self, title: str, measures: Sequence[Measure], method: Hashable) -> tuple[Cell, ...]:
        """Row of a method's estimates; None where it has no rows."""
        return (title, *(self._cell(measure, method) for measure in measures))

    def _cell(self, measure: Measure, method: Hashable) -> Cell:
        return self.estimate(measure, method) if len(measure.rows_of(method)) else None

    def value_table(self, texts: StudyTexts, name: str, measures: Sequence[Measure], **values: object) -> TablePart:
        """Table with a row per method and a column per measure, beside published figures.

        Args:
            texts: Texts of the study.
            name: Name of the table.
            measures: Columns.
            values: Values in the texts.
        """
        published = texts.parts[name].published
        columns = ["Method"]
        for measure in measures:
            columns += [measure.title, *([f"{PUBLISHED}: {measure.title}"] if measure.title in published else [])]
        rows = []
        for method in (m for m in self.titles if any(measure.exists_for(m) for measure in measures)):
            row: list[Cell] = [self.titles[method]]
            for measure in measures:
                row.append(self.estimate(measure, method))
                row += [published[measure.title].get(method)] if measure.title in published else []
            rows.append(tuple(row))
        return texts.table(name, columns, rows, **values)

    def difference_table(self, texts: StudyTexts, name: str, measures: Sequence[Measure]) -> TablePart:
        """Table of differences from the reference on identical items: a heading per measure, a row per comparator."""
        columns = ("Compared with", "Items", self.titles.get(self.reference, "None"), "The other", "Difference", "p")
        rows: list[tuple[Cell, ...]] = []
        for measure in measures if self.reference in self.titles else ():
            comparators = [m for m in self.titles if m not in (self.reference, self.ceiling) and measure.exists_for(m)]
            rows += [heading(measure.title, columns)] if comparators else []
            for comparator in comparators:
                reference, compared, change = self.difference(measure, comparator)
                values = (float(reference.values[0]), float(compared.values[0]), change.estimate, p_cell(change.p))
                rows.append((f"  {self.titles[comparator]}", reference.n, *values))
        title, note = texts.texts(name)
        note = f"{columns[2]} minus the other method, on the same scans or pairs. {note}"
        return TablePart(name, title, columns, tuple(rows), note)

    def paired_rows(self, measures: Sequence[Measure], first: Hashable, second: Hashable) -> list[tuple[Cell, ...]]:
        """Row for each measure that both methods have: title, both estimates, first minus second, p."""
        rows = []
        for measure in (m for m in measures if m.exists_for(first) and m.exists_for(second)):
            *results, change = self.difference(measure, second, first)
            rows.append((measure.title, *(result.estimate for result in results), change.estimate, p_cell(change.p)))
        return rows


def mean_value(weights: np.ndarray, truth: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Mean of the values, a `Statistic`."""
    return mean(weights, value)


def mean_difference(weights: np.ndarray, truth: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Mean of value minus truth, a `Statistic`."""
    return mean(weights, value - truth)


def mean_absolute_difference(weights: np.ndarray, truth: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Mean of the absolute difference of value and truth, a `Statistic`."""
    return mean(weights, np.abs(value - truth))


def value_over_truth(weights: np.ndarray, truth: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Sum of the values over the sum of the truths, a `Statistic`."""
    return ratio(weights, value, truth)


def agreement_rate(weights: np.ndarray, truth: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Proportion of values that equal the truth, a `Statistic`."""
    return mean(weights, value == truth)


def f1(weights: np.ndarray, truth: np.ndarray, value: np.ndarray) -> np.ndarray:
    """F1 of values and truths that are 0 or 1, a `Statistic`."""
    return ratio(weights, 2.0 * (value * truth), 1.0 * value + truth)


def of_classes(statistic: Callable[..., np.ndarray], classify: Callable[[np.ndarray], Any]) -> Statistic:
    """Apply a statistic to the classes of truth and value."""
    return lambda weights, truth, value: statistic(weights, classify(truth), classify(value))


def rates(titles: Sequence[str], rows: pd.DataFrame) -> list[Measure]:
    """Measures of detection.

    Args:
        titles: Sensitivity, Specificity, False positives, Positive predictive value, Accuracy or F1, in any order.
        rows: Rows with truth and value true or false.
    """
    rows = rows.assign(truth=rows.truth.astype(bool), value=rows.value.astype(bool))
    kinds: dict[str, tuple[Statistic, pd.DataFrame]] = {
        "Sensitivity": (mean_value, rows[rows.truth]),
        "Specificity": (agreement_rate, rows[~rows.truth]),
        "False positives": (mean_value, rows[~rows.truth]),
        "Positive predictive value": (agreement_rate, rows[rows.value]),
        "Accuracy": (agreement_rate, rows),
        "F1": (f1, rows),
    }
    return [Measure(title, *kinds[title], proportion=title != "F1") for title in titles]


def count_table(
    texts: StudyTexts,
    name: str,
    sides: tuple[str, str],
    classes: Sequence[str],
    values: Mapping[str, pd.DataFrame],
    classify: Callable[[np.ndarray], np.ndarray],
    **of_texts: object,
) -> TablePart:
    """Table of the number of items by the classes of truth and value.

    Args:
        texts: Texts of the study.
        name: Name of the table.
        sides: Title of the rows, and first words of the columns.
        classes: Titles of the classes.
        values: Rows of a long table by title of a method.
        classify: Function that returns the index of each score's class.
        of_texts: Values in the texts.
    """
    columns = (sides[0], *(f"{sides[1]} {title}" for title in classes))
    rows: list[tuple[Cell, ...]] = []
    for method, part in values.items():
        counts = np.zeros((len(classes), len(classes)), int)
        np.add.at(counts, (classify(part.truth), classify(part.value)), 1)
        rows.append(heading(method, columns))
        rows += [(f"  {title}", *map(int, row)) for title, row in zip(classes, counts, strict=True)]
    return texts.table(name, columns, rows, **of_texts)
