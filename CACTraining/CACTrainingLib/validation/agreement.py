"""How well totals, categories and vessels agree with the reference: the sections that need no outlines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.scoring.risk import ROUNDING, whole_score

from ..report import figures as drawings
from ..report.parts import METHODS, Figure, Section, Table, count, heading, p_cell
from ..statistics.agreement import agreement, kappa, limits_of_agreement
from ..statistics.bootstrap import Bootstrap, Estimate, Found, estimate, mean, paired_difference, ratio
from ..statistics.regression import linear_fit, rank_correlation
from .comparison import METHODS as BY_KEY
from .comparison import ComparedScan

if TYPE_CHECKING:
    from ..report.parts import Cell

CATEGORIES = ("0", "1–99", "100–399", "≥ 400")
LEAST = (1, 100, 400)

Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of weights [resamples, scans], the reference's scores and a method's."""


@dataclass(frozen=True)
class Compared:
    """All compared scans, and the resamples of their patients. vessels: of the `Reference`."""

    scans: tuple[ComparedScan, ...]
    bootstrap: Bootstrap
    vessels: Mapping[str, tuple[str, ...]]

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """That all scans were scored by, in the order of `comparison.METHODS`."""
        return tuple(key for key in BY_KEY if all(key in scan.measured for scan in self.scans))

    @cached_property
    def totals(self) -> np.ndarray:
        return np.array([scan.total for scan in self.scans])

    def measured(self, method: str) -> np.ndarray:
        return np.array([scan.measured[method] for scan in self.scans])

    def weights(self, scans: Sequence[ComparedScan] | None = None) -> np.ndarray:
        return self.bootstrap.weights([scan.patient for scan in (self.scans if scans is None else scans)])

    def estimate(self, values: np.ndarray, scans: Sequence[ComparedScan] | None = None) -> Estimate:
        own = self.scans if scans is None else scans
        return estimate(values, len(own), len({scan.patient for scan in own}))

    def found(self, statistic: Statistic, measured: np.ndarray) -> Found:
        values = statistic(self.weights(), self.totals, measured)
        return Found(values, len(self.scans), len({scan.patient for scan in self.scans}))

    def rates(
        self, scans: Sequence[ComparedScan], found: np.ndarray, true: np.ndarray
    ) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
        """Sensitivity, specificity and positive predictive value; None where no scan counts."""
        proportion = partial(self.bootstrap.proportion, [scan.patient for scan in scans])
        pairs = ((found, true), (~found, ~true), (true, found))
        return tuple(proportion(hits, of) if of.any() else None for hits, of in pairs)


def category(agatston: float) -> int:
    """Place of a score among CATEGORIES."""
    score = whole_score(agatston)
    return sum(score >= least for least in LEAST)


def _categories(scores: np.ndarray) -> np.ndarray:
    return np.array([category(score) for score in scores], int)


