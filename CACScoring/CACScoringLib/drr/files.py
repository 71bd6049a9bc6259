"""Files of radiographs: PNG, an image of line integrals, or DICOM (PS3.3 A.26, Digital X-Ray For Presentation)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..core.acquisition import Acquisition
from ..core.errors import OutputError
from ..core.files import atomic_write
from .geometry import Geometry
from .projection import Radiograph

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Writer = Callable[[Path, Radiograph, Acquisition, bool], None]

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")

_WHITE = 65535


def writer_for(path: Path) -> Writer:
    """Return the writer for a file's ending. Raises OutputError for an unknown one, or a missing folder."""
    if not path.parent.is_dir() or path.is_dir():
        raise OutputError(f"{path} cannot be written: give a file in a folder that exists as --output.")
    writers = {".png": write_png, ".dcm": write_dicom_radiograph} | dict.fromkeys(IMAGE_ENDINGS, write_line_integrals)
    for ending, writer in writers.items():
        if path.name.lower().endswith(ending):
            return writer
    raise OutputError(f"{path.name} has no known ending. Give {', '.join(writers)}.")


def write_png(path: Path, picture: Radiograph, acquisition: Acquisition, identify: bool = False) -> None:
    """Write 16-bit grey values, as displayed. Raises OutputError."""
    from PIL import Image

    grey = Image.fromarray(_grey_values(picture))
    _write_atomically(path, lambda temporary: grey.save(temporary, "PNG"))


def write_line_integrals(path: Path, picture: Radiograph, acquisition: Acquisition, identify: bool = False) -> None:
    """Write ∫μ ds as float32 in one slice, with the pixel size on the detector in mm. Raises OutputError."""
    image = sitk.GetImageFromArray(picture.line_integrals[None])
    image.SetSpacing((*picture.geometry.pixel_mm, 1.0))
    _write_atomically(path, lambda temporary: sitk.WriteImage(image, str(temporary), True))


def write_dicom_radiograph(path: Path, picture: Radiograph, acquisition: Acquisition, identify: bool = False) -> None:
    """Write Digital X-Ray Image Storage – For Presentation, derived, MONOCHROME2, as displayed.

    identify: True to add the patient's name, ID and study date. Raises OutputError.
    """
    dataset = _dataset(picture, acquisition, identify)
    _write_atomically(path, lambda temporary: dataset.save_as(temporary, enforce_file_format=True))


def _dataset(picture: Radiograph, acquisition: Acquisition, identify: bool) -> Dataset:
    from pydicom.dataset import Dataset
    from pydicom.sr.codedict import codes
    from pydicom.uid import DigitalXRayImageStorageForPresentation, generate_uid

    facts, geometry = acquisition.facts(identify), picture.geometry
    spacing_mm = geometry.pixel_mm[::-1]
    ds = Dataset()
    ds.set_pixel_data(_grey_values(picture), "MONOCHROME2", 16)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID = facts.get("patient_name") or "", facts.get("patient_id") or ""
    ds.PatientSex = facts.get("patient_sex") if facts.get("patient_sex") in ("F", "M", "O") else ""
    ds.PatientBirthDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = ""
    ds.StudyDate = str(facts.get("study_date") or "").replace("-", "")
    ds.PatientIdentityRemoved = "NO" if identify else "YES"
    if not identify:
        ds.DeidentificationMethod = "Only pixels and scan settings were taken over"
    ds.Modality, ds.PresentationIntentType = "DX", "FOR PRESENTATION"
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.SeriesDescription = "Digitally reconstructed radiograph"
    ds.Manufacturer, ds.ManufacturerModelName = "CAC", "cac drr"
    ds.ImageType, ds.DerivationDescription = ["DERIVED", "PRIMARY"], "Computed from a CT; no X-ray exposure"
    ds.BodyPartExamined, ds.ImageLaterality = "CHEST", "U"
    thorax, ds.AcquisitionContextSequence = Dataset(), []
    thorax.CodeValue, thorax.CodingSchemeDesignator, thorax.CodeMeaning = codes.SCT.Thorax[:3]
    ds.AnatomicRegionSequence = [thorax]
    ds.PatientOrientation = _orientation(geometry)
    if view := _view_position(geometry):
        ds.ViewPosition = view
    ds.PositionerType, ds.DetectorType = "NONE", "DIRECT"
    ds.PositionerPrimaryAngle = round((geometry.angle_degrees + 180) % 360 - 180, 6)
    ds.PositionerSecondaryAngle = geometry.tilt_degrees
    if not geometry.parallel:
        ds.DistanceSourceToDetector = geometry.source_detector_mm
        ds.DistanceSourceToPatient = geometry.source_isocentre_mm
    ds.EstimatedRadiographicMagnificationFactor = round(geometry.magnification, 6)
    ds.ImagerPixelSpacing = [round(mm, 8) for mm in spacing_mm]
    ds.PixelSpacing = [round(mm / geometry.magnification, 8) for mm in spacing_mm]
    ds.PixelSpacingCalibrationType = "GEOMETRY"
    ds.PixelSpacingCalibrationDescription = "Distances hold at the isocentre"
    ds.PixelIntensityRelationship = "LIN" if picture.film.linear else "LOG"
    ds.PixelIntensityRelationshipSign = -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.WindowCenter, ds.WindowWidth = (_WHITE + 1) / 2, _WHITE + 1
    ds.PresentationLUTShape, ds.LossyImageCompression, ds.BurnedInAnnotation = "IDENTITY", "00", "NO"
    return ds


def _view_position(geometry: Geometry) -> str | None:
    """Return PA, AP or LL (left lateral), as in PS3.3 C.8.11.5; None for other views."""
    if geometry.tilt_degrees:
        return None
    return {0.0: "PA", 180.0: "AP", 90.0: "LL"}.get(geometry.angle_degrees % 360)


def _orientation(geometry: Geometry) -> list[str]:
    """Return the nearest direction (L, R, A, P, H, F) of the rows' and the columns' ends."""
    _, right, down = geometry.axes()
    names = (("L", "R"), ("P", "A"), ("H", "F"))
    ends = []
    for direction in (right, down):
        axis = int(np.abs(direction).argmax())
        ends.append(names[axis][0 if direction[axis] > 0 else 1])
    return ends


def _grey_values(picture: Radiograph) -> np.ndarray:
    return np.rint(picture.grey * _WHITE).astype(np.uint16)


def _write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    try:
        with atomic_write(path) as temporary:
            write(temporary)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[-1]
        raise OutputError(f"{path} cannot be written ({reason}). Choose another --output.") from error
