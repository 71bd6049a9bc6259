"""Grids of images, and grids in the voxel coordinates of a scan, with the ways between them.

`Grid` is that of any image. `ScanGrid` has the axes of a scan, as the grids of networks do. Every voxel of it is the
mean of the image over the voxel's extent; within a slice the image is interpolated linearly, and across slices it is
constant, because a slice is a slab: a lesion seen in one slice must not be thinned out into its neighbours. Unlike
reading single points off an interpolated image (`sitk.Resample`), means keep the sum times the voxel volume whatever
the spacings, average the noise of finer voxels, and blur alike wherever the grid happens to fall on the voxels. As the
axes are the scan's own, it is three sparse matrix products. All arrays are [k, j, i].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, sparse

Box = tuple[slice, ...]

_FAR = 10**5
"""Voxels: farther than any scan reaches."""


@dataclass(frozen=True)
class Grid:
    """The voxels of an image; size, spacing and origin along i, j, k, direction by rows, as SimpleITK has them."""

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def image(self, array: np.ndarray) -> sitk.Image:
        """An array [k, j, i] as an image on this grid; bool becomes uint8 0/1."""
        return self._placed(sitk.GetImageFromArray(array.view(np.uint8) if array.dtype == bool else array))

    def resample(self, image: sitk.Image) -> sitk.Image:
        """An image on this grid: linear, in the image's own pixel type, with its border values beyond its border."""
        resampler = sitk.ResampleImageFilter()
        resampler.SetSize(self.size)
        resampler.SetOutputOrigin(self.origin_mm)
        resampler.SetOutputSpacing(self.spacing_mm)
        resampler.SetOutputDirection(self.direction)
        resampler.SetInterpolator(sitk.sitkLinear)
        resampler.UseNearestNeighborExtrapolatorOn()
        return resampler.Execute(image)

    def mask(self, mask: sitk.Image) -> np.ndarray:
        """A uint8 0/1 mask of another grid on this one, with a smooth outline: bool [k, j, i]."""
        whole = np.zeros(self.size[::-1], bool)
        if not sitk.GetArrayViewFromImage(mask).any():
            return whole
        slices, part = self._slices_around(mask)
        smooth = part.resample(mask * np.uint8(200))
        whole[slices] = sitk.GetArrayViewFromImage(smooth) >= 100
        return whole

    def _slices_around(self, mask: sitk.Image) -> tuple[slice, Grid]:
        """The slices of this grid that a mask of another grid, not empty, can reach, and their grid.

        Not a box: resampled rows and columns that begin elsewhere are rounded otherwise, which moves an outline where
        voxels lie exactly between two of the mask's.
        """
        ends = []
        for part, count in zip(bounding_box(sitk.GetArrayViewFromImage(mask))[::-1], mask.GetSize(), strict=True):
            # A voxel at the mask's border goes on beyond it.
            ends.append((part.start - 1 if part.start else -_FAR, part.stop if part.stop < count else _FAR))
        own = self._placed(sitk.Image([1] * len(self.size), sitk.sitkUInt8))
        corners = map(mask.TransformIndexToPhysicalPoint, itertools.product(*ends))
        reach = [own.TransformPhysicalPointToContinuousIndex(corner)[2] for corner in corners]
        last = self.size[2] - 1
        low, high = (min(max(0, at), last) for at in (math.floor(min(reach)), math.ceil(max(reach))))
        origin = own.TransformIndexToPhysicalPoint((0, 0, low))
        return slice(low, high + 1), replace(self, size=(*self.size[:2], high + 1 - low), origin_mm=origin)

    def box(self, part: sitk.Image) -> list[slice]:
        """Box of a part of this grid, i j k; negative or beyond its size if it is not a part."""
        start = self._placed(sitk.Image([1] * len(self.size), sitk.sitkUInt8)).TransformPhysicalPointToIndex(
            part.GetOrigin()
        )
        return [slice(at, at + count) for at, count in zip(start, part.GetSize(), strict=True)]

    def paste(self, part: sitk.Image) -> sitk.Image:
        """A part of this grid on the whole of it, in the part's pixel type, 0 elsewhere."""
        values = sitk.GetArrayViewFromImage(part)
        whole = np.zeros(self.size[::-1], values.dtype)
        whole[tuple(self.box(part)[::-1])] = values
        return self.image(whole)

    def _placed(self, image: sitk.Image) -> sitk.Image:
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        return image


