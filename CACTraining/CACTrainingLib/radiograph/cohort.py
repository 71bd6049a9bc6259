"""Radiographs for training, of digital patients and of a user's CTs.

Digital patients are projected without a CT, or from a CT of the whole chest. Without one, tissue is painted on voxels,
and all that is finer, calcium too, is projected as points; a radiograph's milliseconds freeze the heart. A CT, which
super-resolution needs, is gated and not stored. Patients stand a little turned, tilted and off centre, breathing in.

At natural prevalence too few patients are severe, so they are selected by true mass until each of STRATA has its share.
Age, sex and BMI depend on each patient's calcium as in `phantom.anatomy.patient`; the prevalence of calcium, and with
it every predictive value, differs.

A user's CTs are from a table, or from the folder of `cac cohort`, whose scores become labels and whose hearts and
calcium maps are projected too. The couch and other objects outside the body are removed first (`projection.body_only`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.cohort.folder import free_name, safe_name
from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.ct import CTScan, ScanWarning
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.grid import triple
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.slice_checks import BODY_HU
from CACScoringLib.core.tables import read_table
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.core.warning_codes import run_check
from CACScoringLib.drr.geometry import Geometry, centre_mm, in_lps_order, pose_of
from CACScoringLib.drr.projection import body_only
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.models.inference import use_threads
from CACScoringLib.radiograph.view import STANDARD_PIXELS
from CACScoringLib.scans.source import ScanSource
from CACScoringLib.scans.table import scan_of_line
from CACScoringLib.scoring.lesions import score_labels

from .. import phantom
from ..data.scan_table import CT_TABLE, LABELS, RADIOGRAPH_TABLE, SEXES, VIEWS, read_listed
from ..project.project import is_project
from .cases import (
    FIELD_OF_VIEW_MM,
    MATRIX,
    CaseJob,
    Drawing,
    ScanRadiographSettings,
    View,
    open_folder,
    project_view,
    sparse,
    view_geometry,
    write_case,
    write_cases,
)

COLUMNS = ("name", "patient", "file", "age_years", "sex", "bmi_kg_m2", *LABELS, "mass_mg")
PROTOCOL = "cardiac"
CENTRE_MM = (0.0, 6.0, 40.0)
"""Middle of a patient's chest in the patient's frame, LPS."""
BLUR_MM = 0.4
"""Standard deviation in mm of the blur of focus and detector; illustrative."""
ANGLES = {"PA": 0.0, "lateral": 90.0}
TURN_DEGREES, TILT_DEGREES, SHIFT_MM = 2.0, 1.5, 8.0
"""Standard deviations of a patient's rotation, tilt and shift."""


@dataclass(frozen=True)
class RadiographCohortSettings:
    """Settings of a cohort; recorded in SETTINGS, with the patients' numbers.

    Attributes:
        first_number: Lowest patient number.
        patients: Number of patients.
        natural: True for natural prevalence instead of STRATA.
        drawings: Number of further drawings of calcium on each patient's arteries, for training.
        ct: True to project a gated CT.
        super_resolution: Network whose thin slices of the heart in the CT, and interpolated ones, are projected too;
            None for neither.
    """

    first_number: int = 0
    patients: int = 600
    natural: bool = False
    drawings: int = 8
    ct: bool = False
    super_resolution: str | None = None

    def __post_init__(self) -> None:
        if self.patients < len(phantom.STRATA) or self.first_number < 0:
            raise CTError(f"Give at least {len(phantom.STRATA)} patients, and a first number from 0 up.")


def write_radiographs(
    folder: Path,
    settings: RadiographCohortSettings,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, dict[str, str]]:
    """Write a cohort; returns its table, and failures with reasons. Called again after an interruption, it resumes.

    The table has COLUMNS: agatston (AGATSTON_PER_MG times the true mass), mass_mg, and, of a CT, agatston_reader (score
    of all visible calcium) and agatston_automatic (score of all voxels of 130 HU in the heart).

    Args:
        workers: Processes; None for one per core.
        progress: Called with (done, patients).

    Raises:
        OutputError: The folder holds other radiographs.
    """

    def numbers() -> dict[str, Any]:
        first, count = settings.first_number, settings.patients
        natural = list(range(first, first + count))
        return {"numbers": natural if settings.natural else phantom.stratified_patients(first, count)}

    record = open_folder(Path(folder), {"settings": asdict(settings)}, numbers)
    # In random order, so that an interrupted cohort is representative: by number, patients with severe calcium come
    # last, since it is rare.
    shuffled = np.random.default_rng(settings.first_number).permutation(record["numbers"]).tolist()
    names = {number: phantom.patient_folder(number) for number in shuffled}
    jobs = [CaseJob(name, number, {"name": name, "patient": number}, {}) for number, name in names.items()]
    make = partial(write_patient_case, settings=settings)
    return write_cases(Path(folder), jobs, make, COLUMNS, workers or os.cpu_count() or 1, progress)


