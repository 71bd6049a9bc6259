"""Projection of a user's CTs to radiographs with labels, for training.

The CTs are from a table, or from the folder of `cac cohort`, whose scores become labels and whose hearts and calcium
maps are projected too. The couch and other objects outside the body are removed first (`projection.body_only`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CACScoringLib.cohort.folder import free_name, safe_name
from CACScoringLib.core.ct import CTScan, ScanWarning
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.slices import BODY_HU
from CACScoringLib.core.tables import read_table
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.drr.geometry import centre_mm
from CACScoringLib.drr.projection import body_only
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.scans.source import ScanSource
from CACScoringLib.scans.table import source_of

from ..data.scan_table import CT_TABLE, SEXES
from .cases import CaseJob, View, open_folder, project_view, view_geometry, write_case, write_cases
from .cohort import ANGLES

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
    and FACTS. The new table is `radiographs.csv`; `folder.FAILURES` has a row for each scan that failed.
    Raises CTError if there is nothing to project, OutputError if the folder holds other radiographs.
    """
    progress = progress or Progress()
    scans, warnings = list_scans(source)
    if workers < 1:
        raise OutputError(f"At least one worker is needed, not {workers}.")
    open_folder(folder, {"made_of": "scans"})
    for warning in warnings:
        progress.warning(warning)
    jobs = [
        CaseJob(
            scan.file,
            scan,
            {"name": scan.name, "patient": scan.patient, "ct": str(scan.ct), **scan.facts},
            _source_state(scan),
        )
        for scan in scans
    ]
    columns = ("name", "patient", "file", *FACTS, "warnings")
    return write_cases(folder, jobs, _project, columns, workers, progress.counted)


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
    for line in read_table(path.resolve(), ["ct"], CT_TABLE, short_lines=True).lines:
        more = {
            "calcium_map": line.file("calcium_map", exists=False),
            "facts": {name: line.text(name) for name in FACTS},
        }
        yield ProjectionSource(**vars(source_of(line)) | more)


def _of_cohort(folder: Path) -> Iterator[ProjectionSource]:
    """Read the scans scored by `cac cohort`."""
    for line in read_table(folder, ["ct", "folder", "state"], CT_TABLE, short_lines=True).lines:
        if line.text("state") != "done":
            continue
        files = (folder / line.text("folder") / f"{part}.nii.gz" for part in ("heart", "calcium_map"))
        heart, calcium_map = (file if file.exists() else None for file in files)
        score = "agatston_reader" if line.text("threshold_reviewed") == "True" else "agatston_automatic"
        facts = {name: line.text(name) for name in FACTS} | {
            score: line.text("threshold_agatston"),
            "agatston_decomposition": line.text("decomposition_agatston"),
            "age_years": line.text("patient_age_years"),
            "sex": line.text("patient_sex") if line.text("patient_sex") in SEXES else "",
        }
        name, patient, ct = line.text("name"), line.text("patient"), Path(line.text("ct"))
        yield ProjectionSource(name, patient, ct, heart=heart, calcium_map=calcium_map, facts=facts)


def _project(scan: ProjectionSource, case: Path) -> dict[str, Any]:
    """Write a scan's case; returns the codes of its warnings."""
    ct = read_ct(scan.ct, scan.series)
    write_case(case, views_of(ct, scan.heart, scan.calcium_map))
    return {"warnings": " ".join(warning.code for warning in (*ct.warnings, *cut_off(ct.image)))}


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
