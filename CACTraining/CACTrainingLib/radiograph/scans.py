"""Projection of a user's CTs to radiographs with labels, for training.

The CTs are from a table, or from the folder of `cac cohort`, whose scores become labels and whose hearts and calcium
maps are projected too. The couch and other objects outside the body are removed first (`projection.body_only`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CACScoringLib.cohort.folder import free_name, safe_name
from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.ct import CTError, CTScan, ScanWarning
from CACScoringLib.core.files import OutputError, read_json, write_text_atomically
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.slices import BODY_HU
from CACScoringLib.core.tables import read_table, write_table
from CACScoringLib.core.text import abbreviated_list, printable
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.drr.geometry import centre_mm
from CACScoringLib.drr.projection import body_only
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.scans.source import ScanSource
from CACScoringLib.scans.table import source_of

from ..data.scan_table import SEXES
from ..phantom import same_settings
from .cases import CASES, TABLE, View, project_view, view_geometry, write_case
from .cohort import ANGLES, SCHEMA, SETTINGS

COHORT_TABLE, FAILURES = "cohort.csv", "failures.csv"
FACTS = (
    *("age_years", "sex", "bmi_kg_m2", "agatston", "agatston_reader", "agatston_automatic"),
    "agatston_decomposition",
)
"""Columns copied into the table of radiographs."""
MIN_HEIGHT_MM = 220.0
"""Least height in mm of a CT with the lungs of a chest radiograph."""
MAX_CUT_OFF = 0.1


@dataclass(frozen=True)
class ProjectionSource(ScanSource):
    """CT to project.

    Attributes:
        file: Unique name of the case.
        calcium_map: Calcium map, None if unknown.
        facts: Cells of the columns FACTS.
    """

    file: str = ""
    calcium_map: Path | None = None
    facts: dict[str, str] = field(default_factory=dict)


def write_scan_radiographs(
    source: Path, folder: Path, workers: int = 1, progress: Progress | None = None
) -> tuple[Path, dict[str, str]]:
    """Project the CTs of a table or of the folder of `cac cohort`; returns the new table, and failures with reasons.

    Called again after an interruption, or with more scans, it resumes: cases of unchanged scans are kept. A table has
    the column ct (file or DICOM folder, relative to it); optionally name, patient, series, heart, calcium_map (files),
    and FACTS. The new table is `cases.TABLE`; FAILURES has a row for each scan that failed.
    Raises CTError if there is nothing to project, OutputError if the folder holds other radiographs.
    """
    progress = progress or Progress()
    scans, warnings = list_scans(source)
    if workers < 1:
        raise OutputError(f"At least one worker is needed, not {workers}.")
    _check_folder(folder)
    for warning in warnings:
        progress.warning(warning)
    rows: list[dict[str, str]] = []
    failures: list[dict[str, str]] = []
    events = run_jobs(_prepare, [(scan, folder) for scan in scans], workers, progress.counted)
    for scan, event in zip(scans, events, strict=True):
        codes = event.reason if event.state == "lost" else event.result
        if isinstance(codes, str):
            failures.append({"name": scan.name, "ct": str(scan.ct), "reason": codes})
        else:
            case = {"name": scan.name, "patient": scan.patient, "file": f"{CASES}/{scan.file}.npz"}
            rows.append({**case, **scan.facts, "warnings": " ".join(codes)})
    _write_table(folder / TABLE, ["name", "patient", "file", *FACTS, "warnings"], rows)
    _write_table(folder / FAILURES, ["name", "ct", "reason"], failures)
    return folder / TABLE, {failure["name"]: failure["reason"] for failure in failures}


def list_scans(source: Path) -> tuple[list[ProjectionSource], list[ScanWarning]]:
    """List the scans of a table, or the scored ones of a cohort's folder; with warnings. Raises CTError."""
    listed = [*(_of_cohort if source.is_dir() else _of_table)(source)]
    if not listed:
        raise CTError(f"{source} lists no CT that could be projected.")
    scans: list[ProjectionSource] = []
    names: set[str] = set()
    files: set[str] = set()
    for scan in listed:
        name = scan.name or scan.ct.name
        file = free_name(safe_name(name), files)
        files.add(file.casefold())
        name = file if name in names else name
        names.add(name)
        scans.append(replace(scan, name=name, file=file, patient=scan.patient or name))
    warnings = []
    if without_patient := [str(scan.ct) for scan in listed if not scan.patient]:
        message = (
            f"{len(without_patient)} scans have no patient ID ({abbreviated_list(without_patient)}): each counts as a "
            "patient. Fill in that column."
        )
        warnings.append(ScanWarning("patient-id-missing", message))
    return scans, warnings


