"""A small CT of a chest as a file."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from dicom_files import chest_hu
from images import image_of


def write_ct(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = image_of(chest_hu(seed=seed).astype(np.int16), (0.7, 0.7, 3.0))
    sitk.WriteImage(image, file)
    return file
