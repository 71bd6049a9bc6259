"""From a scan to what the networks see, and back: one definition for training and use.

Grids follow van Velzen et al., section 5: the heart network sees 1.5×1.5×3.0 mm, the slice networks 1.0 mm in-plane
and 1.5 mm between slices, 224×224 pixels around the heart's centre of mass, −50 to 950 HU scaled to 0 to 1.

Every voxel of a grid is the mean of the image over the voxel's extent; within a slice the image is interpolated
linearly, and across slices it is constant, because a slice is a slab: a lesion seen in one slice must not be thinned
out into its neighbours. Unlike reading single points off an interpolated image (`sitk.Resample`), means keep the sum
times the voxel volume whatever the spacings, average the noise of finer voxels, and blur alike wherever the grid
happens to fall on the voxels. Grids have the scan's own axes, so it is three sparse matrix products. All arrays are
[k, j, i].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import sparse

from ..core.ct import AIR_HU, MaskError, same_grid

VERSION = 1
"""Written into every model; raised whenever anything here changes what a network sees."""

HEART_SPACING_MM = (1.5, 1.5, 3.0)
HEART_PATCH = 64
"""Sides of the heart network's patches, voxels."""

HEART_LOW_HU, HEART_HIGH_HU = -500.0, 500.0
"""Window of the heart network, scaled to 0 to 1; the paper gives none. Lung is 0, bone and contrast are 1."""

TERRITORY_SPACING_MM = (3.0, 3.0, 3.0)
TERRITORY_PATCH = 64
"""Sides of the territory network's patches, voxels."""

TERRITORY_WINDOWS_HU = ((-160.0, 240.0), (-1000.0, 600.0))
"""Windows of the territory network's channels, each scaled to 0 to 1: soft tissue, and all from air to bone."""

SLICE_SPACING_MM = (1.0, 1.0, 1.5)
SLICE_SIZE = 224
LOW_HU, HIGH_HU = -50.0, 950.0
MAP_HU = HIGH_HU - LOW_HU
"""What 1 in a calcium map stands for: a difference of two images scaled alike, so without offset."""

MAX_NEIGHBOURS = 2
"""Slices kept beyond the heart at either end, so that its first and last slice have neighbours too."""

ELLIPSOID_RADII_PER_SD = math.sqrt(5.0)
"""A uniform ellipsoid's semi-axis, in standard deviations of its points along that axis."""

POSITION_LIMIT = 2.0

POSITION_SCALE = 0.1
"""Of the position's channels. Calcium differs from what is around it by about as much in the scaled image; larger
numbers would drown it in the first layer's normalisation."""


@dataclass(frozen=True)
class Grid:
    """A grid with the axes of a scan, in its voxel coordinates (i, j, k), where voxel centres are whole numbers.

    first: centre of the first voxel. step: distance of neighbouring voxels. size: number of voxels.
    """

    first: tuple[float, float, float]
    step: tuple[float, float, float]
    size: tuple[int, int, int]

    def as_image(self, array: np.ndarray, scan_image: sitk.Image) -> sitk.Image:
        """An array [k, j, i] on this grid as an image with its place in space."""
        image = sitk.GetImageFromArray(array)
        image.SetDirection(scan_image.GetDirection())
        image.SetSpacing([a * b for a, b in zip(self.step, scan_image.GetSpacing(), strict=True)])
        image.SetOrigin(scan_image.TransformContinuousIndexToPhysicalPoint(self.first))
        return image


@dataclass(frozen=True)
class HeartSlices:
    """The heart's slices on the grid of the slice networks.

    grid: of `heart` (without the margin). hu: float32 [n + 2 MAX_NEIGHBOURS, 224, 224], HU, not clipped; slice s of
    the heart is hu[s + MAX_NEIGHBOURS]. heart: bool [n, 224, 224].
    centre, radii: (i, j, k) on `grid`: the heart's centre of mass, and the semi-axes of the ellipsoid with the same
    second moments.
    """

    grid: Grid
    hu: np.ndarray
    heart: np.ndarray
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.heart)


def heart_grid(image: sitk.Image) -> Grid:
    """The heart network's grid over a whole scan."""
    return _grid_over(image, HEART_SPACING_MM)


