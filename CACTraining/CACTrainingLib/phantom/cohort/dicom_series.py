"""A digital scan as a DICOM CT series, one file per slice, for trying a whole reading chain.

UIDs follow from patient and scan number, so that the same scan gives the same files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ..anatomy.demographics import demographics
from ..anatomy.patient import Patient
from ..scanner.simulation import DigitalScan

RESCALE_INTERCEPT = -1024


def write_dicom_series(patient: Patient, scan: DigitalScan, scan_number: int, folder: Path) -> list[Path]:
    """Write a scan into a new folder and return the files, from the feet up.

    Raises FileExistsError when the folder exists.
    """
    folder.mkdir(parents=True)
    digits = len(str(scan.grid.shape[0]))
    paths = []
    for k in range(scan.grid.shape[0]):
        data = _slice(patient, scan, scan_number, k)
        path = folder / f"slice_{k + 1:0{digits}d}.dcm"
        data.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _slice(patient: Patient, scan: DigitalScan, scan_number: int, k: int) -> Dataset:
    name = f"digital-{patient.number:05d}"
    uid = {
        part: generate_uid(entropy_srcs=[name, part, str(number)])
        for part, number in (
            ("study", 0),
            ("series", scan_number),
            ("frame of reference", scan_number),
            ("image", f"{scan_number}/{k}"),
        )
    }
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid["image"]
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, uid["image"]
    data.StudyInstanceUID, data.SeriesInstanceUID = uid["study"], uid["series"]
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = uid["frame of reference"], ""
    data.Modality, data.ImageType = "CT", ["DERIVED", "PRIMARY", "AXIAL"]
    data.PatientName, data.PatientID, data.PatientSex = f"Digital^{patient.number:05d}", name, patient.body.sex
    data.PatientAge = f"{int(demographics(patient).age_years):03d}Y"
    data.PatientBirthDate = data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.StudyID, data.SeriesNumber, data.InstanceNumber = str(patient.number), scan_number, k + 1
    data.SeriesDescription = f"Digital patient, scan {scan_number}, {scan.scanner.kernel.name} kernel"
    data.Manufacturer, data.ManufacturerModelName = "CAC digital scanner", "simulation"
    data.KVP, data.ConvolutionKernel = scan.scanner.kvp, scan.scanner.kernel.name
    data.SliceThickness = scan.scanner.slice_thickness_mm
    x, y, z = scan.grid.spacing_mm
    data.PixelSpacing, data.SpacingBetweenSlices = [_decimal(y), _decimal(x)], z
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    first = scan.grid.origin_mm
    data.ImagePositionPatient = [_decimal(first[0]), _decimal(first[1]), _decimal(first[2] + k * z)]
    data.SliceLocation = _decimal(first[2] + k * z)
    stored = (scan.hu[k].astype(np.int32) - RESCALE_INTERCEPT).astype("<u2")
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = RESCALE_INTERCEPT, 1, "HU"
    data.WindowCenter, data.WindowWidth = 40, 400
    data.PixelData = stored.tobytes()
    return data


def _decimal(value: float) -> float:
    """Within the 16 characters of a DICOM decimal string."""
    return round(float(value), 6)
