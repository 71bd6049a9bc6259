"""From a scan to what the networks for vessel scores see, and from what they say to scores: one definition for
training and use.

Two fields. "scan" is that of Kecoglu: the slices about the middle of the volume, cut off or filled up with air to their
number, each as a whole, and the volume normalised in itself. "heart" is a box about the heart, in HU of a fixed window,
without what is not near the heart. Pixels are means over their extent (`core.grid.ScanGrid`), so that calcium does
not vanish between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import AIR_HU
from ..core.grid import ScanGrid
from ..models.preprocessing import heart_moments

if TYPE_CHECKING:
    from ..networks.vessels import VesselNetConfig


def vessel_input(image: sitk.Image, heart: sitk.Image, config: VesselNetConfig) -> np.ndarray:
    """A scan as the networks see it: float32 [slices, size, size], superior, posterior, left.

    Args:
        image: HU, of any axis order.
        heart: Mask (0 outside) on its grid; the field "scan" does not look at it.
        config: The network's configuration.

    Raises:
        MaskError: If the mask is empty or on another grid.
    """
    image = sitk.DICOMOrient(image, "LPS")
    if config.field == "scan":
        return _scan_field(image, config)
    heart = sitk.DICOMOrient(heart, "LPS")
    grid = vessel_grid(image, heart, config)
    hu = grid.resample(image, AIR_HU)
    spacing = (config.slice_mm, *[config.field_mm / config.size] * 2)
    scanned = _scanned(image, grid)[:, None, None]
    inside = (grid.resample(heart != 0, 0.0) >= 0.5) & scanned
    if not inside.any():  # a mask of a few voxels
        return np.zeros(inside.shape, np.float32)
    near = ndimage.distance_transform_edt(~inside, spacing) <= config.around_mm
    scaled = np.clip((hu - config.low_hu) / (config.high_hu - config.low_hu), 0, 1)
    return np.where(near & scanned, scaled, 0).astype(np.float32)


def vessel_grid(image: sitk.Image, heart: sitk.Image, config: VesselNetConfig) -> ScanGrid:
    """Where the input lies, in the voxel coordinates of an image in LPS order. Raises MaskError.

    The box of the field "heart" begins where a slice of the scan does, so that slices of its thickness stay whole.
    """
    if config.field == "scan":
        columns, rows, planes = image.GetSize()
        step = (columns / config.size, rows / config.size, 1.0)
        first = ((step[0] - 1) / 2, (step[1] - 1) / 2, float((planes - config.slices) // 2))
        return ScanGrid(first, step, (config.size, config.size, config.slices))
    centre, _, planes = heart_moments(heart, image)
    spacing = image.GetSpacing()
    step = (config.field_mm / config.size / spacing[0], config.field_mm / config.size / spacing[1])
    first = [c - (config.size - 1) / 2 * s for c, s in zip(centre, step, strict=False)]
    thickness = config.slice_mm / spacing[2]
    begin = round((planes.start + planes.stop - config.slices * thickness) / 2)
    return ScanGrid(
        (*first, begin - 0.5 + thickness / 2), (*step, thickness), (config.size, config.size, config.slices)
    )


def normalised(agatston: np.ndarray, largest: float, output: str) -> np.ndarray:
    """Scores as the networks give them: "linear", in shares of the largest; "log", likewise of its log1p."""
    agatston = np.asarray(agatston, float)
    return agatston / largest if output == "linear" else np.log1p(agatston) / np.log1p(largest)


def to_agatston(normalised: np.ndarray, largest: float, output: str) -> np.ndarray:
    """The inverse of `normalised`; what is below 0 is 0."""
    values = np.maximum(0, np.asarray(normalised, float))
    if output == "linear":
        return values * largest
    # Beyond what was learned from, the exponential would run away; ten times the largest is the end.
    return np.minimum(np.expm1(np.minimum(values, 10) * np.log1p(largest)), 10 * largest)


def _scanned(image: sitk.Image, grid: ScanGrid) -> np.ndarray:
    """Whether the middle of each slice of a grid lies in the scan; beyond its end slices are repeated."""
    middles = grid.first[2] + grid.step[2] * np.arange(grid.size[2])
    return (middles >= -0.5) & (middles <= image.GetSize()[2] - 0.5)


def _scan_field(image: sitk.Image, config: VesselNetConfig) -> np.ndarray:
    columns, rows, planes = image.GetSize()
    start = (planes - config.slices) // 2
    part = image[:, :, max(0, start) : max(0, start) + min(planes, config.slices)]
    if (columns, rows) == (config.size, config.size):  # means over pixels would blur those they are
        hu = sitk.GetArrayFromImage(part).astype(np.float32)
    else:
        step = (columns / config.size, rows / config.size, 1.0)
        first = ((step[0] - 1) / 2, (step[1] - 1) / 2, 0.0)
        hu = ScanGrid(first, step, (config.size, config.size, part.GetSize()[2])).resample(part, AIR_HU)
    mean, sd = float(hu.mean(dtype=np.float64)), float(hu.std(dtype=np.float64))
    hu = (hu - mean) / max(sd, 1e-6)
    below = max(0, -start)
    above = config.slices - len(hu) - below
    air = (AIR_HU - mean) / max(sd, 1e-6)
    return np.pad(hu, ((below, above), (0, 0), (0, 0)), constant_values=np.float32(air)).astype(np.float32)
