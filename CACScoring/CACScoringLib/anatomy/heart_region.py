"""Heart region derived by rules from lungs, spine and diaphragm.

The lungs frame the heart on three sides and show best on any CT, so the heart is read from them: tissue between
the lungs, in front of the spine, behind the sternum, above the diaphragm, and thicker than the great vessels.
The region is meant to cover: it holds the epicardial fat with the coronaries, the aortic root and the pulmonary
trunk, and below the dome of the diaphragm, where unenhanced heart and liver look alike, some liver. It serves
where no network is installed and as the plausibility check of one.

The distances below were chosen while looking at 12 chest CTs of 9 patients and measuring on three of them, of two
patients, with a heart mask; they have not been tested on scans unseen. Arrays are [k, j, i] on a grid of GRID_MM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import CTScan, ScanWarning
from ..core.errors import NoHeartError
from ..core.grid import GRID_MM, Box, Grid, cut_ends, largest_part
from .chest import BONE_HU, Chest, depth_inside, grown, landmarks, voxels, within

if TYPE_CHECKING:
    from .territories import Territories

BONE_LABEL = 1
AORTA_LABEL = 2
"""Labels of `HeartRegion.excluded`."""

AROUND_LESIONS = "lesions"
"""Source of a region around a reader's lesions, in a scan without a heart."""

EXCLUDED_MARGIN_MM = 60.0
"""Further from the heart to the sides nothing mimics coronary calcium; above and below it the aorta's calcium does."""

DENSE_HU = 130
"""Threshold of candidates for calcium."""

TISSUE_BETWEEN_LUNGS_HU = -160
"""Fat and everything denser; the rim of lung that partial volume brightens lies below."""

BONE_ML, BONE_INSIDE = 1.0, 0.5
"""Without lungs, bone is at least as large, and lies with no larger share in heart and territories."""

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

AORTA_RADII = tuple(np.arange(3, 6.5, 0.5))
"""9 to 18 mm, in voxels."""

AORTA_MIN_SCORE = 0.35
"""Share of tissue inside less that around, tenth percentile over the slices: 0.48 to 0.81 in the unenhanced scans."""

APEX_BELOW_LEFT_MM = 12.0
APEX_BELOW_RIGHT_MM = 21.0
"""The heart's lowest point below the lung base beside it: on the left behind, on the right in front."""

FLOOR_MARGIN_MM = 6.0
"""Added below the estimated floor, because missing coronary is worse than a little liver."""

BASE_DISAGREEMENT_MM = 36.0
"""Two estimates of the floor further apart mean fluid, a mass or a raised diaphragm on the side of the higher one."""


@dataclass(frozen=True)
class HeartRegion:
    """The heart, and structures near it that are no coronary calcium.

    Attributes:
        mask: Mask on the scan's grid, bool [k, j, i].
        excluded: Labels on the scan's grid, uint8 [k, j, i], within EXCLUDED_MARGIN_MM of the heart's sides:
            BONE_LABEL spine, ribs, their cartilage and sternum with a rim for partial volume; AORTA_LABEL the
            descending aorta with its wall (absent if it could not be followed reliably, as in contrast scans). None
            for a mask of the user.
        source: "lungs" as found here, "given", AROUND_LESIONS, or the name of a network.
        warnings: Doubts about the region.
        territories: Territories in and around the heart; None if no network found them or they do not fit the heart.
        pericardium: Outline of the territories' network without a margin, or one of the user, bool [k, j, i] on the
            scan's grid; None without both.
        pericardium_source: Name of the network, or "given"; None without a pericardium that fits the heart.
    """

    mask: np.ndarray
    excluded: np.ndarray | None
    source: str
    warnings: tuple[ScanWarning, ...] = ()
    territories: Territories | None = None
    pericardium: np.ndarray | None = None
    pericardium_source: str | None = None

    @cached_property
    def territory_labels(self) -> np.ndarray | None:
        """The likeliest territory of each voxel of the scan, uint8 [k, j, i]; None without territories."""
        return None if self.territories is None else self.territories.labels(self.mask.shape)

    @property
    def is_bone(self) -> np.ndarray | None:
        """True in bone near the heart, bool [k, j, i]; None where it was not looked for."""
        return None if self.excluded is None else self.excluded == BONE_LABEL


