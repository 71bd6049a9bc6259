"""Connected lesions, and the artery each belongs to.

The unit of clinical scoring is the *slice component*: voxels at or above the threshold that touch each other
within one axial slice and belong to one artery. A *lesion* is the set of slice components of one artery that
touch each other in three dimensions. Candidate voxels are few, so both are found as connected components of a
graph whose nodes are the candidate voxels; the volume itself is passed over only once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..core.errors import CTError, MaskError
from ..core.labels import SITES, Labelled, site_of
from ..core.voxels import voxels_of
from ..record.rules import ScoringRules
from ..record.scores import Lesion, LesionSet, LesionVoxels, SliceComponent
from .connection import IN_SLICE, connected_voxels
from .scores import lesion_score


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

    component = connected_voxels(voxels.flat, voxels.artery, voxels.shape, IN_SLICE, int(rules.connectivity == 8))
    count = np.bincount(component)
    spacing = image.GetSpacing()
    pixel_area = spacing[0] * spacing[1]
    # Spacings come from files in single precision: an area meant to be 1 mm² may read 0.9999999.
    large = (count * pixel_area >= rules.minimum_area_mm2 * (1 - 1e-6)) & (count >= rules.minimum_pixels)
    voxels = voxels.where(large[component])
    component = np.unique(component[large[component]], return_inverse=True)[1]

    lesion = connected_voxels(voxels.flat, voxels.artery, voxels.shape)
    return _lesion_set(image, voxels, component, lesion, pixel_area, rules)


def _lesion_set(
    image: sitk.Image,
    voxels: _Voxels,
    component: np.ndarray,
    lesion: np.ndarray,
    pixel_area_mm2: float,
    rules: ScoringRules,
) -> LesionSet:
    if not voxels.flat.size:
        return LesionSet((), LesionVoxels(voxels.shape, voxels.flat, np.zeros(0, np.uint16)))
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
    if len(order) > np.iinfo(np.uint16).max:
        raise CTError(f"{len(order)} separate lesions: this is noise, not calcium. Check the scan and the heart mask.")

    spacing_mm = image.GetSpacing()
    parts: list[list[SliceComponent]] = [[] for _ in order]
    sums_hu = np.zeros(len(order))
    for c, at in enumerate(first):
        area_mm2, peak_hu = float(count[c] * pixel_area_mm2), float(peak[c])
        weight = rules.weight(peak_hu)
        part = SliceComponent(
            slice=int(voxels.kji[0][at]),
            voxels=int(count[c]),
            area_mm2=area_mm2,
            peak_hu=peak_hu,
            weight=weight,
            agatston=area_mm2 * weight * spacing_mm[2] / rules.reference_spacing_mm,
        )
        parts[lesion[at]].append(part)
        sums_hu[lesion[at]] += total[c]

    lesions = []
    for number, old in enumerate(order, start=1):
        k, j, i = (float(axis[old]) for axis in centre_kji)
        x, y, z = image.TransformContinuousIndexToPhysicalPoint((i, j, k))
        site = site_of(int(voxels.artery[lesion_first[old]]))
        entry = Lesion(
            id=number,
            site=site,
            voxels=int(sizes[old]),
            mean_hu=float(sums_hu[old] / sizes[old]),
            centroid_ras_mm=(-x, -y, z),
            components=tuple(parts[old]),
            **lesion_score(parts[old], float(sums_hu[old]), math.prod(spacing_mm), rules),
        )
        lesions.append(entry)
    number_of = np.empty(len(order), np.uint16)
    number_of[order] = np.arange(1, len(order) + 1)
    return LesionSet(tuple(lesions), LesionVoxels(voxels.shape, voxels.flat, number_of[lesion]))


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
