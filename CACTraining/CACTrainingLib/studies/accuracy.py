"""Does a score follow the calcium that is truly there? Every method against the true mass of digital patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..report import figures as study_figures
from ..report.parts import METHODS, Figure, Section, Table, count, heading, p_cell
from ..statistics.agreement import LIMIT_FACTOR, absolute_difference_fit
from ..statistics.bootstrap import Estimate, estimate, mean, ratio
from ..statistics.regression import correlation, linear_fit, rank_correlation
from .records import MG, StudyRecord
from .sample import HIGHER, LOWER, OWN, VESSELS, WITH_MASS, Sample, compared, having, patients_of, scores

if TYPE_CHECKING:
    from ..report.parts import Cell

SUBSETS: dict[str, Callable[[StudyRecord], bool]] = {
    "All scans": lambda record: True,
    "With coronary calcium": lambda record: record.truth.mass_mg > 0,
    "With other calcium or metal": lambda record: bool(record.truth.distractors),
    "Without other calcium or metal": lambda record: not record.truth.distractors,
}
"""Which scans a rank correlation is of. The third decides whether a method can tell coronary calcium from the rest."""
LEVELS_MG = (3.0, 10.0, 30.0)


def sections(sample: Sample) -> tuple[Section, ...]:
    """One section; none where no truth is known."""
    scans = [record for record in sample.scans if record.truth is not None]
    if not scans:
        return ()
    visible = count([r for r in scans if r.kind == "visible"], "scan")
    text = [
        f"The true mass is known of {count(scans, 'scan')} of {count(set(patients_of(scans)), 'patient')}: {visible} "
        f"with visible coronary calcium, {_number(scans, 'hidden')} with coronary calcium that no slice shows, "
        f"{_number(scans, 'distractor')} with other calcium or metal only, {_number(scans, 'clean')} with none. A "
        "score that follows the true mass ranks patients correctly, whatever its scale. Both scans of a patient "
        "count, with one true mass; intervals are over patients.",
    ]
    tables = [_rank_table(sample, scans)]
    if OWN in sample.methods and sample.comparators():
        tables.append(_rank_difference_table(sample, scans))
        text += _rank_text(sample, scans)
    tables.append(_artery_table(sample, scans))
    in_mg = sample.unit == MG
    if in_mg:
        tables += [_error_table(sample, scans), _wrong_mass_table(sample, scans)]
    figures = (_scatter(sample, scans),) if in_mg else ()
    return (Section("against_truth", "Accuracy against true mass", tuple(text), tuple(tables), figures),)


def _number(scans: Sequence[StudyRecord], kind: str) -> int:
    return sum(record.kind == kind for record in scans)


def _true(scans: Sequence[StudyRecord]) -> np.ndarray:
    return np.array([record.truth.mass_mg for record in scans])


def _estimate(scans: Sequence[StudyRecord], values: np.ndarray) -> Estimate:
    return estimate(values, len(scans), len(set(patients_of(scans))))


def _rank_table(sample: Sample, scans: Sequence[StudyRecord]) -> Table:
    rows = []
    for method in sample.methods:
        found = []
        for belongs in SUBSETS.values():
            own = [record for record in having(scans, method) if belongs(record)]
            drawn = rank_correlation(sample.weights(own), scores(own, method), _true(own))
            found.append(_estimate(own, drawn))
        rows.append((METHODS[method], *found))
    note = (
        "Spearman's rank correlation of a scan's score with the patient's true coronary calcium mass. The ceiling "
        "is free of noise and of errors of detection, but not of motion and the scanner's blur."
    )
    return Table("rank_correlation", "Rank correlation with true mass", ("Method", *SUBSETS), tuple(rows), note)


def rank_statistic(scans: Sequence[StudyRecord]) -> Callable[[np.ndarray, str], np.ndarray]:
    """Of weights and a method: its rank correlation with true mass over these scans."""
    return lambda weights, method: rank_correlation(weights, scores(scans, method), _true(scans))


def _rank_difference_table(sample: Sample, scans: Sequence[StudyRecord]) -> Table:
    columns = ("Compared with", "Scans", "Calcium map", "The other", "Difference", "p")
    rows: list[tuple[Cell, ...]] = []
    for title, belongs in SUBSETS.items():
        rows.append(heading(title, columns))
        for comparator in sample.comparators():
            own = [record for record in having(scans, OWN, comparator) if belongs(record)]
            mine, other, change = sample.compare(own, rank_statistic(own), comparator)
            rows.append((f"  {METHODS[comparator]}", len(own), mine, other, change.estimate, p_cell(change.p)))
    note = (
        "Rank correlation of the calcium map minus that of the other method, on the same scans; above zero is better."
    )
    title = "Rank correlation with true mass: the calcium map against each other method"
    return Table("rank_differences", title, columns, tuple(rows), note)


def _rank_text(sample: Sample, scans: Sequence[StudyRecord]) -> list[str]:
    said = []
    for comparator in sample.comparators():
        own = having(scans, OWN, comparator)
        mine, other, change = sample.compare(own, rank_statistic(own), comparator)
        said.append(f"{mine:.2f} against {other:.2f} of “{METHODS[comparator]}”, {compared(change, LOWER, HIGHER)}")
    opening = f"Over all scans (n = {len(scans)}) the rank correlation of the calcium map with true mass was"
    return [f"{opening} {'; '.join(said)}."]


def _artery_table(sample: Sample, scans: Sequence[StudyRecord]) -> Table:
    methods = [m for m in WITH_MASS if m in sample.methods]
    rows = []
    for title, arteries in VESSELS.items():
        found = []
        for method in methods:
            own = having(scans, method)
            true = np.array([sum(record.truth.arteries_mg.get(a, 0.0) for a in arteries) for record in own])
            drawn = rank_correlation(sample.weights(own), scores(own, method, arteries=arteries), true)
            found.append(_estimate(own, drawn))
        rows.append((title, *found))
    columns = ("Artery", *(METHODS[m] for m in methods))
    note = "Rank correlation of an artery's measured mass with its true mass, all scans."
    return Table("rank_correlation_arteries", "Rank correlation in each artery", columns, tuple(rows), note)


def _error_table(sample: Sample, scans: Sequence[StudyRecord]) -> Table:
    columns = (
        "Method",
        "Mass found / true",
        "Mean error, mg",
        "Slope",
        "Intercept, mg",
        "Linear correlation",
        *(f"Limit at {level:g} mg" for level in LEVELS_MG),
    )
    rows = []
    for method in (m for m in WITH_MASS if m in sample.methods):
        own = [record for record in having(scans, method) if record.truth.mass_mg > 0]
        weights, true, found = sample.weights(own), _true(own), scores(own, method)
        slope, start = linear_fit(weights, true, found)
        base, growth = absolute_difference_fit(weights, np.stack([true, found], axis=1))
        drawn = [ratio(weights, found, true), mean(weights, found - true), slope, start]
        drawn += [correlation(weights, true, found)]
        drawn += [LIMIT_FACTOR * (base + growth * level) for level in LEVELS_MG]
        rows.append((METHODS[method], *(_estimate(own, values) for values in drawn)))
    note = (
        f"Scans with coronary calcium. Slope and intercept are of the least-squares fit of found on true mass, "
        f"which a few large masses dominate. Limits: 95 % of the differences between found and true mass lie within ± "
        f"this value where their mean is at the level ({LIMIT_FACTOR:.3f} times the regression of the absolute "
        "difference on the mean), assuming no bias."
    )
    return Table("mass_errors", "Found against true mass", columns, tuple(rows), note)


def _wrong_mass_table(sample: Sample, scans: Sequence[StudyRecord]) -> Table:
    kinds = {"distractor": "Other calcium or metal only", "clean": "No calcium"}
    rows = []
    for method in (m for m in WITH_MASS if m in sample.methods):
        found = []
        for kind in kinds:
            own = [record for record in having(scans, method) if record.kind == kind]
            found.append(_estimate(own, mean(sample.weights(own), scores(own, method))))
        rows.append((METHODS[method], *found))
    columns = ("Method", *(f"{title}, mg" for title in kinds.values()))
    note = "Mean mass that a method finds per scan where there is no coronary calcium at all."
    return Table("wrong_mass", "Mass found without coronary calcium", columns, tuple(rows), note)


def _scatter(sample: Sample, scans: Sequence[StudyRecord]) -> Figure:
    panels = []
    for method in (m for m in WITH_MASS if m in sample.methods):
        own = having(scans, method)
        other = [bool(record.truth.distractors) for record in own]
        panels.append(study_figures.AgainstTruth(method, _true(own), scores(own, method), other))
    draw = partial(study_figures.against_truth, panels=panels, unit=MG, linear_to=1.0)
    note = (
        "Axes are linear below 1 mg and logarithmic beyond. Open marks: other calcium or metal is in the scan as well."
    )
    return Figure("found_and_true_mass", "Found against true mass of each scan", draw, note, (7, 2.6))
