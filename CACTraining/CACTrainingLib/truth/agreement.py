"""Agreement with the reference, beside another program's, and before and after a change of models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from CACScoringLib.core.categories import CATEGORY_TITLES, category_numbers, whole_scores
from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError, WrongValueError
from CACScoringLib.models.cards import VERDICT
from CACScoringLib.quality.calibration import Limits
from CACScoringLib.scoring.scores import ROUNDING
from CACScoringLib.statistics.agreement import Statistic, icc, kappa, limits_of_agreement, rank_correlation, slope
from CACScoringLib.statistics.bootstrap import Estimate, mean

from ..evaluation import figures as drawings
from ..evaluation.jobs import kept_results
from ..evaluation.measures import (
    ExperimentComparison,
    Measure,
    agreement_rate,
    count_table,
    f1,
    long_table,
    mean_absolute_difference,
    mean_difference,
    mean_value,
    of_classes,
    rates,
    value_row,
)
from ..evaluation.page import cell_text
from ..evaluation.papers import texts_of
from ..evaluation.parts import METHODS, Cell, Section, TablePart, count, heading
from ..references.collection import Layout
from .records import ComparedScan, ComparedScans

LEAST = (1, 100, 400)
TEXTS = texts_of("accuracy")


category_kappa: Statistic = of_classes(partial(kappa, classes=len(CATEGORY_TITLES)), category_numbers)
"""Weighted kappa of the totals' categories."""


def f1_at(least: int) -> Statistic:
    """F1 of detecting totals of at least a score."""
    return of_classes(f1, partial(reach, least))


def _limit(sign: int, weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    differences, n = measured - reference, weights.sum(1)
    middle = mean(weights, differences)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.maximum(mean(weights, differences**2) - middle**2, 0) * n / (n - 1))
    return middle + sign * 1.96 * spread


def limits_of_pairs(reference: np.ndarray, measured: np.ndarray) -> Limits | None:
    """Limits of agreement; None for too few or constant pairs."""
    is_constant = np.ptp([reference, measured]) == 0
    return None if len(reference) <= 2 or is_constant else limits_of_agreement(reference, measured)


def reach(least: int, scores: np.ndarray) -> np.ndarray:
    """True for each score that, rounded, is at least `least`."""
    return whole_scores(scores) >= least


SCALE: dict[str, Any] = {"unit": "Agatston score", "linear_to": 10.0}
DIFFERENCES: dict[str, Any] = {"limits_of": limits_of_pairs, "titles": ("Mean of both", "Method minus reference")}
"""Arguments of drawings, and of drawings of differences."""

AGREEMENT: dict[str, Statistic] = {"ICC": icc, "Slope": slope, "Mean difference": mean_difference}
TOTALS: dict[str, Statistic] = {
    **AGREEMENT,
    "Lower limit": partial(_limit, -1),
    "Upper limit": partial(_limit, 1),
    "Rank correlation": rank_correlation,
    "κ of categories": category_kappa,
}


def sections(compared: ComparedScans) -> tuple[Section, ...]:
    """Sections on totals, categories and detection, and on vessels if the reference distinguishes them."""
    parts = [_totals(compared), _category_section(compared), _detection(compared)]
    if compared.vessels and any(scan.vessels for scan in compared.scans):
        parts.append(_vessels(compared))
    return tuple(parts)


