"""Heart region derived by rules from lungs, spine and diaphragm.

The lungs frame the heart on three sides and show best on any CT, so the heart is read from them: tissue between
the lungs, in front of the spine, behind the sternum, above the diaphragm, and thicker than the great vessels.
The region is meant to cover: it holds the epicardial fat with the coronaries, the aortic root and the pulmonary
trunk, and below the dome of the diaphragm, where unenhanced heart and liver look alike, some liver. It serves
where no network is installed, and where that of the network is implausible.

The distances below were chosen while looking at 12 chest CTs of 9 patients and measuring on three of them, of two
patients, with a heart mask; they have not been tested on scans unseen. Arrays are [k, j, i] on a grid of GRID_MM.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..core.ct import CTScan, ScanWarning
from ..core.errors import NoHeartError
from ..core.grid import GRID_MM, largest_part
from .chest import Chest, landmarks
from .heart_region import HeartRegion, bone_near, cut_warnings, depth_inside, grown, voxels, within

TISSUE_BETWEEN_LUNGS_HU = -160
"""Fat and everything denser; the rim of lung that partial volume brightens lies below."""

MIN_LUNG_FRACTION = 0.35
"""Share of lung in the chest's cross-section at the heart; below the domes, as in abdominal scans, it is less."""

MIN_CHEST_HEIGHT_MM = 36.0
MIN_HEART_RADIUS_MM = 25.0
MAX_HEART_RADIUS_MM = 75.0
"""Radius of the largest ball inside the heart: 36 to 50 mm in the scans seen; crops cut it."""

HEART_RIGHT = 0.25
HEART_LEFT = 0.42
"""Reach of the heart from the midline, in inner chest widths, with room for shifted hearts."""

OPENING = 0.6
"""Vessels thinner than this share of the heart's largest ball (arch, hila, oesophagus) are opened away."""

APEX_BELOW_LEFT_MM = 12.0
APEX_BELOW_RIGHT_MM = 21.0
"""The heart's lowest point below the lung base beside it: on the left behind, on the right in front."""

FLOOR_MARGIN_MM = 6.0
"""Added below the estimated floor, because missing coronary is worse than a little liver."""

BASE_DISAGREEMENT_MM = 36.0
"""Two estimates of the floor further apart mean fluid, a mass or a raised diaphragm on the side of the higher one."""


def heart_region(scan: CTScan) -> HeartRegion:
    """Find the heart from the lungs, spine and diaphragm around it.

    Raises NoHeartError when the field of view shows no heart between two lungs.
    """
    chest = landmarks(scan.coarse_hu)
    heart, warnings = _heart(chest)
    bone = bone_near(scan, heart, chest.bone)
    mask = scan.grid.mask(heart, scan.coarse_grid) & ~bone
    return HeartRegion(mask, bone, "lungs", warnings + cut_warnings(heart))


