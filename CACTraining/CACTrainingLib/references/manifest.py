"""Manifest of downloaded scans: a line per participant or series, with the chosen series, its place and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from CACScoringLib.core.tables import read_table, write_table

MANIFEST = "manifest.csv"
"""File in the folder of the scans."""


@dataclass(frozen=True)
class ManifestRow:
    """A participant with one series, or without and why.

    Attributes:
        patient: Patient ID.
        series: Series instance UID; empty without a series.
        kernel: Convolution kernel by the series' description.
        thickness_mm: Slice thickness by the description.
        images: Number of images.
        size_mb: Size in MB.
        licence: Licence.
        ct: Folder of the images, relative to the manifest; empty without a series.
        reason: Reason why this series was chosen.
        problem: Reason why there is no series, or why its download failed; empty otherwise.
    """

    patient: str
    series: str = ""
    kernel: str = ""
    thickness_mm: str = ""
    images: str = ""
    size_mb: str = ""
    licence: str = ""
    ct: str = ""
    reason: str = ""
    problem: str = ""


_COLUMNS = tuple(field.name for field in fields(ManifestRow))


def write_manifest(folder: Path, rows: Sequence[ManifestRow]) -> Path:
    """Write the manifest and return its path. Raises OSError."""
    write_table(folder / MANIFEST, _COLUMNS, [vars(row) for row in rows], guarded=True)
    return folder / MANIFEST


def read_manifest(folder: Path) -> list[ManifestRow]:
    """Return the rows of a folder's manifest; their `problem` also states a series that is not there.

    Raises TableError if it cannot be read.
    """
    rows = []
    for line in read_table(folder / MANIFEST, ("patient", "series", "ct", "problem"), short_lines=True).lines:
        row = ManifestRow(**{column: line.text(column) for column in _COLUMNS})
        if not row.problem and not (row.ct and (folder / row.ct).is_dir()):
            row = replace(row, problem="Its series is not there. Rerun cac data to fetch it.")
        rows.append(row)
    return rows
