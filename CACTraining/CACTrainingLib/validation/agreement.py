"""Agreement of totals, categories and vessels with the reference: the sections that need no outlines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from CACScoringLib.scoring.scores import ROUNDING, whole_score

from ..evaluation import figures as drawings
from ..evaluation.measures import Measure, MethodComparison, rates
from ..evaluation.parts import METHODS, Cell, Figure, Section, Table, count, heading
from ..statistics.agreement import Statistic, icc, kappa, limits_of_agreement
from ..statistics.bootstrap import mean, ratio
from ..statistics.patient_folds import CATEGORY_TITLES
from ..statistics.regression import linear_fit, rank_correlation
from .comparison import SCORED_METHODS, ComparedScan

LEAST = (1, 100, 400)


class ComparedScans(MethodComparison):
    """All compared scans, by the methods that scored all of them.

    Attributes:
        scans: The scans.
        vessels: Vessels of the `Reference`.
        methods: Keys of the methods, the clinical one first.
    """

    def __init__(
        self, scans: Sequence[ComparedScan], generator: np.random.Generator, vessels: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.scans, self.vessels = tuple(scans), vessels
        self.methods = tuple(key for key in SCORED_METHODS if all(key in scan.measured for scan in scans))
        titles = {key: METHODS[key] for key in self.methods}
        super().__init__([scan.patient for scan in scans], titles, self.methods[0], generator)

    @property
    def totals(self) -> np.ndarray:
        return _reference(self.scans)

    def measured(self, method: str) -> np.ndarray:
        return _measured(self.scans, method)

    def cells(self, measures: Sequence[Measure], method: str) -> list[Cell]:
        """Estimate of each measure for a method; None if there is nothing to measure."""
        return [self.estimate(measure, method) if measure.items(method) else None for measure in measures]

    def measure(self, title: str, statistic: Statistic, vessel: str | None = None) -> Measure:
        """Measure over all scans whose reference has the total, or the vessel."""
        scans = self.scans if vessel is None else [scan for scan in self.scans if vessel in scan.vessels]
        return Measure(
            title, lambda *_: scans, lambda w, s, m: statistic(w, _reference(s, vessel), _measured(s, m, vessel))
        )

    def rates(
        self, titles: Sequence[str], positive: Callable[[float], bool], vessel: str | None = None
    ) -> list[Measure]:
        """Rates (`evaluation.measures.rates`) of scans whose total or vessel score is `positive`."""
        scans = self.scans if vessel is None else [scan for scan in self.scans if vessel in scan.vessels]
        return rates(
            titles,
            lambda *_: scans,
            lambda scan, method: positive(_measured([scan], method, vessel)[0]),
            lambda scan: positive(_reference([scan], vessel)[0]),
        )


def _reference(scans: Sequence[ComparedScan], vessel: str | None = None) -> np.ndarray:
    return np.array([scan.total if vessel is None else scan.vessels[vessel] for scan in scans], float)


def _measured(scans: Sequence[ComparedScan], method: str, vessel: str | None = None) -> np.ndarray:
    scores = (s.measured[method] if vessel is None else s.measured_vessels[method][vessel] for s in scans)
    return np.array(list(scores), float)


def category(agatston: float) -> int:
    """Index of a score's category in CATEGORY_TITLES."""
    score = whole_score(agatston)
    return sum(score >= least for least in LEAST)


def _categories(scores: np.ndarray) -> np.ndarray:
    return np.array([category(score) for score in scores], int)


