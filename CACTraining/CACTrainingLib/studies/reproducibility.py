"""Does a score repeat? Two scans of the same patients, by every method; the model is van Velzen et al., section 5.3.

Whatever is wrongly counted may repeat as well as calcium does. So every table carries the control that only counts
slices, methods are compared on identical pairs, and where the truth is known `studies.accuracy` holds them against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.scoring.repeatability import Limits

from ..report import figures as study_figures
from ..report.parts import METHODS, Figure, Section, Table, heading, p_cell
from ..statistics.agreement import (
    LIMIT_FACTOR,
    absolute_difference_fit,
    agreement,
    agreement_estimate,
    limits_of_agreement,
    relative_differences,
)
from ..statistics.bootstrap import RESAMPLES, Difference, Estimate, estimate, mean
from . import accuracy, categories, lesion_finding
from .records import ARTERIES, MG, StudyRecord, pairs_of
from .sample import (
    AGATSTON,
    HIGHER,
    LOWER,
    MASS,
    OWN,
    PAPER,
    VESSELS,
    WITH_AGATSTON,
    WITH_MASS,
    Pair,
    Sample,
    compared,
    having,
    pair_scores,
)

if TYPE_CHECKING:
    from ..report.parts import Cell

LEAST_PAIRS = 20
"""Fewer pairs give no limits of agreement."""
LEVELS = {AGATSTON: (10.0, 100.0, 400.0), MG: (3.0, 10.0, 30.0), "HU·mm³": (3000.0, 10000.0, 30000.0)}
"""At which scores limits are shown: of Agatston scores, and of masses by their unit."""

_PUBLISHED_DIFFERENCES = {
    "map": ("0.94 / 0.88", "0.47 / 0.44"),
    "reader": (None, "0.89 / –"),
    "automatic": ("– / 0.92", "1.14 / 0.58"),
}
_PUBLISHED_ICC = {
    "map": ("0.97 (0.96–0.97)", "0.96 (0.96–0.97)", "0.96 (0.96–0.96)", "0.95 (0.95–0.96)"),
    "automatic": ("0.93 (0.92–0.94)", "0.92 (0.90–0.93)", "0.91 (0.91–0.92)", "0.90 (0.88–0.92)"),
}
_PUBLISHED_ARTERIES = {
    "map": {"All": (0.95, 0.55), "LM and LAD": (0.84, 0.61), "LCX": (0.99, 0.33), "RCA": (1.25, 0.35)},
    "reader": {"All": (1.05, 0.77), "LM and LAD": (1.00, 0.75), "LCX": (0.84, 0.46), "RCA": (1.42, 1.14)},
    "automatic": {"All": (1.15, 0.76), "LM and LAD": (1.07, 0.81), "LCX": (0.86, 0.48), "RCA": (1.63, 0.74)},
}


def sections(records: Sequence[StudyRecord], generator: np.random.Generator) -> tuple[Section, ...]:
    """Reproducibility of mass and Agatston score, of risk categories; with truth: accuracy, and the lesions found.

    Raises MixedUnitsError.
    """
    sample = Sample(records, generator)
    between = _between_scans(sample) if sample.pairs else Section("between_scans", _TITLE, (_without_pairs(sample),))
    return (between, *categories.sections(sample), *accuracy.sections(sample), *lesion_finding.sections(sample))


def limits(
    records: Sequence[StudyRecord], method: str, quantity: str, of: str = "total", empirical: bool = True
) -> Limits | None:
    """How far two scans of one patient differ by a method: see `limits_of_agreement`.

    quantity: "mass" or "agatston". of: "total", or "artery" for the pairs of all four arteries in one regression.
    Pairs where both are zero say nothing and are left out; None where fewer than LEAST_PAIRS remain.
    """
    pairs = having(pairs_of(records), method)
    parts = [None] if of == "total" else [(artery,) for artery in ARTERIES]
    values = np.concatenate([pair_scores(pairs, method, quantity, part) for part in parts])
    values = values[values.sum(1) > 0]
    return limits_of_agreement(values, empirical) if len(values) >= LEAST_PAIRS else None


_TITLE = "Interscan reproducibility of mass and Agatston score"


def _without_pairs(sample: Sample) -> str:
    return f"{sample.opening()} Without pairs, reproducibility cannot be evaluated."


def _between_scans(sample: Sample) -> Section:
    text = (
        sample.opening(),
        f"Intervals are 95 % percentile intervals of {RESAMPLES} bootstrap resamples of patients, and p is two-sided "
        "from the same resamples. The relative difference of two scans is |a − b| over their mean; it is 2 where only "
        "one of them is above zero, and is undefined where neither is.",
        *_identical_text(sample),
    )
    if not sample.has_truth:
        text += ("The true mass of no scan is known, so it is not known whether reproducible scores are accurate.",)
    tables = [_difference_table(sample), _identical_table(sample), _icc_table(sample)]
    tables += [table for table in (_artery_table(sample),) if table.rows]
    tables += [_limit_table(sample, quantity) for quantity in (MASS, AGATSTON)]
    figures = [_bland_altman(sample, quantity) for quantity in (MASS, AGATSTON)]
    return Section("between_scans", _TITLE, text, tuple(tables), tuple(figures))


def relative_difference(
    sample: Sample, pairs: Sequence[Pair], method: str, both: bool, arteries: Sequence[str] | None = None
) -> Estimate:
    """Mean relative difference of mass, of pairs positive in both scans, or else in either."""
    values = pair_scores(pairs, method, MASS, arteries)
    chosen = (values > 0).all(1) if both else (values > 0).any(1)
    own = [pair for pair, wanted in zip(pairs, chosen, strict=True) if wanted]
    drawn = mean(sample.weights(own), relative_differences(values[chosen]))
    return estimate(drawn, len(own), len(own))


def _difference_table(sample: Sample) -> Table:
    rows = []
    for method in sample.methods:
        pairs = having(sample.pairs, method)
        either, both = (relative_difference(sample, pairs, method, wanted) for wanted in (False, True))
        published = _PUBLISHED_DIFFERENCES.get(method, (None, None))
        rows.append((METHODS[method], either, published[0], both, published[1]))
    columns = ("Method", "Positive in either scan", "Published, either", "Positive in both", "Published, both")
    note = (
        f"Mean relative difference of mass between the two scans of a patient, lower is better; each method over "
        f"the pairs that it finds positive itself, so the rows are of different pairs ([[identical_pairs]] is of the "
        f"same ones). Published: {PAPER}, 119 / 1543 patients; the reader there marked calcium above 130 HU by hand."
    )
    return Table("relative_difference", "Relative difference of mass", columns, tuple(rows), note)


def positive_in_both(pairs: Sequence[Pair], *methods: str) -> list[Pair]:
    return [p for p in having(pairs, *methods) if all(r.values[m].mass > 0 for r in p for m in methods)]


def on_identical(sample: Sample, comparator: str) -> tuple[int, float, float, Difference]:
    """Pairs that the map and the rival find positive in both scans; both mean relative differences, and map − rival."""
    pairs = positive_in_both(sample.pairs, OWN, comparator)

    def statistic(weights: np.ndarray, method: str) -> np.ndarray:
        return mean(weights, relative_differences(pair_scores(pairs, method)))

    return len(pairs), *sample.compare(pairs, statistic, comparator)


def _icc_difference(sample: Sample, comparator: str, quantity: str) -> tuple[int, float, float, Difference]:
    pairs = having(sample.pairs, OWN, comparator)

    def statistic(weights: np.ndarray, method: str) -> np.ndarray:
        return agreement(weights, pair_scores(pairs, method, quantity))

    return len(pairs), *sample.compare(pairs, statistic, comparator)


def _identical_table(sample: Sample) -> Table:
    columns = ("Compared with", "Pairs", "Calcium map", "The other", "Difference", "p")
    rows: list[tuple[Cell, ...]] = [
        heading("Relative difference of mass, both methods positive in both scans", columns)
    ]

    def add(comparator: str, result: tuple[int, float, float, Difference]) -> None:
        n, own, other, change = result
        rows.append((f"  {METHODS[comparator]}", n, own, other, change.estimate, p_cell(change.p)))

    comparators = sample.comparators() if OWN in sample.methods else ()
    for comparator in comparators:
        add(comparator, on_identical(sample, comparator))
    for quantity, title, of in ((MASS, "mass", comparators), (AGATSTON, "Agatston score", WITH_AGATSTON)):
        rows.append(heading(f"ICC of {title}, all pairs", columns))
        for comparator in (r for r in comparators if r in of):
            add(comparator, _icc_difference(sample, comparator, quantity))
    note = (
        "The calcium map minus the other method, on the same pairs of scans. For the relative difference, below zero "
        "is better; for the ICC, above zero. Reproducibility alone does not prove that a method measures calcium, as "
        "the control that counts slices shows: see the tables against truth, where the truth is known. "
        f"With {RESAMPLES} resamples p is never below {2 / (RESAMPLES + 1):.3f}."
    )
    return Table(
        "identical_pairs", "The calcium map against each other method on identical pairs", columns, tuple(rows), note
    )


def _identical_text(sample: Sample) -> list[str]:
    if OWN not in sample.methods:
        return []
    sentences = []
    for comparator in sample.comparators():
        n, own, other, change = on_identical(sample, comparator)
        if n:
            sentences.append(
                f"On the {n} pairs that both methods find positive in both scans, the mean relative difference of mass "
                f"was {own:.2f} for the calcium map and {other:.2f} for “{METHODS[comparator]}”: "
                f"{compared(change, LOWER, HIGHER)}."
            )
    return [" ".join(sentences)] if sentences else []


def _icc(sample: Sample, pairs: Sequence[Pair], method: str, quantity: str) -> tuple[Estimate, str]:
    """The ICC with its usual interval, and the bootstrap's interval in words."""
    values = pair_scores(pairs, method, quantity)
    drawn = estimate(agreement(sample.weights(pairs), values), len(pairs), len(pairs))
    return agreement_estimate(values), "–" if math.isnan(drawn.low) else f"{drawn.low:.2f} to {drawn.high:.2f}".replace(
        "-", "−"
    )


