"""Connected lesions, and the artery each belongs to.

The unit of clinical scoring is the *slice component*: voxels at or above the threshold that touch each other
within one axial slice and belong to one artery. A *lesion* is the set of slice components of one artery that
touch each other in three dimensions. Candidate voxels are few, so both are found as connected components of a
graph whose nodes are the candidate voxels; the volume itself is passed over only once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..core.ct import CTError, MaskError
from ..core.grid import Grid
from ..core.labels import SITES, Artery, Labelled, NonCoronary, Site, site_of


@dataclass(frozen=True)
class ScoringRules:
    """Every choice that changes a score; the defaults are the rule of Agatston et al. as clinics apply it.

    Agatston 1990, doi:10.1016/0735-1097(90)90282-T.

    name: what to call the rule in a report.
    threshold_hu: candidates are voxels at or above it.
    weight_bounds_hu: a component weighs 1 + the number of bounds its peak reaches (200, 300, 400: weights 1-4).
    connectivity: 8 or 4 neighbours within a slice.
    minimum_area_mm2, minimum_pixels: smaller components are dropped.
    reference_spacing_mm: Agatston sums are multiplied by slice spacing / this; the rule was made for 3 mm.
    calibration_mg_per_mm3_hu: c in mass = c · volume · mean HU; None when the scan was not calibrated.
    equivalent_mg_per_mm3_hu: of a calcium map, c by which a lesion's mass gives its clinical score (`equivalent`); None
    where the Agatston score is the clinical one.

    Raises CTError when made with values that cannot be a rule.
    """

    name: str = "Agatston, 130 HU"
    threshold_hu: float = 130.0
    weight_bounds_hu: tuple[float, float, float] = (200.0, 300.0, 400.0)
    connectivity: int = 8
    minimum_area_mm2: float = 1.0
    minimum_pixels: int = 1
    reference_spacing_mm: float = 3.0
    calibration_mg_per_mm3_hu: float | None = None
    equivalent_mg_per_mm3_hu: float | None = None

    def __post_init__(self) -> None:
        bounds = (self.threshold_hu, *self.weight_bounds_hu)
        shown = ", ".join(f"{b:g}" for b in bounds)
        if len(bounds) != 4 or not all(map(math.isfinite, bounds)):
            raise CTError(f"The rules need a threshold and three weight bounds in HU, not {shown}.")
        if list(bounds) != sorted(set(bounds)):
            raise CTError(f"Threshold and weight bounds must rise: {shown} HU do not.")
        if self.connectivity not in (4, 8):
            raise CTError(f"Connectivity within a slice is 4 or 8, not {self.connectivity}.")
        for field in fields(self):
            value = getattr(self, field.name)
            if not field.name.startswith(("minimum", "reference", "calibration")) or value is None:
                continue
            if not math.isfinite(value) or value < 0:
                raise CTError(f"{field.name} must be a number from 0 up, but is {value:g}.")
        if self.reference_spacing_mm == 0 or self.calibration_mg_per_mm3_hu == 0:
            raise CTError("The reference spacing and the mass calibration must be above zero.")

    def weight(self, peak_hu: float) -> int:
        """Density weight of a slice component, 1 to 4, from its highest HU in that slice."""
        return 1 + sum(peak_hu >= bound for bound in self.weight_bounds_hu)


TUBE_VOLTAGE_BOUNDS_HU: dict[float, tuple[float, float, float, float]] = {
    70: (207.0, 318.0, 477.0, 636.0),
    80: (177.0, 271.0, 408.0, 544.0),
    100: (145.0, 222.0, 334.0, 446.0),
    120: (130.0, 200.0, 300.0, 400.0),
    135: (119.0, 183.0, 274.0, 364.0),
}
"""Threshold and weight bounds by kVp: Gräni et al. 2018, doi:10.1093/ehjci/jey019 (secondary source)."""


def rules_for_tube_voltage(kvp: float | None, rules: ScoringRules) -> ScoringRules:
    """The same rules with threshold and weights adapted to the tube voltage. Opt-in, and named in the result.

    Raises CTError when the voltage is unknown or has no published bounds, or the rules' own threshold was changed.
    """
    standard = ScoringRules()
    if (rules.threshold_hu, rules.weight_bounds_hu) != (standard.threshold_hu, standard.weight_bounds_hu):
        raise CTError("The threshold was changed by hand. Either change it or adapt it to the tube voltage, not both.")
    bounds = TUBE_VOLTAGE_BOUNDS_HU.get(kvp) if kvp is not None else None
    if bounds is None:
        known = ", ".join(map(str, TUBE_VOLTAGE_BOUNDS_HU))
        voltage = "unknown" if kvp is None else f"{kvp:g} kVp"
        raise CTError(f"The tube voltage is {voltage}; adapted thresholds exist for {known} kVp only.")
    name = rules.name.replace(standard.name, f"Agatston adapted to {kvp:g} kVp, {bounds[0]:g} HU (Gräni 2018)")
    return replace(rules, name=name, threshold_hu=bounds[0], weight_bounds_hu=bounds[1:])


@dataclass(frozen=True)
class SliceComponent:
    """Touching voxels of one lesion in one axial slice.

    slice_index: k in the scan, counted from the feet. sum_hu: sum of the voxel values. weight: 1 to 4.
    """

    slice_index: int
    voxels: int
    area_mm2: float
    peak_hu: float
    sum_hu: float
    weight: int


@dataclass(frozen=True)
class Lesion:
    """Slice components of one artery, or of one site beside them, that touch in three dimensions (26 neighbours).

    id: 1, 2, … in the lesion map. centroid_ras_mm: mean position of its voxels, Slicer's RAS axes.
    """

    id: int
    artery: Site
    components: tuple[SliceComponent, ...]
    centroid_ras_mm: tuple[float, float, float]

    @property
    def voxels(self) -> int:
        return sum(c.voxels for c in self.components)

    @property
    def peak_hu(self) -> float:
        return max(c.peak_hu for c in self.components)

    @property
    def mean_hu(self) -> float:
        return sum(c.sum_hu for c in self.components) / self.voxels

    @property
    def slice_indices(self) -> tuple[int, ...]:
        return tuple(sorted({c.slice_index for c in self.components}))


@dataclass(frozen=True)
class LesionSet:
    """All lesions of a scan by one method.

    lesions: by artery, then from head to feet. id_map: uint16 [k, j, i], the lesion's id at its voxels, else 0.
    """

    lesions: tuple[Lesion, ...]
    id_map: np.ndarray

    @property
    def coronary(self) -> LesionSet:
        """The lesions of arteries, those not assigned included."""
        return self.of(lesion.id for lesion in self.lesions if isinstance(lesion.artery, Artery))

    @property
    def non_coronary(self) -> LesionSet:
        return self.of(lesion.id for lesion in self.lesions if isinstance(lesion.artery, NonCoronary))

    @cached_property
    def flat(self) -> np.ndarray:
        """Indices of all voxels of lesions in the scan's array, flat, rising."""
        return labelled_voxels(self.id_map).flat

    def of(self, ids: Iterable[int]) -> LesionSet:
        """The lesions with these ids."""
        ids = set(ids)
        if len(ids) == len(self.lesions):
            return self
        kept = tuple(lesion for lesion in self.lesions if lesion.id in ids)
        number = np.zeros(self._highest_id + 1, np.uint16)
        for lesion in kept:
            number[lesion.id] = lesion.id
        return LesionSet(kept, self._looked_up(number))

    def artery_map(self) -> np.ndarray:
        """uint8 [k, j, i]: the label of the `Site` at each lesion's voxels, else 0."""
        arteries = np.zeros(self._highest_id + 1, np.uint8)
        for lesion in self.lesions:
            arteries[lesion.id] = lesion.artery
        return self._looked_up(arteries)

    @property
    def _highest_id(self) -> int:
        # Not len(lesions): ids have gaps once lesions were taken out.
        return max((lesion.id for lesion in self.lesions), default=0)

    def _looked_up(self, table: np.ndarray) -> np.ndarray:
        """The table's value for each voxel's id; of 0 it is 0. Only the few voxels of lesions are looked up."""
        found = np.zeros(self.id_map.shape, table.dtype)
        found.reshape(-1)[self.flat] = table[self.id_map.reshape(-1)[self.flat]]
        return found

    def label_image(self, grid: sitk.Image) -> sitk.Image:
        """The artery map as an image. grid: the image the lesions were found in."""
        return Grid.of(grid).image(self.artery_map())


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
    hu = sitk.GetArrayViewFromImage(image)
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
    peak_hu = hu if peaks is None else sitk.GetArrayViewFromImage(peaks)
    if peak_hu.shape != hu.shape:
        raise MaskError(f"The image of the peaks has the shape {peak_hu.shape}, the lesions' image {hu.shape}.")
    voxels = _Voxels.at(labelled, hu, peak_hu)

    component = voxels.connected(_IN_SLICE[rules.connectivity])
    count = np.bincount(component)
    spacing = image.GetSpacing()
    pixel_area = spacing[0] * spacing[1]
    # Spacings come from files in single precision: an area meant to be 1 mm² may read 0.9999999.
    large = (count * pixel_area >= rules.minimum_area_mm2 * (1 - 1e-6)) & (count >= rules.minimum_pixels)
    voxels = voxels.where(large[component])
    component = np.unique(component[large[component]], return_inverse=True)[1]

    lesion = voxels.connected(_IN_SLICE[8] + _TO_NEXT_SLICE)
    return _lesion_set(image, voxels, component, lesion, pixel_area, rules)


