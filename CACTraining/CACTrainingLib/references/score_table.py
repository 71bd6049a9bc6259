"""Tables of scores (CSV): the user's own, and published ones, whose columns differ (`Collection.tables`).

A table has a line per scan: `ct` (file or DICOM folder, relative to the table) or `id`, which is looked up below
--scans; `total` (or agatston), or the arteries LM (or LCA), LAD, LCX, RCA, or both; or `lesions`, a label map with
CAC's own labels instead (`label_maps`). Columns `name`, `series` and `patient` are optional, as for `cac cohort`, and
so are `scan`, 1 or 2 for the scans of a pair, `comparator`, the score of another program, and `unit`. --columns names
columns of other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from CACScoringLib.core.errors import BadReferenceError, OutputError, TableError
from CACScoringLib.core.tables import Line, Table, read_table
from CACScoringLib.core.text import printable

from .collection import OWN_TABLE, Layout, collections
from .label_maps import ABOUT
from .reference import (
    VESSELS,
    Format,
    ProgressCallback,
    Reference,
    ReferenceScan,
    ScansById,
    artery_of_column,
    read_each,
    scan_of,
    scans_below,
)
from .segmentations import lesions_on_grid, read_lesions

ROUNDING = 0.5
"""Error of a score that was rounded to a whole number."""
AGATSTON_UNITS = ("agatston", "agatston score", "agatston units", "agatston unit", "au")
"""Values of a column unit, in lower case."""
ENDINGS = (".csv", ".tsv", ".txt")


UNDERSTOOD = ("ct", "id", "total", *VESSELS, "lesions", "name", "patient", "scan", "series", "comparator", "unit")
"""Columns of a user's table."""


@dataclass(frozen=True)
class CheckedTable:
    """A table whose columns have been checked.

    Attributes:
        table: The table.
        layout: Its layout.
        arteries: Key of the artery by its column.
    """

    table: Table
    layout: Layout
    arteries: Mapping[str, str]


def open_table(source: Path, scans: Path | None, columns: str | None = None) -> CheckedTable:
    """Read a table and check its columns.

    Args:
        source: File of the table.
        scans: Folder of the scans, for tables that name them by an id.
        columns: Value of --columns; None for columns that are called as `UNDERSTOOD`, or published.

    Raises:
        BadReferenceError: The scans cannot be found in this way.
        OutputError: The value of --columns cannot be read.
        TableError: The table cannot be read, or has other columns.
    """
    table = read_table(source, short_lines=True)
    if columns:
        table = table.renamed(_columns_of(columns))
    layout = OWN_TABLE if columns else layout_of(table)
    arteries = {column: key for column in table.columns if (key := artery_of_column(column))}
    _check_columns(table, layout, arteries, bool(columns))
    if "ct" not in table and scans is None:
        raise BadReferenceError(f"{source} names scans by {layout.id} only. Name the folder they lie in with --scans.")
    if "ct" in table and scans is not None:
        raise BadReferenceError(f"{source} says in its column ct where the scans are. Leave --scans out.")
    return CheckedTable(table, layout, arteries)


def _columns_of(text: str) -> dict[str, str]:
    """Return the column by its meaning of --columns, such as "id=Patient,total=Manual Agatston". Raises OutputError."""
    meanings = {name.lower(): name for name in UNDERSTOOD}
    columns = {}
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        meaning, _, column = (word.strip() for word in part.partition("="))
        name = meanings.get(meaning.lower())
        if name is None or not column or name in columns:
            fault = "appears twice" if name in columns else "is no MEANING=COLUMN"
            raise OutputError(f"In --columns, {part.strip()!r} {fault}. The meanings are {', '.join(UNDERSTOOD)}.")
        columns[name] = column
    return columns


def _read_table(
    source: Path, scans: Path | None, progress: ProgressCallback | None, columns: str | None = None
) -> Reference:
    """Read a table; ids are looked up below `scans`. Raises CTError as `open_table`."""
    opened = open_table(source, scans, columns)
    table, layout, arteries = opened.table, opened.layout, opened.arteries
    by_id = None if scans is None else scans_below(scans, progress)
    names = [printable(layout.name_of(line)) or f"line {line.number}" for line in table.lines]
    table.need_distinct(names, "scan")
    vessels = VESSELS if set(arteries.values()) == set(VESSELS) or "lesions" in table else {}
    lesions = f" {ABOUT}" if "lesions" in table else ""
    has_scores = arteries or any(column in table for column in layout.totals)
    scores = layout.about or ("Agatston scores as the table has them." if has_scores else "")
    items = list(zip(names, table.lines, strict=True))
    results = read_each(items, lambda name, line: _line_scan(name, line, layout, arteries, by_id))
    return Reference(layout.title, f"{scores}{lesions}".strip(), vessels, *results, layout)


