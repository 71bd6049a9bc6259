"""Inputs of the networks from a scan, defined once for training and use.

The grid of the slice networks follows van Velzen et al., section 5: 1.0 mm in-plane and 1.5 mm between slices, 224×224
pixels around the heart's centre of mass, −50 to 950 HU scaled to 0 to 1.

All arrays are [k, j, i]; how images come onto grids is in `core.grid`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..core.ct import AIR_HU, CTScan
from ..core.errors import MaskError
from ..core.grid import triple
from ..core.scan_grid import ScanGrid

VERSION = 1
"""Version on every model's card; increased with every change to the networks' inputs."""

TERRITORY_SPACING_MM = (3.0, 3.0, 3.0)
TERRITORY_PATCH = 64
"""Sides of the territory network's patches, voxels."""

TERRITORY_WINDOWS_HU = ((-160.0, 240.0), (-1000.0, 600.0))
"""Windows of the territory network's channels, each scaled to 0 to 1: soft tissue, and all from air to bone."""

SLICE_SPACING_MM = (1.0, 1.0, 1.5)
SLICE_SIZE = 224
LOW_HU, HIGH_HU = -50.0, 950.0
MAP_HU = HIGH_HU - LOW_HU
"""HU of a calcium map's 1: the difference of two images scaled alike, hence without offset."""

MAX_NEIGHBOURS = 2
"""Further slices at either end of the heart, the neighbours of its first and last slice."""

ELLIPSOID_RADII_PER_SD = math.sqrt(5.0)
"""A uniform ellipsoid's semi-axis, in standard deviations of its points along that axis."""

POSITION_LIMIT = 2.0

POSITION_SCALE = 0.1
"""Scale of the position's channels, about that of calcium's contrast in the scaled image; larger numbers would drown it
in the first layer's normalisation."""


RESIDUAL_HU = 100.0
"""HU of 1 in input and output of the network of super-resolution."""


@dataclass(frozen=True)
class HeartSlices:
    """The heart's slices on the grid of the slice networks.

    Attributes:
        grid: Grid of `heart`, without the margin.
        hu: Density in HU, not clipped, float32 [n + 2 MAX_NEIGHBOURS, 224, 224]; slice s of the heart is
            hu[s + MAX_NEIGHBOURS].
        heart: Mask, bool [n, 224, 224].
        centre: Centre of mass of the heart, (i, j, k) on `grid`.
        radii: Semi-axes (i, j, k) of the ellipsoid with the heart's second moments, in voxels of `grid`.
    """

    grid: ScanGrid
    hu: np.ndarray
    heart: np.ndarray
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.heart)


def territory_input(hu: np.ndarray) -> np.ndarray:
    """Return the territory network's input from HU [..., k, j, i] on its grid: float32 [2, ..., k, j, i], 0 to 1."""
    return np.stack([_scaled(hu, low, high) for low, high in TERRITORY_WINDOWS_HU])


def heart_slices(scan: CTScan, heart: np.ndarray) -> HeartSlices:
    """Return the axial slices that hold the heart, centred on its centre of mass; outside the scan they hold air.

    heart: Mask on the scan's grid, bool [k, j, i]. Slices are counted from the scan's first, not the heart's, so that a
    slightly different mask gives the same slices. Raises MaskError when the mask is empty or of another shape.
    """
    scan_grid = ScanGrid.over(scan.image, SLICE_SPACING_MM)
    centre, spread, planes = heart_moments(heart, scan)
    first_slice, count = _slices_of(planes, scan_grid)
    grid = ScanGrid(
        first=(
            centre[0] - (SLICE_SIZE - 1) / 2 * scan_grid.step[0],
            centre[1] - (SLICE_SIZE - 1) / 2 * scan_grid.step[1],
            scan_grid.first[2] + first_slice * scan_grid.step[2],
        ),
        step=scan_grid.step,
        size=(SLICE_SIZE, SLICE_SIZE, count),
    )
    mask = grid.resample(heart, 0.0) >= 0.5
    return HeartSlices(
        grid=grid,
        hu=with_margin(grid).resample(scan.hu, AIR_HU),
        heart=mask,
        centre=triple((c - f) / s for c, f, s in zip(centre, grid.first, grid.step, strict=True)),
        radii=triple(ELLIPSOID_RADII_PER_SD * e / s for e, s in zip(spread, grid.step, strict=True)),
    )


def with_margin(grid: ScanGrid) -> ScanGrid:
    """Return the grid with MAX_NEIGHBOURS further slices at both ends."""
    first = (grid.first[0], grid.first[1], grid.first[2] - MAX_NEIGHBOURS * grid.step[2])
    return ScanGrid(first, grid.step, (grid.size[0], grid.size[1], grid.size[2] + 2 * MAX_NEIGHBOURS))


