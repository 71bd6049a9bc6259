"""Sums of a CT's values along rays, compiled by Numba if installed, else by SciPy.

A voxel counts max(low, min(high, value)) - low, so that converting HU to attenuation needs no copy of the CT; outside
the CT values are 0. Values are interpolated linearly in each plane, and planes are summed (Joseph 1982,
doi:10.1109/TMI.1982.4307572).

`cac drr` and the panel need no extra, so SciPy projects without Numba, which comes with the studies: several times
slower, with the same results.
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from ..core.processes import core_count
from .geometry import Rays

_RAYS = 16384
"""Most rays that a thread processes at once, within the processor's cache."""


def sums_along(volume: np.ndarray, rays: Rays, low: float, high: float) -> np.ndarray:
    """Compute Σ (value - low) · mm along each ray, float32 [row, column].

    Args:
        volume: [k, j, i], real.
        rays: The rays of the view.
        low: Lower limit of values, counted as 0.
        high: Upper limit of values.
    """
    add_planes = add_planes_compiled if importlib.util.find_spec("numba") else add_planes_by_scipy
    return add_planes(volume, rays, np.float32(low), np.float32(high)) * rays.step_mm


def add_planes_compiled(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32) -> np.ndarray:
    """Sum the values where rays meet planes, float32 [row, column], in parts of the picture on all cores."""
    from . import kernels

    rows, columns = rays.step_mm.shape
    out = np.empty((rows, columns), np.float32)
    planes = np.moveaxis(volume, 2 - rays.main, 1)  # [second, plane, first]
    depth = kernels.PLANES_AT_ONCE if rays.main == 0 else 1

    def add(part: slice) -> None:
        tables = (rays.first[part], rays.first_slope[part], rays.second[part], rays.second_slope[part])
        kernels.add_planes(planes, depth, low, high, *tables, out[part])

    count = max(1, _RAYS // columns)
    with ThreadPoolExecutor(core_count()) as pool:
        list(pool.map(add, [slice(begin, begin + count) for begin in range(0, rows, count)]))
    return out


def add_planes_by_scipy(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32) -> np.ndarray:
    """Sum the values where rays meet planes, float32 [row, column]."""
    axis = 2 - rays.main
    out = np.zeros(rays.step_mm.shape, np.float32)
    for n in range(volume.shape[axis]):
        plane = np.clip(volume.take(n, axis).astype(np.float32), low, high) - low
        if plane.any():
            places = [rays.second + n * rays.second_slope, rays.first + n * rays.first_slope]
            out += ndimage.map_coordinates(plane, places, order=1, mode="grid-constant")
    return out
