"""Export of digital scans as images and files, optionally DICOM, with the labels that annotators would draw.

Labels are visible slices, arteries, and regions of a 1 cm brush. Visibility depends on contrast against noise, not on
130 HU: faint calcium shows in a quiet scan, dense calcium may not in a noisy one. UIDs follow from patient and scan
number, so the same scan gives the same files.
"""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.anatomy.heart_region import measure_epicardial_fat
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan, scan_from_image
from CACScoringLib.core.files import atomic_folder, write_text_atomically
from CACScoringLib.core.labels import ARTERIES

from ..anatomy.coronaries import LABELS, Plaque
from ..anatomy.distractors import Distractor
from ..anatomy.patient import Patient, demographics
from ..scanner.response import add_stamp
from ..scanner.simulation import SMOOTHING_MM, DigitalScan, ScanWithTruth

VISIBLE_CONTRAST_TO_NOISE = 4.0
"""Contrast-to-noise ratio above which a detail is visible (Rose criterion, 3 to 5)."""
VISIBLE_HU = 12.0
ANATOMY_HU = 3.0
"""Spread of healthy tissue in HU, which hides calcium even without noise."""
LABEL_HU = 10.0
"""Least HU that an artery's calcium adds to a voxel of its label."""
BRUSH_MM = 10.0
_STROKE_MM = 3.0


@dataclass(frozen=True)
class PhantomSlice:
    """Label of one slice.

    Attributes:
        k: Slice index.
        visible: True if calcium is visible.
        contrast_to_noise: Contrast-to-noise ratio of the calcium.
        calcium_hu: Highest HU that calcium adds.
    """

    k: int
    visible: bool
    contrast_to_noise: float
    calcium_hu: float


@dataclass(frozen=True)
class Labels:
    """Labels of a scan.

    Attributes:
        arteries: Labels uint8 [k, j, i], 1 LM, 2 LAD, 3 LCX, 4 RCA where calcium adds LABEL_HU.
        regions: The same labels in rough regions around visible calcium, uint8 [k, j, i].
        slices: One label per slice that holds heart.
    """

    arteries: np.ndarray
    regions: np.ndarray
    slices: tuple[PhantomSlice, ...]


def annotate(scan: ScanWithTruth, generator: np.random.Generator) -> Labels:
    """Label a scan as an annotator would. generator: for the unsteadiness of the annotator's hand."""
    shape = scan.grid.shape
    per_mg = np.float32(1000.0 * scan.scanner.calcium_hu_per_mg_cm3)
    arteries, regions = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    slices = []
    for k in range(shape[0]):
        strongest = np.zeros(shape[1:], np.float32)
        total = np.zeros(shape[1:], np.float32)
        for artery, stamps in scan.arteries.items():
            in_slice = [stamp for stamp in stamps if stamp.k == k]
            if not in_slice:
                continue
            artery_hu = np.zeros(shape[1:], np.float32)
            for stamp in in_slice:
                add_stamp(artery_hu, stamp, float(per_mg))
            arteries[k][(artery_hu >= LABEL_HU) & (artery_hu > strongest)] = LABELS[artery]
            np.maximum(strongest, artery_hu, out=strongest)
            total += artery_hu
            if _visibility(artery_hu, scan, k).visible:
                _paint_regions(regions[k], artery_hu, LABELS[artery], scan.grid.spacing_mm[0], generator)
        if scan.heart[k].any():
            slices.append(_visibility(total, scan, k))
    return Labels(arteries, regions, tuple(slices))


def _visibility(calcium_hu: np.ndarray, scan: ScanWithTruth, k: int) -> PhantomSlice:
    peak = float(calcium_hu.max())
    if peak < VISIBLE_HU:
        return PhantomSlice(k, False, 0.0, peak)
    j, i = np.nonzero(calcium_hu > 1.0)
    part = calcium_hu[max(0, j.min() - 5) : j.max() + 6, max(0, i.min() - 5) : i.max() + 6]
    smooth = float(ndimage.gaussian_filter(part, SMOOTHING_MM / scan.grid.spacing_mm[0]).max())
    noise = math.hypot(scan.noise_sd_hu[k] * scan.smoothed_noise_share, ANATOMY_HU)
    return PhantomSlice(k, smooth / noise > VISIBLE_CONTRAST_TO_NOISE and smooth > VISIBLE_HU, smooth / noise, peak)


