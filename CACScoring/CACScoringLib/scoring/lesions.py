"""Connected lesions, and the artery each belongs to.

The unit of clinical scoring is the *slice component*: voxels at or above the threshold that touch each other
within one axial slice and belong to one artery. A *lesion* is the set of slice components of one artery that
touch each other in three dimensions. Candidate voxels are few, so both are found as connected components of a
graph whose nodes are the candidate voxels; the volume itself is passed over only once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..core.errors import CTError, MaskError
from ..core.grid import Grid
from ..core.labels import SITES, Artery, Labelled, NonCoronary, Site, site_of
from ..core.voxels import voxels_of
from .rules import ScoringRules


@dataclass(frozen=True)
class SliceComponent:
    """Touching voxels of one lesion in one axial slice.

    Attributes:
        slice_index: Slice k of the scan, counted from the feet.
        voxels: Number of voxels.
        area_mm2: Area of the voxels in the slice.
        peak_hu: Highest voxel.
        sum_hu: Sum of the voxels.
        weight: Density weight, 1 to 4.
    """

    slice_index: int
    voxels: int
    area_mm2: float
    peak_hu: float
    sum_hu: float
    weight: int


@dataclass(frozen=True)
class Lesion:
    """Slice components of one artery or other site that touch in three dimensions (26 neighbours).

    Attributes:
        id: Number in the lesion map, from 1.
        artery: Artery, or site outside the coronary arteries.
        components: Touching voxels, slice by slice.
        centroid_ras_mm: Mean position of the voxels, Slicer's RAS axes.
    """

    id: int
    artery: Site
    components: tuple[SliceComponent, ...]
    centroid_ras_mm: tuple[float, float, float]

    def __repr__(self) -> str:
        return f"Lesion({self.id}, {self.artery.key}, {self.voxels} voxels, peak {self.peak_hu:.0f} HU)"

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return sum(c.voxels for c in self.components)

    @property
    def peak_hu(self) -> float:
        """Highest voxel."""
        return max(c.peak_hu for c in self.components)

    @property
    def mean_hu(self) -> float:
        """Mean of the voxels."""
        return sum(c.sum_hu for c in self.components) / self.voxels

    @property
    def slice_indices(self) -> tuple[int, ...]:
        """Slices that the lesion reaches, counted from the feet."""
        return tuple(sorted({c.slice_index for c in self.components}))


@dataclass(frozen=True)
class LesionSet:
    """All lesions of a scan by one method.

    Attributes:
        lesions: Lesions by artery, then from head to feet.
        id_map: Lesion's id at its voxels, else 0, uint16 [k, j, i].
    """

    lesions: tuple[Lesion, ...]
    id_map: np.ndarray = field(repr=False)

    @property
    def ids(self) -> list[int]:
        """IDs of the lesions, in their order."""
        return [lesion.id for lesion in self.lesions]

    @property
    def coronary(self) -> LesionSet:
        """The lesions of arteries, those not assigned included."""
        return self.of(lesion.id for lesion in self.lesions if isinstance(lesion.artery, Artery))

    @property
    def non_coronary(self) -> LesionSet:
        return self.of(lesion.id for lesion in self.lesions if isinstance(lesion.artery, NonCoronary))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the scan's array [k, j, i]."""
        return self.id_map.shape

    @cached_property
    def flat(self) -> np.ndarray:
        """Indices of all voxels of lesions in the scan's array, flat, rising."""
        return labelled_voxels(self.id_map).flat

    @cached_property
    def voxel_ids(self) -> np.ndarray:
        """Lesion's id at each voxel of `flat`, uint16."""
        return self.id_map.reshape(-1)[self.flat]

    def of(self, ids: Iterable[int]) -> LesionSet:
        """Return the lesions with these ids."""
        ids = set(ids)
        return self.part([lesion for lesion in self.lesions if lesion.id in ids])

    def part(self, lesions: Sequence[Lesion]) -> LesionSet:
        """Return a set of some lesions of this set, in the order given."""
        return _Part(tuple(lesions), self)

    @property
    def site_of_ids(self) -> np.ndarray:
        """Label of the `Site` of the lesion with each id, 0 without one, uint8 [highest id + 1]."""
        sites = np.zeros(self._highest_id + 1, np.uint8)
        for lesion in self.lesions:
            sites[lesion.id] = lesion.artery
        return sites

    def artery_map(self) -> np.ndarray:
        """Return the label of the `Site` at each lesion's voxels, else 0, uint8 [k, j, i]."""
        return self._looked_up(self.site_of_ids)

    @property
    def _highest_id(self) -> int:
        # Not len(lesions): ids have gaps once lesions were removed.
        return max((lesion.id for lesion in self.lesions), default=0)

    def _looked_up(self, table: np.ndarray) -> np.ndarray:
        """Return the table's value for each voxel's id, 0 for 0; only the few voxels of lesions are looked up."""
        looked_up = np.zeros(self.shape, table.dtype)
        looked_up.reshape(-1)[self.flat] = table[self.voxel_ids]
        return looked_up

    def label_image(self, grid: sitk.Image) -> sitk.Image:
        """Return the artery map as an image. grid: Image that the lesions were found in."""
        return Grid.of(grid).image(self.artery_map())


