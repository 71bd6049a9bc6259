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
from . import published
from .comparison import METHODS as BY_KEY
from .comparison import ComparedScan

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from ..report.parts import Cell

CATEGORIES = ("0", "1–99", "100–399", "≥ 400")
LEAST = (1, 100, 400)

Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of weights [resamples, scans], the reference's totals and a method's."""


@dataclass(frozen=True)
class Compared:
    """All compared scans, and the resamples of their patients. key, published: of the `Reference`."""

    scans: tuple[ComparedScan, ...]
    bootstrap: Bootstrap
    key: str
    vessels: Mapping[str, tuple[str, ...]]
    published: str | None = None

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

    @cached_property
    def scored(self) -> list[tuple[str, np.ndarray]]:
        """Totals by each method, with its title; and those that came with the reference, where all scans have one."""
        found = [(METHODS[method], self.measured(method)) for method in self.methods]
        others = [scan.published for scan in self.scans]
        if self.published and None not in others:
            found.append((f"Published: {self.published}, on these scans", np.array(others)))
        return found

    def found(self, statistic: Statistic, measured: np.ndarray) -> Found:
        values = statistic(self.weights(), self.totals, measured)
        return Found(values, len(self.scans), len({scan.patient for scan in self.scans}))


def category(agatston: float) -> int:
    """Place of a score among CATEGORIES."""
    score = whole_score(agatston)
    return sum(score >= least for least in LEAST)


def _categories(scores: np.ndarray) -> np.ndarray:
    return np.array([category(score) for score in scores], int)


def icc(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Intraclass correlation of totals, a `Statistic`."""
    return agreement(weights, np.stack([reference, measured], axis=1))


