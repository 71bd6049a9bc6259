"""Facts and files with which a validation is handed on: its main figures lie as `results.md` and `results/` in docs.

Maintainers append the section and the table to theirs.
"""

from __future__ import annotations

import datetime
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from CACScoringLib.core.files import file_sha256, write_text_atomically
from CACScoringLib.core.processes import core_count, processor_name
from CACScoringLib.core.tables import write_table
from CACScoringLib.core.version import VERSION

from ..evaluation.page import cell_text
from ..evaluation.parts import Cell, Table
from .manifest import MANIFEST
from .reference import Reference

PAGE, FIGURES = "results.md", "results/figures.csv"
"""Files in the folder of a validation."""


def write_handover(folder: Path, tables: Sequence[Table], title: str, count: str) -> None:
    """Write the page's section and its table.

    Args:
        folder: Folder of the validation.
        tables: The main figures, in tables of the same columns.
        title: Title of the reference.
        count: Number of scans compared, of how many.
    """
    (folder / FIGURES).parent.mkdir(parents=True, exist_ok=True)
    date = datetime.date.today().isoformat()
    columns = tables[0].columns[1:]
    rows = [(row[0], *map(_short, row[1:])) for table in tables for row in table.rows]
    titles = ("quantity", *columns, "data", "date", "version")
    write_table(folder / FIGURES, titles, [(*row, count, date, VERSION) for row in rows], guarded=True)
    page = [
        f"## Validation against {title}",
        "",
        f"Validated by NAME (INSTITUTION) on {count}. CAC {VERSION}, {date}. [All figures]({FIGURES})",
        "",
        _line("", *columns),
        "|---" * (1 + len(columns)) + "|",
        *(_line(*row) for row in rows),
        "",
    ]
    write_text_atomically(folder / PAGE, "\n".join(page))


def _line(*cells: Cell) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def source_facts(file: Path, scans: Path | None, reference: Reference) -> dict[str, str]:
    """Return the reference with its SHA-256, if it is a file, and the manifest of the scans with its own."""
    stated = f"{file.name}: {reference.title}"
    if file.is_file():
        published, digest = reference.layout.sha256, file_sha256(file)
        source = "" if not published else " as published" if digest == published else ", not the published file"
        stated += f", SHA-256 {digest}{source}"
    facts = {"Reference": stated}
    if scans is not None and (scans / MANIFEST).is_file():
        facts["Manifest"] = f"SHA-256 {file_sha256(scans / MANIFEST)}"
    return facts


def machine_facts() -> dict[str, str]:
    """Return the versions and the machine."""
    return {
        "Program": f"CAC {VERSION}, Python {platform.python_version()}",
        "Machine": f"{processor_name()}, {core_count()} cores, {platform.system()}",
    }


def _short(cell: Cell) -> str:
    """Return a figure as in the documentation: without n, and without the zero before the point."""
    return re.sub(r"\b0(?=\.\d)", "", re.sub(r", n = [\d,]+$", "", cell_text(cell)))
