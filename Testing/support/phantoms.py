"""Objects of known size and density on grids of any spacing and direction, for tests.

A phantom is an image in HU with an artery label map on the same grid: soft tissue at 40 HU framed by air, with
one dense voxel ("bone") in a corner, as every chest has. Coordinates are LPS millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from images import AXIAL
from scipy.spatial.transform import Rotation

from CACScoringLib.core.grid import Grid

TISSUE_HU = 40
BONE_HU = 1400


@dataclass
class Phantom:
    """Image in HU and uint8 artery labels on its grid, which are 0 until objects are painted."""

    image: sitk.Image
    arteries: sitk.Image

    @property
    def labels(self) -> np.ndarray:
        """uint8 [k, j, i]."""
        return sitk.GetArrayFromImage(self.arteries)


def tissue(
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    direction: tuple[float, ...] = AXIAL,
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    pixel_type: int = sitk.sitkInt16,
) -> Phantom:
    """Make soft tissue without calcium; size and spacing_mm are (i, j, k)."""
    hu = np.full(size[::-1], TISSUE_HU, np.float64)
    hu[:, 0], hu[:, -1], hu[:, :, 0], hu[:, :, -1] = (-1000,) * 4
    hu[0, 0, 0] = BONE_HU
    grid = Grid(size, spacing_mm, origin_mm, direction)
    return Phantom(sitk.Cast(grid.image(hu), pixel_type), grid.image(np.zeros(hu.shape, np.uint8)))


def paint(phantom: Phantom, inside: np.ndarray, hu: float, artery: int) -> None:
    """Fill the voxels where inside [k, j, i] is true."""
    phantom.image = _filled(phantom.image, inside, hu)
    phantom.arteries = _filled(phantom.arteries, inside, artery)


def paint_voxels(phantom: Phantom, voxels: list[tuple[int, int, int]], hu: float, artery: int) -> None:
    """Fill single voxels, given as (k, j, i)."""
    inside = np.zeros(phantom.labels.shape, bool)
    inside[tuple(np.transpose(voxels))] = True
    paint(phantom, inside, hu, artery)


def paint_cylinder(
    phantom: Phantom, foot_mm: tuple[float, float, float], radius_mm: float, height_mm: float, hu: float, artery: int
):
    """Fill the voxels whose centre lies inside an upright cylinder standing on its foot's centre (top excluded)."""
    x, y, z = _offsets(phantom.image, foot_mm)
    paint(phantom, (x**2 + y**2 <= radius_mm**2) & (z >= 0) & (z < height_mm), hu, artery)


def tilted_direction(degrees_about_x: float, degrees_about_z: float = 0.0) -> tuple[float, ...]:
    """Direction cosines of axial slices tilted about the left-right axis, then turned about the head-foot axis."""
    turn = Rotation.from_euler("xz", (degrees_about_x, degrees_about_z), degrees=True)
    return tuple(turn.as_matrix().reshape(-1).tolist())


def _offsets(image: sitk.Image, centre_mm: tuple[float, float, float]) -> np.ndarray:
    """Position of every voxel relative to a point: [x y z, k, j, i], mm."""
    k, j, i = np.indices(image.GetSize()[::-1])
    steps = np.stack([n * s for n, s in zip((i, j, k), image.GetSpacing(), strict=True)])
    places = np.tensordot(np.reshape(image.GetDirection(), (3, 3)), steps, axes=1)
    return places + np.subtract(image.GetOrigin(), centre_mm).reshape(3, 1, 1, 1)


def _filled(image: sitk.Image, inside: np.ndarray, value: float) -> sitk.Image:
    values = sitk.GetArrayFromImage(image)
    values[inside] = value
    return Grid.of(image).image(values)