def _icc_table(sample: Sample) -> Table:
    columns = ("Method", "ICC", "Bootstrap interval", "Published")
    rows: list[tuple[Cell, ...]] = []
    parts = [(quantity, both) for quantity in (MASS, AGATSTON) for both in (False, True)]
    for n, (quantity, both) in enumerate(parts):
        which = "pairs positive in both scans" if both else "all pairs"
        rows.append(heading(f"{'Mass' if quantity == MASS else 'Agatston score'}, {which}", columns))
        for method in sample.methods if quantity == MASS else [m for m in sample.methods if m in WITH_AGATSTON]:
            pairs = positive_in_both(sample.pairs, method) if both else having(sample.pairs, method)
            rows.append((f"  {METHODS[method]}", *_icc(sample, pairs, method, quantity), _published_icc(method, n)))
    note = (
        "Intraclass correlation: two-way random effects, absolute agreement, single measurement. The interval under "
        "the value is the usual one, for normally distributed scores, which publications give; it is too narrow for "
        f"scores as skewed as these, and the bootstrap interval is more reliable. A few patients with much calcium "
        f"dominate an ICC. Published: {PAPER}, 1543 patients."
    )
    return Table("icc", "Agreement of the two scans", columns, tuple(rows), note)


def _published_icc(method: str, part: int) -> str | None:
    return _PUBLISHED_ICC[method][part] if method in _PUBLISHED_ICC else None


