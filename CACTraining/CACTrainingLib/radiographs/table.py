"""A table of radiographs: what is known of each patient, read from CSV with errors that name the line."""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.ct import CTError

from .cases import TABLE, VIEWS

LABELS = ("agatston", "agatston_reader", "agatston_automatic")
"""Columns to learn from: the truth, what a reader scored on CT, what a threshold in the heart scored on CT."""

SEXES = ("F", "M")
_PLAUSIBLE = {"age_years": (0.0, 120.0), "bmi_kg_m2": (8.0, 100.0)}


class TableError(CTError):
    """A table of radiographs is missing, or something in it is wrong. The message names the line."""


@dataclass(frozen=True)
class RadiographRow:
    """A line of a table. files: a picture for each view, or one file with all views (`cases`) under each of them.

    scores: Agatston scores by LABELS, those that are known. event: whether it happened at time_years (None: not told).
    """

    name: str
    patient: str
    files: dict[str, Path]
    scores: dict[str, float]
    age_years: float | None = None
    sex: str | None = None
    bmi_kg_m2: float | None = None
    time_years: float | None = None
    event: bool | None = None


def read_table(table: Path, label: str | None = None) -> tuple[RadiographRow, ...]:
    """The rows of a table, or of the one in a folder of `cac` radiographs.

    Needs the columns file and patient, and `label` where one is asked for. Files are relative to the table. Optional:
    lateral, a second picture; the other columns of `RadiographRow`. Empty cells are not known. Raises TableError.
    """
    path = _path(table)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"The table {path} cannot be read ({error}). Give a CSV file in UTF-8.") from error
    needed = ["file", "patient", *([label] if label else [])]
    if missing := [name for name in needed if name not in columns]:
        raise TableError(f"The table {path} has no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}.")
    if not lines:
        raise TableError(f"The table {path} has no rows.")
    rows = [_row(line, number, path) for number, line in enumerate(lines, 2)]
    if label and (without := [row.name for row in rows if label not in row.scores]):
        raise TableError(
            f"{len(without)} rows of {path} have no {label}, among them {without[0]}. Fill or remove them."
        )
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 2):
        if row.name in seen:
            raise TableError(f"Lines {seen[row.name]} and {number} of {path} have the same name, {row.name!r}.")
        seen[row.name] = number
    return tuple(rows)


def table_hash(rows: tuple[RadiographRow, ...]) -> str:
    """SHA-256 of all that training takes from a table, whatever the order of its lines and where its files lie."""
    lines = [
        repr((r.name, r.patient, sorted(r.scores.items()), r.age_years, r.sex, r.bmi_kg_m2, r.time_years, r.event))
        for r in rows
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _path(table: Path) -> Path:
    path = table / TABLE if table.is_dir() else table
    if not path.is_file():
        raise TableError(f"There is no table {path}. Give a CSV file, or a folder that holds {TABLE}.")
    return path


def _row(line: dict[str, str], number: int, path: Path) -> RadiographRow:
    where = f"line {number} of {path}"
    if None in line or None in line.values():
        raise TableError(f"The cells of {where} are not as many as the columns.")
    files = {}
    for column, view in (("file", "PA"), ("lateral", "lateral")):
        if text := (line.get(column) or "").strip():
            file = path.parent / text
            if not file.exists():
                raise TableError(f"The {column} {text!r} in {where} is not there: {file}.")
            files[view] = file
    if "PA" not in files:
        raise TableError(f"There is no file in {where}.")
    if files["PA"].suffix == ".npz":
        files = dict.fromkeys(VIEWS, files["PA"])
    patient = line["patient"].strip()
    if not patient:
        raise TableError(f"There is no patient in {where}; patients must be told apart, or the split would leak.")
    scores = {name: _number(line, name, where, 0.0, math.inf) for name in LABELS}
    sex = (line.get("sex") or "").strip() or None
    if sex not in (None, *SEXES):
        raise TableError(f"The sex in {where} is {sex!r}; write F or M, or leave it empty.")
    event = (line.get("event") or "").strip() or None
    if event not in (None, "0", "1"):
        raise TableError(f"The event in {where} is {event!r}; write 0 or 1, or leave it empty.")
    return RadiographRow(
        name=(line.get("name") or "").strip() or f"line {number}",
        patient=patient,
        files=files,
        scores={name: score for name, score in scores.items() if score is not None},
        **{name: _number(line, name, where, *limits) for name, limits in _PLAUSIBLE.items()},
        sex=sex,
        time_years=_number(line, "time_years", where, 0.0, 200.0),
        event=None if event is None else event == "1",
    )


def _number(line: dict[str, str], column: str, where: str, low: float, high: float) -> float | None:
    text = (line.get(column) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high or math.isinf(value):
        limits = f"from {low:g} up" if math.isinf(high) else f"between {low:g} and {high:g}"
        raise TableError(f"The {column} in {where} is {text!r}; it has to be a number {limits}, or empty.")
    return value
