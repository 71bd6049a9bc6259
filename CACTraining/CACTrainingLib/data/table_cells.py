"""CSV tables that users write: read with errors that name the line."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from CACScoringLib.core.tables import TableError

SEXES = ("F", "M")
PLAUSIBLE = {"age_years": (0.0, 120.0), "bmi_kg_m2": (8.0, 100.0)}
"""Limits of columns."""

Line = dict[str, str]


def read_lines(table: Path, usual_name: str) -> tuple[Path, list[str], list[Line]]:
    """A table's path, columns and lines. table: a CSV file, or a folder that holds `usual_name`. Raises TableError."""
    path = table / usual_name if table.is_dir() else table
    if not path.is_file():
        raise TableError(f"There is no table {path}. Give a CSV file, or a folder that holds {usual_name}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"The table {path} cannot be read ({error}). Give a CSV file in UTF-8.") from error
    return path, columns, lines


def check_lines(path: Path, columns: list[str], lines: list[Line], needed: list[str]) -> None:
    """Raises TableError where a needed column is missing, there are no lines, or one has cells too many or too few."""
    if missing := [name for name in needed if name not in columns]:
        raise TableError(f"The table {path} has no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}.")
    if not lines:
        raise TableError(f"The table {path} has no rows.")
    for number, line in enumerate(lines, 2):
        if None in line or None in line.values():
            raise TableError(f"The cells of line {number} of {path} are not as many as the columns.")


def check_names(path: Path, names: list[str]) -> None:
    """Raises TableError where two lines have the same name. names: of the lines, in order."""
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 2):
        if name in seen:
            raise TableError(f"Lines {seen[name]} and {number} of {path} have the same name, {name!r}.")
        seen[name] = number


def text_in(line: Line, column: str) -> str:
    """A cell's text without spaces about it; empty where there is no such column."""
    return (line.get(column) or "").strip()


def number_in(line: Line, column: str, where: str, low: float, high: float) -> float | None:
    """A cell's number; None where it is empty. where: what to call the line. Raises TableError outside the limits."""
    text = text_in(line, column)
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


def choice_in(line: Line, column: str, where: str, choices: tuple[str, str]) -> str | None:
    """A cell that is one of two words; None where it is empty. Raises TableError."""
    text = text_in(line, column) or None
    if text not in (None, *choices):
        raise TableError(f"The {column} in {where} is {text!r}; write {' or '.join(choices)}, or leave it empty.")
    return text


def file_in(line: Line, column: str, where: str, path: Path) -> Path | None:
    """A cell's file, relative to the table at `path`; None where it is empty. Raises TableError where it is missing."""
    if not (text := text_in(line, column)):
        return None
    file = path.parent / text
    if not file.exists():
        raise TableError(f"The {column} {text!r} in {where} is not there: {file}.")
    return file


def patient_in(line: Line, where: str) -> str:
    """Raises TableError when the line names none."""
    if not (patient := text_in(line, "patient")):
        raise TableError(f"There is no patient in {where}; patients must be told apart, or the split would leak.")
    return patient
