"""Main figures of a validation: one row per measure, beside another program's on the same scans where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

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
from ..evaluation.parts import Cell, Section, Table, count
from ..statistics.agreement import Statistic, icc, kappa
from ..statistics.patient_folds import CATEGORY_TITLES
from ..statistics.regression import rank_correlation
from .agreement import ComparedScans, categories, category_kappa, f1_at, reach
from .published import Layout

OTHER = "other"
"""Key of the other program among the methods."""


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
"""Statistics by title; those of `_measures` about zeros follow."""


def section(compared: ComparedScans, others: Mapping[str, float], layout: Layout, seed: int) -> Section:
    """Section of the main figures.

    Args:
        compared: The scans.
        others: Score of the other program by name of the scan; empty if there is none.
        layout: Meaning of the reference's scores.
        seed: Seed of the bootstrap.
    """
    scans = [scan for scan in compared.scans if not others or scan.name in others]
    titles = dict(compared.titles) | ({OTHER: layout.other_title} if others else {})
    rows = long_table(
        value_row(scan, method, value, scan.total)
        for scan in scans
        for method, value in {**scan.measured, **({OTHER: others[scan.name]} if others else {})}.items()
        if method in titles
    )
    comparison = Comparison([scan.patient for scan in scans], titles, np.random.default_rng(seed))
    measures = _measures(rows, layout)
    differences = [comparison.paired_rows(measures, method, OTHER) for method in compared.methods if others]
    columns = ("Measure", *titles.values())
    columns += tuple(f"{compared.titles[m]} − {layout.other_title}" for m in compared.methods if others)
    lines: list[tuple[Cell, ...]] = [
        (*comparison.measure_row(measure.title, measure), *(row[n][3] for row in differences))
        for n, measure in enumerate(measures)
    ]
    note = (
        "Agatston scores against the reference. ICC: two-way random effects, absolute agreement, single measurement. "
        "Difference: the method's score minus the reference's. False zeros: proportion of scans with at least 1 by the "
        "reference; false positives: of those with 0."
    )
    if others:
        note += " The last columns are paired differences on the same scans, by resampling patients."
    tables = [Table("main_figures", "Agreement with the reference", columns, tuple(lines), note)]
    if others:
        values = {layout.other_title: rows[rows.method == OTHER]}
        title = f"Categories by reference and {layout.other_title}, numbers of scans"
        tables.append(
            count_table("categories_other", title, ("Reference", "Found"), CATEGORY_TITLES, values, categories)
        )
    text = [f"Of {count(scans, 'scan')} that were scored by all methods below."] if others else []
    text += [
        f"{compared.titles[m]} − {layout.other_title}, κ of categories: {cell_text(row[0][3])}."
        for m, row in zip(compared.methods, differences, strict=False)
    ]
    return Section("main_figures", "Main figures", tuple(text), tuple(tables), values=(rows,))


def _measures(rows: pd.DataFrame, layout: Layout) -> list[Measure]:
    measures = [Measure(title, statistic, rows) for title, statistic in MEASURES.items()]
    if layout.classes:
        limits = ", ".join(f"{limit:g}" for limit in layout.classes)
        same_class = of_classes(agreement_rate, partial(np.searchsorted, layout.classes))
        measures.insert(3, Measure(f"Same class by its authors' limits {limits}", same_class, rows, proportion=True))
    detected = rows.assign(truth=reach(1, rows.truth), value=reach(1, rows.value))
    missed = detected[detected.truth].assign(value=~detected.value)
    return [*measures, Measure("False zeros", mean_value, missed, True), *rates(["False positives"], detected)]
