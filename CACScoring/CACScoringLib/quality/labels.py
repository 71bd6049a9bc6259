"""Labels of a reader compared with the calcium around them: parts of lesions that no label covers."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..core.ct import ScanWarning
from ..core.grid import bounding_box
from ..core.text import abbreviated_list

MAX_MISSED_SHARE, MAX_MISSED_VOXELS = 0.1, 4
"""Dense voxels beside, above or below labelled dense voxels that may lack a label: per labelled dense voxel, and count.
In labels of four scans 0 to 2.5 %; with half the lesions' slices, or a voxel off, 30 to 80 %."""


def label_doubts(labelled: np.ndarray, hu: np.ndarray, threshold_hu: float) -> tuple[ScanWarning, ...]:
    """Warn of labels that miss a side or slices of the calcium that they lie on.

    Args:
        labelled: True for labelled voxels, [k, j, i].
        hu: The scan, likewise.
        threshold_hu: HU from which voxels are dense.
    """
    if not labelled.any():
        return ()
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in bounding_box(labelled))
    labelled = labelled[box]
    dense = hu[box] >= threshold_hu
    missed = ndimage.binary_dilation(labelled & dense) & dense & ~labelled
    number, total = np.count_nonzero(missed), np.count_nonzero(labelled & dense)
    if number <= max(MAX_MISSED_VOXELS, MAX_MISSED_SHARE * total):
        return ()
    slices = abbreviated_list(str(k + box[0].start) for k in np.flatnonzero(missed.any((1, 2))))
    message = (
        f"{number} dense voxels right beside, above or below {total} labelled ones are not labelled (slice {slices}, "
        "from 0 at the feet), so parts of lesions are not counted."
    )
    return (ScanWarning("labels-doubtful", message),)
