"""Synthetic DICOM CT series for the tests of reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Direction cosines of rows and columns of true axial slices, LPS."""


def chest_hu(slices: int = 6, rows: int = 12, columns: int = 14, seed: int = 0) -> np.ndarray:
    """Integer HU of a simple chest, [k, j, i], with distinct slices: lung, soft tissue and calcium."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1000, -700, (slices, rows, columns))
    hu[:, 3:9, 3:11] = rng.integers(-20, 80, (slices, 6, 8))
    hu[:, 5, 5] = 400 + 10 * np.arange(slices)
    hu[0, 4, 4] = 1500
    return hu


def write_series(
    folder: Path,
    hu: np.ndarray,
    *,
    slope: float | Sequence[float] = 1,
    intercept: float | Sequence[float] = -1024,
    signed: bool = False,
    spacing_mm: tuple[float, float, float] = (0.7, 0.8, 3.0),
    origin_mm: tuple[float, float, float] = (-100.0, -120.0, 30.0),
    orientation: Sequence[float] = AXIAL,
    tags: dict | None = None,
    edit: Callable[[Dataset, int], None] | None = None,
    name: Callable[[int], str] = "slice{:03d}.dcm".format,
) -> list[Path]:
    """Write one file per slice and return the paths, slice 0 first.

    Args:
        folder: Folder of the files.
        hu: [k, j, i].
        slope: Rescale slope of all slices, or one per slice.
        intercept: Rescale intercept of all slices, or one per slice.
        signed: True for signed stored values.
        spacing_mm: (i, j, k).
        origin_mm: LPS; slices follow along the cross product of rows and columns.
        orientation: Direction cosines of rows and columns.
        tags: Attributes by keyword for every slice; None deletes.
        edit: Function of dataset and k that changes each slice at the end.
        name: Function that returns the file name of a slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    slopes, intercepts = (np.broadcast_to(np.asarray(value, float), len(hu)) for value in (slope, intercept))
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    normal = np.cross(row, column)
    series_uid, study_uid = generate_uid(), generate_uid()
    paths = []
    for k, values in enumerate(hu):
        numbers = np.rint((values - intercepts[k]) / slopes[k])
        stored = numbers.astype("<i2") if signed else np.maximum(numbers, 0).astype("<u2")
        ds = _header(series_uid, study_uid, stored)
        position = np.asarray(origin_mm) + k * spacing_mm[2] * normal
        ds.ImagePositionPatient = [float(f"{value:.6f}") for value in position]
        ds.ImageOrientationPatient = [float(f"{value:.8f}") for value in orientation]
        ds.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
        ds.SliceThickness = spacing_mm[2]
        ds.InstanceNumber = k + 1
        ds.RescaleSlope, ds.RescaleIntercept = float(slopes[k]), float(intercepts[k])
        set_tags(ds, tags or {})
        if edit:
            edit(ds, k)
        paths.append(save(ds, folder / name(k)))
    return paths


def save(ds: Dataset, path: Path) -> Path:
    """Write a dataset as a DICOM file, filling in the file meta information."""
    ds.file_meta = getattr(ds, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CTImageStorage)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", generate_uid())
    ds.save_as(path, enforce_file_format=True)
    return path


def _header(series_uid: str, study_uid: str, stored: np.ndarray) -> Dataset:
    ds = Dataset()
    ds.set_pixel_data(stored, "MONOCHROME2", 16)
    ds.SOPClassUID = CTImageStorage
    ds.SeriesInstanceUID, ds.StudyInstanceUID = series_uid, study_uid
    ds.Modality, ds.ImageType, ds.StudyDate = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "20240131"
    ds.SeriesNumber, ds.SeriesDescription = 3, "CaSc 3.0"
    ds.PatientID, ds.PatientName, ds.PatientSex, ds.PatientAge = "P1", "Doe^Jane", "F", "058Y"
    ds.Manufacturer, ds.ManufacturerModelName = "Maker", "Model X"
    ds.KVP, ds.ConvolutionKernel, ds.Exposure = 120, "B35f", 80
    ds.RescaleType = "HU"
    return ds


def only(k: int, **tags: object) -> Callable[[Dataset, int], None]:
    """Edit for `write_series` that sets attributes of slice k only; None deletes."""

    def edit(ds: Dataset, n: int) -> None:
        if n == k:
            set_tags(ds, tags)

    return edit


def set_tags(ds: Dataset, tags: dict[str, object]) -> None:
    """Set attributes by keyword; None deletes."""
    for keyword, value in tags.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
