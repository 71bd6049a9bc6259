"""A scan of a cohort, and those that a table lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.ct import CTError, ScanWarning
from ..core.tables import Line, Table, TableError, read_table
from ..io.dicom import printable, some
from ..io.reading import stem
from .remote import checked, is_address, last_part, shown

WHOLE_FOLDER = "ct"
"""A folder that holds an image of this name is one scan, as in cohorts of digital patients: its other files and its
subfolders (masks, maps, a DICOM copy) belong to the scan and are none of their own."""

_ADDRESSES = ("series_aws_url", "series_gcs_url", "gcs_url")
"""Columns of the Imaging Data Commons in place of `ct`: results of a query of idc-index. One line per series."""

_COLUMNS = ("ct", "name", "series", "heart", "lesions", "patient", "session", "group")


@dataclass(frozen=True, slots=True)
class CohortScan:
    """One scan of a cohort.

    name: for people; need not be unique. ct: image file or DICOM folder. address: where it is fetched from (see
    `cohort.remote`), if it is; ct is then only a name until a worker has fetched it. given: what tells it apart,
    without the place of the whole cohort: its path below the folder or as the table writes it, and its series. series:
    as in `read_ct`. heart, lesions: files, as `score` takes them; masks: both as the table writes them. fault: why it
    cannot be scored, where that is known already. voxels: how many, where that is.
    """

    name: str
    ct: Path
    given: str
    series: str | None = None
    heart: Path | None = None
    lesions: Path | None = None
    masks: tuple[str, str] = ("", "")
    patient: str = ""
    session: str = ""
    group: str = ""
    fault: str | None = None
    voxels: int | None = None
    address: str | None = None

    @property
    def place(self) -> str:
        """Where the CT lies, for people."""
        return shown(self.address) if self.address else str(self.ct)


def scans_of_table(path: Path) -> tuple[list[CohortScan], tuple[ScanWarning, ...]]:
    """The scans that a table lists, in its order, and doubts.

    path: UTF-8 text with a line per scan, separated by comma, semicolon or tab, or parquet. Columns: ct (file, DICOM
    folder, or address as in `cohort.remote`), and optionally name, series, heart, lesions (files), patient, session,
    group (copied into the result). Paths are relative to the table's folder. In place of ct the table may have the
    columns of a query of idc-index. Raises TableError.
    """
    table = read_table_or_parquet(path)
    of_idc = next((name for name in _ADDRESSES if name in table), None) if "ct" not in table else None
    column = of_idc or "ct"
    table.need(column)
    folder = path.resolve().parent
    for line in table.lines:
        line.need(column)
    places = [line.text(column) for line in table.lines]
    cts = [Path(last_part(place)) if is_address(place) else folder / place for place in places]
    root = _common_folder(ct for ct, place in zip(cts, places, strict=True) if not is_address(place))
    scans = []
    for line, place, ct in zip(table.lines, places, cts, strict=True):
        facts = _idc_facts(line) if of_idc else _facts(line, folder)
        series = facts.pop("series", None)
        address, fault = None, None
        if is_address(place):
            address = place
            try:
                checked(address)
            except CTError as error:
                fault = str(error)
        given = (shown(place) if address else place) + (f"#{series}" if series else "")
        # Where the series is given by its UID, that stays out of the name: it identifies a person.
        number = f"-{series}" if series and re.fullmatch(r"\d+(\.\d+)?", series) else ""
        name = facts.pop("name") or (stem(ct) if address else name_below(root, ct)) + number
        scans.append(CohortScan(name, ct, given, series, fault=fault, address=address, **facts))
    table.need_distinct([scan.given for scan in scans], "scan")
    return scans, () if of_idc else _unused(table)


def _facts(line: Line, folder: Path) -> dict[str, Any]:
    masks = line.text("heart"), line.text("lesions")
    heart, lesions = (folder / mask if mask else None for mask in masks)
    return {
        **{name: printable(line.text(name)) for name in ("name", "patient", "session", "group")},
        "series": line.text("series") or None,
        **{"heart": heart, "lesions": lesions, "masks": masks},
    }


def _idc_facts(line: Line) -> dict[str, Any]:
    """Of a line of the Imaging Data Commons, whose patients have no names."""
    patient = printable(line.text("PatientID"))
    number = printable(line.text("SeriesNumber")).removesuffix(".0")
    name = "-".join(part for part in (patient, printable(line.text("StudyDate")), number) if part)
    return {"name": name, "patient": patient, "group": printable(line.text("collection_id"))}


def _unused(table: Table) -> tuple[ScanWarning, ...]:
    unused = [name.lower() for name in map(printable, table.columns) if name.lower() not in _COLUMNS]
    if not unused:
        return ()
    message = (
        f"These columns of {table.path.name} are not used: {some(unused)}. The known columns are {', '.join(_COLUMNS)}."
    )
    return (ScanWarning("columns-unused", message),)


def read_table_or_parquet(path: Path) -> Table:
    """A table as `read_table` gives it; also one in parquet. Raises TableError."""
    if not path.name.lower().endswith(".parquet"):
        return read_table(path, short_lines=True)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"The table {path} cannot be read as parquet ({error}). Write it again.") from error
    texts = ({key.lower(): "" if v is None else str(v).strip() for key, v in row.items()} for row in rows.to_pylist())
    lines = tuple(Line(path, number, cells) for number, cells in enumerate(texts, 1))
    if not lines:
        raise TableError(f"The table {path} has no rows.")
    return Table(path, tuple(rows.column_names), lines)


def _common_folder(paths: Iterable[Path]) -> Path:
    try:
        return Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:  # on several drives of Windows
        return Path()


def name_below(root: Path, path: Path) -> str:
    """The path below the root without the image's ending; a file called like WHOLE_FOLDER goes by its folder."""
    inside = path.is_relative_to(root) and path != root
    parts = list(path.relative_to(root).parts) if inside else [path.name]
    parts[-1] = stem(path)
    if parts[-1].lower() == WHOLE_FOLDER:
        parts = parts[:-1] or [path.parent.name]
    return printable("/".join(parts)) or "scan"
