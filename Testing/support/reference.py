"""Slow, plain scoring as a reference: voxels are visited one by one and collected by flood fill.

Nothing here is shared with the library but its settings.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from CACScoringLib.scoring.lesions import ScoringRules

Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class ReferenceLesion:
    """One lesion: artery label, its voxels (k, j, i), Agatston, volume in mm³ and pseudo-mass in HU·mm³."""

    artery: int
    voxels: frozenset[Voxel]
    agatston: float
    volume_mm3: float
    pseudo_mass_hu_mm3: float


def score_by_flood_fill(image: sitk.Image, arteries: np.ndarray, rules: ScoringRules) -> list[ReferenceLesion]:
    """Every lesion of an image, in no particular order.

    image: HU on axial slices. arteries: [k, j, i] artery labels, 0 where none can lie.
    """
    hu = sitk.GetArrayFromImage(image).astype(float)
    spacing_i, spacing_j, spacing_k = image.GetSpacing()
    in_slice = [(0, dj, di) for dj in (-1, 0, 1) for di in (-1, 0, 1) if (dj, di) != (0, 0)]
    if rules.connectivity == 4:
        in_slice = [(0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
    anywhere = [(dk, dj, di) for dk in (-1, 0, 1) for dj in (-1, 0, 1) for di in (-1, 0, 1)]

    lesions = []
    for artery in np.unique(arteries[arteries > 0]):
        dense = {tuple(map(int, at)) for at in np.argwhere((arteries == artery) & (hu >= rules.threshold_hu))}
        component_at: dict[Voxel, frozenset[Voxel]] = {}
        for component in _flood(dense, in_slice):
            area_mm2 = len(component) * spacing_i * spacing_j
            if area_mm2 >= rules.minimum_area_mm2 - 1e-6 and len(component) >= rules.minimum_pixels:
                component_at.update(dict.fromkeys(component, component))
        for voxels in _flood(set(component_at), anywhere):
            agatston = 0.0
            for component in {component_at[at] for at in voxels}:
                weight = _weight(max(hu[at] for at in component), rules)
                agatston += len(component) * spacing_i * spacing_j * weight * spacing_k / rules.reference_spacing_mm
            voxel_mm3 = spacing_i * spacing_j * spacing_k
            total_hu = sum(hu[at] for at in voxels)
            volume_mm3 = len(voxels) * voxel_mm3
            lesions.append(ReferenceLesion(int(artery), voxels, agatston, volume_mm3, float(total_hu * voxel_mm3)))
    return lesions


def _flood(places: set[Voxel], steps: list[Voxel]) -> list[frozenset[Voxel]]:
    waiting = set(places)
    groups = []
    while waiting:
        group, front = set(), [waiting.pop()]
        while front:
            k, j, i = front.pop()
            group.add((k, j, i))
            for dk, dj, di in steps:
                neighbour = (k + dk, j + dj, i + di)
                if neighbour in waiting:
                    waiting.remove(neighbour)
                    front.append(neighbour)
        groups.append(frozenset(group))
    return groups


def _weight(peak_hu: float, rules: ScoringRules) -> int:
    second, third, fourth = rules.weight_bounds_hu
    if peak_hu < second:
        return 1
    if peak_hu < third:
        return 2
    return 3 if peak_hu < fourth else 4
