"""Accuracy study: every method against the true calcium mass of digital patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from ..evaluation import figures as study_figures
from ..evaluation.measures import Measure, mean_difference, mean_value, value_over_truth
from ..evaluation.parts import Figure, Section, Table, count
from ..statistics.agreement import Statistic
from ..statistics.regression import correlation, linear_fit, rank_correlation, slope
from .records import MG
from .sample import VESSELS, WITH_MASS, Sample, score_table

SUBSETS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "All scans": lambda rows: rows.index >= 0,
    "With coronary calcium": lambda rows: rows.truth > 0,
    "With other calcium or metal": lambda rows: rows.distractors,
    "Without other calcium or metal": lambda rows: ~rows.distractors,
}
"""Groups of scans for a rank correlation. The third tests if a method separates coronary from other calcium."""


def sections(sample: Sample) -> tuple[Section, ...]:
    """Section on accuracy; empty if no truth is known."""
    scans = [record for record in sample.scans if record.truth is not None]
    if not scans:
        return ()
    kinds = Counter(record.kind for record in scans)
    in_arteries = score_table(scans, vessels=VESSELS)
    rows = score_table(scans)
    ranks = [Measure(title, rank_correlation, rows[among(rows)]) for title, among in SUBSETS.items()]
    text = (
        f"The true mass is known of {count(scans, 'scan')} of {count({scan.patient for scan in scans}, 'patient')}: "
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
            [
                Measure(title, rank_correlation, in_arteries[in_arteries.item == title], methods=WITH_MASS)
                for title in VESSELS
            ],
        ),
    ]
    if sample.unit == MG:
        tables += _error_tables(sample, rows)
    figures = (_scatter(sample, rows),) if sample.unit == MG else ()
    return (Section("against_truth", "Accuracy against true mass", text, tuple(tables), figures),)


def _error_tables(sample: Sample, rows: pd.DataFrame) -> list[Table]:
    with_calcium = rows[rows.truth > 0]
    statistics: dict[str, Statistic] = {
        "Measured / true mass": value_over_truth,
        "Mean error, mg": mean_difference,
        "Slope": slope,
        "Intercept, mg": lambda *values: linear_fit(*values)[1],
        "Linear correlation": correlation,
    }
    errors = [Measure(title, statistic, with_calcium, methods=WITH_MASS) for title, statistic in statistics.items()]
    kinds = {"distractor": "Other calcium or metal only, mg", "clean": "No calcium, mg"}
    wrong = [Measure(title, mean_value, rows[rows.kind == kind], methods=WITH_MASS) for kind, title in kinds.items()]
    note = "Scans with coronary calcium. The least-squares line is dominated by a few large masses."
    wrong_note = "Mean mass that a method measures per scan where there is no coronary calcium at all."
    return [
        sample.value_table("mass_errors", "Measured against true mass", errors, note),
        sample.value_table("wrong_mass", "Mass measured without coronary calcium", wrong, wrong_note),
    ]


def _scatter(sample: Sample, rows: pd.DataFrame) -> Figure:
    panels = study_figures.score_pairs(rows, [method for method in WITH_MASS if method in sample.titles])
    draw = partial(study_figures.against_truth, panels=panels, unit=MG, linear_to=1.0)
    note = "Axes are logarithmic beyond 1 mg. Open marks: other calcium or metal is in the scan as well."
    return Figure("found_and_true_mass", "Measured against true mass of each scan", draw, note, (7, 2.6))
