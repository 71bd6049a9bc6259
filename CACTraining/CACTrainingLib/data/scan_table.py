"""Tables of scans, CTs or radiographs, for trainings and studies: rows with errors that name the line, and splits.

A table has a row for each scan, with the columns name, patient, series, age_years, sex, bmi_kg_m2 and contrast (0 or
1), and either

- ct, optionally heart (mask), and agatston_LM to agatston_RCA; or
- file, the radiograph, optionally lateral (a second picture), and LABELS.

Optional columns are use, by which patients for test are held out, and gated (1, else 0).
Paths are relative to the table; empty cells are unknown. The table of a cohort of `cac phantom` has the column folder
instead of ct, and the arteries' true masses instead of scores. A project has the table PROJECT_TABLE, as `cac data
import` writes it; the places and uses of its scans are the project's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path

import numpy as np

from CACScoringLib.core.categories import category_numbers
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import TableError
from CACScoringLib.core.files import read_json
from CACScoringLib.core.grid import triple
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import Line, Table, read_table
from CACScoringLib.statistics.patient_folds import parts_by_patient

from ..phantom import AGATSTON_PER_MG
from ..project.files import ProjectScan
from ..project.project import Project, is_project
from ..project.split import USES

LABELS = ("agatston", "agatston_reader", "agatston_automatic")
"""Columns of labels of radiographs: the true score, a reader's score on CT, and an automatic one (clinical score, or a
threshold in the heart)."""

PROJECT_TABLE = "scores.csv"
PROJECT_COLUMNS = (
    *("id", "name", "patient", "ct", "series", "use", "gated", LABELS[0]),
    *(f"{LABELS[0]}_{artery}" for artery in ARTERIES),
)
"""Table of the scores of a project's scans in its folder, and its columns."""

TOTAL = LABELS[:1]
"""The score that studies of the presence or category of calcium need."""

VIEWS = ("PA", "lateral")
SEXES = ("F", "M")
CT_TABLE, RADIOGRAPH_TABLE = "cohort.csv", "radiographs.csv"
"""Name of the table in a folder."""


