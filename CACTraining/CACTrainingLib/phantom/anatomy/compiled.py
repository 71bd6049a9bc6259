"""Compiled inner loops of painting a slice: distances to tubes and ellipsoids, blending, the chest wall.

Each has a slow form in NumPy in the tests, which it equals to single precision. Segments are the outer loop and pixels
the inner one, so that pixels are computed several at once. Arrays are float32 [rows, columns], lengths mm.
"""

from __future__ import annotations

import math

import numba
import numpy as np

compiled = numba.njit(nogil=True, fastmath=True, cache=True)
ONE = np.float32(1)
FAR_MM = np.float32(1e3)
"""Distance of pixels that no part of a shape is near."""


@compiled
def tube_distance(
    x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float, path_mm: np.ndarray, radii_mm: np.ndarray, border_mm: float
) -> tuple[int, int, np.ndarray]:
    """Return first row and column of a box, and the distance to a tube in it; FAR_MM beyond `border_mm`.

    path_mm: Polyline, float64 [n, 3]. radii_mm: Radius at its points, float64 [n].
    """
    boxes = np.zeros((len(path_mm) - 1, 4), np.int64)
    j_low, j_high, i_low, i_high = len(y_mm), 0, len(x_mm), 0
    for n in range(len(boxes)):
        reach = max(radii_mm[n], radii_mm[n + 1]) + border_mm
        if min(path_mm[n, 2], path_mm[n + 1, 2]) - reach < z_mm < max(path_mm[n, 2], path_mm[n + 1, 2]) + reach:
            i0, i1 = _reach_along(x_mm, path_mm[n, 0], path_mm[n + 1, 0], reach)
            j0, j1 = _reach_along(y_mm, path_mm[n, 1], path_mm[n + 1, 1], reach)
            if i1 > i0 and j1 > j0:
                boxes[n] = j0, j1, i0, i1
                j_low, j_high, i_low, i_high = min(j_low, j0), max(j_high, j1), min(i_low, i0), max(i_high, i1)
    if j_high == 0:
        return 0, 0, np.zeros((0, 0), np.float32)
    distance = np.full((j_high - j_low, i_high - i_low), FAR_MM, np.float32)
    for n in range(len(boxes)):
        j0, j1, i0, i1 = boxes[n]
        ax, ay, dz = path_mm[n, 0], path_mm[n, 1], np.float32(z_mm - path_mm[n, 2])
        ux, uy, uz = path_mm[n + 1, 0] - ax, path_mm[n + 1, 1] - ay, path_mm[n + 1, 2] - path_mm[n, 2]
        square = max(ux * ux + uy * uy + uz * uz, 1e-9)
        vx, vy, vz = np.float32(ux / square), np.float32(uy / square), np.float32(dz * uz / square)
        ux, uy, uz = np.float32(ux), np.float32(uy), np.float32(uz)
        ax, ay = np.float32(ax), np.float32(ay)
        radius, change = np.float32(radii_mm[n]), np.float32(radii_mm[n + 1] - radii_mm[n])
        for j in range(j0, j1):
            dy = y_mm[j] - ay
            along = dy * vy + vz
            row = distance[j - j_low]
            for i in range(i0, i1):
                dx = x_mm[i] - ax
                t = min(max(dx * vx + along, np.float32(0)), np.float32(1))
                x, y, z = dx - t * ux, dy - t * uy, dz - t * uz
                d = np.sqrt(x * x + y * y + z * z) - (radius + t * change)
                row[i - i_low] = min(row[i - i_low], d)
    return j_low, i_low, distance


@compiled
def _reach_along(axis_mm: np.ndarray, start_mm: float, end_mm: float, reach_mm: float) -> tuple[int, int]:
    """Return the first pixel along an axis that a segment can change, and the one after the last."""
    low, high, origin = min(start_mm, end_mm) - reach_mm, max(start_mm, end_mm) + reach_mm, float(axis_mm[0])
    step = float(axis_mm[1] - axis_mm[0])
    return max(0, math.floor((low - origin) / step)), min(len(axis_mm), math.ceil((high - origin) / step) + 1)