def _paint_regions(
    region: np.ndarray, calcium_hu: np.ndarray, label: int, pixel_mm: float, generator: np.random.Generator
) -> None:
    """Brush over the visible calcium of one slice, in place."""
    j, i = np.nonzero(calcium_hu >= max(VISIBLE_HU, 0.25 * float(calcium_hu.max())))
    order = np.argsort(-calcium_hu[j, i], kind="stable")
    places = np.stack([j, i], axis=1)[order].astype(float)
    reach = math.ceil((BRUSH_MM / 2 + 2) / pixel_mm)
    while len(places):
        first = places[0]
        places = places[np.hypot(*(places - first).T) * pixel_mm > _STROKE_MM]
        centre = first + generator.normal(0, 0.6 / pixel_mm, 2)
        j0, i0 = max(0, int(first[0]) - reach), max(0, int(first[1]) - reach)
        part = region[j0 : int(first[0]) + reach + 1, i0 : int(first[1]) + reach + 1]
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        in_brush = np.hypot(rows + j0 - centre[0], columns + i0 - centre[1]) * pixel_mm <= BRUSH_MM / 2
        part[in_brush] = label


RESCALE_INTERCEPT = -1024


def write_dicom_series(patient: Patient, scan: DigitalScan, scan_number: int, folder: Path) -> list[Path]:
    """Write a scan as DICOM into a new folder and return the files, from the feet up.

    Raises FileExistsError when the folder exists.
    """
    from pydicom.dataset import Dataset
    from pydicom.uid import CTImageStorage, generate_uid

    folder.mkdir(parents=True)
    name, scanner = f"digital-{patient.number:05d}", scan.scanner
    x, y, z = scan.grid.spacing_mm
    paths = []

    def uid(part: str, number: object) -> str:
        return generate_uid(entropy_srcs=[name, part, str(number)])

    for k, place in enumerate(scan.grid.axes_mm()[2]):
        data = Dataset()
        stored = (scan.hu[k].astype(np.int32) - RESCALE_INTERCEPT).astype("<u2")
        data.set_pixel_data(stored, "MONOCHROME2", 16)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, uid("image", f"{scan_number}/{k}")
        data.StudyInstanceUID, data.SeriesInstanceUID = uid("study", 0), uid("series", scan_number)
        data.FrameOfReferenceUID = uid("frame of reference", scan_number)
        data.Modality, data.ImageType, data.PositionReferenceIndicator = "CT", ["DERIVED", "PRIMARY", "AXIAL"], ""
        data.PatientName, data.PatientID, data.PatientSex = f"Digital^{patient.number:05d}", name, patient.body.sex
        data.PatientAge = f"{int(demographics(patient).age_years):03d}Y"
        data.PatientBirthDate = data.StudyDate = data.StudyTime = data.AccessionNumber = ""
        data.ReferringPhysicianName = ""
        data.StudyID, data.SeriesNumber, data.InstanceNumber = str(patient.number), scan_number, k + 1
        data.SeriesDescription = f"Digital patient, scan {scan_number}, {scanner.kernel.name} kernel"
        data.Manufacturer, data.ManufacturerModelName = "CAC digital scanner", "simulation"
        data.KVP, data.ConvolutionKernel = scanner.kvp, scanner.kernel.name
        data.SliceThickness = scanner.slice_thickness_mm
        data.PixelSpacing, data.SpacingBetweenSlices = [_decimal(y), _decimal(x)], z
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [*map(_decimal, scan.grid.origin_mm[:2]), _decimal(place)]
        data.SliceLocation = _decimal(place)
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = RESCALE_INTERCEPT, 1, "HU"
        data.WindowCenter, data.WindowWidth = 40, 400
        paths.append(folder / f"slice_{k + 1:04d}.dcm")
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


def _decimal(value: float) -> float:
    """Round to the 16 characters of a DICOM decimal string."""
    return round(float(value), 6)


SCHEMA = "cac-phantom/1"
FILES = ("ct.nii.gz", "heart.nii.gz", "calcium_map.nii.gz", "arteries.nii.gz", "regions.nii.gz", "truth.json")


