"""A CT with calcium of 16 × 76 × 76 voxels as files, and the command that scores it."""

from pathlib import Path

import SimpleITK as sitk
from calcified_heart import calcified_scan
from dicom_files import write_series
from images import image_of

SPACING_MM, ORIGIN_MM = (0.7, 0.8, 2.5), (-100.0, -120.0, 30.0)
HEADER = {
    "FrameOfReferenceUID": "1.2.3.4",
    "StudyID": "1",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "",
    "PatientBirthDate": "19500101",
    "SeriesDescription": "Chest",
    "ConvolutionKernel": "B30f",
    "ScanOptions": "HELICAL",
    "Manufacturer": "SIEMENS",
    "ManufacturerModelName": "Sensation 16",
}
"""DICOM tags in addition to those that `write_series` writes."""


def write_ct(folder: Path, kind: str) -> None:
    """Write a CT (`ct` for "dicom", else `ct.KIND`) and its heart mask."""
    scan, heart = calcified_scan()
    part = slice(4, 20), slice(10, 86), slice(10, 86)
    hu, inside = (sitk.GetArrayFromImage(image)[part] for image in (scan.image, heart))
    if kind == "dicom":
        write_series(folder / "ct", hu, spacing_mm=SPACING_MM, tags=HEADER)
    else:
        sitk.WriteImage(image_of(hu, SPACING_MM, ORIGIN_MM), folder / f"ct.{kind}")
    sitk.WriteImage(image_of(inside, SPACING_MM, ORIGIN_MM), folder / "heart.nii.gz")


def score_command(folder: Path, *options: str) -> list[str]:
    """Return the arguments of `cac` that score the CT into `out`."""
    ct = next(path for path in folder.iterdir() if path.name.split(".")[0] == "ct")
    settings = '{"results": {"scene": false}, "scoring": {"normalisation": "off"}}'
    quick = ("--threshold-only", "--settings", settings, "--progress", "none")
    files = (str(ct), "--heart", str(folder / "heart.nii.gz"), "--output", str(folder / "out"))
    return ["score", *files, *quick, *options]
