"""A table of patients with what became of them: true and predicted calcium, time and event, clinical factors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.core.tables import Table, TableError, read_table

from ..experiments.results import CATEGORIES
from ..statistics.patient_folds import CATEGORIES as LIMITS
from ..statistics.patient_folds import category_of

PROBABILITIES = tuple(f"chance_{limit:g}" for limit in LIMITS)
"""Columns of predicted probabilities: of a score above 0, from 100, from 400."""

FACTORS = ("age_years", "sex", "bmi_kg_m2")


@dataclass(frozen=True)
class Events:
    """n patients. years: from 0 up; event: bool, false where a patient was lost to view or the study ended, [n].

    true, predicted: categories, index in CATEGORIES. risk: a finer number than the predicted category, where there is
    one: the expected category, or the predicted score. score: the true one, where the table has it. factors: by name,
    those that all patients have and that differ between them; sex is 1 for men. how: how the predicted category came
    about, for people.
    """

    patients: tuple[str, ...]
    years: np.ndarray
    event: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    risk: np.ndarray | None
    score: np.ndarray | None
    factors: dict[str, np.ndarray]
    how: str


def read_events(path: Path) -> Events:
    """Read a CSV table, a row for each patient.

    Columns: patient; time_years; event (0, 1); agatston, or category (0 to 3, as CATEGORIES); of what was predicted
    predicted_category (0 to 3), or predicted_agatston, or PROBABILITIES. Optional, in all rows or none: FACTORS (sex F
    or M). Raises TableError.
    """
    table = read_table(path, ("patient", "time_years", "event"))
    for line in table.lines:
        line.need("patient")
    patients = tuple(line.text("patient") for line in table.lines)
    table.need_distinct(patients, "patient")
    score = _numbers(table, "agatston") if "agatston" in table else None
    true = category_of(score) if score is not None else _categories(table, "category", "agatston")
    predicted, risk, how = _predicted(table)
    factors = {}
    for name in FACTORS:
        if name in table and all(line.text(name) for line in table.lines):
            if name == "sex":
                values = np.array([float(line.choice(name, ("F", "M")) == "M") for line in table.lines])
            else:
                values = _numbers(table, name)
            if np.ptp(values) > 0:
                factors[name] = values
    years, event = _numbers(table, "time_years"), _numbers(table, "event", 1, whole=True) > 0
    return Events(patients, years, event, true, predicted, risk, score, factors, how)


def likely_category(probabilities: np.ndarray) -> np.ndarray:
    """The highest category whose probability, and that of all below it, is at least one half, int [n].

    probabilities: of PROBABILITIES, [n, 3].
    """
    return np.cumprod(probabilities >= 0.5, axis=1).sum(1)


def _predicted(table: Table) -> tuple[np.ndarray, np.ndarray | None, str]:
    if all(name in table for name in PROBABILITIES):
        probabilities = np.stack([_numbers(table, name, 1) for name in PROBABILITIES], 1)
        how = "The predicted category is the highest whose probability, and that of all below it, is at least one half."
        return likely_category(probabilities), probabilities.sum(1), how
    if "predicted_agatston" in table:
        score = _numbers(table, "predicted_agatston")
        return category_of(score), score, "The predicted category is that of the predicted score."
    category = _categories(table, "predicted_category", f"predicted_agatston, or {', '.join(PROBABILITIES)}")
    return category, None, "The predicted category is as the table gives it."


def _numbers(table: Table, name: str, high: float = math.inf, whole: bool = False) -> np.ndarray:
    for line in table.lines:
        line.need(name)
    return np.array([line.number_in(name, 0, high, whole) for line in table.lines])


def _categories(table: Table, name: str, otherwise: str) -> np.ndarray:
    if name not in table:
        raise TableError(f"The table {table.path} has neither {name} nor {otherwise}. Add one of them.")
    return _numbers(table, name, len(CATEGORIES) - 1, whole=True).astype(int)
