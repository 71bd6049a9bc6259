"""Orientation of a scan: where spine, airway, aorta, lungs and apex lie around the heart, against the file's header.

A scan is refused only where two findings of the same direction contradict its header; a single contrary finding raises
a warning. The limits were chosen on 25 scans of 17 people, cropped and whole, as they are and reversed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from ..anatomy.heart_region import OUTSIDE_AIR_HU, voxels
from ..core.ct import CTScan, ScanWarning
from ..core.errors import OrientationError
from ..core.grid import GRID_MM, largest_part
from ..core.slice_checks import LUNG_EDGE_HU
from ..core.text import UNUSUAL
from ..core.warning_codes import run_check

THRESHOLD_HU = 130.0
"""Bone lies above."""

MIN_MASK_ML = 100.0
"""A smaller mask has no direction."""

SPINE_CM2 = 8.0
"""Bone in a transverse section of the spine: 9 cm² and more; of sternum and ribs in front of the heart, up to 5."""

TURNED_SPINE = 2.0
"""Bone in front of the heart per bone behind it: 0.4 at most, and 2.4 and more in reversed scans."""

TISSUE_ROWS, TISSUE_COLUMNS = (voxels(24), voxels(99)), (voxels(6), voxels(75))
"""Place of this tissue in front of the spine, and to its sides."""

LUNG_BALANCE = 0.6
"""Lung on the narrower side of the spine per lung on the other: 0.72 and more in 9 patients, one with an effusion.
Below, an effusion, a tumour or a collapse shifts the heart, and tissue beside the spine may be no aorta."""

AIRWAY_HU, AIRWAY_VOXELS = -930, 1.0
AIRWAY_ROWS, AIRWAY_COLUMNS, AIRWAY_SLICES = (voxels(15), voxels(81)), voxels(24), (voxels(24), voxels(135))
"""Air of trachea and main bronchi: voxels per slice in front of the spine, above or below the heart's centre. Above it
1.2 and more, below it 1.2 to 8.7 in scans with slices reversed and then at most 0.1 above."""

SPINE_MM, MIN_SPINE, MORE_SPINE = 27.0, 0.4, 1.5
"""Width of the spine, least share of bone along it, and least ratio of that along another axis: along slices 0.41 and
more, along rows and columns up to 0.36."""

BESIDE_MM = 22.0
"""Distance of the spine to a side of the body's middle in a picture turned by 90°: up to 17 mm; behind it 29 to 86."""


def require_oriented(scan: CTScan, heart: np.ndarray, allow_reversed: bool = False) -> tuple[ScanWarning, ...]:
    """Refuse scans whose anatomy contradicts the orientation in their header: arteries would be assigned wrongly.

    Args:
        scan: An unenhanced CT; enhanced vessels look like bone.
        heart: Mask on the scan's grid, bool [k, j, i].
        allow_reversed: Warn instead.

    Returns:
        A warning where a reversed scan is allowed, or where the evidence is weak.

    Raises:
        OrientationError: The anatomy contradicts the header.
    """
    hu = scan.coarse_hu
    groups = _findings(hu, scan.coarse_grid.mask(heart, scan.grid))
    against = [clause for group in groups if len(group) > 1 for clause in group]
    doubts = [clause for group in groups if len(group) == 1 for clause in group]
    if against:
        message = f"The anatomy contradicts the orientation in the file's header: {'; '.join(against)}."
        if not allow_reversed:
            raise OrientationError(
                f"{message} Convert the scan again from its DICOM series with a tool that keeps the geometry, or allow "
                f"reversed scans ({UNUSUAL}) to score this one anyway."
            )
        return (ScanWarning("reversed", f"{message} Heart, arteries and score are unreliable."),)
    if doubts:
        message = f"The orientation in the file's header is doubtful: {'; '.join(doubts)}."
        return (ScanWarning("orientation-doubtful", message),)
    return ()