def _of_table(path: Path) -> Iterator[ProjectionSource]:
    for line in read_table(path.resolve(), ["ct"], COHORT_TABLE, short_lines=True).lines:
        more = {
            "calcium_map": line.file("calcium_map", exists=False),
            "facts": {name: line.text(name) for name in FACTS},
        }
        yield ProjectionSource(**vars(source_of(line)) | more)


def _of_cohort(folder: Path) -> Iterator[ProjectionSource]:
    """Read the scans scored by `cac cohort`."""
    for line in read_table(folder, ["ct", "folder", "state"], COHORT_TABLE, short_lines=True).lines:
        if line.text("state") != "done":
            continue
        files = (folder / line.text("folder") / f"{part}.nii.gz" for part in ("heart", "calcium_map"))
        heart, calcium_map = (file if file.exists() else None for file in files)
        score = "agatston_reader" if line.text("threshold_reviewed") == "True" else "agatston_automatic"
        facts = {name: line.text(name) for name in FACTS} | {
            score: line.text("threshold_agatston"),
            "agatston_decomposition": line.text("decomposition_scaled_agatston"),
            "age_years": line.text("patient_age_years"),
            "sex": line.text("patient_sex") if line.text("patient_sex") in SEXES else "",
        }
        name, patient, ct = line.text("name"), line.text("patient"), Path(line.text("ct"))
        yield ProjectionSource(name, patient, ct, heart=heart, calcium_map=calcium_map, facts=facts)


def _prepare() -> Callable[[tuple[ProjectionSource, Path]], list[str] | str]:
    # The workers use all cores, one each.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return _project


def _project(job: tuple[ProjectionSource, Path]) -> list[str] | str:
    """Write a scan's case if missing; returns the codes of its warnings, or the reason of a failure."""
    scan, folder = job
    try:
        record = folder / CASES / f"{scan.file}.json"
        state = _source_state(scan)
        codes = _recorded_warnings(record, state)
        if codes is not None and record.with_suffix(".npz").exists():
            return codes
        record.unlink(missing_ok=True)
        ct = read_ct(scan.ct, scan.series)
        write_case(record.with_suffix(".npz"), views_of(ct, scan.heart, scan.calcium_map))
        codes = [warning.code for warning in (*ct.warnings, *cut_off(ct.image))]
        write_text_atomically(record, json.dumps({"made_from": state, "warnings": codes}))
        return codes
    except CTError as error:
        return str(error)
    except OSError as error:
        return f"Reading or writing failed: {error.strerror} ({error.filename})."
    except MemoryError:
        return "Memory ran out. Try it with fewer --workers."


def views_of(ct: CTScan, heart: Path | None = None, calcium_map: Path | None = None) -> dict[str, View]:
    """Project a CT around its centre. heart: mask. calcium_map: HU of calcium. Raises CTError."""
    body = body_only(ct.image)
    hearts, calcium = (None if path is None else read_mask(path) for path in (heart, calcium_map))
    centre = centre_mm(ct.image)
    geometries = {name: view_geometry(angle, 0.0, centre) for name, angle in ANGLES.items()}
    return {name: project_view(geometry, body, calcium, hearts) for name, geometry in geometries.items()}


def cut_off(image: sitk.Image) -> list[ScanWarning]:
    """Return warnings about parts of the chest missing in a CT of small height or field of view."""
    warnings = []
    height = image.GetSize()[2] * image.GetSpacing()[2]
    if height < MIN_HEIGHT_MM:
        message = f"The CT is {height:.0f} mm high, less than a chest radiograph: its top or bottom is missing."
        warnings.append(ScanWarning("chest-cut-off", message))
    hu = voxels_of(image)
    sides = [hu[:, :, 0], hu[:, :, -1], hu[:, 0], hu[:, -1]]
    proportion = max(float((side > BODY_HU).mean()) for side in sides)
    if proportion > MAX_CUT_OFF:
        message = f"The body reaches beyond the CT ({100 * proportion:.0f} % of a side): parts are missing."
        warnings.append(ScanWarning("body-cut-off", message))
    return warnings


def _source_state(scan: ProjectionSource) -> dict[str, Any]:
    """Return the source files of a case with their times of change."""
    files = [scan.ct, *(path for path in (scan.heart, scan.calcium_map) if path)]
    parts = [sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file] for file in files]
    changed = [max((path.stat().st_mtime for path in part if path.exists()), default=0.0) for part in parts]
    return {"files": [str(file.absolute()) for file in files], "series": scan.series, "changed": changed}


def _recorded_warnings(record: Path, state: dict[str, Any]) -> list[str] | None:
    """Return the recorded warnings of a case; None if there is none, or its sources changed."""
    try:
        content = read_json(record)
        return content["warnings"] if content["made_from"] == state else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    write_table(path, columns, ({name: printable(value) for name, value in row.items()} for row in rows))


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
