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
    """What methods are compared by.

    items: given the names of methods, the items on which all of them can be compared: scans, or tuples of which the
    first is a scan; a scan has a `patient`. statistic: of weights [resamples, items], the items and a method; float
    [resamples]. proportion: whether it is a mean of hits, whose interval is exact where all or none are. methods: that
    it exists for; None for all.
    """

    title: str
    items: Callable[..., Sequence]
    statistic: Callable[[np.ndarray, Sequence, Any], np.ndarray]
    proportion: bool = False
    methods: tuple[str, ...] | None = None

    def exists_for(self, method: Hashable) -> bool:
        return self.methods is None or method in self.methods


class Comparison:
    """Methods, and the resamples of patients that all of them share.

    titles: by method, in their order. own: the method that others are compared with. ceiling: a method that is compared
    with nothing.
    """

    def __init__(
        self,
        patients: Sequence[Hashable],
        titles: Mapping[Any, str],
        own: Hashable,
        generator: np.random.Generator,
        ceiling: Hashable = None,
    ) -> None:
        self.titles, self.own, self.ceiling = dict(titles), own, ceiling
        self.bootstrap = Bootstrap(patients, generator)

    def estimate(self, measure: Measure, method: Hashable) -> Estimate | None:
        """A method's measure on all items that it can be measured on; None where it does not exist for the method."""
        return self._result(measure, method, measure.items(method)).estimate if measure.exists_for(method) else None

    def _result(self, measure: Measure, method: Hashable, items: Sequence) -> BootstrapResult:
        result = self.bootstrap.result(lambda weights: measure.statistic(weights, items, method), patients_of(items))
        return result.exact_where_certain() if measure.proportion else result

    def difference(
        self, measure: Measure, other: Hashable, own: Hashable | None = None
    ) -> tuple[BootstrapResult, BootstrapResult, Difference]:
        """The measure of one method (the own one when None), of another, and their difference on the same items."""
        own = self.own if own is None else own
        items = measure.items(own, other)
        first, second = (self._result(measure, method, items) for method in (own, other))
        return first, second, paired_difference(first, second)

    def comparators(self, measure: Measure) -> list:
        """Methods to compare the own one with; none where there are no values of it."""
        others = [m for m in self.titles if m not in (self.own, self.ceiling) and measure.exists_for(m)]
        return others if self.own in self.titles else []

    def value_table(
        self,
        name: str,
        title: str,
        measures: Sequence[Measure],
        note: str = "",
        published: Mapping[str, Mapping[str, Cell]] | None = None,
    ) -> Table:
        """A row for each method and a column for each measure. published: by measure and method, others' figures."""
        published = published or {}
        columns, rows = ["Method"], []
        for measure in measures:
            columns += [measure.title, *([f"{PUBLISHED}: {measure.title}"] if measure.title in published else [])]
        for method in (m for m in self.titles if any(one.exists_for(m) for one in measures)):
            row: list[Cell] = [self.titles[method]]
            for measure in measures:
                row.append(self.estimate(measure, method))
                if measure.title in published:
                    row.append(published[measure.title].get(method))
            rows.append(tuple(row))
        return Table(name, title, tuple(columns), tuple(rows), note)

    def difference_table(self, name: str, title: str, measures: Sequence[Measure], note: str = "") -> Table:
        """Under a heading for each measure a row for each other method, on identical items."""
        columns = ("Compared with", "Items", self.titles.get(self.own, "None"), "The other", "Difference", "p")
        rows: list[tuple[Cell, ...]] = []
        for measure in measures:
            comparators = self.comparators(measure)
            rows += [heading(measure.title, columns)] if comparators else []
            for comparator in comparators:
                own, other, change = self.difference(measure, comparator)
                values = (float(own.values[0]), float(other.values[0]), change.estimate, p_cell(change.p))
                rows.append((f"  {self.titles[comparator]}", own.n, *values))
        note = f"{columns[2]} minus the other method, on the same scans or pairs. {note}"
        return Table(name, title, columns, tuple(rows), note)

    def paired_rows(self, measures: Sequence[Measure], first: Hashable, second: Hashable) -> list[tuple[Cell, ...]]:
        """A row for each measure that both have: its title, of both methods, first minus second, and p."""
        rows = []
        for measure in (one for one in measures if one.exists_for(first) and one.exists_for(second)):
            *results, change = self.difference(measure, second, first)
            rows.append((measure.title, *(one.estimate for one in results), change.estimate, p_cell(change.p)))
        return rows


def rates(
    titles: Sequence[str], items: Callable[..., Sequence], hit: Callable[[Any, Any], bool], true: Callable[[Any], bool]
) -> list[Measure]:
    """Measures of detecting something.

    Args:
        titles: Sensitivity, Specificity, False positives, Positive predictive value, Accuracy or F1, in any order.
        items: As in `Measure`.
        hit: Whether a method finds an item positive.
        true: Whether an item is positive.
    """

    def hits(weights: np.ndarray, group: Sequence, method: Any) -> np.ndarray:
        return mean(weights, np.array([hit(item, method) for item in group], float))

    def correct(weights: np.ndarray, group: Sequence, method: Any) -> np.ndarray:
        return mean(weights, np.array([hit(item, method) == true(item) for item in group], float))

    def f1(weights: np.ndarray, group: Sequence, method: Any) -> np.ndarray:
        positive = np.array([hit(item, method) for item in group], float)
        truth = np.array([true(item) for item in group], float)
        return ratio(weights, 2 * positive * truth, positive + truth)

    def among(kind: bool) -> Callable[..., list]:
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


def patients_of(items: Sequence) -> list[Hashable]:
    """The patient of each scan, or tuple that begins with a scan."""
    return [(item[0] if isinstance(item, tuple) else item).patient for item in items]