def has_scores(table: Table) -> bool:
    """Return True for a table with a column of total scores, or one for each artery."""
    keys = {artery_of_column(column) for column in table.columns}
    return keys >= {*VESSELS} or any(column in table for column in layout_of(table).totals)


def layout_of(table: Table) -> Layout:
    """Return the published layout whose columns a table has, else that of the user's own."""
    published = (layout for collection in collections().values() for layout in collection.tables)
    fitting = (entry for entry in published if all(c in table for c in (entry.id, *entry.totals, *entry.name)))
    return next(fitting, OWN_TABLE)


def _check_columns(table: Table, layout: Layout, arteries: Mapping[str, str], are_named: bool) -> None:
    """Raise TableError of columns that are missing, or there twice. are_named: True if --columns names them."""
    keys = list(arteries.values())
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise TableError(f"The table {table.path} has two columns for {', '.join(twice)}. Remove one.")
    missing = []
    if "ct" not in table and layout.id not in table:
        missing.append("names the scan (ct: its file or DICOM folder; id: its name or patient, below --scans)")
    has_total = "lesions" in table or any(column in table for column in layout.totals)
    if not has_total and (lacking := [key for key in VESSELS if key not in keys]):
        also = "" if len(lacking) == len(VESSELS) else f"; {', '.join(lacking)} are missing"
        missing.append(f"holds the score (total; LM, LAD, LCX and RCA; or lesions: a label map{also})")
    if not missing:
        return
    columns = ", ".join(map(printable, table.columns))
    subject = f"In {table.path}, no column" if not are_named else f"In {table.path}, no column named by --columns"
    raise TableError(
        f"{subject} {', and none '.join(missing)}. Its columns are {columns}; understood are {', '.join(UNDERSTOOD)}. "
        'Rename yours; cac evaluate takes them as they are by --columns id=Patient,total="Manual Agatston".'
    )


def _check_scores(line: Line, totals: Mapping[str, float], vessels: Mapping[str, float]) -> None:
    """Raise TableError if totals differ, or the arteries exceed a total; other branches may make a total larger."""
    tolerance = ROUNDING * (1 + len(vessels))
    if len(totals) > 1 and max(totals.values()) - min(totals.values()) > 2 * ROUNDING:
        listed = " and ".join(f"{column} {value:g}" for column, value in totals.items())
        raise TableError(f"The scores in {line.where} contradict each other: {listed}. Correct one.")
    artery_sum = sum(vessels.values())
    for column, value in totals.items():
        if artery_sum > value + tolerance:
            listed = ", ".join(f"{key} {score:g}" for key, score in vessels.items() if score)
            raise TableError(f"The scores in {line.where} contradict each other: {column} {value:g}, but {listed}.")


def _line_scan(
    name: str, line: Line, layout: Layout, arteries: Mapping[str, str], by_id: ScansById | None
) -> ReferenceScan:
    """Read a line of the table. Raises CTError."""
    if (unit := line.text("unit") or line.text("units")) and unit.casefold() not in AGATSTON_UNITS:
        raise TableError(f"The unit in {line.where} is {unit}. Only Agatston scores are compared: leave the line out.")
    totals = {column: value for column in layout.totals if (value := line.number_in(column, 0)) is not None}
    scores = {key: line.number_in(column, 0) for column, key in arteries.items()}
    vessels = {key: value for key, value in scores.items() if value is not None}
    _check_scores(line, totals, vessels)
    score = next(iter(totals.values()), None)
    if score is None and set(vessels) == set(VESSELS):
        score = sum(vessels.values())
    lesions = line.file("lesions")
    if score is None and lesions is None:
        raise TableError(f"There is no total in {line.where}.")
    if lesions is not None:
        read_lesions(lesions)
    if by_id is None:
        line.need("ct")
        ct, series = line.need_file("ct"), line.text("series") or None
    else:
        line.need(layout.id)
        scan = scan_of(line.text(layout.id), by_id)
        ct, series = scan.ct, scan.series
    patient = printable(line.text(layout.patient)) or name
    comparator = line.number_in(layout.comparator, 0)
    number = int(line.text("scan")) if line.text("scan") in ("1", "2") else 1  # else it is another name
    reference = ReferenceScan(
        name, patient, ct, series, total=score, vessels=vessels, number=number, comparator=comparator
    )
    if lesions is None:
        return reference
    return replace(reference, outlines=partial(lesions_on_grid, lesions), files=(lesions,))


def is_table(source: Path) -> bool:
    """Return True for the file of a table, by its name."""
    return source.is_file() and source.name.lower().endswith(ENDINGS)


def table_format(columns: str | None = None) -> Format:
    """Return the format of tables of scores. columns: Value of --columns."""
    return Format("a table of scores", is_table, partial(_read_table, columns=columns))
