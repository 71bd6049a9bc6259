"""Made-up chest radiographs, as arrays and as DICOM files."""

from __future__ import annotations

from pathlib import Path

import dicom_files
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, generate_uid


def chest(rows: int = 430, columns: int = 430, pixel_mm: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """A smooth body with two dark lungs and a heart to the picture's right, mm of water, float32, in the middle.

    pixel_mm: distance of columns and of rows.
    """
    y = (np.arange(rows)[:, None] - (rows - 1) / 2) * pixel_mm[1]
    x = (np.arange(columns) - (columns - 1) / 2) * pixel_mm[0]
    body = 300 * np.sqrt(np.maximum(1 - (x / 170) ** 2, 0)) * np.ones_like(y)
    for side in (-80, 80):
        body -= 150 * np.exp(-(((x - side) / 40) ** 2)) * np.exp(-((y / 90) ** 2)) * (body > 0)
    body += 60 * np.exp(-(((x - 30) / 40) ** 2)) * np.exp(-(((y - 40) / 40) ** 2))
    return np.maximum(body, 0).astype(np.float32)


def stored(picture: np.ndarray, white: int = 4000) -> np.ndarray:
    """A picture as whole numbers from 0 to white."""
    low, high = picture.min(), picture.max()
    return np.rint((picture - low) / (high - low) * white).astype(np.uint16)


def write_dicom(path: Path, values: np.ndarray, **tags: object) -> Path:
    """A digital radiograph, PA, MONOCHROME2, 1 mm pixels on the detector. tags: by keyword; None leaves one out."""
    ds = Dataset()
    ds.set_pixel_data(values, "MONOCHROME2", 8 * values.dtype.itemsize)
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.Modality, ds.PresentationIntentType, ds.ViewPosition = "DX", "FOR PRESENTATION", "PA"
    ds.PatientName, ds.PatientID, ds.PatientSex, ds.PatientAge = "Doe^Jane", "P1", "F", "061Y"
    ds.StudyDate, ds.BodyPartExamined, ds.Manufacturer = "20240131", "CHEST", "Maker"
    ds.ImagerPixelSpacing = [1.0, 1.0]
    ds.PatientOrientation = ["L", "F"]
    for keyword, value in tags.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return dicom_files.save(ds, path)


def lookup_table(first: int, entries: list[int], bits: int = 16) -> list[Dataset]:
    """A LUT sequence of one item."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    item.ModalityLUTType = "US"
    return [item]
