"""Sums of a CT's values along rays: compiled (Numba) where it is installed, else PyTorch, else NumPy; all the same.

A voxel counts max(low, min(high, value)) - low, so that turning HU into attenuation needs no copy of the CT; beyond
the CT there is nothing. Between voxels of a plane values are linear, and planes are summed up (Joseph 1982,
doi:10.1109/TMI.1982.4307572).
"""

from __future__ import annotations

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .projection_geometry import ProjectionError, Rays

BACKENDS = ("numba", "torch", "numpy")

_COLUMNS, _RAYS = (64, 512), 16384
"""Fewest and most columns, and most rays, that one thread works on at a time: what it needs stays in the cache."""


def sums_along(
    volume: np.ndarray, rays: Rays, low: float, high: float, backend: str | None = None, threads: int | None = None
) -> np.ndarray:
    """Σ (value - low) · mm along each ray, float32 [row, column].

    volume: [k, j, i], real. low, high: what values below and above count as. backend: one of BACKENDS; None is the
    first that is installed. threads: None is all cores. Raises ProjectionError.
    """
    backend = backend or available_backends()[0]
    if backend not in available_backends():
        raise ProjectionError(f"There is no backend {backend!r} here, but {', '.join(available_backends())}.")
    limits = np.float32(low), np.float32(high)
    if backend == "torch":
        sums = _by_torch(volume, rays, *limits)
    elif backend == "numpy":
        sums = _by_numpy(volume, rays, *limits)
    else:
        sums = _by_numba(volume, rays, *limits, threads or _cores())
    sums *= rays.step_mm
    return sums


def available_backends() -> tuple[str, ...]:
    """Those of BACKENDS that are installed, the fastest first."""
    return tuple(name for name in BACKENDS if importlib.util.find_spec(name))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _by_numba(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32, threads: int) -> np.ndarray:
    from . import projection_kernels as kernels

    shape = rays.step_mm.shape
    out = np.empty(shape, np.float32)
    # Planes across k are left to the other kernel: no view of a chest looks along it.
    scaled = rays.separable and rays.main < 2
    turned = np.moveaxis(volume, 2 - rays.main, 1)  # [second, plane, first]
    depth = kernels.PLANES_AT_ONCE if rays.main == 0 else 1
    tables = (rays.first, rays.first_slope, rays.second, rays.second_slope)

    def columns(part: slice) -> None:
        summed = np.empty((shape[0], part.stop - part.start), np.float32)
        for_part = (*(table[0, part].copy() for table in tables[:2]), *(table[:, 0].copy() for table in tables[2:]))
        kernels.add_scaled_planes(volume, rays.main, low, high, *for_part, summed)
        out[:, part] = summed

    def rows(part: slice) -> None:
        for_part = (np.array(np.broadcast_to(table, shape)[part]) for table in tables)
        kernels.add_planes(turned, depth, low, high, *for_part, out[part])

    band = min(max(-(-shape[1] // threads), _COLUMNS[0]), _COLUMNS[1])
    length, size = (shape[1], band) if scaled else (shape[0], max(1, _RAYS // shape[1]))
    parts = [slice(begin, min(begin + size, length)) for begin in range(0, length, size)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(columns if scaled else rows, parts))
    return out


def _by_torch(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32) -> np.ndarray:
    import torch
    from torch.nn.functional import grid_sample

    axis = 2 - rays.main
    shape = [n for a, n in enumerate(volume.shape) if a != axis]
    tables = [torch.from_numpy(np.array(t)) for t in (rays.first, rays.first_slope, rays.second, rays.second_slope)]
    first, first_slope, second, second_slope = tables
    out = torch.zeros(rays.step_mm.shape)
    with torch.inference_mode():
        for n in range(volume.shape[axis]):
            plane = torch.from_numpy(_counted(volume.take(n, axis), low, high))
            place = torch.stack(
                torch.broadcast_tensors(
                    (first + n * first_slope + 0.5) * (2 / shape[1]) - 1,
                    (second + n * second_slope + 0.5) * (2 / shape[0]) - 1,
                ),
                -1,
            )
            out += grid_sample(plane[None, None], place[None], padding_mode="zeros", align_corners=False)[0, 0]
    return out.numpy()


def _by_numpy(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32) -> np.ndarray:
    axis = 2 - rays.main
    out = np.zeros(rays.step_mm.shape, np.float32)
    for n in range(volume.shape[axis]):
        plane = np.pad(_counted(volume.take(n, axis), low, high), (1, 2))
        columns, right = _cell(rays.first + n * rays.first_slope, plane.shape[1])
        rows, down = _cell(rays.second + n * rays.second_slope, plane.shape[0])
        if rays.separable:
            wide = plane[:, columns[0]] * (1 - right) + plane[:, columns[0] + 1] * right
            out += wide[rows[:, 0]] * (1 - down) + wide[rows[:, 0] + 1] * down
        else:
            upper = plane[rows, columns] * (1 - right) + plane[rows, columns + 1] * right
            lower = plane[rows + 1, columns] * (1 - right) + plane[rows + 1, columns + 1] * right
            out += upper * (1 - down) + lower * down
    return out


def _counted(plane: np.ndarray, low: np.float32, high: np.float32) -> np.ndarray:
    return np.clip(plane.astype(np.float32), low, high) - low


def _cell(place: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Index in a padded plane, and the part of the way to the next voxel; beyond the rim both lead to the padding."""
    place = np.clip(place + 1, 0, np.float32(length - 2))
    index = place.astype(np.intp)
    return index, (place - index).astype(np.float32)
