"""Grids of images, masks on other grids (`Grid.mask`), and shapes of masks. All arrays are [k, j, i]."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
        near_rows, near_columns = nonzero_range(row_weights @ in_rows), nonzero_range(column_weights @ in_columns)
        source_rows, source_columns = nonzero_range(in_rows), nonzero_range(in_columns)
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


def _linear_weights(places: np.ndarray, count: int) -> sparse.csr_array:
    """Return weights [target, source] that interpolate linearly at places from 0 to count − 1."""
    low = np.floor(places).astype(int)
    targets = np.tile(np.arange(len(places)), 2)
    weights = np.concatenate([1 - places % 1, places % 1])
    sources = np.concatenate([low, np.minimum(low + 1, count - 1)])
    return sparse.csr_array((weights, (targets, sources)), shape=(len(places), count))


def nonzero_range(is_used: np.ndarray) -> slice:
    places = np.nonzero(is_used)[0]
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def grown(mask: np.ndarray, steps: int = 1, axes: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Dilate a bool mask by a number of steps along these axes."""
    # SciPy's binary dilation takes several times as long.
    for _ in range(steps):
        before, mask = mask, mask.copy()
        for axis in axes:
            planes, neighbours = np.moveaxis(mask, axis, 0), np.moveaxis(before, axis, 0)
            planes[1:] |= neighbours[:-1]
            planes[:-1] |= neighbours[1:]
    return mask


def depth_inside(mask: np.ndarray, beyond: int = 0) -> np.ndarray:
    """Return the distance in voxels to the nearest voxel outside.

    beyond: Voxels that the mask continues beyond the ends of the scan.
    """
    depth = np.zeros(mask.shape, np.float32)
    if not mask.any():
        return depth
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    margins = [(beyond * (s.start == 0), beyond * (s.stop == n)) for s, n in zip(box, mask.shape, strict=True)]
    grown = np.pad(np.pad(mask[box], margins, mode="edge"), 1)
    centre = tuple(slice(low + 1, n - high - 1) for n, (low, high) in zip(grown.shape, margins, strict=True))
    depth[box] = np.sqrt(_squared_distance(~grown)[centre])
    return depth


def within(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return the voxels at most radius voxels from the mask."""
    if not mask.any():
        return mask.copy()
    reach = int(radius) + 1
    box = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in ndimage.find_objects(mask.view(np.uint8))[0])
    nearby = np.zeros(mask.shape, bool)
    nearby[box] = _squared_distance(mask[box]) <= radius**2
    return nearby


def _squared_distance(mask: np.ndarray) -> np.ndarray:
    """Return the squared distance in voxels to the nearest voxel of the mask, float32."""
    # Exact as SciPy's, in a quarter of the time.
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=True, useImageSpacing=False)  # negative inside
    return np.maximum(sitk.GetArrayFromImage(distance), 0)


def widened(mask: np.ndarray, spacing_mm: tuple[float, ...], margin_mm: float) -> np.ndarray:
    """Dilate a mask [k, j, i] by margin_mm. spacing_mm: Along i, j, k."""
    if not margin_mm:
        return mask
    reach = [math.ceil(margin_mm / spacing) for spacing in spacing_mm[::-1]]
    extent = zip(bounding_box(mask), reach, strict=True)
    surroundings = tuple(slice(max(0, part.start - n), part.stop + n) for part, n in extent)
    part = sitk.GetImageFromArray(mask[surroundings].astype(np.uint8))
    part.SetSpacing(spacing_mm)
    distance = sitk.SignedMaurerDistanceMap(part, squaredDistance=False, useImageSpacing=True)
    wide = np.zeros(mask.shape, bool)
    wide[surroundings] = sitk.GetArrayFromImage(distance) <= margin_mm
    return wide
