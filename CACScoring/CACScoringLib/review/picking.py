"""Voxels of a click or a brush stroke on a scan. Knows no MRML and no Qt.

All arrays are [k, j, i] in whatever axis order the image has; positions of brushes are millimetres in any frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Place = tuple[slice, ...]
"""Part of an image, [k, j, i]."""


@dataclass(frozen=True)
class PickLimits:
    """Limits of a lesion that grows from a click.

    An artery that is 6 mm wide with its blooming and calcified over 60 mm without a gap has 1,700 mm³. Of 239 lesions
    of 60 digital patients, each with the plaques of eight, the largest has 601 mm³ and the longest 28 mm; the aorta's
    wall, a calcified valve ring and bone go beyond.

    Attributes:
        radius_mm: Radius of the sphere that the reader drew around the click, which replaces the other limits, because
            the reader sees where it ends; None without one.
        most_volume_mm3: Volume.
        most_depth_mm: Distance from the click.
    """

    radius_mm: float | None = None
    most_volume_mm3: float = 2000.0
    most_depth_mm: float = 60.0


@dataclass(frozen=True)
class Voxels:
    """Selected voxels of an image: a bool mask within a part."""

    part: Place
    mask: np.ndarray

    @classmethod
    def at(cls, kji: np.ndarray) -> Voxels | None:
        """Return the voxels at positions [n, 3]; None for no position."""
        return cls(*_box(kji)) if len(kji) else None

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.mask))

    @property
    def kji(self) -> np.ndarray:
        """Positions in the image, [n, 3]."""
        return np.argwhere(self.mask) + [at.start for at in self.part]

    def flat(self, shape: Sequence[int]) -> np.ndarray:
        """Return rising flat indices into an image of this shape."""
        return np.ravel_multi_index(tuple(self.kji.T), shape)

    def where(self, mask: np.ndarray) -> Voxels:
        """Return the intersection with another mask of the same part."""
        return Voxels(self.part, self.mask & mask)

    def holds(self, kji: Sequence[int]) -> bool:
        """True if a voxel of the image is one of these."""
        return bool((self.kji == kji).all(1).any())

    def united(self, addition: Voxels) -> Voxels:
        """Return the union with further voxels."""
        return Voxels(*_box(np.concatenate([self.kji, addition.kji])))


@dataclass(frozen=True)
class Pick(Voxels):
    """Lesion under a click.

    Attributes:
        reason: Limit that it exceeds, in words; then the voxels are the part within the limits, for display only.
    """

    reason: str = ""

    @property
    def leaked(self) -> bool:
        """True if it exceeds a limit."""
        return bool(self.reason)


def pick_lesion(
    hu: np.ndarray,
    seed_kji: Sequence[int],
    spacing_mm: Sequence[float],
    threshold_hu: float = 130.0,
    allowed: Callable[[Place], np.ndarray] | None = None,
    limits: PickLimits = PickLimits(),
    sites: Callable[[Place], np.ndarray] | None = None,
) -> Pick | None:
    """Return the lesion under a click.

    It ends where another site begins: on a voxel with a site it is what touches it of that site, as it is listed; on a
    voxel without one it is what touches it (26 neighbours) at or above the threshold and has no site either.

    Args:
        hu: [k, j, i].
        seed_kji: The clicked voxel.
        spacing_mm: k, j, i.
        threshold_hu: Least value of a voxel without a site.
        allowed: Gives where a voxel without a site may lie in a part of the image, such as the heart, as bool;
            everywhere when None.
        limits: Limits of the lesion.
        sites: Gives the number of each voxel's site in a part of the image, 0 for none; when None, no voxel has one.

    Returns:
        The lesion. None when the clicked voxel is outside the image, or has no site and is below the threshold or not
        allowed. Within the limits and without sites it is what `lesions.find_lesions` joins to one lesion, apart from
        its rule on small components.
    """
    from scipy import ndimage  # loads slowly

    if not all(0 <= n < size for n, size in zip(seed_kji, hu.shape, strict=True)):
        return None
    ball, reach_mm = limits.radius_mm is not None, limits.radius_mm or limits.most_depth_mm
    most_voxels = hu.size if ball else max(1, int(min(limits.most_volume_mm3 / math.prod(spacing_mm), hu.size)))
    site = int(sites(tuple(slice(n, n + 1) for n in seed_kji))[0, 0, 0]) if sites is not None else 0
    count, reach = 0, _FIRST_REACH
    while True:  # until no more is connected in a box of twice the reach, or too much
        ends = zip(seed_kji, hu.shape, strict=True)
        part = tuple(slice(max(0, n - reach), min(size, n + reach + 1)) for n, size in ends)
        voxels = hu[part]
        k2, j2, i2 = (
            ((np.arange(size) + at.start - n) * mm) ** 2
            for at, size, n, mm in zip(part, voxels.shape, seed_kji, spacing_mm, strict=True)
        )
        is_near = k2[:, None, None] + j2[:, None] + i2 <= reach_mm**2
        inside = np.ones(voxels.shape, bool) if sites is None else sites(part) == site
        if not site:
            inside &= voxels >= threshold_hu
            if allowed is not None:
                inside &= allowed(part)
        labels, _ = ndimage.label(inside & is_near if ball else inside, np.ones((3, 3, 3)))
        label = labels[tuple(n - at.start for n, at in zip(seed_kji, part, strict=True))]
        if not label:
            return None
        lesion, former_count = labels == label, count
        count = int(np.count_nonzero(lesion))
        leaks = count > most_voxels or not is_near[lesion].all()
        if leaks or count == former_count:
            break
        reach *= 2
    reason = ""
    if leaks:
        excess = f"extends beyond {limits.most_depth_mm:g} mm"
        if count > most_voxels:
            excess = f"is larger than {limits.most_volume_mm3:g} mm³"
        reason = f"It {excess}, so it is more likely aorta, valve or bone than a coronary lesion."
        lesion &= is_near
    return Pick(*_box(np.argwhere(lesion) + [at.start for at in part]), reason)


_FIRST_REACH = 8
"""Voxels."""


def _box(kji: np.ndarray) -> tuple[Place, np.ndarray]:
    low, high = kji.min(0), kji.max(0) + 1
    mask = np.zeros(high - low, bool)
    mask[tuple((kji - low).T)] = True
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)), mask


def brush_stroke(
    shape: Sequence[int],
    index_to_mm: np.ndarray,
    start_mm: Sequence[float],
    end_mm: Sequence[float],
    radius_mm: float,
    normal: Sequence[float] | None = None,
) -> Voxels | None:
    """Return the voxels whose centres a round brush covers on its way between two points; None if it covers none.

    Args:
        shape: Shape of the image, [k, j, i].
        index_to_mm: 4 × 4 matrix from voxel (i, j, k, 1) to millimetres; the axes may be oblique.
        start_mm: First point.
        end_mm: Last point.
        radius_mm: Radius of the brush.
        normal: Normal of the plane in which a flat brush paints one layer of voxels; None for a ball.
    """
    axes, origin = np.asarray(index_to_mm, float)[:3, :3], np.asarray(index_to_mm, float)[:3, 3]
    ends = np.array([start_mm, end_mm], float)
    to_index = np.linalg.inv(axes)
    at = (ends - origin) @ to_index.T
    # A row of the inverse is as long as its index changes per millimetre.
    reach = radius_mm * np.linalg.norm(to_index, axis=1)
    low = np.maximum(np.ceil(at.min(0) - reach - 1e-6), 0).astype(int)
    high = np.minimum(np.floor(at.max(0) + reach + 1e-6) + 1, np.array(shape)[::-1]).astype(int)
    if (low >= high).any():
        return None
    i, j, k = (np.arange(a, b) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.broadcast_arrays(i[None, None, :], j[None, :, None], k[:, None, None]), -1)
    from_start = grid @ axes.T + (origin - ends[0])
    way = ends[1] - ends[0]
    length2 = way @ way
    if normal is not None:
        unit = np.asarray(normal, float) / np.linalg.norm(normal)
        height = from_start @ unit
        thickness = np.abs(unit @ axes).max()
        # Half open, so that a plane between two layers paints one of them.
        in_layer = (height > -thickness / 2 + 1e-6) & (height <= thickness / 2 + 1e-6)
        from_start = from_start - height[..., None] * unit
        way = way - (way @ unit) * unit
    share = np.clip(from_start @ way / length2, 0, 1) if length2 > 0 else np.zeros(from_start.shape[:3])
    distance2 = ((from_start - share[..., None] * way) ** 2).sum(-1)
    mask = distance2 <= radius_mm**2 + 1e-6
    if normal is not None:
        mask &= in_layer
    if not mask.any():
        return None
    place = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
    return Voxels(place, mask)


def shown_voxels(shape: Sequence[int], view_to_index: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return positions [n, 3] of the voxels that a slice view shows.

    Args:
        shape: Shape of the image, [k, j, i].
        view_to_index: 4 × 4 matrix from a pixel of the view (x, y, 0, 1) to voxel (i, j, k).
        width: Width of the view in pixels.
        height: Height of the view in pixels.
    """
    to_index = np.asarray(view_to_index, float)
    # At least one sample per voxel where voxels are smaller than pixels.
    samples = [max(1, math.ceil(np.abs(to_index[:3, axis]).max() - 1e-9)) for axis in (0, 1)]
    x, y = ((np.arange(n * m) + 0.5) / m - 0.5 for n, m in zip((width, height), samples, strict=True))
    inside = np.ones((len(x), len(y)), bool)
    flat = np.zeros(inside.shape, np.int64)
    for axis, size in zip((2, 1, 0), shape, strict=True):
        along = to_index[axis, 0] * x[:, None] + to_index[axis, 1] * y + (to_index[axis, 3] + 0.5)
        index = np.floor(along, out=along).astype(np.int32)
        inside &= (index >= 0) & (index < size)
        flat = flat * size + index
    flat = flat[inside]
    if not flat.size:
        return np.zeros((0, 3), np.int64)
    # Faster than sorting: the samples of a slice lie close together in the image.
    first = flat.min()
    is_visible = np.zeros(flat.max() - first + 1, bool)
    is_visible[flat - first] = True
    return np.stack(np.unravel_index(np.flatnonzero(is_visible) + first, shape), 1)


