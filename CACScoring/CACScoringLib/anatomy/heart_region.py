"""The heart and the bone near it, masks on the working grid, and epicardial fat.

Arrays are [k, j, i]; on a grid of GRID_MM where nothing else is said.
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
from ..core.grid import GRID_MM, bounding_box, cut_ends, grown, within
from ..record.findings import EpicardialFat

if TYPE_CHECKING:
    from .territories import Territories


OUTSIDE_AIR_HU = -965
"""Outside air and bowel gas lie below, lung (also with emphysema) on average above."""

BONE_HU = 150
"""Trabecular bone at GRID_MM, and above unenhanced blood and muscle at any usual noise."""

AROUND_LESIONS = "lesions"
"""Source of a region around a reader's lesions, in a scan without a heart."""

DENSE_HU = 130
"""Threshold of candidates for calcium."""

ENHANCED_HU = 90
"""Upper quartile inside the heart above which its blood is enhanced, and may touch bone as bright as itself."""

BONE_ML, BONE_INSIDE = 1.0, 0.5
"""Least volume of large bone, and largest share of it in heart and territories."""

SIDE_VOXELS = 2
"""Depth of a field's sides on the working grid: one voxel may be half air."""

BONE_REACH_MM = 15.0
"""Distance from bone within which thin bone and cartilage are attached to it, mm."""

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


def large_bone(hu: np.ndarray, organs: np.ndarray) -> np.ndarray:
    """Return large bright parts that lie mostly outside organs or reach the sides of the field, bool [k, j, i].

    hu, organs: Scan, and heart and territories, on the working grid.
    """
    labels, count = ndimage.label(hu > BONE_HU, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    is_bone = sizes * GRID_MM**3 / 1000 >= BONE_ML
    is_outside = np.bincount(labels[organs], minlength=count + 1) <= BONE_INSIDE * sizes
    for side in _sides(hu, labels):
        is_outside[side] = True  # a field that cuts a rib leaves the part beside the heart
    is_bone &= is_outside
    is_bone[0] = False
    return is_bone[labels]


def _sides(hu: np.ndarray, volume: np.ndarray) -> list[np.ndarray]:
    """Return the parts of a volume at the four sides of the scanned field, which air around it does not belong to.

    hu, volume: [k, j, i], both on the working grid.
    """
    is_scanned = hu > OUTSIDE_AIR_HU
    rows, columns = (np.flatnonzero(is_scanned.any(axis)) for axis in ((0, 2), (0, 1)))
    if not len(rows):
        return []
    ends = ((part[0] + np.arange(SIDE_VOXELS), part[-1] - np.arange(SIDE_VOXELS)) for part in (rows, columns))
    (front, back), (right, left) = ends
    return [volume[:, front], volume[:, back], volume[:, :, right], volume[:, :, left]]


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
    near_bone = scan.grid.mask(within(bone, voxels(BONE_REACH_MM)), scan.coarse_grid)
    box = bounding_box(near_bone) if near_bone.any() else ()
    joined = rim[box] | (near_bone[box] & (scan.hu[box] >= DENSE_HU))
    marker, mask = (sitk.GetImageFromArray(part.astype(np.uint8)) for part in (rim[box], joined))
    attached = sitk.BinaryReconstructionByDilation(marker, mask, 0, 1, True)
    rim[box] = sitk.GetArrayFromImage(attached).view(bool)
    return rim


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
        f"The heart region reaches the {' and '.join(cut)} of the scan: part of the heart may lie outside, and its "
        "calcium is not counted."
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
        cut = " and ".join(ends)
        message = f"Epicardial fat was not measured, because the pericardium reaches the {cut} of the scan."
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


def voxels(length_mm: float) -> int:
    """Return a length in voxels of the working grid."""
    return round(length_mm / GRID_MM)
