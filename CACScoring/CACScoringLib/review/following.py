"""Labels of the calcium map that follow a reader's decisions about the clinical lesions at their place."""

from __future__ import annotations

import numpy as np

from ..core.labels import NOT_CORONARY, Artery, Labelled
from .review import Difference, Review


def following_labels(review: Review, clinical: Labelled, decided: Difference) -> Labelled:
    """Return the labels that decisions about clinical voxels give to the calcium map.

    A lesion of the map that joins several clinical lesions is split: each of its voxels follows the nearest clinical
    voxel in it that is decided now, of an artery, or labelled as the lesion is. A lesion about which a reader has
    decided otherwise stays as it is, and erased voxels decide nothing.

    Args:
        review: Review of the map, as before the decisions.
        clinical: Labels of the clinical score after them.
        decided: Decided clinical voxels, with their labels before and after.
    """
    is_label = decided.after != 0
    flat, before, after = (column[is_label] for column in (decided.flat, decided.before, decided.after))
    standing, rejected = clinical.where(~np.isin(clinical.flat, flat)), review.rejected()
    ids = {*review.lesions_at(flat), *rejected.voxels.ids[np.isin(rejected.voxels.flat, flat)].tolist()}
    followers, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
    for lesion in (*review.table.with_ids(ids).lesions, *rejected.with_ids(ids).lesions):
        voxels = review.flat_voxels([lesion.id])
        label = review.labelled.values[np.searchsorted(review.labelled.flat, voxels[0])]
        is_inside = np.isin(flat, voxels)
        is_otherwise = label == NOT_CORONARY or review.is_assigned(lesion)
        if is_otherwise and label not in before[is_inside]:
            continue
        holds = (standing.values < Artery.UNASSIGNED) | (standing.values == label)
        others = standing.flat[holds & np.isin(standing.flat, voxels)]
        distance_mm, nearest = _nearest(review, voxels, flat[is_inside])
        follows = distance_mm < _nearest(review, voxels, others)[0]
        followers.append(voxels[follows])
        labels.append(after[is_inside][nearest[follows]])
    places = np.concatenate(followers)
    order = np.argsort(places)
    return Labelled(places[order], np.concatenate(labels)[order])


def _nearest(review: Review, voxels: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance in mm from each voxel to the nearest source, infinite without any, and the source's number.

    voxels, sources: Flat indices.
    """
    from scipy.spatial import KDTree

    if not sources.size:
        return np.full(len(voxels), np.inf), np.zeros(len(voxels), np.int64)
    shape, spacing_mm = review.image.GetSize()[::-1], review.image.GetSpacing()[::-1]
    points = [np.stack(np.unravel_index(places, shape), axis=1) * spacing_mm for places in (sources, voxels)]
    distances, numbers = KDTree(points[0]).query(points[1])
    return distances, numbers


def decided_otherwise(review: Review, clinical: Labelled) -> list[int]:
    """Return the IDs of the map's lesions that a reader gave to another artery than the clinical ones there.

    Arguments as of `following_labels`.
    """
    decided = []
    for lesion in review.table.lesions:
        sites = clinical.values[np.isin(clinical.flat, review.flat_voxels([lesion.id]))]
        if isinstance(lesion.site, Artery) and review.is_assigned(lesion) and lesion.site not in sites:
            decided.append(lesion.id)
    return decided
