"""A small chest as a DICOM series, and results of it, for tests of DICOM objects."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import panel_results
import pytest
import SimpleITK as sitk
from dicom_files import AXIAL, write_series
from pydicom.uid import generate_uid

from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.choice import LoadedModels
from CACScoringLib.pipeline import ScoreSettings
from CACScoringLib.results import ScoreResult
from CACScoringLib.run import RunSettings, ScanInput, read_and_score
from CACScoringLib.scoring.lesions import ScoringRules

SITES = (Artery.LAD, Artery.RCA, NonCoronary.AORTIC_VALVE)
"""Sites of the chest's lesions, in turn."""

PATIENT = {
    "PatientName": "Müller^Änne",
    "PatientID": "ID 7",
    "PatientBirthDate": "19600102",
    "StudyID": "S1",
    "StudyTime": "101500",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "Doc^Ref",
    "StudyDescription": "Chest",
    "SpecificCharacterSet": "ISO_IR 100",
}
SECRET = "kept by the maker"
PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def chest_series(folder: Path, orientation: tuple[float, ...] = AXIAL, **tags: object) -> ScanInput:
    """Write the chest of `panel_results` as a series, with its heart and its lesions as label maps.

    Args:
        folder: Folder of the files.
        orientation: AXIAL, or PRONE for rows and columns in the opposite direction.
        tags: Attributes of every slice besides PATIENT.
    """
    image = panel_results.chest_image()
    hu = sitk.GetArrayFromImage(image)
    first = np.asarray(image.GetOrigin())
    if orientation == PRONE:
        hu = hu[:, ::-1, ::-1]
        first = np.asarray(image.TransformIndexToPhysicalPoint((hu.shape[2] - 1, hu.shape[1] - 1, 0)))

    def edit(ds: object, k: int) -> None:
        ds.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", SECRET)
        ds.PatientComments = SECRET

    tags = {**PATIENT, "FrameOfReferenceUID": generate_uid(), "PositionReferenceIndicator": "", **tags}
    spacing, origin = image.GetSpacing(), tuple(first)
    write_series(
        folder / "series", hu, spacing_mm=spacing, origin_mm=origin, orientation=orientation, tags=tags, edit=edit
    )
    sitk.WriteImage(panel_results.heart_mask(image), folder / "heart.nrrd")
    sitk.WriteImage(labels(image), folder / "lesions.nrrd")
    return ScanInput(folder / "series", heart=folder / "heart.nrrd", lesions=folder / "lesions.nrrd")


def labels(image: sitk.Image) -> sitk.Image:
    """Label every lesion of the chest with one of SITES in turn."""
    inside = sitk.GetImageFromArray((sitk.GetArrayFromImage(image) > 200).astype(np.uint8))
    parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(inside))
    values = np.zeros(parts.shape, np.uint8)
    for n in range(1, parts.max() + 1):
        values[parts == n] = SITES[(n - 1) % len(SITES)]
    return Grid.of(image).image(values)


def score(scan: ScanInput, calibration: float | None = None, networks: object = None) -> ScoreResult:
    """Score a series without writing files."""
    rules = ScoringRules(calibration_mg_per_mm3_hu=calibration)
    settings = RunSettings(ScoreSettings(rules=rules), reader="Reader^A")
    return read_and_score(scan, settings, LoadedModels(networks), Progress())


def checked(*command: str | Path) -> str:
    """Run a program of Debian's packages and return its output; skip the test without it."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed (Debian packages dicom3tools, dcmtk)")
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
    return process.stdout + process.stderr


def dicom_errors(path: Path) -> list[str]:
    """Errors that dciodvfy reports for a file."""
    return [line for line in checked("dciodvfy", path).splitlines() if line.startswith("Error")]


def validated(path: Path) -> str:
    """Validate a structured report with PixelMed and return the output; skip the test without it."""
    jars = Path("/usr/share/java")
    if not (jars / "pixelmed.jar").exists():
        pytest.skip("pixelmed.jar is not installed (Debian package libpixelmed-java)")
    classes = ":".join(str(jar) for jar in sorted(jars.glob("*.jar")) if "slf4j" not in jar.name)
    # The validator's style sheet exceeds Java's default limits.
    limits = [f"-Djdk.xml.xpath{name}=0" for name in ("TotalOpLimit", "ExprOpLimit", "ExprGrpLimit")]
    return checked("java", *limits, "-cp", classes, "com.pixelmed.validate.DicomSRValidator", path)
