"""Blank and repeated slices of a volume. Noise makes every slice of a scanner varied and unique."""

from __future__ import annotations

import hashlib

import numpy as np


def blank_slices(values: np.ndarray) -> tuple[list[int], list[int]]:
    """Find slices of an array [k, j, i] whose voxels all have one value.

    Returns:
        The blank slices within the volume, and those at its ends.
    """
    is_blank = [plane.min() == plane.max() for plane in values]
    if all(is_blank):
        return [], list(range(len(values)))
    first, last = is_blank.index(False), len(values) - 1 - is_blank[::-1].index(False)
    blank = np.flatnonzero(is_blank).tolist()
    return [k for k in blank if first < k < last], [k for k in blank if not first < k < last]


def repeated_slices(values: np.ndarray) -> list[tuple[int, int]]:
    """Find slices of an array [k, j, i] that are copies of others; blank ones are left out.

    Returns:
        The original, which comes first, and the copy.
    """
    originals: dict[bytes, int] = {}
    pairs = []
    for k, plane in enumerate(values):
        if plane.min() < plane.max():
            original = originals.setdefault(hashlib.sha1(plane.tobytes(), usedforsecurity=False).digest(), k)
            pairs += [(original, k)] if original != k else []
    return pairs
