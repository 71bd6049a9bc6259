"""Own CTs projected to radiographs, with what is known of them: weakly labelled pictures to learn from.

From a table, or from the folder of `cac cohort`, whose scores become the labels and whose hearts and calcium maps are
projected too. The patient table and whatever else lies outside the body are taken out of the CT first
(`projection.body_only`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.cohort.folder import free_name, safe_name
from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.ct import CTError, CTScan, ScanWarning
from CACScoringLib.core.files import OutputError, write_text_atomically
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import read_table, write_table
from CACScoringLib.core.text import abbreviated_list, printable
from CACScoringLib.drr.geometry import centre_mm
from CACScoringLib.drr.projection import body_only
from CACScoringLib.io.reading import read_ct, read_mask

from ..phantom.cohort.export import same_settings
from .cases import CASES, TABLE, View, projected, view_geometry, write_case
from .cohort import ANGLES, SCHEMA, SETTINGS

COHORT_TABLE, FAILURES = "cohort.csv", "failures.csv"
KNOWN = (
    *("age_years", "sex", "bmi_kg_m2", "agatston", "agatston_reader", "agatston_automatic"),
    "agatston_decomposition",
)
"""Columns that are copied into the table of radiographs where they are given."""
LEAST_HEIGHT_MM = 220.0
"""A chest radiograph shows more of the lungs than a lower CT holds."""
MOST_CUT_OFF = 0.1
BODY_HU = -300.0

_COLUMNS = ("ct", "name", "patient", "series", "heart", "calcium_map", *KNOWN)


@dataclass(frozen=True)
class OwnScan:
    """A CT to be projected. file: name of its case, unlike all others. heart, calcium_map: images, where known.

    known: cells by KNOWN.
    """

    name: str
    file: str
    patient: str
    ct: Path
    series: str | None
    heart: Path | None
    calcium_map: Path | None
    known: dict[str, str]


def write_scan_radiographs(
    source: Path, folder: Path, workers: int = 1, progress: Progress | None = None
) -> tuple[Path, dict[str, str]]:
    """Project the CTs of a table or of the folder of `cac cohort`; returns the new table, and why others failed.

    Called again after an interruption, or with more scans, it continues: cases no older than their scan are kept. A
    table has the column ct (file or DICOM folder, relative to it); optionally name, patient, series, heart, calcium_map
    (files), and KNOWN. The new table is `cases.TABLE`; FAILURES has a row for each scan that failed.
    Raises CTError when there is nothing to project, OutputError when the folder holds other radiographs.
    """
    progress = progress or Progress()
    scans, warnings = own_scans(source)
    if workers < 1:
        raise OutputError(f"At least one worker is needed, not {workers}.")
    _check_folder(folder)
    for warning in warnings:
        progress.warning(warning)
    rows, failures = [], []
    events = run_jobs(_prepare, [(scan, folder) for scan in scans], workers, progress.counted)
    for scan, event in zip(scans, events, strict=True):
        codes = event.reason if event.state == "lost" else event.result
        if isinstance(codes, str):
            failures.append({"name": scan.name, "ct": scan.ct, "reason": codes})
        else:
            case = {"name": scan.name, "patient": scan.patient, "file": f"{CASES}/{scan.file}.npz"}
            rows.append({**case, **scan.known, "warnings": " ".join(codes)})
    _write_table(folder / TABLE, ["name", "patient", "file", *KNOWN, "warnings"], rows)
    _write_table(folder / FAILURES, ["name", "ct", "reason"], failures)
    return folder / TABLE, {failure["name"]: failure["reason"] for failure in failures}


def own_scans(source: Path) -> tuple[list[OwnScan], list[ScanWarning]]:
    """The scans that a table lists, or those of a cohort's folder that were scored; and warnings. Raises CTError."""
    rows = _rows_of_cohort(source) if source.is_dir() else _rows_of_table(source)
    if not rows:
        raise CTError(f"{source} lists no CT that could be projected.")
    scans, files = [], set()
    for row in rows:
        name = row["name"] or Path(row["ct"]).name
        file = free_name(safe_name(name), files)
        files.add(file.casefold())
        paths = {part: Path(row[part]) if row[part] else None for part in ("heart", "calcium_map")}
        facts = {part: row[part] for part in KNOWN}
        name = name if name not in {scan.name for scan in scans} else file
        scans.append(
            OwnScan(name, file, row["patient"] or name, Path(row["ct"]), row["series"] or None, **paths, known=facts)
        )
    warnings = []
    without_patient = [row["ct"] for row in rows if not row["patient"]]
    if without_patient:
        names = abbreviated_list(without_patient)
        message = (
            f"{len(without_patient)} scans have no patient ID ({names}): each counts as a patient. Fill in that column."
        )
        warnings.append(ScanWarning("patient-id-missing", message))
    return scans, warnings


