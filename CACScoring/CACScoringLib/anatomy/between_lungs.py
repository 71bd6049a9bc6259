"""Heart region derived by rules from lungs, spine and diaphragm.

The lungs frame the heart on three sides and show best on any CT, so the heart is read from them: tissue between
the lungs, in front of the spine, behind the sternum, above the diaphragm, and thicker than the great vessels.
The region is meant to cover: it holds the epicardial fat with the coronaries, the aortic root and the pulmonary
trunk, and below the dome of the diaphragm, where unenhanced heart and liver look alike, some liver. It serves
where no network is installed, and where that of the network is implausible.

The landmarks are lungs, chest wall, bones, midline and spine, which any CT of the chest shows. The distances below
were chosen while looking at 12 chest CTs of 9 patients and measuring on three of them, of two patients, with a heart
mask; they have not been tested on scans unseen. Arrays are [k, j, i] on a grid of GRID_MM, and lengths in its voxels
unless named mm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from ..core.ct import CTScan, ScanWarning
from ..core.errors import NoHeartError
from ..core.grid import GRID_MM, depth_inside, grown, largest_part, within
from ..core.slice_checks import LUNG_EDGE_HU
from .heart_region import BONE_HU, OUTSIDE_AIR_HU, HeartRegion, bone_near, cut_warnings, voxels

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

FILL_RIM = 3
"""Voxels beside the air around a field of view in which both mix, which would join lungs to other air."""

WALL_MM = 9.0
"""Least tissue between lung and outside air in every direction within a slice; a couch's shell is thinner."""

WALL_HU = -300
"""Bottom of tissue of the chest wall."""

CUT_BODY_MM = 15.0
"""Least width of the body at a side of a slice that the field of view cuts there."""

BETWEEN_BODY = 0.2
"""Least share of a lung with the body on two sides or more."""

CARTILAGE_HU = 75
"""Costal cartilage has 80 to 160 HU on the working grid, unenhanced heart and muscle 30 to 60."""

CARTILAGE_DEPTH_MM = 15.0
"""Depth of the chest wall behind the line between the lungs in front of the heart, at most, mm."""

LUMEN_RADIUS_MM = 15.0
"""No vertebra holds a ball of this radius brighter than BONE_HU (discs interrupt it); enhanced chambers do."""

SPINE_DEPTH_MM = 66.0
"""The vertebral bodies' front lies 48 to 57 mm in front of the lungs' back in the scans seen."""

MIN_LUNG_ML = 30.0
"""Volume of the smallest parts taken for lung."""

MIN_CHEST_WIDTH_MM = 240.0
"""Inner width assumed where the field of view cuts through the lungs."""

_ON_EDGE = 1e-3  # voxels

_SMALL_PART, _SPINE_PART = 8, 56  # voxels: 0.2 and 1.5 mL


def heart_region(scan: CTScan) -> HeartRegion:
    """Find the heart from the lungs, spine and diaphragm around it.

    Raises NoHeartError when the field of view shows no heart between two lungs.
    """
    chest = landmarks(scan.coarse_hu)
    heart, warnings = _heart(chest)
    bone = bone_near(scan, heart, chest.bone)
    mask = scan.grid.mask(heart, scan.coarse_grid) & ~bone
    # The region reaches beyond the heart: of 13 people whose hearts are whole, it meets an end of the scan in four.
    cut = (replace(warning, severe=False) for warning in cut_warnings(heart))
    return HeartRegion(mask, bone, "lungs", (*warnings, *cut))


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


@dataclass(frozen=True)
class Chest:
    """Landmarks on the working grid; bool arrays [k, j, i], positions in voxels."""

    hu: np.ndarray
    lungs: np.ndarray
    space: np.ndarray  # inside the chest wall
    bone: np.ndarray
    midline: int  # i of the spine
    front: int  # j of the lungs' front
    back: int  # j of the lungs' back
    width: int  # inner width of the chest
    spine_front: np.ndarray  # j of the vertebral bodies' front per slice; beyond the last row where not in view

    @cached_property
    def bone_with_rim(self) -> np.ndarray:
        """Bone, and the voxels beside it that it fills in part."""
        return grown(self.bone)


