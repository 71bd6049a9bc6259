"""Reading of CSV tables, with errors that name file, line and column, and atomic writing."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import TableError
from .files import read_file, write_text_atomically
from .text import printable

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet runs as a formula."""

_SEPARATORS = ",;\t"


_NUMBERS = {
    ".": re.compile(r"[+-]?(?=[.,]?\d)(?:\d+|[1-9]\d{0,2}(?:,\d{3})+)?(?:\.\d*)?(?:e[+-]?\d+)?", re.IGNORECASE),
    ",": re.compile(r"[+-]?(?=[.,]?\d)(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)?(?:,\d*)?(?:e[+-]?\d+)?", re.IGNORECASE),
}
"""Pattern of a number by its decimal mark; the other mark separates thousands."""


class DecimalMarks:
    """Decimal marks of a table, detected when a column's numbers are read.

    Args:
        columns: Cells by column.
        separator: Separator of the table's cells.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], separator: str) -> None:
        self._columns = columns
        self._separator = separator
        self._marks: dict[str, str] = {}

    def of(self, column: str) -> str:
        """Return "." or ",".

        If the column allows both, the other columns decide; if they allow both too, it is the point unless the
        separator is a semicolon, with which spreadsheets write decimal commas.

        Raises:
            ValueError: Cells contradict each other, or the mark cannot be detected. The message names cells.
        """
        if column not in self._marks:
            self._marks[column] = self._detect(column)
        return self._marks[column]

    def renamed(self, columns: Mapping[str, str]) -> DecimalMarks:
        """Return the marks of a table after `Table.renamed`."""
        return DecimalMarks({new: self._columns[old] for new, old in columns.items()}, self._separator)

    def _detect(self, column: str) -> str:
        cells = self._columns.get(column, ())
        marks = _marks(cells)
        if len(marks) == 1:
            return marks.pop()
        marked_cells = [cell for cell in cells if "." in cell or "," in cell]
        if not marks:
            raise ValueError(f"has decimal points and decimal commas ({_example(cells, '.')}, {_example(cells, ',')})")
        if not any(_readings(cell) for cell in marked_cells):
            return "."
        numeric = [column for column in self._columns.values() if all(not cell or _readings(cell) for cell in column)]
        other_marks = {mark for column in numeric if len(_marks(column)) == 1 for mark in _marks(column)}
        if len(other_marks) == 1:
            return other_marks.pop()
        example = next(cell for cell in marked_cells if _readings(cell))
        if self._separator != ";" and "," not in example:
            return "."
        plain, mark = example.replace(".", "").replace(",", ""), "." if "." in example else ","
        raise ValueError(
            f"has numbers such as {example}, which may be {plain} or {example.replace(mark, '.')} with decimals"
        )


@dataclass(frozen=True)
class Line:
    """Line of a table.

    Attributes:
        path: File of the table.
        number: Line number in the file, from 1.
        cells: Cells by column name in lower case, stripped of spaces.
        marks: Decimal marks of the table.
    """

    path: Path
    number: int
    cells: Mapping[str, str]
    marks: DecimalMarks = field(default_factory=lambda: DecimalMarks({}, ","), repr=False, compare=False)

    @property
    def where(self) -> str:
        """Place in messages: "line 3 of /data/scans.csv"."""
        return f"line {self.number} of {self.path}"

    def text(self, column: str) -> str:
        """Return a cell's text; empty if there is no such column."""
        return self.cells.get(column.lower(), "")

    def need(self, *columns: str) -> None:
        """Raise TableError if one of these cells is empty."""
        for column in columns:
            if not self.text(column):
                raise TableError(f"There is no {column} in {self.where}. Fill it in, or remove the line.")

    def number_in(
        self, column: str, low: float = -math.inf, high: float = math.inf, integer: bool = False
    ) -> float | None:
        """Return a cell's number, None if empty. Raises TableError unless it is finite and within the limits."""
        text = self.text(column)
        if not text:
            return None
        try:
            mark = self.marks.of(column.lower())
        except ValueError as error:
            message = f"The column {column} of {self.path} {error}. Write all its numbers with a decimal point."
            raise TableError(message) from error
        try:
            value = _number_of(text, mark)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and low <= value <= high and not (integer and value % 1):
            return value
        limits = f" between {low:g} and {high:g}" if math.isfinite(high) else f" from {low:g} up"
        kind = ("a whole number" if integer else "a number") + (limits if math.isfinite(low) else "")
        raise TableError(f"The {column} in {self.where} is {_quoted(text)}; it has to be {kind}, or empty.")

    def choice(self, column: str, choices: Sequence[str]) -> str | None:
        """Return the choice that a cell holds in any case, None if empty. Raises TableError for other text."""
        text = self.text(column)
        if not text:
            return None
        if matches := [choice for choice in choices if choice.lower() == text.lower()]:
            return matches[0]
        alternatives = " or ".join(choices)
        raise TableError(f"The {column} in {self.where} is {_quoted(text)}; write {alternatives}, or leave it empty.")

    def need_file(self, column: str) -> Path:
        """Return an existing file or folder relative to the table. Raises TableError, also if the cell is empty."""
        self.need(column)
        file = self.file(column)
        assert file is not None
        return file

    def file(self, column: str, exists: bool = True) -> Path | None:
        """Return a file or folder relative to the table, None if empty. exists: raise TableError if it is missing."""
        text = self.text(column)
        if not text:
            return None
        file = self.path.parent / text
        try:
            if not exists or file.exists():
                return file
        except (OSError, ValueError):  # no name of a file at all
            pass
        raise TableError(f"The {column} {_quoted(text)} in {self.where} is not there: {file}.")