def _rows_of_table(path: Path) -> list[dict[str, str]]:
    rows = []
    for line in read_table(path, ["ct"], COHORT_TABLE, short_lines=True).lines:
        line.need("ct")
        row = defaultdict(str, line.cells)
        for part in ("ct", "heart", "calcium_map"):
            row[part] = str(path.resolve().parent / row[part]) if row[part] else ""
        rows.append(row)
    return rows


def _rows_of_cohort(folder: Path) -> list[dict[str, str]]:
    """Of the scans that `cac cohort` has scored."""
    rows = []
    for line in read_table(folder, ["ct", "folder", "state"], COHORT_TABLE, short_lines=True).lines:
        row = defaultdict(str, line.cells)
        if row["state"] != "done":
            continue
        place = folder / row["folder"]
        for part in ("heart", "calcium_map"):
            row[part] = str(place / f"{part}.nii.gz") if (place / f"{part}.nii.gz").exists() else ""
        reviewed = row["threshold_reviewed"] == "True"
        row["agatston_reader" if reviewed else "agatston_automatic"] = row["threshold_agatston"]
        row["agatston_decomposition"] = row["decomposition_scaled_agatston"]
        row["age_years"], row["sex"] = row["patient_age_years"], row["patient_sex"]
        row["sex"] = row["sex"] if row["sex"] in ("F", "M") else ""
        rows.append(row)
    return rows


def _prepare():
    # All cores are at work already, so each worker keeps to one.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return _project


def _project(job: tuple[OwnScan, Path]) -> list[str] | str:
    """Write a scan's case, unless it is there; returns the codes of its warnings, or why it failed."""
    scan, folder = job
    try:
        record = folder / CASES / f"{scan.file}.json"
        made_from = _made_from(scan)
        codes = _kept_warnings(record, made_from)
        if codes is not None and record.with_suffix(".npz").exists():
            return codes
        record.unlink(missing_ok=True)
        ct = read_ct(scan.ct, scan.series)
        write_case(record.with_suffix(".npz"), views_of(ct, scan.heart, scan.calcium_map))
        codes = [warning.code for warning in (*ct.warnings, *cut_off(ct.image))]
        write_text_atomically(record, json.dumps({"made_from": made_from, "warnings": codes}))
        return codes
    except CTError as error:
        return str(error)
    except OSError as error:
        return f"Reading or writing failed: {error.strerror} ({error.filename})."
    except MemoryError:
        return "Memory ran out. Try it with fewer --workers."


def views_of(ct: CTScan, heart: Path | None = None, calcium_map: Path | None = None) -> dict[str, View]:
    """The radiographs of a CT about its centre. heart: a mask. calcium_map: HU of calcium. Raises CTError."""
    body = body_only(ct.image)
    hearts, calcium = (None if path is None else read_mask(path) for path in (heart, calcium_map))
    centre = centre_mm(ct.image)
    return {name: projected(view_geometry(angle, 0.0, centre), body, calcium, hearts) for name, angle in ANGLES.items()}


def cut_off(image: sitk.Image) -> list[ScanWarning]:
    """Parts of a chest radiograph that a CT lacks, because it is too low or its field of view too small."""
    warnings = []
    height = image.GetSize()[2] * image.GetSpacing()[2]
    if height < LEAST_HEIGHT_MM:
        message = f"The CT is {height:.0f} mm high, less than a chest radiograph: its top or bottom is missing."
        warnings.append(ScanWarning("chest-cut-off", message))
    hu = sitk.GetArrayViewFromImage(image)
    sides = [hu[:, :, 0], hu[:, :, -1], hu[:, 0], hu[:, -1]]
    proportion = max(float((side > BODY_HU).mean()) for side in sides)
    if proportion > MOST_CUT_OFF:
        message = f"The body reaches beyond the CT ({100 * proportion:.0f} % of a side): parts are missing."
        warnings.append(ScanWarning("body-cut-off", message))
    return warnings


def _made_from(scan: OwnScan) -> dict:
    """The files of a case, and when they were changed."""
    files = [scan.ct, *(path for path in (scan.heart, scan.calcium_map) if path)]
    parts = [sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file] for file in files]
    changed = [max((path.stat().st_mtime for path in part if path.exists()), default=0.0) for part in parts]
    return {"files": [str(file.absolute()) for file in files], "series": scan.series, "changed": changed}


def _kept_warnings(record: Path, made_from: dict) -> list[str] | None:
    """Warnings of a case that was made from these files; None where there is none."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        return content["warnings"] if content["made_from"] == made_from else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[dict[str, object]]) -> None:
    write_table(path, columns, ({name: printable(str(value)) for name, value in row.items()} for row in rows))


def _check_folder(folder: Path) -> None:
    path = folder / SETTINGS
    try:
        if not path.exists() and folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise OutputError(f"{folder} is not empty and holds no radiographs. Choose another --output.")
        (folder / CASES).mkdir(parents=True, exist_ok=True)
        if not same_settings(path, {"schema": SCHEMA, "made_of": "scans"}):
            raise OutputError(f"{folder} holds radiographs of digital patients ({path}). Choose another --output.")
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}. Choose another --output.") from error