class _Part(LesionSet):
    """Part of a set of lesions, whose id map, as large as the scan, is made on first use."""

    _larger: LesionSet

    def __init__(self, lesions: tuple[Lesion, ...], larger: LesionSet) -> None:
        vars(self).update(lesions=lesions, _larger=larger)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._larger.shape

    @cached_property
    def flat(self) -> np.ndarray:
        return self._larger.flat[np.isin(self._larger.voxel_ids, self.ids)]

    @cached_property
    def voxel_ids(self) -> np.ndarray:
        ids = self._larger.voxel_ids
        return ids[np.isin(ids, self.ids)]

    @cached_property
    def id_map(self) -> np.ndarray:
        return self._looked_up(np.arange(self._highest_id + 1, dtype=np.uint16))


_ROWS = ((0, 1), (1, -1), (1, 0), (1, 1))


def find_lesions(
    image: sitk.Image, arteries: np.ndarray | Labelled, rules: ScoringRules, peaks: sitk.Image | None = None
) -> LesionSet:
    """Find the lesions in an image.

    Threshold, mean and sum are read from `image`.

    Args:
        image: HU on axial slices: the CT for the clinical rule, the calcium map for the decomposition.
        arteries: uint8 [k, j, i] on the same grid; the `Site` each voxel would belong to, 0 where none can lie. Or the
            labelled voxels alone, which takes less time where they are few.
        rules: The scoring rules.
        peaks: Image on the same grid whose highest HU gives a component its weight; None for `image` itself.

    Raises:
        MaskError: If `arteries` is no such array.
        CTError: If there are more lesions than the id map can number.
    """
    hu = voxels_of(image)
    if isinstance(arteries, np.ndarray):
        if arteries.dtype != np.uint8 or arteries.shape != hu.shape:
            raise MaskError(
                f"The artery labels are {arteries.dtype} of shape {arteries.shape}; "
                f"they must be uint8 of the image's shape {hu.shape}."
            )
        arteries = labelled_voxels(arteries)
    unknown = set(np.unique(arteries.values).tolist()) - set(SITES)
    if unknown:
        raise MaskError(f"The labels hold {min(unknown)}; valid are {', '.join(f'{s:d}' for s in SITES)}.")
    labelled = arteries.where(hu.reshape(-1)[arteries.flat] >= rules.threshold_hu)
    peak_hu = hu if peaks is None else voxels_of(peaks)
    if peak_hu.shape != hu.shape:
        raise MaskError(f"The image of the peaks has the shape {peak_hu.shape}, the lesions' image {hu.shape}.")
    voxels = _Voxels.at(labelled, hu, peak_hu)

    component = connected_voxels(voxels.flat, voxels.artery, voxels.shape, _ROWS[:1], int(rules.connectivity == 8))
    count = np.bincount(component)
    spacing = image.GetSpacing()
    pixel_area = spacing[0] * spacing[1]
    # Spacings come from files in single precision: an area meant to be 1 mm² may read 0.9999999.
    large = (count * pixel_area >= rules.minimum_area_mm2 * (1 - 1e-6)) & (count >= rules.minimum_pixels)
    voxels = voxels.where(large[component])
    component = np.unique(component[large[component]], return_inverse=True)[1]

    lesion = connected_voxels(voxels.flat, voxels.artery, voxels.shape)
    return _lesion_set(image, voxels, component, lesion, pixel_area, rules)


def connected_voxels(
    flat: np.ndarray,
    labels: np.ndarray,
    shape: tuple[int, ...],
    rows: Sequence[tuple[int, int]] = _ROWS,
    reach: int = 1,
) -> np.ndarray:
    """Number voxels by connected part (26 neighbours), from 0; voxels of different labels never connect.

    Args:
        flat: Indices into an array [k, j, i], rising.
        labels: Of each.
        shape: Of the array.
        rows: Offsets along k, j of the rows that voxels may connect to, after their own.
        reach: 1 if voxels of these rows connect by edges or corners too, 0 if only side by side.

    Returns:
        The number of each voxel's part, intp [n].
    """
    if not len(flat):
        return np.zeros(0, np.intp)
    # Rows and slices are padded by one, so that the last voxel of a row is no neighbour of the next row's first.
    k, j, i = np.unravel_index(flat, shape)
    row = shape[2] + 1
    plane = row * (shape[1] + 1)
    place = k * plane + j * row + i
    # Runs of neighbours along a row are connected, rather than voxels, which are several times as many.
    starts = np.flatnonzero((np.diff(place, prepend=-2) != 1) | (np.diff(labels, prepend=labels[0]) != 0))
    lengths = np.diff(starts, append=len(place))
    first, last, label = place[starts], place[starts + lengths - 1], labels[starts]
    pairs = []
    for dk, dj in rows:
        offset = dk * plane + dj * row
        nearest = np.searchsorted(last, first + offset - reach)
        counts = np.searchsorted(first, last + offset + reach, "right") - nearest
        sources = np.repeat(np.arange(len(starts)), counts)
        neighbours = np.arange(len(sources)) + np.repeat(nearest - np.cumsum(counts) + counts, counts)
        is_alike = label[sources] == label[neighbours]
        pairs.append((sources[is_alike], neighbours[is_alike]))
    sources, neighbours = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(sources), bool), (sources, neighbours)), shape=(len(starts),) * 2)
    return np.repeat(connected_components(graph, directed=False)[1], lengths).astype(np.intp)


