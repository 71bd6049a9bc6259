"""Tables of studies, in memory and as files."""

import csv
from collections.abc import Iterable
from pathlib import Path

from CACTrainingLib.evaluation.parts import Cell, Section, TablePart


def csv_lines(path: Path) -> list[list[str]]:
    """Cells of each line of a file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def csv_rows(path: Path) -> list[dict[str, str]]:
    """Cells of each line below the first, by column."""
    columns, *lines = csv_lines(path)
    return [dict(zip(columns, line, strict=True)) for line in lines]


def tables_of(sections: Iterable[Section]) -> dict[str, TablePart]:
    """Tables of sections by name."""
    return {table.name: table for section in sections for table in section.tables}


def cells(table: TablePart, title: str, after: str | None = None) -> dict[str, Cell]:
    """Cells by column of the first row with a title, below the heading `after`."""
    titles = [str(row[0]).strip() for row in table.rows]
    row = table.rows[titles.index(title, titles.index(after) if after else 0)]
    return dict(zip(table.columns, row, strict=True))
