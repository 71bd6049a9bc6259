"""Slow forms in NumPy of the compiled inner loops of digital patients, with the same arguments."""

from __future__ import annotations

import numpy as np

from CACTrainingLib.phantom.anatomy.canvas import coverage
from CACTrainingLib.phantom.anatomy.hearts.shape import PARTS, WALL_MM


def tube_distance(x_mm, y_mm, z_mm, path_mm, radii_mm):
    """Return the distance to a tube in all pixels, [rows, columns]."""
    a, u = path_mm[:-1], np.diff(path_mm, axis=0)
    x, y = np.meshgrid(x_mm.astype(float), y_mm.astype(float))
    places = np.stack([x, y, np.full_like(x, z_mm)], axis=-1)
    nearest = np.full(x.shape, np.inf)
    for start, along, radius, change in zip(a, u, radii_mm[:-1], np.diff(radii_mm), strict=True):
        t = np.clip((places - start) @ along / max(along @ along, 1e-9), 0, 1)
        gap = np.linalg.norm(places - start - t[..., None] * along, axis=-1)
        nearest = np.minimum(nearest, gap - radius - t * change)
    return nearest


def ellipsoid_distance(x_mm, y_mm, z_mm, centre_mm, semi_axes_mm):
    """Return the distance to an ellipsoid to first order in all pixels, [rows, columns]."""
    x, y = np.meshgrid(x_mm.astype(float), y_mm.astype(float))
    offset = np.stack([x, y, np.full_like(x, z_mm)], axis=-1) - centre_mm
    square, slope = (np.square(offset / semi_axes_mm**power).sum(axis=-1) for power in (1, 2))
    root = np.sqrt(np.maximum(square, 1e-6))
    return (root - 1) * root / np.sqrt(np.maximum(slope, 1e-9))


def interpolate(table, shape, low_mm, step_mm, places_mm):
    """Interpolate a table [lattice points, columns] at points float32 [n, 3], clipped to its border."""
    place = (places_mm - low_mm) * np.float32(1 / step_mm)
    np.clip(place, 0, np.array(shape, np.float32) - np.float32(1.001), out=place)
    corner = place.astype(np.intp)
    x, y, z = (place - corner.astype(np.float32)).T
    flat = (corner[:, 0] * shape[1] + corner[:, 1]) * shape[2] + corner[:, 2]
    values = np.zeros((len(place), table.shape[1]), np.float32)
    for di, a in enumerate((1 - x, x)):
        for dj, b in enumerate((a * (1 - y), a * y)):
            for dk, c in enumerate((b * (1 - z), b * z)):
                values += table[flat + ((di * shape[1] + dj) * shape[2] + dk)] * c[:, None]
    return values


def reliefs(places_mm, waves, phases):
    """Return the heights [2, ...] of the two irregular surfaces at places [..., 3] of the heart's frame."""
    sines = np.sin(places_mm @ np.transpose(waves) + phases)
    return [part.sum(axis=-1) * np.sqrt(4 / len(phases)) for part in np.split(sines, 2, axis=-1)]