def heart_input(image: sitk.Image) -> np.ndarray:
    """A scan as the heart network sees it: float32 [k, j, i] on `heart_grid`, 0 to 1."""
    hu = on_grid(image, heart_grid(image), AIR_HU)
    return _scaled(hu, HEART_LOW_HU, HEART_HIGH_HU)


def territory_grid(image: sitk.Image) -> Grid:
    """The territory network's grid over a whole scan."""
    return _grid_over(image, TERRITORY_SPACING_MM)


def territory_input(hu: np.ndarray) -> np.ndarray:
    """HU [..., k, j, i] on the territory network's grid as it sees them: float32 [2, ..., k, j, i], 0 to 1."""
    return np.stack([_scaled(hu, low, high) for low, high in TERRITORY_WINDOWS_HU])


def heart_slices(image: sitk.Image, heart: sitk.Image) -> HeartSlices:
    """The axial slices that hold the heart, centred on its centre of mass; what lies outside the scan is air.

    heart: mask (0 outside) on the image's grid. Slices are counted from the scan's first, not the heart's, so that a
    slightly different mask gives the same slices. Raises MaskError when the mask is empty or on another grid.
    """
    whole = _grid_over(image, SLICE_SPACING_MM)
    centre, spread, planes = heart_moments(heart, image)
    first_slice, count = _slices_of(planes, whole)
    grid = Grid(
        first=(
            centre[0] - (SLICE_SIZE - 1) / 2 * whole.step[0],
            centre[1] - (SLICE_SIZE - 1) / 2 * whole.step[1],
            whole.first[2] + first_slice * whole.step[2],
        ),
        step=whole.step,
        size=(SLICE_SIZE, SLICE_SIZE, count),
    )
    mask = on_grid(heart != 0, grid, 0.0) >= 0.5
    return HeartSlices(
        grid=grid,
        hu=on_grid(image, with_margin(grid), AIR_HU),
        heart=mask,
        centre=tuple((c - f) / s for c, f, s in zip(centre, grid.first, grid.step, strict=True)),
        radii=tuple(ELLIPSOID_RADII_PER_SD * e / s for e, s in zip(spread, grid.step, strict=True)),
    )


def with_margin(grid: Grid) -> Grid:
    """The grid with MAX_NEIGHBOURS further slices at both ends."""
    first = (grid.first[0], grid.first[1], grid.first[2] - MAX_NEIGHBOURS * grid.step[2])
    return Grid(first, grid.step, (grid.size[0], grid.size[1], grid.size[2] + 2 * MAX_NEIGHBOURS))