def _totals(compared: ComparedScans) -> Section:
    measures = [Measure(title, statistic, compared.totals) for title, statistic in TOTALS.items()]
    tables = [compared.value_table(TEXTS, "totals", measures)]
    if len(compared.methods) == 2:
        statistics = {"ICC of totals": icc, "κ of categories": category_kappa}
        statistics |= {f"F1 at ≥ {least}": f1_at(least) for least in LEAST}
        rows = compared.paired_rows([Measure(*item, compared.totals) for item in statistics.items()], *compared.methods)
        columns = ("Measure", *compared.titles.values(), "Difference", "p")
        tables.append(TEXTS.table("method_differences", columns, rows))
    about: dict[str, Any] = {"rows": compared.totals, "methods": compared.methods, "severe": compared.severe, **SCALE}
    scatter = partial(drawings.against_truth, **about, titles=("Reference score", "Method's score"))
    figures = (
        TEXTS.figure("against_reference", scatter, (7, 3), marked=compared.marked),
        TEXTS.figure(
            "bland_altman", partial(drawings.bland_altman, **about, **DIFFERENCES), (7, 3), marked=compared.marked
        ),
    )
    return Section("totals", "Total scores", (), tuple(tables), figures, values=(compared.totals,))


def _category_section(compared: ComparedScans) -> Section:
    parts = {METHODS[m]: compared.totals[compared.totals.method == m] for m in compared.methods}
    text = f"Four categories by the Agatston score: {', '.join(CATEGORY_TITLES)}. {ROUNDING}"
    table = count_table(TEXTS, "category_agreement", ("Reference", "Found"), CATEGORY_TITLES, parts, category_numbers)
    return Section("category_agreement", "Categories", (text,), (table,))


def _detection(compared: ComparedScans) -> Section:
    titles = ("Sensitivity", "Specificity", "Positive predictive value", "F1")
    columns = ("Score", *titles)
    rows: list[tuple[Cell, ...]] = []
    for least in LEAST:
        table_of_least = compared.totals.assign(
            truth=reach(least, compared.totals.truth), value=reach(least, compared.totals.value)
        )
        true = reach(least, np.array([scan.reference_total for scan in compared.scans]))
        rows.append(heading(f"≥ {least}: {sum(true)} of {len(true)} scans by the reference", columns))
        measures = rates(titles, table_of_least)
        rows += [compared.method_row(f"  {title}", measures, method) for method, title in compared.titles.items()]
    return Section("detection_by_score", "Detection", (), (TEXTS.table("detection_by_score", columns, rows),))


def _vessels(compared: ComparedScans) -> Section:
    titles = ("Sensitivity", "Specificity")
    columns = ("Vessel", *AGREEMENT, *titles)
    rows: list[tuple[Cell, ...]] = []
    values = compared.vessel_scores()
    for vessel, scores in values.groupby("item", sort=False):
        first = scores.drop_duplicates("scan")
        rows.append(heading(f"{vessel}: calcium in {(first.truth > 0).sum()} of {count(len(first), 'scan')}", columns))
        measures = [Measure(title, statistic, scores) for title, statistic in AGREEMENT.items()]
        measures += rates(titles, scores.assign(truth=scores.truth > 0, value=scores.value > 0))
        rows += [compared.method_row(f"  {title}", measures, method) for method, title in compared.titles.items()]
    return Section("vessels", "Arteries", (), (TEXTS.table("vessels", columns, rows),), values=(values,))


class Raters(ExperimentComparison):
    """The methods, and another program if the reference has its scores.

    Attributes:
        methods: Keys of the methods.
        comparator: Key and title of the other program; None without one.
        rows: Long table of the totals of all raters against the reference's.
        severe: Names of the scans with a severe warning.
        marked: Sentence of a caption on these scans.
    """

    def __init__(
        self,
        compared: ComparedScans,
        comparator_scores: Mapping[str, float],
        layout: Layout,
        generator: np.random.Generator,
    ) -> None:
        """comparator_scores: Score of the other program by name of the scan."""
        self.severe, self.marked = compared.severe, compared.marked
        self.methods, self.comparator = compared.methods, layout.other_title if comparator_scores else None
        titles = {**compared.titles, **({self.comparator: self.comparator} if self.comparator else {})}
        super().__init__([scan.patient for scan in compared.scans], titles, generator)
        scores = [(scan, comparator_scores[scan.name]) for scan in compared.scans if scan.name in comparator_scores]
        rows = [value_row(scan, self.comparator, score, scan.reference_total) for scan, score in scores]
        self.rows = pd.concat([compared.totals, long_table(rows)], ignore_index=True) if rows else compared.totals


