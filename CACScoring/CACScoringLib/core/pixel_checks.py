"""Checks of the voxels of a CT that need no anatomy: values that are no HU, and slices that were changed or lost."""

from __future__ import annotations

import math
from typing import Any

import SimpleITK as sitk

from .errors import SliceGeometryError
from .slices import air_offset, blank_slices, foreign_slices, interpolated_axes, repeated_slices, step_of_values
from .text import abbreviated_list
from .voxels import voxels_of
from .warning_codes import Check

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


VALUE_CHECKS: tuple[Check[sitk.Image], ...] = (
    Check(
        "below-air",
        _below_air,
        "{count} voxels ({value:.1%}) lie below −1200 HU, down to {lowest:g} HU, and are not padding of one value. "
        "They were set to air (−1024 HU).",
        high=0.001,
    ),
    Check(
        "air-off",
        _air,
        "Air measures {air:.0f} HU, and −1000 HU by definition: the values were rescaled or shifted, so the score is "
        "wrong.",
        low=0.0,
        high=0.0,
    ),
    Check(
        "coarse-values",
        _step,
        "The values have steps of {value:.1f} HU, so 130 HU may stand for {lower:.1f} to {upper:.1f} HU: the CT was "
        "stored in too few grey levels.",
        high=1.04,
    ),
    Check(
        "values-clipped",
        _clipped,
        "{value:.1%} of the voxels have the highest value, {top:g} HU: denser values were cut off, so masses and peaks "
        "may be too low.",
        high=0.001,
    ),
)
"""Checks of values as stored."""

SLICE_CHECKS: tuple[Check[sitk.Image], ...] = (
    Check(
        "slices-blank",
        lambda image: len(blank_slices(voxels_of(image))[1]),
        "{value} slices at the ends of the scan are blank, so its images end before the volume does.",
        high=0,
    ),
    Check(
        "slices-repeated",
        _copies,
        "{value} slices are copies (slice {copies}, from 0 at the feet): images were lost, or the scan was resampled. "
        "Lesions may be missing or doubled.",
        high=0,
    ),
    Check(
        "interpolated",
        _interpolation,
        "The noise changes every {periods}: the voxels were interpolated, or two reconstructions are mixed. "
        "Interpolation blurs small calcium and lowers scores.",
        high=0,
    ),
    Check(
        "slices-foreign",
        _foreign,
        "{value} slices do not belong where they lie (slice {slices}; from 0 at the feet): images were changed, "
        "exchanged or computed. Lesions may be missing or displaced.",
        high=0,
        after=("slices-repeated", "interpolated"),
    ),
)
"""Checks of axial slices."""