def paint_chambers(hu, lung, grain, inside, dx, dy, dz, axes, lattice, movement, tissue, around, waves, phases):
    """Paint fat, muscle and blood in a box of a slice, and update the share of lung, in place."""
    table, shape, low, inverse_step, _ = lattice
    ring_mm, inwards_mm, length = movement
    fat_hu, muscle_hu, blood_hu, softness = tissue
    pericardium_mm, fat_mm, most_relief, reach = around
    places = dy[:, None, None] * axes[1] + dx[None, :, None] * axes[0] + dz * axes[2]
    moved, along = places.copy(), places[..., 0] / length
    moved[..., 0] -= ring_mm * np.exp(-np.square((along + 0.15) / 0.55))
    flat = interpolate(table.reshape(-1, 8), shape, low, 1 / inverse_step, moved.reshape(-1, 3).astype(np.float32))
    steps = (moved.reshape(-1, 3) - low) * inverse_step
    flat += np.abs(steps - np.clip(steps, 0, np.array(shape) - 1.001)).sum(axis=1, keepdims=True) / inverse_step
    named = dict(zip(("pericardium", *PARTS), flat.T.reshape(8, *hu.shape), strict=True))
    if ring_mm or inwards_mm:
        inwards = inwards_mm * np.clip(0.6 + along, 0.2, 1)
        for name, share in (("pericardium", 0.6), ("lv_epi", 0.8), ("lv", 1.8), ("rv", 1.0)):
            named[name] = named[name] + share * inwards
    pericardium = named["pericardium"]
    walls = np.minimum.reduce([named["lv_epi"], *(named[name] - wall for name, wall in WALL_MM.items())])
    rooms = [named[name] for name in PARTS if name not in ("lv_epi", "rv")]
    blood = np.minimum.reduce([*rooms, np.maximum(named["rv"], -named["lv_epi"])])
    if pericardium_mm:
        is_near = np.abs(pericardium) < reach
        first, second = reliefs(places, waves, phases)
        front, down = np.clip(-dy / 50, 0, 1)[:, None], np.clip(-dz / 50, 0, 1)
        thickness = is_near * pericardium_mm * (1 + 0.5 * front) * np.clip(1 + 0.5 * first, 0.4, 2.5)
        fat = is_near * fat_mm * np.clip(0.3 + 0.6 * front + 0.4 * down + 0.5 * second, 0, most_relief)
        share = coverage((pericardium - thickness - fat + grain).astype(np.float32), 2.0) * lung
        hu += share * (fat_hu + 9 * grain - hu)
        lung -= share
    share = coverage((pericardium + 0.5 * grain).astype(np.float32), softness)
    inside[:] = coverage(pericardium.astype(np.float32))
    hu += share * (fat_hu + 6 * grain - hu)
    wall_share = coverage((walls + 0.4 * grain).astype(np.float32), softness)
    hu += wall_share * (muscle_hu + 3 * grain - hu)
    if pericardium_mm:
        line = 0.8 * coverage((np.abs(pericardium - thickness / 2) - thickness / 2).astype(np.float32), 0.8)
    else:
        line = 0.55 * np.clip(1.0 - np.abs(pericardium) / 1.3, 0, 1) * np.clip(1.3 - lung, 0, 1)
    hu += line * (1 - wall_share) * (40.0 - hu)
    hu += coverage(blood.astype(np.float32), softness + 0.3) * (blood_hu - hu)
    lung *= 1 - np.maximum(share, wall_share)


def paint_wall(hu, inner, skin, flesh, grain, gland, values):
    """Paint skin, fat, gland and the layers of muscle of the chest wall, in place."""
    skin_hu, fat_hu, gland_hu, muscle_hu = values
    at = (inner > -2) & (skin < 2)
    value, spots, depth = hu[at], grain[at], inner[at] - 13
    value += coverage(skin[at]) * (skin_hu - value)
    value += coverage(skin[at] + 1.8) * (fat_hu + spots * 7 - value)
    value += gland[at] * (gland_hu - value)
    share = coverage(depth - flesh[at] + spots * np.float32(0.8), 1.6)
    share *= 1 - 0.75 * np.exp(-np.square((depth - 0.55 * flesh[at] + 2 * spots) / 1.3))
    share *= 1 - 0.7 * np.exp(-np.square((depth + 1.5 + spots) / 1.6))
    hu[at] = value + share * (muscle_hu + spots * 5 - value)


def paint_lungs(hu, inner, grain, depth, density, slope, emphysema_hu):
    """Paint the lungs in place; returns their share of each pixel."""
    lung = coverage(inner, 1.2)
    air = grain * 9 + (slope * (depth - 0.45) + density) - emphysema_hu * np.clip(1.5 * grain - 0.3, 0, 1)
    hu += lung * (air - hu)
    return lung