@dataclass(frozen=True)
class Table:
    """Table with at least one line.

    Attributes:
        path: File of the table.
        columns: Names of the columns as written, stripped of spaces.
        lines: Lines below the heading.
    """

    path: Path
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    def __contains__(self, column: str) -> bool:
        return column.lower() in {name.lower() for name in self.columns}

    def need(self, *columns: str) -> None:
        """Raise TableError if one of these columns is missing."""
        if missing := [name for name in columns if name not in self]:
            has = ", ".join(printable(name) for name in self.columns)
            raise TableError(f"The table {self.path} has no column {', '.join(missing)}; it has {has}.")

    def renamed(self, columns: Mapping[str, str]) -> Table:
        """Return the table of some columns alone, under other names.

        Args:
            columns: Column by its new name.

        Raises:
            TableError: There is no such column.
        """
        self.need(*columns.values())
        sources = {new.lower(): old.lower() for new, old in columns.items()}
        marks = self.lines[0].marks.renamed(sources)
        cells = ({new: line.text(old) for new, old in sources.items()} for line in self.lines)
        lines = (replace(line, cells=part, marks=marks) for line, part in zip(self.lines, cells, strict=True))
        return Table(self.path, tuple(columns), tuple(lines))

    def need_distinct(self, names: Sequence[str], noun: str = "name") -> None:
        """Raise TableError if two lines have the same name. names: Names of the lines, in order."""
        numbers: dict[str, int] = {}
        for line, name in zip(self.lines, names, strict=True):
            if name in numbers:
                raise TableError(
                    f"Lines {numbers[name]} and {line.number} of {self.path} have the same {noun}, {_quoted(name)}."
                )
            numbers[name] = line.number


def read_table(path: Path, needed: Iterable[str] = (), usual_name: str = "", short_lines: bool = False) -> Table:
    """Read a table whose first line names its columns, in any order and in upper or lower case.

    Empty lines and columns are left out.

    Args:
        path: UTF-8 text with or without a byte order mark, separated by comma, semicolon or tab, or Windows-1252 text
            separated by semicolons; or a folder that holds `usual_name`.
        needed: Columns that must exist.
        usual_name: Name of the table in such a folder, and for messages.
        short_lines: Accept lines that end before the last columns, as some spreadsheets write empty cells. Otherwise
            they are refused, because a missing separator moves cells into other columns.

    Raises:
        TableError: The table cannot be read.
    """
    path = path / usual_name if usual_name and path.is_dir() else path
    separator, rows = _read(path, usual_name)
    if not rows:
        raise TableError(f"The table {path} is empty. Give a CSV file whose first line names its columns.")
    (_, heading), *body = rows
    names = [name.strip() for name in heading]
    lower_names = [name.lower() for name in names if name]
    if repeats := sorted({name for name in lower_names if lower_names.count(name) > 1}):
        raise TableError(f"The table {path} has two columns of one name: {printable(', '.join(repeats))}. Rename one.")
    lines = []
    columns: dict[str, list[str]] = {}
    marks = DecimalMarks(columns, separator)
    for number, cells in body:
        extra = any(cell.strip() for cell in cells[len(names) :])
        if extra or (len(cells) < len(names) and not short_lines):
            raise TableError(f"Line {number} of {path} has {len(cells)} cells, but there are {len(names)} columns.")
        filled = {name.lower(): cell.strip() for name, cell in zip(names, cells, strict=False) if name}
        lines.append(Line(path, number, filled, marks))
        for name, cell in filled.items():
            columns.setdefault(name, []).append(cell)
    table = Table(path, tuple(name for name in names if name), tuple(lines))
    table.need(*needed)
    if not lines:
        raise TableError(f"The table {path} has no rows below its first line.")
    return table