def category_kappa(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Weighted kappa of the totals' categories, a `Statistic`."""
    return kappa(weights, _categories(reference), _categories(measured), len(CATEGORIES))


def _spread(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Standard deviation, float [resamples]."""
    n = weights.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.maximum(mean(weights, values**2) - mean(weights, values) ** 2, 0) * n / (n - 1))


def sections(compared: Compared) -> tuple[Section, ...]:
    """Totals, categories, detection, and vessels where the reference tells them apart."""
    parts = [_totals(compared), _category_section(compared), _detection(compared)]
    if compared.vessels and any(scan.vessels for scan in compared.scans):
        parts.append(_vessels(compared))
    return tuple(parts)


def _totals(compared: Compared) -> Section:
    fitted = ("Slope", "Intercept", "Mean difference", "Lower limit", "Upper limit")
    columns = ("Method", "ICC", *fitted, "Rank correlation")
    rows: list[tuple[Cell, ...]] = []
    weights, reference = compared.weights(), compared.totals
    for title, measured in compared.scored:
        slope, start = linear_fit(weights, reference, measured)
        off, spread = mean(weights, measured - reference), _spread(weights, measured - reference)
        values = [icc(weights, reference, measured), slope, start, off, off - 1.96 * spread, off + 1.96 * spread]
        values.append(rank_correlation(weights, reference, measured))
        rows.append((title, *map(compared.estimate, values)))
    rows += [
        (f"Published: {one.title}", one.icc, *[None] * (len(columns) - 2))
        for one in published.agreement_for(compared.key)
        if one.icc is not None
    ]
    note = (
        "Agatston score of the method against the reference's. ICC: two-way random effects, absolute agreement, single "
        "measurement. Slope and intercept: least-squares line of the method's score on the reference's, which high "
        "scores dominate. Limits: mean difference ± 1.96 standard deviations (Bland and Altman 1986); the difference "
        "is the method's minus the reference's."
    )
    if compared.key.startswith("coca"):
        note += " Published figures of COCA are of these public scans, or of a part of them."
    tables = [Table("totals", "Agreement of total scores", columns, tuple(rows), note)]
    if len(compared.methods) == 2:
        tables.append(_method_differences(compared))
    figures = (
        Figure("against_reference", "Scores against the reference", partial(_scatter, compared), "", (7, 3)),
        Figure(
            "bland_altman",
            "Difference from the reference against the mean of both",
            partial(_bland_altman, compared),
            "Axes are logarithmic beyond 10. Dashed: limits of agreement that widen with the mean.",
            (7, 3),
        ),
    )
    return Section("totals", "Total scores", (), tuple(tables), figures)


def _method_differences(compared: Compared) -> Table:
    first, second = compared.methods
    rows: list[tuple[Cell, ...]] = []
    statistics: dict[str, Statistic] = {"ICC of totals": icc, "κ of categories": category_kappa}
    statistics |= {f"F1 at ≥ {least}": partial(f1_at, least) for least in LEAST}
    for title, statistic in statistics.items():
        own = [compared.found(statistic, compared.measured(method)) for method in (first, second)]
        change = paired_difference(*own)
        rows.append((title, *(float(one.values[0]) for one in own), change.estimate, p_cell(change.p)))
    columns = ("Measure", METHODS[first], METHODS[second], "Difference", "p")
    note = "On the same scans; above zero the first method agrees better."
    return Table("method_differences", "The two methods compared", columns, tuple(rows), note)


def _category_section(compared: Compared) -> Section:
    columns = ("Method", "κ", "Same category")
    rows: list[tuple[Cell, ...]] = []
    true = _categories(compared.totals)
    patients = [scan.patient for scan in compared.scans]
    for title, measured in compared.scored:
        same = compared.bootstrap.proportion(patients, _categories(measured) == true)
        rows.append((title, compared.found(category_kappa, measured).estimate, same))
    rows += [
        (f"Published: {one.title}", one.kappa, None)
        for one in published.agreement_for(compared.key)
        if one.kappa is not None
    ]
    note = "Cohen's κ with linear weights. How others weighted theirs, and which categories they had, differs."
    tables = [Table("categories", "Agreement of categories", columns, tuple(rows), note)]
    tables += [_confusion(compared, method) for method in compared.methods]
    text = f"Four categories by the Agatston score: {', '.join(CATEGORIES)}. {ROUNDING}"
    return Section("categories", "Categories", (text,), tuple(tables))


def _confusion(compared: Compared, method: str) -> Table:
    counts = np.zeros((len(CATEGORIES), len(CATEGORIES)), int)
    np.add.at(counts, (_categories(compared.totals), _categories(compared.measured(method))), 1)
    rows = tuple((f"Reference {name}", *map(int, row)) for name, row in zip(CATEGORIES, counts, strict=True))
    columns = ("Scans", *(f"Found {name}" for name in CATEGORIES))
    return Table(f"categories_{method}", f"Categories by {METHODS[method]}", columns, rows, "Numbers of scans.")


def f1_at(least: int, weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """F1 of detecting totals from a score on; with that score a `Statistic`."""
    found, true = (np.array([whole_score(x) >= least for x in scores]) for scores in (measured, reference))
    return ratio(weights, 2.0 * (found & true), 1.0 * found + true)


def _detection(compared: Compared) -> Section:
    columns = ("Score", "Sensitivity", "Specificity", "Positive predictive value", "F1")
    rows: list[tuple[Cell, ...]] = []
    patients = [scan.patient for scan in compared.scans]
    proportion = partial(compared.bootstrap.proportion, patients)
    for least in LEAST:
        true = np.array([whole_score(total) >= least for total in compared.totals])
        rows.append(heading(f"≥ {least}: {true.sum()} of {len(true)} scans by the reference", columns))
        for title, measured in compared.scored:
            found = np.array([whole_score(score) >= least for score in measured])
            rates = (proportion(found, true), proportion(~found, ~true), proportion(true, found))
            shown = [None if one.n == 0 else one for one in rates]
            rows.append((f"  {title}", *shown, compared.found(partial(f1_at, least), measured).estimate))
        sensitivity, specificity, f1 = published.DETECTION[least]
        rows.append((f"  Published: {published.DETECTION_TITLE}", sensitivity, specificity, None, f1))
    note = "A scan is positive where its score, rounded, reaches the limit."
    table = Table("detection", "Detection of scans at or above a score", columns, tuple(rows), note)
    return Section("detection", "Detection", (), (table,))


def _vessels(compared: Compared) -> Section:
    columns = ("Vessel", "ICC", "Slope", "Mean difference", "κ of presence", "Sensitivity", "Specificity")
    rows: list[tuple[Cell, ...]] = []
    for vessel in compared.vessels:
        own = [scan for scan in compared.scans if vessel in scan.vessels]
        if not own:
            continue
        weights, patients = compared.weights(own), [scan.patient for scan in own]
        reference = np.array([scan.vessels[vessel] for scan in own])
        rows.append(heading(f"{vessel}: calcium in {(reference > 0).sum()} of {count(own, 'scan')}", columns))
        for method in compared.methods:
            measured = np.array([scan.measured_vessels[method][vessel] for scan in own])
            slope, _ = linear_fit(weights, reference, measured)
            true, found = reference > 0, measured > 0
            values = (
                icc(weights, reference, measured),
                slope,
                mean(weights, measured - reference),
                kappa(weights, true, found, 2),
            )
            rates = [
                compared.bootstrap.proportion(patients, *pair) if pair[1].any() else None
                for pair in ((found, true), (~found, ~true))
            ]
            rows.append((f"  {METHODS[method]}", *(compared.estimate(v, own) for v in values), *rates))
        if vessel in published.VESSEL_ICC:
            told = published.VESSEL_ICC[vessel]
            rows.append((f"  Published: {published.VESSEL_TITLE}", told, *[None] * (len(columns) - 2)))
    note = (
        "Agatston scores. A lesion that nobody assigned counts for the artery that its place suggests. Published κ of "
        "presence lies between 0.82 and 0.93."
    )
    table = Table("vessels", "Agreement by vessel", columns, tuple(rows), note)
    return Section("vessels", "Arteries", (), (table,))


def _panels(compared: Compared) -> list[drawings.ScanPairs]:
    found = []
    for method in compared.methods:
        pairs = np.stack([compared.totals, compared.measured(method)], axis=1)
        limits = limits_of_agreement(pairs) if len(pairs) > 2 and np.ptp(pairs) > 0 else None
        found.append(drawings.ScanPairs(method, pairs[:, 0], pairs[:, 1], limits))
    return found


def _scatter(compared: Compared, drawing: Drawing) -> None:
    panels = [
        drawings.AgainstTruth(method, compared.totals, compared.measured(method), np.zeros(len(compared.scans), bool))
        for method in compared.methods
    ]
    titles = ("Reference", "Method")
    drawings.against_truth(drawing, panels, "Agatston score", linear_to=10.0, titles=titles)


def _bland_altman(compared: Compared, drawing: Drawing) -> None:
    titles = ("Mean of both", "Method minus reference")
    drawings.bland_altman(drawing, _panels(compared), "Agatston score", linear_to=10.0, titles=titles)
