"""Scans of a cohort, and reading them from a table."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..core.ct import ScanWarning
from ..core.tables import Line, Table, TableError, read_table
from ..core.text import abbreviated_list, printable
from ..io.reading import stem

WHOLE_FOLDER = "ct"
"""Name of an image whose folder is one scan, as in cohorts of digital patients: other files and subfolders (masks,
maps, a DICOM copy) belong to the same scan."""

_COLUMNS = ("ct", "name", "series", "heart", "lesions", "patient", "session", "group", "pericardium")


@dataclass(frozen=True, slots=True)
class CohortScan:
    """One scan of a cohort.

    Attributes:
        name: Readable name, not necessarily unique.
        ct: Image file or DICOM folder.
        key: Unique key, independent of the cohort's location: path below the folder or in the table, and series.
        series: Series as in `read_ct`.
        heart: File of the heart mask.
        lesions: File of lesion labels.
        patient: Patient.
        session: Session.
        group: Group.
        pericardium: File of the mask of all within the pericardium.
        fault: Reason why it cannot be scored, if known in advance.
    """

    name: str
    ct: Path
    key: str
    series: str | None = None
    heart: Path | None = None
    lesions: Path | None = None
    patient: str = ""
    session: str = ""
    group: str = ""
    pericardium: Path | None = None
    fault: str | None = None

    @property
    def label(self) -> str:
        """Anonymous label in tables and reports."""
        return scan_digest(self.key)


def scan_digest(key: str) -> str:
    """Return the anonymous label of a scan in `cohort.json`. key: `CohortScan.key`, which may identify a person."""
    return hashlib.sha256(json.dumps([key]).encode()).hexdigest()[:32]


def scans_of_table(path: Path) -> tuple[list[CohortScan], tuple[ScanWarning, ...]]:
    """Return the scans of a table, in its order, and warnings. Raises TableError.

    path: UTF-8 text with a line per scan, separated by comma, semicolon or tab, or parquet. Columns: ct (file or DICOM
    folder), and optionally name, series, heart, lesions, pericardium (files), patient, session, group (copied into the
    result).
    Paths are relative to the table's folder.
    """
    table = _read_table_or_parquet(path)
    table.need("ct")
    folder = path.resolve().parent
    for line in table.lines:
        line.need("ct")
    cts = [folder / line.text("ct") for line in table.lines]
    root = _common_folder(cts)
    scans = []
    for line, ct in zip(table.lines, cts, strict=True):
        series = line.text("series")
        masks = (line.text(column) for column in ("heart", "lesions", "pericardium"))
        heart, lesions, pericardium = (folder / mask if mask else None for mask in masks)
        # A UID identifies a person, so only the number of a series becomes part of the name.
        number = f"-{series}" if re.fullmatch(r"\d+(\.\d+)?", series) else ""
        name, patient, session, group = (
            printable(line.text(column)) for column in ("name", "patient", "session", "group")
        )
        key = line.text("ct") + (f"#{series}" if series else "")
        name = name or name_below(root, ct) + number
        scans.append(CohortScan(name, ct, key, series or None, heart, lesions, patient, session, group, pericardium))
    table.need_distinct([scan.key for scan in scans], "scan")
    return scans, _unused(table)


def _unused(table: Table) -> tuple[ScanWarning, ...]:
    unused = [name.lower() for name in map(printable, table.columns) if name.lower() not in _COLUMNS]
    if not unused:
        return ()
    message = (
        f"These columns of {table.path.name} are not used: {abbreviated_list(unused)}. The known columns are "
        f"{', '.join(_COLUMNS)}."
    )
    return (ScanWarning("columns-unused", message),)


def _read_table_or_parquet(path: Path) -> Table:
    """Read a table in text, see `read_table`, or parquet. Raises TableError."""
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
    """Return the path below the root without the image's ending; a file named WHOLE_FOLDER takes its folder's name."""
    inside = path.is_relative_to(root) and path != root
    parts = list(path.relative_to(root).parts) if inside else [path.name]
    parts[-1] = stem(path)
    if parts[-1].lower() == WHOLE_FOLDER:
        parts = parts[:-1] or [path.parent.name]
    return printable("/".join(parts)) or "scan"
