"""Continuous objects as clouds of weighted points, which a scanner can image at any place and in motion.

A cloud carries the exact integral of the object it stands for: points fill the object evenly and their weights
are scaled to it, so no voxel grid ever rounds a mass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

POINT_STEP_MM = 0.35
"""Distance of neighbouring points in mm: far below any kernel's width; halving it changes no mass by 1 %."""

_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))


@dataclass(frozen=True)
class PointCloud:
    """Weighted points.

    Attributes:
        positions_mm: Places, float64 [n, 3], LPS.
        weights: Weights, float64 [n]; mg for calcium, mm³ for tissue.
    """

    positions_mm: np.ndarray
    weights: np.ndarray

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return float(self.weights.sum())

    def map(self, mapping: Callable[[np.ndarray], np.ndarray]) -> PointCloud:
        """Return the same weights at other places. mapping: from positions [n, 3] to their new places."""
        return PointCloud(mapping(self.positions_mm), self.weights)


EMPTY = PointCloud(np.zeros((0, 3)), np.zeros(0))


def join_clouds(clouds: list[PointCloud]) -> PointCloud:
    """Return one cloud of all points, empty for an empty list."""
    if not clouds:
        return EMPTY
    return PointCloud(np.concatenate([c.positions_mm for c in clouds]), np.concatenate([c.weights for c in clouds]))


def arc_mm(path_mm: np.ndarray) -> np.ndarray:
    """Return the arc length along a polyline [n, 3] at each of its vertices [n]."""
    return np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(path_mm, axis=0), axis=1))]


def along(path_mm: np.ndarray, at: np.ndarray, arc: np.ndarray | None = None) -> np.ndarray:
    """Return points [m, 3] of a polyline [n, 3] at arc lengths `at` [m].

    arc: Arc length at the vertices [n], or another rising measure; None for `arc_mm`.
    """
    arc = arc_mm(path_mm) if arc is None else arc
    return np.stack([np.interp(at, arc, path_mm[:, axis]) for axis in range(3)], axis=1)


def around(
    path_mm: np.ndarray, at: np.ndarray, angle: np.ndarray, radius_mm: np.ndarray | float, arc: np.ndarray
) -> np.ndarray:
    """Return points [m, 3] around a polyline [n, 3] at arc lengths, angles and radii [m]. arc: as in `along`."""
    u, v = frames_along(along(np.gradient(path_mm, axis=0), at, arc))
    outwards = np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v
    return along(path_mm, at, arc) + np.reshape(radius_mm, (-1, 1)) * outwards


def tube(path_mm: np.ndarray, radii_mm: np.ndarray | float, density: float, step_mm: float) -> PointCloud:
    """Return a solid tube along a polyline [n, 3]. radii_mm: one, or one a vertex [n]. density: weight per mm³."""
    arc = arc_mm(path_mm)
    sections = max(1, math.ceil(arc[-1] / step_mm))
    s = (np.arange(sections) + 0.5) * arc[-1] / sections
    centre = along(path_mm, s)
    radius = np.interp(s, arc, np.broadcast_to(radii_mm, len(arc)))
    tangent = np.gradient(centre, axis=0) if sections > 1 else (path_mm[-1:] - path_mm[:1])
    u, v = frames_along(tangent)
    disc = sunflower(max(1, math.ceil(math.pi * float(radius.max()) ** 2 / step_mm**2)))
    turn = np.arange(sections) * _GOLDEN_ANGLE
    x = disc[None, :, 0] * np.cos(turn)[:, None] - disc[None, :, 1] * np.sin(turn)[:, None]
    y = disc[None, :, 0] * np.sin(turn)[:, None] + disc[None, :, 1] * np.cos(turn)[:, None]
    offset = (x[..., None] * u[:, None] + y[..., None] * v[:, None]) * radius[:, None, None]
    weights = density * math.pi * radius**2 * (arc[-1] / sections) / len(disc)
    return PointCloud((centre[:, None] + offset).reshape(-1, 3), np.repeat(weights, len(disc)))


def sunflower(count: int) -> np.ndarray:
    """Return points [count, 2] spread evenly over the unit disc (Vogel's spiral)."""
    index = np.arange(count)
    radius = np.sqrt((index + 0.5) / count)
    angle = index * _GOLDEN_ANGLE
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def frame_along(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit vectors (u, v, w) at right angles, w along `direction`."""
    u, v = frames_along(direction[None])
    return u[0], v[0], direction / np.linalg.norm(direction)


def frames_along(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two unit vectors at right angles to each of the directions [n, 3]."""
    w = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    helper = np.where(np.abs(w[:, 2:]) < 0.9, np.array([[0.0, 0.0, 1.0]]), np.array([[1.0, 0.0, 0.0]]))
    u = np.cross(w, helper)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    return u, np.cross(w, u)
