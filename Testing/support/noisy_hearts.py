"""A block of noisy blood with lesions of known places, as a scan with its heart mask."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan, scan_from_image


def noisy_heart(
    shape: tuple[int, int, int],
    lesions: Iterable[tuple[object, float]] = (),
    noise_hu: float = 8.0,
    seed: int = 0,
    **facts: object,
) -> tuple[CTScan, sitk.Image]:
    """Make blood of 40 HU in voxels of 1 × 1 × 3 mm, and a heart that ends 8 mm from its sides.

    Args:
        shape: Voxels [k, j, i].
        lesions: Box [k, j, i] and HU of each lesion.
        noise_hu: Standard deviation of the noise.
        seed: Seed of the noise.
        facts: Facts of the acquisition.
    """
    hu = np.random.default_rng(seed).normal(40, noise_hu, shape).round()
    hu[:, 0], hu[0, 0, 0] = -1000, 1400
    for box, value in lesions:
        hu[box] = value
    heart = np.zeros(shape, np.uint8)
    heart[1:-1, 8:-8, 8:-8] = 1
    acquisition = Acquisition("NIfTI", **{"kvp": 120.0, **facts})
    return scan_from_image(image_of(hu.astype(np.int16)), acquisition), image_of(heart)