@compiled
def ellipsoid_distance(
    x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float, centre_mm: np.ndarray, semi_axes_mm: np.ndarray, border_mm: float
) -> tuple[int, int, np.ndarray]:
    """Return first row and column of a box, and the distance to an ellipsoid to first order in it.

    (q - 1) / |∇q| with q = √(rᵀ·form·r). centre_mm, semi_axes_mm: float64 [3].
    """
    dz = z_mm - centre_mm[2]
    if abs(dz) >= semi_axes_mm[2] + border_mm:
        return 0, 0, np.zeros((0, 0), np.float32)
    x0, y0 = centre_mm[0], centre_mm[1]
    i0, i1 = _reach_along(x_mm, x0, x0, semi_axes_mm[0] + border_mm)
    j0, j1 = _reach_along(y_mm, y0, y0, semi_axes_mm[1] + border_mm)
    if i1 <= i0 or j1 <= j0:
        return 0, 0, np.zeros((0, 0), np.float32)
    a, b, c = 1 / semi_axes_mm[0] ** 2, 1 / semi_axes_mm[1] ** 2, 1 / semi_axes_mm[2] ** 2
    a1, b1, c1 = np.float32(a), np.float32(b), np.float32(c * dz * dz)
    a2, b2, c2 = np.float32(a * a), np.float32(b * b), np.float32(c * c * dz * dz)
    x0, y0 = np.float32(x0), np.float32(y0)
    distance = np.empty((j1 - j0, i1 - i0), np.float32)
    for j in range(j0, j1):
        dy = y_mm[j] - y0
        square_row, slope_row = b1 * dy * dy + c1, b2 * dy * dy + c2
        row = distance[j - j0]
        for i in range(i0, i1):
            dx = x_mm[i] - x0
            square, slope = a1 * dx * dx + square_row, a2 * dx * dx + slope_row
            root = np.sqrt(max(square, np.float32(1e-6)))
            row[i - i0] = (root - np.float32(1)) * root / np.sqrt(max(slope, np.float32(1e-9)))
    return j0, i0, distance


@compiled
def share_inside(distance: np.float32, edge: np.float32) -> np.float32:
    """Return the share of a pixel inside a shape, 0 to 1; see `canvas.coverage`. edge: 1 / width of the edge."""
    return min(max(np.float32(0.5) - distance * edge, np.float32(0)), np.float32(1))


@compiled
def cover(
    hu: np.ndarray, grain: np.ndarray, distance: np.ndarray, edge_mm: float, value: float, texture: float
) -> None:
    """Blend a box of a slice towards value + texture · grain by a shape's coverage, in place."""
    edge, middle, spread = np.float32(1 / edge_mm), np.float32(value), np.float32(texture)
    for j in range(hu.shape[0]):
        for i in range(hu.shape[1]):
            share = share_inside(distance[j, i], edge)
            hu[j, i] += share * (middle + spread * grain[j, i] - hu[j, i])


