"""The scored scans of a study with the resamples of its patients, and the tables that compare methods on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from CACScoringLib.core.ct import CTError

from ..report.parts import METHODS, PUBLISHED, Table, count, heading, p_cell
from ..statistics.bootstrap import Bootstrap, Difference, Found, exact_proportion, mean, paired_difference
from .records import StudyRecord, pairs_of

if TYPE_CHECKING:
    from ..report.parts import Cell

MASS, AGATSTON = "mass", "agatston"
WITH_AGATSTON = ("map", "reader", "automatic")
"""Methods with a score on the Agatston scale; the others only count or weigh."""
WITH_MASS = ("map", "reader", "automatic", "noise_free")
"""Methods that weigh calcium; the control only counts slices."""
OWN = "map"
"""The method that the others are compared with."""
CEILING = "noise_free"
"""Compared with nothing, because no method on the scan itself can reach it."""
VESSELS = {"LM and LAD": ("LM", "LAD"), "LCX": ("LCX",), "RCA": ("RCA",)}
"""The left main belongs to the descending artery, as in table 3 of van Velzen et al."""
PAPER = "van Velzen et al., Generative models for reproducible coronary calcium scoring"

Pair = tuple[StudyRecord, StudyRecord]


class MixedUnitsError(CTError):
    """Records of one study give masses in different units."""


@dataclass(frozen=True)
class Measure:
    """What methods are compared by.

    items: given the names of methods, the items on which all of them can be compared: scans, pairs, or tuples that
    begin with a scan. statistic: of weights [resamples, items], the items and a method; float [resamples].
    proportion: whether it is a mean of hits, whose interval is exact where all or none are. methods: that it exists
    for; None for all.
    """

    title: str
    items: Callable[..., list]
    statistic: Callable[[np.ndarray, list, str], np.ndarray]
    proportion: bool = False
    methods: tuple[str, ...] | None = None


class Sample:
    """The scans of a study. scans: those that were scored; pairs: of both scans of a patient; unit: of mass.

    titles: of the methods, in their order. own: the one that the others are compared with. methods: keys of titles that
    any scan has a value of.

    Raises MixedUnitsError.
    """

    def __init__(
        self,
        records: Sequence[StudyRecord],
        generator: np.random.Generator,
        titles: Mapping[str, str] = METHODS,
        own: str = OWN,
    ) -> None:
        self.records, self.titles, self.own = tuple(records), titles, own
        self.scans = tuple(record for record in records if record.refused is None)
        self.pairs = tuple(pairs_of(records))
        units = sorted({record.unit for record in self.scans})
        if len(units) > 1:
            raise MixedUnitsError(f"The scans' masses are in {' and in '.join(units)}. Evaluate them as two studies.")
        self.unit = units[0] if units else ""
        self.methods = tuple(m for m in titles if any(m in record.values for record in self.scans))
        self.bootstrap = Bootstrap([record.patient for record in self.scans], generator)

    def found(self, measure: Measure, method: str, items: Sequence | None = None) -> Found:
        """A method's measure in all resamples. items: all that it can be measured on when None."""
        items = measure.items(method) if items is None else items
        patients = patients_of(items)
        values = measure.statistic(self.bootstrap.weights(patients), items, method)
        exact = None
        if measure.proportion and items and values[0] in (0, 1):
            exact = exact_proportion(bool(values[0]), len(items), len(set(patients)))
        return Found(values, len(items), len(set(patients)), exact)

    def difference(self, measure: Measure, comparator: str) -> tuple[Found, Found, Difference]:
        """The measure of the own method, of another one, and the first minus the second, on the same items."""
        items = measure.items(self.own, comparator)
        own, other = (self.found(measure, method, items) for method in (self.own, comparator))
        return own, other, paired_difference(own, other)

    def comparators(self, measure: Measure) -> list[str]:
        """Methods to compare the own one with; none where there are no values of it."""
        known = [m for m in self.methods if m not in (self.own, CEILING) and _has(measure, m)]
        return known if self.own in self.methods else []

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
        for method in (m for m in self.methods if any(_has(one, m) for one in measures)):
            row: list[Cell] = [self.titles[method]]
            for measure in measures:
                row.append(self.found(measure, method).estimate if _has(measure, method) else None)
                if measure.title in published:
                    row.append(published[measure.title].get(method))
            rows.append(tuple(row))
        return Table(name, title, tuple(columns), tuple(rows), note)

    def difference_table(self, name: str, title: str, measures: Sequence[Measure], note: str = "") -> Table:
        """Under a heading for each measure a row for each other method, on identical items."""
        columns = ("Compared with", "Items", self.titles[self.own], "The other", "Difference", "p")
        rows: list[tuple[Cell, ...]] = []
        for measure in measures:
            comparators = self.comparators(measure)
            rows += [heading(measure.title, columns)] if comparators else []
            for comparator in comparators:
                own, other, change = self.difference(measure, comparator)
                values = (float(own.values[0]), float(other.values[0]), change.estimate, p_cell(change.p))
                rows.append((f"  {self.titles[comparator]}", own.n, *values))
        note = f"{self.titles[self.own]} minus the other method, on the same scans or pairs. {note}"
        return Table(name, title, columns, tuple(rows), note)

    def in_words(self, measure: Measure) -> list[str]:
        """A paragraph about the differences of a measure; none without another method."""
        parts = []
        for comparator in self.comparators(measure):
            own, other, change = self.difference(measure, comparator)
            values = f"{own.values[0]:.2f} against {other.values[0]:.2f} of “{self.titles[comparator]}” (n = {own.n})"
            parts.append(f"{values}, {compared(change)}")
        return [f"{measure.title}, {self.titles[self.own]}: {'; '.join(parts)}."] if parts else []

    def opening(self) -> str:
        """One paragraph: how many scans, pairs and patients, and which were refused."""
        refused = [record for record in self.records if record.refused is not None]
        scored = f"{count(self.scans, 'scan')} of {count(set(patients_of(self.scans)), 'patient')} were scored"
        text = f"{scored}, among them {count(self.pairs, 'complete pair')}."
        if refused:
            first = "; ".join(f"{record.scan}: {record.refused}" for record in refused[:3])
            more = "" if len(refused) <= 3 else f"; and {len(refused) - 3} more"
            text += f" {count(refused, 'scan')} could not be scored ({first}{more})."
        return text