def category_kappa(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Weighted kappa of the totals' categories, a `Statistic`."""
    return kappa(weights, _categories(reference), _categories(measured), len(CATEGORY_TITLES))


def slope(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Slope of the least-squares line of the method's scores on the reference's, a `Statistic`."""
    return linear_fit(weights, reference, measured)[0]


def mean_difference(weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Mean of the method's minus the reference's scores, a `Statistic`."""
    return mean(weights, measured - reference)


def f1_at(least: int, weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """F1 of detecting totals of at least a score; a `Statistic` once `least` is bound."""
    positive, true = _at_least(least, measured), _at_least(least, reference)
    return ratio(weights, 2.0 * (positive & true), 1.0 * positive + true)


def _limit(sign: int, weights: np.ndarray, reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    differences, n = measured - reference, weights.sum(1)
    middle = mean(weights, differences)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.maximum(mean(weights, differences**2) - middle**2, 0) * n / (n - 1))
    return middle + sign * 1.96 * spread


def _reaches(least: int, score: float) -> bool:
    return whole_score(score) >= least


def _at_least(least: int, scores: np.ndarray) -> np.ndarray:
    return np.array([_reaches(least, score) for score in scores], bool)


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
    measures = [compared.measure(title, statistic) for title, statistic in TOTALS.items()]
    tables = [compared.value_table("totals", "Agreement of total scores", measures, note)]
    if len(compared.methods) == 2:
        statistics = {"ICC of totals": icc, "κ of categories": category_kappa}
        statistics |= {f"F1 at ≥ {least}": partial(f1_at, least) for least in LEAST}
        rows = compared.paired_rows([compared.measure(*item) for item in statistics.items()], *compared.methods)
        columns = ("Measure", *compared.titles.values(), "Difference", "p")
        note = "On the same scans; above zero the first method agrees better."
        tables.append(Table("method_differences", "The two methods compared", columns, tuple(rows), note))
    totals, unit = compared.totals, "Agatston score"
    panels = []
    for method in compared.methods:
        measured = compared.measured(method)
        pairs = np.stack([totals, measured], axis=1)
        limits = limits_of_agreement(pairs) if len(pairs) > 2 and np.ptp(pairs) > 0 else None
        panels.append(drawings.ScorePairs(method, totals, measured, limits))
    titles = ("Reference score", "Method's score")
    scatter = partial(drawings.against_truth, panels=panels, unit=unit, linear_to=10.0, titles=titles)
    titles = ("Mean of both", "Method minus reference")
    differences = partial(drawings.bland_altman, panels=panels, unit=unit, linear_to=10.0, titles=titles)
    note = "Axes are logarithmic beyond 10. Dashed: limits of agreement that widen with the mean."
    figures = (
        Figure("against_reference", "Scores against the reference", scatter, "", (7, 3)),
        Figure("bland_altman", "Difference from the reference against the mean of both", differences, note, (7, 3)),
    )
    return Section("totals", "Total scores", (), tuple(tables), figures)


def _category_section(compared: ComparedScans) -> Section:
    columns = ("Reference", *(f"Found {name}" for name in CATEGORY_TITLES))
    rows: list[tuple[Cell, ...]] = []
    for method in compared.methods:
        counts = np.zeros((len(CATEGORY_TITLES), len(CATEGORY_TITLES)), int)
        np.add.at(counts, (_categories(compared.totals), _categories(compared.measured(method))), 1)
        rows.append(heading(METHODS[method], columns))
        rows += [(f"  {name}", *map(int, row)) for name, row in zip(CATEGORY_TITLES, counts, strict=True)]
    text = f"Four categories by the Agatston score: {', '.join(CATEGORY_TITLES)}. {ROUNDING}"
    table = Table("categories", "Categories by reference and method, numbers of scans", columns, tuple(rows))
    return Section("categories", "Categories", (text,), (table,))


def _detection(compared: ComparedScans) -> Section:
    titles = ("Sensitivity", "Specificity", "Positive predictive value", "F1")
    columns = ("Score", *titles)
    rows: list[tuple[Cell, ...]] = []
    for least in LEAST:
        true = _at_least(least, compared.totals)
        rows.append(heading(f"≥ {least}: {true.sum()} of {len(true)} scans by the reference", columns))
        measures = compared.rates(titles, partial(_reaches, least))
        rows += [(f"  {title}", *compared.cells(measures, method)) for method, title in compared.titles.items()]
    note = "A scan is positive where its score, rounded, reaches the limit."
    table = Table("detection", "Detection of scans at or above a score", columns, tuple(rows), note)
    return Section("detection", "Detection", (), (table,))


def _vessels(compared: ComparedScans) -> Section:
    titles = ("Sensitivity", "Specificity")
    columns = ("Vessel", *AGREEMENT, *titles)
    rows: list[tuple[Cell, ...]] = []
    for vessel in compared.vessels:
        scans = [scan for scan in compared.scans if vessel in scan.vessels]
        if not scans:
            continue
        calcified = (_reference(scans, vessel) > 0).sum()
        rows.append(heading(f"{vessel}: calcium in {calcified} of {count(scans, 'scan')}", columns))
        measures = [compared.measure(title, statistic, vessel) for title, statistic in AGREEMENT.items()]
        measures += compared.rates(titles, lambda score: score > 0, vessel)
        rows += [(f"  {title}", *compared.cells(measures, method)) for method, title in compared.titles.items()]
    note = "Agatston scores. A lesion that nobody assigned counts for the artery that its place suggests."
    table = Table("vessels", "Agreement by vessel", columns, tuple(rows), note)
    return Section("vessels", "Arteries", (), (table,))
