"""A digital scan as a DICOM CT series, one file per slice, for trying a whole reading chain.

UIDs follow from patient and scan number, so that the same scan gives the same files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
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
    name, scanner = f"digital-{patient.number:05d}", scan.scanner
    x, y, z = scan.grid.spacing_mm
    paths = []
    for k, place in enumerate(scan.grid.z_mm()):
        study, series, frame, image = (
            generate_uid(entropy_srcs=[name, part, number])
            for part, number in (
                ("study", "0"),
                ("series", str(scan_number)),
                ("frame of reference", str(scan_number)),
                ("image", f"{scan_number}/{k}"),
            )
        )
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, image
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.Modality, data.ImageType, data.PositionReferenceIndicator = "CT", ["DERIVED", "PRIMARY", "AXIAL"], ""
        data.PatientName, data.PatientID, data.PatientSex = f"Digital^{patient.number:05d}", name, patient.body.sex
        data.PatientAge = f"{int(demographics(patient).age_years):03d}Y"
        data.PatientBirthDate = data.StudyDate = data.StudyTime = data.AccessionNumber = ""
        data.ReferringPhysicianName = ""
        data.StudyID, data.SeriesNumber, data.InstanceNumber = str(patient.number), scan_number, k + 1
        data.SeriesDescription = f"Digital patient, scan {scan_number}, {scanner.kernel.name} kernel"
        data.Manufacturer, data.ManufacturerModelName = "CAC digital scanner", "simulation"
        data.KVP, data.ConvolutionKernel, data.SliceThickness = (
            scanner.kvp,
            scanner.kernel.name,
            scanner.slice_thickness_mm,
        )
        data.PixelSpacing, data.SpacingBetweenSlices = [_decimal(y), _decimal(x)], z
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [*map(_decimal, scan.grid.origin_mm[:2]), _decimal(place)]
        data.SliceLocation = _decimal(place)
        stored = (scan.hu[k].astype(np.int32) - RESCALE_INTERCEPT).astype("<u2")
        data.Rows, data.Columns = stored.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = RESCALE_INTERCEPT, 1, "HU"
        data.WindowCenter, data.WindowWidth = 40, 400
        data.PixelData = stored.tobytes()
        paths.append(folder / f"slice_{k + 1:04d}.dcm")
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


def _decimal(value: float) -> float:
    """Within the 16 characters of a DICOM decimal string."""
    return round(float(value), 6)
