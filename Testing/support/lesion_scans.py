"""Small CTs of lesions whose score is known, as files."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from images import image_of
from noisy_hearts import noisy_heart

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
    boxes = [(np.s_[k, 20 : 20 + rows, 20:24], 250) for k in (5, 3, 7)[:lesions]]
    scan, heart = noisy_heart((10, 50, 50), boxes, seed=seed)
    sitk.WriteImage(heart, path.with_name("heart.nrrd"))
    sitk.WriteImage(scan.image, path)
    return path


def write_labels(path: Path, label: int = 2) -> Path:
    """Write a reader's label for the lesion in slice 5."""
    labels = np.zeros((10, 50, 50), np.uint8)
    labels[5, 18:28, 18:28] = label
    return write_image(labels, path)
