"""Compiled inner loops of a heart: reading its lattice of distances, and painting its chambers with the fat around.

Arrays are float32; the slow forms in NumPy stand in the tests.
"""

from __future__ import annotations

import numba
import numpy as np

from .body import WAVES
from .compiled import ONE, compiled, share_inside

COLUMNS = 8
"""Distances at a point of the lattice: the pericardium, then `shape.PARTS`."""
LV_EPI, LV, RV, LA = 1, 2, 3, 4
"""Columns of parts; atria and great vessels follow the left atrium."""


@numba.njit(nogil=True, cache=True)  # exact: patients are drawn from these values, and must not change by one bit
def interpolate(
    table: np.ndarray, shape: tuple[int, ...], low_mm: np.ndarray, step_mm: float, places_mm: np.ndarray
) -> np.ndarray:
    """Interpolate a table [lattice points, columns] at points float32 [n, 3], clipped to its border."""
    values = np.zeros((len(places_mm), table.shape[1]), np.float32)
    inverse = np.float32(1 / step_mm)
    corner, part = np.empty(3, np.int64), np.empty(3, np.float32)
    for n in range(len(places_mm)):
        for axis in range(3):
            place = (places_mm[n, axis] - low_mm[axis]) * inverse
            place = min(max(place, np.float32(0)), np.float32(shape[axis]) - np.float32(1.001))
            corner[axis] = int(place)
            part[axis] = place - np.float32(corner[axis])
        flat = (corner[0] * shape[1] + corner[1]) * shape[2] + corner[2]
        for di in range(2):
            a = part[0] if di else ONE - part[0]
            for dj in range(2):
                b = a * part[1] if dj else a * (ONE - part[1])
                for dk in range(2):
                    c = b * part[2] if dk else b * (ONE - part[2])
                    row = flat + (di * shape[1] + dj) * shape[2] + dk
                    for column in range(table.shape[1]):
                        values[n, column] += table[row, column] * c
    return values


@compiled
def _clip(value: np.float32, low: np.float32, high: np.float32) -> np.float32:
    return min(max(value, low), high)


@compiled
def _read(
    table: np.ndarray,
    shape: tuple[int, int, int],
    x: np.float32,
    y: np.float32,
    z: np.float32,
    step_mm: np.float32,
    values: np.ndarray,
) -> None:
    """Read the lattice's COLUMNS at a place in its steps into `values`; beyond its end they grow with the distance."""
    zero, top = np.float32(0), np.float32(1.001)
    x, beyond = _clip(x, zero, shape[0] - top), abs(x - _clip(x, zero, shape[0] - top))
    y, beyond = _clip(y, zero, shape[1] - top), beyond + abs(y - _clip(y, zero, shape[1] - top))
    z, beyond = _clip(z, zero, shape[2] - top), beyond + abs(z - _clip(z, zero, shape[2] - top))
    beyond_mm = step_mm * beyond
    i, j, k = int(x), int(y), int(z)
    x, y, z = x - np.float32(i), y - np.float32(j), z - np.float32(k)
    x1, y1, z1 = np.float32(1) - x, np.float32(1) - y, np.float32(1) - z
    a, b, c, d = x1 * y1 * z1, x1 * y1 * z, x1 * y * z1, x1 * y * z
    e, f, g, h = x * y1 * z1, x * y1 * z, x * y * z1, x * y * z
    # Unsigned indices need no look at their sign.
    first, row = np.uint64(((i * shape[1] + j) * shape[2] + k) * COLUMNS), np.uint64(shape[2] * COLUMNS)
    plane, point = np.uint64(shape[1]) * row, np.uint64(COLUMNS)
    for column in range(COLUMNS):
        n = first + np.uint64(column)
        lower_half = a * table[n] + b * table[n + point] + c * table[n + row] + d * table[n + row + point]
        n += plane
        upper_half = e * table[n] + f * table[n + point] + g * table[n + row] + h * table[n + row + point]
        values[column] = lower_half + upper_half + beyond_mm


@compiled
def _move(values: np.ndarray, inwards_mm: np.float32) -> None:
    """Move the ventricles' walls inwards, in place."""
    values[0] += np.float32(0.6) * inwards_mm
    values[LV_EPI] += np.float32(0.8) * inwards_mm
    values[LV] += np.float32(1.8) * inwards_mm
    values[RV] += inwards_mm


