"""Facts and the table of main figures with which a validation is handed on."""

from __future__ import annotations

import datetime
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from CACScoringLib.core.files import file_sha256
from CACScoringLib.core.processes import core_count, processor_name
from CACScoringLib.core.tables import write_table
from CACScoringLib.core.version import VERSION

from ..evaluation.page import cell_text
from ..evaluation.parts import Cell, Table
from ..references.manifest import MANIFEST
from ..references.reference import Reference

FIGURES = "results/figures.csv"
"""Table of the main figures in the form of those in docs/results, to which maintainers add it."""


def write_figures(folder: Path, tables: Sequence[Table], count: str) -> None:
    """Write the table of the main figures.

    Args:
        folder: Folder of the validation.
        tables: The main figures, in tables of the same columns.
        count: Number of scans compared, of how many.
    """
    (folder / FIGURES).parent.mkdir(parents=True, exist_ok=True)
    titles = ("quantity", *tables[0].columns[1:], "data", "date", "version")
    facts = (count, datetime.date.today().isoformat(), VERSION)
    rows = [(row[0], *map(_short, row[1:]), *facts) for table in tables for row in table.rows]
    write_table(folder / FIGURES, titles, rows, guarded=True)


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
