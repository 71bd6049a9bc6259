"""Sums of a CT's values along rays: compiled (Numba) where it is installed, else PyTorch, else NumPy; all the same.

A voxel counts max(low, min(high, value)) - low, so that turning HU into attenuation needs no copy of the CT; beyond
the CT there is nothing. Between voxels of a plane values are linear, and planes are summed up (Joseph 1982,
doi:10.1109/TMI.1982.4307572).
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..core.processes import core_count
from .geometry import RAYS_AT_ONCE, ProjectionError, Rays

BACKENDS = ("numba", "torch", "numpy")

_COLUMNS, _RAYS = (64, 512), 16384
"""Fewest and most columns, and most rays, that one thread works on at a time: what it needs stays in the cache."""


def sums_along(
    volume: np.ndarray, rays: Rays, low: float, high: float, backend: str | None = None, threads: int | None = None
) -> np.ndarray:
    """Σ (value - low) · mm along each ray, float32 [row, column].

    Args:
        volume: [k, j, i], real.
        rays: The rays of the view.
        low: What values below and above count as.
        high: What values below and above count as.
        backend: One of BACKENDS; None is the first that is installed.
        threads: None is all cores.

    Raises:
        ProjectionError: The view cannot be projected.
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
    height, width = (n for a, n in enumerate(volume.shape) if a != axis)
    # As grid_sample counts places: from -1 to 1 between the plane's outer edges.
    scaled = [(rays.first + 0.5) * np.float32(2 / width) - 1, rays.first_slope * np.float32(2 / width)]
    scaled += [(rays.second + 0.5) * np.float32(2 / height) - 1, rays.second_slope * np.float32(2 / height)]
    first, first_slope, second, second_slope = (torch.from_numpy(table) for table in scaled)
    out = torch.zeros(rays.step_mm.shape)
    bands = _bands(rays)
    room = torch.empty(bands[0].stop, out.shape[1], 2)
    with torch.inference_mode():
        for n in range(volume.shape[axis]):
            plane = torch.from_numpy(_counted(volume.take(n, axis), low, high))
            if not plane.any():
                continue
            for band in bands:
                place = room[: band.stop - band.start]
                place[..., 0] = torch.add(_part(first, band), _part(first_slope, band), alpha=n)
                place[..., 1] = torch.add(_part(second, band), _part(second_slope, band), alpha=n)
                values = grid_sample(plane[None, None], place[None], padding_mode="zeros", align_corners=False)
                out[band] += values[0, 0]
    return out.numpy()


def _by_numpy(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32) -> np.ndarray:
    axis = 2 - rays.main
    out = np.zeros(rays.step_mm.shape, np.float32)
    bands = _bands(rays)
    for n in range(volume.shape[axis]):
        plane = _counted(volume.take(n, axis), low, high)
        if not plane.any():
            continue
        plane = np.pad(plane, (1, 2))
        if rays.separable:
            columns, right = _cell(rays.first + n * rays.first_slope, plane.shape[1])
            wide = plane[:, columns[0]] * (1 - right) + plane[:, columns[0] + 1] * right
        for band in bands:
            rows, down = _cell(_part(rays.second, band) + n * _part(rays.second_slope, band), plane.shape[0])
            if rays.separable:
                out[band] += wide[rows[:, 0]] * (1 - down) + wide[rows[:, 0] + 1] * down
                continue
            columns, right = _cell(_part(rays.first, band) + n * _part(rays.first_slope, band), plane.shape[1])
            upper = plane[rows, columns] * (1 - right) + plane[rows, columns + 1] * right
            lower = plane[rows + 1, columns] * (1 - right) + plane[rows + 1, columns + 1] * right
            out[band] += upper * (1 - down) + lower * down
    return out


def _bands(rays: Rays) -> list[slice]:
    """Rows that are projected together."""
    rows, columns = rays.step_mm.shape
    size = min(max(1, RAYS_AT_ONCE // columns), rows)
    return [slice(begin, min(begin + size, rows)) for begin in range(0, rows, size)]


def _part(table, band: slice):
    """A table's rows; of a table that holds for all rows, all."""
    return table[band] if len(table) > 1 else table


def _counted(plane: np.ndarray, low: np.float32, high: np.float32) -> np.ndarray:
    return np.clip(plane.astype(np.float32), low, high) - low


def _cell(place: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Index in a padded plane, and the part of the way to the next voxel; beyond the rim both lead to the padding."""
    place = np.clip(place + 1, 0, np.float32(length - 2))
    index = place.astype(np.intp)
    return index, (place - index).astype(np.float32)