def connected_voxels(flat: np.ndarray, labels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Number voxels by connected part (26 neighbours); voxels of different labels never connect.

    Args:
        flat: Indices into an array [k, j, i], rising.
        labels: Of each.
        shape: Of the array.

    Returns:
        The number of each voxel's part, intp [n].
    """
    nothing = np.zeros(len(flat))
    voxels = _Voxels(shape, flat, np.unravel_index(flat, shape), nothing, nothing, labels)
    return voxels.connected(_IN_SLICE[8] + _TO_NEXT_SLICE)


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


_IN_SLICE = {4: [(0, 0, 1), (0, 1, 0)], 8: [(0, 0, 1), (0, 1, -1), (0, 1, 0), (0, 1, 1)]}
_TO_NEXT_SLICE = [(1, dj, di) for dj in (-1, 0, 1) for di in (-1, 0, 1)]


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

    def connected(self, offsets: list[tuple[int, int, int]]) -> np.ndarray:
        """Number each voxel by its connected component; voxels of different arteries never connect."""
        count = len(self.flat)
        if count == 0:
            return np.zeros(0, np.intp)
        # Rows and slices are padded by one, so that the last voxel of a row is no neighbour of the next row's first.
        k, j, i = self.kji
        row = self.shape[2] + 2
        plane = row * (self.shape[1] + 2)
        place = (k * plane + (j + 1) * row + i + 1).astype(np.int64)
        pairs = []
        for dk, dj, di in offsets:
            wanted = place + (dk * plane + dj * row + di)
            other = np.minimum(np.searchsorted(place, wanted), count - 1)
            one = np.flatnonzero((place[other] == wanted) & (self.artery[other] == self.artery))
            pairs.append((one, other[one]))
        ones, others = (np.concatenate(side) for side in zip(*pairs, strict=True))
        graph = coo_array((np.ones(len(ones), bool), (ones, others)), shape=(count, count))
        return connected_components(graph, directed=False)[1]


_RUN = 4096


def labelled_voxels(labels: np.ndarray) -> Labelled:
    """Those of a label map, uint8 [k, j, i]. Most of a volume is empty, so empty runs of voxels are skipped whole."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    whole = flat.size - flat.size % _RUN
    runs = flat[:whole].reshape(-1, _RUN)
    filled = np.flatnonzero(runs.max(axis=1))
    at = np.flatnonzero(runs[filled] != 0)
    found = np.concatenate([filled[at // _RUN] * _RUN + at % _RUN, whole + np.flatnonzero(flat[whole:])])
    return Labelled(found, flat[found])
