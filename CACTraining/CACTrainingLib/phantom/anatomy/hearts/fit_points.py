"""Heart of a scan at points on the working grid: distance to the mask's edge, trust in that edge, share of muscle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.core.errors import NoHeartError
from CACScoringLib.core.grid import GRID_MM, Grid, bounding_box
from CACScoringLib.core.scan_grid import on_working_grid
from CACScoringLib.core.slice_checks import LUNG_EDGE_HU
from CACScoringLib.core.voxels import voxels_of

MIN_FITTED_ML = 60.0
"""Smallest mask in ml to which a heart can be fitted."""
EDGE_HU = -200.0
"""Lower limit of fat in HU: less dense voxels within a heart are lung at its edge."""
BAND_MM = 12.0
"""Limit in mm to which distances from edges are clipped."""
_MARGIN_MM = 30.0


@dataclass
class FitPoints:
    """Points in and around a heart mask.

    Attributes:
        lps_mm: Places [n, 3] in LPS.
        distance_mm: Distance to the mask's edge, negative inside [n].
        trust: Confidence that the mask's nearest edge is the heart's, 0 to 1 [n].
        muscle: Share of muscle and blood, against fat and lung [n].
        is_tissue: False in bone and contrast [n].
    """

    lps_mm: np.ndarray
    distance_mm: np.ndarray
    trust: np.ndarray
    muscle: np.ndarray
    is_tissue: np.ndarray

    def subsample(self, n: int) -> FitPoints:
        """Return a random subset of every n-th point."""
        pick = np.random.default_rng(0).permutation(len(self.lps_mm))[:: max(n, 1)]
        return FitPoints(*(getattr(self, name)[pick] for name in self.__dataclass_fields__))


def fit_points(image: sitk.Image, mask: sitk.Image) -> tuple[FitPoints, np.ndarray]:
    """Return points in and around the mask, and the mask's middle in LPS."""
    coarse = on_working_grid(image)
    heart = Grid.of(coarse).mask(voxels_of(mask), Grid.of(mask))
    volume = heart.sum() * GRID_MM**3 / 1000
    if volume < MIN_FITTED_ML:
        raise NoHeartError(f"The heart mask holds {volume:.0f} ml; {MIN_FITTED_ML:.0f} ml are needed for arteries.")
    margin = int(_MARGIN_MM / GRID_MM)
    box = tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n in zip(bounding_box(heart), heart.shape, strict=True)
    )
    heart, hu = heart[box], voxels_of(coarse)[box].astype(np.float32)
    hu = ndimage.gaussian_filter(hu, 0.6)
    # The border of the field of view is no edge of the heart.
    inside = ndimage.distance_transform_edt(heart) if not heart.all() else np.full(heart.shape, 99.0)
    distance = GRID_MM * np.where(heart, 0.5 - inside, ndimage.distance_transform_edt(~heart) - 0.5)
    lung = hu < LUNG_EDGE_HU
    to_lung = GRID_MM * ndimage.distance_transform_edt(~lung) if lung.any() else np.full(heart.shape, 99.0)
    fat = (hu > EDGE_HU) & (hu < -30)
    to_fat = GRID_MM * ndimage.distance_transform_edt(~fat) if fat.any() else np.full(heart.shape, 99.0)
    evidence = [np.exp(-0.5 * (np.maximum(reach - np.abs(distance), 0) / 6.0) ** 2) for reach in (to_lung, to_fat)]
    trust = 0.06 + 0.94 * np.maximum(evidence[0], 0.35 * evidence[1])
    in_band = (np.abs(distance) < BAND_MM + 6) | heart
    muscle = np.clip((hu + 90.0) / 130.0, 0, 1)
    columns = [np.ascontiguousarray(values[in_band]) for values in (distance, trust, muscle, hu < 180)]
    places = _voxel_places(coarse, box)[in_band]
    is_inside = distance[in_band] < 0
    return FitPoints(places, *columns), places[is_inside].mean(axis=0)


def _voxel_places(image: sitk.Image, box: tuple[slice, ...]) -> np.ndarray:
    """Return places in LPS of the voxels in a box [k, j, i], float64 [k, j, i, 3]."""
    turn = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    index = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), -1)[..., ::-1]
    return index @ turn.T + np.array(image.GetOrigin())
