"""Compiled inner loop of reconstruction from moving views, in a slice's frequency plane.

Spectra are complex64 [rows, columns], views indices of directions int64 [rows, columns]; the view opposite to one is
half the directions later. The slow form in NumPy stands in the tests.
"""

from __future__ import annotations

import numba
import numpy as np

compiled = numba.njit(nogil=True, fastmath=True, cache=True)


@compiled
def add_levels(
    spectrum: np.ndarray, changes: np.ndarray, views: np.ndarray, shares: np.ndarray, transfer: np.ndarray
) -> None:
    """Add to a slice's spectrum how it changes at levels of a movement, each in its share of the views, in place.

    Args:
        changes: Spectra of the changes at all levels but the first [levels - 1, rows, columns].
        shares: Weights of the directions at each level, float32 [levels, directions].
        transfer: Transfer function, float32 [rows, columns].
    """
    levels, directions = shares.shape
    for j in range(views.shape[0]):
        for i in range(views.shape[1]):
            first = views[j, i]
            second = first + directions // 2
            if second >= directions:
                second -= directions
            total = shares[0, first] + shares[0, second]
            change = np.complex64(0)
            for level in range(1, levels):
                weight = shares[level, first] + shares[level, second]
                total += weight
                change += weight * changes[level - 1, j, i]
            spectrum[j, i] += change * (transfer[j, i] / total)
