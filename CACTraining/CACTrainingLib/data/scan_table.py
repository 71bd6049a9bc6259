"""Rows of tables of scans, CTs or radiographs, read from CSV with errors that name the line."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from CACScoringLib.core.grid import triple
from CACScoringLib.core.tables import Line, TableError, read_table

SEXES = ("F", "M")
_PLAUSIBLE = {"age_years": (0.0, 120.0), "bmi_kg_m2": (8.0, 100.0)}


@dataclass(frozen=True)
class TableScan:
    """Row of a table of scans.

    Attributes:
        name: Unique name.
        patient: Patient of the scan.
        files: Files of a CT as "ct" and optionally "heart" (mask), of radiographs by view.
        scores: Known Agatston scores: of a CT by artery, all or none; of radiographs by label.
        series: DICOM series in a folder; None for a single one.
        age_years: Age, None if unknown.
        sex: Sex in SEXES, None if unknown.
        bmi_kg_m2: Body mass index, None if unknown.
        contrast: True with a contrast agent in the blood.
    """

    name: str
    patient: str
    files: dict[str, Path]
    scores: dict[str, float] = field(default_factory=dict)
    series: str | None = None
    age_years: float | None = None
    sex: str | None = None
    bmi_kg_m2: float | None = None
    contrast: bool = False

    @property
    def ct(self) -> Path:
        return self.files["ct"]

    @property
    def heart(self) -> Path | None:
        return self.files.get("heart")

    @property
    def total(self) -> float | None:
        """Total Agatston score, None if unknown."""
        return sum(self.scores.values()) if self.scores else None

    @property
    def factors(self) -> tuple[float, float, float]:
        """Age in years, sex (1 for men, 0 for women) and body mass index; NaN if unknown."""
        sex = None if self.sex is None else SEXES.index(self.sex)
        return triple(math.nan if value is None else float(value) for value in (self.age_years, sex, self.bmi_kg_m2))


def read_rows(
    table: Path, usual_name: str, columns: Iterable[str], row: Callable[[Line], TableScan]
) -> tuple[TableScan, ...]:
    """Read the rows of a table, or of the table `usual_name` in a folder.

    columns: required columns. row: function from a line to a row. Raises TableError, also for rows with the same name.
    """
    scan_table = read_table(table, columns, usual_name)
    rows = tuple(row(line) for line in scan_table.lines)
    scan_table.need_distinct([scan.name for scan in rows])
    return rows


def patient_facts(line: Line) -> dict[str, Any]:
    """Return a line's facts about the patient by fields of `TableScan`. Raises TableError."""
    if not (patient := line.text("patient")):
        raise TableError(
            f"There is no patient in {line.where}; patients must be distinguished, or the split would leak."
        )
    numbers = {name: line.number_in(name, *limits) for name, limits in _PLAUSIBLE.items()}
    return {"patient": patient, "sex": line.choice("sex", SEXES), **numbers}


def table_hash(rows: Iterable[TableScan]) -> str:
    """Return a SHA-256 of a table's training data, independent of line order and file locations."""
    lines = []
    for row in rows:
        scores = sorted(row.scores.items())
        if "ct" in row.files:
            lines.append(repr((row.name, row.patient, row.series, scores, row.age_years, row.sex, row.contrast)))
        else:
            lines.append(repr((row.name, row.patient, scores, row.age_years, row.sex, row.bmi_kg_m2)))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
