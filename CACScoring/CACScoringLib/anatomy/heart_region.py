"""Heart region derived by rules from lungs, spine and diaphragm, bone near a heart, and epicardial fat.

The lungs frame the heart on three sides and show best on any CT, so the heart is read from them: tissue between
the lungs, in front of the spine, behind the sternum, above the diaphragm, and thicker than the great vessels.
The region is meant to cover: it holds the epicardial fat with the coronaries, the aortic root and the pulmonary
trunk, and below the dome of the diaphragm, where unenhanced heart and liver look alike, some liver. It serves
where no network is installed, and where that of the network is implausible.

The distances below were chosen while looking at 12 chest CTs of 9 patients and measuring on three of them, of two
patients, with a heart mask; they have not been tested on scans unseen. Arrays are [k, j, i] on a grid of GRID_MM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.acquisition import Acquisition
from ..core.ct import CTScan, ScanWarning
from ..core.errors import NoHeartError
from ..core.grid import GRID_MM, bounding_box, cut_ends, largest_part
from ..record.findings import EpicardialFat
from .chest import BONE_HU, Chest, depth_inside, grown, landmarks, voxels, within

if TYPE_CHECKING:
    from .territories import Territories


AROUND_LESIONS = "lesions"
"""Source of a region around a reader's lesions, in a scan without a heart."""

DENSE_HU = 130
"""Threshold of candidates for calcium."""

ENHANCED_HU = 90
"""Upper quartile inside the heart above which its blood is enhanced, and may touch bone as bright as itself."""

TISSUE_BETWEEN_LUNGS_HU = -160
"""Fat and everything denser; the rim of lung that partial volume brightens lies below."""

BONE_ML, BONE_INSIDE = 1.0, 0.5
"""Least volume of large bone, and largest share of it in heart and territories."""

BONE_REACH_MM = 15.0
"""Distance from bone within which thin bone and cartilage are attached to it, mm."""

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


CUT_ARTERIES_MM2, MISSING_MM = 200.0, 5.0
"""The arteries' territories are cut at an end of the scan if their section there is larger, and, as it narrows, a
longer piece of them is missing: in ten hearts cut by 3 mm 1 to 4 mm, by 9 mm 5 mm and more."""


@dataclass(frozen=True)
class HeartRegion:
    """The heart, and structures near it that are no coronary calcium.

    Attributes:
        mask: Mask on the scan's grid, bool [k, j, i].
        bone: True in bone near the heart and in the voxels beside it that it fills in part, bool [k, j, i]; None where
            it was not looked for, as with a mask of the user.
        source: "lungs" as found here, "given", AROUND_LESIONS, or the name of a network.
        warnings: Doubts about the region.
        territories: Territories in and around the heart; None if no network found them or they do not fit the heart.
        pericardium: Outline of the territories' network without a margin, or one of the user, bool [k, j, i] on the
            scan's grid; None without both.
        pericardium_source: Name of the network, or "given"; None without a pericardium that fits the heart.
    """

    mask: np.ndarray
    bone: np.ndarray | None
    source: str
    warnings: tuple[ScanWarning, ...] = ()
    territories: Territories | None = None
    pericardium: np.ndarray | None = None
    pericardium_source: str | None = None

    @cached_property
    def territory_labels(self) -> np.ndarray | None:
        """The likeliest territory of each voxel of the scan, uint8 [k, j, i]; None without territories."""
        return None if self.territories is None else self.territories.labels(self.mask.shape)


def heart_region(scan: CTScan) -> HeartRegion:
    """Find the heart from the lungs, spine and diaphragm around it.

    Raises NoHeartError when the field of view shows no heart between two lungs.
    """
    chest = landmarks(scan.coarse_hu)
    heart, warnings = _heart(chest)
    bone = bone_near(scan, heart, chest.bone)
    mask = scan.grid.mask(heart, scan.coarse_grid) & ~bone
    return HeartRegion(mask, bone, "lungs", warnings + cut_warnings(heart))