def same_settings(path: Path, settings: dict[str, Any]) -> bool:
    """Record settings in a new file; for an existing one, return True if it holds the same settings."""
    record = json.loads(json.dumps({"schema": SCHEMA} | settings))
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8")) == record
    write_text_atomically(path, json.dumps(record, indent=1))
    return True


def as_ct_scan(scan: DigitalScan, patient: Patient) -> CTScan:
    """Return the scan for the scoring pipeline, with the facts of a DICOM header."""
    scanner, facts = scan.scanner, demographics(patient)
    acquisition = Acquisition(
        file_format="digital patient",
        kvp=scanner.kvp,
        kernel=scanner.kernel.name,
        gating=None if scanner.gate_phase is None else f"{100 * scanner.gate_phase:.0f} % of the R-R interval",
        manufacturer="CAC digital scanner",
        slice_thickness_mm=scanner.slice_thickness_mm,
        patient_sex=facts.sex,
        patient_age_years=int(facts.age_years),
        patient_id=f"digital-{patient.number:05d}",
    )
    return scan_from_image(scan.grid.image(scan.hu), acquisition)


def truth_of(patient: Patient, scan: DigitalScan, labels: Labels, scan_number: int) -> dict[str, Any]:
    """Return the truth about a scan for `truth.json`. Masses in mg hydroxyapatite."""
    facts = demographics(patient)
    fat, _ = measure_epicardial_fat(as_ct_scan(scan, patient), scan.heart, "truth")
    return {
        "schema": SCHEMA,
        "patient": patient.number,
        "scan": scan_number,
        "sex": facts.sex,
        "age_years": facts.age_years,
        "bmi_kg_m2": facts.bmi_kg_m2,
        "dominance": patient.tree.dominance,
        "heart_blend": patient.heart.weights,
        "difficulty": patient.difficulty,
        "epicardial_fat": fat and asdict(fat),
        **truth_of_scan(scan, patient.plaques, patient.distractors, labels),
        "pose": asdict(scan.pose),
        "body": asdict(patient.body),
    }


def truth_of_scan(
    scan: ScanWithTruth, plaques: tuple[Plaque, ...], distractors: tuple[Distractor, ...], labels: Labels
) -> dict[str, Any]:
    """Return the truth about calcium, slices, noise and scanner of a scan. Masses in mg hydroxyapatite."""
    voxel_cm3 = float(np.prod(scan.grid.spacing_mm)) / 1000.0
    scanned_mg = {
        artery: sum(float(s.values.sum(dtype=np.float64)) for s in scan.arteries.get(artery, ())) * voxel_cm3 * 1000.0
        for artery in ARTERIES
    }
    return {
        "mass_mg": sum(plaque.mass_mg for plaque in plaques),
        "mass_mg_by_artery": {a: sum(p.mass_mg for p in plaques if p.artery == a) for a in ARTERIES},
        "scanned_mass_mg_by_artery": scanned_mg,
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
) -> dict[str, Any]:
    """Write FILES into a new folder, which appears only when complete, and return the truth.

    dicom: True to add the CT as a DICOM series in a folder `dicom`.
    Raises FileExistsError when the folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove it or choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    truth = truth_of(patient, scan, labels, scan_number)
    with atomic_folder(folder) as unfinished:
        write_files(unfinished, scan, labels, truth)
        if dicom:
            write_dicom_series(patient, scan, scan_number, unfinished / "dicom")
    return truth


def write_files(folder: Path, scan: ScanWithTruth, labels: Labels, truth: dict[str, Any]) -> None:
    """Write FILES."""
    arrays = (scan.heart.astype(np.uint8), scan.calcium_mg_cm3, labels.arteries, labels.regions)
    for name, array in zip(FILES[1:], arrays, strict=False):
        sitk.WriteImage(scan.grid.image(array), folder / name)
    # Noise hardly compresses: ITK's level takes half as long again as level 1, for 3 % less.
    plain = folder / "ct.nii"
    sitk.WriteImage(scan.grid.image(scan.hu), plain)
    (folder / FILES[0]).write_bytes(gzip.compress(plain.read_bytes(), 1, mtime=0))
    plain.unlink()
    (folder / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")
