"""Cohorts of digital patients' radiographs, projected from cardiac CT scans of the whole chest.

The CT is gated, because arteries do not move during the milliseconds of a radiograph. Patients stand a little turned,
tilted and off centre. The CT is not stored.

At natural prevalence too few patients are severe, so they are selected by true mass until each of STRATA has its share.
Age, sex and BMI depend on each patient's calcium as in `phantom.anatomy.patient`; the prevalence of calcium, and with
it every predictive value, differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.files import read_json, write_text_atomically
from CACScoringLib.core.grid import triple
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.tables import write_table
from CACScoringLib.drr.geometry import Geometry
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.rules import ScoringRules
from CACScoringLib.scoring.scores import score_lesions

from .. import phantom
from ..data.scan_table import RADIOGRAPH_TABLE as TABLE
from ..data.scan_table import VIEWS
from .cases import (
    CASES,
    FIELD_OF_VIEW_MM,
    MATRIX,
    SETTINGS,
    View,
    project_view,
    view_geometry,
    write_case,
)

SCHEMA = "cac-radiographs/1"
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
            raise phantom.CohortError(
                f"There is no scanning protocol {self.protocol!r}; choose one of {', '.join(phantom.PROTOCOLS)}."
            )
        if self.patients < len(phantom.STRATA) or self.first_number < 0:
            raise phantom.CohortError(f"Give at least {len(phantom.STRATA)} patients, and a first number from 0 up.")


def write_radiographs(
    folder: Path,
    settings: RadiographCohortSettings,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort and return its table, TABLE. Called again after an interruption, it resumes.

    The table has the columns name, patient, file, age_years, sex, bmi_kg_m2, agatston (AGATSTON_PER_MG times the true
    mass), agatston_reader (score of all visible calcium in this CT), agatston_automatic (score of all voxels of 130 HU
    in the heart), and mass_mg.

    Args:
        workers: Processes; None for one per core.
        progress: Called with (done, patients).

    Raises:
        CohortError: The folder holds another cohort.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = _numbers(folder, settings)
    # In random order, so that an interrupted cohort is representative: by number, patients with severe calcium come
    # last, since it is rare.
    shuffled = np.random.default_rng(settings.first_number).permutation(numbers).tolist()
    rows = phantom.in_processes(partial(write_patient, folder=folder, settings=settings), shuffled, workers, progress)
    write_table(folder / TABLE, list(rows[numbers[0]]), (rows[number] for number in numbers))
    return folder / TABLE


def write_patient(number: int, folder: Path, settings: RadiographCohortSettings) -> dict[str, Any]:
    """Write a patient's case and row if missing; returns the row."""
    name = phantom.patient_folder(number)
    row_file = folder / CASES / f"{name}.json"
    if row_file.exists():
        return read_json(row_file)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
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
    write_case(row_file.with_suffix(".npz"), views, thin)
    row = _row(patient, image, scan, labels, row_file.with_suffix(".npz").relative_to(folder))
    write_text_atomically(row_file, json.dumps(row))
    return row


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


def _row(
    patient: phantom.Patient, image: sitk.Image, scan: phantom.DigitalScan, labels: phantom.Labels, file: Path
) -> dict[str, Any]:
    person = phantom.demographics(patient)
    rules = ScoringRules()
    spacing = image.GetSpacing()
    automatic = scan.heart.astype(np.uint8) * np.uint8(Artery.UNASSIGNED)
    reader = score_lesions(find_lesions(image, labels.regions, rules).lesions, spacing, rules)
    unsupervised = score_lesions(find_lesions(image, automatic, rules).lesions, spacing, rules)
    return {
        "name": file.stem,
        "patient": patient.number,
        "file": file.as_posix(),
        "age_years": person.age_years,
        "sex": person.sex,
        "bmi_kg_m2": person.bmi_kg_m2,
        "agatston": round(phantom.AGATSTON_PER_MG * patient.mass_mg, 2),
        "agatston_reader": round(reader.agatston, 2),
        "agatston_automatic": round(unsupervised.agatston, 2),
        "mass_mg": round(patient.mass_mg, 4),
    }


def _numbers(folder: Path, settings: RadiographCohortSettings) -> list[int]:
    """Return the cohort's patient numbers, from the folder if it has them."""
    path = folder / SETTINGS
    content = {"schema": SCHEMA, "settings": asdict(settings)}
    if not path.exists():
        numbers = phantom.stratified_patients(settings.first_number, settings.patients)
        write_text_atomically(path, json.dumps({**content, "numbers": numbers}, indent=1))
        return numbers
    try:
        record = read_json(path)
        numbers = record.pop("numbers")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise phantom.CohortError(f"{path} cannot be read ({error}). Choose another folder.") from error
    if record != content:
        raise phantom.CohortError(f"{folder} holds radiographs of other settings ({path}); choose another folder.")
    return numbers