@dataclass(frozen=True)
class TableScan:
    """Row of a table of scans.

    Attributes:
        name: Unique name.
        patient: Patient of the scan.
        files: Files of a CT as "ct" and optionally "heart" (mask), of radiographs by view.
        scores: Known Agatston scores: of a CT by artery, of radiographs by label.
        series: DICOM series in a folder; None for a single one.
        age_years: Age, None if unknown.
        sex: Sex in SEXES, None if unknown.
        bmi_kg_m2: Body mass index, None if unknown.
        contrast: True with a contrast agent in the blood.
        use: Use in USES, None if it has none.
        gated: True if it is gated, None if unknown.
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
    use: str | None = None
    gated: bool | None = None

    @property
    def ct(self) -> Path:
        return self.files["ct"]

    @property
    def heart(self) -> Path | None:
        return self.files.get("heart")

    @property
    def total(self) -> float | None:
        """True total Agatston score, None if unknown."""
        is_complete = all(artery in self.scores for artery in ARTERIES)
        return self.scores.get(LABELS[0], sum(self.scores[artery] for artery in ARTERIES) if is_complete else None)

    @property
    def factors(self) -> tuple[float, float, float]:
        """Age in years, sex (1 for men, 0 for women) and body mass index; NaN if unknown."""
        sex = None if self.sex is None else SEXES.index(self.sex)
        return triple(math.nan if value is None else float(value) for value in (self.age_years, sex, self.bmi_kg_m2))


def read_cts(
    table: Path, scores: Sequence[str] = ARTERIES, gated: bool | None = None, progress: Progress | None = None
) -> tuple[TableScan, ...]:
    """Read the CTs of a table, of the table in a cohort's folder, or of a project.

    Args:
        table: Table, or folder of a cohort or project.
        scores: Scores that every row must have; with those of all arteries it has the total, LABELS[0], too. A
            project's scans without one are left out with a warning.
        gated: True for gated scans alone, False for the others, None for all.
        progress: Progress that is warned.

    Raises:
        TableError: The table cannot be used.
        ProjectError: The project cannot be read.
    """
    scans = _read_scans(table, CT_TABLE, ("ct", "folder"), scores, gated, progress)
    if _has_contrast(table if table.is_dir() else table.parent):
        scans = tuple(replace(scan, contrast=True) for scan in scans)
    return scans


def read_radiographs(table: Path, label: str | None = None, gated: bool | None = None) -> tuple[TableScan, ...]:
    """Read the radiographs of a table, or of the table in a folder of `cac radiographs`.

    A file with all views (`radiograph.cases`) is listed under each view. label: score that every row must have. gated:
    as in `read_cts`. Raises TableError.
    """
    return _read_scans(table, RADIOGRAPH_TABLE, ("file",), (label,) if label else (), gated)


def read_listed(table: Path, usual_name: str, gated: bool | None = None, short_lines: bool = False) -> Table:
    """Read a table of scans, or of a project its scores with the present places and uses of its scans.

    Args:
        table: Table, or folder that holds `usual_name`, or a project.
        usual_name: Name of the table in a folder.
        gated: As in `read_cts`.
        short_lines: As in `read_table`.

    Raises:
        TableError: The table cannot be read, or no scan remains.
        ProjectError: The project cannot be read.
    """
    if is_project(table):
        if not (table / PROJECT_TABLE).is_file():
            raise TableError(
                f"The project {table} has no scores of its scans ({PROJECT_TABLE}). cac data import writes them for "
                "collections that have scores or labels; for other scans, give a table (CSV)."
            )
        content, scans = read_table(table / PROJECT_TABLE), {scan.id: scan for scan in Project.open(table).scans}
        present = ((line, scans[line.text("id")]) for line in content.lines if line.text("id") in scans)
        lines = [replace(line, cells={**line.cells, **_cells_of(scan)}) for line, scan in present]
    else:
        content = read_table(table, usual_name=usual_name, short_lines=short_lines)
        lines = [*content.lines]
    if gated is not None:
        lines = [line for line in lines if line.choice("gated", ("0", "1")) == str(int(gated))]
    if not lines:
        kind = {None: "", True: "gated ", False: "not gated "}[gated]
        advice = "Give another table." if gated is None else "Give another, or leave out the setting gated."
        raise TableError(f"{content.path} lists no {kind}scan. {advice}")
    return replace(content, lines=tuple(lines))


def _cells_of(scan: ProjectScan) -> dict[str, str]:
    return {name: str(getattr(scan, name) or "") for name in ("name", "patient", "ct", "series", "use")}


def _read_scans(
    table: Path,
    usual_name: str,
    sources: Sequence[str],
    scores: Sequence[str],
    gated: bool | None = None,
    progress: Progress | None = None,
) -> tuple[TableScan, ...]:
    content = read_listed(table, usual_name, gated)
    source = next((column for column in sources if column in content), sources[0])
    digital = f"mass_mg_{ARTERIES[0]}" in content
    by_artery = [score_column(artery, digital) for artery in ARTERIES]
    is_total = all(column in content for column in by_artery)
    needed = [score for score in scores if not (is_total and score == LABELS[0])]
    content.need("patient", source, *(score_column(score, digital) for score in needed))
    scans = tuple(_scan(line, source, digital) for line in content.lines)
    content.need_distinct([scan.name for scan in scans])
    for score in scores:
        is_known = [score in scan.scores or (score == LABELS[0] and scan.total is not None) for scan in scans]
        if lacking := [scan.name for scan, is_complete in zip(scans, is_known, strict=True) if not is_complete]:
            column = score_column(score, digital)
            message = f"{len(lacking)} rows of {content.path} lack {column}, such as {lacking[0]}."
            if len(lacking) == len(scans) or not is_project(table):
                raise TableError(f"{message} Fill or remove them.")
            scans = tuple(compress(scans, is_known))
            (progress or Progress()).warning(ScanWarning("scan-left-out", f"{message} They are left out."))
    return scans


def score_column(score: str, digital: bool = False) -> str:
    """Return the column of an artery's score, or of a score in LABELS."""
    return score if score in LABELS else f"{'mass_mg' if digital else 'agatston'}_{score}"