def landmarks(hu: np.ndarray) -> Chest:
    """The landmarks. Raises NoHeartError when there are no lungs."""
    lungs = _lungs(hu)
    if not lungs.any():
        message = (
            "No lungs were found in the scan, so the heart could not be located. Give a CT of the chest, or a heart "
            "mask."
        )
        raise NoHeartError(message)
    rows = np.nonzero(lungs.any((0, 2)))[0]
    columns = np.nonzero(lungs.any((0, 1)))[0]
    front, back = int(rows[0]), int(rows[-1])
    width = max(int(columns[-1] - columns[0]), voxels(MIN_CHEST_WIDTH_MM))
    lumen = _enhanced_lumen(hu, back - voxels(39))
    bright = hu > BONE_HU
    if lumen is not None:
        bright &= ~lumen
    midline = _midline(bright, lungs)
    space = _inside_chest_wall(lungs, midline)
    _, j, i = np.ogrid[tuple(slice(n) for n in hu.shape)]
    near_midline = abs(i - midline) <= voxels(18)
    spine_zone = (j > back - voxels(SPINE_DEPTH_MM)) & near_midline
    skeleton = _skeleton(bright, space, spine_zone)
    spine_front = _spine_front(skeleton & spine_zone)
    # Leads and catheters join the skeleton outside and lead into the heart; bone stays near the chest wall.
    behind = j >= spine_front[:, None, None] - 1
    bone = skeleton & (~_shrunk(space, 15) | (behind & (abs(i - midline) <= voxels(36))))
    bone |= bright & behind & near_midline
    if lumen is None:  # enhanced blood is as bright as cartilage
        bone |= _cartilage(hu, space) & (j < front + (back - front) // 3)
    return Chest(hu, lungs, space, bone, midline, front, back, width, spine_front)


def _lungs(hu: np.ndarray) -> np.ndarray:
    """Non-tissue inside the body that is no bowel gas. Crops cut through lungs, so touching a side is allowed."""
    inside, sides = _inside_body(hu, _field_of_view(hu))
    lungs = np.zeros(hu.shape, bool)
    labels, _ = ndimage.label((hu < LUNG_EDGE_HU) & inside)
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        part = labels[box] == label
        is_large = part.sum() * GRID_MM**3 / 1000 >= MIN_LUNG_ML
        # A couch between the sides of the field has the body in front of it only.
        if is_large and (sides[box][part] > 1).mean() > BETWEEN_BODY and np.median(hu[box][part]) > OUTSIDE_AIR_HU:
            lungs[box] |= part
    return lungs


def _field_of_view(hu: np.ndarray) -> np.ndarray:
    """Return the columns [j, i] that were scanned: those between any that are not filled with a value in all slices."""
    is_scanned = np.ptp(hu, axis=0) > 1
    if is_scanned.all() or not is_scanned.any():
        return np.ones_like(is_scanned)
    return ~grown(~_filled_hull(is_scanned), FILL_RIM, axes=(0, 1))


def _inside_body(hu: np.ndarray, scanned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what a wall of the body, or a side where the field of view cuts it, separates from outside air all around.

    So neither a couch or cushion counts as inside, nor the air beyond an open airway or the ends of the body. Also
    returns the number of sides on which such a wall lies.
    """
    inside, sides = np.broadcast_to(scanned, hu.shape).copy(), np.zeros(hu.shape, np.uint8)
    body = _body(hu, scanned)
    for axis in (1, 2):
        for step in (1, -1):
            along = tuple(slice(None, None, step if n == axis else 1) for n in range(3))
            wall = np.cumsum(body[along], axis=axis) >= voxels(WALL_MM)
            shape = (*hu.shape[:axis], 1, *hu.shape[axis + 1 :])
            edge = np.broadcast_to(np.expand_dims(scanned[along[1:]].argmax(axis - 1), (0, axis)), shape)
            edge_hu, is_body = (np.take_along_axis(values[along], edge, axis) for values in (hu, body))
            is_cut = is_body.sum((1, 2), keepdims=True) >= voxels(CUT_BODY_MM)
            inside[along] &= wall | (is_cut & (edge_hu > OUTSIDE_AIR_HU))
            sides[along] += wall
    return inside, sides


def _body(hu: np.ndarray, scanned: np.ndarray) -> np.ndarray:
    """Return the largest part of tissue that is thicker than a couch's shell."""
    tissue = (hu > WALL_HU) | ~scanned
    thick = grown(~grown(~tissue, 1, axes=(1, 2)), 1, axes=(1, 2)) & tissue & scanned
    return largest_part(thick) if thick.any() else thick


def _enhanced_lumen(hu: np.ndarray, spine_row: int) -> np.ndarray | None:
    """Return blood brightened by contrast, which is no bone; None without a bright chamber in front of the spine."""
    radius = LUMEN_RADIUS_MM / GRID_MM
    front_hu = hu[:, : max(0, spine_row) + math.ceil(radius) + 1]
    # A spine without visible discs holds such a ball too, but further back.
    if not (depth_inside(front_hu > BONE_HU)[:, :spine_row] > radius).any():
        return None
    chamber = depth_inside(hu > BONE_HU) > radius
    core = depth_inside(hu > max(BONE_HU, 0.5 * float(np.median(hu[chamber])))) > voxels(9)
    return within(core, voxels(15)) & (hu > BONE_HU)


def _midline(bright: np.ndarray, lungs: np.ndarray) -> int:
    """Return the column of the spine: behind the heart, bone and no lung in a strip as wide as a vertebra."""
    rows = np.nonzero(lungs.any((0, 2)))[0]
    columns = np.nonzero(lungs.any((0, 1)))[0]
    back = rows[0] + 2 * (rows[-1] - rows[0]) // 3
    slices = lungs.any((1, 2))
    profile = (bright[slices, back:].astype(np.float32) - lungs[slices, back:]).mean((0, 1))
    strip = ndimage.uniform_filter1d(profile, 2 * voxels(18) + 1, mode="nearest")
    quarter = (columns[-1] - columns[0]) // 4
    first = columns[0] + quarter
    return int(first + strip[first : columns[-1] - quarter + 1].argmax())


def _inside_chest_wall(lungs: np.ndarray, midline: int) -> np.ndarray:
    """Return the convex hull of both lungs and their mirror images in each slice, whatever fluid is on one side.

    Lower slices take over the hulls of up to 75 mm above, because below the domes little lung is left in front.
    """
    mirror = 2 * midline - np.arange(lungs.shape[2])
    exists = (mirror >= 0) & (mirror < lungs.shape[2])
    mirrored = lungs.copy()
    mirrored[:, :, exists] |= lungs[:, :, mirror[exists]]
    space = np.stack([_filled_hull(plane) for plane in mirrored])
    for step in (1, 2, 4, 8, 10):
        space[:-step] |= space[step:]
    return space


def _filled_hull(plane: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(plane.any(1))
    ends = np.stack([plane[rows].argmax(1), plane.shape[1] - 1 - plane[rows, ::-1].argmax(1)])
    corners = np.stack([np.tile(rows, 2), ends.ravel()], 1)
    try:
        # Points inside have a j + b i + c ≤ 0 for every edge.
        a, b, c = ConvexHull(corners).equations.T
    except (QhullError, ValueError):  # fewer than three points, or all on one line
        return np.zeros_like(plane)
    # Lines through voxel centres pass other centres by 1 / length at least, so that rounding moves none across.
    j, i = np.ogrid[tuple(slice(n) for n in plane.shape)]
    margin = _ON_EDGE - c - a * j
    with np.errstate(divide="ignore", invalid="ignore"):
        last = np.where(b > 0, margin / b, np.inf).min(1, keepdims=True)
        first = np.where(b < 0, margin / b, -np.inf).max(1, keepdims=True)
    inside = ((b != 0) | (margin >= 0)).all(1, keepdims=True)
    return inside & (i >= first) & (i <= last)


def _shrunk(space: np.ndarray, distance_mm: float) -> np.ndarray:
    """Return the space without its rim in every slice; there is no rim at the ends of the scan."""
    return ~grown(~space, voxels(distance_mm), axes=(1, 2))


def _skeleton(bright: np.ndarray, space: np.ndarray, spine_zone: np.ndarray) -> np.ndarray:
    """Return connected bright parts that lie mostly in the chest wall, or are large and lie at the spine.

    Calcified vessels and valves lie deeper and stay out. Small parts (rib ends, cartilage) must be nearer to the wall.
    """
    labels, count = ndimage.label(bright, np.ones((3, 3, 3)))

    def sizes_in(region: np.ndarray) -> np.ndarray:
        return np.bincount(labels[region], minlength=count + 1)

    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    deeper_than_9, deeper_than_6 = sizes_in(_shrunk(space, 9)), sizes_in(_shrunk(space, 6))
    in_wall = (sizes >= _SMALL_PART) & (deeper_than_9 <= 0.5 * sizes)
    rib_end = (sizes >= 2) & (deeper_than_6 <= 0.2 * sizes)
    in_spine = sizes_in(np.broadcast_to(spine_zone, labels.shape)) >= _SPINE_PART
    is_skeleton = in_wall | rib_end | in_spine
    is_skeleton[0] = False
    return is_skeleton[labels]


def _cartilage(hu: np.ndarray, space: np.ndarray) -> np.ndarray:
    """Return costal cartilage: firm parts of the chest wall, and their parts behind the line between the lungs."""
    firm = ndimage.gaussian_filter(hu.astype(np.float32), 0.5) >= CARTILAGE_HU
    return ndimage.binary_propagation(firm & ~space, mask=firm & ~_shrunk(space, CARTILAGE_DEPTH_MM))


def _spine_front(spine: np.ndarray) -> np.ndarray:
    """Return the row of the vertebral bodies' front in every slice, smoothed over 50 mm to bridge the discs."""
    rows = spine.sum(2) >= 3
    has_spine = rows.any(1)
    if not has_spine.any():
        return np.full(len(spine), spine.shape[1] + voxels(30), float)
    slices = np.arange(len(spine))
    front = np.interp(slices, slices[has_spine], rows[has_spine].argmax(1))
    return ndimage.median_filter(front, 17, mode="nearest")
