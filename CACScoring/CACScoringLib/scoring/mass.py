"""Calcium mass without a threshold: what a lesion adds to its area, its partial volume included.

The 130 HU rule counts the tissue that a dense voxel holds as calcium and loses the calcium of fainter ones. Here all
voxels of a lesion and near it count, each by what it lies above or below the lesion's background, so that blur only
moves signal within the region of the sum.

Integrated mass (Med Phys 2023, doi:10.1002/mp.16326): N = (I − n·S_bkg) / (S_obj − S_bkg) voxels of pure calcium of
density ρ, times voxel volume and ρ; I is the sum over n voxels. Hydroxyapatite in tissue adds ρ/c to it, whatever its
density, S_obj − S_bkg = ρ/c, so that none has to be known: the mass is c · Σ (HU − background) · voxel volume. What it
displaces of the tissue is left out: at 3.16 g/cm³ that is 1 % of the mass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..record.findings import MassCalibration
from ..record.scores import LesionSet, LesionVoxels

REACH_MM, RING_MM = 1.5, 3.0
"""In the slice: how far a lesion's region goes beyond its voxels, and the width of the ring around it that gives the
background. A region also takes one slice above and one below. Chosen on 40 lesions of digital patients and on simulated
inserts: a wider region holds more of faint and moving calcium, but also more of other tissue than its ring."""

NOT_TISSUE_HU = -300.0
"""Voxels below are lung or air: no background, and in a region no calcium."""

MIN_RING = 20
"""Voxels of a ring from which a background follows."""

FARTHEST_PLACE = 1.5
"""Largest offset of a place where a region is measured again, in widths of the region."""

_PLACES = tuple(
    (distance * math.sin(angle), distance * math.cos(angle))
    for distance in (1.0, FARTHEST_PLACE)
    for angle in np.arange(8) * math.pi / 4
)
"""Places (row, column) where a region is measured again for the standard error, in widths of the region."""

_MIN_PLACES = 5


MAX_MEASURED = 300
"""Lesions of a method whose masses and features are measured; a patient has some dozen."""

Mass = tuple[float | None, float | None]
"""Mass and its standard error, mg; None if they could not be measured."""


MeasuredMasses = dict[tuple[bool, bytes], Mass]
"""Masses of lesions of the map (True) or the CT, by the places of all calcium that they depend on."""


def mass_columns(masses: Iterable[Mass]) -> dict[str, list[float | None]]:
    """Return columns of a `LesionSet` with the masses of its rows."""
    rows = tuple(masses)
    values, errors = [mass for mass, _ in rows], [error for _, error in rows]
    return {"mass_mg": values, "integrated_mass_mg": values, "mass_standard_error_mg": errors}


def lesion_masses(
    hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    lesions: LesionSet,
    calibration: MassCalibration,
    elsewhere: np.ndarray | None = None,
    of_map: bool = False,
    known: Mapping[tuple[bool, bytes], Mass] | None = None,
) -> MeasuredMasses:
    """Measure each lesion against its own background.

    A voxel near several lesions belongs to the nearest. The background is the mean of a ring about the region, without
    what lies far off the ring's median (bone, contrast, metal), lung, and whatever is near other lesions. For lesions
    of a calcium map it is the healthy image: the map holds the difference already, and a ring about such faint and wide
    lesions lies in other tissue. The standard error is the spread of the same sum at places beside the lesion
    where no calcium is, which holds correlated noise, together with that of the ring's mean by its eighths, which holds
    uneven tissue. Of 69 lesions of digital patients 0.67 lay within one standard error, and 0.86 within 1.64.

    Args:
        hu: The CT, [k, j, i].
        spacing_mm: Its voxel spacing, i j k.
        lesions: The lesions.
        calibration: Mass calibration of the scan.
        elsewhere: Flat indices of calcium that is no lesion of these and counts nowhere; None without any.
        of_map: True for lesions of a calcium map.
        known: Masses measured before in the scan. A lesion is measured again only if the calcium about it has changed.

    Returns:
        The mass of each lesion, in their order.
    """
    sums = _Sums(hu, lesions.voxels, elsewhere, spacing_mm)
    c, voxel_mm3 = calibration.mg_per_cm3_per_hu / 1000, math.prod(spacing_mm)
    known, masses = known or {}, MeasuredMasses()
    for number, pseudo_mass in zip(lesions.ids, lesions.columns["pseudo_mass_hu_mm3"], strict=True):
        box = sums.box_of(number)
        key = of_map, sums.surroundings(number, box)
        if key in known:
            masses[key] = known[key]
        else:
            area = sums.area_of(number, box)
            excess = pseudo_mass / voxel_mm3 if of_map else sums.above_ring(area)
            error = None if excess is None else sums.standard_error(area)
            mass_mg, error_mg = (None if n is None else c * n * voxel_mm3 for n in (excess, error))
            masses[key] = mass_mg, error_mg
    return masses


@dataclass(frozen=True)
class _Area:
    """Box of a lesion in the scan, and in it the region of its sum and the ring of its background."""

    box: tuple[slice, ...]
    region: np.ndarray
    ring: np.ndarray


class _Sums:
    """Sums over regions of a scan; arguments as of `lesion_masses`."""

    def __init__(
        self,
        hu: np.ndarray,
        voxels: LesionVoxels,
        elsewhere: np.ndarray | None,
        spacing_mm: tuple[float, float, float],
    ) -> None:
        self.hu = hu
        outside = np.zeros(0, np.int64) if elsewhere is None else np.setdiff1d(elsewhere, voxels.flat)
        self._kji = np.stack(np.unravel_index(np.append(voxels.flat, outside), hu.shape))
        self._ids = np.append(voxels.ids.astype(np.int32), np.full(len(outside), -1, np.int32))
        self._in_slice_mm = spacing_mm[1], spacing_mm[0]

    def box_of(self, number: int) -> tuple[slice, ...]:
        """Return the box of a lesion's region and ring."""
        margins = (1, *(math.ceil((2 * REACH_MM + RING_MM) / mm) for mm in self._in_slice_mm))
        places = self._kji[:, self._ids == number]
        ends = zip(places.min(axis=1).tolist(), places.max(axis=1).tolist(), margins, self.hu.shape, strict=True)
        return tuple(slice(max(0, first - margin), min(n, last + 1 + margin)) for first, last, margin, n in ends)

    def surroundings(self, number: int, box: tuple[slice, ...]) -> bytes:
        """Return the places of all calcium that a lesion's mass depends on, up to those of its standard error."""
        reach = [0, *[2 * max(part.stop - part.start for part in box[1:])] * 2]
        is_near = self._is_in([slice(p.start - n, p.stop + n) for p, n in zip(box, reach, strict=True)])
        return self._kji[:, is_near].tobytes() + (self._ids[is_near] == number).tobytes()

    def area_of(self, number: int, box: tuple[slice, ...]) -> _Area:
        """Return the area of a lesion in its box."""
        ids = self._ids_in(box)
        distance_mm, other_mm = self._distances(ids == number), self._distances((ids != number) & (ids != 0))
        tissue = self.hu[box] >= NOT_TISSUE_HU
        region = (distance_mm <= REACH_MM) & (distance_mm <= other_mm) & ((ids == number) | (ids == 0)) & tissue
        ring = (distance_mm > REACH_MM) & (distance_mm <= REACH_MM + RING_MM) & (other_mm > REACH_MM) & tissue
        return _Area(box, region, ring)

    def _ids_in(self, box: tuple[slice, ...]) -> np.ndarray:
        """Return the lesion at each voxel of a box, int32; -1 for other calcium."""
        is_inside = self._is_in(box)
        ids = np.zeros([part.stop - part.start for part in box], np.int32)
        ids[tuple(self._kji[:, is_inside] - [[part.start] for part in box])] = self._ids[is_inside]
        return ids

    def _is_in(self, box: Sequence[slice]) -> np.ndarray:
        """Return True for calcium in a box."""
        first, last = np.array([(part.start, part.stop) for part in box]).T[:, :, None]
        return ((self._kji >= first) & (self._kji < last)).all(axis=0)

    def _distances(self, calcium: np.ndarray) -> np.ndarray:
        """Return distances in the slice, mm, from calcium in it or in a neighbouring slice."""
        if not calcium.any():
            return np.full(calcium.shape, np.inf)
        spread = ndimage.maximum_filter1d(calcium.astype(np.uint8), 3, axis=0, mode="constant") == 0
        infinite = np.full(calcium.shape[1:], np.inf)
        return np.stack([infinite if s.all() else ndimage.distance_transform_edt(s, self._in_slice_mm) for s in spread])

    def above_ring(self, area: _Area) -> float | None:
        """Return the excess of the region over its ring's mean, HU × voxels; None without a ring."""
        hu = self.hu[area.box]
        inside, background = hu[area.region], _ring_mean(hu[area.ring])
        return None if background is None else float(inside.sum(dtype=np.float64) - background * inside.size)

    def standard_error(self, area: _Area) -> float | None:
        """Return the standard error of the excess; None with too few places beside the lesion, or without a ring."""
        uneven = self._ring_error(area)
        if uneven is None or not area.region.any():
            return None
        rows, columns = (np.flatnonzero(area.region.any(axes)) for axes in ((0, 2), (0, 1)))
        width = max(np.ptp(rows), np.ptp(columns)) + 1
        excesses = []
        for down, right in _PLACES:
            offset = (0, round(down * width), round(right * width))
            box = tuple(slice(s.start + o, s.stop + o) for s, o in zip(area.box, offset, strict=True))
            if any(s.start < 0 or s.stop > size for s, size in zip(box, self.hu.shape, strict=True)):
                continue
            hu, free = self.hu[box], self._ids_in(box) == 0
            tissue = hu >= NOT_TISSUE_HU
            if not (free & tissue)[area.region].all():
                continue
            background = _ring_mean(hu[area.ring & free & tissue])
            if background is not None:
                excesses.append(float(hu[area.region].sum(dtype=np.float64) - background * area.region.sum()))
        if len(excesses) < _MIN_PLACES:
            return None
        # The median, because some places hold a boundary of organs, or calcium outside lesions.
        noise = 1.4826 * float(np.median(np.abs(excesses)))
        return math.hypot(noise, uneven * int(area.region.sum()))

    def _ring_error(self, area: _Area) -> float | None:
        """Return the standard error of the ring's mean by its eighths, HU, as tissue is uneven; None without a ring."""
        hu = self.hu[area.box][area.ring]
        if hu.size < MIN_RING:
            return None
        usual = _usual(hu)
        _, rows, columns = (axis[usual] for axis in np.nonzero(area.ring))
        angle = np.arctan2(rows - rows.mean(), columns - columns.mean())
        eighth = np.floor((angle / math.pi + 1) * 4).astype(int) % 8
        counts = np.bincount(eighth, minlength=8)
        means = np.bincount(eighth, hu[usual], minlength=8)[counts > 0] / counts[counts > 0]
        return float(np.std(means, ddof=1) / math.sqrt(means.size)) if means.size > 1 else None


def _ring_mean(hu: np.ndarray) -> float | None:
    """Return the mean of a ring's usual voxels; None for too few."""
    return float(hu[_usual(hu)].mean()) if hu.size >= MIN_RING else None


def _usual(hu: np.ndarray) -> np.ndarray:
    """Return True for values within three spreads of the median."""
    middle = np.median(hu)
    spread = 1.4826 * np.median(np.abs(hu - middle))
    return np.abs(hu - middle) <= 3 * max(spread, 1.0)