@compiled
def _walls_and_blood(values: np.ndarray, wall_mm: np.ndarray) -> tuple[np.float32, np.float32]:
    """Return the distances to the walls' outside and to the blood."""
    walls, blood = values[LV_EPI], min(values[LV], max(values[RV], -values[LV_EPI]))
    for part in range(RV, COLUMNS):
        walls = min(walls, values[part] - wall_mm[part])
    for part in range(LA, COLUMNS):
        blood = min(blood, values[part])
    return walls, blood


@compiled
def _turn_waves(
    sines: np.ndarray, cosines: np.ndarray, turns: np.ndarray, angles: np.ndarray, follows: bool, places: int
) -> None:
    """Bring the sines of all waves to a pixel, in place.

    turns: Sine and cosine of a wave's turn in one pixel [2, n]. angles: Phase at the row's first pixel, and turn a
    pixel [2, n]. follows: True if the sines are those of the pixel before. places: Pixels from the row's first.
    """
    for n in range(len(sines)):
        if follows:
            sine = sines[n] * turns[1, n] + cosines[n] * turns[0, n]
            cosines[n] = cosines[n] * turns[1, n] - sines[n] * turns[0, n]
            sines[n] = sine
        else:
            angle = angles[0, n] + places * angles[1, n]
            sines[n], cosines[n] = np.sin(angle), np.cos(angle)


@compiled
def _height(sines: np.ndarray, first: int) -> np.float32:
    """Return an irregular surface's relief from the sines of all waves: mean 0, standard deviation 1."""
    total = np.float32(0)
    for n in range(first, first + WAVES):
        total += sines[n]
    return total * np.float32(np.sqrt(2 / WAVES))


