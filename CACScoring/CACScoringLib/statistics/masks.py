"""Agreement of masks: Dice, Hausdorff distance, average surface distance."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import KDTree

from ..core.ct import same_grid
from ..core.errors import MaskError
from ..core.voxels import voxels_of


def mask_agreement(predicted: sitk.Image, reference: sitk.Image) -> tuple[float, float, float]:
    """Dice, Hausdorff distance and average symmetric surface distance of two masks.

    A surface is the inside voxels that touch the outside by a face (the image's edge counts as outside), and distances
    run between voxel centres. The Hausdorff distance is the largest, the average is over the voxels of both surfaces.

    Args:
        predicted, reference: Masks on one grid; any value above 0 is inside.

    Returns:
        Dice, Hausdorff distance in mm, and average symmetric surface distance in mm.

    Raises:
        MaskError: the masks lie on two grids, or one is empty.
    """
    if not same_grid(predicted, reference):
        raise MaskError("The two heart masks lie on different grids. Resample one to the other first.")
    masks = [voxels_of(mask) > 0 for mask in (predicted, reference)]
    for mask, name in zip(masks, ("found", "reference"), strict=True):
        if not mask.any():
            raise MaskError(f"The {name} heart mask is empty: there is no surface to measure from.")
    box = ndimage.find_objects((masks[0] | masks[1]).view(np.uint8))[0]
    first, second = (mask[box] for mask in masks)
    spacing = np.array(predicted.GetSpacing()[::-1])
    surfaces = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in (first, second)]
    trees = [KDTree(points) for points in surfaces]
    distances = np.concatenate([trees[1].query(surfaces[0])[0], trees[0].query(surfaces[1])[0]])
    return dice(first, second) or 0.0, float(distances.max()), float(distances.mean())


def dice(first: np.ndarray, second: np.ndarray) -> float | None:
    """Overlap of two masks over their mean size (Dice 1945, doi:10.2307/1932409); None where both are empty.

    Args:
        first, second: bool, of one shape.
    """
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else None