@dataclass(frozen=True)
class ScanGrid:
    """A grid with the axes of a scan, in its voxel coordinates (i, j, k), where voxel centres are whole numbers.

    first: centre of the first voxel. step: distance of neighbouring voxels. size: number of voxels.
    """

    first: tuple[float, float, float]
    step: tuple[float, float, float]
    size: tuple[int, int, int]

    @classmethod
    def over(cls, image: sitk.Image, spacing_mm: tuple[float, float, float]) -> ScanGrid:
        """The grid of this spacing that covers an image and has its centre."""
        first, step, size = [], [], []
        for n, own_mm, wanted_mm in zip(image.GetSize(), image.GetSpacing(), spacing_mm, strict=True):
            count = max(1, math.ceil(n * own_mm / wanted_mm - 1e-3))
            size.append(count)
            step.append(wanted_mm / own_mm)
            first.append((n - 1) / 2 - (count - 1) / 2 * step[-1])
        return cls(tuple(first), tuple(step), tuple(size))

    def crop(self, box: Box) -> ScanGrid:
        """The grid of the voxels in a box, [k, j, i]."""
        first = tuple(f + part.start * step for f, step, part in zip(self.first, self.step, box[::-1], strict=True))
        return ScanGrid(first, self.step, tuple(part.stop - part.start for part in box[::-1]))

    def as_image(self, array: np.ndarray, scan_image: sitk.Image) -> sitk.Image:
        """An array [k, j, i] on this grid as an image with its place in space."""
        spacing = tuple(a * b for a, b in zip(self.step, scan_image.GetSpacing(), strict=True))
        origin = scan_image.TransformContinuousIndexToPhysicalPoint(self.first)
        return Grid(self.size, spacing, origin, scan_image.GetDirection()).image(array)

    def shares_of_slices(self, count: int) -> np.ndarray:
        """Shares of this grid's slices that lie in those of a scan: float32 [n, count], rows add up to 1.

        Beyond the scan's first and last slice these go on.
        """
        shares = _means(_constant, count, self.first[2] + self.step[2] * np.arange(self.size[2]), self.step[2])
        total = shares.sum(1)
        shares[total > 0] /= total[total > 0, None]
        beyond = np.nonzero(total == 0)[0]
        shares[beyond, np.where(beyond < self.size[2] / 2, 0, -1)] = 1
        return shares

    def resample(self, image: sitk.Image, outside: float) -> np.ndarray:
        """An image on this grid: float32 [k, j, i], the mean of the image over every voxel of the grid.

        outside: value in-plane beyond the image; beyond its first and last slice these are repeated.
        """
        columns, rows = (
            _means(_linear, n, first + step * np.arange(count), step)
            for n, first, step, count in zip(image.GetSize()[:2], self.first, self.step, self.size, strict=False)
        )
        planes = self.shares_of_slices(image.GetSize()[2])
        return _resampled(sitk.GetArrayViewFromImage(image), planes, rows, columns, outside)

    def paste(self, array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """An array [k, j, i] of this grid brought back to a scan of this size (i, j, k).

        Returns:
            float32 [k, j, i], 0 beyond this grid. Sum × voxel volume is kept, but for what lies outside the scan.
        """
        axes = zip(_PROFILES, size, self.first, self.step, self.size, strict=True)
        columns, rows, planes = (
            _means(p, count, (np.arange(n) - first) / step, 1 / step) for p, n, first, step, count in axes
        )
        return _resampled(array, planes, rows, columns, 0.0)


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Find the smallest box around a mask.

    Args:
        mask: Array that is 0 outside, not empty.

    Returns:
        A slice by axis.
    """
    box: tuple[slice, ...] = ()
    for axis in range(mask.ndim):  # each narrows the next
        filled = np.flatnonzero(mask[box].any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box += (slice(int(filled[0]), int(filled[-1]) + 1),)
    return box


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a bool mask of three dimensions (6 neighbours); an empty mask as it is."""
    labels, count = ndimage.label(mask)
    return mask if count < 2 else labels == 1 + np.bincount(labels.ravel())[1:].argmax()


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
    needed = tuple(_band(np.any(w, axis=0)) for w in weights)
    filled = tuple(_band(np.any(w, axis=1)) for w in weights)
    planes, rows, columns = (w[to, of] for w, to, of in zip(weights, filled, needed, strict=True))
    part = array[needed]
    offset = np.float32(outside)
    result = np.zeros([len(w) for w in weights], np.float32)  # takes no memory where nothing is written
    target = result[filled]
    if rows.shape[0] * columns.shape[0] < rows.shape[1] * columns.shape[1]:  # fewer pixels first, for speed
        in_plane = np.empty((len(part), *target.shape[1:]), np.float32)
        _in_plane(part, rows, columns, offset, in_plane)
        target[:] = _across(in_plane, planes)
    else:
        _in_plane(_across(part - offset, planes), rows, columns, np.float32(0), target)
    if outside:
        result += offset
    return result


def _band(used: np.ndarray) -> slice:
    places = np.nonzero(used)[0]
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _in_plane(array: np.ndarray, rows: np.ndarray, columns: np.ndarray, offset: np.float32, result: np.ndarray) -> None:
    # Sparse, because most weights are 0, and because small dense products wait for each other's threads on busy cores.
    rows, columns = sparse.csr_array(rows), sparse.csr_array(columns)
    for plane, target in zip(array, result, strict=True):
        target[:] = (columns @ (rows @ (plane - offset)).T).T


def _across(array: np.ndarray, planes: np.ndarray) -> np.ndarray:
    flat = sparse.csr_array(planes) @ array.reshape(len(array), -1)
    return flat.reshape(len(planes), *array.shape[1:])
