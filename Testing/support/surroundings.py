"""Changes of a scan around the patient: air, couch, cushion, arms and gown, and fields of view as of gated scans."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan, scan_from_image
from CACScoringLib.core.grid import Grid

AIR_HU = -1024


def padded(scan: CTScan, pixels: int, hu: int = AIR_HU) -> CTScan:
    """Add air, or a fill of another value, on all sides of every slice."""
    image = sitk.ConstantPad(scan.image, [pixels, pixels, 0], [pixels, pixels, 0], hu)
    return scan_from_image(image, scan.acquisition)


def beside(scan: CTScan, kind: str, side: str, pixels: int) -> CTScan:
    """Put a couch, cushion, table, arm or gown into air of this width on a side: "front", "back", "right" or "left"."""
    wide = padded(scan, pixels)
    hu = sitk.GetArrayFromImage(wide.image)
    if side in ("right", "left"):
        hu = hu.swapaxes(1, 2)
    if side in ("back", "left"):
        hu = hu[:, ::-1]
    strip = hu[:, : max(1, pixels - 2), pixels:-pixels]
    noise = np.random.default_rng(0).normal(0, 8, strip.shape).astype(np.int16)
    depth = np.arange(strip.shape[1])[:, None]
    if kind == "arm":
        radius = strip.shape[1] / 2
        row, column = depth - radius + 0.5, np.arange(strip.shape[2]) - strip.shape[2] / 2
        distance = np.hypot(row, column)
        strip[:, distance < radius] = 40
        strip[:, distance < 0.4 * radius] = 800
    elif kind == "gown":
        strip[:, (depth + np.arange(strip.shape[2]) // 3) % max(4, pixels // 3) < 2] = -300
    else:
        inner = {"couch": -920, "cushion": -850, "table": 150}[kind]
        strip[:] = inner
        strip[:, [0, -1]] = strip[:, :, [0, -1]] = 150 if kind == "table" else -100
    strip += noise * (strip > AIR_HU)
    return scan_from_image(
        Grid.of(wide.image).image(sitk.GetArrayFromImage(wide.image) * 0 + _back(hu, side)), scan.acquisition
    )


def _back(hu: np.ndarray, side: str) -> np.ndarray:
    hu = hu[:, ::-1] if side in ("back", "left") else hu
    return np.ascontiguousarray(hu.swapaxes(1, 2) if side in ("right", "left") else hu)


def cropped(scan: CTScan, heart: np.ndarray, field_mm: float, fill: int | None = None, pixels: int = 0) -> CTScan:
    """Crop a scan to a field of view around its heart, as of gated scans.

    Args:
        scan: The scan.
        heart: Mask of its heart, bool [k, j, i].
        field_mm: Side of the field.
        fill: Value outside the circle in it; None for a square field.
        pixels: Width of air around it.
    """
    centre = np.argwhere(heart).mean(0)[:0:-1]
    half = field_mm / 2 / np.array(scan.image.GetSpacing()[:2])
    low = np.maximum(0, np.rint(centre - half)).astype(int)
    high = np.minimum(scan.image.GetSize()[:2], np.rint(centre + half)).astype(int)
    image = scan.image[int(low[0]) : int(high[0]), int(low[1]) : int(high[1])]
    if fill is not None:
        hu = sitk.GetArrayFromImage(image)
        i, j = (np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True))
        hu[:, (j[:, None] / half[1]) ** 2 + (i / half[0]) ** 2 > 1] = fill
        image = Grid.of(image).image(hu)
    part = scan_from_image(image, scan.acquisition)
    return padded(part, pixels, fill if fill is not None else AIR_HU) if pixels else part
