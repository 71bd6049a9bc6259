"""A table of radiographs, read from CSV with errors that name the line."""

from __future__ import annotations

from pathlib import Path

from CACScoringLib.core.tables import Line, TableError

from ..data.scan_table import TableScan, known_of, read_rows
from .cases import TABLE, VIEWS

LABELS = ("agatston", "agatston_reader", "agatston_automatic")
"""Columns to learn from: the truth, what a reader scored on CT, and what was scored there without a reader: by an
automatic clinical score, or by a threshold in the heart."""


def read_table(table: Path, label: str | None = None) -> tuple[TableScan, ...]:
    """The rows of a table, or of the one in a folder of `cac` radiographs.

    Needs the columns file and patient, and `label` where one is asked for. Files are relative to the table; one file
    with all views (`cases`) is held under each of them. Optional: lateral, a second picture; name, age_years, sex,
    bmi_kg_m2, and LABELS. Empty cells are not known. Raises TableError.
    """
    rows = read_rows(table, TABLE, ["file", "patient", *([label] if label else [])], _row)
    if label and (without := [row.name for row in rows if label not in row.scores]):
        raise TableError(
            f"{len(without)} rows of {table} have no {label}, among them {without[0]}. Fill or remove them."
        )
    return rows


def _row(line: Line) -> TableScan:
    line.need("file")
    files = {view: line.file(column) for column, view in (("file", "PA"), ("lateral", "lateral"))}
    scores = {name: line.number_in(name, 0.0) for name in LABELS}
    return TableScan(
        name=line.text("name") or f"line {line.number}",
        files=dict.fromkeys(VIEWS, files["PA"])
        if files["PA"].suffix == ".npz"
        else {view: file for view, file in files.items() if file},
        scores={name: score for name, score in scores.items() if score is not None},
        **known_of(line),
    )
