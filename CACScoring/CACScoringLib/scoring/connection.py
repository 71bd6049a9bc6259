"""Voxels of a scan that hang together, and labels of pieces of them.

Voxels are few, so their pieces are found as connected components of a graph of runs of voxels along rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..core.grid import Grid

SLIVER_MM3 = 6.0
"""A smaller piece of a lesion is not split off it: territories are no more exact than some mm."""

IN_SLICE = ((0, 1),)
IN_SPACE = (*IN_SLICE, (1, -1), (1, 0), (1, 1))
"""Offsets along k, j of the rows that voxels may connect to, after their own: within a slice, and in space."""


def connected_voxels(
    flat: np.ndarray,
    labels: np.ndarray,
    shape: tuple[int, ...],
    rows: Sequence[tuple[int, int]] = IN_SPACE,
    reach: int = 1,
) -> np.ndarray:
    """Number voxels by connected part (26 neighbours), from 0; voxels of different labels never connect.

    Args:
        flat: Indices into an array [k, j, i], rising.
        labels: Of each.
        shape: Of the array.
        rows: Offsets along k, j of the rows that voxels may connect to, after their own.
        reach: 1 if voxels of these rows connect by edges or corners too, 0 if only side by side.

    Returns:
        The number of each voxel's part, intp [n].
    """
    if not len(flat):
        return np.zeros(0, np.intp)
    # Rows and slices are padded by one, so that the last voxel of a row is no neighbour of the next row's first.
    k, j, i = np.unravel_index(flat, shape)
    row = shape[2] + 1
    plane = row * (shape[1] + 1)
    place = k * plane + j * row + i
    # Runs of neighbours along a row are connected, rather than voxels, which are several times as many.
    starts = np.flatnonzero((np.diff(place, prepend=-2) != 1) | (np.diff(labels, prepend=labels[0]) != 0))
    lengths = np.diff(starts, append=len(place))
    first, last, label = place[starts], place[starts + lengths - 1], labels[starts]
    pairs = []
    for dk, dj in rows:
        offset = dk * plane + dj * row
        nearest = np.searchsorted(last, first + offset - reach)
        counts = np.searchsorted(first, last + offset + reach, "right") - nearest
        sources = np.repeat(np.arange(len(starts)), counts)
        neighbours = np.arange(len(sources)) + np.repeat(nearest - np.cumsum(counts) + counts, counts)
        is_alike = label[sources] == label[neighbours]
        pairs.append((sources[is_alike], neighbours[is_alike]))
    sources, neighbours = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(sources), bool), (sources, neighbours)), shape=(len(starts),) * 2)
    return np.repeat(connected_components(graph, directed=False)[1], lengths).astype(np.intp)


def hanging_together(flat: np.ndarray, is_marked: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return True for voxels that hang together with a marked one, bool [n]; arguments as of `connected_voxels`."""
    piece = connected_voxels(flat, np.zeros(len(flat), np.uint8), shape)
    return np.isin(piece, piece[is_marked])


def touching(flat: np.ndarray, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return True for labelled voxels of pieces of one label that touch a mask, bool [k, j, i] (26 neighbours)."""
    if not len(flat):
        return np.zeros(0, bool)
    place = np.stack(np.unravel_index(flat, mask.shape))
    last = np.array(mask.shape)[:, None] - 1
    touches = np.zeros(len(flat), bool)
    for offset in np.ndindex(3, 3, 3):
        touches |= mask[tuple(np.clip(place + np.array(offset)[:, None] - 1, 0, last))]
    piece = connected_voxels(flat, values, mask.shape)
    return np.bincount(piece, touches)[piece] > 0


def without_slivers(flat: np.ndarray, values: np.ndarray, grid: Grid) -> np.ndarray:
    """Replace the labels of pieces below SLIVER_MM3 by the label that touches them.

    Args:
        flat: Indices of the voxels, rising.
        values: Label of each.
        grid: Grid of the scan.
    """
    if not len(flat):
        return values
    piece = connected_voxels(flat, values, grid.shape)
    small = (np.bincount(piece) * math.prod(grid.spacing_mm) < SLIVER_MM3)[piece]
    if not small.any() or small.all():
        return values
    places = np.stack(np.unravel_index(flat, grid.shape), axis=1).astype(float)
    # The farthest of the 26 neighbours is √3 voxels away.
    distance, nearest = cKDTree(places[~small]).query(places[small], distance_upper_bound=1.8)
    touched = np.isfinite(distance)
    result = values.copy()
    result[np.flatnonzero(small)[touched]] = values[~small][nearest[touched]]
    return result