def middle_square(size: int) -> tuple[slice, slice]:
    """Return the square around the heart's centre.

    Args:
        size: Its side in pixels.

    Returns:
        Its rows and columns in the heart's slices, [j, i].
    """
    side = slice((SLICE_SIZE - size) // 2, (SLICE_SIZE + size) // 2)
    return side, side


def slice_input(
    slices: HeartSlices,
    indices: np.ndarray,
    neighbours: int = 0,
    position: bool = False,
    box: tuple[slice, slice] = middle_square(SLICE_SIZE),
) -> np.ndarray:
    """Return the input of the two-dimensional networks.

    Returns float32 [n, C, j, i], 0 to 1; channels: the slice, its neighbours from `neighbours` below to as many
    above, its position (`position_channels`). Beyond the scan's ends the end slice is repeated.

    Args:
        slices: From `heart_slices`.
        indices: Indices of slices of the heart, [n].
        neighbours: Slices added on each side, 0 to MAX_NEIGHBOURS.
        position: True to add the position channels.
        box: Part of the slices, [j, i].

    Raises:
        ValueError: For more than MAX_NEIGHBOURS neighbours.
    """
    if neighbours > MAX_NEIGHBOURS:
        raise ValueError(f"{neighbours} neighbours were asked for; give at most {MAX_NEIGHBOURS}.")
    offsets = [0, *range(-neighbours, 0), *range(1, neighbours + 1)]
    indices = np.asarray(indices, np.intp)
    scaled = _scaled(slices.hu[(slice(None), *box)], LOW_HU, HIGH_HU)
    inputs = np.empty((len(indices), len(offsets) + 3 * position, *scaled.shape[1:]), np.float32)
    for channel, offset in enumerate(offsets):
        inputs[:, channel] = scaled[indices + offset + MAX_NEIGHBOURS]
    if position:
        inputs[:, len(offsets) :] = position_channels(slices, indices, box)
    return inputs


def position_channels(
    slices: HeartSlices, indices: np.ndarray, box: tuple[slice, slice] = middle_square(SLICE_SIZE)
) -> np.ndarray:
    """Return the position of each pixel in the heart's frame: float32 [n, 3, j, i]; left, posterior, superior.

    0 is the heart's centre of mass and ±1 the edge of the ellipsoid with the heart's second moments (a few stray
    voxels of the mask change them little, but would move its bounding box); limited to ±POSITION_LIMIT, then
    multiplied by POSITION_SCALE.

    Args:
        slices: From `heart_slices`.
        indices: Indices of slices of the heart, [n].
        box: Part of the slices, [j, i].
    """
    i, j, _ = ((np.arange(n) - c) / r for n, c, r in zip(slices.grid.size, slices.centre, slices.radii, strict=True))
    k = (np.asarray(indices) - slices.centre[2]) / slices.radii[2]
    i, j = i[box[1]], j[box[0]]
    position = np.empty((len(k), 3, len(j), len(i)), np.float32)
    position[:, 0] = i
    position[:, 1] = j[:, None]
    position[:, 2] = k[:, None, None]
    np.clip(position, -POSITION_LIMIT, POSITION_LIMIT, out=position)
    position *= POSITION_SCALE
    return position


def heart_moments(heart: np.ndarray, scan: CTScan) -> tuple[list[float], list[float], slice]:
    """Measure the mask's place and extent.

    Args:
        heart: Mask on the scan's grid, bool [k, j, i].
        scan: The CT.

    Returns:
        The centre of mass and the standard deviation along i, j and k, in voxels, and the planes that hold the mask.

    Raises:
        MaskError: If it is empty or of another shape.
    """
    if heart.shape != scan.hu.shape:
        raise MaskError("The heart mask is not on the scan's grid. Bring it there with mask_on_scan_grid.")
    if not heart.any():
        raise MaskError("The heart mask is empty. Give a mask that marks the heart.")
    centre, spread = [], []
    for other_axes in ((0, 1), (0, 2), (1, 2)):
        counts = heart.sum(other_axes)
        places = np.arange(len(counts))
        mean = float(np.average(places, weights=counts))
        centre.append(mean)
        # A voxel is a box, not a point: a mask of one plane has a spread too.
        spread.append(math.sqrt(float(np.average((places - mean) ** 2, weights=counts)) + 1 / 12))
    planes = np.nonzero(counts)[0]
    return centre, spread, slice(int(planes[0]), int(planes[-1]) + 1)


def interpolated_slices(hu: np.ndarray, factor: int, order: int = 3) -> np.ndarray:
    """Interpolate thin slices by a spline along the table, float32 [factor k, j, i]. They divide each thick one evenly.

    Args:
        hu: Thick slices [k, j, i], at least two.
        factor: Thin slices of each.
        order: 3 for a cubic B-spline with mirrored ends, 1 for linear interpolation with repeated ends.
    """
    first = (1 - factor) / (2 * factor)
    mode = "mirror" if order > 1 else "nearest"
    table = (1 / factor, 1), (first, 0), (factor * len(hu), len(hu))
    weights = ndimage.affine_transform(np.eye(len(hu)), *table, order=order, mode=mode)
    return np.tensordot(weights.astype(np.float32), hu.astype(np.float32), 1)


def thick_slice_input(hu: np.ndarray, neighbours: int) -> np.ndarray:
    """Return every thick slice [k, j, i] with its neighbours, float32 [k, 2 neighbours + 1, j, i], ends repeated."""
    numbers = np.arange(len(hu))[:, None] + np.arange(-neighbours, neighbours + 1)
    return (hu.astype(np.float32) / np.float32(RESIDUAL_HU))[numbers.clip(0, len(hu) - 1)]


def _slices_of(planes: slice, grid: ScanGrid) -> tuple[int, int]:
    """Return the first slice and the number of slices of a grid whose centres lie in these planes of the scan."""
    low = (planes.start - 0.5 - grid.first[2]) / grid.step[2]
    high = (planes.stop - 0.5 - grid.first[2]) / grid.step[2]
    first, last = max(0, math.ceil(low)), min(grid.size[2] - 1, math.floor(high))
    if first > last:  # one thin plane between two centres
        first = last = min(grid.size[2] - 1, max(0, round((low + high) / 2)))
    return first, last - first + 1


def _scaled(hu: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = np.subtract(hu, low, dtype=np.float32)
    scaled *= 1 / (high - low)
    return np.clip(scaled, 0, 1, out=scaled)