def read_cells(path: Path, errors: str = "strict") -> list[tuple[int, list[str]]]:
    """Read the line number and the cells of each line that is not empty; the first need not be a heading.

    Args:
        path: As `read_table` takes it.
        errors: Treatment of bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        TableError: The table cannot be read.
    """
    return _read(path, "", errors)[1]


def _read(path: Path, usual_name: str, errors: str = "strict") -> tuple[str, list[tuple[int, list[str]]]]:
    """Return the separator of a table's cells, and the result of `read_cells`."""
    try:
        text = _decoded(read_file(path), errors)
        if "\0" in text:
            raise ValueError("it holds bytes that are no text")
        heading = text.split("\n", 1)[0]
        separator = next((candidate for candidate in _SEPARATORS if candidate in heading), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        return separator, [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except OSError as error:
        if path.is_dir() or not path.exists():
            folder = f", or a folder that holds {usual_name}" if usual_name else ""
            raise TableError(f"There is no table {path}. Give a CSV file{folder}.") from error
        raise TableError(f"The table {path} cannot be opened ({error.strerror}). Check its permissions.") from error
    except (ValueError, csv.Error) as error:
        raise TableError(f"{path} cannot be read as a table ({error}). Save it as CSV UTF-8.") from error


def _decoded(content: bytes, errors: str) -> str:
    """Decode a table: UTF-8, or Windows-1252 as spreadsheets write it with semicolons. Raises ValueError."""
    try:
        return content.decode("utf-8-sig", errors)
    except UnicodeDecodeError:
        if b";" not in content.split(b"\n", 1)[0]:
            raise
        return content.decode("cp1252")


def table_text(
    columns: Sequence[str],
    rows: Iterable[Sequence[object] | Mapping[str, object]],
    delimiter: str = ",",
    guarded: bool = False,
) -> str:
    """Return a table as CSV.

    Args:
        columns: Names of the columns, the first line.
        rows: Cells of each row, in the order of the columns or by column; by column, surplus cells are left out and
            missing ones empty. None is an empty cell.
        delimiter: Separator of the cells.
        guarded: Apply `guarded_cell`, for texts from outside.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(name) for name in columns] if isinstance(row, Mapping) else row
        if len(cells) != len(columns):
            raise ValueError(f"a row has {len(cells)} cells for {len(columns)} columns")
        writer.writerow([guarded_cell(cell) for cell in cells] if guarded else cells)
    return stream.getvalue()


def write_table(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[object] | Mapping[str, object]],
    guarded: bool = False,
) -> None:
    """Write a table as `table_text` makes it, under a temporary name, and rename it. Raises OSError."""
    write_text_atomically(path, table_text(columns, rows, guarded=guarded))


def guarded_cell(cell: object) -> object:
    """Return a cell with an apostrophe before text that a spreadsheet would run; other cells unchanged."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def _quoted(text: str) -> str:
    return repr(text[:80])


def _number_of(text: str, mark: str) -> float:
    """Return a cell's number. Raises ValueError if it is none."""
    if _NUMBERS[mark].fullmatch(text):
        text = text.replace("," if mark == "." else ".", "").replace(",", ".")
    return float(text)


def _readings(cell: str) -> set[str]:
    return {mark for mark, pattern in _NUMBERS.items() if pattern.fullmatch(cell)}


def _marks(cells: Sequence[str]) -> set[str]:
    """Return the marks by which all numbers of a column can be read."""
    marks = set(_NUMBERS)
    for cell in cells:
        if "." in cell or "," in cell:
            marks &= _readings(cell) or marks
    return marks


def _example(cells: Sequence[str], mark: str) -> str:
    return next(cell for cell in cells if _readings(cell) == {mark})