def paint_ribs(hu, inner, front, grain, height_mm, measures, half_depth_mm, half_height_mm, values, calcified_hu):
    """Paint ribs and their cartilage, in place."""
    (spacing, drop, border), (cortical, marrow, cartilage) = measures, values
    fall = np.where(front < border, front / border, 1 - 0.45 * (front - border) / 0.26)
    height = height_mm + drop * fall
    offset = height - spacing * np.rint(height / spacing)
    is_rib = (inner > -0.5) & (inner < 12) & (height > -150 + drop * 0.4) & (front < 0.955) & (np.abs(offset) < 8)
    is_cartilage = front > border
    thickness, half_height = np.where(is_cartilage, *half_depth_mm), np.where(is_cartilage, *half_height_mm)
    distance = (np.sqrt(((inner - 6.0) / thickness) ** 2 + (offset / half_height) ** 2) - 1) * 4.3
    distance = distance.astype(np.float32)
    bone = cortical + coverage(distance + np.float32(1.5), 0.9) * (marrow + 40 * grain - cortical)
    rim = coverage(np.abs(distance + np.float32(0.8)) - np.float32(0.8), 0.8)
    spots = rim * np.clip(0.4 + 0.7 * grain, 0, 1.5) + 0.8 * np.clip(grain - 0.9, 0, 1)
    value = np.where(is_cartilage, cartilage + 15 * grain + calcified_hu * spots, bone)
    hu += is_rib * coverage(distance) * (value - hu)


def nearest_growth(gate, ends, bends, step_mm):
    """Grow a vessel from a gate [3] to ends [n, 3]; returns nodes, the node before each, and those at the ends."""
    nodes, reach, parent, leaves = [np.asarray(gate)], [0.0], [0], []
    for end, bend in zip(ends, bends, strict=True):
        distance = np.linalg.norm(np.array(nodes) - end, axis=1)
        start = int((distance + 0.35 * np.array(reach)).argmin())
        steps = max(1, int(np.ceil(distance[start] / step_mm)))
        before, origin, length = start, nodes[start], reach[start]
        for t in np.arange(1, steps + 1) / steps:
            place = origin * (1 - t) + end * t + 0.09 * distance[start] * bend * np.sin(np.pi * t)
            length += np.linalg.norm(place - nodes[before])
            nodes.append(place)
            reach.append(length)
            parent.append(before)
            before = len(nodes) - 1
        leaves.append(before)
    return np.array(nodes), np.array(parent), np.array(leaves)


def add_levels(spectrum, changes, views, shares, transfer):
    """Add to a slice's spectrum how it changes at levels of a movement, in place."""
    opposite = (views + shares.shape[1] // 2) % shares.shape[1]
    weights = np.stack([share[views] + share[opposite] for share in shares])
    spectrum += (weights[1:] / weights.sum(axis=0) * changes).sum(axis=0) * transfer


def moving_spectrum(spectra, views, shares, shifts, fx, fy):
    """Return the spectrum of points that move while views are taken."""
    total = np.zeros(views.shape, complex)
    for view in (views, (views + shares.shape[1] // 2) % shares.shape[1]):
        phase = np.exp(1j * (fx[None] * shifts[0][view] + fy[:, None] * shifts[1][view]))
        total += phase * sum(share[view] * spectrum for share, spectrum in zip(shares, spectra, strict=True))
    return total


def scatter(positions, weights, origin, pixel, image):
    """Add points to an image [rows, columns] in place, each shared by its four nearest pixels."""
    column, row = ((positions[:, axis] - origin[axis]) / pixel[axis] for axis in (0, 1))
    inside = (column >= 0) & (column < image.shape[1] - 1) & (row >= 0) & (row < image.shape[0] - 1)
    column, row, weights = column[inside], row[inside], weights[inside]
    i, j = column.astype(int), row.astype(int)
    s, t = column - i, row - j
    for di, across in enumerate((1 - s, s)):
        for dj, down in enumerate((1 - t, t)):
            np.add.at(image, (j + dj, i + di), weights * across * down)