def large_bone(hu: np.ndarray, organs: np.ndarray) -> np.ndarray:
    """Return large bright parts that lie mostly outside organs, bool [k, j, i].

    hu, organs: Scan, and heart and territories, on the working grid.
    """
    labels, count = ndimage.label(hu > BONE_HU, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    is_bone = sizes * GRID_MM**3 / 1000 >= BONE_ML
    is_bone &= np.bincount(labels[organs], minlength=count + 1) <= BONE_INSIDE * sizes
    is_bone[0] = False
    return is_bone[labels]


def bone_near(scan: CTScan, organs: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """Return bone near organs with its rim, and thin dense parts attached to it, as rib ends and cartilage.

    What lies deep inside the organs, as of leads, is left out.

    Args:
        scan: The scan.
        organs: Heart and territories on the working grid, bool [k, j, i].
        bone: Bone on the working grid, likewise.

    Returns:
        bool [k, j, i] on the scan's grid.
    """
    core = ndimage.binary_erosion(organs, iterations=voxels(9))
    bone = bone & within(organs, voxels(2 * BONE_REACH_MM)) & ~core
    rim = scan.grid.mask(grown(bone), scan.coarse_grid)
    if core.any() and np.percentile(scan.coarse_hu[core], 75) > ENHANCED_HU:
        return rim
    near = scan.grid.mask(within(bone, voxels(BONE_REACH_MM)), scan.coarse_grid)
    box = bounding_box(near) if near.any() else ()
    joined = rim[box] | (near[box] & (scan.hu[box] >= DENSE_HU))
    marker, mask = (sitk.GetImageFromArray(part.astype(np.uint8)) for part in (rim[box], joined))
    attached = sitk.BinaryReconstructionByDilation(marker, mask, 0, 1, True)
    rim[box] = sitk.GetArrayFromImage(attached).view(bool)
    return rim


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


def cut_warnings(heart: np.ndarray, coronaries: np.ndarray | None = None) -> tuple[ScanWarning, ...]:
    """Check whether a heart reaches an end or a side of the scan; with arteries, whether part of these is missing.

    heart, coronaries: Heart, and territories of its arteries, on the working grid, bool [k, j, i].

    Returns:
        A severe warning where it does.
    """
    cut = cut_ends(heart, (GRID_MM,) * 3, 0.0)
    if cut and coronaries is not None:
        reached = cut_ends(coronaries, (GRID_MM,) * 3, CUT_ARTERIES_MM2)
        missing_mm = {"bottom": _missing_mm(coronaries), "top": _missing_mm(coronaries[::-1]), "sides": math.inf}
        cut = [end for end in reached if missing_mm[end] > MISSING_MM]
    if not cut:
        return ()
    message = (
        f"The heart region reaches the {' and '.join(cut)} of the scan: part of the heart may lie outside, "
        "and its calcium is not counted."
    )
    return (ScanWarning("heart-cut", message),)


def _missing_mm(part: np.ndarray) -> float:
    """Return the length of a part beyond the scan's first slice, mm, as its sections narrow towards it."""
    first, third = (np.count_nonzero(part[min(n, len(part) - 1)]) for n in (0, 2))
    return 2 * GRID_MM * first / (third - first) if third > first else math.inf


FAT_HU = (-190.0, -30.0)
"""Range of fat in HU, as in studies of risk (PMC6884062, PMC8422968)."""

CUT_MM2 = 100.0
"""Area of the pericardium at an end or a side of the scan from which too much may lie outside to measure its fat."""


def measure_epicardial_fat(
    scan: CTScan, pericardium: np.ndarray | None, source: str | None
) -> tuple[EpicardialFat | None, tuple[ScanWarning, ...]]:
    """Measure the fat within the pericardium; nothing where the scan cuts it.

    Args:
        scan: The CT.
        pericardium: Mask of all within the pericardium, bool [k, j, i] on the scan's grid; None if it is unknown.
        source: Network that outlined it, or "given"; None if it does not fit the heart, so that nothing is measured.

    Returns:
        The fat, None without a whole pericardium; and a warning if the scan cuts it.
    """
    if pericardium is None or source is None:
        return None, ()
    spacing_mm = scan.image.GetSpacing()
    if ends := cut_ends(pericardium, spacing_mm, CUT_MM2):
        message = (
            f"Epicardial fat was not measured, because the pericardium reaches the {' and '.join(ends)} of the scan."
        )
        return None, (ScanWarning("epicardial-fat-cut", message),)
    fat_hu = _fat_values(scan.hu, pericardium)
    volume_cm3 = len(fat_hu) * math.prod(spacing_mm) / 1000
    surface_m2 = body_surface_m2(scan.acquisition)
    mean_hu = float(fat_hu.mean(dtype=np.float64)) if len(fat_hu) else None
    index = None if surface_m2 is None else volume_cm3 / surface_m2
    return EpicardialFat(volume_cm3, mean_hu, index, source), ()


def body_surface_m2(patient: Acquisition) -> float | None:
    """Return the body surface by Mosteller (N Engl J Med 1987;317:1098); None without height or weight."""
    height_m, weight_kg = patient.patient_height_m, patient.patient_weight_kg
    return math.sqrt(height_m * weight_kg / 36) if height_m and weight_kg else None


def _fat_values(hu: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the HU of fat voxels in a mask [k, j, i]."""
    if not inside.any():
        return hu[inside]
    box = bounding_box(inside)
    rows, columns = (slice(max(0, part.start - 1), part.stop + 1) for part in box[1:])
    values = []
    for plane, mask in zip(hu[box[0], rows, columns], inside[box[0], rows, columns], strict=True):
        smooth = _median(np.pad(plane, 1, mode="edge"))
        values.append(plane[mask & (smooth >= FAT_HU[0]) & (smooth <= FAT_HU[1])])
    return np.concatenate(values)


def _median(plane: np.ndarray) -> np.ndarray:
    """Return the median of 3 × 3 pixels, without the plane's rim."""
    # Sorted columns leave three candidates; SciPy's filter takes ten times as long.
    low, middle, high = _sorted(plane[:-2], plane[1:-1], plane[2:])
    highest_low = np.maximum.reduce(_thirds(low))
    lowest_high = np.minimum.reduce(_thirds(high))
    return _sorted(highest_low, _sorted(*_thirds(middle))[1], lowest_high)[1]


def _thirds(plane: np.ndarray) -> Sequence[np.ndarray]:
    """Return each pixel's left neighbour, the pixel, and its right neighbour."""
    return plane[:, :-2], plane[:, 1:-1], plane[:, 2:]


def _sorted(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.minimum(low, c), np.maximum(low, np.minimum(high, c)), np.maximum(high, c)
