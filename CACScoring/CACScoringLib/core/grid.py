"""Grids of images, grids in the voxel coordinates of a scan, and resampling between them.

`Grid` is the grid of any image. `ScanGrid` has the axes of a scan, as the grids of networks do. Each of its voxels is
the mean of the image over the voxel's extent; within a slice the image is interpolated linearly, and across slices it
is constant, because a slice is a slab: a lesion in one slice must not be thinned out into its neighbours. Unlike single
points of an interpolated image (`sitk.Resample`), means preserve the sum times the voxel volume at any spacing, average
the noise of finer voxels, and blur independently of the grid's offset. Because the axes are the scan's, resampling is
three sparse matrix products. All arrays are [k, j, i].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, sparse

from .voxels import voxels_of

Box = tuple[slice, ...]

GRID_MM = 3.0
"""Isotropic working grid: fine enough for the pleura, coarse enough that noise averages out."""

_HALF = 0.5 - 1e-9
"""Share of a mask from which a voxel lies in it: a half, give or take rounding."""


def triple(values: Iterable[float]) -> tuple[float, float, float]:
    """Take three values, such as those along the axes, into a tuple of known length.

    Returns:
        The values.
    """
    x, y, z = values
    return x, y, z


@dataclass(frozen=True)
class Grid:
    """Voxel grid of an image: size, spacing and origin along i, j, k, and direction by rows, as in SimpleITK.

    Without a direction it is axial, in LPS.
    """

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [k, j, i] of the grid's arrays."""
        return self.size[::-1]

    def axes_mm(self) -> list[np.ndarray]:
        """Return the places of the columns, rows and slices of an axial grid, mm in LPS."""
        axes = zip(self.origin_mm, self.spacing_mm, self.size, strict=True)
        return [first + step * np.arange(count) for first, step, count in axes]

    def image(self, array: np.ndarray) -> sitk.Image:
        """Return an array [k, j, i] as an image on this grid; bool becomes uint8 0/1."""
        return self._set_geometry(sitk.GetImageFromArray(array.view(np.uint8) if array.dtype == bool else array))

    def resample(self, image: sitk.Image) -> sitk.Image:
        """Resample an image to this grid linearly, in its pixel type; its border values continue beyond its border."""
        place = self.origin_mm, self.spacing_mm, self.direction
        linear, same_type = sitk.sitkLinear, image.GetPixelID()
        # Nearest-neighbour extrapolation continues the border.
        return sitk.Resample(image, self.size, sitk.Transform(), linear, *place, 0.0, same_type, True)

    def mask(self, source: np.ndarray, grid: Grid) -> np.ndarray:
        """Resample a mask [k, j, i] of another grid with the same axes, with a smooth outline: bool [k, j, i]."""
        offset = (np.array(self.origin_mm) - grid.origin_mm) @ np.array(self.direction).reshape(3, 3)
        axes = zip(offset, self.spacing_mm, self.size, grid.spacing_mm, grid.size, strict=True)
        columns, rows, planes = (
            np.clip((first + step * np.arange(n)) / mask_step, 0, count - 1)
            for first, step, n, mask_step, count in axes
        )
        row_weights, column_weights = _linear_weights(rows, source.shape[1]), _linear_weights(columns, source.shape[2])
        inside = np.zeros(self.shape, bool)
        # Only rows and columns beside the mask are looked at, which may be a small part of the grid.
        in_rows, in_columns = (np.logical_or.reduce(source, axis=axis) for axis in ((0, 2), (0, 1)))
        near_rows, near_columns = _nonzero_range(row_weights @ in_rows), _nonzero_range(column_weights @ in_columns)
        source_rows, source_columns = _nonzero_range(in_rows), _nonzero_range(in_columns)
        row_weights, column_weights = row_weights[near_rows, source_rows], column_weights[near_columns, source_columns]
        source = source[:, source_rows, source_columns].astype(np.uint8)
        for place, target in zip(planes, inside[:, near_rows, near_columns], strict=True):
            low, high = source[math.floor(place)], source[math.ceil(place)]
            if low.any() or high.any():
                plane = low * (1 - place % 1) + high * (place % 1)
                np.greater_equal(row_weights @ (column_weights @ plane.T).T, _HALF, out=target)
        return inside

    def box(self, part: sitk.Image) -> list[slice]:
        """Return the box of a part of this grid, i j k; negative or beyond its size if it is not a part."""
        start = self._set_geometry(sitk.Image([1] * len(self.size), sitk.sitkUInt8)).TransformPhysicalPointToIndex(
            part.GetOrigin()
        )
        return [slice(first, first + n) for first, n in zip(start, part.GetSize(), strict=True)]

    def paste(self, part: sitk.Image) -> sitk.Image:
        """Return an image on this grid that holds a part of it, in the part's pixel type, and 0 elsewhere."""
        values = voxels_of(part)
        pasted = np.zeros(self.shape, values.dtype)
        pasted[tuple(self.box(part)[::-1])] = values
        return self.image(pasted)

    def _set_geometry(self, image: sitk.Image) -> sitk.Image:
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        return image


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
            outside: In-plane value beyond the image; beyond its ends the first and last slice are repeated.
        """
        columns, rows = (
            interval_means(linear_area, n, first + step * np.arange(count), step)
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


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Find the smallest box around a mask.

    Args:
        mask: Array that is 0 outside, not empty.

    Returns:
        One slice per axis.
    """
    box: tuple[slice, ...] = ()
    for axis in range(mask.ndim):  # each narrows the next
        filled = np.flatnonzero(mask[box].any(axis=tuple(n for n in range(mask.ndim) if n != axis)))
        box += (slice(int(filled[0]), int(filled[-1]) + 1),)
    return box