def write_patient_case(number: int, case: Path, settings: RadiographCohortSettings) -> dict[str, Any]:
    """Write a patient's case; returns the cells of its row."""
    if settings.ct or settings.super_resolution:
        return _write_scanned(number, case, settings.super_resolution)
    patient = phantom.draw_patient(number, surroundings=True, ages=True)
    still = phantom.still_patient(patient, phantom.draw_pair(phantom.PROTOCOLS[PROTOCOL], _pose_stream(number))[0][1])
    body, heart = still.grid.image(still.hu), still.grid.image(still.heart)
    points, sex = phantom.plaque_points(patient, patient.plaques, still.frame), patient.body.sex
    more = [
        phantom.draw_plaques(patient.tree, sex, phantom.stream(number, 3, 1 + n), 1.0) for n in range(settings.drawings)
    ]
    views, paths = {}, []
    stands = geometries(number, CENTRE_MM)
    for name, stand in stands.items():
        calcium = project_points(points, stand)
        fine = project_points(still.fine, stand)
        coarse = project_view(replace(stand, pixels=(STANDARD_PIXELS // 2, STANDARD_PIXELS // 2)), body, None, heart)
        tissue = ndimage.zoom(coarse.body, 2, order=3, mode="grid-constant", grid_mode=True)
        views[name] = View(tissue + fine + calcium, calcium, coarse.heart.repeat(2, 0).repeat(2, 1))
    for plaques in more:
        cloud = phantom.plaque_points(patient, plaques, still.frame)
        paths.append({name: sparse(project_points(cloud, stand)) for name, stand in stands.items()})
    masses = [sum(plaque.mass_mg for plaque in plaques) for plaques in more]
    drawings = [Drawing(phantom.AGATSTON_PER_MG * mass, path) for mass, path in zip(masses, paths, strict=True)]
    write_case(case, views, drawings=drawings)
    return _cells(patient, phantom.AGATSTON_PER_MG * patient.mass_mg)


def _write_scanned(number: int, case: Path, super_resolution: str | None) -> dict[str, Any]:
    """Write a patient's case by way of a CT; returns the cells of its row."""
    patient = phantom.draw_patient(number)
    scan = _scan(patient)
    labels = phantom.annotate(scan, phantom.stream(number, 21, 1))
    image = scan.grid.image(scan.hu)
    calcium = scan.grid.image(scan.calcium_mg_cm3 * np.float32(scan.scanner.calcium_hu_per_mg_cm3))
    images = image, calcium, scan.grid.image(scan.heart.astype(np.uint8))
    _write_projected(case, images, geometries(number, centre_mm(image)), super_resolution)
    automatic = scan.heart.astype(np.uint8) * np.uint8(Artery.UNASSIGNED)
    reader, unsupervised = (score_labels(image, regions).total.agatston for regions in (labels.regions, automatic))
    return _cells(patient, phantom.AGATSTON_PER_MG * patient.mass_mg, reader, unsupervised)


def _pose_stream(number: int) -> np.random.Generator:
    return phantom.stream(number, 20)


def _scan(patient: phantom.Patient) -> phantom.DigitalScan:
    scanner, pose = phantom.draw_pair(phantom.PROTOCOLS[PROTOCOL], _pose_stream(patient.number))[0]
    scanner = replace(scanner, matrix=MATRIX, field_of_view_mm=FIELD_OF_VIEW_MM)
    return phantom.scan_patient(patient, scanner, pose, 1, phantom.scan_grid(scanner))


def project_points(cloud: phantom.PointCloud, geometry: Geometry) -> np.ndarray:
    """Project points to paths in mm of water, with the blur of focus and detector. cloud: weights in HU · mm³."""
    out = np.zeros(geometry.pixels[::-1], np.float32)
    pose, (forwards, right, down), pixel_mm = pose_of(geometry, None), geometry.axes(), geometry.pixel_mm[0]
    offset = cloud.positions_mm - pose.source
    scale = geometry.source_detector_mm / (offset @ forwards)
    place = pose.source + offset * scale[:, None] - pose.corner
    row, column = place @ down / pixel_mm, place @ right / pixel_mm
    inside = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < min(out.shape) - 1)
    if not inside.any():
        return out
    row, column, path = row[inside], column[inside], (cloud.weights * scale**2)[inside] / (1000 * pixel_mm**2)
    first_row, first_column = max(0, int(row.min()) - 4), max(0, int(column.min()) - 4)
    part = out[first_row : int(row.max()) + 6, first_column : int(column.max()) + 6]
    first = (row.astype(int) - first_row) * part.shape[1] + column.astype(int) - first_column
    below, after = row % 1, column % 1
    total = np.zeros(part.size)
    for step, share in (
        (0, (1 - below) * (1 - after)),
        (1, (1 - below) * after),
        (part.shape[1], below * (1 - after)),
        (part.shape[1] + 1, below * after),
    ):
        total += np.bincount(first + step, path * share, part.size)
    part[:] = ndimage.gaussian_filter(total.reshape(part.shape).astype(np.float32), BLUR_MM / pixel_mm)
    return out


def geometries(number: int, middle: tuple[float, float, float]) -> dict[str, Geometry]:
    """Return the geometry of each view of a patient, always the same for the same patient. middle: of the chest."""
    generator = phantom.stream(number, 31)
    stands = {}
    for view in VIEWS:
        turn, tilt = generator.normal(0, (TURN_DEGREES, TILT_DEGREES))
        centre = np.asarray(middle) + generator.normal(0, SHIFT_MM, 3)
        stands[view] = view_geometry(ANGLES[view] + float(turn), float(tilt), triple(map(float, centre)))
    return stands


def _cells(patient: phantom.Patient, *scores: float) -> dict[str, Any]:
    """Return the cells of a row. scores: those of LABELS that are known."""
    return {
        **asdict(phantom.demographics(patient)),
        **{label: round(score, 2) for label, score in zip(LABELS, scores, strict=False)},
        "mass_mg": round(patient.mass_mg, 4),
    }


FACTS = (
    *("age_years", "sex", "bmi_kg_m2", "agatston", "agatston_reader", "agatston_automatic"),
    *("agatston_decomposition", "use", "gated"),
)
"""Columns copied into the table of radiographs."""
_NEAREST = sitk.sitkNearestNeighbor
MEMORY_EACH_BYTES = 1_500_000_000


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


def projected(source: Path) -> bool:
    """Return True for a project, or a table or folder of CTs, whose radiographs have to be made first."""
    if is_project(source) or not source.exists():
        return source.exists()
    if source.is_dir():
        return not (source / RADIOGRAPH_TABLE).is_file() and (source / CT_TABLE).is_file()
    table = read_table(source, short_lines=True)
    return "ct" in table and "file" not in table


def write_scan_radiographs(
    source: Path,
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
    gated: bool | None = None,
    settings: ScanRadiographSettings | None = None,
) -> tuple[Path, dict[str, str]]:
    """Project the CTs of a table, a project or the folder of `cac cohort`.

    Called again after an interruption, or with more scans, it resumes: cases of unchanged scans are kept. A table has
    the column ct (file or DICOM folder, relative to it); optionally name, patient, series, heart, calcium_map (files),
    and FACTS. Hearts that are not given are found as in scoring.

    Args:
        source: Table, project or folder.
        folder: Folder of the radiographs.
        workers: Number of processes; None for as many as fit.
        progress: Progress of the present step.
        gated: True for gated scans of a table or project alone, False for the others, None for all.
        settings: Views and super-resolution.

    Returns:
        The new table, `radiographs.csv`, and failures with reasons; `folder.FAILURES` has a row for each.

    Raises:
        CTError: There is nothing to project.
        OutputError: The folder holds other radiographs.
    """
    progress = progress or Progress()
    scans, warnings = list_scans(source, gated)
    if workers is None:
        workers = sensible_count(MEMORY_EACH_BYTES)
    if workers < 1:
        raise OutputError(f"At least one worker is needed, not {workers}.")
    settings = settings or ScanRadiographSettings()
    if not settings.views or set(settings.views) - set(VIEWS):
        raise CTError(f"There are no views {', '.join(settings.views)}. Choose of {', '.join(VIEWS)}.")
    open_folder(folder, {"made_of": "scans", **asdict(settings)})
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
    make = partial(_project, settings=settings)
    return write_cases(folder, jobs, make, columns, workers, progress.counted)


def list_scans(source: Path, gated: bool | None = None) -> tuple[list[ProjectionSource], list[ScanWarning]]:
    """List the scans of a table or project, or the scored ones of a cohort's folder; with warnings. Raises CTError."""
    is_cohort = source.is_dir() and not is_project(source)
    listed = [*(_of_cohort(source) if is_cohort else _of_table(source, gated))]
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
    if is_project(source) and (unscored := [scan.name for scan in scans if not scan.facts[LABELS[0]]]):
        message = f"{len(unscored)} scans of {source} have no total score and are left out, such as {unscored[0]}."
        warnings.append(ScanWarning("scan-left-out", message))
        scans = [scan for scan in scans if scan.facts[LABELS[0]]]
    if without_patient := [str(scan.ct) for scan in listed if not scan.patient]:
        count, named = len(without_patient), abbreviated_list(without_patient)
        message = f"{count} scans have no patient ID ({named}): each counts as a patient. Fill in that column."
        warnings.append(ScanWarning("patient-id-missing", message))
    return scans, warnings


def _of_table(path: Path, gated: bool | None) -> Iterator[ProjectionSource]:
    table = read_listed(path.resolve(), CT_TABLE, gated, short_lines=True)
    table.need("ct")
    for line in table.lines:
        more = {
            "calcium_map": line.file("calcium_map", exists=False),
            "facts": {name: line.text(name) for name in FACTS},
        }
        yield ProjectionSource(**vars(scan_of_line(line)) | more)


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


def _project(scan: ProjectionSource, case: Path, settings: ScanRadiographSettings) -> dict[str, Any]:
    """Write a scan's case; returns the codes of its warnings."""
    ct = read_ct(scan.ct, scan.series)
    heart = _heart_in(ct) if scan.heart is None else read_mask(scan.heart)
    calcium = None if scan.calcium_map is None else read_mask(scan.calcium_map)
    image = in_lps_order(ct.image)
    warnings = [*ct.warnings, *cut_off(image)]
    if settings.super_resolution:
        warnings += run_check("slices-out-of-range", image.GetSpacing()[2])
    stands = {name: view_geometry(ANGLES[name], 0.0, centre_mm(image)) for name in settings.views}
    _write_projected(case, (body_only(image), calcium, heart), stands, settings.super_resolution)
    return {"warnings": " ".join(warning.code for warning in warnings)}


def _write_projected(
    case: Path,
    images: tuple[sitk.Image, sitk.Image | None, sitk.Image | None],
    stands: dict[str, Geometry],
    super_resolution: str | None,
) -> None:
    """Write the views of a body in LPS order, HU, of its calcium, HU, and of its heart, a mask, on any grids.

    Raises CTError if super-resolution lacks the heart.
    """
    body, calcium, heart = images
    views, thin = {name: project_view(stand, body, calcium, heart) for name, stand in stands.items()}, {}
    if super_resolution:
        from .super_resolution import thin_slice_views  # imports torch

        mask = None if heart is None else voxels_of(sitk.Resample(heart, body, sitk.Transform(), _NEAREST)) > 0
        if mask is None or not mask.any():
            raise CTError("Super-resolution needs the heart, and it was not found. Name its mask in the column heart.")
        bodies = {name: view.body for name, view in views.items()}
        thin = thin_slice_views(bodies, body, mask, stands, super_resolution)
    write_case(case, views, thin)


def _heart_in(ct: CTScan) -> sitk.Image | None:
    """Find the heart as scoring does; return None if there is none."""
    try:
        return ct.grid.image(find_heart(ct, None, _heart_network()).mask.astype(np.uint8))
    except CTError:
        return None


@cache
def _heart_network() -> LoadedModel:
    use_threads(1)  # the workers use all cores, one each
    return load_model(find_model("territories").path, "cpu")


def cut_off(image: sitk.Image) -> list[ScanWarning]:
    """Return warnings about parts of the chest missing in a CT of small height or field of view."""
    hu = voxels_of(image)
    sides = [hu[:, :, 0], hu[:, :, -1], hu[:, 0], hu[:, -1]]
    share = max(float((side > BODY_HU).mean()) for side in sides)
    height_mm = image.GetSize()[2] * image.GetSpacing()[2]
    return [*run_check("chest-cut-off", height_mm), *run_check("body-cut-off", share, side_percent=100 * share)]


def _source_state(scan: ProjectionSource) -> dict[str, Any]:
    """Return the source files of a case with their times of change."""
    files = [scan.ct, *(path for path in (scan.heart, scan.calcium_map) if path)]
    parts = [sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file] for file in files]
    changed = [max((path.stat().st_mtime for path in part if path.exists()), default=0.0) for part in parts]
    return {"files": [str(file.absolute()) for file in files], "series": scan.series, "changed": changed}
