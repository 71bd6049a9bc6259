"""Small CTs of lesions whose score is known, as files."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from images import image_of

ONE_LESION = 32.0
"""Agatston score of 16 mm² of 250 HU in a slice of 3 mm."""


def write_image(values: np.ndarray, path: Path) -> Path:
    """Write an array [k, j, i] with voxels of 1 × 1 × 3 mm."""
    image = image_of(values)
    sitk.WriteImage(image, path)
    return path


def write_ct(path: Path, lesions: int = 1, seed: int = 0, rows: int = 4) -> Path:
    """Write a CT of lesions of 4 × `rows` mm at 250 HU, one per slice from slice 5, and its `heart.nrrd` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hu = np.random.default_rng(seed).normal(40, 8, (10, 50, 50)).round().astype(np.int16)
    hu[:, 0], hu[0, 0, 0] = -1000, 1400
    for k in (5, 3, 7)[:lesions]:
        hu[k, 20 : 20 + rows, 20:24] = 250
    heart = np.zeros(hu.shape, np.uint8)
    heart[1:9, 8:42, 8:42] = 1
    write_image(heart, path.with_name("heart.nrrd"))
    return write_image(hu, path)


def write_labels(path: Path, label: int = 2) -> Path:
    """Write a reader's label for the lesion in slice 5."""
    labels = np.zeros((10, 50, 50), np.uint8)
    labels[5, 18:28, 18:28] = label
    return write_image(labels, path)
