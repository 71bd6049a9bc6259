"""Accuracy study: every method against the true calcium mass of digital patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ..evaluation import figures as study_figures
from ..evaluation.measures import Measure, patients_of
from ..evaluation.parts import Figure, Section, Table, count
from ..statistics.bootstrap import mean, ratio
from ..statistics.regression import correlation, linear_fit, rank_correlation
from .records import MG, StudyRecord, Truth
from .sample import VESSELS, WITH_MASS, Sample, having, scores

SUBSETS: dict[str, Callable[[Truth], bool]] = {
    "All scans": lambda truth: True,
    "With coronary calcium": lambda truth: truth.mass_mg > 0,
    "With other calcium or metal": lambda truth: bool(truth.distractors),
    "Without other calcium or metal": lambda truth: not truth.distractors,
}
"""Groups of scans for a rank correlation. The third tests if a method separates coronary from other calcium."""


def sections(sample: Sample) -> tuple[Section, ...]:
    """Section on accuracy; empty if no truth is known."""
    scans = [record for record in sample.scans if record.truth is not None]
    if not scans:
        return ()
    kinds = Counter(record.kind for record in scans)
    ranks = [rank_measure(scans, subset) for subset in SUBSETS]
    text = (
        f"The true mass is known of {count(scans, 'scan')} of {count(set(patients_of(scans)), 'patient')}: "
        f"{kinds['visible']} with visible coronary calcium, {kinds['hidden']} with coronary calcium that no slice "
        f"shows, {kinds['distractor']} with other calcium or metal only, {kinds['clean']} with none. Both scans of a "
        "patient count, with one true mass; intervals are over patients.",
    )
    tables = [
        sample.value_table(
            "rank_correlation",
            "Rank correlation with true mass",
            ranks,
            "Spearman's rank correlation of a scan's score with the patient's true coronary calcium mass. The ceiling "
            "is free of noise and of errors of detection, but not of motion and the scanner's blur.",
        ),
        sample.difference_table(
            "rank_differences", "Rank correlation with true mass: the calcium map against others", ranks
        ),
        sample.value_table(
            "rank_correlation_arteries",
            "Rank correlation of an artery's mass with its true mass",
            [rank_measure(scans, "All scans", title) for title in VESSELS],
        ),
    ]
    if sample.unit == MG:
        tables += _error_tables(sample, scans)
    figures = (_scatter(sample, scans),) if sample.unit == MG else ()
    return (Section("against_truth", "Accuracy against true mass", text, tuple(tables), figures),)


def rank_measure(scans: Sequence[StudyRecord], subset: str = "All scans", vessel: str | None = None) -> Measure:
    """Rank correlation with true mass.

    Args:
        scans: Records with truth.
        subset: Key of SUBSETS.
        vessel: Key of VESSELS; None for the whole heart.
    """
    arteries = None if vessel is None else VESSELS[vessel]

    def statistic(weights: np.ndarray, records: Sequence[StudyRecord], method: str) -> np.ndarray:
        return rank_correlation(weights, scores(records, method, arteries=arteries), _true(records, arteries))

    members = [record for record in scans if record.truth is not None and SUBSETS[subset](record.truth)]
    methods = None if vessel is None else WITH_MASS
    return Measure(vessel or subset, partial(having, members), statistic, methods=methods)


def _true(scans: Sequence[StudyRecord], arteries: Sequence[str] | None = None) -> np.ndarray:
    truths = [record.truth for record in scans if record.truth is not None]
    if arteries is None:
        return np.array([truth.mass_mg for truth in truths])
    return np.array([sum((truth.arteries_mg.get(a, 0.0) for a in arteries), 0.0) for truth in truths])


def _error_tables(sample: Sample, scans: Sequence[StudyRecord]) -> list[Table]:
    def measure(title: str, group: list[StudyRecord], statistic: Callable[..., np.ndarray]) -> Measure:
        """Measure of a group by a statistic of weights, true and measured masses."""
        items = partial(having, group)
        return Measure(title, items, lambda w, r, m: statistic(w, _true(r), scores(r, m)), methods=WITH_MASS)

    sick = [record for record in scans if record.truth is not None and record.truth.mass_mg > 0]
    errors = (
        measure("Measured / true mass", sick, lambda w, true, measured: ratio(w, measured, true)),
        measure("Mean error, mg", sick, lambda w, true, measured: mean(w, measured - true)),
        measure("Slope", sick, lambda w, true, measured: linear_fit(w, true, measured)[0]),
        measure("Intercept, mg", sick, lambda w, true, measured: linear_fit(w, true, measured)[1]),
        measure("Linear correlation", sick, correlation),
    )
    kinds = {"distractor": "Other calcium or metal only, mg", "clean": "No calcium, mg"}
    wrong = [
        measure(title, [record for record in scans if record.kind == kind], lambda w, _, measured: mean(w, measured))
        for kind, title in kinds.items()
    ]
    note = "Scans with coronary calcium. The least-squares line is dominated by a few large masses."
    wrong_note = "Mean mass that a method measures per scan where there is no coronary calcium at all."
    return [
        sample.value_table("mass_errors", "Measured against true mass", errors, note),
        sample.value_table("wrong_mass", "Mass measured without coronary calcium", wrong, wrong_note),
    ]


def _scatter(sample: Sample, scans: Sequence[StudyRecord]) -> Figure:
    panels = []
    for method in (m for m in WITH_MASS if m in sample.titles):
        records = having(scans, method)
        has_distractors = [bool(record.truth and record.truth.distractors) for record in records]
        panels.append(study_figures.ScorePairs(method, _true(records), scores(records, method), None, has_distractors))
    draw = partial(study_figures.against_truth, panels=panels, unit=MG, linear_to=1.0)
    note = "Axes are logarithmic beyond 1 mg. Open marks: other calcium or metal is in the scan as well."
    return Figure("found_and_true_mass", "Measured against true mass of each scan", draw, note, (7, 2.6))