def _artery_table(sample: Sample) -> Table:
    columns = ("Method", "Positive in either scan", "Published, all", "Positive in both", "Published, both")
    seen = [p for p in sample.pairs if all(record.visible_arteries is not None for record in p)]
    rows: list[tuple[Cell, ...]] = []
    for method in (m for m in WITH_MASS if m in sample.methods) if seen else ():
        found = []
        for title, arteries in VESSELS.items():
            pairs = [p for p in having(seen, method) if all(set(arteries) & set(r.visible_arteries) for r in p)]
            either, both = (relative_difference(sample, pairs, method, b, arteries) for b in (False, True))
            published = _PUBLISHED_ARTERIES.get(method, {}).get(title, (None, None))
            found.append((f"  {title}", either, published[0], both, published[1]))
        rows += [heading(METHODS[method], columns), *found]
    note = (
        "Mean relative difference of an artery's mass, of artery pairs with visible calcium in both scans. "
        f"Published: {PAPER}, table 3 (51 artery pairs of 34 patients)."
    )
    return Table("artery_differences", "Relative difference of mass in each artery", columns, tuple(rows), note)


def _limit_table(sample: Sample, quantity: str) -> Table:
    levels = LEVELS[AGATSTON if quantity == AGATSTON else sample.unit]
    unit = "" if quantity == AGATSTON else f" {sample.unit}"
    columns = (
        "Method",
        "Mean difference",
        "Intercept",
        "Slope",
        *(f"Limit at {level:g}{unit}" for level in levels),
        "Share within",
    )
    rows = []
    for method in (m for m in (WITH_AGATSTON if quantity == AGATSTON else WITH_MASS) if m in sample.methods):
        pairs = [p for p in having(sample.pairs, method) if pair_scores([p], method, quantity).any()]
        values, n = pair_scores(pairs, method, quantity), len(pairs)
        if n < LEAST_PAIRS:
            rows.append((METHODS[method], f"only {n} pairs", *[None] * (len(columns) - 2)))
            continue
        weights = sample.weights(pairs)
        start, slope = absolute_difference_fit(weights, values)
        change, level = values[:, 1] - values[:, 0], values.mean(1)
        within = np.abs(change) <= LIMIT_FACTOR * (start[0] + slope[0] * level)
        estimates = [mean(weights, change), start, slope, *(LIMIT_FACTOR * (start + slope * at) for at in levels)]
        proportion = sample.bootstrap.proportion([p[0].patient for p in pairs], within)
        rows.append((METHODS[method], *(estimate(values, n, n) for values in estimates), proportion))
    note = (
        "Second minus first scan, pairs positive in either. The absolute difference is modelled as intercept + "
        f"slope × mean of both scans; the 95 % limits of agreement are ± {LIMIT_FACTOR:.3f} (1.96 √(π/2)) times that, "
        "which holds for normal differences (Bland and Altman 1999). “Share within” is the proportion of pairs that "
        "lie within: near 0.95 where the model fits."
    )
    title = "Agatston score" if quantity == AGATSTON else f"mass, {sample.unit}"
    return Table(f"limits_{quantity}", f"Limits of agreement of {title}", columns, tuple(rows), note)


def _bland_altman(sample: Sample, quantity: str) -> Figure:
    panels = []
    for method in (m for m in WITH_AGATSTON if m in sample.methods):
        values = pair_scores(having(sample.pairs, method), method, quantity)
        found = limits(sample.scans, method, quantity, empirical=False)
        panels.append(study_figures.ScanPairs(method, values[:, 0], values[:, 1], found))
    unit = "Agatston" if quantity == AGATSTON else sample.unit
    title = "Agatston score" if quantity == AGATSTON else "mass"
    note = (
        "Dashed: 95 % limits of agreement that widen with the score. Axes are linear near zero and logarithmic beyond "
        "it. n counts all pairs, also those without any calcium by the method, which lie at zero."
    )
    linear = LEVELS[AGATSTON if quantity == AGATSTON else sample.unit][0]
    draw = partial(study_figures.bland_altman, panels=panels, unit=unit, linear_to=linear)
    return Figure(
        f"bland_altman_{quantity}", f"Difference of two scans' {title} against their mean", draw, note, (7, 3)
    )