def slice_input(
    slices: HeartSlices, chosen: np.ndarray, neighbours: int = 0, position: bool = False, size: int = SLICE_SIZE
) -> np.ndarray:
    """Slices as the two-dimensional networks see them.

    Returns float32 [n, C, size, size], 0 to 1; channels: the slice, its neighbours from `neighbours` below to as many
    above, its position (`position_channels`). Beyond the scan's ends the end slice is repeated.

    Args:
        slices: From `heart_slices`.
        chosen: Indices of slices of the heart, [n].
        neighbours: Slices added on each side, 0 to MAX_NEIGHBOURS.
        position: Whether the position channels are added.
        size: Side of the square around the heart's centre, pixels.

    Raises:
        ValueError: For more than MAX_NEIGHBOURS neighbours.
    """
    if neighbours > MAX_NEIGHBOURS:
        raise ValueError(f"{neighbours} neighbours were asked for; give at most {MAX_NEIGHBOURS}.")
    offsets = [0, *range(-neighbours, 0), *range(1, neighbours + 1)]
    planes = np.asarray(chosen, np.intp)[:, None] + np.array(offsets) + MAX_NEIGHBOURS
    cut = slice((SLICE_SIZE - size) // 2, (SLICE_SIZE + size) // 2)
    channels = _scaled(slices.hu[planes][..., cut, cut], LOW_HU, HIGH_HU)
    if not position:
        return channels
    return np.concatenate([channels, position_channels(slices, chosen)[..., cut, cut]], 1)


def position_channels(slices: HeartSlices, chosen: np.ndarray) -> np.ndarray:
    """Where each pixel lies in the heart's frame: float32 [n, 3, 224, 224], towards left, posterior and superior.

    0 is the heart's centre of mass and ±1 the edge of the ellipsoid with the heart's second moments (a few stray
    voxels of the mask change them little, but would move its bounding box); limited to ±POSITION_LIMIT. All times
    POSITION_SCALE.
    """
    i, j, _ = ((np.arange(n) - c) / r for n, c, r in zip(slices.grid.size, slices.centre, slices.radii, strict=True))
    k = (np.asarray(chosen) - slices.centre[2]) / slices.radii[2]
    position = np.empty((len(k), 3, *slices.heart.shape[1:]), np.float32)
    position[:, 0] = i
    position[:, 1] = j[:, None]
    position[:, 2] = k[:, None, None]
    np.clip(position, -POSITION_LIMIT, POSITION_LIMIT, out=position)
    position *= POSITION_SCALE
    return position


def on_grid(image: sitk.Image, grid: Grid, outside: float) -> np.ndarray:
    """An image on another grid: float32 [k, j, i], the mean of the image over every voxel of the grid.

    outside: value in-plane beyond the image; beyond its first and last slice these are repeated.
    """
    axes = zip(_PROFILES, image.GetSize(), grid.first, grid.step, grid.size, strict=True)
    columns, rows, planes = (_means(p, n, first + step * np.arange(count), step) for p, n, first, step, count in axes)
    total = planes.sum(1)
    planes[total > 0] /= total[total > 0, None]
    beyond = np.nonzero(total == 0)[0]
    planes[beyond, np.where(beyond < grid.size[2] / 2, 0, -1)] = 1
    return _resampled(sitk.GetArrayViewFromImage(image), planes, rows, columns, outside)


def from_grid(array: np.ndarray, grid: Grid, scan_image: sitk.Image) -> np.ndarray:
    """An array [k, j, i] on a grid brought back to the scan's own: float32 [k, j, i], 0 beyond the grid.

    Sum × voxel volume is kept, but for what lies outside the scan.
    """
    axes = zip(_PROFILES, scan_image.GetSize(), grid.first, grid.step, grid.size, strict=True)
    columns, rows, planes = (
        _means(p, count, (np.arange(n) - first) / step, 1 / step) for p, n, first, step, count in axes
    )
    return _resampled(array, planes, rows, columns, 0.0)


def _grid_over(image: sitk.Image, spacing_mm: tuple[float, float, float]) -> Grid:
    """The grid of this spacing that covers an image and has its centre."""
    first, step, size = [], [], []
    for n, own_mm, wanted_mm in zip(image.GetSize(), image.GetSpacing(), spacing_mm, strict=True):
        count = max(1, math.ceil(n * own_mm / wanted_mm - 1e-3))
        size.append(count)
        step.append(wanted_mm / own_mm)
        first.append((n - 1) / 2 - (count - 1) / 2 * step[-1])
    return Grid(tuple(first), tuple(step), tuple(size))


def heart_moments(heart: sitk.Image, image: sitk.Image) -> tuple[list[float], list[float], slice]:
    """Measure the mask's place and extent.

    Args:
        heart: 0 outside, on the image's grid.
        image: The CT, HU.

    Returns:
        The centre of mass and the standard deviation along i, j and k, in voxels, and the planes that hold the mask.

    Raises:
        MaskError: If it is empty or on another grid.
    """
    if not same_grid(heart, image):
        raise MaskError("The heart mask is not on the scan's grid. Bring it there with mask_on_scan_grid.")
    inside = sitk.GetArrayViewFromImage(heart) != 0
    if not inside.any():
        raise MaskError("The heart mask is empty. Give a mask that marks the heart.")
    centre, spread = [], []
    for others in ((0, 1), (0, 2), (1, 2)):
        counts = inside.sum(others)
        places = np.arange(len(counts))
        mean = float(np.average(places, weights=counts))
        centre.append(mean)
        # A voxel is a box, not a point: a mask of one plane has a spread too.
        spread.append(math.sqrt(float(np.average((places - mean) ** 2, weights=counts)) + 1 / 12))
    marked = np.nonzero(counts)[0]
    return centre, spread, slice(int(marked[0]), int(marked[-1]) + 1)


def _slices_of(planes: slice, whole: Grid) -> tuple[int, int]:
    """First slice and number of slices of a grid whose centres lie in these planes of the scan."""
    low = (planes.start - 0.5 - whole.first[2]) / whole.step[2]
    high = (planes.stop - 0.5 - whole.first[2]) / whole.step[2]
    first, last = max(0, math.ceil(low)), min(whole.size[2] - 1, math.floor(high))
    if first > last:  # one thin plane between two centres
        first = last = min(whole.size[2] - 1, max(0, round((low + high) / 2)))
    return first, last - first + 1


def _scaled(hu: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = np.subtract(hu, low, dtype=np.float32)
    scaled *= 1 / (high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def _means(area: Callable[[np.ndarray], np.ndarray], count: int, centres: np.ndarray, width: float) -> np.ndarray:
    """Weights, float32 [target, source], of `count` values for their mean over intervals of this width.

    area: area left of x under the profile of one source voxel. From the outer voxels' centres to their ends the value
    is constant, and beyond 0: rows add up to the share of their interval that lies inside.
    """
    ends = (-0.5, count - 0.5)
    low, high = np.clip(centres - width / 2, *ends), np.clip(centres + width / 2, *ends)
    nodes = np.arange(-1, count + 1)
    areas = area(high[:, None] - nodes) - area(low[:, None] - nodes)
    weights = areas[:, 1:-1]
    weights[:, 0] += areas[:, 0]
    weights[:, -1] += areas[:, -1]
    return (weights / width).astype(np.float32)


def _linear(x: np.ndarray) -> np.ndarray:
    """Area left of x under the hat of height 1 from −1 over 0 to 1: linear interpolation."""
    x = np.clip(x, -1, 1)
    return np.where(x <= 0, (x + 1) ** 2 / 2, 1 - (1 - x) ** 2 / 2)


def _constant(x: np.ndarray) -> np.ndarray:
    """Area left of x under the box of height 1 from −½ to ½: slabs."""
    return np.clip(x, -0.5, 0.5) + 0.5


_PROFILES = (_linear, _linear, _constant)
"""Along i, j and k."""


def _resampled(
    array: np.ndarray, planes: np.ndarray, rows: np.ndarray, columns: np.ndarray, outside: float
) -> np.ndarray:
    """Weights [target, source] applied along k, j and i; float32. Missing weight counts as the value outside."""
    weights = (planes, rows, columns)
    needed = tuple(_band(w.any(0)) for w in weights)
    filled = tuple(_band(w.any(1)) for w in weights)
    planes, rows, columns = (w[to, of] for w, to, of in zip(weights, filled, needed, strict=True))
    part = array[needed]
    offset = np.float32(outside)
    if rows.shape[0] * columns.shape[0] < rows.shape[1] * columns.shape[1]:  # fewer pixels first, for speed
        part = _across(_in_plane(part, rows, columns, offset), planes)
    else:
        part = _in_plane(_across(part - offset, planes), rows, columns, np.float32(0))
    size = [len(w) for w in weights]
    # Zeros take no memory where nothing is written.
    result = np.full(size, offset) if outside else np.zeros(size, np.float32)
    result[filled] += part
    return result


def _band(used: np.ndarray) -> slice:
    places = np.nonzero(used)[0]
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _in_plane(array: np.ndarray, rows: np.ndarray, columns: np.ndarray, offset: np.float32) -> np.ndarray:
    # Sparse, because most weights are 0, and because small dense products wait for each other's threads on busy cores.
    rows, columns = sparse.csr_array(rows), sparse.csr_array(columns)
    result = np.empty((len(array), rows.shape[0], columns.shape[0]), np.float32)
    for plane, target in zip(array, result, strict=True):
        target[:] = (columns @ (rows @ (plane - offset)).T).T
    return result


def _across(array: np.ndarray, planes: np.ndarray) -> np.ndarray:
    flat = sparse.csr_array(planes) @ array.reshape(len(array), -1)
    return flat.reshape(len(planes), *array.shape[1:])
