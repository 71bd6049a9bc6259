"""CTs as files, and whether a changed one was scored as another reading of it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from calcified_heart import calcified_scan
from dicom_files import write_series
from reference import agatston_by_slice_loop

from CACScoringLib.scoring.lesions import ScoringRules

SPACING_MM, ORIGIN_MM = (0.7, 0.8, 2.5), (-100.0, -120.0, 30.0)
HEADER = {
    "FrameOfReferenceUID": "1.2.3.4",
    "StudyID": "1",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "",
    "PatientBirthDate": "19500101",
    "PatientSex": "M",
    "PatientAge": "061Y",
    "StudyDate": "20200101",
    "StudyTime": "120000",
    "SeriesNumber": 4,
    "SeriesDescription": "Chest",
    "ConvolutionKernel": "B30f",
    "Exposure": 80,
    "ScanOptions": "HELICAL",
    "Manufacturer": "SIEMENS",
    "ManufacturerModelName": "Sensation 16",
}
"""Beside what `write_series` writes."""


def write_ct(folder: Path, kind: str) -> None:
    """Write a CT of 16 × 76 × 76 voxels (`ct`, or `ct.KIND`), its heart, and a reader's labels."""
    scan, heart = calcified_scan()
    part = slice(4, 20), slice(10, 86), slice(10, 86)
    hu, inside = sitk.GetArrayFromImage(scan.image)[part], sitk.GetArrayFromImage(heart)[part]
    labels = np.where(hu >= 200, inside, 0).astype(np.uint8)
    labels[:, :, 38:] *= 2
    if kind == "dicom":
        write_series(folder / "ct", hu, spacing_mm=SPACING_MM, tags=HEADER)
    else:
        sitk.WriteImage(_image(hu), str(folder / f"ct.{kind}"))
    sitk.WriteImage(_image(inside), str(folder / "heart.nii.gz"))
    sitk.WriteImage(_image(labels), str(folder / "labels.nii.gz"))


QUICK = '{"scoring": {"normalisation": "off"}, "results": {"scene": false}}'


def score(folder: Path, *options: str) -> list[str]:
    """The command that scores it."""
    ct = next(path for path in folder.iterdir() if path.name.split(".")[0] == "ct")
    heart = () if "--heart" in options else ("--heart", str(folder / "heart.nii.gz"))
    quick = ("--threshold-only", "--settings", QUICK, "--progress", "none")
    return ["score", str(ct), *heart, *quick, "--output", str(folder / "out"), *options]


def silent_change(folder: Path) -> str:
    """What is wrong with a score that was given without a warning; empty where it has one, or is right."""
    record = json.loads((folder / "out" / "scores.json").read_text(encoding="utf-8"))
    if new_warnings(folder):
        return ""
    found = record["methods"]["threshold"]["total"]["agatston"]
    try:
        expected = _expected(folder)
    except Exception as error:
        return f"scored {found}, but another reading fails: {error!r}"
    return "" if abs(found - expected) <= 1e-6 * max(1, expected) else f"scored {found}, expected {expected}"


def new_warnings(folder: Path) -> set[str]:
    """The codes of a result's warnings but for those of the sound scan, which say nothing about the change."""
    record = json.loads((folder / "out" / "scores.json").read_text(encoding="utf-8"))
    kept = folder / "usual.json"
    usual = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else ()
    return {warning["code"] for warning in record["warnings"]}.difference(usual)


def _expected(folder: Path) -> float:
    """Agatston score of what the files hold now, in the heart that was given."""
    path = next(path for path in folder.iterdir() if path.name.split(".")[0] == "ct")
    image = _series(path) if path.is_dir() else sitk.ReadImage(str(path))
    heart = sitk.ReadImage(str(folder / "heart.nii.gz"))
    if image.GetSize() != heart.GetSize() or not np.allclose(image.GetSpacing(), heart.GetSpacing(), atol=1e-4):
        heart = sitk.Resample(heart, image, sitk.Transform(), sitk.sitkNearestNeighbor)
    inside = (sitk.GetArrayFromImage(heart) != 0).astype(np.uint8)
    return sum(agatston_by_slice_loop(image, inside, ScoringRules(), skip_empty=True).values())


def _series(folder: Path) -> sitk.Image:
    """The slices of a folder by their positions, without any check."""
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=lambda s: float(s.ImagePositionPatient[2]))
    hu = [_stored(s) * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices]
    positions = [float(s.ImagePositionPatient[2]) for s in slices]
    image = sitk.GetImageFromArray(np.array(hu, np.float32))
    down, across = map(float, slices[0].PixelSpacing)
    image.SetSpacing((across, down, (positions[-1] - positions[0]) / (len(positions) - 1)))
    image.SetOrigin([float(x) for x in slices[0].ImagePositionPatient])
    return image


def _stored(of: pydicom.Dataset) -> np.ndarray:
    kind = "<i2" if of.PixelRepresentation else "<u2"
    return np.frombuffer(of.PixelData, kind, of.Rows * of.Columns).reshape(of.Rows, of.Columns)


def _image(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin(ORIGIN_MM)
    return image