def icc(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Intraclass correlation of scores, a `Statistic`."""
    return agreement(weights, np.stack([reference, measured], axis=1))


def category_kappa(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Weighted kappa of the totals' categories, a `Statistic`."""
    return kappa(weights, _categories(reference), _categories(measured), len(CATEGORIES))


def slope(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Slope of the least-squares line of the method's scores on the reference's, a `Statistic`."""
    return linear_fit(weights, reference, measured)[0]


def mean_difference(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Mean of the method's minus the reference's scores, a `Statistic`."""
    return mean(weights, measured - reference)


def f1_at(least: int, weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """F1 of detecting totals from a score on; with that score a `Statistic`."""
    found, true = _at_least(least, measured), _at_least(least, reference)
    return ratio(weights, 2.0 * (found & true), 1.0 * found + true)


def _limit(sign: int, weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    off, n = measured - reference, weights.sum(1)
    middle = mean(weights, off)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.maximum(mean(weights, off**2) - middle**2, 0) * n / (n - 1))
    return middle + sign * 1.96 * spread


def _at_least(least: int, scores: np.ndarray) -> np.ndarray:
    return np.array([whole_score(score) >= least for score in scores], bool)


TOTALS: dict[str, Statistic] = {
    "ICC": icc,
    "Slope": slope,
    "Mean difference": mean_difference,
    "Lower limit": partial(_limit, -1),
    "Upper limit": partial(_limit, 1),
    "Rank correlation": rank_correlation,
    "κ of categories": category_kappa,
}


def sections(compared: Compared) -> tuple[Section, ...]:
    """Totals, categories, detection, and vessels where the reference tells them apart."""
    parts = [_totals(compared), _category_section(compared), _detection(compared)]
    if compared.vessels and any(scan.vessels for scan in compared.scans):
        parts.append(_vessels(compared))
    return tuple(parts)


def _totals(compared: Compared) -> Section:
    rows = [
        (METHODS[m], *(compared.found(statistic, compared.measured(m)).estimate for statistic in TOTALS.values()))
        for m in compared.methods
    ]
    note = (
        "Agatston score of the method against the reference's. ICC: two-way random effects, absolute agreement, single "
        "measurement. Slope: least-squares line of the method's score on the reference's, which high scores dominate. "
        "Limits: mean difference ± 1.96 standard deviations (Bland and Altman 1986); the difference is the method's "
        "minus the reference's. κ with linear weights."
    )
    tables = [Table("totals", "Agreement of total scores", ("Method", *TOTALS), tuple(rows), note)]
    if len(compared.methods) == 2:
        tables.append(_method_differences(compared))
    reference, label = compared.totals, "Agatston score"
    panels = [
        drawings.AgainstTruth(m, reference, compared.measured(m), np.zeros(len(reference), bool))
        for m in compared.methods
    ]
    draw = partial(
        drawings.against_truth, panels=panels, unit=label, linear_to=10.0, titles=("Reference score", "Method's score")
    )
    titles = ("Mean of both", "Method minus reference")
    differences = partial(drawings.bland_altman, panels=_pairs(compared), unit=label, linear_to=10.0, titles=titles)
    note = "Axes are logarithmic beyond 10. Dashed: limits of agreement that widen with the mean."
    figures = (
        Figure("against_reference", "Scores against the reference", draw, "", (7, 3)),
        Figure("bland_altman", "Difference from the reference against the mean of both", differences, note, (7, 3)),
    )
    return Section("totals", "Total scores", (), tuple(tables), figures)


def _pairs(compared: Compared) -> list[drawings.ScanPairs]:
    found = []
    for method in compared.methods:
        pairs = np.stack([compared.totals, compared.measured(method)], axis=1)
        limits = limits_of_agreement(pairs) if len(pairs) > 2 and np.ptp(pairs) > 0 else None
        found.append(drawings.ScanPairs(method, pairs[:, 0], pairs[:, 1], limits))
    return found


def _method_differences(compared: Compared) -> Table:
    first, second = compared.methods
    rows: list[tuple[Cell, ...]] = []
    statistics = {"ICC of totals": icc, "κ of categories": category_kappa}
    statistics |= {f"F1 at ≥ {least}": partial(f1_at, least) for least in LEAST}
    for title, statistic in statistics.items():
        own = [compared.found(statistic, compared.measured(method)) for method in (first, second)]
        change = paired_difference(*own)
        rows.append((title, *(float(one.values[0]) for one in own), change.estimate, p_cell(change.p)))
    columns = ("Measure", METHODS[first], METHODS[second], "Difference", "p")
    note = "On the same scans; above zero the first method agrees better."
    return Table("method_differences", "The two methods compared", columns, tuple(rows), note)


def _category_section(compared: Compared) -> Section:
    columns = ("Reference", *(f"Found {name}" for name in CATEGORIES))
    rows: list[tuple[Cell, ...]] = []
    for method in compared.methods:
        counts = np.zeros((len(CATEGORIES), len(CATEGORIES)), int)
        np.add.at(counts, (_categories(compared.totals), _categories(compared.measured(method))), 1)
        rows.append(heading(METHODS[method], columns))
        rows += [(f"  {name}", *map(int, row)) for name, row in zip(CATEGORIES, counts, strict=True)]
    text = f"Four categories by the Agatston score: {', '.join(CATEGORIES)}. {ROUNDING}"
    table = Table("categories", "Categories by reference and method, numbers of scans", columns, tuple(rows))
    return Section("categories", "Categories", (text,), (table,))


def _detection(compared: Compared) -> Section:
    columns = ("Score", "Sensitivity", "Specificity", "Positive predictive value", "F1")
    rows: list[tuple[Cell, ...]] = []
    for least in LEAST:
        true = _at_least(least, compared.totals)
        rows.append(heading(f"≥ {least}: {true.sum()} of {len(true)} scans by the reference", columns))
        for method in compared.methods:
            measured = compared.measured(method)
            rates = compared.rates(compared.scans, _at_least(least, measured), true)
            rows.append((f"  {METHODS[method]}", *rates, compared.found(partial(f1_at, least), measured).estimate))
    note = "A scan is positive where its score, rounded, reaches the limit."
    table = Table("detection", "Detection of scans at or above a score", columns, tuple(rows), note)
    return Section("detection", "Detection", (), (table,))


def _vessels(compared: Compared) -> Section:
    columns = ("Vessel", "ICC", "Slope", "Mean difference", "Sensitivity", "Specificity")
    rows: list[tuple[Cell, ...]] = []
    for vessel in compared.vessels:
        own = [scan for scan in compared.scans if vessel in scan.vessels]
        if not own:
            continue
        reference = np.array([scan.vessels[vessel] for scan in own])
        rows.append(heading(f"{vessel}: calcium in {(reference > 0).sum()} of {count(own, 'scan')}", columns))
        for method in compared.methods:
            measured = np.array([scan.measured_vessels[method][vessel] for scan in own])
            drawn = [one(compared.weights(own), reference, measured) for one in (icc, slope, mean_difference)]
            rates = compared.rates(own, measured > 0, reference > 0)[:2]
            rows.append((f"  {METHODS[method]}", *(compared.estimate(values, own) for values in drawn), *rates))
    note = "Agatston scores. A lesion that nobody assigned counts for the artery that its place suggests."
    table = Table("vessels", "Agreement by vessel", columns, tuple(rows), note)
    return Section("vessels", "Arteries", (), (table,))
