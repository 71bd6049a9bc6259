"""Voxels of a CT that a score may read, whatever counts as calcium."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from ..core.errors import MaskError
from ..core.grid import Box, bounding_box
from ..facts.measurement import Measurement
from .mass import FARTHEST_PLACE, REACH_MM, RING_MM


def voxels_in_reach(measurement: Measurement) -> np.ndarray:
    """Return True for heart and territories, and where masses of possible lesions are measured, bool [k, j, i].

    A lesion is part of connected voxels that are dense or lie in the map. With answers of the lesion network, only what
    it was asked about is possibly a lesion that counts. Of facts that were read it is all that is known.
    """
    if measurement.known is not None:
        return measurement.known
    facts, region, decomposed = measurement.facts, measurement.facts.region, measurement.decomposed
    labels = region.territory_labels
    known = region.mask if labels is None else region.mask | (labels > 0)
    possible = known & (facts.scan.hu >= facts.rules.threshold_hu)
    if facts.answers is not None:
        possible = np.zeros_like(known)
        possible.reshape(-1)[facts.answers.voxels.flat[facts.answers.is_asked]] = True
    if decomposed is not None:
        possible |= known & (decomposed.parts.hu > 0)
    result = known.copy()
    for box in _boxes_around(possible, facts.scan.image.GetSpacing()):
        result[box] = True
    return result


def require_in_reach(measurement: Measurement, sites: np.ndarray) -> None:
    """Raise MaskError if labels reach beyond the known voxels of a CT, or their masses would.

    sites: `Site` of labelled voxels, else 0, uint8 [k, j, i].
    """
    known, scan = measurement.known, measurement.facts.scan
    if known is None:
        return
    unknown = int(np.count_nonzero((sites > 0) & ~known))
    is_dense = (sites > 0) & (scan.hu >= measurement.facts.rules.threshold_hu)
    boxes = _boxes_around(is_dense, scan.image.GetSpacing())
    if unknown or not all(known[box].all() for box in boxes):
        where = f"{unknown} labelled voxels lie" if unknown else "A labelled lesion lies"
        raise MaskError(
            f"{where} beyond what the result stores of its CT, around heart and vessels. Score the CT itself with "
            "these labels: cac score CT --lesions."
        )


def _boxes_around(possible: np.ndarray, spacing_mm: tuple[float, float, float]) -> list[Box]:
    """Return the boxes in which `mass.lesion_masses` may read the CT for lesions in connected voxels."""
    if not possible.any():
        return []
    outer = bounding_box(possible)
    pieces, _ = ndimage.label(possible[outer], np.ones((3, 3, 3)))
    return [_reach(piece, outer, possible.shape, spacing_mm[1::-1]) for piece in ndimage.find_objects(pieces)]


def _reach(piece: Box, outer: Box, shape: tuple[int, ...], in_slice_mm: tuple[float, ...]) -> Box:
    """Return the part of a scan that the mass of a lesion may depend on. piece: Box of its voxels, within another."""
    sides_mm = zip(piece[1:], in_slice_mm, strict=True)
    widest = max(part.stop - part.start + 2 * math.ceil(REACH_MM / mm) for part, mm in sides_mm)
    offset = math.ceil(FARTHEST_PLACE * widest)
    margins = (1, *(math.ceil((2 * REACH_MM + RING_MM) / mm) + offset for mm in in_slice_mm))
    sides = zip(piece, outer, margins, shape, strict=True)
    return tuple(
        slice(max(0, around.start + part.start - margin), min(size, around.start + part.stop + margin))
        for part, around, margin, size in sides
    )
