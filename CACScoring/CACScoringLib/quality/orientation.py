"""Orientation of a scan: where spine, aorta, lungs and apex lie around the heart, compared with the file's header.

A scan is refused only where the whole spine in front of the heart, or two findings together, contradict its header; a
single contrary finding raises a warning. The limits were chosen on 11 unenhanced scans of 8 people and one digital
patient, as they are and reversed.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..anatomy.chest import LUNG_EDGE_HU, OUTSIDE_AIR_HU, voxels
from ..core.ct import CTScan, ScanWarning
from ..core.errors import OrientationError
from ..core.grid import GRID_MM
from ..core.remedies import UNUSUAL

THRESHOLD_HU = 130.0
"""Bone lies above."""

MIN_MASK_ML = 100.0
"""A smaller mask has no direction."""

SPINE_CM2 = 8.0
"""Bone in a transverse section of the spine: 9 cm² and more; of sternum and ribs in front of the heart, up to 5."""

TURNED_SPINE = 2.0
"""Bone in front of the heart per bone behind it: 0.4 at most, and 2.4 and more in reversed scans."""

RIGHT_MM, AORTA_RIGHT = -5.0, -0.1
"""Place of the heart: 9 mm and more left of the spine, 2 to 36 mm right of it in reversed scans. Tissue beside the
spine: more on the left by a share of 0.2 to 0.7, in one patient with an effusion less by 0.1."""

LUNG_BALANCE = 0.6
"""Lung on the narrower side of the spine per lung on the other: 0.72 and more in 9 patients, one with an effusion.
Below, an effusion, a tumour or a collapse shifts the heart, and tissue beside the spine may be no aorta."""

LUNG_BELOW, MUCH_LUNG_BELOW = -0.03, -0.2
"""Share of lung above the heart's centre less that below it: 0.05 and more, -0.06 to -0.48 in reversed scans."""

APEX_UP_MM, APEX_BACK_MM = -5.0, -10.0
"""Apex to the left and front, the sum of both: 4 mm and more, -45 to 50 mm with slices reversed. Apex to the front
alone: -7 mm and more, -22 to 1 mm with front and back reversed."""


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
    against = _wrong_axes(scan.coarse_hu)
    doubts: list[str] = []
    if not against:
        against, doubts = _contradictions(scan.coarse_hu, scan.coarse_grid.mask(heart, scan.grid))
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


def _wrong_axes(hu: np.ndarray) -> list[str]:
    """Find axes in another order, or a picture turned by 90°, by the spine: a clause, none if it fits.

    hu: The scan on the working grid, [k, j, i].
    """
    bone = (hu > THRESHOLD_HU).astype(np.float32)
    strips = [ndimage.uniform_filter(bone.mean(axis), voxels(SPINE_MM), mode="constant") for axis in range(3)]
    along_slices, *in_slices = (float(strip.max()) for strip in strips)
    if max(in_slices) >= max(MIN_SPINE, MORE_SPINE * along_slices):
        name = ("columns", "rows")[int(np.argmax(in_slices))]
        return [f"the spine runs along the {name} of the images, so the axes are in another order"]
    body = (hu > LUNG_EDGE_HU).mean(0)
    if along_slices < MIN_SPINE or not body.any():
        return []
    spine = np.unravel_index(strips[0].argmax(), strips[0].shape)
    behind_mm, left_mm = ((at - middle) * GRID_MM for at, middle in zip(spine, _middle(body), strict=True))
    if abs(left_mm) > max(BESIDE_MM, abs(behind_mm)):
        side = "left" if left_mm > 0 else "right"
        return [f"the spine lies {abs(left_mm):.0f} mm to the {side} of the body's middle, so the images are turned"]
    return []


def _middle(body: np.ndarray) -> list[float]:
    """Return the mean row and column of weights [j, i]."""
    return [float(np.average(np.arange(len(sums)), weights=sums)) for sums in (body.sum(1), body.sum(0))]


def _contradictions(hu: np.ndarray, heart: np.ndarray) -> tuple[list[str], list[str]]:
    """Measure the place of spine, aorta, lungs and apex, and judge it; a mask too small for a heart is not judged.

    hu: The scan on the working grid, [k, j, i]. heart: Mask on it, bool. Returns as `_judge`.
    """
    if heart.sum() * GRID_MM**3 / 1000 < MIN_MASK_ML:
        return [], []
    places = np.argwhere(heart)
    centre = places.mean(0)
    slices = slice(places[0, 0], places[-1, 0] + 1)
    _, backwards, leftwards = (np.arange(n) - c for n, c in zip(hu.shape, centre, strict=True))
    columns = np.flatnonzero(abs(leftwards) <= voxels(66))
    middle = slices, slice(None), slice(columns[0], columns[-1] + 1)
    bone = (hu[middle] > THRESHOLD_HU) & ~ndimage.binary_dilation(heart[middle], iterations=2)
    cm2 = GRID_MM**2 / 100 / len(bone)
    back = bone[:, backwards > voxels(20)]
    bone_behind = float(back.sum() * cm2)
    heart_left = aorta_left = lung_balance = None
    if bone_behind >= SPINE_CM2:
        spine = _spine(back.sum((0, 1))) + columns[0]
        heart_left = float((centre[2] - spine) * GRID_MM)
        column = bone[:, :, abs(columns - spine) <= voxels(15)].sum((0, 2)) * (backwards > voxels(20))
        aorta_left = _aorta_left(hu[slices], spine, int((column >= column.max() / 4).argmax()))
        lung_balance = _lung_balance(hu[slices], round(spine))
    low, high = np.percentile(places[:, 0], (33, 67))
    apex = places[places[:, 0] <= low].mean(0) - places[places[:, 0] >= high].mean(0)
    return _judge(
        bone_behind,
        float(bone[:, backwards < -voxels(20)].sum() * cm2),
        heart_left,
        aorta_left,
        lung_balance,
        _lung_above(hu, centre),
        float(apex[2]) * GRID_MM,
        float(-apex[1]) * GRID_MM,
    )


