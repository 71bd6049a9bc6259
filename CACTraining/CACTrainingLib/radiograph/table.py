"""A table of radiographs: what is known of each patient, read from CSV with errors that name the line."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from ..data.table_cells import (
    PLAUSIBLE,
    SEXES,
    Line,
    TableError,
    check_lines,
    check_names,
    choice_in,
    file_in,
    number_in,
    patient_in,
    read_lines,
    text_in,
)
from .cases import TABLE, VIEWS

LABELS = ("agatston", "agatston_reader", "agatston_automatic")
"""Columns to learn from: the truth, what a reader scored on CT, what a threshold in the heart scored on CT."""


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
    path, columns, lines = read_lines(table, TABLE)
    check_lines(path, columns, lines, ["file", "patient", *([label] if label else [])])
    rows = [_row(line, f"line {number} of {path}", path, f"line {number}") for number, line in enumerate(lines, 2)]
    if label and (without := [row.name for row in rows if label not in row.scores]):
        raise TableError(
            f"{len(without)} rows of {path} have no {label}, among them {without[0]}. Fill or remove them."
        )
    check_names(path, [row.name for row in rows])
    return tuple(rows)


def table_hash(rows: tuple[RadiographRow, ...]) -> str:
    """SHA-256 of all that training takes from a table, whatever the order of its lines and where its files lie."""
    lines = [
        repr((r.name, r.patient, sorted(r.scores.items()), r.age_years, r.sex, r.bmi_kg_m2, r.time_years, r.event))
        for r in rows
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _row(line: Line, where: str, path: Path, usual_name: str) -> RadiographRow:
    files = {view: file_in(line, column, where, path) for column, view in (("file", "PA"), ("lateral", "lateral"))}
    files = {view: file for view, file in files.items() if file}
    if "PA" not in files:
        raise TableError(f"There is no file in {where}.")
    if files["PA"].suffix == ".npz":
        files = dict.fromkeys(VIEWS, files["PA"])
    patient = patient_in(line, where)
    scores = {name: number_in(line, name, where, 0.0, math.inf) for name in LABELS}
    event = choice_in(line, "event", where, ("0", "1"))
    return RadiographRow(
        name=text_in(line, "name") or usual_name,
        patient=patient,
        files=files,
        scores={name: score for name, score in scores.items() if score is not None},
        **{name: number_in(line, name, where, *limits) for name, limits in PLAUSIBLE.items()},
        sex=choice_in(line, "sex", where, SEXES),
        time_years=number_in(line, "time_years", where, 0.0, 200.0),
        event=None if event is None else event == "1",
    )
