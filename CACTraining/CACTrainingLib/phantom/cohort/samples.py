"""Digital patients chosen to try the software on, by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.core.ct import ScanWarning, with_warnings
from CACScoringLib.core.labels import Artery

from .cohort import CohortSettings, make_scan
from .export import as_ct_scan, image_on, write_scan

if TYPE_CHECKING:
    from CACScoringLib.run import Sample

_SCAN = 2
"""Of each patient's two scans, the one sampled."""


@dataclass(frozen=True)
class SamplePatient:
    """number: of the patient. title: what it shows."""

    number: int
    title: str


SAMPLES = {
    "vessels": SamplePatient(39, "calcium in all four arteries and in the aortic wall"),
    "motion": SamplePatient(22, "one large lesion in the right coronary artery, blurred by motion"),
    "aortic-valve": SamplePatient(12, "calcium in the aortic valve only, none in a coronary artery"),
    "no-calcium": SamplePatient(5, "no calcium at all"),
}

_DIGITAL = ScanWarning(
    "digital-patient",
    "This is a digital patient: computed, not scanned. Its regions are those an annotator would paint who knows the "
    "truth. No number here says anything about performance on people.",
)


def write_sample(directory: Path, name: str) -> dict:
    """Write one scan of a sample patient into a folder that does not exist yet; returns its truth (see `export`)."""
    patient, scan, labels = make_scan(SAMPLES[name].number, _SCAN, CohortSettings())
    return write_scan(patient, scan, labels, _SCAN, directory)


def scored_sample(name: str = next(iter(SAMPLES))) -> Sample:
    """A sample patient as `score --sample` takes it; nothing is written."""
    from CACScoringLib.run import Sample

    patient, scan, labels = make_scan(SAMPLES[name].number, _SCAN, CohortSettings())
    ct = replace(as_ct_scan(scan, patient), source=Path(f"digital-patient-{patient.number:05d}"))
    true_mass = {a: sum(p.mass_mg for p in patient.plaques if p.artery == a.key) for a in Artery if a <= Artery.RCA}
    return Sample(
        scan=with_warnings(ct, _DIGITAL),
        lesions=image_on(scan.grid, labels.regions),
        calibration_mg_per_mm3_hu=1 / (1000 * scan.scanner.calcium_hu_per_mg_cm3),
        true_mass_mg=true_mass,
    )
