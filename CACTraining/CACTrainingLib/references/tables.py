"""References as a table of scores (CSV).

A table has a line per scan: `ct` (file or DICOM folder, relative to the table) or `id`, which is looked up below
--scans; `total` (or agatston), or the arteries LM (or LCA), LAD, LCX, RCA, or both; or `lesions`, a label map with
CAC's own labels instead (`label_maps`). Columns `name`, `series` and `patient` are optional, as for `cac cohort`, and
so is `comparator`, the score of another program. Published tables have columns of other names: `Collection.tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from CACScoringLib.core.errors import BadReferenceError, TableError
from CACScoringLib.core.tables import Line, Table, read_table
from CACScoringLib.core.text import printable

from .collection import OWN_TABLE, Layout, collections
from .label_maps import ABOUT as LABELS_ABOUT
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


def _read(source: Path, scans: Path | None, progress: ProgressCallback | None) -> Reference:
    """Read a table; ids are looked up below `scans`. Raises BadReferenceError, TableError."""
    table = read_table(source, short_lines=True)
    layout = layout_of(table)
    total = next((column for column in layout.totals if column in table), None)
    arteries = {column: key for column in table.columns if (key := artery_of_column(column))}
    _check_columns(table, layout, total, arteries)
    by_id = None
    if "ct" not in table:
        if scans is None:
            raise BadReferenceError(
                f"{source} names scans by {layout.id} only. Name the folder they lie in with --scans."
            )
        by_id = scans_below(scans, progress)
    elif scans is not None:
        raise BadReferenceError(f"{source} says in its column ct where the scans are. Leave --scans out.")
    names = [printable(layout.name_of(line)) or f"line {line.number}" for line in table.lines]
    table.need_distinct(names, "scan")
    vessels = VESSELS if set(arteries.values()) == set(VESSELS) or "lesions" in table else {}
    lesions = f" {LABELS_ABOUT}" if "lesions" in table else ""
    scores = layout.about or ("Agatston scores as the table has them." if total or arteries else "")
    items = list(zip(names, table.lines, strict=True))
    results = read_each(items, lambda name, line: _scan(name, line, layout, arteries, by_id))
    return Reference(layout.title, f"{scores}{lesions}".strip(), vessels, *results, layout)


def layout_of(table: Table) -> Layout:
    """Return the published layout whose columns a table has, else that of the user's own."""
    published = (layout for collection in collections().values() for layout in collection.tables)
    fitting = (entry for entry in published if all(c in table for c in (entry.id, *entry.totals, *entry.name)))
    return next(fitting, OWN_TABLE)


def _check_columns(table: Table, layout: Layout, total: str | None, arteries: dict[str, str]) -> None:
    if "ct" not in table and layout.id not in table:
        table.need("ct")
    keys = list(arteries.values())
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise TableError(f"The table {table.path} has two columns for {', '.join(twice)}. Remove one.")
    if total is None and "lesions" not in table and (missing := set(VESSELS) - set(keys)):
        raise TableError(
            f"The table {table.path} has neither a column total nor one for {', '.join(sorted(missing))}, nor label "
            f"maps in a column lesions; it has {', '.join(map(printable, table.columns))}."
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


def _scan(name: str, line: Line, layout: Layout, arteries: dict[str, str], by_id: ScansById | None) -> ReferenceScan:
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
    reference = ReferenceScan(name, patient, ct, series, total=score, vessels=vessels, comparator=comparator)
    if lesions is None:
        return reference
    return replace(reference, outlines=partial(lesions_on_grid, lesions), files=(lesions,))


TABLE = Format("a table of scores", lambda source: source.is_file() and source.name.lower().endswith(ENDINGS), _read)
