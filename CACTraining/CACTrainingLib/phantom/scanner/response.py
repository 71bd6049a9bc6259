"""Image of a cloud of points in filtered back-projection, still or moving.

By the central slice theorem the views taken from angle θ fix the image's Fourier transform along the line at θ.
A point that sits at x + d(t) while that view is taken therefore contributes exp(-2πi f·(x + d(t(θ)))) there: motion is
one phase factor per direction, exact in the number of views, and gives blur, crescents and stars alike. This equals
the sum over view angles of the ramp-filtered point spread at the place the point had in that view.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from CACScoringLib.core.grid import Grid

from ..anatomy.points import PointCloud
from .scanner import SLAB_MM, Scanner

Displacement = Callable[[np.ndarray], np.ndarray]
"""Function from times in seconds [...] to displacements in mm [..., 3]."""

NYQUIST_PER_MM = 1.1
"""Highest frequency of a patch before it is sampled at the scan's pixels, as scanners do."""

STILL_MARGIN_MM = 5.0
MOVING_MARGIN_MM = 22.0
STREAK_MARGIN_MM = 50.0
"""Borders around a patch in mm, in which point spread, stars of motion and streaks of metal decay."""

_TAPER_MM = 8.0
"""Border in mm in which stars of motion, which extend beyond any patch, fade to avoid edges."""
_VIEWS = 180
_DIRECTIONS = 4096
_SHAPE_STEP = 12
_Z_LEVELS_MM = 0.25


@dataclass(frozen=True)
class Stamp:
    """Patch of one slice: values [rows, columns] in HU, or the weights' unit per mm³, at slice k, row j, column i."""

    k: int
    j: int
    i: int
    values: np.ndarray


def image_of_points(
    cloud: PointCloud,
    grid: Grid,
    scanner: Scanner,
    displacement: Displacement | None = None,
    view_gain: np.ndarray | None = None,
) -> list[Stamp]:
    """Compute the image of a cloud on a grid, slice by slice.

    Args:
        cloud: Points. The image's sum over voxels × voxel volume is the sum of weights for a still cloud inside the
            grid (to the ripple of the slice profile sampled at the spacing).
        displacement: Common motion of all points in mm by time in s; None for still points.
        view_gain: Relative weight of each view direction over half a turn [n], of mean 1, which gives the streaks of
            inconsistent views.
    """
    z = grid.axes_mm()[2]
    times = slice_times_s(grid, scanner)
    stamps = []
    for k in range(grid.shape[0]):
        gantry = scanner.start_phase + times[k] / scanner.rotation_s
        view_shifts = None if displacement is None else displacement(view_times_s(scanner, times[k]))
        stamp = _slice_stamp(cloud, grid, scanner, k, z[k], view_shifts, gantry, view_gain)
        if stamp is not None:
            stamps.append(stamp)
    return stamps


def slice_times_s(grid: Grid, scanner: Scanner) -> np.ndarray:
    """Return the scan time of each slice's middle, s after the first slice (gated: after the R peak before it)."""
    along = grid.axes_mm()[2] - grid.origin_mm[2]
    if scanner.gate_phase is not None:
        return (np.floor(along / SLAB_MM) + scanner.gate_phase) * scanner.beat_s
    return along / scanner.table_speed_mm_s


def view_times_s(scanner: Scanner, middle_s: float) -> np.ndarray:
    """Return the times at which a slice's views [n] over a whole turn are taken. middle_s: the slice's time."""
    angles = np.arange(_VIEWS) * 2 * math.pi / _VIEWS
    gantry = scanner.start_phase + middle_s / scanner.rotation_s
    lag = np.mod(angles / (2 * math.pi) - gantry + 0.5, 1.0) - 0.5
    return middle_s + lag * scanner.rotation_s


