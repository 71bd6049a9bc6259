"""Small stand-ins for scans of public collections, laid out as published."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from dicom_files import write_series
from images import image_of

SPACING_MM = (2.0, 2.0, 3.0)
CALCIUM = (slice(2, 4), slice(5, 8), slice(5, 8))
"""Voxels of calcium [k, j, i]."""


def chest(seed: int = 0, hu: float = 400.0) -> np.ndarray:
    """HU [k, j, i] of soft tissue in air with one lesion, distinct by its seed."""
    values = np.full((8, 16, 18), -1000, np.int16)
    values[:, 3:13, 3:15] = np.random.default_rng(seed).integers(20, 60, (8, 10, 12))
    values[CALCIUM] = hu + 5 * np.arange(18).reshape(2, 3, 3)
    return values


def labels(label: int = 1, shift: int = 0) -> np.ndarray:
    """Label map of the lesion, moved by some columns."""
    values = np.zeros((8, 16, 18), np.uint8)
    values[CALCIUM] = label
    return np.roll(values, shift, axis=2)


def write_image(path: Path, values: np.ndarray, **facts: str) -> Path:
    """Write an image file. facts: Entries of its header."""
    image = image_of(values, SPACING_MM)
    for key, value in facts.items():
        image.SetMetaData(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_scan(folder: Path, patient: str, seed: int = 0, **tags: object) -> list[Path]:
    """Write a DICOM series of a patient."""
    tags = {"PatientID": patient, **tags}
    return write_series(folder, chest(seed), spacing_mm=SPACING_MM, origin_mm=(0.0, 0.0, 0.0), tags=tags)
