"""Sums of a CT's values along rays, compiled by Numba if installed, else by SciPy, slowly, with the same results.

A voxel counts max(low, min(high, value)) - low, so that converting HU to attenuation needs no copy of the CT; outside
the CT values are 0. Values are interpolated linearly in each plane, and planes are sums up (Joseph 1982,
doi:10.1109/TMI.1982.4307572).
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..core.processes import core_count
from .geometry import ProjectionError, Rays

BACKENDS = ("numba", "scipy")

_COLUMNS, _RAYS = (64, 512), 16384
"""Least and most columns, and most rays, that a thread processes at once within the processor's cache."""


def sums_along(
    volume: np.ndarray, rays: Rays, low: float, high: float, backend: str | None = None, threads: int | None = None
) -> np.ndarray:
    """Compute Σ (value - low) · mm along each ray, float32 [row, column].

    Args:
        volume: [k, j, i], real.
        rays: The rays of the view.
        low: Lower limit of values, counted as 0.
        high: Upper limit of values.
        backend: One of BACKENDS; None for the first installed.
        threads: Number of threads; None for all cores.

    Raises:
        ProjectionError: The view cannot be projected.
    """
    backend = backend or available_backends()[0]
    if backend not in available_backends():
        raise ProjectionError(f"There is no backend {backend!r} here, but {', '.join(available_backends())}.")
    limits = np.float32(low), np.float32(high)
    if backend == "scipy":
        sums = _by_scipy(volume, rays, *limits)
    else:
        sums = _by_numba(volume, rays, *limits, threads or core_count())
    sums *= rays.step_mm
    return sums


def available_backends() -> tuple[str, ...]:
    """Backends that are installed.

    Returns:
        Those of BACKENDS, the fastest first.
    """
    return tuple(name for name in BACKENDS if importlib.util.find_spec(name))


def _by_numba(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32, threads: int) -> np.ndarray:
    from . import kernels

    shape = rays.step_mm.shape
    out = np.empty(shape, np.float32)
    # The other kernel does planes across k; no chest view looks along it.
    scaled = rays.separable and rays.main < 2
    transposed = np.moveaxis(volume, 2 - rays.main, 1)  # [second, plane, first]
    depth = kernels.PLANES_AT_ONCE if rays.main == 0 else 1

    def columns(part: slice) -> None:
        sums = np.empty((shape[0], part.stop - part.start), np.float32)
        first, first_slope = (table[0, part].copy() for table in (rays.first, rays.first_slope))
        second, second_slope = (table[:, 0].copy() for table in (rays.second, rays.second_slope))
        kernels.add_scaled_planes(volume, rays.main, low, high, first, first_slope, second, second_slope, sums)
        out[:, part] = sums

    def rows(part: slice) -> None:
        tables = (rays.first, rays.first_slope, rays.second, rays.second_slope)
        first, first_slope, second, second_slope = (np.array(np.broadcast_to(table, shape)[part]) for table in tables)
        kernels.add_planes(transposed, depth, low, high, first, first_slope, second, second_slope, out[part])

    band = min(max(-(-shape[1] // threads), _COLUMNS[0]), _COLUMNS[1])
    length, size = (shape[1], band) if scaled else (shape[0], max(1, _RAYS // shape[1]))
    parts = [slice(begin, min(begin + size, length)) for begin in range(0, length, size)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(columns if scaled else rows, parts))
    return out


def _by_scipy(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32) -> np.ndarray:
    from scipy import ndimage

    axis = 2 - rays.main
    out = np.zeros(rays.step_mm.shape, np.float32)
    for n in range(volume.shape[axis]):
        plane = np.clip(volume.take(n, axis).astype(np.float32), low, high) - low
        if plane.any():
            rows, columns = rays.second + n * rays.second_slope, rays.first + n * rays.first_slope
            places = [np.broadcast_to(rows, out.shape), np.broadcast_to(columns, out.shape)]
            out += ndimage.map_coordinates(plane, places, order=1, mode="grid-constant")
    return out
