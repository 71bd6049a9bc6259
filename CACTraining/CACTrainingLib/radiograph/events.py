"""A table of patients with what became of them: true and predicted calcium, time and event, clinical factors."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError

from ..statistics.patient_folds import category_of
from .study.configurations import THRESHOLDS

CATEGORIES = ("0", "1–99", "100–399", "≥ 400")
PROBABILITIES = tuple(f"chance_{threshold}" for threshold in THRESHOLDS)
"""Columns of predicted probabilities: of a score above 0, from 100, from 400."""

FACTORS = ("age_years", "sex", "bmi_kg_m2")


class EventsError(CTError):
    """A table of events cannot be used. The message names the line."""


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


def read_events(table: Path) -> Events:
    """Read a CSV table, a row for each patient. Raises EventsError.

    Columns: patient; time_years; event (0, 1); agatston, or category (0 to 3, as CATEGORIES); of what was predicted
    predicted_category (0 to 3), or predicted_agatston, or CHANCES. Optional, in all rows or none: FACTORS (sex F or M).
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = set(reader.fieldnames or ())
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EventsError(f"The table {table} cannot be read ({error}). Give a CSV file in UTF-8.") from error
    reading = _Reading(table, columns, lines)
    reading.need("patient", "time_years", "event")
    patients = tuple((line["patient"] or "").strip() for line in lines)
    if len(set(patients)) < len(patients) or "" in patients:
        raise EventsError(f"Every row of {table} needs a patient, and every patient one row only.")
    if not lines:
        raise EventsError(f"The table {table} has no rows.")
    score = reading.numbers("agatston", 0) if "agatston" in columns else None
    true = category_of(score) if score is not None else reading.categories("category", "agatston")
    predicted, risk, how = _predicted(reading)
    factors = {}
    for name in FACTORS:
        if name in columns and all((line[name] or "").strip() for line in lines):
            values = reading.sexes() if name == "sex" else reading.numbers(name, 0)
            if np.ptp(values) > 0:
                factors[name] = values
    years, event = reading.numbers("time_years", 0), reading.numbers("event", 0, 1, whole=True) > 0
    return Events(patients, years, event, true, predicted, risk, score, factors, how)


def _predicted(reading: _Reading) -> tuple[np.ndarray, np.ndarray | None, str]:
    if set(PROBABILITIES) <= reading.columns:
        probabilities = np.stack([reading.numbers(name, 0, 1) for name in PROBABILITIES], 1)
        # A threshold is reached only by who reaches those below it.
        category = np.cumprod(probabilities >= 0.5, axis=1).sum(1)
        how = "The predicted category is the highest whose probability, and that of all below it, is at least one half."
        return category, probabilities.sum(1), how
    if "predicted_agatston" in reading.columns:
        score = reading.numbers("predicted_agatston", 0)
        return category_of(score), score, "The predicted category is that of the predicted score."
    category = reading.categories("predicted_category", f"predicted_agatston, or {', '.join(PROBABILITIES)}")
    return category, None, "The predicted category is as the table gives it."


@dataclass(frozen=True)
class _Reading:
    table: Path
    columns: set[str]
    lines: list[Mapping[str, str]]

    def need(self, *names: str) -> None:
        if missing := [name for name in names if name not in self.columns]:
            had = ", ".join(sorted(self.columns)) or "none"
            raise EventsError(f"The table {self.table} has no column {', '.join(missing)}; it has {had}.")

    def numbers(self, name: str, low: float, high: float = math.inf, whole: bool = False) -> np.ndarray:
        found = []
        for number, line in enumerate(self.lines, 2):
            try:
                value = float(line[name])
            except (TypeError, ValueError):
                value = math.nan
            if not (low <= value <= high and math.isfinite(value)) or (whole and value != int(value)):
                limits = f"from {low:g} up" if math.isinf(high) else f"from {low:g} to {high:g}"
                kind = "a whole number" if whole else "a number"
                raise EventsError(
                    f"The {name} in line {number} of {self.table} is {line[name]!r}, not {kind} {limits}."
                )
            found.append(value)
        return np.array(found)

    def categories(self, name: str, otherwise: str) -> np.ndarray:
        if name not in self.columns:
            raise EventsError(f"The table {self.table} has neither {name} nor {otherwise}. Add one of them.")
        return self.numbers(name, 0, len(CATEGORIES) - 1, whole=True).astype(int)

    def sexes(self) -> np.ndarray:
        found = [line["sex"].strip().upper() for line in self.lines]
        for number, sex in enumerate(found, 2):
            if sex not in ("F", "M"):
                raise EventsError(f"The sex in line {number} of {self.table} is {sex!r}; write F or M.")
        return np.array([float(sex == "M") for sex in found])
