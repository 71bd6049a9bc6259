"""Meshes as voxels, and the blood of chambers whose walls are meshes.

Arrays are [i, j, k] along x, y, z on a grid of cubes; only measuring uses them, so speed matters little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from .meshes import Mesh


@dataclass(frozen=True)
class Cubes:
    """A grid of cubic voxels: centre of the first in LPS mm, shape, edge in mm."""

    origin_mm: np.ndarray
    shape: tuple[int, int, int]
    step_mm: float

    def points_mm(self) -> np.ndarray:
        """Voxel centres [i, j, k, 3]."""
        return np.stack(
            np.meshgrid(
                *(o + self.step_mm * np.arange(n) for o, n in zip(self.origin_mm, self.shape, strict=True)),
                indexing="ij",
            ),
            -1,
        )

    def index(self, lps_mm: np.ndarray) -> np.ndarray:
        """Index of each point [..., 3], as floats."""
        return (lps_mm - self.origin_mm) / self.step_mm


def cubes_around(meshes: list[Mesh], margin_mm: float, step_mm: float) -> Cubes:
    low = np.min([m.vertices_mm.min(axis=0) for m in meshes], axis=0) - margin_mm
    high = np.max([m.vertices_mm.max(axis=0) for m in meshes], axis=0) + margin_mm
    return Cubes(low, tuple(int(n) for n in np.ceil((high - low) / step_mm)), step_mm)


def enclosed(mesh: Mesh, cubes: Cubes) -> np.ndarray:
    """What a mesh encloses, bool: its winding number along two of three axes, which forgives holes and inner walls."""
    votes = np.zeros(cubes.shape, np.int8)
    corners = cubes.index(mesh.corners_mm)
    for axis in range(3):
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]
        winding = _winding(corners[..., order], tuple(cubes.shape[n] for n in order))
        votes += np.transpose(np.abs(winding) > 0.5, np.argsort(order))
    return votes >= 2


def _winding(corners: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Signed crossings of rays along the last axis, summed from its start."""
    # A shift of the rays that no vertex shares.
    a, b, c = (corners[:, n] + np.array([0.00137, 0.00291, 0.0]) for n in range(3))
    low = np.floor(np.minimum(np.minimum(a, b), c)[:, :2]).astype(int)
    span = np.ceil(np.maximum(np.maximum(a, b), c)[:, :2]).astype(int) - low + 1
    twice = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    crossings = np.zeros(shape, np.int32)
    for di in range(int(span[:, 0].max())):
        for dj in range(int(span[:, 1].max())):
            here = np.flatnonzero((span[:, 0] > di) & (span[:, 1] > dj) & (np.abs(twice) > 1e-12))
            x, y = low[here, 0] + di, low[here, 1] + dj
            p, q, r = a[here], b[here], c[here]
            s = ((x - p[:, 0]) * (r[:, 1] - p[:, 1]) - (y - p[:, 1]) * (r[:, 0] - p[:, 0])) / twice[here]
            t = ((q[:, 0] - p[:, 0]) * (y - p[:, 1]) - (q[:, 1] - p[:, 1]) * (x - p[:, 0])) / twice[here]
            z = np.ceil(p[:, 2] + s * (q[:, 2] - p[:, 2]) + t * (r[:, 2] - p[:, 2])).astype(int)
            hit = (s >= 0) & (t >= 0) & (s + t <= 1)
            hit &= (x >= 0) & (x < shape[0]) & (y >= 0) & (y < shape[1]) & (z < shape[2])
            np.add.at(crossings, (x[hit], y[hit], np.maximum(z[hit], 0)), np.sign(twice[here][hit]).astype(np.int32))
    return np.cumsum(crossings, axis=2)


def surface(mesh: Mesh, cubes: Cubes) -> np.ndarray:
    """Voxels that a mesh's surface touches, bool."""
    corners = cubes.index(mesh.corners_mm)
    edge = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    pieces = np.maximum(1, np.ceil(edge / 0.5)).astype(int)
    touched = np.zeros(cubes.shape, bool)
    for n in np.unique(pieces):
        i, j = (share / n for share in np.nonzero(np.add.outer(np.arange(n + 1), np.arange(n + 1)) <= n))
        a, b, c = (corners[pieces == n, m, None] for m in range(3))
        places = np.rint(a + i[:, None] * (b - a) + j[:, None] * (c - a)).astype(int).reshape(-1, 3)
        places = places[((places >= 0) & (places < cubes.shape)).all(axis=1)]
        touched[tuple(places.T)] = True
    return touched


def cavities(walls: np.ndarray, solids: np.ndarray, seeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rooms between walls, split at their necks: at valves and where a wall is open.

    walls: bool, voxels of all surfaces. solids: bool, inside of walls. seeds: bool, where each room's middle lies.
    """
    free = ndimage.distance_transform_edt(~walls)
    markers = np.zeros(walls.shape, np.int32)
    markers[ndimage.binary_erosion(solids & ~walls)] = len(seeds) + 1
    frame = np.ones(walls.shape, bool)
    frame[1:-1, 1:-1, 1:-1] = False
    markers[frame] = len(seeds) + 2
    for number, room in enumerate(seeds.values(), 1):
        depth = np.where(room & ~solids, free, 0)
        markers[depth >= 0.9 * depth.max()] = number
    rooms = watershed(-free, markers)
    return {name: rooms == number for number, name in enumerate(seeds, 1)}