def in_parts_with(kji: np.ndarray, selected: np.ndarray, slice_axis: int) -> np.ndarray:
    """Return a mask of the positions whose part, connected within a slice (8 neighbours), has a selected position.

    Args:
        kji: Positions [n, 3].
        selected: Mask of the selected positions.
        slice_axis: Axis across the slices.
    """
    from scipy import ndimage  # loads slowly

    _, mask = _box(kji)
    neighbours = np.zeros((3, 3, 3))
    np.moveaxis(neighbours, slice_axis, 0)[1] = 1
    labels = ndimage.label(mask, neighbours)[0][tuple((kji - kji.min(0)).T)]
    return np.isin(labels, labels[selected])


def values_at(image: np.ndarray, kji: np.ndarray, to_image: np.ndarray) -> np.ndarray:
    """Return values of an image at voxels of another grid, nearest neighbour; NaN outside.

    Args:
        image: Image, [k, j, i].
        kji: Voxels [n, 3] of the other grid.
        to_image: 4 × 4 matrix from the other grid's (i, j, k, 1) to the image's (i, j, k).
    """
    ijk = kji[:, ::-1] @ to_image[:3, :3].T + to_image[:3, 3]
    nearest = np.floor(ijk + 0.5).astype(np.int64)[:, ::-1]
    inside = ((nearest >= 0) & (nearest < image.shape)).all(1)
    values = np.full(len(kji), np.nan)
    values[inside] = image[tuple(nearest[inside].T)]
    return values
