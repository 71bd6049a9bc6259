"""Size of the vertebrae behind the heart, by which a wrong pixel or slice spacing shows.

The spine is straightened slice by slice. Along it bone repeats with every vertebra; across it the mean of its slices
shows a vertebral body and the canal behind it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..core.ct import CTScan

WIDTH_MM = 17.0, 28.5
"""Mean width of vertebral body and canal in adults, as in Resources/Warnings."""

BONE_HU, MUSCLE_HU = 150.0, 60.0
"""Bottom of bone in the search for the spine; muscle, from which the edge of bone is half way up."""

MARGIN_MM, COLUMN_MM, REACH_MM, SPINE_MM = 25.0, 60.0, 42.0, 36.0
"""Distance above and below the heart that is used, length over which the spine is straight, half side of the square
around it, and its width."""

STRIP_MM, BLOCK_MM, TREND_MM = 3.0, 8.0, 15.0
"""Pixels of the search, blocks that repeat along the spine, and length over which their trend is taken away."""

PITCH_RANGE_MM, MIN_CORRELATION = (8.0, 65.0), 0.12
"""Range in which the distance of vertebrae is sought, and least correlation at it: 0.16 and more in 17 scans."""

NEAR_HIGHEST = 0.8
"""Share of the highest correlation from which a shorter distance is taken: at two vertebrae all repeats, too, and in
digital patients more alike than at one (0.91 and 0.85)."""

MIN_CANAL = 60.0
"""Least depth of the canal in the mean section, HU."""

BODY_MM, CANAL_MM, SMOOTH_MM = 22.0, 18.0, 1.5
"""Half widths within which the edges of body and canal lie, and SD of smoothing in the section."""


def vertebrae(scan: CTScan, heart: np.ndarray) -> tuple[float | None, float | None]:
    """Measure the vertebrae behind a heart.

    Args:
        scan: An unenhanced CT.
        heart: Mask on the scan's grid, bool [k, j, i].

    Returns:
        Distance of vertebrae along the spine, and the geometric mean of the widths of vertebral body and canal, mm;
        None where the scan does not show them.
    """
    spacing_mm = scan.image.GetSpacing()
    column = _straightened(scan.hu, spacing_mm, heart)
    if column is None:
        return None, None
    width_mm = _width_mm(column, spacing_mm)
    if width_mm is None:
        # Vertebrae twice as large leave the square in which they are sought.
        halved = (spacing_mm[0] / 2, spacing_mm[1] / 2, spacing_mm[2])
        column_of_half = _straightened(scan.hu, halved, heart)
        half_mm = None if column_of_half is None else _width_mm(column_of_half, halved)
        width_mm = 2 * half_mm if half_mm is not None and WIDTH_MM[0] <= half_mm <= WIDTH_MM[1] else None
    return _pitch_mm(column, spacing_mm), width_mm


def _straightened(hu: np.ndarray, spacing_mm: tuple[float, ...], heart: np.ndarray) -> np.ndarray | None:
    """Return squares around the spine in the slices of the heart, HU [k, j, i]; None if it is not in view."""
    step_i, step_j, step_k = spacing_mm
    slices, rows = np.flatnonzero(heart.any((1, 2))), np.flatnonzero(heart.any((0, 2)))
    margin = round(MARGIN_MM / step_k)
    hu = hu[max(0, slices[0] - margin) : slices[-1] + margin + 1]
    stride_j, stride_i = (max(1, round(STRIP_MM / step)) for step in (step_j, step_i))
    bone = (hu[:, ::stride_j, ::stride_i] > BONE_HU).astype(np.float32)
    bone[:, : (rows[0] + rows[-1]) // 2 // stride_j] = 0
    size = round(SPINE_MM / (step_j * stride_j)), round(SPINE_MM / (step_i * stride_i))
    length = min(len(hu), max(1, round(COLUMN_MM / step_k)))
    density = ndimage.uniform_filter(bone, (length, *size), mode="nearest")
    start = np.unravel_index(density.mean(0).argmax(), density.shape[1:])
    box = tuple(slice(max(0, place - n // 2), place + n // 2 + 1) for place, n in zip(start, size, strict=True))
    part = density[(slice(None), *box)]
    if not part.any():
        return None
    place = np.column_stack(np.unravel_index(part.reshape(len(part), -1).argmax(1), part.shape[1:]))
    place = (place + [side.start for side in box]) * (stride_j, stride_i)
    path = np.rint(ndimage.gaussian_filter1d(place.astype(float), COLUMN_MM / 2 / step_k, axis=0)).astype(int)
    if np.median(hu.shape[1] - 1 - path[:, 0]) * step_j < SPINE_MM / 4:
        return None  # the field ends in front of the spine; other bone repeats otherwise
    reach = round(REACH_MM / step_j), round(REACH_MM / step_i)
    padded = np.pad(hu, ((0, 0), (reach[0],) * 2, (reach[1],) * 2), constant_values=-1000)
    squares = [
        plane[j : j + 2 * reach[0] + 1, i : i + 2 * reach[1] + 1] for plane, (j, i) in zip(padded, path, strict=True)
    ]
    return np.clip(np.stack(squares).astype(np.float32), 0, 400)


def _pitch_mm(column: np.ndarray, spacing_mm: tuple[float, ...]) -> float | None:
    """Return the distance along a straightened spine after which it repeats."""
    step_mm = spacing_mm[2]
    block = [max(1, round(BLOCK_MM / step)) for step in spacing_mm[1::-1]]
    rows, columns = (size // n for size, n in zip(column.shape[1:], block, strict=True))
    blocks = column[:, : rows * block[0], : columns * block[1]].reshape(len(column), rows, block[0], columns, block[1])
    bone = blocks.mean((2, 4)).reshape(len(column), -1)
    bone = bone - ndimage.gaussian_filter1d(bone, TREND_MM / step_mm, axis=0, mode="nearest")
    lags = np.arange(min(len(bone) * 3 // 4, round(PITCH_RANGE_MM[1] / step_mm) + 2))
    if len(lags) < 5:
        return None
    pairs = [(bone[: len(bone) - lag], bone[lag:]) for lag in lags]
    correlation = [(a * b).sum() / max(1e-3, np.sqrt((a * a).sum() * (b * b).sum())) for a, b in pairs]
    mm = np.arange(0, lags[-1] * step_mm, 0.25)
    curve = ndimage.map_coordinates(np.array(correlation), [mm / step_mm], mode="mirror")  # cubic; it is even
    is_peak = (curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:]) & (mm[1:-1] >= PITCH_RANGE_MM[0])
    heights = np.where(is_peak, curve[1:-1], -1.0)
    highest = heights.max(initial=-1.0)
    return float(mm[1 + np.argmax(heights >= NEAR_HIGHEST * highest)]) if highest >= MIN_CORRELATION else None


def _width_mm(column: np.ndarray, spacing_mm: tuple[float, ...]) -> float | None:
    """Return the geometric mean of the widths of vertebral body and canal in the mean section of a spine."""
    step_i, step_j, _ = spacing_mm
    section = ndimage.gaussian_filter(column.mean(0), (SMOOTH_MM / step_j, SMOOTH_MM / step_i))
    width = section.shape[1]
    middle = max(range(width // 3, width - width // 3), key=lambda i: _symmetry(section, i, round(35 / step_i)))
    half_strip = round(2 / step_i)
    profile = section[:, middle - half_strip : middle + half_strip + 1].mean(1)
    front = int(np.argmax(profile > (MUSCLE_HU + np.percentile(profile, 90)) / 2))
    depths = [min(profile[front : j + 1].max(), profile[j:].max()) - profile[j] for j in range(front, len(profile))]
    canal = front + int(np.argmax(depths))
    if max(depths) < MIN_CANAL:
        return None
    rows = round(2 / step_j)
    body_row, canal_row = (section[max(0, j - rows) : j + rows + 1].mean(0) for j in ((front + canal) // 2, canal))
    body = canal_width = 0.0
    for side in (slice(middle, None), slice(middle, None, -1)):
        body += _outer_edge(body_row[side], round(BODY_MM / step_i)) * step_i
        half = canal_row[side]
        canal_width += _crossing(half, (half[0] + half[: round(CANAL_MM / step_i) + 1].max()) / 2) * step_i
    return float(np.sqrt(body * canal_width))


def _symmetry(section: np.ndarray, middle: int, reach: int) -> float:
    """Return the correlation of a section with its mirror image at a column."""
    reach = min(middle, section.shape[1] - 1 - middle, reach)
    part = section[:, middle - reach : middle + reach + 1]
    return float(np.corrcoef(part.ravel(), part[:, ::-1].ravel())[0, 1])


def _outer_edge(values: np.ndarray, reach: int) -> float:
    """Return where values fall half way from their peak to muscle, in pixels from the first."""
    peak = int(values[: reach + 1].argmax())
    falling = values[peak:]
    return peak + _crossing(-falling, -(MUSCLE_HU + falling[0]) / 2)


def _crossing(rising: np.ndarray, level: float) -> float:
    """Return the first place at which values pass a level, or their end."""
    n = int(np.argmax(rising > level))
    if not n:
        return float(len(rising) - 1) if rising[0] <= level else 0.0
    return n - 1 + float((level - rising[n - 1]) / (rising[n] - rising[n - 1]))
