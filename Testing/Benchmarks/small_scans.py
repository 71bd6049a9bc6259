"""Small synthetic scans with their hearts, for benchmarks of the engine of a cohort: an eighth of a second each."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import SimpleITK as sitk


def write_scans(folder: Path, count: int, broken: int = 0) -> Path:
    """Write scans of 50×50×10 voxels with 1 to 3 lesions, of which the last `broken` are no images; and their table."""
    folder.mkdir(parents=True, exist_ok=True)
    heart = np.zeros((10, 50, 50), np.uint8)
    heart[1:9, 8:42, 8:42] = 1
    _write(heart, folder / "heart.nrrd")
    rows = [("ct", "heart", "name")]
    for number in range(count):
        hu = np.random.default_rng(number).normal(40, 8, heart.shape).round().astype(np.int16)
        hu[:, 0], hu[0, 0, 0] = -1000, 1400
        for slice_number in range(2, 3 + 2 * (number % 3), 2):
            hu[slice_number, 20:24, 20 : 22 + number % 7] = 250
        name = f"scan-{number}"
        _write(hu, folder / f"{name}.nii.gz")
        if number >= count - broken:
            (folder / f"{name}.nii.gz").write_bytes(b"no image")
        rows.append((f"{name}.nii.gz", "heart.nrrd", name))
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "table.csv"


def _write(array: np.ndarray, path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 3.0))
    sitk.WriteImage(image, path)
