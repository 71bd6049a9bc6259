"""A table of CTs with a score for each artery, read from CSV with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from CACScoringLib.core.tables import Line, TableError
from CACScoringLib.core.tables import read_table as read_lines

from ..data.scan_table import TableScan, known_of, read_rows
from ..phantom.anatomy.demographics import AGATSTON_PER_MG

ARTERIES = ("LM", "LAD", "LCX", "RCA")
TABLE = "cohort.csv"


def read_scan_table(table: Path) -> tuple[TableScan, ...]:
    """The scans of a table, or of the one in a cohort's folder.

    A cohort of `cac phantom` is known by its column mass_mg_LM: the score of an artery is AGATSTON_PER_MG times its
    true mass. A table of one's own has the columns patient, ct and agatston_LM to agatston_RCA; and where known name,
    series, heart, age_years, sex, bmi_kg_m2, contrast (0 or 1). Paths are relative to the table; empty cells are not
    known. Raises TableError.
    """
    path = table / TABLE if table.is_dir() else table
    digital = "mass_mg_LM" in read_lines(table, usual_name=TABLE)
    scores = {artery: f"mass_mg_{artery}" if digital else f"agatston_{artery}" for artery in ARTERIES}
    needed = ["patient", "folder" if digital else "ct", *scores.values()]
    scans = read_rows(table, TABLE, needed, partial(_digital if digital else _own, scores))
    if lacking := [scan.name for scan in scans if not scan.scores]:
        raise TableError(f"{len(lacking)} rows of {path} lack scores, among them {lacking[0]}. Fill or remove them.")
    if digital and _made_with_contrast(path.parent):
        scans = tuple(replace(scan, contrast=True) for scan in scans)
    return scans


def are_digital(scans: Sequence[TableScan]) -> bool:
    """True if all scans are of digital patients, whose truth lies beside their CTs."""
    return all((scan.ct.parent / "truth.json").is_file() for scan in scans)


def kind_of_data(scans: Sequence[TableScan]) -> str:
    """Description of the scans for a model's card."""
    digital, own = "digital patients' chest CT with known calcium", "chest CT of a user's table"
    return digital if are_digital(scans) else own


def _made_with_contrast(folder: Path) -> bool:
    """Whether a digital cohort's settings say so; not every one of an earlier version has them."""
    try:
        content = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
        return bool(content["settings"].get("contrast", False))
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _digital(columns: dict[str, str], line: Line) -> TableScan:
    folder = line.file("folder")
    if folder is None or not (ct := folder / "ct.nii.gz").is_file():
        raise TableError(f"The folder of {line.where} holds no ct.nii.gz.")
    name = line.text("folder").replace("/", "_")
    return TableScan(name, files={"ct": ct}, scores=_scores(line, columns, AGATSTON_PER_MG), **_known(line))


def _own(columns: dict[str, str], line: Line) -> TableScan:
    line.need("ct")
    files = {name: file for name in ("ct", "heart") if (file := line.file(name))}
    name, series = line.text("name") or f"line {line.number}", line.text("series") or None
    return TableScan(name, files=files, scores=_scores(line, columns, 1.0), series=series, **_known(line))


def _scores(line: Line, columns: dict[str, str], factor: float) -> dict[str, float]:
    """By artery; none where not all are known. factor: from the columns' numbers to Agatston scores."""
    found = {artery: line.number_in(column, 0.0) for artery, column in columns.items()}
    return {} if None in found.values() else {artery: factor * score for artery, score in found.items()}


def _known(line: Line) -> dict[str, object]:
    return known_of(line) | {"contrast": line.choice("contrast", ("0", "1")) == "1"}