def _findings(hu: np.ndarray, heart: np.ndarray) -> list[list[str]]:
    """Return contrary findings, clauses of a sentence, grouped by direction; none for a mask too small for a heart.

    hu: The scan on the working grid, [k, j, i]. heart: Mask on it, bool.
    """
    body = largest_part(hu > LUNG_EDGE_HU)  # no table
    bone = ((hu > THRESHOLD_HU) & body).astype(np.float32)
    strips = [ndimage.uniform_filter(bone.mean(axis), voxels(SPINE_MM), mode="constant") for axis in range(3)]
    along_slices, *in_slices = (float(strip.max()) for strip in strips)
    if max(in_slices) >= max(MIN_SPINE, MORE_SPINE * along_slices):
        name = ("columns", "rows")[int(np.argmax(in_slices))]
        return [[f"the spine runs along the {name} of the images", "so the axes are in another order"]]
    if heart.sum() * GRID_MM**3 / 1000 < MIN_MASK_ML:
        return []
    places = np.argwhere(heart)
    centre = places.mean(0)
    slices = slice(places[0, 0], places[-1, 0] + 1)
    behind_body_mm = tissue_left = math.nan
    airway = math.nan, math.nan
    if along_slices >= MIN_SPINE:
        spine = np.array(np.unravel_index(strips[0].argmax(), strips[0].shape))
        behind_body_mm, left_mm = (spine - ndimage.center_of_mass(body.mean(0))) * GRID_MM
        behind_heart_mm, left_of_heart_mm = (spine - centre[1:]) * GRID_MM
        is_beside = abs(left_mm) > max(BESIDE_MM, abs(behind_body_mm))
        if is_beside and abs(left_of_heart_mm) > max(BESIDE_MM, abs(behind_heart_mm)):
            side = "left" if left_mm > 0 else "right"
            clause = f"the spine lies {abs(left_mm):.0f} mm to the {side} of the body's middle"
            return [[clause, "and beside the heart, so the images are turned"]]
        upper = slice(slices.start + 2 * (slices.stop - slices.start) // 5, slices.stop)
        tissue_left, airway = _tissue_left(hu[upper], spine), _airway(hu, round(centre[0]), spine)
    backwards, leftwards = (np.arange(n) - c for n, c in zip(hu.shape[1:], centre[1:], strict=True))
    columns = np.flatnonzero(abs(leftwards) <= voxels(66))
    middle = slices, slice(None), slice(columns[0], columns[-1] + 1)
    bone_nearby = (bone[middle] > 0) & ~ndimage.binary_dilation(heart[middle], iterations=2)
    cm2 = GRID_MM**2 / 100 / len(bone_nearby)
    back = bone_nearby[:, backwards > voxels(20)]
    bone_behind = float(back.sum() * cm2)
    heart_left = aorta_left = lung_balance = math.nan
    if bone_behind >= SPINE_CM2:
        spine_column = _spine(back.sum((0, 1))) + columns[0]
        heart_left = float((centre[2] - spine_column) * GRID_MM)
        profile = bone_nearby[:, :, abs(columns - spine_column) <= voxels(15)].sum((0, 2)) * (backwards > voxels(20))
        aorta_left = _aorta_left(hu[slices], spine_column, int((profile >= profile.max() / 4).argmax()))
        lung_balance = _lung_balance(hu[slices], round(spine_column))
    low, high = np.percentile(places[:, 0], (33, 67))
    apex = places[places[:, 0] <= low].mean(0) - places[places[:, 0] >= high].mean(0)
    return contrary_findings(
        {
            "bone_behind_cm2": bone_behind,
            "bone_in_front_cm2": float(bone_nearby[:, backwards < -voxels(20)].sum() * cm2),
            "spine_behind_mm": behind_body_mm,
            "heart_left_mm": heart_left,
            "aorta_left": aorta_left,
            "tissue_left": tissue_left,
            "lung_balance": lung_balance,
            "lung_above": _lung_above(hu, centre),
            "airway_above": airway[0],
            "airway_below": airway[1],
            "apex_left_mm": float(apex[2]) * GRID_MM,
            "apex_front_mm": float(-apex[1]) * GRID_MM,
        }
    )


def contrary_findings(places: Mapping[str, float]) -> list[list[str]]:
    """Compare where the anatomy lies with the header.

    Args:
        places: Bone behind and in front of the heart, mean section over its slices; distances of the spine behind the
            body's middle and of the heart's centre left of the spine; tissue left of the spine less that on its right,
            beside it (aorta) and in front of it; lung on the narrower side of the spine per lung on the other; lung
            above the heart's centre less that below; voxels of air in front of the spine, per slice above and below;
            and offsets of the heart's lower third from its upper third. NaN where the field of view does not show it.

    Returns:
        Contrary findings, clauses of a sentence, for each direction: back, left and up.
    """
    behind, in_front = places["bone_behind_cm2"], places["bone_in_front_cm2"]
    airway_above, airway_below = places["airway_above"], places["airway_below"]
    back = []
    if in_front >= max(SPINE_CM2, TURNED_SPINE * behind):
        back = [
            f"the spine lies in front of the heart ({in_front:.0f} cm² of bone, behind it {behind:.0f} cm²)",
        ]
    back += _contrary("spine", places["spine_behind_mm"])
    back += _contrary("apex-front", places["apex_front_mm"])
    to_left = _contrary("heart", places["heart_left_mm"], right_mm=-places["heart_left_mm"])
    beside = _contrary("aorta", places["aorta_left"]) + _contrary("tissue", places["tissue_left"])
    up = _contrary("lungs", places["lung_above"])
    if airway_below >= AIRWAY_VOXELS and airway_above < airway_below / 10:
        up.append("the airway lies below the heart")
    up += _contrary("apex-up", places["apex_left_mm"] + places["apex_front_mm"])
    # One tumour or collapsed lung may fill both places beside the spine, so that they are one finding.
    to_left += [" and ".join(beside)] if beside else []
    if places["lung_balance"] < LUNG_BALANCE and to_left:
        # An effusion, a tumour or a collapse moves heart and aorta.
        to_left = [
            f"{' and '.join(to_left)}, between lungs of different size (an effusion, a tumour or a collapsed lung?)"
        ]
    return [back, to_left, up]


def _contrary(word: str, value: float, **facts: float) -> list[str]:
    return [warning.message for warning in run_check(f"orientation-doubtful {word}", value, **facts)]


def _spine(profile: np.ndarray) -> float:
    """Return the column of the spine. profile: Bone behind the heart by column."""
    strip = ndimage.uniform_filter1d(profile.astype(float), voxels(36), mode="constant")
    columns = np.arange(len(profile))
    return float(np.average(columns, weights=profile * (abs(columns - strip.argmax()) <= voxels(27))))


def _aorta_left(hu: np.ndarray, spine: float, front: int) -> float:
    """Return the share of tissue beside the spine on the left less that on the right; NaN if the scan ends there.

    front: Row of the spine's front.
    """
    inner, outer = round(spine) + voxels(12), round(spine) + voxels(45)
    mirrored = 2 * round(spine) - outer, 2 * round(spine) - inner
    if mirrored[0] < 0 or outer > hu.shape[2]:
        return math.nan
    tissue = hu[:, max(0, front - voxels(15)) : front + voxels(21)] > LUNG_EDGE_HU
    return float(tissue[:, :, inner:outer].mean() - tissue[:, :, slice(*mirrored)].mean())


def _tissue_left(hu: np.ndarray, spine: np.ndarray) -> float:
    """Return the share of tissue left of and in front of the spine less that to its right; NaN if the scan ends there.

    spine: Its row and column.
    """
    (first, last), (inner, outer) = TISSUE_ROWS, TISSUE_COLUMNS
    rows = slice(max(0, spine[0] - last), max(0, spine[0] - first))
    if spine[1] < outer or spine[1] + outer > hu.shape[2] or rows.stop == 0:
        return math.nan
    tissue = hu[:, rows] > LUNG_EDGE_HU
    left_side, right_side = (
        tissue[:, :, spine[1] + inner : spine[1] + outer],
        tissue[:, :, spine[1] - outer : spine[1] - inner],
    )
    return float(left_side.mean() - right_side.mean())


def _lung_balance(hu: np.ndarray, spine: int) -> float:
    """Return the lung on the narrower side of the spine per lung on the other; NaN without lung."""
    lung = ((hu > OUTSIDE_AIR_HU) & (hu < LUNG_EDGE_HU)).sum((0, 1))
    reach = min(spine, len(lung) - spine - 1)  # as far as both sides are in view
    sides = lung[spine - reach : spine].sum(), lung[spine + 1 : spine + 1 + reach].sum()
    return float(min(sides) / max(sides)) if max(sides) else math.nan


def _lung_above(hu: np.ndarray, centre: np.ndarray) -> float:
    """Return the share of lung 24 to 66 mm above the heart's centre less that below; NaN if either is out of view."""
    k, j, i = (round(place) for place in centre)
    first = max(0, k - voxels(66))
    box = slice(max(0, j - voxels(60)), j + voxels(75)), slice(max(0, i - voxels(90)), i + voxels(75))
    surroundings_hu = hu[(slice(first, k + voxels(66)), *box)]
    body = surroundings_hu > OUTSIDE_AIR_HU
    share = (body & (surroundings_hu < LUNG_EDGE_HU)).sum((1, 2)) / np.maximum(1, body.sum((1, 2)))
    above, below = share[k - first + voxels(24) :], share[: max(0, k - first - voxels(24))]
    if min(len(above), len(below)) < voxels(15):
        return math.nan
    return float(above.mean() - below.mean())


def _airway(hu: np.ndarray, centre: int, spine: np.ndarray) -> tuple[float, float]:
    """Return the voxels of air in front of the spine per slice, above the heart's centre and below it.

    spine: Its row and column.
    """
    rows, columns = (
        slice(max(0, n), max(0, m))
        for n, m in (
            (spine[0] - AIRWAY_ROWS[1], spine[0] - AIRWAY_ROWS[0]),
            (spine[1] - AIRWAY_COLUMNS, spine[1] + AIRWAY_COLUMNS + 1),
        )
    )
    counts = (hu[:, rows, columns] < AIRWAY_HU).sum((1, 2))
    first, last = AIRWAY_SLICES
    sides = counts[centre + first : centre + last], counts[max(0, centre - last) : max(0, centre - first)]
    above, below = (float(side.mean()) if side.size else 0.0 for side in sides)
    return above, below
