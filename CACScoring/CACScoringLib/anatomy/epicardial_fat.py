"""Epicardial fat: volume and attenuation of the fat within the pericardium.

The pericardium is the heart's outline of the territories' network, or a mask of the user. Fat in it has FAT_HU after a
median of 3 × 3 voxels in each slice, which noise cannot turn into muscle or lung. Slices are not mixed, because they
may be thick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..core.acquisition import Acquisition
from ..core.ct import CTScan, ScanWarning
from ..core.grid import bounding_box, cut_ends
from ..record.findings import EpicardialFat

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
