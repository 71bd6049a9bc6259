"""Stanford AIMI, "COCA – Coronary Calcium and chest CTs": gated scans with contours, and others with a table of scores.

As the published loaders have it (neuro-ml/amid, `StanfordCoCa`; `process_xml` of several course projects; a
`COCANongatedIngestor`) and a published analysis of 449 of its scans; `project.importers.coca` reads the files.

Gated: `patient/N/SERIES/*.dcm` and `calcium_xml/N.xml`, a property list with `Images`, each with `ImageIndex` (from 0,
from the feet), `NumberOfROIs` and `ROIs`; each of these with `Name` (four arteries; "Left Coronary Artery" is the left
main), `Point_px`, `Point_mm`, `Area`, `Max`, `Mean` … Every outlined image has placeholders without points for the
other arteries. A few lists have names that are no artery's, one is of a series that was replaced, some folders hold two
series of the same slices.

Not gated: `deidentified_nongated/N/…` and `scores.xlsx`, first sheet, whose first column is the scan ("1A" is scan 1),
with the columns LCA, LAD, LCX, RCA and total. LCA is taken for the left main, as in the property lists. Saved as
scores.csv it is read too, with the standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.tables import DecimalMarks, Line, Table, TableError
from CACScoringLib.io.reading import find_series

from ..project.importers.coca import (
    PATIENTS_FOLDER,
    REGIONS_FOLDER,
    SCORES,
    CocaSeries,
    Region,
    gated_annotations,
    outlined_series,
    read_regions,
    score_rows,
)
from .reference import (
    BY_RULE,
    VESSELS,
    BadReferenceError,
    Format,
    ProgressCallback,
    Reference,
    ReferenceScan,
    artery_of_column,
    read_each,
    scan_of,
    scans_below,
)

GATED_RELEASE, NONGATED_RELEASE = "Gated_release_final", "deidentified_nongated"
COLUMNS = ("LCA", "LAD", "LCX", "RCA", "total")
SCAN = "scan"
"""Name of the first column, whatever its title."""


def _root(source: Path) -> Path | None:
    places = (source, source / GATED_RELEASE)
    return next((p for p in places if (p / REGIONS_FOLDER).is_dir() and (p / PATIENTS_FOLDER).is_dir()), None)


def _read_gated(source: Path, _scans: Path | None, progress: ProgressCallback | None) -> Reference:
    root = _root(source)
    assert root is not None
    outlined = {path.stem: path for path in (root / REGIONS_FOLDER).glob("*.xml")}
    patients = {path.name: path for path in (root / PATIENTS_FOLDER).iterdir() if path.is_dir()}
    numbers = sorted({*outlined, *patients}, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n))

    def scan(number: str, _: None) -> ReferenceScan:
        if number not in patients:
            raise BadReferenceError(f"There is no folder {PATIENTS_FOLDER}/{number} with its scan.")
        if number not in outlined:
            raise BadReferenceError(f"There is no {REGIONS_FOLDER}/{number}.xml: whether it has calcium is unknown.")
        regions = read_regions(outlined[number])
        series = outlined_series(regions, _series(patients[number]), outlined[number])
        outlines = partial(_outlines, tuple(regions), series.folder, series.uid)
        return ReferenceScan(number, number, series.folder, series.uid, outlines=outlines, files=(outlined[number],))

    about = f"Readers outlined calcium in each image and named its artery. {BY_RULE}"
    return Reference(GATED.title, about, VESSELS, *read_each([(number, None) for number in numbers], scan, progress))


def _series(folder: Path) -> list[CocaSeries]:
    """CT series below a folder. Raises BadReferenceError without any."""
    places = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    series_below = [CocaSeries(place, series.uid) for place in places for series in find_series(place)[0]]
    if not series_below:
        raise BadReferenceError(f"{folder} holds no CT series. Download it again.")
    return series_below


def _outlines(regions: Sequence[Region], folder: Path, series: str | None, scan: CTScan) -> sitk.Image:
    labels = gated_annotations(folder, series, regions).regions
    assert labels is not None
    return labels


def _table(source: Path) -> Path | None:
    if source.is_file():
        return source if source.suffix.lower() == ".xlsx" else None
    places = (source / folder / f"{SCORES}.{ending}" for folder in ("", NONGATED_RELEASE) for ending in ("xlsx", "csv"))
    return next((place for place in places if place.is_file()), None)


def _read_nongated(source: Path, scans: Path | None, progress: ProgressCallback | None) -> Reference:
    """Read the table of scores. Raises BadReferenceError if it is unreadable, TableError if a column is missing."""
    table = _table(source)
    assert table is not None
    lines = _lines(table)
    by_id = scans_below(scans or table.parent, progress)

    def scan(name: str, line: Line) -> ReferenceScan:
        line.need("total")
        scores = {column: line.number_in(column, 0) for column in COLUMNS}
        total = scores.pop("total")
        cohort_scan = scan_of(re.sub(r"\D+$", "", name), by_id)
        vessels = {str(artery_of_column(column)): score for column, score in scores.items() if score is not None}
        return ReferenceScan(name, name, cohort_scan.ct, cohort_scan.series, total=total, vessels=vessels)

    about = "Agatston scores in total and by artery that came with the scans; where calcium lies is not known."
    return Reference(NONGATED.title, about, VESSELS, *read_each([(line.text(SCAN), line) for line in lines], scan))


def _lines(table: Path) -> tuple[Line, ...]:
    try:
        ((_, head), *rows) = score_rows(table) or [(1, [])]
    except (OSError, ValueError, TableError) as error:
        raise BadReferenceError(f"{table} is not a table of scores ({error}). Download it again.") from error
    columns = (SCAN, *(cell.strip() for cell in head[1:]))
    names = [column.lower() for column in columns]
    cells = [dict(zip(names, map(str.strip, row), strict=False)) for _, row in rows]
    marks = DecimalMarks({name: [row.get(name, "") for row in cells] for name in names}, ",")
    lines = [Line(table, number, row, marks) for (number, _), row in zip(rows, cells, strict=True)]
    scores = Table(table, columns, tuple(line for line in lines if line.text(SCAN)))
    scores.need(*COLUMNS)
    scores.need_distinct([line.text(SCAN) for line in scores.lines], SCAN)
    return scores.lines


GATED = Format("COCA, gated scans with contours", lambda source: _root(source) is not None, _read_gated, True)
NONGATED = Format("COCA, scans that are not gated", lambda source: _table(source) is not None, _read_nongated)
