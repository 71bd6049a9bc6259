"""A row of a table of scans, CTs or radiographs: what is known of one, read from CSV with errors that name the line."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from CACScoringLib.core.tables import Line, TableError, read_table

SEXES = ("F", "M")
_PLAUSIBLE = {"age_years": (0.0, 120.0), "bmi_kg_m2": (8.0, 100.0)}


@dataclass(frozen=True)
class TableScan:
    """A row of a table. files: of a CT "ct", and "heart" where its mask is given; of radiographs by view.

    scores: Agatston scores that are known: of a CT by artery, all or none; of radiographs by label. series: which of
    the DICOM series in a folder. contrast: whether a contrast agent is in the blood.
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
        """Agatston score of all arteries; None when it is not known."""
        return sum(self.scores.values()) if self.scores else None

    @property
    def factors(self) -> tuple[float, float, float]:
        """Age in years, 1 for men and 0 for women, body mass index; NaN where it is not known."""
        sex = None if self.sex is None else SEXES.index(self.sex)
        return tuple(math.nan if value is None else float(value) for value in (self.age_years, sex, self.bmi_kg_m2))


def read_rows(
    table: Path, usual_name: str, columns: Iterable[str], row: Callable[[Line], TableScan]
) -> tuple[TableScan, ...]:
    """The rows of a table, or of the one called `usual_name` in a folder. columns: that it has to have. row: makes one.

    Raises TableError, also where two rows have one name.
    """
    found = read_table(table, columns, usual_name)
    rows = tuple(row(line) for line in found.lines)
    found.need_distinct([one.name for one in rows])
    return rows


def known_of(line: Line) -> dict[str, object]:
    """Facts of a patient that every table holds, by the fields of `TableScan`. Raises TableError."""
    if not (patient := line.text("patient")):
        raise TableError(
            f"There is no patient in {line.where}; patients must be distinguished, or the split would leak."
        )
    numbers = {name: line.number_in(name, *limits) for name, limits in _PLAUSIBLE.items()}
    return {"patient": patient, "sex": line.choice("sex", SEXES), **numbers}


def table_hash(rows: Iterable[TableScan]) -> str:
    """SHA-256 of all that training takes from a table, whatever the order of its lines and where its files lie."""
    lines = []
    for row in rows:
        scores = sorted(row.scores.items())
        if "ct" in row.files:
            facts = (row.name, row.patient, row.series, scores, row.age_years, row.sex, row.contrast)
        else:
            facts = (row.name, row.patient, scores, row.age_years, row.sex, row.bmi_kg_m2)
        lines.append(repr(facts))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
