"""Connected lesions, and the artery each belongs to.

The unit of clinical scoring is the *slice component*: voxels at or above the threshold that touch each other
within one axial slice and belong to one artery. A *lesion* is the set of slice components of one artery that
touch each other in three dimensions. Candidate voxels are few, so both are found as connected components of a
graph whose nodes are the candidate voxels; the volume itself is passed over only once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTScan
from ..core.errors import CTError, MaskError
from ..core.labels import SITES, Labelled, site_of
from ..core.voxels import voxels_of
from ..record.rules import ScoringRules, rules_for_tube_voltage
from ..record.scores import LesionSet, LesionVoxels, MethodScore, SliceComponent
from .parts import connected_voxels, slice_components
from .scores import equivalent_agatston, method_score


def score_labels(
    ct: CTScan | sitk.Image,
    sites: np.ndarray | Labelled,
    rules: ScoringRules | None = None,
    values: np.ndarray | None = None,
) -> MethodScore:
    """Score what labels outline in the arteries; arguments and errors as of `find_lesions`.

    rules: None for those of Agatston et al., adapted to the tube voltage of a `CTScan`; an image is taken for 120 kVp.
    """
    if rules is None:
        rules = rules_for_tube_voltage(ct.acquisition) if isinstance(ct, CTScan) else ScoringRules()
    lesions = find_lesions(ct, sites, rules, values).coronary
    return method_score("reviewed", rules, lesions, no_calcium=not lesions.lesions)


def find_lesions(
    ct: CTScan | sitk.Image, arteries: np.ndarray | Labelled, rules: ScoringRules, values: np.ndarray | None = None
) -> LesionSet:
    """Find the lesions in a scan.

    The highest HU of the scan gives a component its weight, for a calcium map too.

    Args:
        ct: The CT, or its image in HU, on axial slices.
        arteries: uint8 [k, j, i] on the same grid; the `Site` each voxel would belong to, 0 where none can lie. Or the
            labelled voxels alone, which takes less time where they are few.
        rules: The scoring rules.
        values: Calcium map, HU [k, j, i], that threshold, mean and sum are read from; None for the CT.

    Raises:
        MaskError: If `arteries` is no such array.
        CTError: If there are more lesions than the id map can number.
    """
    # A scan's own array: while it is held, a further array of the same image copies all voxels.
    image, peak_hu = (ct.image, ct.hu) if isinstance(ct, CTScan) else (ct, voxels_of(ct))
    hu = peak_hu if values is None else values
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
    if peak_hu.shape != hu.shape:
        raise MaskError(f"The calcium map has the shape {hu.shape}, the scan {peak_hu.shape}.")
    voxels = arteries.where(hu.reshape(-1)[arteries.flat] >= rules.threshold_hu)
    spacing = image.GetSpacing()
    component, is_large = slice_components(voxels.flat, voxels.values, hu.shape, spacing, rules)
    voxels = voxels.where(is_large)
    component = np.unique(component[is_large], return_inverse=True)[1]
    lesion = connected_voxels(voxels.flat, voxels.values, hu.shape)

    # By site, then from head to feet, so that IDs do not depend on the order in which voxels were met.
    sizes, kji = np.bincount(lesion), np.unravel_index(voxels.flat, hu.shape)
    centre_kji = [np.bincount(lesion, weights=axis) / sizes for axis in kji]
    labels = voxels.values[np.unique(lesion, return_index=True)[1]]
    order = np.lexsort((-centre_kji[0], labels))
    if len(order) > np.iinfo(np.uint16).max:
        raise CTError(f"{len(order)} separate lesions: this is noise, not calcium. Check the scan and the heart mask.")
    lesion_hu, peaks = (array.reshape(-1)[voxels.flat].astype(np.float64) for array in (hu, peak_hu))
    components = _components(component, kji[0], peaks, spacing[0] * spacing[1], spacing[2], rules)
    lesion_of_component = lesion[np.unique(component, return_index=True)[1]]
    parts: list[list[SliceComponent]] = [[] for _ in order]
    for part, number in zip(components, lesion_of_component, strict=True):
        parts[number].append(part)
    sums_hu = np.bincount(lesion_of_component, np.bincount(component, lesion_hu), minlength=len(order))
    points = [image.TransformContinuousIndexToPhysicalPoint(point) for point in np.stack(centre_kji[::-1], 1).tolist()]
    number_of = np.empty(len(order), np.uint16)
    number_of[order] = np.arange(1, len(order) + 1)
    columns = {
        "id": range(1, len(order) + 1),
        "site": [site_of(int(label)) for label in labels[order]],
        "voxels": sizes[order].tolist(),
        "mean_hu": (sums_hu / sizes)[order].tolist(),
        "centroid_ras_mm": [(-x, -y, z) for x, y, z in (points[n] for n in order)],
        "components": [tuple(parts[n]) for n in order],
        **_scores([parts[n] for n in order], sums_hu[order].tolist(), math.prod(spacing), rules),
    }
    return LesionSet(columns, LesionVoxels(hu.shape, voxels.flat, number_of[lesion]))


def _components(
    component: np.ndarray,
    slices: np.ndarray,
    peak_values: np.ndarray,
    pixel_area_mm2: float,
    slice_spacing_mm: float,
    rules: ScoringRules,
) -> list[SliceComponent]:
    """Return the slice components. component, slices, peak_values: Of each voxel, [n]."""
    first, count = np.unique(component, return_index=True)[1], np.bincount(component)
    peaks = np.full(len(first), -np.inf)
    np.maximum.at(peaks, component, peak_values)
    weights = [rules.weight(peak) for peak in peaks.tolist()]
    return [
        SliceComponent(
            slice=k,
            voxels=voxels,
            area_mm2=voxels * pixel_area_mm2,
            peak_hu=peak,
            weight=weight,
            agatston=voxels * pixel_area_mm2 * weight * slice_spacing_mm / rules.reference_spacing_mm,
        )
        for k, voxels, peak, weight in zip(slices[first].tolist(), count.tolist(), peaks.tolist(), weights, strict=True)
    ]


def _scores(
    parts: Sequence[Sequence[SliceComponent]], sums_hu: Sequence[float], voxel_mm3: float, rules: ScoringRules
) -> dict[str, list[Any]]:
    """Return the scores of lesions, the fields of `Score` but those of mass.

    The Agatston score is Σ area × weight × slice spacing / 3 mm over components (Agatston 1990,
    doi:10.1016/0735-1097(90)90282-T); the slice *spacing* enters, not the slice thickness, so that overlapping slices
    do not count twice.

    Args:
        parts: Slice components of each lesion.
        sums_hu: Sum of its voxels.
        voxel_mm3: Volume of a voxel.
        rules: Scoring rules.
    """
    agatston = clinical = [math.fsum(c.agatston for c in components) for components in parts]
    if rules.equivalent_mg_per_mm3_hu is not None:
        factor = rules.equivalent_mg_per_mm3_hu * voxel_mm3
        clinical = [float(equivalent_agatston(factor * sum_hu)) for sum_hu in sums_hu]
    return {
        "agatston": agatston,
        "clinical_agatston": clinical,
        "volume_mm3": [sum(c.voxels for c in components) * voxel_mm3 for components in parts],
        "pseudo_mass_hu_mm3": [sum_hu * voxel_mm3 for sum_hu in sums_hu],
        "lesions": [1] * len(parts),
        "peak_hu": [max(c.peak_hu for c in components) for components in parts],
    }


def labelled_voxels(labels: np.ndarray) -> Labelled:
    """Return the labelled voxels of a label map, uint8 [k, j, i]."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    indices = np.flatnonzero(flat != 0)
    return Labelled(indices, flat[indices])
