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

    def crop(self, box: Box) -> Canvas:
        """Return an independent copy of a part."""
        part = copy(self)
        part.x_mm, part.y_mm, part.hu = self.x_mm[box[1]], self.y_mm[box[0]], self.hu[box].copy()
        return part

    def blend(self, box: Box, share: np.ndarray, value: float | np.ndarray) -> None:
        """Add share · (value - hu) within a box."""
        part = self.hu[box]
        part += share * (value - part)

    def cover(
        self,
        box: Box,
        distance: np.ndarray,
        hu: float,
        edge_mm: float = EDGE_MM,
        grain: np.ndarray | None = None,
        grain_hu: float = 0.0,
    ) -> None:
        """Paint a shape by its distance in a box, in hu + grain_hu · grain. grain: [rows, columns] of the slice."""
        if distance.size:
            from . import compiled

            part = self.hu[box]
            compiled.cover(part, part if grain is None else grain[box], distance, edge_mm, hu, grain_hu)

    def ellipsoid(
        self, centre_mm: np.ndarray, semi_axes_mm: tuple[float, float, float], hu: float, edge_mm: float = EDGE_MM
    ) -> None:
        """Paint an ellipsoid along x, y and z."""
        self.cover(*self.ellipsoid_distance(centre_mm, semi_axes_mm, edge_mm), hu, edge_mm)

    def ellipsoid_distance(
        self, centre_mm: np.ndarray, semi_axes_mm: tuple[float, float, float], border_mm: float = EDGE_MM
    ) -> tuple[Box, np.ndarray]:
        """Return a box and the approximate signed distance to an ellipsoid's surface; empty if the slice misses it."""
        from . import compiled

        semi = np.array(semi_axes_mm, float)
        return _in_box(compiled.ellipsoid_distance(self.x_mm, self.y_mm, self.z_mm, centre_mm, semi, border_mm))

    def tube_distance(
        self, path_mm: np.ndarray, radii_mm: np.ndarray, border_mm: float = EDGE_MM
    ) -> tuple[Box, np.ndarray]:
        """Return a box and the distance to round-ended segments along a polyline [n, 3] with radii [n].

        Distances beyond the border may be larger than they are; the box is empty if the slice misses all segments.
        """
        from . import compiled

        return _in_box(compiled.tube_distance(self.x_mm, self.y_mm, self.z_mm, path_mm, radii_mm, border_mm))


def _in_box(shape: tuple[int, int, np.ndarray]) -> tuple[Box, np.ndarray]:
    """Return the box of distances that begin at a row and column, and the distances."""
    j, i, distance = shape
    return (slice(j, j + distance.shape[0]), slice(i, i + distance.shape[1])), distance


def smooth_path(points_mm: Sequence[ArrayLike] | np.ndarray, count: int) -> np.ndarray:
    """Return a Catmull-Rom curve [count, 3] through points."""
    p = np.asarray(points_mm, float)
    p = np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    s = np.linspace(0, len(p) - 3 - 1e-9, count)
    n = s.astype(int)
    t = (s - n)[:, None]
    a, b, c, d = p[n], p[n + 1], p[n + 2], p[n + 3]
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
