"""Section on a calibration: cross-fitted agreement and intervals before and after, and the fitted parts."""

from __future__ import annotations

import math

import numpy as np

from ..evaluation.measures import Comparison, Measure, long_table, mean_difference, mean_value, value_row
from ..evaluation.parts import METHODS, Cell, Section, Table, count
from ..statistics.agreement import Statistic, icc, slope
from ..statistics.patient_folds import CATEGORY_TITLES
from ..training.fits import FOLDS, FORMER_SCANS
from .agreement import LEAST, categories, category_kappa, f1_at
from .recalibration import KINDS, MIN_PATIENTS, Recalibration

NAME, TITLE = "calibration", "Calibration on these scans"

MEASURES: dict[str, Statistic] = {
    "ICC of totals": icc,
    "Slope": slope,
    "Mean difference": mean_difference,
    "κ of categories": category_kappa,
    **{f"F1 at ≥ {least}": f1_at(least) for least in LEAST},
}


def refused_section(reason: str) -> Section:
    """Section with the reason why nothing was calibrated."""
    return Section(NAME, TITLE, (f"Nothing was calibrated or stored. {reason}",))


def section(result: Recalibration, name: str, base: str) -> Section:
    """Section on a calibration stored as the model `name`, fitted from the model `base`."""
    scans = f"{count(result.scans, 'scan')} of {count(result.patients, 'patient')}"
    weights = f"stay: {result.why_not}" if result.why_not else "were fitted too."
    text = (
        f"“Before” is {base}, as the other sections have it. “After” is cross-fitted: the patients were split into "
        f"{FOLDS} folds, and each scan was evaluated by what the patients of the other folds taught, so that its own "
        f"reference has no part in its score and interval. What is stored was fitted to all {scans}, and was not "
        "evaluated on others.",
        "Fitted: errors of scores, and the range of scans that are known; other scans get wider intervals, or none. "
        f"The candidates' probabilities {weights} The former errors count as {FORMER_SCANS} further scans. Those of "
        f"arteries stay without LM, LAD, LCX and RCA of {MIN_PATIENTS} patients. Networks and the evidence of the "
        "map's lesions stay.",
        f"It is stored as the model {name}. Score with it by “cac score --model {name}” or “cac cohort --model "
        f"{name}”. Without that, {base} scores as before; “cac models install {name} --previous” takes {name} away.",
    )
    tables = (_agreement(result), _intervals(result))
    return Section(NAME, TITLE, text, tables)


def _agreement(result: Recalibration) -> Table:
    rows = []
    for scan, crossed in zip(result.scans, result.cross_fitted, strict=True):
        place, former = int(categories(np.array([scan.total]))[0]), scan.candidates and scan.candidates.probabilities
        for method, probabilities, score in (
            ("before", former, scan.measured["automatic"]),
            ("after", crossed.probabilities, crossed.automatic),
        ):
            probability = [*probabilities.values()][place] if probabilities else math.nan
            rows.append(value_row(scan, method, score, scan.total, probability=probability))
    table = long_table(rows, ("probability",))
    measures = [Measure(title, statistic, table) for title, statistic in MEASURES.items()]
    likely = table[table.probability.notna()]
    if likely.groupby("scan").size().gt(1).any():
        likely = likely.assign(value=likely.probability)
        measures.append(Measure("Mean probability of the true category", mean_value, likely))
    titles = {"before": "Before", "after": "After"}
    comparison = Comparison([scan.patient for scan in result.scans], titles, np.random.default_rng(0))
    note = (
        f"{METHODS['automatic']} against the reference, on the same scans. Differences are after minus before; slope 1 "
        "and differences of 0 are best. The calcium map's own scores are not changed by a calibration."
    )
    columns = ("Measure", "After, cross-fitted", "Before", "Difference", "p")
    lines = comparison.paired_rows(measures, "after", "before")
    return Table("calibration_agreement", "Agreement before and after", columns, tuple(lines), note)


def _coverage(result: Recalibration, method: str, place: int | None, after: bool) -> tuple[int, int, int]:
    """Number of intervals that hold the reference, of intervals, and of scans.

    Args:
        result: The calibration.
        method: Key of the method.
        place: Index of the reference's category; None for all scans.
        after: True for cross-fitted intervals, False for recorded ones.
    """
    cases = zip(result.scans, result.cross_fitted, strict=True)
    group = [case for case in cases if place is None or categories(np.array([case[0].total])) == place]
    recorded = [{} if scan.candidates is None else scan.candidates.intervals for scan, _ in group]
    intervals = [crossed.intervals[method] for _, crossed in group] if after else [x.get(method) for x in recorded]
    limits = [(scan.total, ends) for (scan, _), ends in zip(group, intervals, strict=True) if ends]
    held = sum(low <= total <= high for total, (low, high) in limits)
    return held, len(limits), len(group)


def _intervals(result: Recalibration) -> Table:
    variants = [(method, after) for method in KINDS for after in (False, True)]
    columns = tuple(f"{METHODS[method]}, {'after' if after else 'before'}" for method, after in variants)
    rows: list[tuple[Cell, ...]] = []
    for place, title in [*enumerate(CATEGORY_TITLES), (None, "all")]:
        results = [_coverage(result, method, place, after) for method, after in variants]
        cells = (f"{held} of {total}" if total else "none" for held, total, _ in results)
        rows.append((title, results[0][2], *cells))
    note = (
        "How many 90 % intervals of totals hold the reference's score, of how many that are given; by its category. "
        "Intervals before are for the score that a still scan without noise would give, those after for the score that "
        "the reference's readers give. Intervals are withheld where a scan is unlike those of the calibration."
    )
    title = "Intervals before and after"
    return Table("calibration_intervals", title, ("Reference", "Scans", *columns), tuple(rows), note)
