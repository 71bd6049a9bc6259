"""Digital scans as images with geometry, and as files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import Acquisition, CTScan, scan_from_image
from CACScoringLib.core.files import whole_folder, write_text_atomically

from ..anatomy.coronaries import ARTERIES
from ..anatomy.demographics import demographics
from ..anatomy.distractors import Distractor
from ..anatomy.patient import Patient
from ..anatomy.plaque import Plaque
from ..scanner.scanner import Grid
from ..scanner.simulation import DigitalScan, KnownScan
from .dicom_series import write_dicom_series
from .labels import Labels

SCHEMA = "cac-phantom/1"
FILES = ("ct.nii.gz", "heart.nii.gz", "calcium_map.nii.gz", "arteries.nii.gz", "regions.nii.gz", "truth.json")


def same_settings(path: Path, settings: dict) -> bool:
    """Record settings in a file that is not there yet; False where it holds others."""
    known = json.loads(json.dumps({"schema": SCHEMA} | settings))
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8")) == known
    write_text_atomically(path, json.dumps(known, indent=1))
    return True


def image_on(grid: Grid, array: np.ndarray) -> sitk.Image:
    """An array [k, j, i] as an image on a grid (LPS, identity direction)."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    return image


def as_ct_scan(scan: DigitalScan, patient: Patient) -> CTScan:
    """The scan as the scoring pipeline takes it, with what a DICOM header would hold."""
    scanner, known = scan.scanner, demographics(patient)
    acquisition = Acquisition(
        file_format="digital patient",
        kvp=scanner.kvp,
        kernel=scanner.kernel.name,
        gating=None if scanner.gate_phase is None else f"{100 * scanner.gate_phase:.0f} % of the R-R interval",
        manufacturer="CAC digital scanner",
        slice_thickness_mm=scanner.slice_thickness_mm,
        patient_sex=known.sex,
        patient_age_years=int(known.age_years),
        patient_id=f"digital-{patient.number:05d}",
    )
    return scan_from_image(image_on(scan.grid, scan.hu), acquisition)


def truth_of(patient: Patient, scan: DigitalScan, labels: Labels, scan_number: int) -> dict:
    """Everything true about a scan, for `truth.json`. Masses in mg hydroxyapatite."""
    known = demographics(patient)
    return {
        "schema": SCHEMA,
        "patient": patient.number,
        "scan": scan_number,
        "sex": known.sex,
        "age_years": known.age_years,
        "bmi_kg_m2": known.bmi_kg_m2,
        "dominance": patient.tree.dominance,
        "heart_blend": patient.heart.weights,
        **truth_of_scan(scan, patient.plaques, patient.distractors, labels),
        "pose": asdict(scan.pose),
        "body": asdict(patient.body),
    }


def truth_of_scan(
    scan: KnownScan, plaques: tuple[Plaque, ...], distractors: tuple[Distractor, ...], labels: Labels
) -> dict:
    """What is known of calcium, slices, noise and scanner of any scan with plaques. Masses in mg hydroxyapatite."""
    voxel_cm3 = float(np.prod(scan.grid.spacing_mm)) / 1000.0
    seen = {
        artery: sum(float(s.values.sum(dtype=np.float64)) for s in scan.arteries.get(artery, ())) * voxel_cm3 * 1000.0
        for artery in ARTERIES
    }
    return {
        "mass_mg": sum(plaque.mass_mg for plaque in plaques),
        "mass_mg_by_artery": {a: sum(p.mass_mg for p in plaques if p.artery == a) for a in ARTERIES},
        "scanned_mass_mg_by_artery": seen,
        "map_mass_mg": float(scan.calcium_mg_cm3.sum(dtype=np.float64)) * voxel_cm3,
        "calcium_hu_per_mg_cm3": scan.scanner.calcium_hu_per_mg_cm3,
        "lesions": [{**asdict(p), "volume_mm3": p.volume_mm3, "mass_mg": p.mass_mg} for p in plaques],
        "slices": [asdict(label) for label in labels.slices],
        "noise_sd_hu": [round(float(n), 2) for n in scan.noise_sd_hu],
        "scanner": asdict(scan.scanner),
        "distractors": [{"kind": d.kind, "mass_mg": d.mass_mg, "metal": d.metal} for d in distractors],
    }


def write_scan(
    patient: Patient, scan: DigitalScan, labels: Labels, scan_number: int, folder: Path, dicom: bool = False
) -> dict:
    """Write FILES into a folder that appears only when complete, and return the truth. An existing folder is kept.

    dicom: whether to add the CT as a DICOM series in a folder `dicom`.
    Raises FileExistsError when the folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove it or choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    truth = truth_of(patient, scan, labels, scan_number)
    with whole_folder(folder) as half:
        write_files(half, scan, labels, truth)
        if dicom:
            write_dicom_series(patient, scan, scan_number, half / "dicom")
    return truth


def write_files(folder: Path, scan: KnownScan, labels: Labels, truth: dict) -> None:
    """Write FILES."""
    arrays = (scan.hu, scan.heart.astype(np.uint8), scan.calcium_mg_cm3, labels.arteries, labels.regions)
    for name, array in zip(FILES, arrays, strict=False):
        sitk.WriteImage(image_on(scan.grid, array), folder / name)
    (folder / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")
