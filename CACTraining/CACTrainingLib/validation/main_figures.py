"""Main figures of a validation: one row per measure, beside another program's on the same scans where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from ..evaluation import figures as drawings
from ..evaluation.measures import (
    Comparison,
    Measure,
    agreement_rate,
    count_table,
    long_table,
    mean_absolute_difference,
    mean_difference,
    mean_value,
    of_classes,
    rates,
    value_row,
)
from ..evaluation.page import cell_text
from ..evaluation.parts import Cell, Figure, Section, Table
from ..references.collection import Layout
from ..statistics.agreement import Statistic, icc, kappa, rank_correlation
from ..statistics.patient_folds import CATEGORY_TITLES
from .agreement import DIFFERENCE_TITLES, ComparedScans, categories, category_kappa, f1_at, limits_of_pairs, reach


class Raters(Comparison):
    """The methods, and another program if the reference has its scores.

    Attributes:
        methods: Keys of the methods.
        comparator: Key and title of the other program; None without one.
        rows: Long table of the totals of all raters against the reference's.
    """

    def __init__(
        self,
        compared: ComparedScans,
        comparator_scores: Mapping[str, float],
        layout: Layout,
        generator: np.random.Generator,
    ) -> None:
        """comparator_scores: Score of the other program by name of the scan."""
        self.methods, self.comparator = compared.methods, layout.other_title if comparator_scores else None
        titles = {**compared.titles, **({self.comparator: self.comparator} if self.comparator else {})}
        super().__init__([scan.patient for scan in compared.scans], titles, generator)
        scores = [(scan, comparator_scores[scan.name]) for scan in compared.scans if scan.name in comparator_scores]
        rows = [value_row(scan, self.comparator, score, scan.total) for scan, score in scores]
        self.rows = pd.concat([compared.totals, long_table(rows)], ignore_index=True) if rows else compared.totals


def _icc_of_ln(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    return icc(weights, np.log1p(reference), np.log1p(measured))


MEASURES: dict[str, Statistic] = {
    "κ of categories, linear weights": category_kappa,
    "κ of categories, quadratic weights": of_classes(partial(kappa, classes=len(CATEGORY_TITLES), power=2), categories),
    "Same category": of_classes(agreement_rate, categories),
    "ICC": icc,
    "ICC of ln(1 + score)": _icc_of_ln,
    "Rank correlation": rank_correlation,
    "Mean difference": mean_difference,
    "Mean absolute difference": mean_absolute_difference,
    "F1 at ≥ 100": f1_at(100),
}
"""Statistics of the totals by title."""


def section(raters: Raters, layout: Layout) -> Section:
    """Section of the main figures, of the scans that all raters scored. layout: Meaning of the reference's scores."""
    rows, comparator = raters.rows, raters.comparator
    if comparator is not None:
        rows = rows[rows.scan.isin(rows[rows.method == comparator].scan)]
    note = (
        "Agatston scores against the reference. ICC: two-way random effects, absolute agreement, single measurement. "
        "Difference: the method's score minus the reference's."
    )
    if comparator is not None:
        note += " The last columns are paired differences on the same scans, by resampling patients."
    zeros_note = "False zeros: proportion of scans with at least 1 by the reference; false positives: of those with 0."
    tables = [
        _table("main_figures", "Agreement with the reference", raters, _measures(rows, layout), note),
        _table("zeros", "False zeros and false positives", raters, _zeros(rows), zeros_note),
    ]
    if comparator is None:
        return Section("main_figures", "Main figures", (), tuple(tables), values=(rows,))
    part = rows[rows.method == comparator]
    title = f"Categories by reference and {comparator}, numbers of scans"
    tables.append(
        count_table("categories_other", title, ("Reference", "Found"), CATEGORY_TITLES, {comparator: part}, categories)
    )
    differences = zip(tables[0].columns, tables[0].rows[0], strict=True)
    text = [f"{title}, κ of categories: {cell_text(cell)}." for title, cell in differences if " − " in title]
    pairs = drawings.score_pairs(part, [comparator], limits_of_pairs)
    draw = partial(drawings.bland_altman, panels=pairs, unit="Agatston score", linear_to=10.0, titles=DIFFERENCE_TITLES)
    figure = Figure("bland_altman_other", f"Difference of {comparator} from the reference", draw, "", (3.5, 3))
    return Section("main_figures", "Main figures", tuple(text), tuple(tables), (figure,), values=(rows,))


def _table(name: str, title: str, raters: Raters, measures: Sequence[Measure], note: str) -> Table:
    """Table with a row per measure, a column per rater, and one per difference of a method from the other program."""
    methods = raters.methods if raters.comparator is not None else ()
    differences = [raters.paired_rows(measures, method, raters.comparator) for method in methods]
    columns = ("Measure", *raters.titles.values(), *(f"{raters.titles[m]} − {raters.comparator}" for m in methods))
    rows: list[tuple[Cell, ...]] = [
        (*raters.measure_row(measure.title, measure), *(paired[n][3] for paired in differences))
        for n, measure in enumerate(measures)
    ]
    return Table(name, title, columns, tuple(rows), note)


def _zeros(rows: pd.DataFrame) -> list[Measure]:
    detected = rows.assign(truth=reach(1, rows.truth), value=reach(1, rows.value))
    missed = detected[detected.truth].assign(value=~detected.value)
    return [Measure("False zeros", mean_value, missed, True), *rates(["False positives"], detected)]


def _measures(rows: pd.DataFrame, layout: Layout) -> list[Measure]:
    measures = [Measure(title, statistic, rows) for title, statistic in MEASURES.items()]
    if layout.classes:
        limits = ", ".join(f"{limit:g}" for limit in layout.classes)
        same_class = of_classes(agreement_rate, partial(np.searchsorted, layout.classes))
        measures.insert(3, Measure(f"Same class by its authors' limits {limits}", same_class, rows, proportion=True))
    return measures
