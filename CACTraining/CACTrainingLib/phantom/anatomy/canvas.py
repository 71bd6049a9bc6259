"""Slice on which soft-edged shapes are painted within their bounding boxes, in millimetres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import ArrayLike

Box = tuple[slice, slice]
"""Rows and columns of a slice."""
NOWHERE: Box = (slice(0, 0), slice(0, 0))
EDGE_MM = 1.0
"""Width of the linear ramp across an edge; the scanner adds its blur."""


def coverage(distance_mm: np.ndarray, edge_mm: float = EDGE_MM) -> np.ndarray:
    """Return each pixel's share inside a shape, 0 to 1, from the signed distance to its surface (negative inside)."""
    inside = distance_mm * np.float32(-1.0 / edge_mm)
    inside += np.float32(0.5)
    np.maximum(inside, 0, out=inside)
    return np.minimum(inside, 1, out=inside)


class Canvas:
    """Slice in HU [rows, columns] at a height. Painting blends towards a value by the shape's coverage.

    Attributes:
        x_mm: Pixel positions [columns], float32.
        y_mm: Pixel positions [rows], float32.
        z_mm: Height.
        hu: Values [rows, columns], float32.
    """

    def __init__(self, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float, fill_hu: float) -> None:
        self.x_mm = x_mm.astype(np.float32)
        self.y_mm = y_mm.astype(np.float32)
        self.z_mm = z_mm
        self.pixel_mm = float(x_mm[1] - x_mm[0])
        self.hu = np.full((len(y_mm), len(x_mm)), fill_hu, np.float32)

    def copy(self, z_mm: float) -> Canvas:
        """Return an independent copy at another height."""
        picture = copy(self)
        picture.z_mm, picture.hu = z_mm, self.hu.copy()
        return picture

    def box(self, x0: float, x1: float, y0: float, y1: float) -> Box:
        """Return the rows and columns that hold a rectangle, clipped to the slice."""
        i0 = max(0, math.floor((x0 - float(self.x_mm[0])) / self.pixel_mm))
        i1 = min(len(self.x_mm), math.ceil((x1 - float(self.x_mm[0])) / self.pixel_mm) + 1)
        j0 = max(0, math.floor((y0 - float(self.y_mm[0])) / self.pixel_mm))
        j1 = min(len(self.y_mm), math.ceil((y1 - float(self.y_mm[0])) / self.pixel_mm) + 1)
        return (slice(j0, j1), slice(i0, i1)) if i1 > i0 and j1 > j0 else NOWHERE

    def blend(self, box: Box, share: np.ndarray, value: float | np.ndarray) -> None:
        """Add share · (value - hu) within a box."""
        part = self.hu[box]
        part += share * (value - part)

    def ellipsoid(
        self, centre_mm: np.ndarray, semi_axes_mm: tuple[float, float, float], hu: float, edge_mm: float = EDGE_MM
    ) -> None:
        """Paint an ellipsoid along x, y and z."""
        box, distance = self.ellipsoid_distance(centre_mm, semi_axes_mm, edge_mm)
        self.blend(box, coverage(distance, edge_mm), hu)

    def ellipsoid_distance(
        self, centre_mm: np.ndarray, semi_axes_mm: tuple[float, float, float], border_mm: float = EDGE_MM
    ) -> tuple[Box, np.ndarray]:
        """Return a box and the approximate signed distance to an ellipsoid's surface; empty if the slice misses it."""
        semi = np.asarray(semi_axes_mm, float)
        extent = semi + border_mm
        dz = self.z_mm - centre_mm[2]
        if abs(dz) >= extent[2]:
            return NOWHERE, np.zeros((0, 0), np.float32)
        x0, y0 = centre_mm[0], centre_mm[1]
        box = self.box(x0 - extent[0], x0 + extent[0], y0 - extent[1], y0 + extent[1])
        dx, dy = self.x_mm[box[1]] - np.float32(x0), self.y_mm[box[0]] - np.float32(y0)
        form = 1 / semi**2
        square, slope = (_quadratic(diagonal, dx, dy, dz) for diagonal in (form, form * form))
        # Distance to first order: (q - 1) / |∇q| with q = √(rᵀ·form·r).
        root = np.sqrt(np.maximum(square, 1e-6))
        return box, (root - 1) * root / np.sqrt(np.maximum(slope, 1e-9))

    def tube_distance(
        self, path_mm: np.ndarray, radii_mm: np.ndarray, border_mm: float = EDGE_MM
    ) -> tuple[Box, np.ndarray]:
        """Return a box and the distance to round-ended segments along a polyline [n, 3] with radii [n]; empty if the
        slice misses them."""
        reach = np.maximum(radii_mm[:-1], radii_mm[1:]) + border_mm
        low = np.minimum(path_mm[:-1, 2], path_mm[1:, 2]) - reach
        high = np.maximum(path_mm[:-1, 2], path_mm[1:, 2]) + reach
        segments = np.flatnonzero((low < self.z_mm) & (high > self.z_mm))
        if not len(segments):
            return NOWHERE, np.zeros((0, 0), np.float32)
        a, b = path_mm[segments], path_mm[segments + 1]
        margin, u = reach[segments].max(), b - a
        (x0, y0, _), (x1, y1, _) = np.minimum(a, b).min(axis=0) - margin, np.maximum(a, b).max(axis=0) + margin
        box = self.box(x0, x1, y0, y1)
        dz = self.z_mm - a[:, 2]
        along, changes = u / np.maximum((u * u).sum(axis=1), 1e-9)[:, None], np.diff(radii_mm)[segments]
        # All segments at once [segments, rows, columns], in single precision.
        columns = (*a.T[:2], *u.T, *along.T[:2], dz * along[:, 2], dz, radii_mm[segments], changes)
        ax, ay, ux, uy, uz, vx, vy, vz, dz, radius, change = np.array(columns, np.float32)[..., None, None]
        dx, dy = self.x_mm[box[1]] - ax, self.y_mm[box[0]][:, None] - ay
        t = dx * vx + (dy * vy + vz)
        np.maximum(t, 0, out=t)
        np.minimum(t, 1, out=t)
        square = np.square(dx - t * ux)
        square += np.square(dy - t * uy)
        square += np.square(dz - t * uz)
        distance = np.sqrt(square, out=square)
        distance -= radius + t * change
        return box, np.minimum(distance.min(axis=0), np.float32(1e3))


def _quadratic(form: np.ndarray, dx: np.ndarray, dy: np.ndarray, dz: float) -> np.ndarray:
    """Return rᵀ·diag(form)·r on the grid of dx [columns] and dy [rows] at one height, float32."""
    a, b, _ = form.astype(np.float32)
    return (a * dx * dx + np.float32(form[2] * dz * dz))[None, :] + (b * dy * dy)[:, None]


def smooth_path(points_mm: Sequence[ArrayLike] | np.ndarray, count: int) -> np.ndarray:
    """Return a Catmull-Rom curve [count, 3] through points."""
    p = np.asarray(points_mm, float)
    p = np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    s = np.linspace(0, len(p) - 3 - 1e-9, count)
    n = s.astype(int)
    t = (s - n)[:, None]
    a, b, c, d = p[n], p[n + 1], p[n + 2], p[n + 3]
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