def _lesion_set(
    image: sitk.Image,
    voxels: _Voxels,
    component: np.ndarray,
    lesion: np.ndarray,
    pixel_area_mm2: float,
    rules: ScoringRules,
) -> LesionSet:
    id_map = np.zeros(voxels.shape, np.uint16)
    if not voxels.flat.size:
        return LesionSet((), id_map)
    first = np.unique(component, return_index=True)[1]
    count = np.bincount(component)
    total = np.bincount(component, weights=voxels.hu)
    peak = np.full(len(first), -np.inf)
    np.maximum.at(peak, component, voxels.peak_hu)

    sizes = np.bincount(lesion)
    centre_kji = [np.bincount(lesion, weights=axis) / sizes for axis in voxels.kji]
    lesion_first = np.unique(lesion, return_index=True)[1]
    # By artery, then from head to feet, so that ids do not depend on the order in which voxels were met.
    order = np.lexsort((-centre_kji[0], voxels.artery[lesion_first]))
    if len(order) > np.iinfo(id_map.dtype).max:
        raise CTError(f"{len(order)} separate lesions: this is noise, not calcium. Check the scan and the heart mask.")

    parts: list[list[SliceComponent]] = [[] for _ in order]
    for c, at in enumerate(first):
        peak_hu = float(peak[c])
        part = SliceComponent(
            int(voxels.kji[0][at]),
            int(count[c]),
            float(count[c] * pixel_area_mm2),
            peak_hu,
            float(total[c]),
            rules.weight(peak_hu),
        )
        parts[lesion[at]].append(part)

    lesions = []
    for number, old in enumerate(order, start=1):
        k, j, i = (float(axis[old]) for axis in centre_kji)
        x, y, z = image.TransformContinuousIndexToPhysicalPoint((i, j, k))
        artery = site_of(int(voxels.artery[lesion_first[old]]))
        lesions.append(Lesion(number, artery, tuple(parts[old]), (-x, -y, z)))
    number_of = np.empty(len(order), np.uint16)
    number_of[order] = np.arange(1, len(order) + 1)
    id_map.reshape(-1)[voxels.flat] = number_of[lesion]
    return LesionSet(tuple(lesions), id_map)


@dataclass(frozen=True)
class _Voxels:
    """Candidate voxels in raster order: volume shape, flat index, (k, j, i), HU, peak's HU and artery of each."""

    shape: tuple[int, int, int]
    flat: np.ndarray
    kji: tuple[np.ndarray, ...]
    hu: np.ndarray
    peak_hu: np.ndarray
    artery: np.ndarray

    @classmethod
    def at(cls, labelled: Labelled, hu: np.ndarray, peak_hu: np.ndarray) -> _Voxels:
        flat = labelled.flat
        values, peaks = (image.reshape(-1)[flat].astype(np.float64) for image in (hu, peak_hu))
        return cls(hu.shape, flat, np.unravel_index(flat, hu.shape), values, peaks, labelled.values)

    def where(self, keep: np.ndarray) -> _Voxels:
        kji = tuple(axis[keep] for axis in self.kji)
        return _Voxels(self.shape, self.flat[keep], kji, self.hu[keep], self.peak_hu[keep], self.artery[keep])


_RUN = 4096


def labelled_voxels(labels: np.ndarray) -> Labelled:
    """Return the labelled voxels of a label map, uint8 [k, j, i], skipping the empty runs of voxels, which are most."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    in_runs = flat.size - flat.size % _RUN
    runs = flat[:in_runs].reshape(-1, _RUN)
    filled = np.flatnonzero(runs.max(axis=1))
    at = np.flatnonzero(runs[filled] != 0)
    indices = np.concatenate([filled[at // _RUN] * _RUN + at % _RUN, in_runs + np.flatnonzero(flat[in_runs:])])
    return Labelled(indices, flat[indices])