@compiled
def outline(
    radius: np.ndarray,
    cavity: np.ndarray,
    muscle: np.ndarray,
    fat: np.ndarray,
    lateral: np.ndarray,
    scales: tuple[np.float32, ...],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distances outside the cavity's wall and the skin, and the muscle's thickness.

    radius to lateral: What `Thorax` knows of each pixel's direction. scales: cavity, shoulder, muscle, fat.
    """
    cavity_scale, shoulder, muscle_scale, fat_scale = scales
    inner, skin, flesh = np.empty_like(radius), np.empty_like(radius), np.empty_like(radius)
    gap = np.float32(0.8) * (np.float32(1) - cavity_scale)
    for j in range(radius.shape[0]):
        for i in range(radius.shape[1]):
            inner[j, i] = radius[j, i] - cavity[j, i] * cavity_scale
            thickness = muscle[j, i] * muscle_scale + lateral[j, i] * (np.float32(24) * shoulder)
            flesh[j, i] = thickness + cavity[j, i] * gap
            outside = inner[j, i] - np.float32(13) - flesh[j, i]
            skin[j, i] = outside - fat[j, i] * fat_scale - lateral[j, i] * (np.float32(12) * shoulder)
    return inner, skin, flesh


@compiled
def mix(fields: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the sum of three fields [3, rows, columns] by their shares [3]."""
    rows, columns = fields.shape[1], fields.shape[2]
    total = np.empty((rows, columns), np.float32)
    for j in range(rows):
        for i in range(columns):
            total[j, i] = fields[0, j, i] * shares[0] + fields[1, j, i] * shares[1] + fields[2, j, i] * shares[2]
    return total


@compiled
def paint_wall(
    hu: np.ndarray,
    inner: np.ndarray,
    skin: np.ndarray,
    flesh: np.ndarray,
    grain: np.ndarray,
    gland: np.ndarray,
    values: tuple[np.float32, ...],
) -> None:
    """Paint skin, fat, gland and the layers of muscle of the chest wall, in place.

    gland: Share of gland in the fat. values: HU of skin, fat, gland, muscle.
    """
    skin_hu, fat_hu, gland_hu, muscle_hu = values
    muscle_edge = np.float32(1 / 1.6)
    for j in range(hu.shape[0]):
        for i in range(hu.shape[1]):
            if inner[j, i] <= -2 or skin[j, i] >= 2:
                continue
            spots, edge, value = grain[j, i], skin[j, i], hu[j, i]
            value += share_inside(edge, ONE) * (skin_hu - value)
            value += share_inside(edge + np.float32(1.8), ONE) * (fat_hu + spots * np.float32(7) - value)
            value += gland[j, i] * (gland_hu - value)
            depth, thickness = inner[j, i] - np.float32(13), flesh[j, i]
            share = share_inside(depth - thickness + spots * np.float32(0.8), muscle_edge)
            if share > 0:
                # Planes of fat between the muscles, and between them and the ribs.
                muscle_gap = (depth - np.float32(0.55) * thickness + np.float32(2) * spots) / np.float32(1.3)
                rib_gap = (depth + np.float32(1.5) + spots) / np.float32(1.6)
                share *= ONE - np.float32(0.75) * _bell(muscle_gap)
                share *= ONE - np.float32(0.7) * _bell(rib_gap)
                value += share * (muscle_hu + spots * np.float32(5) - value)
            hu[j, i] = value


@compiled
def _bell(x: np.float32) -> np.float32:
    return np.exp(-x * x) if x * x < 16 else np.float32(0)


@compiled
def paint_lungs(
    hu: np.ndarray,
    inner: np.ndarray,
    grain: np.ndarray,
    depth: np.ndarray,
    density: np.float32,
    slope: np.float32,
    emphysema_hu: np.float32,
) -> np.ndarray:
    """Paint the lungs in place, denser towards the back; returns their share of each pixel.

    inner: Distance outside the cavity's wall. depth: Pixel from front to back, 0 to 1. density: HU at depth .45.
    """
    lung = np.empty_like(hu)
    for j in range(hu.shape[0]):
        for i in range(hu.shape[1]):
            share = share_inside(inner[j, i], np.float32(1 / 1.2))
            lung[j, i] = share
            if share > 0:
                spots = grain[j, i]
                air = spots * np.float32(9) + slope * (depth[j, i] - np.float32(0.45)) + density
                holes = min(max(np.float32(1.5) * spots - np.float32(0.3), np.float32(0)), np.float32(1))
                hu[j, i] += share * (air - emphysema_hu * holes - hu[j, i])
    return lung


@compiled
def paint_ribs(
    hu: np.ndarray,
    inner: np.ndarray,
    front: np.ndarray,
    grain: np.ndarray,
    height_mm: float,
    measures: tuple[float, ...],
    half_depth_mm: tuple[float, ...],
    half_height_mm: tuple[float, ...],
    values: tuple[float, ...],
    calcified_hu: float,
) -> None:
    """Paint ribs and their cartilage, in place.

    Args:
        inner: Distance outside the cavity's wall.
        front: Direction of each pixel, 0 spine to 1 sternum.
        height_mm: Height of the slice above a rib's head.
        measures: Distance of ribs, their fall to the cartilage, and the direction where it begins.
        half_depth_mm, half_height_mm: Of cartilage and of bone.
        values: HU of cortical bone, marrow and cartilage.
        calcified_hu: HU of calcium in the cartilage's rim; 0 for none.
    """
    spacing, drop, border = measures
    cortical, marrow, cartilage = values
    for j in range(hu.shape[0]):
        for i in range(hu.shape[1]):
            if not -0.5 < inner[j, i] < 12 or front[j, i] >= 0.955:
                continue
            # Ribs fall from spine to the costochondral junction, cartilage rises again to the sternum.
            at = float(front[j, i])
            height = height_mm + drop * (at / border if at < border else 1 - 0.45 * (at - border) / 0.26)
            offset = height - spacing * np.rint(height / spacing)
            # Half a rib's height and its edge are less than 8 mm.
            if abs(offset) >= 8 or height <= -150 + drop * 0.4:
                continue
            kind = 0 if at > border else 1
            depth, offset = (inner[j, i] - 6.0) / half_depth_mm[kind], offset / half_height_mm[kind]
            distance = np.float32((np.sqrt(depth * depth + offset * offset) - 1) * 4.3)
            share, spots = share_inside(distance, np.float32(1)), grain[j, i]
            if share <= 0:
                continue
            if kind:
                core = share_inside(distance + np.float32(1.5), np.float32(1 / 0.9))
                value = cortical + core * (marrow + 40 * spots - cortical)
            else:
                value = cartilage + 15 * spots
                if calcified_hu:
                    rim = share_inside(abs(distance + np.float32(0.8)) - np.float32(0.8), np.float32(1 / 0.8))
                    rim *= min(max(0.4 + 0.7 * spots, 0.0), 1.5)
                    value += calcified_hu * (rim + 0.8 * min(max(spots - 0.9, 0.0), 1.0))
            hu[j, i] += share * np.float32(value - hu[j, i])


@numba.njit(nogil=True, cache=True)  # exact: a patient's lungs must not change
def grow_tree(
    gate: np.ndarray, ends: np.ndarray, bends: np.ndarray, step_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grow a vessel from a gate [3] to ends [n, 3], each from the nearest node so far, in steps.

    bends: Standard normal numbers [n, 3] by which each branch bends. Returns nodes [m, 3], the node before each, and
    the nodes [n] at the ends.
    """
    limit = 40 * len(ends)
    x, y, z, reach = np.empty(limit), np.empty(limit), np.empty(limit), np.empty(limit)
    parent, leaves = np.zeros(limit, np.int64), np.zeros(len(ends), np.int64)
    x[0], y[0], z[0], reach[0], count = gate[0], gate[1], gate[2], 0.0, 1
    for number in range(len(ends)):
        end = ends[number]
        shortest, start, distance = np.inf, 0, 0.0
        for n in range(count):
            dx, dy, dz = x[n] - end[0], y[n] - end[1], z[n] - end[2]
            gap = math.sqrt(dx * dx + dy * dy + dz * dz)
            # A detour through the trunk is cheaper than a new long vessel: 0.35 mm per mm already grown.
            length = gap + 0.35 * reach[n]
            if length < shortest:
                shortest, start, distance = length, n, gap
        steps = max(1, math.ceil(distance / step_mm))
        bend = 0.09 * distance * bends[number]
        before, grown = start, 0.0
        for n in range(1, steps + 1):
            t = n / steps
            arch = math.sin(math.pi * t)
            x[count] = x[start] * (1 - t) + end[0] * t + bend[0] * arch
            y[count] = y[start] * (1 - t) + end[1] * t + bend[1] * arch
            z[count] = z[start] * (1 - t) + end[2] * t + bend[2] * arch
            dx, dy, dz = x[count] - x[before], y[count] - y[before], z[count] - z[before]
            grown += math.sqrt(dx * dx + dy * dy + dz * dz)
            parent[count], reach[count], before = before, reach[start] + grown, count
            count += 1
        leaves[number] = before
    return np.stack((x[:count], y[:count], z[:count]), axis=1), parent[:count], leaves
