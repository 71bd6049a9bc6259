"""Compiled loops of projection, for processors; they load Numba, so import this inside a function.

They process a part of the detector without Python's lock, so that parts can run in threads. A voxel of any real type
counts max(low, min(high, value)) - low; outside the CT values are 0.
"""

from __future__ import annotations

import numba
import numpy as np

PLANES_AT_ONCE = 16
"""Planes across the axis i read together: half a cache line of int16."""

_UNIT, _ZERO = np.float32(1), np.float32(0)


@numba.njit(nogil=True, fastmath=True, cache=True)
def add_planes(
    volume: np.ndarray,
    depth: int,
    low: np.float32,
    high: np.float32,
    first: np.ndarray,
    first_slope: np.ndarray,
    second: np.ndarray,
    second_slope: np.ndarray,
    out: np.ndarray,
) -> None:
    """Sum up the planes of a CT where each ray meets them, for some rows of any view.

    The rays of a few rows meet a small part of each plane, which is copied once with an empty rim around the CT.

    Args:
        volume: [second, plane, first], the axes as `Rays` names them.
        depth: Planes to read together.
        low: Lower limit of values, counted as 0.
        high: Upper limit of values.
        first: float32 [row, column].
        first_slope: float32 [row, column].
        second: float32 [row, column].
        second_slope: float32 [row, column].
        out: float32 [row, column], set to the sum.
    """
    height, planes, width = volume.shape
    rows, columns = out.shape
    right, bottom = np.float32(width + 1), np.float32(height + 1)
    part = np.zeros((depth, (height + 3) * (width + 3)), np.float32)
    x_cells, y_cells = np.zeros(columns, np.int32), np.zeros(columns, np.int32)
    x_parts, y_parts = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    out[:] = 0
    for block in range(0, planes, depth):
        count = min(depth, planes - block)
        # Places on planes are linear fractions of row and column, so extremes are in the corners.
        x0, y0, x1, y1 = width + 2, height + 2, 0, 0
        for corner in range(8):
            r, c = (0, rows - 1)[corner % 2], (0, columns - 1)[corner // 2 % 2]
            place = np.float32(block + (0, count - 1)[corner // 4])
            x = int(min(max(first[r, c] + place * first_slope[r, c] + _UNIT, _ZERO), right))
            y = int(min(max(second[r, c] + place * second_slope[r, c] + _UNIT, _ZERO), bottom))
            x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
        x0, y0, x1, y1 = max(x0 - 1, 0), max(y0 - 1, 0), min(x1 + 2, width + 2), min(y1 + 2, height + 2)
        across, down = x1 - x0 + 1, y1 - y0 + 1
        highest = _ZERO
        for y in range(down):
            for x in range(across):
                at_rim = y + y0 == 0 or y + y0 > height or x + x0 == 0 or x + x0 > width
                for p in range(count):
                    value = _ZERO
                    if not at_rim:
                        value = np.float32(volume[y + y0 - 1, block + p, x + x0 - 1])
                        value = value if value > low else low
                        value = (value if value < high else high) - low
                        highest = value if value > highest else highest
                    part[p, y * across + x] = value
        if highest == 0:
            continue
        x_low, x_high = np.float32(x0), np.float32(x1 - 1)
        y_low, y_high = np.float32(y0), np.float32(y1 - 1)
        for p in range(count):
            n = np.float32(block + p)
            for r in range(rows):
                _place(n, first[r], first_slope[r], x_low, x_high, x_cells, x_parts)
                _place(n, second[r], second_slope[r], y_low, y_high, y_cells, y_parts)
                _add_between(part[p], np.int32(across), x_cells, x_parts, y_cells, y_parts, out[r])


@numba.njit(nogil=True, fastmath=True, cache=True)
def _place(
    n: np.float32,
    places: np.ndarray,
    slopes: np.ndarray,
    low: np.float32,
    high: np.float32,
    cells: np.ndarray,
    parts: np.ndarray,
) -> None:
    """Compute the cells in which rays meet a plane along one axis, counted from low, and the fractions to the next."""
    for c in range(cells.size):
        place = places[c] + n * slopes[c] + _UNIT
        place = place if place > low else low
        place = (place if place < high else high) - low
        cells[c] = np.int32(place)
        parts[c] = place - np.float32(cells[c])


@numba.njit(nogil=True, fastmath=True, cache=True)
def _add_between(
    part: np.ndarray,
    across: np.int32,
    x_cells: np.ndarray,
    x_parts: np.ndarray,
    y_cells: np.ndarray,
    y_parts: np.ndarray,
    row: np.ndarray,
) -> None:
    for c in range(row.size):
        cell = np.int32(y_cells[c] * across + x_cells[c])
        below = np.int32(cell + across)
        upper = part[cell] + x_parts[c] * (part[cell + 1] - part[cell])
        lower = part[below] + x_parts[c] * (part[below + 1] - part[below])
        row[c] += upper + y_parts[c] * (lower - upper)