def _icc_of_ln(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    return icc(weights, np.log1p(reference), np.log1p(measured))


MEASURES: dict[str, Statistic] = {
    "κ of categories, linear weights": category_kappa,
    "κ of categories, quadratic weights": of_classes(
        partial(kappa, classes=len(CATEGORY_TITLES), power=2), category_numbers
    ),
    "Same category": of_classes(agreement_rate, category_numbers),
    "ICC": icc,
    "ICC of ln(1 + score)": _icc_of_ln,
    "Rank correlation": rank_correlation,
    "Mean difference": mean_difference,
    "Mean absolute difference": mean_absolute_difference,
    "F1 at ≥ 100": f1_at(100),
}
"""Statistics of the totals by title."""


def main_section(raters: Raters, layout: Layout) -> Section:
    """Section of the main figures, of the scans that all raters scored. layout: Meaning of the reference's scores."""
    rows, comparator = raters.rows, raters.comparator
    if comparator is not None:
        rows = rows[rows.scan.isin(rows[rows.method == comparator].scan)]
    paired = " The last columns are paired differences on the same scans, by resampling patients."
    tables = [
        _table("main_figures", raters, _measures(rows, layout), paired=paired if comparator is not None else ""),
        _table("zeros", raters, _zeros(rows)),
    ]
    if comparator is None:
        return Section("main_figures", "Main figures", (), tuple(tables), values=(rows,))
    part = rows[rows.method == comparator]
    scores, sides = {comparator: part}, ("Reference", "Found")
    tables.append(
        count_table(TEXTS, "categories_other", sides, CATEGORY_TITLES, scores, category_numbers, other=comparator)
    )
    differences = zip(tables[0].columns, tables[0].rows[0], strict=True)
    text = [f"{title}, κ of categories: {cell_text(cell)}." for title, cell in differences if " − " in title]
    about: dict[str, Any] = {"rows": part, "methods": [comparator], "severe": raters.severe, **SCALE}
    draw = partial(drawings.bland_altman, **about, **DIFFERENCES)
    figure = TEXTS.figure("bland_altman_other", draw, (3.5, 3), other=comparator, marked=raters.marked)
    return Section("main_figures", "Main figures", tuple(text), tuple(tables), (figure,), values=(rows,))


def _table(name: str, raters: Raters, measures: Sequence[Measure], **values: object) -> TablePart:
    """Table with a row per measure, a column per rater, and one per difference of a method from the other program."""
    methods = raters.methods if raters.comparator is not None else ()
    differences = [raters.paired_rows(measures, method, raters.comparator) for method in methods]
    columns = ("Measure", *raters.titles.values(), *(f"{raters.titles[m]} − {raters.comparator}" for m in methods))
    rows = [
        (*raters.measure_row(measure.title, measure), *(paired[n][3] for paired in differences))
        for n, measure in enumerate(measures)
    ]
    return TEXTS.table(name, columns, rows, **values)


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


SAME_TOTAL = 0.5
"""Largest difference of a scan's reference score in the two evaluations."""

DECISIVE: dict[str, tuple[Statistic, int]] = {
    "κ of categories": (category_kappa, 1),
    "Mean absolute difference": (mean_absolute_difference, -1),
    "ICC of totals": (icc, 1),
    "F1 at ≥ 1": (f1_at(1), 1),
}
"""Statistic, and 1 if a higher value is better, else -1, by title; the first comes first in the sentence."""

VERDICT_COLUMNS = ("Measure", "After", "Before", "Difference", "p", "After is")


def earlier_scans(records: Path) -> dict[str, ComparedScan]:
    """Read the scans of an earlier evaluation by name. Raises CTError if there are none, or of another version."""
    try:
        scans = [restore(result, ComparedScan) for result in kept_results(records).values()]
    except (OSError, WrongValueError) as error:
        raise CTError(f"{records.parent} cannot be compared with: {error}. Evaluate it again.") from error
    if not scans:
        raise CTError(f"{records.parent} is no finished cac evaluate. Give its --output with the models before.")
    return {scan.name: scan for scan in scans}


def before_after_section(former: dict[str, ComparedScan], compared: ComparedScans, seed: int) -> Section:
    """Section on the scans that both evaluations have.

    Raises CTError if they have none in common, scored with the same models or compared with other reference scores.
    """
    pairs = [(former[scan.name], scan) for scan in compared.scans if scan.name in former]
    if not pairs:
        raise CTError("The earlier evaluation has none of these scans. Give one of the same reference.")
    changed = [scan.name for before, scan in pairs if abs(before.reference_total - scan.reference_total) > SAME_TOTAL]
    if changed:
        raise CTError(f"The reference of {changed[0]} is not that of the earlier evaluation. Evaluate it again.")
    if all(set(before.facts.models) == set(scan.facts.models) for before, scan in pairs):
        raise CTError("Both evaluations used the same models. Name others with --model.")
    rows: list[tuple[Cell, ...]] = []
    sentences = []
    patients = len({scan.patient for _, scan in pairs})
    for method in compared.methods:
        if all(method in before.values for before, _ in pairs):
            lines = _paired_lines(pairs, method, seed)
            rows += [heading(METHODS[method], VERDICT_COLUMNS), *lines]
            scans = f"n = {count(pairs, 'scan')} of {count(patients, 'patient')}"
            sentences.append(f"{METHODS[method]}, after against before: {_summary(lines)} ({scans}).")
    models = (_model_names([scan for scan, _ in pairs]), _model_names([scan for _, scan in pairs]))
    about = f"Before: {models[0]}. After: {models[1]}. Read this before you install a model."
    table = TEXTS.table("before_after", VERDICT_COLUMNS, rows)
    return Section(VERDICT, "Before and after", (*sentences, about), (table,))


def _paired_lines(pairs: Sequence[tuple[ComparedScan, ComparedScan]], method: str, seed: int) -> list[tuple[Cell, ...]]:
    values = [
        value_row(scan, time, version.measured(method), scan.reference_total)
        for before, scan in pairs
        for time, version in (("before", before), ("after", scan))
    ]
    table = long_table(values)
    measures = [Measure(title, statistic, table) for title, (statistic, _) in DECISIVE.items()]
    patients = [scan.patient for _, scan in pairs]
    comparison = ExperimentComparison(patients, {"before": "Before", "after": "After"}, np.random.default_rng(seed))
    rows = comparison.paired_rows(measures, "after", "before")
    return [
        (f"  {row[0]}", *row[1:], _verdict(row[3], sign))
        for row, (_, sign) in zip(rows, DECISIVE.values(), strict=True)
    ]


def _summary(rows: Sequence[tuple[Cell, ...]]) -> str:
    """Name the verdict by the first measure, and the others that are decided."""
    verdicts = {str(row[0]).strip().replace("Mean", "mean"): str(row[-1]) for row in rows}
    first = next(iter(verdicts))
    titles: dict[str, list[str]] = {}
    for title, verdict in verdicts.items():
        if title == first or verdict != "undecided":
            titles.setdefault(verdict, []).append(title)
    return "; ".join(f"{verdict} by {', '.join(names)}" for verdict, names in titles.items())


def _verdict(difference: Cell, sign: int) -> str:
    """Return whether a difference is for the better. sign: 1 if a higher value is better."""
    assert isinstance(difference, Estimate)
    if math.isnan(difference.low) or difference.low <= 0 <= difference.high:
        return "undecided"
    return "better" if sign * difference.value > 0 else "worse"


def _model_names(scans: Sequence[ComparedScan]) -> str:
    return ", ".join(sorted({model.name for scan in scans for model in scan.facts.models})) or "no network"
