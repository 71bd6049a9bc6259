"""A scan's heart at points on the working grid: distance to the mask's edge, trust in that edge, share of muscle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.anatomy.chest import GRID_MM, TISSUE_HU, on_working_grid
from CACScoringLib.core.ct import NoHeartError
from CACScoringLib.core.grid import Grid, bounding_box

LEAST_HEART_ML = 60.0
"""A smaller mask shows too little of a heart to fit one to it."""
EDGE_HU = -200.0
"""What is less dense within a heart is lung at its edge, not fat."""
BAND_MM = 12.0
"""Farther from edges, distances are not distinguished."""
_MARGIN_MM = 30.0


@dataclass
class FitPoints:
    """Places [n, 3] in LPS. distance_mm: to the mask's edge, negative inside. trust: how sure that edge is one of the
    heart. muscle: share of muscle and blood, the rest fat or lung. is_tissue: False in bone and contrast."""

    lps_mm: np.ndarray
    distance_mm: np.ndarray
    trust: np.ndarray
    muscle: np.ndarray
    is_tissue: np.ndarray

    def every(self, n: int) -> FitPoints:
        """Every n-th of the points, drawn at random."""
        pick = np.random.default_rng(0).permutation(len(self.lps_mm))[:: max(n, 1)]
        return FitPoints(*(getattr(self, name)[pick] for name in self.__dataclass_fields__))


def fit_points(image: sitk.Image, mask: sitk.Image) -> tuple[FitPoints, np.ndarray]:
    """Points in and around the mask, and the mask's middle in LPS."""
    coarse = on_working_grid(image)
    heart = Grid.of(coarse).mask(mask)
    volume = heart.sum() * GRID_MM**3 / 1000
    if volume < LEAST_HEART_ML:
        raise NoHeartError(f"The heart mask holds {volume:.0f} ml; {LEAST_HEART_ML:.0f} ml are needed for arteries.")
    margin = int(_MARGIN_MM / GRID_MM)
    box = tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n in zip(bounding_box(heart), heart.shape, strict=True)
    )
    heart, hu = heart[box], sitk.GetArrayViewFromImage(coarse)[box].astype(np.float32)
    hu = ndimage.gaussian_filter(hu, 0.6)
    # Beyond the field of view nothing is known, so its border is no edge of the heart.
    inside = ndimage.distance_transform_edt(heart) if not heart.all() else np.full(heart.shape, 99.0)
    distance = GRID_MM * np.where(heart, 0.5 - inside, ndimage.distance_transform_edt(~heart) - 0.5)
    lung = hu < TISSUE_HU
    to_lung = GRID_MM * ndimage.distance_transform_edt(~lung) if lung.any() else np.full(heart.shape, 99.0)
    fat = (hu > EDGE_HU) & (hu < -30)
    to_fat = GRID_MM * ndimage.distance_transform_edt(~fat) if fat.any() else np.full(heart.shape, 99.0)
    shown = [np.exp(-0.5 * (np.maximum(to - np.abs(distance), 0) / 6.0) ** 2) for to in (to_lung, to_fat)]
    trust = 0.06 + 0.94 * np.maximum(shown[0], 0.35 * shown[1])
    near = (np.abs(distance) < BAND_MM + 6) | heart
    muscle = np.clip((hu + 90.0) / 130.0, 0, 1)
    chosen = [np.ascontiguousarray(values[near]) for values in (distance, trust, muscle, hu < 180)]
    places = _places_of(coarse, box)[near]
    deep = distance[near] < 0
    return FitPoints(places, *chosen), places[deep].mean(axis=0)


def _places_of(image: sitk.Image, box: tuple[slice, ...]) -> np.ndarray:
    """LPS of the voxels in a box [k, j, i], float64 [k, j, i, 3]."""
    turn = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    index = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), -1)[..., ::-1]
    return index @ turn.T + np.array(image.GetOrigin())
