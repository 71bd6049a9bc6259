"""Cohorts of digital patients' radiographs, projected from cardiac CT scans of the whole chest.

The CT is gated, because arteries do not move during the milliseconds of a radiograph. Patients stand a little turned,
tilted and off centre. The CT is not stored.

At natural prevalence too few patients are severe, so they are selected by true mass until each of STRATA has its share.
Age, sex and BMI depend on each patient's calcium as in `phantom.anatomy.patient`; the prevalence of calcium, and with
it every predictive value, differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.grid import triple
from CACScoringLib.core.labels import Artery
from CACScoringLib.drr.geometry import Geometry
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import score_of

from .. import phantom
from ..data.scan_table import LABELS, VIEWS
from .cases import FIELD_OF_VIEW_MM, MATRIX, View, project_view, view_geometry, write_case
from .folder import CaseJob, open_folder, write_cases

COLUMNS = ("name", "patient", "file", "age_years", "sex", "bmi_kg_m2", *LABELS, "mass_mg")
ANGLES = {"PA": 0.0, "lateral": 90.0}
TURN_DEGREES, TILT_DEGREES, SHIFT_MM = 2.0, 1.5, 8.0
"""Standard deviations of a patient's rotation, tilt and shift."""


@dataclass(frozen=True)
class RadiographCohortSettings:
    """Settings of a cohort; recorded in SETTINGS, with the patients' numbers.

    Attributes:
        first_number: Lowest patient number.
        patients: Number of patients.
        protocol: Name in `phantom.scanner.motion.PROTOCOLS`; "cardiac" is gated.
        super_resolution: Network whose thin slices of the heart, and interpolated ones, are projected too; None for
            neither.
    """

    first_number: int = 0
    patients: int = 600
    protocol: str = "cardiac"
    super_resolution: str | None = None

    def __post_init__(self) -> None:
        if self.protocol not in phantom.PROTOCOLS:
            raise CTError(
                f"There is no scanning protocol {self.protocol!r}; choose one of {', '.join(phantom.PROTOCOLS)}."
            )
        if self.patients < len(phantom.STRATA) or self.first_number < 0:
            raise CTError(f"Give at least {len(phantom.STRATA)} patients, and a first number from 0 up.")


def write_radiographs(
    folder: Path,
    settings: RadiographCohortSettings,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, dict[str, str]]:
    """Write a cohort; returns its table, and failures with reasons. Called again after an interruption, it resumes.

    The table has COLUMNS: agatston (AGATSTON_PER_MG times the true mass), agatston_reader (score of all visible calcium
    in this CT), agatston_automatic (score of all voxels of 130 HU in the heart), and mass_mg.

    Args:
        workers: Processes; None for one per core.
        progress: Called with (done, patients).

    Raises:
        OutputError: The folder holds other radiographs.
    """

    def numbers() -> dict[str, Any]:
        return {"numbers": phantom.stratified_patients(settings.first_number, settings.patients)}

    record = open_folder(Path(folder), {"settings": asdict(settings)}, numbers)
    # In random order, so that an interrupted cohort is representative: by number, patients with severe calcium come
    # last, since it is rare.
    shuffled = np.random.default_rng(settings.first_number).permutation(record["numbers"]).tolist()
    names = {number: phantom.patient_folder(number) for number in shuffled}
    jobs = [CaseJob(name, number, {"name": name, "patient": number}, {}) for number, name in names.items()]
    make = partial(write_patient, settings=settings)
    return write_cases(Path(folder), jobs, make, COLUMNS, workers or os.cpu_count() or 1, progress)


def write_patient(number: int, case: Path, settings: RadiographCohortSettings) -> dict[str, Any]:
    """Write a patient's case; returns the cells of its row."""
    patient = phantom.draw_patient(number)
    scan = _scan(patient, settings.protocol)
    labels = phantom.annotate(scan, phantom.stream(number, 21, 1))
    image = phantom.image_on(scan.grid, scan.hu)
    heart = phantom.image_on(scan.grid, scan.heart.astype(np.uint8))
    stands = geometries(number, image)
    views, thin = _views(scan, image, heart, stands), {}
    if settings.super_resolution:
        from .super_resolution import thin_slice_views  # imports torch

        bodies = {name: view.body for name, view in views.items()}
        thin = thin_slice_views(bodies, scan, stands, settings.super_resolution)
    write_case(case, views, thin)
    return _cells(patient, image, scan, labels)


def _scan(patient: phantom.Patient, protocol: str) -> phantom.DigitalScan:
    scanner, pose = phantom.draw_pair(phantom.PROTOCOLS[protocol], phantom.stream(patient.number, 20))[0]
    scanner = replace(scanner, matrix=MATRIX, field_of_view_mm=FIELD_OF_VIEW_MM)
    return phantom.scan_patient(patient, scanner, pose, 1, phantom.scan_grid(scanner), 1)


def geometries(number: int, image: sitk.Image) -> dict[str, Geometry]:
    """Return the geometry of each view of a patient, always the same for the same patient."""
    generator = phantom.stream(number, 31)
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    stands = {}
    for view in VIEWS:
        turn, tilt = generator.normal(0, (TURN_DEGREES, TILT_DEGREES))
        centre = np.asarray(middle) + generator.normal(0, SHIFT_MM, 3)
        stands[view] = view_geometry(ANGLES[view] + float(turn), float(tilt), triple(map(float, centre)))
    return stands


def _views(
    scan: phantom.DigitalScan, image: sitk.Image, heart: sitk.Image, stands: dict[str, Geometry]
) -> dict[str, View]:
    per_mg = np.float32(scan.scanner.calcium_hu_per_mg_cm3)
    calcium = phantom.image_on(scan.grid, scan.calcium_mg_cm3 * per_mg)
    return {name: project_view(geometry, image, calcium, heart) for name, geometry in stands.items()}


def _cells(
    patient: phantom.Patient, image: sitk.Image, scan: phantom.DigitalScan, labels: phantom.Labels
) -> dict[str, Any]:
    automatic = scan.heart.astype(np.uint8) * np.uint8(Artery.UNASSIGNED)
    reader, unsupervised = (
        score_of(find_lesions(image, regions, ScoringRules()).lesions).agatston
        for regions in (labels.regions, automatic)
    )
    scores = (phantom.AGATSTON_PER_MG * patient.mass_mg, reader, unsupervised)
    return {
        **asdict(phantom.demographics(patient)),
        **{label: round(score, 2) for label, score in zip(LABELS, scores, strict=True)},
        "mass_mg": round(patient.mass_mg, 4),
    }
