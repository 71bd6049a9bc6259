"""Digital patients for the slice networks: drawn when a training needs them, and kept as slices only.

Every fourth patient is of one kind: plaque as in people in chest CT, the same in gated CT, no coronary calcium, and
calcium in every segment with one of the difficulties of `phantom.lesion_patients`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.models import preprocessing

from ..phantom import (
    DIFFICULTIES,
    CohortSettings,
    DigitalScan,
    Labels,
    Patient,
    annotate,
    draw_lesion_patient,
    draw_lesion_scan,
    make_scan,
    scan_grid,
    scan_patient,
    stream,
)
from ..project.training_scan import CACHE_VERSION, TrainingScan, kind_of
from .scan_samples import write_prepared

FIRST_NUMBERS = {"training": 5_000_000, "validation": 5_500_000}
"""First patient of each use."""
HEART_MM = (-95.0, 85.0)
"""Heights scanned, from the heart's middle: hearts of all sizes at any depth of breath."""
DRAWING_VERSION = 1
"""Version of the drawing and of the choice of patients, also of DIFFICULTIES; a new one makes prepared slices stale."""


@dataclass(frozen=True, kw_only=True)
class DrawnScan(TrainingScan):
    """Scan of a digital patient that lies on no disk.

    Attributes:
        number: Number of the patient.
    """

    number: int

    def fingerprint(self) -> str:
        """Return a hash that changes with the patient, its drawing and its preparation."""
        parts = [CACHE_VERSION, preprocessing.VERSION, DRAWING_VERSION, "drawn", self.number]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]

    def content_hash(self) -> str:
        """Return the SHA-256 of the patient's number and the drawing's version, which stand for the scan."""
        return hashlib.sha256(f"digital patient {self.number}, drawing {DRAWING_VERSION}".encode()).hexdigest()


def drawn_scans(patients: int, validation_share: float) -> list[DrawnScan]:
    """Return the first digital patients for training and, in the share given, for validation."""
    validation = round(validation_share * patients)
    counts = {"training": patients - validation, "validation": validation}
    return [
        DrawnScan(
            name=f"digital-{number}",
            patient=f"digital-{number}",
            ct=Path(f"digital-{number}"),
            heart=Path(f"digital-{number}"),
            kind="distractor" if number % 4 == 2 else "coronary",
            use=use,
            number=number,
        )
        for use, count in counts.items()
        for number in range(FIRST_NUMBERS[use], FIRST_NUMBERS[use] + count)
    ]


def write_drawn_slices(scan: DrawnScan, folder: Path) -> None:
    """Draw a scan and write its slices into a new folder, as `scan_samples.write_slices` does for scans on disk."""
    patient, drawn, labels = draw_scan(scan.number)
    # Slices just drawn need no check for damage.
    ct = scan_from_image(drawn.grid.image(drawn.hu), Acquisition("digital patient"), is_known=True)
    slices = preprocessing.heart_slices(ct, drawn.heart)
    calcium = slices.grid.resample(voxels_of(drawn.grid.image(drawn.calcium_mg_cm3)), 0.0)
    kinds = [distractor.kind for distractor in patient.distractors]
    visible = [asdict(label) for label in labels.slices]
    kind = kind_of({"mass_mg": patient.mass_mg, "distractors": kinds, "slices": visible})
    true_map = calcium * np.float32(drawn.scanner.calcium_hu_per_mg_cm3)
    write_prepared(folder, slices, true_map, visible, scan.patient, kind, has_map=True)


def draw_scan(number: int) -> tuple[Patient, DigitalScan, Labels]:
    """Draw a patient by its number, its scan around the heart, and the scan's labels."""
    kind, turn = number % 4, number // 4
    if kind == 3:
        difficulty = DIFFICULTIES[turn % len(DIFFICULTIES)]
        patient = draw_lesion_patient(number, difficulty)
        scanner, pose = draw_lesion_scan(number, difficulty)
        scan = scan_patient(patient, scanner, pose, 1, scan_grid(scanner, HEART_MM))
        return patient, scan, annotate(scan, stream(number, 21, 1))
    is_gated = kind == 1 or (kind == 2 and turn % 3 == 0)
    settings = CohortSettings(
        protocol="cardiac-varied" if is_gated else "chest-varied",
        prevalence=0.0 if kind == 2 else 1.0,
        z_range_mm=HEART_MM,
        scans=1,
        diverse=True,
        surroundings=turn % 4 != 3,
    )
    return make_scan(number, 1, settings)
