"""Compiled inner loops of a heart: reading its lattice of distances, and painting its chambers with the fat around.

Arrays are float32; the slow forms in NumPy stand in the tests.
"""

from __future__ import annotations

import numba
import numpy as np

from .body import WAVES
from .compiled import compiled, share_inside

COLUMNS = 8
"""Distances at a point of the lattice: the pericardium, then `shape.PARTS`."""
LV_EPI, LV, RV, LA = 1, 2, 3, 4
"""Columns of parts; atria and great vessels follow the left atrium."""


@numba.njit(nogil=True, cache=True)  # exact: patients are drawn from these values, and must not change by one bit
def interpolate(
    table: np.ndarray, shape: tuple[int, int, int], low_mm: np.ndarray, step_mm: float, places_mm: np.ndarray
) -> np.ndarray:
    """Interpolate a table [lattice points, columns] at points float32 [n, 3], clipped to its border."""
    values = np.zeros((len(places_mm), table.shape[1]), np.float32)
    inverse, one = np.float32(1 / step_mm), np.float32(1)
    corner, part = np.empty(3, np.int64), np.empty(3, np.float32)
    for n in range(len(places_mm)):
        for axis in range(3):
            place = (places_mm[n, axis] - low_mm[axis]) * inverse
            place = min(max(place, np.float32(0)), np.float32(shape[axis]) - np.float32(1.001))
            corner[axis] = int(place)
            part[axis] = place - np.float32(corner[axis])
        flat = (corner[0] * shape[1] + corner[1]) * shape[2] + corner[2]
        for di in range(2):
            a = part[0] if di else one - part[0]
            for dj in range(2):
                b = a * part[1] if dj else a * (one - part[1])
                for dk in range(2):
                    c = b * part[2] if dk else b * (one - part[2])
                    row = flat + (di * shape[1] + dj) * shape[2] + dk
                    for column in range(table.shape[1]):
                        values[n, column] += table[row, column] * c
    return values


@compiled
def _read(
    table: np.ndarray, shape: tuple[int, int, int], x: np.float32, y: np.float32, z: np.float32, values: np.ndarray
) -> None:
    """Read the lattice's COLUMNS at a place in its steps into `values`."""
    top = np.float32(1.001)
    x = min(max(x, np.float32(0)), np.float32(shape[0]) - top)
    y = min(max(y, np.float32(0)), np.float32(shape[1]) - top)
    z = min(max(z, np.float32(0)), np.float32(shape[2]) - top)
    i, j, k = int(x), int(y), int(z)
    x, y, z = x - np.float32(i), y - np.float32(j), z - np.float32(k)
    flat = (i * shape[1] + j) * shape[2] + k
    x1, y1, z1 = np.float32(1) - x, np.float32(1) - y, np.float32(1) - z
    a, b, c, d = x1 * y1 * z1, x1 * y1 * z, x1 * y * z1, x1 * y * z
    e, f, g, h = x * y1 * z1, x * y1 * z, x * y * z1, x * y * z
    row, plane = shape[2] * COLUMNS, shape[1] * shape[2] * COLUMNS
    first = flat * COLUMNS
    n0, n1, n2, n3 = (
        np.uint64(first),
        np.uint64(first + COLUMNS),
        np.uint64(first + row),
        np.uint64(first + row + COLUMNS),
    )
    first += plane
    n4, n5, n6, n7 = (
        np.uint64(first),
        np.uint64(first + COLUMNS),
        np.uint64(first + row),
        np.uint64(first + row + COLUMNS),
    )
    for column in range(COLUMNS):
        n = np.uint64(column)
        near = a * table[n0 + n] + b * table[n1 + n] + c * table[n2 + n] + d * table[n3 + n]
        values[n] = near + e * table[n4 + n] + f * table[n5 + n] + g * table[n6 + n] + h * table[n7 + n]


@compiled
def _height(sines: np.ndarray, first: int) -> np.float32:
    """Return an irregular surface's height from the sines of all waves; see `Surroundings.relief`."""
    total = np.float32(0)
    for n in range(first, first + WAVES):
        total += sines[n]
    return total * np.float32(np.sqrt(2 / WAVES))


