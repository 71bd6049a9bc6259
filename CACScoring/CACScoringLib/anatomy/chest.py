"""Landmarks of a chest that any CT shows: lungs, chest wall, bones, midline, spine.

All arrays are [k, j, i] on a working grid of GRID_MM with the scan's axes; lengths in voxels of it unless named mm.
The values were chosen while looking at 13 chest CTs; they have not been tested on scans unseen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from ..core.errors import NoHeartError
from ..core.grid import GRID_MM, largest_part
from ..core.slices import LUNG_EDGE_HU
from .heart_region import BONE_HU, OUTSIDE_AIR_HU, depth_inside, grown, voxels, within

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


_ON_EDGE = 1e-3  # voxels

_SMALL_PART, _SPINE_PART = 8, 56  # voxels: 0.2 and 1.5 mL
