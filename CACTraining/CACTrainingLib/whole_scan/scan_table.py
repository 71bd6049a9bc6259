"""Tables of CTs with a score for each artery, split by patient into training and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.files import read_json
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import Line, TableError
from CACScoringLib.core.tables import read_table as read_lines

from ..data.scan_table import TableScan, patient_facts, read_rows, table_hash
from ..phantom import AGATSTON_PER_MG
from ..statistics.patient_folds import category_of, parts_by_patient

TABLE = "cohort.csv"


def read_scan_table(table: Path) -> tuple[TableScan, ...]:
    """Read the scans of a table, or of the table in a cohort's folder.

    A cohort of `cac phantom` has a column mass_mg_LM; the score of an artery is AGATSTON_PER_MG times its true mass. A
    user's table has the columns patient, ct and agatston_LM to agatston_RCA, and optionally name, series, heart,
    age_years, sex, bmi_kg_m2, contrast (0 or 1). Paths are relative to the table; empty cells are unknown. Raises
    TableError.
    """
    path = table / TABLE if table.is_dir() else table
    digital = "mass_mg_LM" in read_lines(table, usual_name=TABLE)
    scores = {artery: f"mass_mg_{artery}" if digital else f"agatston_{artery}" for artery in ARTERIES}
    needed = ["patient", "folder" if digital else "ct", *scores.values()]
    scans = read_rows(table, TABLE, needed, partial(_digital if digital else _user, scores))
    if lacking := [scan.name for scan in scans if not scan.scores]:
        raise TableError(f"{len(lacking)} rows of {path} lack scores, among them {lacking[0]}. Fill or remove them.")
    if digital and _has_contrast(path.parent):
        scans = tuple(replace(scan, contrast=True) for scan in scans)
    return scans


def are_digital(scans: Sequence[TableScan]) -> bool:
    """Return True if all scans are of digital patients, with a truth beside their CTs."""
    return all((scan.ct.parent / "truth.json").is_file() for scan in scans)


def kind_of_data(scans: Sequence[TableScan]) -> str:
    """Describe the scans for a model's card."""
    digital, real = "digital patients' chest CT with known calcium", "chest CT of a user's table"
    return digital if are_digital(scans) else real


def describe_data(scans: Sequence[TableScan], counts: Mapping[str, int]) -> str:
    """Describe the data for a model's card. counts: number of scans by their use."""
    uses = ", ".join(f"{use} {count}" for use, count in counts.items())
    return f"{kind_of_data(scans)}; {uses} scans; table SHA-256 {table_hash(scans)}"


def _has_contrast(folder: Path) -> bool:
    """Return True if a digital cohort's settings have contrast; older cohorts may lack settings."""
    try:
        content = read_json(folder / "cohort.json")
        return bool(content["settings"].get("contrast", False))
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _digital(columns: dict[str, str], line: Line) -> TableScan:
    folder = line.file("folder")
    if folder is None or not (ct := folder / "ct.nii.gz").is_file():
        raise TableError(f"The folder of {line.where} holds no ct.nii.gz.")
    name = line.text("folder").replace("/", "_")
    return TableScan(name, files={"ct": ct}, scores=_scores(line, columns, AGATSTON_PER_MG), **_facts(line))


def _user(columns: dict[str, str], line: Line) -> TableScan:
    line.need("ct")
    files = {name: file for name in ("ct", "heart") if (file := line.file(name))}
    name, series = line.text("name") or f"line {line.number}", line.text("series") or None
    return TableScan(name, files=files, scores=_scores(line, columns, 1.0), series=series, **_facts(line))


def _scores(line: Line, columns: dict[str, str], factor: float) -> dict[str, float]:
    """Return scores by artery, empty if some are unknown. factor: Agatston scores per unit of the columns."""
    numbers = {artery: line.number_in(column, 0.0) for artery, column in columns.items()}
    scores = {artery: factor * number for artery, number in numbers.items() if number is not None}
    return scores if len(scores) == len(columns) else {}


def _facts(line: Line) -> dict[str, Any]:
    return patient_facts(line) | {"contrast": line.choice("contrast", ("0", "1")) == "1"}