@compiled
def paint_chambers(
    hu: np.ndarray,
    lung: np.ndarray,
    grain: np.ndarray,
    inside: np.ndarray,
    dx: np.ndarray,
    dy: np.ndarray,
    dz: np.float32,
    axes: np.ndarray,
    lattice: tuple[np.ndarray, tuple[int, int, int], np.ndarray, np.float32, np.ndarray],
    movement: tuple[np.float32, np.float32, np.float32],
    tissue: tuple[np.float32, np.float32, np.float32, np.float32],
    around: tuple[np.float32, np.float32, np.float32, np.float32],
    waves: np.ndarray,
    phases: np.ndarray,
) -> None:
    """Paint fat, muscle and blood in a box of a slice, and update the share of lung, in place.

    Args:
        hu, lung, grain: The box.
        inside: Takes the share of each pixel inside the pericardium.
        dx, dy, dz: The pixels' columns, rows and height from the heart's centre.
        axes: The heart's frame, columns u, v, w [3, 3].
        lattice: Table [points, COLUMNS], its shape, its first point, 1 / step, and thickness of walls [COLUMNS].
        movement: Shift of the valves' plane and of the walls, length of the heart; 0, 0 at rest.
        tissue: HU of fat, muscle and blood, and width of the edges.
        around: Thickness of the pericardium, fat outside it, the fat's largest relief, reach of both; no thickness
            without surroundings.
        waves, phases: The two irregular surfaces [2 · WAVES, 3] and [2 · WAVES]; empty without surroundings.
    """
    table, shape, low, inverse_step, wall_mm = lattice
    ring_mm, inwards_mm, length = movement
    fat_hu, muscle_hu, blood_hu, softness = tissue
    pericardium_mm, fat_mm, most_relief, reach = around
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    edge, blood_edge, fat_edge = one / softness, one / (softness + np.float32(0.3)), half
    line_edge, moves, has_fat = np.float32(1 / 0.8), ring_mm != 0 or inwards_mm != 0, pericardium_mm > 0
    far, deep, margin = max(reach, np.float32(8)), np.float32(-6), np.float32(0.5)
    values = np.empty(COLUMNS, np.float32)
    sines, cosines, turn_sines, turn_cosines = np.zeros((4, 2 * WAVES), np.float32)
    step = dx[1] - dx[0] if len(dx) > 1 else one
    if has_fat:
        for n in range(2 * WAVES):
            turn = step * (waves[n, 0] * axes[0, 0] + waves[n, 1] * axes[0, 1] + waves[n, 2] * axes[0, 2])
            turn_sines[n], turn_cosines[n] = np.sin(turn), np.cos(turn)
    for j in range(len(dy)):
        u0, v0, w0 = dy[j] * axes[1] + dz * axes[2]
        waves_at, i = -2, 0
        while i < len(dx):
            u, v, w = u0 + dx[i] * axes[0, 0], v0 + dx[i] * axes[0, 1], w0 + dx[i] * axes[0, 2]
            x, y, z = u - low[0], v - low[1], w - low[2]
            if moves:
                bend = (u / length + np.float32(0.15)) / np.float32(0.55)
                x -= ring_mm * np.exp(-bend * bend)
            _read(table, shape, x * inverse_step, y * inverse_step, z * inverse_step, values)
            if moves:
                inwards = inwards_mm * min(max(np.float32(0.6) + u / length, np.float32(0.2)), one)
                values[0] += np.float32(0.6) * inwards
                values[LV_EPI] += np.float32(0.8) * inwards
                values[LV] += np.float32(1.8) * inwards
                values[RV] += inwards
            pericardium, walls = values[0], values[LV_EPI]
            for part in range(RV, COLUMNS):
                walls = min(walls, values[part] - wall_mm[part])
            blood = min(values[LV], max(values[RV], -values[LV_EPI]))
            for part in range(LA, COLUMNS):
                blood = min(blood, values[part])
            # Far outside the heart, and deep in its blood, pixels nearer than half the distance are alike.
            outwards, inwards = min(pericardium, walls) - far, deep - max(blood, walls, pericardium)
            if outwards > 0:
                i += 1 + int(margin * outwards / step)
                continue
            if inwards > 0:
                last = min(i + 1 + int(margin * inwards / step), len(dx))
                for n in range(i, last):
                    hu[j, n], lung[j, n], inside[j, n] = blood_hu, zero, one
                i = last
                continue
            inside[j, i] = share_inside(pericardium, one)
            value, air, spots, thickness = hu[j, i], lung[j, i], grain[j, i], zero
            if has_fat:
                fat = zero
                # Deeper inside both are certain.
                if abs(pericardium) < reach and pericardium > -np.float32(2) - abs(spots):
                    # Sines one step further follow from those before.
                    for n in range(2 * WAVES):
                        if waves_at == i - 1:
                            sine = sines[n] * turn_cosines[n] + cosines[n] * turn_sines[n]
                            cosines[n] = cosines[n] * turn_cosines[n] - sines[n] * turn_sines[n]
                            sines[n] = sine
                        else:
                            angle = waves[n, 0] * u + waves[n, 1] * v + waves[n, 2] * w + phases[n]
                            sines[n], cosines[n] = np.sin(angle), np.cos(angle)
                    waves_at = i
                    front = min(max(-dy[j] / np.float32(50), zero), one)
                    down = min(max(-dz / np.float32(50), zero), one)
                    # More in front, and recesses here and there.
                    recess = min(max(one + half * _height(sines, 0), np.float32(0.4)), np.float32(2.5))
                    thickness = pericardium_mm * (one + half * front) * recess
                    share = np.float32(0.3) + np.float32(0.6) * front + np.float32(0.4) * down
                    fat = fat_mm * min(max(share + half * _height(sines, WAVES), zero), most_relief)
                share = share_inside(pericardium - thickness - fat + spots, fat_edge) * air
                value += share * (fat_hu + np.float32(9) * spots - value)
                air -= share
            share = share_inside(pericardium + half * spots, edge)
            value += share * (fat_hu + np.float32(6) * spots - value)
            wall_share = share_inside(walls + np.float32(0.4) * spots, edge)
            value += wall_share * (muscle_hu + np.float32(3) * spots - value)
            # The pericardium shows as a line between fat and fat.
            if has_fat:
                line = np.float32(0.8) * share_inside(abs(pericardium - half * thickness) - half * thickness, line_edge)
            else:
                line = np.float32(0.55) * min(max(one - abs(pericardium) / np.float32(1.3), zero), one)
                line *= min(max(np.float32(1.3) - air, zero), one)
            value += line * (one - wall_share) * (np.float32(40) - value)
            value += share_inside(blood, blood_edge) * (blood_hu - value)
            hu[j, i] = value
            lung[j, i] = air * (one - max(share, wall_share))
            i += 1