def heart_region(scan: CTScan) -> HeartRegion:
    """Find the heart from the lungs, spine and diaphragm around it.

    Raises NoHeartError when the field of view shows no heart between two lungs.
    """
    chest = landmarks(scan.coarse_hu)
    heart, warnings = _heart(chest)
    coarse = scan.coarse_grid
    box, grid = _surroundings(heart, scan)
    mask = grid.mask(heart, coarse)
    skeleton = grid.mask(chest.bone_with_rim, coarse)
    # Enhanced blood would join it too.
    excluded = skeleton * np.uint8(BONE_LABEL)
    if chest.lumen is None:
        joined = grid.mask(chest.beside_bone, coarse) & (scan.hu[box] >= DENSE_HU)
        excluded = _with_attached(skeleton, joined)
    aorta = _descending_aorta(chest, heart)
    if aorta is not None:
        # Calcium of the aorta's wall may join bone; the vertebra that a disc cuts into is no aorta.
        excluded[grid.mask(aorta, coarse) & ~skeleton] = AORTA_LABEL
    on_scan, excluded_on_scan = np.zeros(scan.hu.shape, bool), np.zeros(scan.hu.shape, np.uint8)
    on_scan[box], excluded_on_scan[box] = mask & (excluded == 0), excluded
    return HeartRegion(on_scan, excluded_on_scan, "lungs", warnings)


def _surroundings(heart: np.ndarray, scan: CTScan) -> tuple[Box, Grid]:
    """Return the part of the scan within EXCLUDED_MARGIN_MM of the heart's bounding box to the sides, at all heights.

    heart: On the working grid. Returns its box [k, j, i] and its grid.
    """
    coarse, image = scan.coarse, scan.image
    margin = voxels(EXCLUDED_MARGIN_MM)
    box = ndimage.find_objects(heart.view(np.uint8))[0][::-1]
    low = coarse.TransformContinuousIndexToPhysicalPoint([s.start - margin - 0.5 for s in box])
    high = coarse.TransformContinuousIndexToPhysicalPoint([s.stop + margin - 0.5 for s in box])
    start = image.TransformPhysicalPointToContinuousIndex(low)
    stop = image.TransformPhysicalPointToContinuousIndex(high)
    limits = zip(start[:2], stop[:2], image.GetSize()[:2], strict=True)
    columns, rows = (slice(max(0, int(a)), min(n, int(b) + 2)) for a, b, n in limits)
    return (slice(None), rows, columns), scan.grid.part(columns, rows)


