"""COCA, scans that are not gated: a workbook of Agatston scores beside the DICOM folders.

As the published loaders have it (neuro-ml/amid, `StanfordCoCa`; a `COCANongatedIngestor`): `deidentified_nongated/N/…`
and `scores.xlsx`, first sheet, whose first column is the scan ("1A" is scan 1), with the columns LCA, LAD, LCX, RCA and
total. LCA is taken for the left main, as in the property lists of the gated scans. Saved as scores.csv it is read too,
with the standard library alone.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from CACScoringLib.core.tables import TableError

from ..project.importers.coca import SCORES, score_rows
from .reference import ARTERY_NAMES, VESSELS, BadReferenceError, Counted, Reference, ReferenceScan, read_each
from .scans import scan_of, scans_below

TITLE = "COCA, scans that are not gated"
RELEASE = "deidentified_nongated"
COLUMNS = ("LCA", "LAD", "LCX", "RCA", "total")
SCAN = "scan"
"""What a line's first cell is called here, whatever its column is."""


def fits(source: Path) -> bool:
    return _table(source) is not None


def _table(source: Path) -> Path | None:
    if source.is_file():
        return source if source.suffix.lower() == ".xlsx" else None
    places = (source / folder / f"{SCORES}.{ending}" for folder in ("", RELEASE) for ending in ("xlsx", "csv"))
    return next((place for place in places if place.is_file()), None)


def read(source: Path, scans: Path | None = None, progress: Counted | None = None) -> Reference:
    """The reference of a workbook or folder that `fits`. scans: where they lie; None for beside the workbook.

    Raises BadReferenceError when the table is none, or a column is missing.
    """
    table = _table(source)
    rows = _rows(table)
    by_id = scans_below(scans or table.parent, progress)

    def scan(name: str, row: dict[str, str]) -> ReferenceScan:
        scores = {column: _score(row, column) for column in COLUMNS}
        total = scores.pop("total")
        if total is None:
            raise BadReferenceError(f"{table.name} has no total of it.")
        found = scan_of(re.sub(r"\D+$", "", name), by_id)
        vessels = {ARTERY_NAMES[column.lower()]: score for column, score in scores.items() if score is not None}
        return ReferenceScan(name, name, found.ct, found.series, total, vessels)

    about = "Agatston scores in total and by artery that came with the scans; where calcium lies is not known."
    return Reference(TITLE, about, VESSELS, *read_each([(row[SCAN], row) for row in rows], scan))


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        (head, *rows) = score_rows(table) or [[]]
    except (OSError, ValueError, TableError) as error:
        raise BadReferenceError(f"{table} is not a table of scores ({error}). Download it again.") from error
    places = {cell.strip().lower(): n for n, cell in enumerate(head)}
    if missing := [column for column in COLUMNS if column.lower() not in places]:
        has = ", ".join(cell for cell in head if cell) or "none"
        raise BadReferenceError(f"{table} has no column {', '.join(missing)}; it has {has}. Download it again.")
    places = {SCAN: 0, **{column: places[column.lower()] for column in COLUMNS}}
    cells = [{name: row[at].strip() if at < len(row) else "" for name, at in places.items()} for row in rows]
    named = [row for row in cells if row[SCAN]]
    names = [row[SCAN] for row in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadReferenceError(f"{table} has two lines for {', '.join(twice)}. Remove one.")
    return named


def _score(row: dict[str, str], column: str) -> float | None:
    text = row[column]
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise BadReferenceError(f"Its {column} is {text[:40]!r}, which is no score.")
    return value