TESTED = "test "
"""Prefix of test scans' names, which keeps names of two tables apart."""

OneTable = tuple[tuple[TableScan, ...], list[str], list[str]]
"""All scans, names of the training scans, and names of the test scans."""


def split_or_join(scans: Sequence[TableScan], test: Sequence[TableScan] = ()) -> OneTable:
    """Return training and test scans: join `test`, or without it split a fifth from `scans` (`held_out`).

    Raises TableError for a patient in both.
    """
    if not test:
        return (tuple(scans), *held_out(scans))
    if shared := {scan.patient for scan in scans} & {scan.patient for scan in test}:
        raise TableError(f"Patient {min(shared)} is in --test and is learned from. Test on other patients.")
    tested = tuple(replace(scan, name=TESTED + scan.name) for scan in test)
    return (*scans, *tested), [scan.name for scan in scans], [scan.name for scan in tested]


def held_out(scans: Sequence[TableScan]) -> tuple[list[str], list[str]]:
    """Split scans by patient; returns names for training, and of about a fifth held out. Raises TableError."""
    return folds(scans, 5)[0]


def folds(scans: Sequence[TableScan], count: int, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Return names of the scans outside and inside each of `count` parts.

    Raises TableError if patients, or scans of the most common category of score, are fewer than the parts.
    """
    patients = np.array([scan.patient for scan in scans])
    names = np.array([scan.name for scan in scans])
    category = category_of(np.array([scan.total for scan in scans]))
    commonest = max(np.bincount(category), default=0)
    if count < 2 or min(len(np.unique(patients)), commonest) < count:
        raise TableError(
            f"{len(np.unique(patients))} patients ({commonest} of one category) cannot be split in {count}. Give more."
        )
    part = parts_by_patient(patients, category, count, seed)
    return [(names[part != number].tolist(), names[part == number].tolist()) for number in range(count)]


@dataclass(frozen=True)
class SourceSettings:
    """Tables for the test, and cache of a training.

    Attributes:
        test: Table of other patients for the test; None for a fifth of --data.
        noncoronary_controls: Table of patients with calcium outside the coronary arteries only, for the test.
        cache: Folder of prepared scans; None for one beside the model.
    """

    test: Path | None = None
    noncoronary_controls: Path | None = None
    cache: Path | None = None

    def read(self, data: Path) -> tuple[tuple[TableScan, ...], list[str], tuple[TableScan, ...]]:
        """Read all scans of data and test, the names of test scans, and the controls.

        Raises TableError if a training patient is in the test, or a control has coronary calcium.
        """
        training, test, controls = (
            read_scan_table(path) if path else () for path in (data, self.test, self.noncoronary_controls)
        )
        scans, _, test_names = split_or_join(training, test)
        check_noncoronary_controls(scans, controls)
        return scans, test_names, controls


def check_noncoronary_controls(training: Sequence[TableScan], noncoronary_controls: Sequence[TableScan]) -> None:
    """Raise TableError if a patient of noncoronary_controls is a training patient, or has coronary calcium."""
    if shared := {scan.patient for scan in training} & {scan.patient for scan in noncoronary_controls}:
        raise TableError(
            f"Patient {min(shared)} is in noncoronary_controls and is learned from. Test on other patients."
        )
    if calcified := [scan.name for scan in noncoronary_controls if scan.total]:
        raise TableError(f"{calcified[0]} of noncoronary_controls has coronary calcium. Give patients without any.")


def on_controls(positive: np.ndarray) -> dict[str, object]:
    """Return a card's result on controls with non-coronary calcium only, bool [n]; empty without controls."""
    if not len(positive):
        return {}
    return {"non_coronary_only": {"patients": len(positive), "called_coronary": int(positive.sum())}}


def warn_of_failures(failed: dict[str, str], progress: Progress) -> None:
    """Report scans that could not be prepared, by name with their reason."""
    for name, reason in failed.items():
        progress.warning(ScanWarning("scan-left-out", f"{name} was left out: {reason}"))
