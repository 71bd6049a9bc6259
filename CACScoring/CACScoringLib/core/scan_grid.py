"""Grids in the voxel coordinates of a scan, as those of networks, and resampling to them and back.

Each voxel is the mean of the image over the voxel's extent; within a slice the image is interpolated linearly, and
across slices it is constant, because a slice is a slab: a lesion in one slice must not be thinned out into its
neighbours. Unlike single points of an interpolated image (`sitk.Resample`), means preserve the sum times the voxel
volume at any spacing, average the noise of finer voxels, and blur independently of the grid's offset. Because the axes
are the scan's, resampling is three sparse matrix products. All arrays are [k, j, i].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import sparse

from .grid import GRID_MM, Box, Grid, nonzero_range, triple


@dataclass(frozen=True)
class ScanGrid:
    """Grid with the axes of a scan, in its voxel coordinates (i, j, k), where voxel centres are whole numbers.

    Attributes:
        first: Centre of the first voxel.
        step: Distance between neighbouring voxels.
        size: Number of voxels.
    """

    first: tuple[float, float, float]
    step: tuple[float, float, float]
    size: tuple[int, int, int]

    @classmethod
    def over(cls, image: sitk.Image, spacing_mm: tuple[float, float, float]) -> ScanGrid:
        """Return the grid of this spacing that covers an image.

        Its voxels lie at multiples of their spacing in space, whatever part of the scan the image shows, so that
        cutting air or slices off moves none. Where slices of the scan hold a whole number of the grid's, or the grid's
        a whole number of the scan's, they begin together.
        """
        places = places_mm(image)
        places[2] -= _slice_start_mm(places[2], image.GetSpacing()[2], spacing_mm[2])
        starts_mm = [_remainder(place, grid) for place, grid in zip(places, spacing_mm, strict=True)]
        first, step, size = [], [], []
        axes = zip(image.GetSize(), image.GetSpacing(), spacing_mm, starts_mm, strict=True)
        for n, image_mm, grid_mm, start_mm in axes:
            step.append(grid_mm / image_mm)
            size.append(max(1, math.ceil((n * image_mm + start_mm) / grid_mm - 1e-3)))
            first.append((grid_mm / 2 - start_mm) / image_mm - 0.5)
        return cls(triple(first), triple(step), (size[0], size[1], size[2]))

    def numbers(self, image: sitk.Image) -> tuple[int, ...]:
        """Number the first voxel in space, so that voxels have the same numbers in all parts of a scan.

        Returns:
            Its numbers along i, j, k.
        """
        axes = zip(places_mm(image), image.GetSpacing(), self.first, self.step, strict=True)
        # No usual grid begins at three quarters of a voxel, where rounding could change the number.
        return tuple(math.floor((place / mm + first + 0.5) / step - 0.25) for place, mm, first, step in axes)

    def crop(self, box: Box) -> ScanGrid:
        """Return the grid of the voxels in a box, [k, j, i]."""
        first = tuple(f + part.start * step for f, step, part in zip(self.first, self.step, box[::-1], strict=True))
        return ScanGrid(first, self.step, tuple(part.stop - part.start for part in box[::-1]))

    def in_space(self, scan_image: sitk.Image) -> Grid:
        """Return this grid with its geometry in space."""
        spacing = tuple(a * b for a, b in zip(self.step, scan_image.GetSpacing(), strict=True))
        origin = scan_image.TransformContinuousIndexToPhysicalPoint(self.first)
        return Grid(self.size, spacing, origin, scan_image.GetDirection())

    def shares_of_slices(self, count: int) -> np.ndarray:
        """Return the share of each slice of this grid that lies in each slice of a scan.

        Returns:
            float32 [n, count]; rows add up to 1. The scan's first and last slice continue beyond its ends.
        """
        shares = interval_means(slab_area, count, self.first[2] + self.step[2] * np.arange(self.size[2]), self.step[2])
        total = shares.sum(1)
        shares[total > 0] /= total[total > 0, None]
        beyond = np.nonzero(total == 0)[0]
        shares[beyond, np.where(beyond < self.size[2] / 2, 0, -1)] = 1
        return shares

    def resample(self, values: np.ndarray, outside: float) -> np.ndarray:
        """Average values of a scan over each voxel of this grid: float32 [k, j, i].

        Args:
            values: Values of its voxels, [k, j, i].
            outside: In-plane value beyond the image, of voxels like its own, so that the result is the same where the
                image goes on with this value; beyond its ends the first and last slice are repeated.
        """
        columns, rows = (
            interval_means(linear_area, n + 2, 1 + first + step * np.arange(count), step)[:, 1:-1]
            for n, first, step, count in zip(values.shape[:0:-1], self.first, self.step, self.size, strict=False)
        )
        planes = self.shares_of_slices(len(values))
        return _apply_weights(values, planes, rows, columns, outside)

    def paste(self, array: np.ndarray, size: tuple[int, ...], start: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
        """Resample an array [k, j, i] of this grid to a part of the scan.

        Args:
            array: The array.
            size: Size of the part, (i, j, k).
            start: Its first voxel, (i, j, k).

        Returns:
            float32 [k, j, i], 0 beyond this grid. Preserves sum × voxel volume except outside the part.
        """
        axes = zip(_PROFILES, start, size, self.first, self.step, self.size, strict=True)
        columns, rows, planes = (
            interval_means(area, count, (low + np.arange(n) - first) / step, 1 / step)
            for area, low, n, first, step, count in axes
        )
        return _apply_weights(array, planes, rows, columns, 0.0)


def on_working_grid(image: sitk.Image) -> sitk.Image:
    """Return a scan on an isotropic grid of GRID_MM (`ScanGrid.over`); finer voxels are averaged first."""
    grid = ScanGrid.over(image, (GRID_MM,) * 3)
    origin = image.TransformContinuousIndexToPhysicalPoint(grid.first)
    axes = list(zip(image.GetSize(), image.GetSpacing(), places_mm(image), strict=True))
    factors = [max(1, min(n, int(GRID_MM / spacing))) for n, spacing, _ in axes]
    if max(factors) > 1:
        # Voxels are counted in space, so that cutting air off averages the same ones.
        starts = [-round(place / spacing) % factor for (_, spacing, place), factor in zip(axes, factors, strict=True)]
        starts = [start if start + f <= n else 0 for start, f, (n, _, _) in zip(starts, factors, axes, strict=True)]
        image = sitk.BinShrink(sitk.Crop(image, starts, [0, 0, 0]), factors)
    return Grid(grid.size, (GRID_MM,) * 3, origin, image.GetDirection()).resample(image)


def places_mm(image: sitk.Image) -> list[float]:
    """Return the place of an image's first voxel along the axes i, j, k, mm; a part's is further by its start."""
    return (np.array(image.GetOrigin()) @ np.array(image.GetDirection()).reshape(3, 3)).tolist()


def _remainder(place_mm: float, grid_mm: float) -> float:
    """Return how far a place lies behind a multiple of the spacing; 0 where rounding puts it just before one."""
    remainder = place_mm % grid_mm
    return remainder if grid_mm - remainder > 1e-3 * grid_mm else 0.0


def _slice_start_mm(place_mm: float, spacing_mm: float, grid_mm: float) -> float:
    """Return where slices of a grid begin, between 0 and `grid_mm`: with slices of the scan where these always can.

    Args:
        place_mm: Place of the scan's first slice.
        spacing_mm: Spacing of its slices.
        grid_mm: Spacing of the grid's.
    """
    number = max(grid_mm, spacing_mm) / min(grid_mm, spacing_mm)
    if abs(number - round(number)) > 1e-3:
        return 0.0
    places = (place_mm + n * spacing_mm for n in range(round(number) if grid_mm > spacing_mm else 1))
    return min(_remainder(place, grid_mm) for place in places)


def interval_means(
    area: Callable[[np.ndarray], np.ndarray], count: int, centres: np.ndarray, width: float
) -> np.ndarray:
    """Return the weights, float32 [target, source], that average source voxels over intervals.

    Values are constant from the outer voxels' centres to their ends and 0 beyond, so rows add up to the share of their
    interval that lies inside.

    Args:
        area: Area left of x under the profile of one source voxel.
        count: Number of source voxels.
        centres: Centres of the intervals.
        width: Width of the intervals.
    """
    ends = (-0.5, count - 0.5)
    low, high = np.clip(centres - width / 2, *ends), np.clip(centres + width / 2, *ends)
    nodes = np.arange(-1, count + 1)
    areas = area(high[:, None] - nodes) - area(low[:, None] - nodes)
    weights = areas[:, 1:-1]
    weights[:, 0] += areas[:, 0]
    weights[:, -1] += areas[:, -1]
    return (weights / width).astype(np.float32)


def linear_area(x: np.ndarray) -> np.ndarray:
    """Return the area left of x under the triangle from −1 to 1 with height 1 at 0 (linear interpolation)."""
    x = np.clip(x, -1, 1)
    return np.where(x <= 0, (x + 1) ** 2 / 2, 1 - (1 - x) ** 2 / 2)


def slab_area(x: np.ndarray) -> np.ndarray:
    """Return the area left of x under the box of height 1 from −½ to ½ (slabs)."""
    return np.clip(x, -0.5, 0.5) + 0.5


_PROFILES = (linear_area, linear_area, slab_area)
"""Profiles of a voxel along i, j and k."""


def _apply_weights(
    array: np.ndarray, planes: np.ndarray, rows: np.ndarray, columns: np.ndarray, outside: float
) -> np.ndarray:
    """Apply weights [target, source] along k, j and i; float32. Missing weight counts as the value outside."""
    weights = (planes, rows, columns)
    sources = tuple(nonzero_range(np.any(w, axis=0)) for w in weights)
    targets = tuple(nonzero_range(np.any(w, axis=1)) for w in weights)
    planes, rows, columns = (w[target, source] for w, target, source in zip(weights, targets, sources, strict=True))
    part = array[sources]
    offset = np.float32(outside)
    result = np.zeros([len(w) for w in weights], np.float32)  # takes no memory where nothing is written
    target = result[targets]
    if rows.shape[0] * columns.shape[0] < rows.shape[1] * columns.shape[1]:  # fewer pixels first, for speed
        in_plane = np.empty((len(part), *target.shape[1:]), np.float32)
        _mean_pixels(part, rows, columns, offset, in_plane)
        target[:] = _mean_slices(in_plane, planes)
    else:
        _mean_pixels(_mean_slices(part - offset, planes), rows, columns, np.float32(0), target)
    if outside:
        result += offset
    return result


def _mean_pixels(array: np.ndarray, rows: np.ndarray, columns: np.ndarray, offset: np.float32, out: np.ndarray) -> None:
    # Sparse, because most weights are 0, and because small dense products wait for each other's threads on busy cores.
    rows, columns = sparse.csr_array(rows), sparse.csr_array(columns)
    for plane, target in zip(array, out, strict=True):
        target[:] = (columns @ (rows @ (plane - offset)).T).T


def _mean_slices(array: np.ndarray, planes: np.ndarray) -> np.ndarray:
    flat = sparse.csr_array(planes) @ array.reshape(len(array), -1)
    return flat.reshape(len(planes), *array.shape[1:])