def _heart(chest: Chest) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Return the heart on the working grid, and warnings about it. Raises NoHeartError."""
    k, _, i = np.ogrid[tuple(slice(n) for n in chest.hu.shape)]
    tissue = _tissue_between_lungs(chest)
    lung_share = chest.lungs.sum((1, 2)) / np.maximum(1, chest.space.sum((1, 2)))
    right_lung, left_lung = chest.lungs[:, :, : chest.midline], chest.lungs[:, :, chest.midline :]
    chest_slices = (lung_share >= MIN_LUNG_FRACTION) & right_lung.any((1, 2)) & left_lung.any((1, 2))
    height_mm = chest_slices.sum() * GRID_MM
    if height_mm < MIN_CHEST_HEIGHT_MM:
        message = (
            f"Only {height_mm:.0f} mm of the scan show two lungs wide enough to enclose a heart; "
            f"{MIN_CHEST_HEIGHT_MM:.0f} mm are needed. Give a CT of the chest, or a heart mask."
        )
        raise NoHeartError(message)
    domes = max(_dome(chest, right_side=True), _dome(chest, right_side=False))
    domes = min(domes, np.nonzero(chest_slices)[0][-1] - voxels(24))
    above, radius = _opened(tissue & (k > domes))
    radius_mm = radius * GRID_MM
    if not MIN_HEART_RADIUS_MM <= radius_mm <= MAX_HEART_RADIUS_MM:
        message = (
            f"The largest sphere between the lungs has a radius of {radius_mm:.0f} mm; in a heart it is "
            f"{MIN_HEART_RADIUS_MM:.0f} to {MAX_HEART_RADIUS_MM:.0f} mm. Give a CT that shows the heart, or a heart "
            "mask."
        )
        raise NoHeartError(message)
    apex, base, warnings = _floor(chest, above)
    # The diaphragm falls from the right atrium to the apex.
    towards_apex = np.clip(0.5 + (i - chest.midline) / (0.3 * chest.width), 0, 1)
    heart, _ = _opened(tissue & ((k > domes) | (k >= base + (apex - base) * towards_apex)))
    return heart, warnings


def _tissue_between_lungs(chest: Chest) -> np.ndarray:
    """Return the tissue that may be heart, vessel or fat around them, regardless of height."""
    _, j, i = np.ogrid[tuple(slice(n) for n in chest.hu.shape)]
    bone = chest.bone_with_rim
    # The chest wall also lies between ribs and in front of the sternum: all that is in front of bone.
    in_front = j < chest.front + (chest.back - chest.front) // 3
    wall = np.maximum.accumulate((bone & in_front)[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(wall, ((4, 4), (0, 0), (4, 4)), mode="edge")
    wall = ndimage.grey_closing(padded.view(np.uint8), (7, 1, 5)).view(bool)[4:-4, :, 4:-4] & in_front
    beside_spine = np.where(abs(i - chest.midline) < voxels(18), 0, voxels(15))
    return (
        chest.space
        & ~chest.lungs
        & ~bone
        & ~wall
        & (i > chest.midline - HEART_RIGHT * chest.width)
        & (i < chest.midline + HEART_LEFT * chest.width)
        & (j < chest.spine_front[:, None, None] - 1 + beside_spine)
        & (chest.hu > TISSUE_BETWEEN_LUNGS_HU)
    )


def _dome(chest: Chest, right_side: bool) -> int:
    """Return the slice of the top of a lung's base, from columns clear of the heart; 0 if it lies below the scan."""
    bottom, columns = _lung_bottom(chest)
    j, i = np.ogrid[tuple(slice(n) for n in bottom.shape)]
    columns = ndimage.binary_erosion(columns, iterations=voxels(12), border_value=1)
    if right_side:
        columns &= i < chest.midline - 0.2 * chest.width
    else:
        columns &= (i > chest.midline + 0.2 * chest.width) & (j > (chest.front + chest.back) // 2)
    return int(np.percentile(bottom[columns], 80)) if columns.any() else 0


def _lung_bottom(chest: Chest) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest slice of lung in every column [j, i], and the columns that hold lung."""
    return chest.lungs.argmax(0), chest.lungs.max(0)


def _floor(chest: Chest, above: np.ndarray) -> tuple[float, float, tuple[ScanWarning, ...]]:
    """Return the heart's lowest slice at the apex and at the right atrium, from the lung bases beside it.

    above: the heart above the domes, whose outline from above shows which lung columns lie beside it.
    """
    bottom, columns = _lung_bottom(chest)
    outline = above.max(0)
    j, i = np.ogrid[tuple(slice(n) for n in outline.shape)]
    distance = ndimage.distance_transform_edt(~outline)
    rows = np.nonzero(outline.any(1))[0]
    lung_columns = columns & (distance > 1.5) & (distance < 9)
    front = j < (rows[0] + rows[-1]) / 2
    left_base = bottom[lung_columns & (i > chest.midline) & ~front & (j <= rows[-1])]
    right_base = bottom[lung_columns & (i < chest.midline) & front]
    from_left = np.median(left_base) - voxels(APEX_BELOW_LEFT_MM) if left_base.size else None
    from_right = np.median(right_base) - voxels(APEX_BELOW_RIGHT_MM) if right_base.size else None
    estimates = [e for e in (from_left, from_right) if e is not None]
    if not estimates:
        return 0.0, 0.0, ()
    low, difference = min(estimates), max(estimates) - min(estimates)
    limit = BASE_DISAGREEMENT_MM / GRID_MM
    # The mean of both up to the limit, and beyond it gradually the lower one. A base below the scan may lie anywhere
    # below, so it is not averaged.
    base_cut = any(side.size and np.median(side) == 0 for side in (left_base, right_base))
    agreement = 0.0 if base_cut else float(np.clip(1 - (difference - limit) / (limit / 4), 0, 1))
    apex = low + agreement * difference / 2
    warnings: tuple[ScanWarning, ...] = ()
    if from_left is not None and from_right is not None and difference > limit:
        side = "right" if from_right > from_left else "left"
        message = (
            f"The base of the {side} lung is {GRID_MM * difference:.0f} mm higher than expected from the other lung "
            "(fluid, a mass or a raised diaphragm?), so the lower end of the heart region is uncertain. Check it."
        )
        warnings = (ScanWarning("heart-floor-uncertain", message),)
    margin = FLOOR_MARGIN_MM / GRID_MM
    return apex - margin, apex - margin + voxels(21), warnings


def _opened(tissue: np.ndarray) -> tuple[np.ndarray, float]:
    """Open tissue by OPENING of its largest ball; return it and that ball's radius in voxels."""
    soft = ~grown(~grown(np.pad(tissue, 3, mode="edge"), 2), 2)[3:-3, 3:-3, 3:-3]
    depth = depth_inside(soft, voxels(MAX_HEART_RADIUS_MM))
    radius = float(depth.max())
    core = depth > OPENING * radius
    return within(largest_part(core), OPENING * radius + 1.5) & soft, radius
