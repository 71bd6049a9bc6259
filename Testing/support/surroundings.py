"""Objects beside a patient, and fields of view of gated scans: changes of a picture that leave the heart alone."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan, scan_from_image
from CACScoringLib.core.grid import Grid

AIR_HU = -1024
INSIDE_HU = {"couch": -920, "cushion": -850, "table": 150, "gown": AIR_HU, "arm": AIR_HU}
SHELL_HU = {"couch": -100, "cushion": -100, "table": 150, "gown": AIR_HU, "arm": AIR_HU}


def padded(scan: CTScan, pixels: int, hu: int = AIR_HU) -> CTScan:
    """Add air, or a fill of another value, on all sides of every slice."""
    image = sitk.ConstantPad(scan.image, [pixels, pixels, 0], [pixels, pixels, 0], hu)
    return scan_from_image(image, scan.acquisition)


def with_object(scan: CTScan, kind: str, side: str, pixels: int) -> CTScan:
    """Put an object of INSIDE_HU into air of this width at the "front", "back", "right" or "left" of a scan."""
    image = padded(scan, pixels).image
    values = sitk.GetArrayFromImage(image)
    hu = values.swapaxes(1, 2) if side in ("right", "left") else values
    hu = hu[:, ::-1] if side in ("back", "left") else hu
    strip = hu[:, : pixels - 2, pixels:-pixels]
    strip[:] = SHELL_HU[kind]
    strip[:, 1:-1, 1:-1] = INSIDE_HU[kind]
    row, column = np.ogrid[: strip.shape[1], : strip.shape[2]]
    if kind == "gown":
        strip[:, (row + column // 3) % max(4, pixels // 3) < 2] = -300
    if kind == "arm":
        distance = np.hypot(row - strip.shape[1] / 2 + 0.5, column - strip.shape[2] / 2)
        strip[:, distance < strip.shape[1] / 2] = 40
        strip[:, distance < strip.shape[1] / 5] = 800
    noise = np.random.default_rng(0).normal(0, 8, strip.shape)
    strip += (noise * (strip > AIR_HU)).astype(strip.dtype)
    return scan_from_image(Grid.of(image).image(values), scan.acquisition)


def cropped(scan: CTScan, heart: np.ndarray, field_mm: float, fill: int | None = None, pixels: int = 0) -> CTScan:
    """Crop a scan to a field of view around its heart.

    Args:
        scan: The scan.
        heart: Mask of its heart, bool [k, j, i].
        field_mm: Side of the field.
        fill: Value outside the circle in it; None for a square field.
        pixels: Width of air, or of the fill, around it.
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
    return padded(part, pixels, AIR_HU if fill is None else fill) if pixels else part