def _with_attached(skeleton: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Return the skeleton with its rim and the dense voxels that are attached to it: BONE_LABEL, else 0, uint8.

    Rib ends and calcified cartilage are too thin to be bone on the working grid but join it on the scan's own.
    """
    marked, joined = (sitk.GetImageFromArray(part.view(np.uint8)) for part in (skeleton, dense | skeleton))
    attached = sitk.BinaryReconstructionByDilation(marked, joined, 0, BONE_LABEL, True)
    return sitk.GetArrayFromImage(attached)


def bone_beside(scan: CTScan, organs: np.ndarray) -> np.ndarray:
    """Return bone of a scan whose lungs do not show the chest wall: BONE_LABEL, uint8 [k, j, i] on the scan's grid.

    Bone is large and bright, and lies mostly outside heart and territories; parts deep inside these, as of leads, are
    left out.

    Args:
        scan: The scan.
        organs: Heart and territories on the working grid, bool [k, j, i].
    """
    labels, count = ndimage.label(scan.coarse_hu > BONE_HU, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    large = sizes * GRID_MM**3 / 1000 >= BONE_ML
    large &= np.bincount(labels[organs], minlength=count + 1) <= BONE_INSIDE * sizes
    large[0] = False
    bone = large[labels] & ~ndimage.binary_erosion(organs, iterations=voxels(9))
    skeleton, nearby = (scan.grid.mask(part, scan.coarse_grid) for part in (grown(bone), within(bone, voxels(15))))
    return _with_attached(skeleton, nearby & (scan.hu >= DENSE_HU))


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
    return heart, warnings + cut_warnings(heart)


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


def cut_warnings(
    part: np.ndarray, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0), least_mm2: float = 0.0
) -> tuple[ScanWarning, ...]:
    """Check whether a heart, or a part of it that matters, reaches an end or a side of the scan; see `cut_ends`.

    Returns:
        A severe warning where it does.
    """
    cut = cut_ends(part, spacing_mm, least_mm2)
    if not cut:
        return ()
    message = (
        f"The heart region reaches the {' and '.join(cut)} of the scan: part of the heart may lie outside, "
        "and its calcium is not counted."
    )
    return (ScanWarning("heart-cut", message),)


def _descending_aorta(chest: Chest, heart: np.ndarray) -> np.ndarray | None:
    """Return the tube beside and in front of the spine, in the heart's slices; None if there is no clear one.

    In every slice each place gets the score of the disc that fits best there (tissue inside less tissue around),
    and the path with the highest sum that moves at most one voxel from slice to slice is the aorta.
    """
    slices = np.nonzero(heart.any((1, 2)))[0]
    spine_seen = chest.spine_front[slices].max() < heart.shape[1]
    # With contrast the brightest tube near the spine may as well be a vein or half of a dissection.
    if not spine_seen or chest.lumen is not None:
        return None
    tissue = (chest.hu > 0) & (chest.hu < BONE_HU) & ~chest.bone
    front = chest.spine_front[slices].astype(int)
    rows = slice(max(0, front.min() - voxels(36)), front.max() + voxels(24))
    columns = slice(max(0, chest.midline - voxels(15)), chest.midline + voxels(54))
    padded = np.pad(tissue[slices], ((0, 0), (9, 9), (9, 9)), mode="edge").astype(np.float32)
    window = (slice(None), slice(rows.start, rows.stop + 18), slice(columns.start, columns.stop + 18))
    fits = np.stack([ndimage.correlate(padded[window], _ring_kernel(r)[None]) for r in AORTA_RADII])
    fits = fits[:, :, 9:-9, 9:-9]
    score = fits.max(0)
    place = _best_path(score)
    along = np.arange(len(slices)), place[:, 0], place[:, 1]
    if np.percentile(score[along], 10) < AORTA_MIN_SCORE:
        return None
    radius = ndimage.median_filter(np.asarray(AORTA_RADII)[fits[(slice(None), *along)].argmax(0)], 7, mode="nearest")
    _, j, i = np.ogrid[tuple(slice(n) for n in heart.shape)]
    center_j, center_i = (place + np.array([rows.start, columns.start])).T[:, :, None, None]
    aorta = np.zeros(heart.shape, bool)
    aorta[slices] = (j - center_j) ** 2 + (i - center_i) ** 2 <= (radius[:, None, None] + 0.5) ** 2
    return aorta


def _ring_kernel(radius: float) -> np.ndarray:
    """Return a kernel: mean inside a disc less that of a ring around it, a voxel of partial volume apart."""
    j, i = np.mgrid[-8:9, -8:9]
    distance = np.hypot(j, i)
    disc, ring = distance <= radius, (distance > radius + 0.75) & (distance <= radius + 2.25)
    return (disc / disc.sum() - ring / ring.sum()).astype(np.float32)


def _best_path(score: np.ndarray) -> np.ndarray:
    """Return row and column per slice of the path with the highest score, moving at most a voxel per slice."""
    total = score.copy()
    for k in range(1, len(total)):
        total[k] += ndimage.maximum_filter(total[k - 1], 3, mode="nearest")
    path = np.zeros((len(total), 2), int)
    path[-1] = np.unravel_index(total[-1].argmax(), total[-1].shape)
    for k in range(len(total) - 2, -1, -1):
        j, i = np.maximum(path[k + 1] - 1, 0)
        neighbours = total[k, j : path[k + 1, 0] + 2, i : path[k + 1, 1] + 2]
        path[k] = np.unravel_index(neighbours.argmax(), neighbours.shape) + np.array([j, i])
    return path