def levels_of_views(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` equally spaced levels of the views' values [views], and each view's linear share in them."""
    low, high = float(values.min()), float(values.max())
    if count == 1:
        return np.array([values.mean()]), np.ones((1, len(values)))
    levels = np.linspace(low, high, count)
    return levels, np.maximum(0.0, 1.0 - np.abs(values[None] - levels[:, None]) / (levels[1] - levels[0]))


def add_levels(
    spectrum: np.ndarray,
    changes: list[np.ndarray],
    rows: slice,
    pixel_mm: float,
    scanner: Scanner,
    middle_s: float,
    share: np.ndarray,
    transfer: np.ndarray,
) -> np.ndarray:
    """Add to a slice's filtered spectrum what changes at levels of a movement; returns each level's weight, of sum 1.

    Args:
        spectrum: At the first level, complex64 [rows, columns / 2 + 1]; changed in place.
        changes: What differs at each other level, in some rows of the slice [rows, columns].
        rows: Rows of the changes.
        share: Each view's share in the levels [levels, views] (`levels_of_views`).
        transfer: The slice's transfer function.
    """
    from .compiled import add_levels as add

    shape = (spectrum.shape[0], changes[0].shape[1])
    plane = _frequency_plane(shape, pixel_mm, scanner)
    shares = np.stack([_by_direction(s) for s in share]) * _view_weights(
        scanner, scanner.start_phase + middle_s / scanner.rotation_s
    )
    parts = np.zeros((len(changes), *spectrum.shape), np.complex64)
    for part, change in zip(parts, changes, strict=True):
        part[rows] = fft.rfft(change)
    parts = fft.fft(parts, axis=1, overwrite_x=True)
    # Zero frequency has no direction: use the mean of all views.
    weights = shares.mean(axis=1) / shares.mean(axis=1).sum()
    middle = spectrum[0, 0] + transfer[0, 0] * (weights[1:] @ parts[:, 0, 0])
    add(spectrum, parts, plane.views, shares, transfer)
    spectrum[0, 0] = middle
    return weights


def _view_weights(scanner: Scanner, gantry: float) -> np.ndarray:
    """Return the weight of each of _DIRECTIONS; that of two opposite views is 1 together."""
    turn = np.arange(_DIRECTIONS) / _DIRECTIONS
    weights = _half_scan_weight(turn - gantry) if scanner.half_scan else np.full(_DIRECTIONS, 0.5)
    return weights.astype(np.float32)


def add_stamps(volume: np.ndarray, stamps: list[Stamp], factor: float = 1.0) -> None:
    """Add patches to a volume [k, j, i] in place, clipped to it."""
    for stamp in stamps:
        add_stamp(volume[stamp.k], stamp, factor)


def add_stamp(picture: np.ndarray, stamp: Stamp, factor: float | np.floating = 1.0) -> None:
    """Add a patch to its slice [j, i] in place."""
    rows, columns = stamp.values.shape
    j0, j1 = max(0, stamp.j), min(picture.shape[0], stamp.j + rows)
    i0, i1 = max(0, stamp.i), min(picture.shape[1], stamp.i + columns)
    if j0 < j1 and i0 < i1:
        patch = stamp.values[j0 - stamp.j : j1 - stamp.j, i0 - stamp.i : i1 - stamp.i]
        picture[j0:j1, i0:i1] += factor * patch


def _slice_stamp(
    cloud: PointCloud,
    grid: Grid,
    scanner: Scanner,
    k: int,
    z_mm: float,
    view_shifts: np.ndarray | None,
    gantry: float,
    view_gain: np.ndarray | None,
) -> Stamp | None:
    reach = scanner.profile_reach_mm
    dz = np.zeros(1) if view_shifts is None else view_shifts[:, 2]
    height = cloud.positions_mm[:, 2] - z_mm
    in_slice = (height + dz.max() > -reach) & (height + dz.min() < reach)
    if not in_slice.any():
        return None
    positions, weights, height = cloud.positions_mm[in_slice], cloud.weights[in_slice], height[in_slice]
    margin = STILL_MARGIN_MM if view_shifts is None else MOVING_MARGIN_MM
    if view_gain is not None:
        margin = STREAK_MARGIN_MM
    if view_shifts is not None:
        margin += float(np.abs(view_shifts[:, :2]).max())
    pixel = grid.spacing_mm[0]
    fine = max(1, math.ceil(2 * NYQUIST_PER_MM * pixel))
    column = (positions[:, 0] - grid.origin_mm[0]) / pixel
    row = (positions[:, 1] - grid.origin_mm[1]) / grid.spacing_mm[1]
    border = math.ceil(margin / pixel)
    i0, j0 = math.floor(column.min()) - border, math.floor(row.min()) - border
    # Few different shapes, so that their frequencies are computed once.
    columns = _fast_length(math.ceil(column.max()) + border - i0 + 1)
    rows = _fast_length(math.ceil(row.max()) + border - j0 + 1)
    if i0 + columns <= 0 or j0 + rows <= 0 or i0 >= grid.shape[2] or j0 >= grid.shape[1]:
        return None
    shape = (rows * fine, columns * fine)
    place = ((row - j0) * fine, (column - i0) * fine)
    plane = _frequency_plane(shape, pixel / fine, scanner)
    levels, share = _z_levels(dz)
    points = _spread(place, weights * scanner.profile(height + levels[:, None]), shape)
    spectra = np.zeros((len(levels), rows * fine, columns * fine // 2 + 1), np.complex64)
    # Most rows hold no point.
    point_rows = slice(int(place[0].min()) - 1, int(place[0].max()) + 3)
    spectra[:, point_rows] = fft.rfft(points[:, point_rows])
    spectra = fft.fft(spectra, axis=1, overwrite_x=True)
    spectrum = spectra[0]
    if view_shifts is not None:
        spectrum = _moving_spectrum(spectra, share, view_shifts, plane, _view_weights(scanner, gantry))
    system = plane.system
    if view_gain is not None:
        gain = _by_direction(view_gain)[plane.views % (_DIRECTIONS // 2) * 2]
        gain[0, 0] = 1.0
        system = system * gain
    filtered = fft.ifft(spectrum * system, axis=0, overwrite_x=True)[::fine]
    values = fft.irfft(filtered, shape[1])[:, ::fine].astype(np.float32)
    if margin > STILL_MARGIN_MM:
        values *= _taper(rows, pixel)[:, None] * _taper(columns, pixel)[None, :]
    return Stamp(k, j0, i0, values)


def _taper(count: int, pixel_mm: float) -> np.ndarray:
    """1 inside, falling to 0 over _TAPER_MM at both ends."""
    edge = (np.minimum(np.arange(count), np.arange(count)[::-1]) + 0.5) * pixel_mm / _TAPER_MM
    return np.square(np.sin(0.5 * math.pi * np.minimum(edge, 1.0))).astype(np.float32)


def _fast_length(least: int) -> int:
    return fft.next_fast_len(math.ceil(least / _SHAPE_STEP) * _SHAPE_STEP, real=True)


@dataclass(frozen=True)
class _FrequencyPlane:
    """Half plane of a patch's frequencies.

    Attributes:
        fx: Frequencies in 1/mm [1, columns].
        fy: Frequencies in 1/mm [rows, 1].
        views: Index in _DIRECTIONS of one of the two opposite views that see a frequency [rows, columns].
        system: Transfer function.
    """

    fx: np.ndarray
    fy: np.ndarray
    views: np.ndarray
    system: np.ndarray


@lru_cache(maxsize=256)
def _frequency_plane(shape: tuple[int, int], step_mm: float, scanner: Scanner) -> _FrequencyPlane:
    fy = np.fft.fftfreq(shape[0], step_mm).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(shape[1], step_mm).astype(np.float32)[None, :]
    correction = _spline_transfer(fy * step_mm) * _spline_transfer(fx * step_mm)
    system = (scanner.transfer(np.hypot(fy, fx)) / correction / step_mm**2).astype(np.float32)
    views = np.rint(np.arctan2(fy, fx) * (_DIRECTIONS / (2 * math.pi))).astype(np.intp) % _DIRECTIONS
    return _FrequencyPlane(fx, fy, views, system)


def _z_levels(dz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return heights at which the slice is evaluated, and each view's linear share in them [levels, views]."""
    low, high = float(dz.min()), float(dz.max())
    count = 1 if high - low < _Z_LEVELS_MM else min(5, 2 + int((high - low) / 1.5))
    return levels_of_views(dz, count)


def _moving_spectrum(
    spectra: np.ndarray, share: np.ndarray, view_shifts: np.ndarray, plane: _FrequencyPlane, weights: np.ndarray
) -> np.ndarray:
    """Return the spectrum of moving points. share: as in `add_levels`. weights: one a direction (`_view_weights`)."""
    from .compiled import moving_spectrum

    shifts = np.stack([_by_direction(-2 * math.pi * view_shifts[:, axis]) for axis in (0, 1)])
    shares = np.stack([_by_direction(s) for s in share]) * weights
    total = moving_spectrum(spectra, plane.views, shares, shifts, plane.fx[0], plane.fy[:, 0])
    # Zero frequency has no direction: use the mean of all views.
    total[0, 0] = 2 * shares.mean(axis=1) @ spectra[:, 0, 0]
    return total


def _half_scan_weight(turn: np.ndarray) -> np.ndarray:
    """Return a view's weight from its distance in turns from the middle of the scan; w(t) + w(t + 1/2) = 1.

    1 over half a turn, with soft ends.
    """
    distance = np.abs(np.mod(turn + 0.5, 1.0) - 0.5)
    return np.clip((0.25 - distance) / 0.1 + 0.5, 0.0, 1.0)


def _by_direction(values: np.ndarray) -> np.ndarray:
    """Interpolate values at equal steps of a turn to _DIRECTIONS, float32."""
    turn = np.arange(_DIRECTIONS) * (len(values) / _DIRECTIONS)
    return np.interp(turn, np.arange(len(values) + 1), np.append(values, values[0])).astype(np.float32)


def _spread(place: tuple[np.ndarray, np.ndarray], weights: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Spread points on a grid by cubic B-splines, for each set of weights [sets, points].

    `_spline_transfer` is the blur. Returns float32 [sets, rows, columns].
    """
    (rows, down), (columns, across) = (_cubic_spline(coordinates) for coordinates in place)
    index = (rows[:, None] * shape[1] + columns[None]).ravel()
    share = down[:, None] * across[None]
    size = shape[0] * shape[1]
    sums = [np.bincount(index, (share * point_weights).ravel(), minlength=size) for point_weights in weights]
    return np.array(sums, np.float32).reshape(-1, *shape)


def _cubic_spline(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the four nearest samples [4, points] of each place, and its share in each."""
    base = np.floor(place)
    t = place - base
    s = 1 - t
    parts = np.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3]) / 6
    return base.astype(np.intp) + np.arange(-1, 3)[:, None], parts


def _spline_transfer(cycles_per_sample: np.ndarray) -> np.ndarray:
    return np.sinc(cycles_per_sample) ** 4
