"""Voxels that an edit of a review changes, as rising flat indices into the scan's array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..core.errors import MaskError
from ..core.voxels import voxels_of
from .picking import brush_stroke, pick_lesion
from .review import Review


def clicked_voxels(review: Review, voxel: Sequence[int]) -> np.ndarray:
    """Return the calcium connected to a voxel [k, j, i] within its site. Raises MaskError if none, or too much."""
    hu = voxels_of(review.image)
    labels = np.zeros(hu.shape, np.uint8)
    labels.reshape(-1)[review.labelled.flat] = review.labelled.values
    spacing, threshold = review.image.GetSpacing()[::-1], review.rules.threshold_hu
    pick = pick_lesion(hu, voxel, spacing, threshold, sites=labels.__getitem__)
    if pick is None:
        raise MaskError(f"Nothing there reaches {threshold:g} HU, so that it counts for no score.")
    if pick.leaked:
        raise MaskError(f"{pick.reason} Paint it with the brush if it is coronary calcium.")
    return pick.flat(hu.shape)


def painted_voxels(
    review: Review, points: Sequence[Sequence[float]], radius_mm: float, flat: bool, erases: bool
) -> np.ndarray:
    """Return the voxels under a brush that reach the threshold, or under an eraser that have a label.

    Arguments as in `ScanReview.paint`. Raises MaskError if there are none.
    """
    hu, threshold = voxels_of(review.image), review.rules.threshold_hu
    spacing = np.array(review.image.GetSpacing())
    places = [np.array(point[::-1]) * spacing for point in points]
    to_mm, normal = np.diag([*spacing, 1.0]), (0, 0, 1) if flat else None
    ends = zip(places, places[1:] or places, strict=False)
    strokes = [brush_stroke(hu.shape, to_mm, start, end, radius_mm, normal) for start, end in ends]
    covered = np.unique(np.concatenate([np.zeros(0, int), *(s.flat(hu.shape) for s in strokes if s is not None)]))
    if erases:
        covered = covered[np.isin(covered, review.labelled.flat)]
        message = "Nothing under the eraser belongs to a lesion."
    else:
        covered = covered[hu.reshape(-1)[covered] >= threshold]
        message = f"Nothing under the brush reaches {threshold:g} HU, so that it counts for no score."
    if not covered.size:
        raise MaskError(message)
    return covered


def voxels_beyond_plane(
    review: Review, lesion_id: int, point_kji: Iterable[float], normal_kji: Iterable[float]
) -> np.ndarray:
    """Return the voxels of a lesion on the side of a plane that its normal points to.

    Arguments as in `ScanReview.cut`. Raises MaskError if the plane does not divide the lesion.
    """
    flat = review.flat_voxels([lesion_id])
    kji = np.stack(np.unravel_index(flat, review.image.GetSize()[::-1]), axis=1)
    is_far_side = (kji - np.asarray(list(point_kji), float)) @ np.asarray(list(normal_kji), float) > 0
    if is_far_side.all() or not is_far_side.any():
        raise MaskError(f"The line does not divide lesion {lesion_id}. Draw it through the lesion.")
    return flat[is_far_side]