def rates(
    items: Callable[..., list], hit: Callable[[Any, str], bool], true: Callable[[Any], bool]
) -> tuple[Measure, Measure, Measure, Measure]:
    """Sensitivity, false positives, accuracy and F1 of detecting something.

    Args:
        items: as in `Measure`.
        hit: whether a method finds an item positive.
        true: whether an item is positive.
    """

    def hits(weights: np.ndarray, own: list, method: str) -> np.ndarray:
        return mean(weights, np.array([hit(item, method) for item in own], float))

    def correct(weights: np.ndarray, own: list, method: str) -> np.ndarray:
        return mean(weights, np.array([hit(item, method) == true(item) for item in own], float))

    def f1(weights: np.ndarray, own: list, method: str) -> np.ndarray:
        positive = np.array([hit(item, method) for item in own], float)
        known = np.array([true(item) for item in own], float)
        top, bottom = weights @ (2 * positive * known), weights @ (positive + known)
        return np.divide(top, bottom, out=np.full(len(weights), np.nan), where=bottom > 0)

    return (
        Measure("Sensitivity", lambda *m: [i for i in items(*m) if true(i)], hits, proportion=True),
        Measure("False positives", lambda *m: [i for i in items(*m) if not true(i)], hits, proportion=True),
        Measure("Accuracy", items, correct, proportion=True),
        Measure("F1", items, f1),
    )


def _has(measure: Measure, method: str) -> bool:
    return measure.methods is None or method in measure.methods


def having(items: Sequence, *methods: str) -> list:
    """Scans, or pairs, with values of all methods."""
    return [item for item in items if all(m in record.values for record in _scans_of(item) for m in methods)]


def patients_of(items: Sequence) -> list[str]:
    """The patient of each scan, pair, or tuple that begins with a scan."""
    return [_scans_of(item)[0].patient for item in items]


def _scans_of(item: StudyRecord | Pair) -> Sequence[StudyRecord]:
    return (item,) if isinstance(item, StudyRecord) else item


def score(record: StudyRecord, method: str, quantity: str = MASS, arteries: Sequence[str] | None = None) -> float:
    """A method's mass or Agatston score of a scan. arteries: only of these."""
    value = record.values[method]
    if arteries is None:
        return value.mass if quantity == MASS else value.agatston
    return sum(value.arteries.get(artery, (0.0, 0.0))[quantity == AGATSTON] for artery in arteries)


def scores(
    items: Sequence[StudyRecord], method: str, quantity: str = MASS, arteries: Sequence[str] | None = None
) -> np.ndarray:
    """Scores of scans, float [n]."""
    return np.array([score(record, method, quantity, arteries) for record in items], float)


def pair_scores(
    pairs: Sequence[Pair], method: str, quantity: str = MASS, arteries: Sequence[str] | None = None
) -> np.ndarray:
    """Scores of both scans, float [n, 2]."""
    return np.array([scores(pair, method, quantity, arteries) for pair in pairs]).reshape(-1, 2)


def compared(change: Difference) -> str:
    """A difference in words: it is said to lie on one side only where its interval leaves zero out."""
    found = change.estimate
    if math.isnan(found.low):
        return "too few to compare"
    p = "p < 0.001" if change.p < 0.001 else f"p = {change.p:.2g}"
    word = "lower" if found.high < 0 else "higher" if found.low > 0 else "no difference shown by this sample"
    numbers = f"{found.value:+.2f}, 95 % interval {found.low:+.2f} to {found.high:+.2f}".replace("-", "−")
    return f"{word} ({numbers}, {p})"
