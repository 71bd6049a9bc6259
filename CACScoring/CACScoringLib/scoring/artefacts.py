"""Telling what is dense but no calcium among lesions: metal (stents, leads, clips, wires, bands), and noise."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import ScanWarning
from .acquisition import BloodPool
from .lesions import LesionSet

METAL_HU = 2000.0
"""Calcium does not get this dense in a CT of the chest; stents, leads, clips and wires do."""

METAL_EDGE_HU = 500.0
"""What touches metal from this density on is taken for the same metal, blurred: blood, enhanced too, marrow and noise
are below it, so that metal does not reach calcium through them, as it would at the threshold of the score."""

METAL_REACH_MM = 50.0
"""How far beyond the lesions a device is followed: one of 7 cm, with only its rim at the heart, is still told."""

NOISE_REACH_SDS = 5.0
"""So far above the blood noise reaches by itself: one voxel in 3.5 million, as many as a heart has in a thin scan."""

NOISE_CANDIDATES = 20
"""More candidates of noise than this a reader would not reject one by one."""


def metal_lesions(found: LesionSet, scan: sitk.Image) -> frozenset[int]:
    """Ids of the lesions that are metal: those that reach METAL_HU, and those that hold or touch (26 neighbours) a
    piece of METAL_EDGE_HU and more which reaches METAL_HU anywhere, also outside the heart.

    Args:
        found: Lesions of the scan, in HU of the CT.
        scan: The CT they were found in.
    """
    dense = {lesion.id for lesion in found.lesions if lesion.peak_hu >= METAL_HU}
    box = _box(found, scan)
    if box is None:
        return frozenset(dense)
    hu, ids = sitk.GetArrayViewFromImage(scan)[box], found.id_map[box]
    if hu.max() < METAL_HU:
        return frozenset(dense)
    around = np.ones((3, 3, 3), bool)
    pieces, count = ndimage.label(hu >= METAL_EDGE_HU, around)
    is_metal = np.zeros(count + 1, bool)
    is_metal[pieces[hu >= METAL_HU]] = True
    touched = np.unique(ids[ndimage.binary_dilation(is_metal[pieces], around)])
    return frozenset({*dense, *touched[touched > 0].tolist()})


def metal_warning(found: LesionSet, scan: sitk.Image) -> list[ScanWarning]:
    """The doubt about a reader's lesions that are metal, if there are any."""
    return _warning(found, metal_lesions(found, scan), "They are scored as labelled. Check that they are calcium.")


def without_metal(found: LesionSet, scan: sitk.Image) -> tuple[LesionSet, list[ScanWarning]]:
    """Leave out candidates that are metal.

    Returns:
        The other candidates, and a warning that names those left out.
    """
    metal = metal_lesions(found, scan)
    if not metal:
        return found, []
    kept = tuple(lesion for lesion in found.lesions if lesion.id not in metal)
    id_map = np.where(np.isin(found.id_map, list(metal)), np.uint16(0), found.id_map)
    return LesionSet(kept, id_map), _warning(found, metal, "They are left out of the candidates.")


def noise_warning(found: LesionSet, blood: BloodPool | None) -> list[ScanWarning]:
    """The severe doubt about candidates that noise alone explains, if these are many and most.

    A candidate is explained where its peak is no more than NOISE_REACH_SDS above the blood; the doubt is raised where
    more than NOISE_CANDIDATES and more than half of all are. Of 130 HU and blood of 40 HU this can only be from 18 HU
    of noise on. Nothing is said of enhanced blood, which is a candidate itself, or where blood was not measured.
    """
    if blood is None or blood.enhanced:
        return []
    reach = blood.median_hu + NOISE_REACH_SDS * blood.noise_hu
    count, total = sum(lesion.peak_hu <= reach for lesion in found.lesions), len(found.lesions)
    if count <= max(NOISE_CANDIDATES, total / 2):
        return []
    message = (
        f"{count} of {total} candidates are no denser than noise alone can be (up to {reach:.0f} HU in blood of "
        f"{blood.median_hu:.0f} HU with noise of {blood.noise_hu:.0f} HU), so the candidates and their total are no "
        "evidence of calcium. Reconstruct the scan with a softer kernel or thicker slices."
    )
    return [ScanWarning("noise-candidates", message)]


def _warning(found: LesionSet, metal: frozenset[int], consequence: str) -> list[ScanWarning]:
    first = [str(lesion.slice_indices[0]) for lesion in found.lesions if lesion.id in metal]
    if not first:
        return []
    slices = ", ".join(first[:5]) + (" …" if len(first) > 5 else "")
    message = (
        f"{len(first)} lesion(s) reach {METAL_HU:g} HU or more, as metal does, or touch voxels that do (slices "
        f"{slices}). {consequence}"
    )
    return [ScanWarning("metal", message)]


def _box(found: LesionSet, scan: sitk.Image) -> tuple[slice, slice, slice] | None:
    """The lesions' bounding box, METAL_REACH_MM wider, as slices along k, j, i; None without lesions."""
    slices = sorted({k for lesion in found.lesions for k in lesion.slice_indices})
    if not slices:
        return None
    in_slices = found.id_map[slices] > 0
    rows, columns = (np.flatnonzero(in_slices.any((0, axis))) for axis in (2, 1))
    reach = [int(METAL_REACH_MM / mm) for mm in scan.GetSpacing()[::-1]]
    k, j, i = (
        slice(max(int(at[0]) - n, 0), int(at[-1]) + n + 1)
        for at, n in zip((np.array(slices), rows, columns), reach, strict=True)
    )
    return k, j, i
