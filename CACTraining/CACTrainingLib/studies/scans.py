"""Which scans a study has: a cohort of digital patients, anyone's pairs that a table lists, or those of a project."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from CACScoringLib.core.tables import read_table, write_table

from ..experiments.configuration import StudyError
from ..project.project import is_project
from .project_scans import DEFAULT_USE, find_project_scans
from .study_scan import StudyScan

TABLE_COLUMNS = ("patient", "scan", "ct", "series", "heart", "lesions")
"""Of a table of pairs; the first three are needed."""


def find_study_scans(
    source: Path, pairs: int | None = None, use: str | None = None, annotator: str | None = None
) -> tuple[list[StudyScan], list[str]]:
    """The scans of a cohort by patient, and what is wrong with others, a sentence each.

    source: folder as `cac phantom` writes it, a table (CSV, TABLE_COLUMNS, paths relative to it), or a project. pairs:
    only the first patients that have both scans. use, annotator: of a project only, see
    `project_scans.find_project_scans`; its use is "test" by default. Raises StudyError, TableError, ProjectError.
    """
    if is_project(source):
        scans, warnings = find_project_scans(source, use or DEFAULT_USE, annotator)
        if not scans:
            raise StudyError(f"No scan of {source} can be studied: {warnings[0]}")
    elif use is not None or annotator is not None:
        raise StudyError(f"{source} is not a project: only a project's scans have a use and annotators.")
    elif source.is_dir():
        scans, warnings = _digital(source)
    elif source.is_file():
        scans, warnings = _listed(source)
    else:
        raise StudyError(f"{source} does not exist. Give the folder of a cohort, or a table of scan pairs (CSV).")
    if not scans:
        raise StudyError(
            f"{source} holds no scan that can be studied{': ' + warnings[0] if warnings else ''}. Give a cohort as cac "
            f"phantom writes it, or a table (CSV) with the columns {', '.join(TABLE_COLUMNS)}."
        )
    return (scans if pairs is None else _first_pairs(scans, pairs, source)), warnings


def write_scan_table(scans: Iterable[StudyScan], path: Path) -> None:
    """The scans as a table that `cac cohort` takes. Readers' masks are left out: scoring must not know them."""
    rows = ((s.ct.resolve(), s.name, s.series, s.patient, f"scan {s.number}") for s in scans)
    write_table(path, ("ct", "name", "series", "patient", "group"), rows)


def lone_patients(scans: Iterable[StudyScan]) -> list[str]:
    """Patients without both scans."""
    found = _by_patient(scans)
    return [patient for patient, own in found.items() if not {1, 2} <= set(own)]


def _first_pairs(scans: Sequence[StudyScan], pairs: int, source: Path) -> list[StudyScan]:
    if pairs < 1:
        raise StudyError(f"A study has at least one pair; {pairs} were asked for. Give --pairs 1 or more.")
    whole = [own for own in _by_patient(scans).values() if {1, 2} <= set(own)]
    if not whole:
        raise StudyError(f"No patient in {source} has two scans. Leave --pairs out to study single scans.")
    return [own[number] for own in whole[:pairs] for number in (1, 2)]


def _by_patient(scans: Iterable[StudyScan]) -> dict[str, dict[int, StudyScan]]:
    found: dict[str, dict[int, StudyScan]] = {}
    for scan in scans:
        found.setdefault(scan.patient, {})[scan.number] = scan
    return found


def _digital(folder: Path) -> tuple[list[StudyScan], list[str]]:
    scans: dict[tuple[str, int], StudyScan] = {}
    warnings = []
    for path in sorted(folder.rglob("truth.json"), key=lambda own: _natural(own.relative_to(folder).as_posix())):
        here, name = path.parent, path.parent.relative_to(folder).as_posix()
        if not (here / "ct.nii.gz").is_file():
            warnings.append(f"{name} has a truth.json but no ct.nii.gz.")
            continue
        try:
            truth = json.loads(path.read_text(encoding="utf-8"))
            key = str(truth["patient"]), int(truth["scan"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.append(f"{name} is left out: its truth.json cannot be read ({type(error).__name__}: {error}).")
            continue
        if key[1] not in (1, 2) or key in scans:
            warnings.append(
                f"{name} is left out: scan {key[1]} of patient {key[0]} is not a scan of a pair, or is listed twice."
            )
            continue
        scans[key] = StudyScan(name, *key, here / "ct.nii.gz", truth=here)
    return list(scans.values()), warnings


def _listed(path: Path) -> tuple[list[StudyScan], list[str]]:
    scans: dict[tuple[str, int], StudyScan] = {}
    warnings = []
    for line in read_table(path, TABLE_COLUMNS[:3], short_lines=True).lines:
        patient, number = line.text("patient"), line.text("scan")
        if not patient or number not in ("1", "2") or not line.text("ct"):
            warnings.append(f"Line {line.number} is left out: it needs a patient, a scan number 1 or 2, and a ct.")
            continue
        if (patient, int(number)) in scans:
            warnings.append(f"Line {line.number} is left out: scan {number} of {patient} is listed above.")
            continue
        told = {key: line.text(key) for key in ("ct", "heart", "lesions")}
        files = {key: path.resolve().parent / text if text else None for key, text in told.items()}
        name = f"{patient}/{number}"
        scans[patient, int(number)] = StudyScan(
            name, patient, int(number), files["ct"], line.text("series") or None, None, files["heart"], files["lesions"]
        )
    return list(scans.values()), warnings


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if at % 2 else (-1, part) for at, part in enumerate(parts)]