def _scan(line: Line, source: str, digital: bool) -> TableScan:
    if not (patient := line.text("patient")):
        raise TableError(
            f"There is no patient in {line.where}; patients must be distinguished, or the split would leak."
        )
    file, name = line.need_file(source), line.text("name") or f"line {line.number}"
    files = {column: path for column in ("heart", "lateral") if (path := line.file(column))}
    if source == "file":
        files |= dict.fromkeys(VIEWS, file) if file.suffix == ".npz" else {"PA": file}
    elif source == "ct":
        files["ct"] = file
    else:
        name, files["ct"] = line.text("folder").replace("/", "_"), file / "ct.nii.gz"
        if not files["ct"].is_file():
            raise TableError(f"The folder of {line.where} holds no ct.nii.gz.")
    numbers = {score: line.number_in(score_column(score, digital), 0.0) for score in (*ARTERIES, *LABELS)}
    unit = dict.fromkeys(ARTERIES, AGATSTON_PER_MG if digital else 1.0)
    return TableScan(
        name,
        patient,
        files,
        scores={score: unit.get(score, 1.0) * number for score, number in numbers.items() if number is not None},
        series=line.text("series") or None,
        age_years=line.number_in("age_years", 0.0, 120.0),
        sex=line.choice("sex", SEXES),
        bmi_kg_m2=line.number_in("bmi_kg_m2", 8.0, 100.0),
        contrast=line.choice("contrast", ("0", "1")) == "1",
        use=line.choice("use", USES),
        gated={"0": False, "1": True}.get(line.choice("gated", ("0", "1")) or ""),
    )


def _has_contrast(folder: Path) -> bool:
    """Return True if a digital cohort's settings have contrast; older cohorts may lack settings."""
    try:
        return bool(read_json(folder / "cohort.json")["settings"].get("contrast", False))
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def table_hash(rows: Iterable[TableScan]) -> str:
    """Return a SHA-256 of a table's training data, independent of line order and file locations."""
    lines = [
        repr((row.name, row.patient, row.series, sorted(row.scores.items()), row.factors, row.contrast)) for row in rows
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


TESTED = "test "
"""Prefix of test scans' names, which keeps names of two tables apart."""


def join(scans: Sequence[TableScan], test: Sequence[TableScan]) -> tuple[tuple[TableScan, ...], list[str]]:
    """Return all scans, and the names of the test's.

    Scans whose use is test are it without another, and left out beside one. Raises TableError for a patient in both.
    """
    for_test = [scan.name for scan in scans if scan.use == "test"]
    if test:
        scans = [scan for scan in scans if scan.use != "test"]
    if shared := {scan.patient for scan in scans} & {scan.patient for scan in test}:
        raise TableError(f"Patient {min(shared)} is in the table for the test and is learned from. Test on others.")
    tested = tuple(replace(scan, name=TESTED + scan.name) for scan in test)
    return (*scans, *tested), [scan.name for scan in tested] or for_test


def held_out(scans: Sequence[TableScan]) -> list[str]:
    """Return the names of scans for a test: by their use, or else a fifth by patient, the same for every seed."""
    return join(scans, ())[1] or folds(scans, 5)[0]


def folds(scans: Sequence[TableScan], count: int, seed: int = 0) -> list[list[str]]:
    """Return the names of the scans in each of `count` parts, split by patient.

    Raises TableError if patients, or scans of the most common category of score, are fewer than the parts.
    """
    patients, names = (np.array([getattr(scan, name) for scan in scans]) for name in ("patient", "name"))
    category = category_numbers(np.array([scan.total for scan in scans]))
    commonest, distinct = max(np.bincount(category), default=0), len(np.unique(patients))
    if count < 2 or min(distinct, commonest) < count:
        raise TableError(f"{distinct} patients ({commonest} of one category) cannot be split in {count}. Give more.")
    part = parts_by_patient(patients, category, count, seed)
    return [names[part == number].tolist() for number in range(count)]
