"""Tables of the results page, written from the stored tables beside it.

A page asks for one (`pages`) by the file, its columns and, a line each, its rows (all if it names none). A row is
named by its first cell; by its first two as `first / second` where rows share the first; and by `row … part` where its
first cell begins with an ellipsis; `first / *` are all rows of that first cell, shown by their second. A name may be
followed by ` = ` and the title to show instead.

    table results/territories.csv: now = proportion | patients
    LM / plain = LM
"""

from __future__ import annotations

import csv
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

DOCS = Path(__file__).parents[1]
DECIMALS = 3
"""Decimals of numbers that are stored with more."""

_ASKED = re.compile(r"(?P<file>results/[\w-]+\.csv): (?P<columns>[^\n]+)(?:\n(?P<rows>.*))?", re.DOTALL)


def table_as_markdown(asked: str, docs: Path = DOCS) -> str:
    """Return a table. asked: File, columns and rows, as above without the word `table`.

    Raises ValueError for a row or column that the stored table does not have.
    """
    match = _ASKED.fullmatch(asked)
    if match is None:
        raise ValueError(f"A table is asked for as 'results/NAME.csv: COLUMN | COLUMN', not {asked!r}.")
    return _table(docs / match["file"], match["columns"], match["rows"] or "")


def _table(file: Path, columns: str, names: str) -> str:
    with file.open(encoding="utf-8", newline="") as stream:
        stored = list(csv.DictReader(stream))
    rows = _rows_by_name(stored)
    shown_rows = [row for line in names.splitlines() for row in _shown(line, stored)]
    shown_rows = shown_rows or [(next(iter(row.values())),) * 2 for row in stored]
    shown_columns = [_named(column) for column in columns.split(" | ")]
    if unknown := [name for name, _ in shown_rows if name not in rows]:
        raise ValueError(f"{file} has no single row {unknown[0]!r}.")
    if unknown := [name for name, _ in shown_columns if name not in stored[0]]:
        raise ValueError(f"{file} has no column {unknown[0]!r}.")
    lines = [["", *(title for _, title in shown_columns)], ["---"] * (1 + len(shown_columns))]
    lines += [[title, *(_cell(rows[name], column) for column, _ in shown_columns)] for name, title in shown_rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(line: str, stored: list[dict[str, str]]) -> list[tuple[str, str]]:
    """Return names and titles of the rows of a line."""
    first, all_rows, _ = line.strip().partition(" / *")
    if not all_rows:
        return [_named(line)]
    rows = [(f"{first} / {element}", element) for paper, element, *_ in map(dict.values, stored) if paper == first]
    return rows or [_named(line)]


def _named(text: str) -> tuple[str, str]:
    name, _, title = text.strip().partition(" = ")
    return name, title or name


def _rows_by_name(stored: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Rows by each of their names that no other row has."""
    names: dict[str, list[dict[str, str]]] = {}
    parent = ""
    for row in stored:
        first, second, *_ = row.values()
        if first.startswith("…"):
            first = f"{parent} {first}"
        else:
            parent = first
        for name in (first, f"{first} / {second}"):
            names.setdefault(name, []).append(row)
    return {name: rows[0] for name, rows in names.items() if len(rows) == 1}


def _cell(row: dict[str, str], column: str) -> str:
    for low, high in ((f"{column} low", f"{column} high"), (f"{column}_low", f"{column}_high")):
        if row.get(low):
            return f"{_number(row[column])} [{_number(row[low])}, {_number(row[high])}]"
    return _number(row[column]) if re.fullmatch(rf"-?\d+\.\d{{{DECIMALS + 1},}}", row[column]) else row[column]


def _number(text: str) -> str:
    rounded = Decimal(text).quantize(Decimal(1).scaleb(-DECIMALS), ROUND_HALF_UP)
    return re.sub(r"^(-?)0\.", r"\1.", str(rounded))
