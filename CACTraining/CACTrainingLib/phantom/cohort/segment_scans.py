"""Scans of digital patients with a plaque in each coronary segment, and the voxels of each plaque.

A scan is kept as a folder with the CT, the label map of plaques and their truth, so that several sets of networks are
compared on the same patients.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan, scan_from_image
from CACScoringLib.core.files import atomic_folder
from CACScoringLib.io.reading import read_mask

from ..anatomy.heart import posed_frame
from ..anatomy.patient import Patient, draw_patient, stream
from ..anatomy.points import POINT_STEP_MM
from ..anatomy.segments import draw_plaque_by_segment
from ..scanner.motion import PROTOCOLS, draw_pair
from ..scanner.response import add_stamp, image_of_points
from ..scanner.simulation import DigitalScan, displacement, scan_grid, scan_patient
from .export import LABEL_HU, as_ct_scan

SEGMENT_SCANS_VERSION = 1
"""Raised whenever the scans of a patient would come out otherwise."""

HEIGHTS_MM = (-95.0, 85.0)
"""Heights scanned, from the heart's middle: the heart in any breath, and lung above and below."""

MASS_MG, BLURRED_MASS_MG = (3.0, 60.0), (10.0, 100.0)
"""Range of a plaque's mass in gated scans and in others, where motion hides smaller ones: four of five plaques then
have 1 mm² at 130 HU."""

_SCAN, _STREAM = 1, 60


@dataclass(frozen=True)
class SegmentPlaque:
    """Truth of a plaque.

    Attributes:
        id: Label in the label map.
        segment: Key of `segments.SEGMENTS`.
        artery: One of `coronaries.ARTERIES`.
        mass_mg: Hydroxyapatite.
        density_mg_cm3: Hydroxyapatite.
    """

    id: int
    segment: int
    artery: str
    mass_mg: float
    density_mg_cm3: float


@dataclass(frozen=True)
class SegmentScan:
    """A scan with its plaques.

    Attributes:
        ct: CT as scoring takes it.
        labels: uint8 [k, j, i]: the plaque that adds most HU, where it adds LABEL_HU; 0 elsewhere.
        plaques: All plaques of the patient, visible or not.
    """

    ct: CTScan
    labels: np.ndarray
    plaques: tuple[SegmentPlaque, ...]


def segment_scan(number: int, protocol: str, share: float, folder: Path) -> SegmentScan:
    """Read a patient's scan from its folder; simulate and write it where there is none.

    protocol: a name in PROTOCOLS. share: probability that a segment gets a plaque. Raises CTError, OSError.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write(folder, *_simulate(number, protocol, share))
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    image = sitk.ReadImage(folder / "ct.nii.gz")
    ct = scan_from_image(image, Acquisition(**truth["acquisition"]), folder / "ct.nii.gz")
    labels = sitk.GetArrayFromImage(read_mask(folder / "plaques.nii.gz"))
    return SegmentScan(ct, labels, tuple(SegmentPlaque(**plaque) for plaque in truth["plaques"]))


def label_plaques(patient: Patient, scan: DigitalScan) -> np.ndarray:
    """Label each plaque of a scan by its id, uint8 [k, j, i], as in `SegmentScan.labels`."""
    origin = np.asarray(scan.grid.origin_mm) - np.asarray(scan.pose.table_shift_mm)
    grid = replace(scan.grid, origin_mm=tuple(origin))
    frame, per_mg = posed_frame(patient.body, scan.pose), 1000.0 * scan.scanner.calcium_hu_per_mg_cm3
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    labels, strongest = np.zeros(grid.shape, np.uint8), np.full(grid.shape, LABEL_HU, np.float32)
    for plaque in patient.plaques:
        cloud = plaque.cloud(vessels[plaque.vessel], POINT_STEP_MM).map(frame.to_lps)
        motion = displacement(patient, scan.pose, plaque.artery, True)
        for stamp in image_of_points(cloud, grid, scan.scanner, motion):
            hu = np.zeros(grid.shape[1:], np.float32)
            add_stamp(hu, stamp, per_mg)
            wins = hu >= strongest[stamp.k]
            labels[stamp.k][wins], strongest[stamp.k][wins] = plaque.id, hu[wins]
    return labels


def _simulate(number: int, protocol: str, share: float) -> tuple[Patient, DigitalScan, dict[int, int]]:
    """Patient, scan, and segment by the plaque's id."""
    patient = draw_patient(number, prevalence=1.0)
    mass_mg = MASS_MG if PROTOCOLS[protocol].gated else BLURRED_MASS_MG
    drawn = draw_plaque_by_segment(patient.tree, stream(number, _STREAM), mass_mg, share)
    patient = replace(patient, plaques=tuple(plaque for _, plaque in drawn.values()))
    scanner, pose = draw_pair(PROTOCOLS[protocol], stream(number, 20))[_SCAN - 1]
    scan = scan_patient(patient, scanner, pose, _SCAN, scan_grid(scanner, HEIGHTS_MM))
    return patient, scan, {plaque: segment for plaque, (segment, _) in drawn.items()}


def _write(folder: Path, patient: Patient, scan: DigitalScan, segments: dict[int, int]) -> None:
    plaques = [
        SegmentPlaque(plaque.id, segments[plaque.id], plaque.artery, plaque.mass_mg, plaque.density_mg_cm3)
        for plaque in patient.plaques
    ]
    acquisition = as_ct_scan(scan, patient).acquisition
    truth = {"plaques": [asdict(plaque) for plaque in plaques], "acquisition": asdict(acquisition)}
    with atomic_folder(folder) as half:
        sitk.WriteImage(scan.grid.image(scan.hu), half / "ct.nii.gz", useCompression=True)
        sitk.WriteImage(scan.grid.image(label_plaques(patient, scan)), half / "plaques.nii.gz", useCompression=True)
        (half / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")
