"""Measures by which methods are compared on the same items of the same patients, and the tables of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..statistics.bootstrap import Bootstrap, BootstrapResult, Difference, Estimate, mean, paired_difference, ratio
from .parts import PUBLISHED, Cell, Table, heading, p_cell


@dataclass(frozen=True)
class Measure:
    """A statistic by which methods are compared.

    Attributes:
        title: Column or row title in tables.
        items: Function of method names that returns the items on which all of them can be compared: scans, or tuples
            whose first member is a scan; a scan has a `patient`.
        statistic: Function of weights [resamples, items], items and method; returns float [resamples].
        proportion: True for a mean of hits, whose interval is exact if all or no items are hits.
        methods: Methods that have this measure; None for all.
    """

    title: str
    items: Callable[..., Sequence[Any]]
    statistic: Callable[[np.ndarray, Sequence[Any], Any], np.ndarray]
    proportion: bool = False
    methods: tuple[Hashable, ...] | None = None

    def exists_for(self, method: Hashable) -> bool:
        return self.methods is None or method in self.methods


class MethodComparison:
    """Comparison of methods on shared resamples of patients.

    Attributes:
        titles: Title by method, in table order.
        reference: Method that the others are compared with.
        ceiling: Method left out of comparisons.
        bootstrap: Resamples of patients.
    """

    def __init__(
        self,
        patients: Sequence[Hashable],
        titles: Mapping[Any, str],
        reference: Hashable,
        generator: np.random.Generator,
        ceiling: Hashable = None,
    ) -> None:
        self.titles, self.reference, self.ceiling = dict(titles), reference, ceiling
        self.bootstrap = Bootstrap(patients, generator)

    def estimate(self, measure: Measure, method: Hashable) -> Estimate | None:
        """Estimate of a measure on all items of a method; None if the method has no such measure."""
        return self._result(measure, method, measure.items(method)).estimate if measure.exists_for(method) else None

    def _result(self, measure: Measure, method: Hashable, items: Sequence[Any]) -> BootstrapResult:
        result = self.bootstrap.result(lambda weights: measure.statistic(weights, items, method), patients_of(items))
        return result.exact_where_certain() if measure.proportion else result

    def difference(
        self, measure: Measure, comparator: Hashable, reference: Hashable | None = None
    ) -> tuple[BootstrapResult, BootstrapResult, Difference]:
        """Results of the reference and a comparator on the same items, and their difference.

        Args:
            measure: Measure to compare.
            comparator: Method that is subtracted.
            reference: Method that it is subtracted from; None for the comparison's reference.
        """
        reference = self.reference if reference is None else reference
        items = measure.items(reference, comparator)
        first, second = (self._result(measure, method, items) for method in (reference, comparator))
        return first, second, paired_difference(first, second)

    def comparators(self, measure: Measure) -> list[Any]:
        """Methods to compare the reference with; empty if the reference was not measured."""
        comparators = [m for m in self.titles if m not in (self.reference, self.ceiling) and measure.exists_for(m)]
        return comparators if self.reference in self.titles else []

    def value_table(
        self,
        name: str,
        title: str,
        measures: Sequence[Measure],
        note: str = "",
        published: Mapping[str, Mapping[str, Cell]] | None = None,
    ) -> Table:
        """Table with a row per method and a column per measure.

        Args:
            name: Name of the table's file.
            title: Caption.
            measures: Columns.
            note: Text below the table.
            published: Published figures by measure title and method.
        """
        published = published or {}
        columns, rows = ["Method"], []
        for measure in measures:
            columns += [measure.title, *([f"{PUBLISHED}: {measure.title}"] if measure.title in published else [])]
        for method in (m for m in self.titles if any(measure.exists_for(m) for measure in measures)):
            row: list[Cell] = [self.titles[method]]
            for measure in measures:
                row.append(self.estimate(measure, method))
                if measure.title in published:
                    row.append(published[measure.title].get(method))
            rows.append(tuple(row))
        return Table(name, title, tuple(columns), tuple(rows), note)

    def difference_table(self, name: str, title: str, measures: Sequence[Measure], note: str = "") -> Table:
        """Table of differences from the reference on identical items: a heading per measure, a row per comparator."""
        columns = ("Compared with", "Items", self.titles.get(self.reference, "None"), "The other", "Difference", "p")
        rows: list[tuple[Cell, ...]] = []
        for measure in measures:
            comparators = self.comparators(measure)
            rows += [heading(measure.title, columns)] if comparators else []
            for comparator in comparators:
                reference, compared, change = self.difference(measure, comparator)
                values = (float(reference.values[0]), float(compared.values[0]), change.estimate, p_cell(change.p))
                rows.append((f"  {self.titles[comparator]}", reference.n, *values))
        note = f"{columns[2]} minus the other method, on the same scans or pairs. {note}"
        return Table(name, title, columns, tuple(rows), note)

    def paired_rows(self, measures: Sequence[Measure], first: Hashable, second: Hashable) -> list[tuple[Cell, ...]]:
        """Row for each measure that both methods have: title, both estimates, first minus second, p."""
        rows = []
        for measure in (m for m in measures if m.exists_for(first) and m.exists_for(second)):
            *results, change = self.difference(measure, second, first)
            rows.append((measure.title, *(result.estimate for result in results), change.estimate, p_cell(change.p)))
        return rows


def rates(
    titles: Sequence[str],
    items: Callable[..., Sequence[Any]],
    hit: Callable[[Any, Any], bool],
    true: Callable[[Any], bool],
) -> list[Measure]:
    """Measures of detection.

    Args:
        titles: Sensitivity, Specificity, False positives, Positive predictive value, Accuracy or F1, in any order.
        items: As in `Measure`.
        hit: Function of item and method, true if the method calls the item positive.
        true: Function of an item, true if the item is positive.
    """

    def hits(weights: np.ndarray, group: Sequence[Any], method: Any) -> np.ndarray:
        return mean(weights, np.array([hit(item, method) for item in group], float))

    def correct(weights: np.ndarray, group: Sequence[Any], method: Any) -> np.ndarray:
        return mean(weights, np.array([hit(item, method) == true(item) for item in group], float))

    def f1(weights: np.ndarray, group: Sequence[Any], method: Any) -> np.ndarray:
        positive = np.array([hit(item, method) for item in group], float)
        truth = np.array([true(item) for item in group], float)
        return ratio(weights, 2 * positive * truth, positive + truth)

    def among(kind: bool) -> Callable[..., list[Any]]:
        return lambda *methods: [item for item in items(*methods) if true(item) == kind]

    measures = (
        Measure("Sensitivity", among(True), hits, proportion=True),
        Measure("Specificity", among(False), correct, proportion=True),
        Measure("False positives", among(False), hits, proportion=True),
        Measure("Positive predictive value", lambda m: [i for i in items(m) if hit(i, m)], correct, proportion=True),
        Measure("Accuracy", items, correct, proportion=True),
        Measure("F1", items, f1),
    )
    by_title = {measure.title: measure for measure in measures}
    return [by_title[title] for title in titles]


def patients_of(items: Sequence[Any]) -> list[Hashable]:
    """The patient of each scan, or tuple that begins with a scan."""
    return [(item[0] if isinstance(item, tuple) else item).patient for item in items]
