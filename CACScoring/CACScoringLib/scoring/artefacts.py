"""Telling what is dense but no calcium among lesions: metal and other foreign bodies, and noise."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk

from ..core.ct import ScanWarning
from .acquisition import BloodPool
from .lesions import LesionSet
from .metal import MetalKind, metal_voxels

BLOOD_MM3 = 50000.0
"""A lesion larger than this is enhanced blood, also where a catheter runs through it: it is not called metal."""

NOISE_REACH_SDS = 5.0
"""So far above the blood noise reaches by itself: one voxel in 3.5 million, as many as a heart has in a thin scan."""

NOISE_CANDIDATES = 20
"""More candidates of noise than this a reader would not reject one by one."""


def metal_lesions(found: LesionSet, scan: sitk.Image) -> dict[int, MetalKind]:
    """The lesions, by id, that hold or touch (26 neighbours) metal or another foreign body, and of which kind it is
    (`metal.metal_voxels`).

    Args:
        found: Lesions of the scan, of the CT itself or of its calcium map.
        scan: The CT.
    """
    metal = metal_voxels(found.id_map, scan)
    where = np.flatnonzero(metal)
    counts = np.zeros((int(found.id_map.max(initial=0)) + 1, max(MetalKind) + 1), int)
    np.add.at(counts, (found.id_map.reshape(-1)[where], metal.reshape(-1)[where]), 1)
    most = BLOOD_MM3 / math.prod(scan.GetSpacing())
    touched = [own.id for own in found.lesions if counts[own.id].any() and own.voxels <= most]
    return {number: MetalKind(int(counts[number].argmax())) for number in touched}


def metal_warning(found: LesionSet, metal: dict[int, MetalKind]) -> list[ScanWarning]:
    """Warn of a reader's lesions that are metal, if there are any. metal: of `metal_lesions`."""
    if not metal:
        return []
    message = f"{_metal_text(found, metal)} A reader labelled them, and they are scored."
    return [ScanWarning("metal-labelled", message)]


def without_metal(found: LesionSet, scan: sitk.Image) -> tuple[LesionSet, list[ScanWarning]]:
    """Leave out candidates, of the CT or of its calcium map, that are metal.

    Returns:
        The other candidates, and a warning that names those left out.
    """
    metal = metal_lesions(found, scan)
    if not metal:
        return found, []
    kept = found.of(lesion.id for lesion in found.lesions if lesion.id not in metal)
    consequence = "They are left out of the candidates, with any calcium that touches them: label that by hand."
    return kept, [ScanWarning("metal", f"{_metal_text(found, metal)} {consequence}")]


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


def _metal_text(found: LesionSet, metal: dict[int, MetalKind]) -> str:
    parts = []
    for kind in sorted(set(metal.values()), reverse=True):
        slices = [str(lesion.slice_indices[0]) for lesion in found.lesions if metal.get(lesion.id) == kind]
        parts.append(f"{kind.title} (slices {', '.join(slices[:5])}{' …' if len(slices) > 5 else ''})")
    kinds = "; ".join(parts)
    return f"{len(metal)} lesion(s) are metal or another foreign body, or touch one: {kinds}."