def _judge(
    bone_behind_cm2: float,
    bone_in_front_cm2: float,
    heart_left_mm: float | None,
    aorta_left: float | None,
    lung_balance: float | None,
    lung_above: float | None,
    apex_left_mm: float,
    apex_front_mm: float,
) -> tuple[list[str], list[str]]:
    """Compare where the anatomy lies with the header; None where the field of view does not show it.

    Args:
        bone_behind_cm2: Bone behind the heart, mean section over the heart's slices.
        bone_in_front_cm2: Bone in front of it, likewise.
        heart_left_mm: Distance of the heart's centre from the spine, to the left.
        aorta_left: Share of tissue beside the spine on the left less that on the right.
        lung_balance: Lung on the narrower side of the spine per lung on the other.
        lung_above: Share of lung above the heart's centre less that below.
        apex_left_mm: Offset of the heart's lower third from its upper third.
        apex_front_mm: Likewise.

    Returns:
        Clauses of a sentence: findings that contradict the header, and findings that only cast doubt on it.
    """
    if bone_in_front_cm2 >= max(SPINE_CM2, TURNED_SPINE * bone_behind_cm2):
        # The other axes are judged from the spine.
        areas = f"{bone_in_front_cm2:.0f} cm² of bone, behind it {bone_behind_cm2:.0f} cm²"
        return [f"the spine lies in front of the heart ({areas})"], []
    against: list[str] = []
    doubts: list[str] = []
    if heart_left_mm is not None and heart_left_mm < 0:
        finding = f"the heart lies {-heart_left_mm:.0f} mm to the right of the spine"
        is_shifted = lung_balance is not None and lung_balance < LUNG_BALANCE
        if is_shifted:
            doubts.append(f"{finding} between lungs of different size (an effusion, a tumour or a collapsed lung?)")
        elif aorta_left is not None and heart_left_mm < RIGHT_MM and aorta_left < AORTA_RIGHT:
            against.append(f"{finding}, and so does the aorta (dextrocardia or images reversed left to right)")
        else:
            doubts.append(finding)
    lung, apex = lung_above, apex_left_mm + apex_front_mm
    if lung is not None and (lung < MUCH_LUNG_BELOW or (lung < LUNG_BELOW and apex < APEX_UP_MM)):
        against.append("the lungs narrow above the heart as they do above the diaphragm")
    elif lung is not None and lung < 0:
        doubts.append("the lungs are no narrower below the heart than above")
    elif apex < APEX_UP_MM:
        doubts.append("the apex of the heart points up")
    elif apex_front_mm < APEX_BACK_MM:
        doubts.append("the apex of the heart points backwards")
    return against, doubts


def _spine(profile: np.ndarray) -> float:
    """Return the column of the spine. profile: Bone behind the heart by column."""
    strip = ndimage.uniform_filter1d(profile.astype(float), voxels(36), mode="constant")
    columns = np.arange(len(profile))
    return float(np.average(columns, weights=profile * (abs(columns - strip.argmax()) <= voxels(27))))


def _aorta_left(hu: np.ndarray, spine: float, front: int) -> float | None:
    """Return the share of tissue beside the spine on the left less that on the right; None if the scan ends there.

    front: Row of the spine's front.
    """
    inner, outer = round(spine) + voxels(12), round(spine) + voxels(45)
    mirrored = 2 * round(spine) - outer, 2 * round(spine) - inner
    if mirrored[0] < 0 or outer > hu.shape[2]:
        return None
    tissue = hu[:, max(0, front - voxels(15)) : front + voxels(21)] > LUNG_EDGE_HU
    return float(tissue[:, :, inner:outer].mean() - tissue[:, :, slice(*mirrored)].mean())


def _lung_balance(hu: np.ndarray, spine: int) -> float | None:
    """Return the lung on the narrower side of the spine per lung on the other; None without lung."""
    lung = ((hu > OUTSIDE_AIR_HU) & (hu < LUNG_EDGE_HU)).sum((0, 1))
    reach = min(spine, len(lung) - spine - 1)  # as far as both sides are in view
    sides = lung[spine - reach : spine].sum(), lung[spine + 1 : spine + 1 + reach].sum()
    return float(min(sides) / max(sides)) if max(sides) else None


def _lung_above(hu: np.ndarray, centre: np.ndarray) -> float | None:
    """Return the share of lung 24 to 66 mm above the heart's centre less that below; None if either is out of view."""
    k, j, i = (round(place) for place in centre)
    first = max(0, k - voxels(66))
    box = slice(max(0, j - voxels(60)), j + voxels(75)), slice(max(0, i - voxels(90)), i + voxels(75))
    surroundings_hu = hu[(slice(first, k + voxels(66)), *box)]
    body = surroundings_hu > OUTSIDE_AIR_HU
    share = (body & (surroundings_hu < LUNG_EDGE_HU)).sum((1, 2)) / np.maximum(1, body.sum((1, 2)))
    above, below = share[k - first + voxels(24) :], share[: max(0, k - first - voxels(24))]
    if min(len(above), len(below)) < voxels(15):
        return None
    return float(above.mean() - below.mean())
