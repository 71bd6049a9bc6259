"""Agreement of totals, categories and vessels with the reference: the sections that need no outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from CACScoringLib.quality.calibration import Limits
from CACScoringLib.scoring.categories import ROUNDING, whole_score

from ..evaluation import figures as drawings
from ..evaluation.measures import (
    Comparison,
    Measure,
    count_table,
    f1,
    long_table,
    mean_difference,
    of_classes,
    rates,
    value_row,
)
from ..evaluation.parts import METHODS, Cell, Figure, Section, Table, count, heading
from ..evaluation.scored_scan import SCORED_METHODS
from ..statistics.agreement import Statistic, icc, kappa, limits_of_agreement, rank_correlation, slope
from ..statistics.bootstrap import mean
from ..statistics.patient_folds import CATEGORY_TITLES
from .comparison import ComparedScan

LEAST = (1, 100, 400)
DIFFERENCE_TITLES = ("Mean of both", "Method minus reference")


class ComparedScans(Comparison):
    """All compared scans, by the methods that scored all of them.

    Attributes:
        scans: The scans.
        vessels: Vessels of the `Reference`.
        methods: Keys of the methods, the clinical one first.
        totals: Long table of the total scores against the reference's.
    """

    def __init__(
        self, scans: Sequence[ComparedScan], generator: np.random.Generator, vessels: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.scans, self.vessels = tuple(scans), vessels
        self.methods = tuple(key for key in SCORED_METHODS if all(key in scan.measured for scan in scans))
        super().__init__([scan.patient for scan in scans], {key: METHODS[key] for key in self.methods}, generator)
        self.totals = long_table(
            value_row(scan, method, value, scan.total) for scan in scans for method, value in scan.measured.items()
        )

    def vessel_scores(self) -> pd.DataFrame:
        """Long table of the vessels' scores, of the scans whose reference has them."""
        return long_table(
            value_row(scan, method, values[vessel], scan.vessels[vessel], vessel)
            for vessel in self.vessels
            for scan in self.scans
            if vessel in scan.vessels
            for method, values in scan.measured_vessels.items()
        )


def categories(agatston: np.ndarray) -> np.ndarray:
    """Index of each score's category in CATEGORY_TITLES."""
    return np.searchsorted(LEAST, [whole_score(score) for score in np.ravel(agatston)], side="right")


category_kappa: Statistic = of_classes(partial(kappa, classes=len(CATEGORY_TITLES)), categories)
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
    return np.array([whole_score(score) >= least for score in scores], bool)


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
    note = (
        "Agatston score of the method against the reference's. ICC: two-way random effects, absolute agreement, single "
        "measurement. Slope: least-squares line of the method's score on the reference's, which high scores dominate. "
        "Limits: mean difference ± 1.96 standard deviations (Bland and Altman 1986); the difference is the method's "
        "minus the reference's. κ with linear weights."
    )
    measures = [Measure(title, statistic, compared.totals) for title, statistic in TOTALS.items()]
    tables = [compared.value_table("totals", "Agreement of total scores", measures, note)]
    if len(compared.methods) == 2:
        statistics = {"ICC of totals": icc, "κ of categories": category_kappa}
        statistics |= {f"F1 at ≥ {least}": f1_at(least) for least in LEAST}
        rows = compared.paired_rows([Measure(*item, compared.totals) for item in statistics.items()], *compared.methods)
        columns = ("Measure", *compared.titles.values(), "Difference", "p")
        note = "On the same scans; above zero the first method agrees better."
        tables.append(Table("method_differences", "The two methods compared", columns, tuple(rows), note))
    unit = "Agatston score"
    panels = drawings.score_pairs(compared.totals, compared.methods, limits_of_pairs)
    titles = ("Reference score", "Method's score")
    scatter = partial(drawings.against_truth, panels=panels, unit=unit, linear_to=10.0, titles=titles)
    differences = partial(drawings.bland_altman, panels=panels, unit=unit, linear_to=10.0, titles=DIFFERENCE_TITLES)
    note = "Axes are logarithmic beyond 10. Dashed: limits of agreement that widen with the mean."
    figures = (
        Figure("against_reference", "Scores against the reference", scatter, "", (7, 3)),
        Figure("bland_altman", "Difference from the reference against the mean of both", differences, note, (7, 3)),
    )
    return Section("totals", "Total scores", (), tuple(tables), figures, values=(compared.totals,))


def _category_section(compared: ComparedScans) -> Section:
    parts = {METHODS[m]: compared.totals[compared.totals.method == m] for m in compared.methods}
    text = f"Four categories by the Agatston score: {', '.join(CATEGORY_TITLES)}. {ROUNDING}"
    title = "Categories by reference and method, numbers of scans"
    table = count_table("categories", title, ("Reference", "Found"), CATEGORY_TITLES, parts, categories)
    return Section("categories", "Categories", (text,), (table,))


def _detection(compared: ComparedScans) -> Section:
    titles = ("Sensitivity", "Specificity", "Positive predictive value", "F1")
    columns = ("Score", *titles)
    rows: list[tuple[Cell, ...]] = []
    for least in LEAST:
        table_of_least = compared.totals.assign(
            truth=reach(least, compared.totals.truth), value=reach(least, compared.totals.value)
        )
        true = [whole_score(scan.total) >= least for scan in compared.scans]
        rows.append(heading(f"≥ {least}: {sum(true)} of {len(true)} scans by the reference", columns))
        measures = rates(titles, table_of_least)
        rows += [compared.method_row(f"  {title}", measures, method) for method, title in compared.titles.items()]
    note = "A scan is positive where its score, rounded, reaches the limit."
    table = Table("detection", "Detection of scans at or above a score", columns, tuple(rows), note)
    return Section("detection", "Detection", (), (table,))


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
    note = "Agatston scores. A lesion that nobody assigned counts for the artery that its place suggests."
    table = Table("vessels", "Agreement by vessel", columns, tuple(rows), note)
    return Section("vessels", "Arteries", (), (table,), values=(values,))
