"""Tables of scans, with a line per scan: columns, reading and writing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.ct import ScanWarning
from ..core.tables import Line, Table, read_table, write_table
from ..core.text import abbreviated_list, printable
from .folder import name_below
from .source import ScanSource

_COLUMNS = ("ct", "name", "series", "heart", "lesions", "patient", "session", "group", "pericardium")


def scans_of_table(path: Path) -> tuple[list[ScanSource], tuple[ScanWarning, ...]]:
    """Return the scans of a table, in its order, and warnings. Raises TableError.

    path: UTF-8 text with a line per scan, separated by comma, semicolon or tab, with the columns of `scan_of_line`.
    """
    table = read_table(path.resolve(), short_lines=True)
    table.need("ct")
    scans = [scan_of_line(line) for line in table.lines]
    root = _common_folder(scan.ct for scan in scans)
    scans = [scan if scan.name else replace(scan, name=_name_below(root, scan)) for scan in scans]
    table.need_distinct([scan.key for scan in scans], "scan")
    return scans, _unused(table)


def scan_of_line(line: Line) -> ScanSource:
    """Return the scan of a table's line, whose files may be missing. Raises TableError without a ct.

    Columns are ct (file or DICOM folder), and optionally name, series, heart, lesions, pericardium (files), patient,
    session and group. Paths are relative to the table's folder.
    """
    line.need("ct")
    ct, *masks = (line.file(part, exists=False) for part in ("ct", "heart", "lesions", "pericardium"))
    assert ct is not None
    texts: dict[str, Any] = {column: printable(line.text(column)) for column in ("name", "patient", "session", "group")}
    series = line.text("series")
    key = line.text("ct") + (f"#{series}" if series else "")
    heart, lesions, pericardium = masks
    return ScanSource(
        ct=ct, series=series or None, heart=heart, lesions=lesions, pericardium=pericardium, key=key, **texts
    )


def write_scans(path: Path, scans: Sequence[ScanSource]) -> None:
    """Write a table of scans for `cac cohort`, without the readers' masks, which scoring must not know."""
    of_study = (name for name in ("session", "group") if any(getattr(scan, name) for scan in scans))
    columns = ("ct", "name", "series", "patient", *of_study)
    write_table(path, columns, (vars(scan) | {"ct": scan.ct.resolve()} for scan in scans))


def _name_below(root: Path, scan: ScanSource) -> str:
    # A UID identifies a person, so only the number of a series becomes part of the name.
    number = f"-{scan.series}" if re.fullmatch(r"\d+(\.\d+)?", scan.series or "") else ""
    return name_below(root, scan.ct) + number


def _unused(table: Table) -> tuple[ScanWarning, ...]:
    unused = [name.lower() for name in map(printable, table.columns) if name.lower() not in _COLUMNS]
    if not unused:
        return ()
    name, columns, known = table.path.name, abbreviated_list(unused), ", ".join(_COLUMNS)
    message = f"These columns of {name} are not used: {columns}. The known columns are {known}."
    return (ScanWarning("columns-unused", message),)


def _common_folder(paths: Iterable[Path]) -> Path:
    try:
        return Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:  # on several drives of Windows
        return Path()
