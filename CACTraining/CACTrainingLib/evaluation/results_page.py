"""Check that the figures in the tables of the results page are those of its stored tables.

A section of the page links its stored table, such as `[CSV](results/speed.csv)`. All figures of a cell, or of its parts
between semicolons, have to follow each other in one row of it, rounded as they are stated. First cells name the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.tables import read_cells

PAGE = "results.md"

_TABLE = re.compile(r"\]\((results/[\w-]+\.csv)\)")
_FIGURE = re.compile(r"(?<![\w.,–-])[−-]?\d*\.?\d+(?![\w-])")
_NO_RESULT = re.compile(r"`[^`]*`|\]\([^)]*\)|\*\*")
"""Names in code, targets of links, and emphasis."""


def check_results(docs: Path) -> str:
    """Check the results page in a folder; return a text about what was checked.

    Raises CTError where a figure is not in its table, and TableError where a table or the page cannot be read.
    """
    try:
        cells = list(_cells(docs))
    except OSError as error:
        raise CTError(f"{error.filename} cannot be read: {error.strerror}. Name the folder of {PAGE}.") from error
    differences = [
        f"{docs / PAGE}:{line}: {', '.join(figures)}"
        for line, figures, rows in cells
        if not any(_are_stored(figures, row) for row in rows)
    ]
    if differences:
        listed = "\n".join(differences)
        raise CTError(
            f"{len(differences)} cells of {docs / PAGE} have figures that no row of their stored table has. State "
            f"its figures, or measure again:\n{listed}"
        )
    return f"{len(cells)} cells of {docs / PAGE} have the figures of their stored tables."


def _cells(docs: Path) -> Iterator[tuple[int, list[str], list[list[Decimal]]]]:
    """Yield line and figures of each cell of the page's tables, and the figures of each row of its stored table."""
    rows, is_row = list[list[Decimal]](), False
    for number, line in enumerate((docs / PAGE).read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("## "):
            rows = []
        for table in _TABLE.findall(line):
            lines = read_cells(docs / table)
            rows = [[_number(figure) for cell in row for figure in _FIGURE.findall(cell)] for _, row in lines]
        if rows and is_row and line.startswith("|"):
            parts = re.split(r" \| |;", _NO_RESULT.sub("", line).partition(" | ")[2])
            yield from ((number, figures, rows) for part in parts if (figures := _FIGURE.findall(part)))
        is_row = line.startswith("|")  # the first line of a table names its columns


def _number(figure: str) -> Decimal:
    return Decimal(figure.replace("−", "-"))


def _are_stored(figures: Sequence[str], row: Sequence[Decimal]) -> bool:
    """Return True if the figures follow each other in a row of a stored table."""
    stated = [_number(figure) for figure in figures]
    starts = range(len(row) - len(stated) + 1)
    return any(
        all(value.quantize(number, ROUND_HALF_UP) == number for number, value in zip(stated, row[start:], strict=False))
        for start in starts
    )
