"""What the study set out to show of digital patients, and what it found: one row per goal, met or not.

The goals are the project's, set before the study; reaching them on digital patients says nothing of real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..report.parts import METHODS, Section, Table, heading, p_cell
from ..statistics.agreement import agreement_estimate, relative_differences
from ..statistics.bootstrap import Estimate, estimate, mean
from ..statistics.regression import rank_correlation
from .accuracy import SUBSETS, rank_statistic
from .categories import category_kappa
from .detection import RATES, rate, rate_statistic
from .records import StudyRecord
from .reproducibility import on_identical, positive_in_both
from .sample import AGATSTON, MASS, OWN, Sample, having, pair_scores, patients_of, scores

if TYPE_CHECKING:
    from ..report.parts import Cell

CONTROL = "slices"

RANK, ICC, KAPPA, F1, FALSE_POSITIVES, HALF, SIGNIFICANT = 0.90, 0.97, 0.85, 0.85, 0.10, 0.5, 0.05
"""Least rank correlation, ICC, κ and F1; most false positives, ratio to the automatic method's difference, and p."""


def sections(records: Sequence[StudyRecord], generator: np.random.Generator) -> tuple[Section, ...]:
    """One section, where the truth and the map's scores are known; else none. Raises MixedUnitsError."""
    sample = Sample(records, generator)
    scans = [r for r in having(sample.scans, OWN) if r.truth is not None and r.visible is not None]
    if not scans or not having(sample.pairs, OWN):
        return ()
    columns = ("Goal", "Found", "p", "Met")
    rows = [*_accuracy(sample, scans), *_repeating(sample), *_detecting(sample, scans)]
    control = _control(sample, scans)
    if control:
        rows += [heading(f"Better than “{METHODS[CONTROL]}”: the map minus the control", columns), *control]
    met = sum(row[-1] == "yes" for row in rows)
    evaluated = sum(row[-1] in ("yes", "no") for row in rows)
    missed = [str(row[0]).strip() for row in rows if row[-1] == "no"]
    text = [
        sample.opening(),
        f"{met} of {evaluated} goals were met." + (f" Missed: {'; '.join(missed)}." if missed else ""),
    ]
    note = (
        "A numeric goal is met when the value itself reaches it, whatever its interval; a goal that compares two "
        "methods is met when the 95 % interval of their difference excludes zero in the required direction."
    )
    table = Table("goals", "Goals and results", columns, tuple(rows), note)
    return (Section("goals", "Goals set before the study", tuple(text), (table,)),)


def _row(title: str, found: Estimate, met: bool, p: float | None = None) -> tuple[Cell, ...]:
    shown = None if p is None else p_cell(p)
    return (title, found, shown, "not defined" if np.isnan(found.value) else "yes" if met else "no")


def _accuracy(sample: Sample, scans: Sequence[StudyRecord]) -> list[tuple[Cell, ...]]:
    true = np.array([record.truth.mass_mg for record in scans])
    drawn = rank_correlation(sample.weights(scans), scores(scans, OWN), true)
    found = estimate(drawn, len(scans), len(set(patients_of(scans))))
    rows = [_row(f"Rank correlation with true mass, all scans: at least {RANK:.2f}", found, found.value >= RANK)]
    own = having(scans, OWN, "reader")
    if own:
        change = sample.compare(own, rank_statistic(own), "reader")[2]
        title = f"… and above “{METHODS['reader']}”: difference above zero"
        rows.append(_row(title, change.estimate, change.estimate.low > 0, change.p))
    return rows


def _repeating(sample: Sample) -> list[tuple[Cell, ...]]:
    rows = []
    if "reader" in sample.methods:
        change = on_identical(sample, "reader")[3]
        title = (
            f"Relative difference of mass on identical pairs, minus that of “{METHODS['reader']}”: below zero, p < 0.05"
        )
        rows.append(_row(title, change.estimate, change.estimate.value < 0 and change.p < SIGNIFICANT, change.p))
    if "automatic" in sample.methods:
        pairs = positive_in_both(sample.pairs, OWN, "automatic")
        weights = sample.weights(pairs)
        own, other = (mean(weights, relative_differences(pair_scores(pairs, m))) for m in (OWN, "automatic"))
        with np.errstate(invalid="ignore", divide="ignore"):
            proportion = estimate(own / other, len(pairs), len(pairs))
        title = (
            f"Relative difference of mass on identical pairs, divided by that of “{METHODS['automatic']}”: at "
            f"most {HALF}"
        )
        rows.append(_row(title, proportion, proportion.value <= HALF))
    pairs = having(sample.pairs, OWN)
    for quantity, name in ((MASS, "mass"), (AGATSTON, "Agatston score")):
        icc = agreement_estimate(pair_scores(pairs, OWN, quantity))
        rows.append(_row(f"ICC of {name}, all pairs: at least {ICC}", icc, icc.value >= ICC))
    found = category_kappa(pairs, OWN)
    return [*rows, _row(f"κ of risk categories: at least {KAPPA}", found, found.value >= KAPPA)]


def _detecting(sample: Sample, scans: Sequence[StudyRecord]) -> list[tuple[Cell, ...]]:
    above, true = scores(scans, OWN) > 0, np.array([bool(record.visible) for record in scans])
    f1 = rate(sample, patients_of(scans), above, true, "F1")
    rows = [_row(f"F1 of scans with visible calcium: at least {F1}", f1, f1.value >= F1)]
    for kind, name in (("distractor", "other calcium or metal only"), ("clean", "no calcium")):
        own = [record for record in scans if record.kind == kind]
        if own:
            found = sample.bootstrap.proportion(patients_of(own), scores(own, OWN) > 0)
            title = f"Scans with {name} that score above zero: at most {FALSE_POSITIVES:.2f}"
            rows.append(_row(title, found, found.value <= FALSE_POSITIVES))
    return rows


def _control(sample: Sample, scans: Sequence[StudyRecord]) -> list[tuple[Cell, ...]]:
    rows = []
    known = having(scans, OWN, CONTROL)
    for title, belongs in SUBSETS.items() if known else ():
        own = [record for record in known if belongs(record)]
        if own:
            change = sample.compare(own, rank_statistic(own), CONTROL)[2]
            name = f"  Rank correlation with true mass, {title[0].lower()}{title[1:]}"
            rows.append(_row(name, change.estimate, change.estimate.low > 0, change.p))
    for name in RATES if known else ():
        change = sample.compare(known, rate_statistic(known, name), CONTROL)[2]
        better = change.estimate.high < 0 if name == "False positives" else change.estimate.low > 0
        rows.append(_row(f"  {name} of scans", change.estimate, better, change.p))
    return rows
