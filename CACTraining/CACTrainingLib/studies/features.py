"""Study of how far the features of calcium repeat in a second scan of the same patient.

A feature that needs calcium is compared in pairs where both scans have it. It may be used from the lowest Agatston
score from which its ICC is good: its lower limit reaches GOOD_ICC (Koo and Li 2016, doi:10.1016/j.jcm.2016.02.012).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from CACScoringLib.record.features import PATIENT_FEATURES
from CACScoringLib.record.reading import read_result
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.results import METHOD_TITLES

from ..evaluation.measures import Comparison, Measure, long_table, value_row
from ..evaluation.parts import Cell, Section, Table
from ..statistics.agreement import icc
from ..statistics.bootstrap import mean
from .records import StudyRecord, pairs_of

LEVELS = (1.0, 10.0, 100.0)
"""Lowest mean Agatston score of the pairs, by the method itself."""
GOOD_ICC = 0.75
DETECTABLE_FACTOR = 1.96 * math.sqrt(2)
"""Smallest detectable change over the within-patient standard deviation."""

SCORES = ("agatston", "volume_mm3", "pseudo_mass_hu_mm3", "lesions")
"""Scores that the features are listed with."""

_TITLE = "Repeatability of the features of calcium"


def sections(
    records: Sequence[StudyRecord], folders: Sequence[Path | str], generator: np.random.Generator
) -> tuple[Section, ...]:
    """Return the section on features.

    Args:
        records: Record of each scan.
        folders: Folder of each scan's results, or the reason why it has none.
        generator: Source of the bootstrap's draws.
    """
    places = {record.scan: folder for record, folder in zip(records, folders, strict=True)}
    pairs = pairs_of(records)
    results = {record.scan: read_result(places[record.scan]) for pair in pairs for record in pair}
    values = long_table(
        (row for first, second in pairs for row in _rows(first, results[first.scan], results[second.scan])),
        ("method_key", "agatston"),
    )
    text = (
        f"{len(pairs)} pairs of scans. Intervals are 95 % percentile intervals of resamples of patients. A feature may "
        f"be used from the lowest Agatston score from which the lower limit of its ICC is {GOOD_ICC} or more. No "
        "outcomes are known here, so nothing is said about risk.",
    )
    tables = [
        table
        for key in METHOD_TITLES
        if len(part := values[values.method_key == key])
        for table in _tables(key, part, generator)
    ]
    return (Section("features", _TITLE, text, tuple(tables), values=(values,)),)


def _rows(record: StudyRecord, first: ScoreRecord, second: ScoreRecord) -> list[dict[str, object]]:
    """Return a row per method and feature: the first scan's value as truth, the second's as value."""
    rows = []
    for key in first.methods.keys() & second.methods.keys():
        scans = [_values(scan, key) for scan in (first, second)]
        agatston = np.mean([scan["agatston"] for scan in scans])
        for name in scans[0].keys() & scans[1].keys():
            before, after = (scan[name] for scan in scans)
            if before is not None and after is not None:
                about = {"method_key": key, "agatston": agatston}
                rows.append(value_row(record, name, float(after), float(before), item=key, **about))
    return rows


def _values(record: ScoreRecord, key: str) -> Mapping[str, float | None]:
    method = record.methods[key]
    features = {} if method.features is None else method.features.patient
    scores = {name: getattr(method.total, name) for name in SCORES}
    return {**scores, "agatston": method.total.clinical_agatston, **features}


def _tables(key: str, values: pd.DataFrame, generator: np.random.Generator) -> list[Table]:
    names = [name for name in (*SCORES, *PATIENT_FEATURES) if (values.method == name).any()]
    comparison = Comparison(values.patient.unique(), {name: name for name in names}, generator)
    measures = [
        Measure("ICC", icc, values),
        Measure("Within-patient coefficient of variation", _variation, values),
        Measure("Smallest detectable change", _detectable_change, values),
    ]
    note = "Within-patient standard deviation over the mean; 1.96 √2 times that standard deviation."
    title = f"{METHOD_TITLES[key]}: features of two scans of a patient"
    tables = [comparison.value_table(f"features_{key}", title, measures, note)]
    by_level = [Measure(f"ICC from Agatston {n:g}", icc, values[values.agatston >= n]) for n in LEVELS]
    rows = [_level_row(comparison, name, by_level) for name in names]
    columns = ("Feature", *(measure.title for measure in by_level), "May be used from Agatston")
    title = f"{METHOD_TITLES[key]}: features by score"
    return [*tables, Table(f"features_by_score_{key}", title, columns, tuple(rows))]


def _level_row(comparison: Comparison, name: str, by_level: Sequence[Measure]) -> tuple[Cell, ...]:
    estimates = [comparison.estimate(m, name) if len(m.rows_of(name)) else None for m in by_level]
    good = [n for n, e in zip(LEVELS, estimates, strict=True) if e is not None and e.low >= GOOD_ICC]
    return (name, *estimates, f"{good[0]:g}" if good else "not shown")


def _within_patient_sd(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.sqrt(mean(weights, (second - first) ** 2 / 2))


def _variation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the within-patient standard deviation over the mean, a `Statistic`."""
    middle = mean(weights, (first + second) / 2)
    spread = _within_patient_sd(weights, first, second)
    return np.divide(spread, middle, out=np.full(len(weights), np.nan), where=middle > 0)


def _detectable_change(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the smallest detectable change, a `Statistic`."""
    return DETECTABLE_FACTOR * _within_patient_sd(weights, first, second)