def cut_ends(part: np.ndarray, spacing_mm: Sequence[float], least_mm2: float) -> list[str]:
    """Name the ends and sides of the scan that a part of it reaches.

    Args:
        part: [k, j, i], 0 outside.
        spacing_mm: Along i, j, k.
        least_mm2: Area at an end or a side above which it is cut.
    """
    i_mm, j_mm, k_mm = spacing_mm
    areas_mm2 = {
        "top": np.count_nonzero(part[-1]) * i_mm * j_mm,
        "bottom": np.count_nonzero(part[0]) * i_mm * j_mm,
        "sides": np.count_nonzero(part[:, [0, -1]]) * i_mm * k_mm + np.count_nonzero(part[:, :, [0, -1]]) * j_mm * k_mm,
    }
    return [name for name, area_mm2 in areas_mm2.items() if area_mm2 > least_mm2]


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a 3-D bool mask (6 neighbours); an empty mask unchanged."""
    labels, count = ndimage.label(mask)
    return mask if count < 2 else labels == 1 + np.bincount(labels.ravel())[1:].argmax()


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


def _linear_weights(places: np.ndarray, count: int) -> sparse.csr_array:
    """Return weights [target, source] that interpolate linearly at places from 0 to count − 1."""
    low = np.floor(places).astype(int)
    targets = np.tile(np.arange(len(places)), 2)
    weights = np.concatenate([1 - places % 1, places % 1])
    sources = np.concatenate([low, np.minimum(low + 1, count - 1)])
    return sparse.csr_array((weights, (targets, sources)), shape=(len(places), count))


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
    sources = tuple(_nonzero_range(np.any(w, axis=0)) for w in weights)
    targets = tuple(_nonzero_range(np.any(w, axis=1)) for w in weights)
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


def _nonzero_range(is_used: np.ndarray) -> slice:
    places = np.nonzero(is_used)[0]
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _mean_pixels(array: np.ndarray, rows: np.ndarray, columns: np.ndarray, offset: np.float32, out: np.ndarray) -> None:
    # Sparse, because most weights are 0, and because small dense products wait for each other's threads on busy cores.
    rows, columns = sparse.csr_array(rows), sparse.csr_array(columns)
    for plane, target in zip(array, out, strict=True):
        target[:] = (columns @ (rows @ (plane - offset)).T).T


def _mean_slices(array: np.ndarray, planes: np.ndarray) -> np.ndarray:
    flat = sparse.csr_array(planes) @ array.reshape(len(array), -1)
    return flat.reshape(len(planes), *array.shape[1:])
