"""Tables of the results page, and single figures, written from the stored tables beside it and from model cards.

A page asks for a table (`pages`) by the file, its columns and, a line each, its rows (all if it names none). A row is
named by its first cell, of which a number of scans in brackets at the end may be left out; by its first two or three as
`first / second` where rows share the first; and by `row … part` where its first cell begins with an ellipsis;
`first / *` are all rows of that first cell, shown by their second. A name may be followed by ` = ` and the title to
show instead.

    table results/territories.csv: proportion = share | date
    all = all arteries

A page, or a cell of a stored table between braces, asks for a figure by file, row and column, or by a model and the
keys of its card. The column `n` of a table without one is what its row's name has in brackets.

    figure results/pairs.csv: ICC of two scans, score | map
    figure models/slices-compact: validation / auc
"""

from __future__ import annotations

import csv
import json
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
MODELS = DOCS.parent / "CACScoring" / "CACScoringLib" / "Resources" / "Models"
DECIMALS = 3
"""Decimals of numbers that are stored with more."""

_ASKED = re.compile(r"(?P<file>(?:results|hooks)/[\w-]+\.csv): (?P<columns>[^\n]+)(?:\n(?P<rows>.*))?", re.DOTALL)
_CELL = re.compile(r"(?P<file>results/[\w-]+\.csv): (?P<row>.+) \| (?P<column>.+)")
_KEYS = re.compile(r"models/(?P<model>[\w-]+): (?P<keys>.+)")
_IN_BRACES = re.compile(r"\{((?:results|models)/[^{}]+)\}")
_WITH_INTERVAL = re.compile(r"[-−]?[\d.]+ \[[-−\d.]+, [-−\d.]+\]")
"""A figure with its interval, which is shown in one line."""
_COUNT = re.compile(r" \(([^()]*\d[^()]*)\)$")

Row = dict[str, str]


def table_as_markdown(asked: str, docs: Path = DOCS) -> str:
    """Return a table. asked: File, columns and rows, as above without the word `table`.

    Raises ValueError for a row or column that the stored table does not have.
    """
    match = _ASKED.fullmatch(asked)
    if match is None:
        raise ValueError(f"A table is asked for as 'results/NAME.csv: COLUMN | COLUMN', not {asked!r}.")
    return _table(docs, match["file"], match["columns"], match["rows"] or "")


def figure_as_text(asked: str, docs: Path = DOCS, models: Path = MODELS) -> str:
    """Return a figure. asked: A cell of a table or keys of a card, as above without the word `figure`.

    Raises ValueError for a row, column or key that there is not.
    """
    if match := _CELL.fullmatch(asked):
        file = docs / match["file"]
        name, row = _row(file, _rows_by_name(_stored(file)), match["row"])
        count = _COUNT.search(name)
        if match["column"] == "n" and "n" not in row and count:
            return count[1]
        return with_figures(_cell(file, row, match["column"]), docs)
    match = _KEYS.fullmatch(asked)
    cards = [*models.rglob(f"{match['model']}.json")] if match else []
    if match is None or not cards:
        raise ValueError(f"A figure is 'results/NAME.csv: ROW | COLUMN' or 'models/NAME: KEY / KEY', not {asked!r}.")
    value: Any = json.loads(cards[0].read_text(encoding="utf-8"))
    for key in match["keys"].split(" / "):
        if key not in value:
            raise ValueError(f"The card of {match['model']} has no {match['keys']!r}.")
        value = value[key]
    if isinstance(value, dict):
        return f"{_rounded(value['estimate'])} [{_rounded(value['low'])}, {_rounded(value['high'])}]"
    return _rounded(value)


def _table(docs: Path, file: str, columns: str, names: str) -> str:
    stored = _stored(docs / file)
    rows = _rows_by_name(stored)
    shown_rows = [row for line in names.splitlines() for row in _shown(line, stored)]
    shown_rows = shown_rows or [(next(iter(row.values())), "") for row in stored]
    shown_columns = [_named(column) for column in columns.split(" | ")]
    lines = [["", *(title or column for column, title in shown_columns)], ["---"] * (1 + len(shown_columns))]
    for asked, title in shown_rows:
        name, row = _row(docs / file, rows, asked)
        lines.append(
            [title or name, *(with_figures(_cell(docs / file, row, column), docs) for column, _ in shown_columns)]
        )
    return "\n".join(f"| {' | '.join(map(_in_one_line, line))} |" for line in lines)


def _stored(file: Path) -> list[Row]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _shown(line: str, stored: list[Row]) -> list[tuple[str, str]]:
    """Return names and titles of the rows of a line; an empty title is the name."""
    first, all_rows, _ = line.strip().partition(" / *")
    if not all_rows:
        return [_named(line)]
    rows = [(f"{first} / {element}", element) for paper, element, *_ in map(dict.values, stored) if paper == first]
    return rows or [_named(line)]


def _named(text: str) -> tuple[str, str]:
    name, _, title = text.strip().partition(" = ")
    return name, title


def _rows_by_name(stored: list[Row]) -> dict[str, tuple[str, Row]]:
    """Return rows, each with the name to show, by each of their names that no other row has."""
    names: dict[str, list[tuple[str, Row]]] = {}
    parent = ""
    for row in stored:
        first, second, third, *_ = *row.values(), ""
        parts = [parent, first] if first.startswith("…") else [first]
        parent, full = parts[0], " ".join(parts)
        short = " ".join(_COUNT.sub("", part) for part in parts)
        longer = (f"{full} / {second}", f"{full} / {second} / {third}")
        for name, shown in {short: full, full: full, **{name: name for name in longer}}.items():
            names.setdefault(name, []).append((shown, row))
    return {name: rows[0] for name, rows in names.items() if len(rows) == 1}


def _row(file: Path, rows: dict[str, tuple[str, Row]], name: str) -> tuple[str, Row]:
    if name not in rows:
        raise ValueError(f"{file} has no single row {name!r}.")
    return rows[name]


def _cell(file: Path, row: Row, column: str) -> str:
    if column not in row:
        raise ValueError(f"{file} has no column {column!r}.")
    if row.get(f"{column} low"):
        return f"{_number(row[column])} [{_number(row[f'{column} low'])}, {_number(row[f'{column} high'])}]"
    return _number(row[column]) if re.fullmatch(rf"-?\d+\.\d{{{DECIMALS + 1},}}", row[column]) else row[column]


def _in_one_line(cell: str) -> str:
    """Return a cell that is a figure with its interval without places to break it; others as they are."""
    return cell.replace(" ", "\N{NO-BREAK SPACE}") if _WITH_INTERVAL.fullmatch(cell) else cell


def with_figures(cell: str, docs: Path = DOCS) -> str:
    """Return a cell with the figures that it asks for."""
    return _IN_BRACES.sub(lambda found: figure_as_text(found[1], docs), cell)


def _number(text: str) -> str:
    rounded = Decimal(text).quantize(Decimal(1).scaleb(-DECIMALS), ROUND_HALF_UP)
    return re.sub(r"^(-?)0\.", r"\1.", str(rounded))


def _rounded(value: float | str) -> str:
    """Return a number of a card: whole, or with two decimals below 100; a text as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:.0f}"
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}")
