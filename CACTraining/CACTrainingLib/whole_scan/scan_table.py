"""A table of CTs with a score for each artery, read from CSV with errors that name the line."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.table_cells import (
    PLAUSIBLE,
    SEXES,
    Line,
    TableError,
    check_lines,
    check_names,
    choice_in,
    file_in,
    number_in,
    patient_in,
    read_lines,
    text_in,
)
from ..phantom.anatomy.demographics import AGATSTON_PER_MG

ARTERIES = ("LM", "LAD", "LCX", "RCA")
TABLE = "cohort.csv"


@dataclass(frozen=True)
class TableScan:
    """A line of a table. series: which of the DICOM series in the folder `ct`. heart: a mask; found where None.

    agatston: by ARTERIES; None where it is not known. contrast: whether a contrast agent is in the blood.
    """

    name: str
    patient: str
    ct: Path
    series: str | None = None
    heart: Path | None = None
    agatston: dict[str, float] | None = None
    age_years: float | None = None
    sex: str | None = None
    bmi_kg_m2: float | None = None
    contrast: bool = False

    @property
    def total(self) -> float | None:
        """Agatston score of all arteries; None when it is not known."""
        return None if self.agatston is None else sum(self.agatston.values())


def read_scan_table(table: Path, scored: bool = True) -> tuple[TableScan, ...]:
    """The scans of a table, or of the one in a cohort's folder.

    A cohort of `cac phantom` is known by its column mass_mg_LM: the score of an artery is AGATSTON_PER_MG times its
    true mass. A table of one's own has the columns patient and ct; agatston_LM to agatston_RCA (needed when `scored`);
    and where known name, series, heart, age_years, sex, bmi_kg_m2, contrast (0 or 1). Paths are relative to the table;
    empty cells are not known. Raises TableError.
    """
    path, columns, lines = read_lines(table, TABLE)
    digital = "mass_mg_LM" in columns
    scores = [f"mass_mg_{a}" if digital else f"agatston_{a}" for a in ARTERIES]
    check_lines(path, columns, lines, ["patient", "folder" if digital else "ct", *(scores if scored else [])])
    contrast = digital and _made_with_contrast(path.parent)
    read = _digital if digital else _own
    scans = [read(line, f"line {number} of {path}", path) for number, line in enumerate(lines, 2)]
    if scored and (lacking := [scan.name for scan in scans if scan.agatston is None]):
        raise TableError(f"{len(lacking)} rows of {path} lack scores, among them {lacking[0]}. Fill or remove them.")
    check_names(path, [scan.name for scan in scans])
    return tuple(replace(scan, contrast=True) if contrast else scan for scan in scans)


def table_hash(scans: tuple[TableScan, ...]) -> str:
    """SHA-256 of all that training takes from a table, whatever the order of its lines and where its files lie."""
    lines = [
        repr((s.name, s.patient, s.series, sorted((s.agatston or {}).items()), s.age_years, s.sex, s.contrast))
        for s in scans
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def kind_of_data(scans: Sequence[TableScan]) -> str:
    """What the scans are, for a model's card: digital patients by the truth beside their CTs, or a user's."""
    digital = all((scan.ct.parent / "truth.json").is_file() for scan in scans)
    return "digital patients' chest CT with known calcium" if digital else "chest CT of a user's table"


def check_others(learned: Sequence[TableScan], others: Sequence[TableScan]) -> None:
    """Raises TableError where a patient of --others is learned from, or has coronary calcium."""
    if both := {scan.patient for scan in learned} & {scan.patient for scan in others}:
        raise TableError(f"Patient {min(both)} is in --others and is learned from. Test on other patients.")
    if calcified := [scan.name for scan in others if scan.total]:
        raise TableError(f"{calcified[0]} of --others has coronary calcium. Give patients without any.")


def _made_with_contrast(folder: Path) -> bool:
    """Whether a digital cohort's settings say so; not every one of an earlier version has them."""
    try:
        content = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
        return bool(content["settings"].get("contrast", False))
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _digital(line: Line, where: str, path: Path) -> TableScan:
    folder = file_in(line, "folder", where, path)
    if folder is None or not (ct := folder / "ct.nii.gz").is_file():
        raise TableError(f"The folder of {where} holds no ct.nii.gz.")
    name = text_in(line, "folder").replace("/", "_")
    return _known(line, where, name, ct, None, None, ("mass_mg_", AGATSTON_PER_MG))


def _own(line: Line, where: str, path: Path) -> TableScan:
    if (ct := file_in(line, "ct", where, path)) is None:
        raise TableError(f"There is no ct in {where}.")
    name = text_in(line, "name") or where.partition(" of ")[0]
    heart = file_in(line, "heart", where, path)
    return _known(line, where, name, ct, text_in(line, "series") or None, heart, ("agatston_", 1.0))


def _known(
    line: Line, where: str, name: str, ct: Path, series: str | None, heart: Path | None, scores: tuple[str, float]
) -> TableScan:
    """scores: what the columns of scores begin with, and the factor to Agatston scores."""
    prefix, factor = scores
    found = {artery: number_in(line, prefix + artery, where, 0.0, math.inf) for artery in ARTERIES}
    return TableScan(
        name=name,
        patient=patient_in(line, where),
        ct=ct,
        series=series,
        heart=heart,
        agatston=None if None in found.values() else {a: factor * score for a, score in found.items()},
        **{column: number_in(line, column, where, *limits) for column, limits in PLAUSIBLE.items()},
        sex=choice_in(line, "sex", where, SEXES),
        contrast=choice_in(line, "contrast", where, ("0", "1")) == "1",
    )
