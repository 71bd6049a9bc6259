"""Checks of the voxels of a CT that need no anatomy: values that are no HU, and slices that were changed or lost."""

from __future__ import annotations

import math
from typing import Any

import SimpleITK as sitk

from .errors import SliceGeometryError
from .slices import air_offset, blank_slices, foreign_slices, interpolated_axes, repeated_slices, step_of_values
from .text import abbreviated_list
from .voxels import voxels_of
from .warning_codes import checks

LOWEST_AIR_HU = -1200
"""Lowest HU of noise in air."""

CLIPPED_HU = 1000
"""Largest value below which bone is missing from a chest."""


def require_filled_slices(image: sitk.Image) -> None:
    """Raise SliceGeometryError for blank slices within a scan."""
    inside, _ = blank_slices(voxels_of(image))
    if inside:
        raise SliceGeometryError(
            f"{len(inside)} slices within the scan are blank, all voxels of one value (slice "
            f"{abbreviated_list(map(str, inside))}, from 0 at the feet): their images were lost. Export the CT again."
        )


def _below_air(image: sitk.Image) -> dict[str, Any]:
    values = voxels_of(image)
    low = values.min()
    # Padding has the lowest value.
    count = 0 if low >= LOWEST_AIR_HU else int(((values < LOWEST_AIR_HU) & (values > low)).sum())
    return {"value": count / values.size, "count": count, "lowest": low}


def _step(image: sitk.Image) -> dict[str, float]:
    step = step_of_values(voxels_of(image))
    return {"value": step, "lower": 130 - step / 2, "upper": 130 + step / 2}


def _clipped(image: sitk.Image) -> dict[str, float]:
    values = voxels_of(image)
    top = float(values.max())
    return {"value": float((values == top).mean()) if top < CLIPPED_HU else 0.0, "top": top}


def _air(image: sitk.Image) -> dict[str, float]:
    offset = air_offset(voxels_of(image))
    return {"value": offset, "air": offset - 1000}


def _copies(image: sitk.Image) -> dict[str, Any]:
    pairs = repeated_slices(voxels_of(image))
    return {"value": len(pairs), "copies": abbreviated_list(f"{copy} of {original}" for original, copy in pairs)}


def _interpolation(image: sitk.Image) -> dict[str, Any]:
    axes = interpolated_axes(voxels_of(image))
    names = ("slices", "rows", "columns")
    return {"value": len(axes), "periods": " and ".join(f"{period:.1f} {names[axis]}" for axis, period in axes.items())}


def _foreign(image: sitk.Image) -> dict[str, Any]:
    foreign = foreign_slices(voxels_of(image), math.prod(image.GetSpacing()[:2]))
    return {"value": len(foreign), "slices": abbreviated_list(f"{k} {reason}" for k, reason in foreign.items())}


VALUE_CHECKS = checks("values", below_air=_below_air, air=_air, step=_step, clipped=_clipped)
"""Checks of values as stored."""

SLICE_CHECKS = checks(
    "slices",
    blank=lambda image: len(blank_slices(voxels_of(image))[1]),
    copies=_copies,
    interpolation=_interpolation,
    foreign=_foreign,
)
"""Checks of axial slices."""
