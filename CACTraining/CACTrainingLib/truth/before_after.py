"""Comparison of two evaluations on one reference: the scores before and after a change of models, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError, WrongValueError
from CACScoringLib.models.cards import VERDICT
from CACScoringLib.statistics.agreement import Statistic, icc
from CACScoringLib.statistics.bootstrap import Estimate

from ..evaluation.jobs import kept_results
from ..evaluation.measures import ExperimentComparison, Measure, long_table, mean_absolute_difference, value_row
from ..evaluation.parts import METHODS, Cell, Section, count, heading
from .agreement import TEXTS, ComparedScans, category_kappa, f1_at
from .records import ComparedScan

SAME_TOTAL = 0.5
"""Largest difference of a scan's reference score in the two evaluations."""

MEASURES: dict[str, tuple[Statistic, int]] = {
    "κ of categories": (category_kappa, 1),
    "Mean absolute difference": (mean_absolute_difference, -1),
    "ICC of totals": (icc, 1),
    "F1 at ≥ 1": (f1_at(1), 1),
}
"""Statistic, and 1 if a higher value is better, else -1, by title; the first comes first in the sentence."""

COLUMNS = ("Measure", "After", "Before", "Difference", "p", "After is")


def earlier_scans(records: Path) -> dict[str, ComparedScan]:
    """Read the scans of an earlier evaluation by name. Raises CTError if there are none, or of another version."""
    try:
        scans = [restore(result, ComparedScan) for result in kept_results(records).values()]
    except (OSError, WrongValueError) as error:
        raise CTError(f"{records.parent} cannot be compared with: {error}. Evaluate it again.") from error
    if not scans:
        raise CTError(f"{records.parent} is no finished cac evaluate. Give its --output with the models before.")
    return {scan.name: scan for scan in scans}


def section(former: dict[str, ComparedScan], compared: ComparedScans, seed: int) -> Section:
    """Section on the scans that both evaluations have.

    Raises CTError if they have none in common, scored with the same models or compared with other reference scores.
    """
    pairs = [(former[scan.name], scan) for scan in compared.scans if scan.name in former]
    if not pairs:
        raise CTError("The earlier evaluation has none of these scans. Give one of the same reference.")
    changed = [scan.name for before, scan in pairs if abs(before.reference_total - scan.reference_total) > SAME_TOTAL]
    if changed:
        raise CTError(f"The reference of {changed[0]} is not that of the earlier evaluation. Evaluate it again.")
    if all(set(before.facts.models) == set(scan.facts.models) for before, scan in pairs):
        raise CTError("Both evaluations used the same models. Name others with --model.")
    rows: list[tuple[Cell, ...]] = []
    sentences = []
    patients = len({scan.patient for _, scan in pairs})
    for method in compared.methods:
        if all(method in before.values for before, _ in pairs):
            lines = _rows(pairs, method, seed)
            rows += [heading(METHODS[method], COLUMNS), *lines]
            scans = f"n = {count(pairs, 'scan')} of {count(patients, 'patient')}"
            sentences.append(f"{METHODS[method]}, after against before: {_summary(lines)} ({scans}).")
    models = (_model_names([scan for scan, _ in pairs]), _model_names([scan for _, scan in pairs]))
    about = f"Before: {models[0]}. After: {models[1]}. Read this before you install a model."
    table = TEXTS.table("before_after", COLUMNS, rows)
    return Section(VERDICT, "Before and after", (*sentences, about), (table,))


def _rows(pairs: Sequence[tuple[ComparedScan, ComparedScan]], method: str, seed: int) -> list[tuple[Cell, ...]]:
    values = [
        value_row(scan, time, version.measured(method), scan.reference_total)
        for before, scan in pairs
        for time, version in (("before", before), ("after", scan))
    ]
    table = long_table(values)
    measures = [Measure(title, statistic, table) for title, (statistic, _) in MEASURES.items()]
    patients = [scan.patient for _, scan in pairs]
    comparison = ExperimentComparison(patients, {"before": "Before", "after": "After"}, np.random.default_rng(seed))
    rows = comparison.paired_rows(measures, "after", "before")
    return [
        (f"  {row[0]}", *row[1:], _verdict(row[3], sign))
        for row, (_, sign) in zip(rows, MEASURES.values(), strict=True)
    ]


def _summary(rows: Sequence[tuple[Cell, ...]]) -> str:
    """Name the verdict by the first measure, and the others that are decided."""
    verdicts = {str(row[0]).strip().replace("Mean", "mean"): str(row[-1]) for row in rows}
    first = next(iter(verdicts))
    titles: dict[str, list[str]] = {}
    for title, verdict in verdicts.items():
        if title == first or verdict != "undecided":
            titles.setdefault(verdict, []).append(title)
    return "; ".join(f"{verdict} by {', '.join(names)}" for verdict, names in titles.items())


def _verdict(difference: Cell, sign: int) -> str:
    """Return whether a difference is for the better. sign: 1 if a higher value is better."""
    assert isinstance(difference, Estimate)
    if math.isnan(difference.low) or difference.low <= 0 <= difference.high:
        return "undecided"
    return "better" if sign * difference.value > 0 else "worse"


def _model_names(scans: Sequence[ComparedScan]) -> str:
    return ", ".join(sorted({model.name for scan in scans for model in scan.facts.models})) or "no network"