@compiled
def _blend(
    value: np.float32,
    air: np.float32,
    spots: np.float32,
    distances: tuple[np.float32, np.float32, np.float32],
    outside: tuple[np.float32, np.float32],
    tissue: tuple[np.float32, ...],
) -> tuple[np.float32, np.float32]:
    """Return a pixel's HU and share of lung with the heart over it.

    distances: To pericardium, walls and blood. outside: Thickness of the pericardium and of the fat outside it; -1
    without surroundings.
    """
    pericardium, walls, blood = distances
    thickness, fat = outside
    fat_hu, muscle_hu, blood_hu, softness = tissue
    half = np.float32(0.5)
    edge = ONE / softness
    if thickness >= 0:
        share = share_inside(pericardium - thickness - fat + spots, half) * air
        value += share * (fat_hu + np.float32(9) * spots - value)
        air -= share
    share = share_inside(pericardium + half * spots, edge)
    value += share * (fat_hu + np.float32(6) * spots - value)
    wall_share = share_inside(walls + np.float32(0.4) * spots, edge)
    value += wall_share * (muscle_hu + np.float32(3) * spots - value)
    # The pericardium shows as a line between fat and fat.
    if thickness >= 0:
        line = np.float32(0.8) * share_inside(abs(pericardium - half * thickness) - half * thickness, np.float32(1.25))
    else:
        line = np.float32(0.55) * _clip(ONE - abs(pericardium) / np.float32(1.3), np.float32(0), ONE)
        line *= _clip(np.float32(1.3) - air, np.float32(0), ONE)
    value += line * (ONE - wall_share) * (np.float32(40) - value)
    value += share_inside(blood, ONE / (softness + np.float32(0.3))) * (blood_hu - value)
    return value, air * (ONE - max(share, wall_share))


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
    movement: tuple[np.float32, ...],
    tissue: tuple[np.float32, ...],
    around: tuple[np.float32, ...],
    waves: np.ndarray,
    phases: np.ndarray,
) -> None:
    """Paint fat, muscle and blood in a box of a slice, and update the share of lung, in place.

    Args:
        hu, lung, grain: The box.
        inside: Takes the share of each pixel inside the pericardium; 0 before.
        dx, dy, dz: The pixels' columns, rows and height from the heart's centre.
        axes: The heart's frame, columns u, v, w [3, 3].
        lattice: Table [points, COLUMNS] as one row, its shape, its first point, 1 / step, thickness of walls [COLUMNS].
        movement: Shift of the valves' plane and of the walls, length of the heart; 0, 0 at rest.
        tissue: HU of fat, muscle and blood, and width of the edges.
        around: Thickness of the pericardium, fat outside it, the fat's largest relief, reach of both; no thickness
            without surroundings.
        waves, phases: The two irregular surfaces [2 · WAVES, 3] and [2 · WAVES]; empty without surroundings.
    """
    table, shape, low, inverse_step, wall_mm = lattice
    ring_mm, wall_shift_mm, length = movement
    pericardium_mm, fat_mm, most_relief, reach = around
    zero, half, fifty = np.float32(0), np.float32(0.5), np.float32(50)
    outside_mm, deep_mm = max(reach, np.float32(8)), np.float32(-6)
    has_fat, moves, step = (
        len(phases) > 0,
        ring_mm != 0 or wall_shift_mm != 0,
        abs(dx[-1] - dx[0]) / max(len(dx) - 1, 1),
    )
    values, (sines, cosines) = np.empty(COLUMNS, np.float32), np.zeros((2, len(phases)), np.float32)
    angles, turns = np.zeros((2, len(phases)), np.float32), np.zeros((2, len(phases)), np.float32)
    for n in range(len(phases)):
        angles[1, n] = step * (waves[n, 0] * axes[0, 0] + waves[n, 1] * axes[0, 1] + waves[n, 2] * axes[0, 2])
        turns[0, n], turns[1, n] = np.sin(angles[1, n]), np.cos(angles[1, n])
    down = _clip(-dz / fifty, zero, ONE)
    for j in range(len(dy)):
        front, row = _clip(-dy[j] / fifty, zero, ONE), dy[j] * axes[1] + dz * axes[2]
        for n in range(len(phases)):
            u, v, w = row[0] + dx[0] * axes[0, 0], row[1] + dx[0] * axes[0, 1], row[2] + dx[0] * axes[0, 2]
            angles[0, n] = waves[n, 0] * u + waves[n, 1] * v + waves[n, 2] * w + phases[n]
        last_wave, i = -2, 0
        while i < len(dx):
            u, v, w = row[0] + dx[i] * axes[0, 0], row[1] + dx[i] * axes[0, 1], row[2] + dx[i] * axes[0, 2]
            x, y, z = u - low[0], v - low[1], w - low[2]
            if moves:
                bend = (u / length + np.float32(0.15)) / np.float32(0.55)
                x -= ring_mm * np.exp(-bend * bend)
            _read(table, shape, x * inverse_step, y * inverse_step, z * inverse_step, ONE / inverse_step, values)
            if moves:
                _move(values, wall_shift_mm * _clip(np.float32(0.6) + u / length, np.float32(0.2), ONE))
            pericardium, (walls, blood) = values[0], _walls_and_blood(values, wall_mm)
            # Far outside the heart, and deep in its blood, pixels nearer than half the distance are alike.
            outwards, inwards = min(pericardium, walls) - outside_mm, deep_mm - max(blood, walls, pericardium)
            if outwards > 0:
                i += 1 + int(half * outwards / step)
                continue
            if inwards > 0:
                last = min(i + 1 + int(half * inwards / step), len(dx))
                hu[j, i:last], lung[j, i:last], inside[j, i:last] = tissue[2], zero, ONE
                i = last
                continue
            thickness, fat, spots = (zero if has_fat else -ONE), zero, grain[j, i]
            # Deeper inside both are certain.
            if has_fat and abs(pericardium) < reach and pericardium > -np.float32(2) - abs(spots):
                _turn_waves(sines, cosines, turns, angles, last_wave == i - 1, i)
                last_wave = i
                # More in front, and recesses here and there.
                recess = _clip(ONE + half * _height(sines, 0), np.float32(0.4), np.float32(2.5))
                thickness = pericardium_mm * (ONE + half * front) * recess
                share = np.float32(0.3) + np.float32(0.6) * front + np.float32(0.4) * down
                fat = fat_mm * _clip(share + half * _height(sines, WAVES), zero, most_relief)
            distances = pericardium, walls, blood
            hu[j, i], lung[j, i] = _blend(hu[j, i], lung[j, i], spots, distances, (thickness, fat), tissue)
            inside[j, i] = share_inside(pericardium, ONE)
            i += 1
