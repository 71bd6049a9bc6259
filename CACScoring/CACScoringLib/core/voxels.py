"""Voxels of SimpleITK images as NumPy arrays, NumPy arrays as images, and checks of their values and slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk

from .errors import NotHounsfieldError, NotVolumeError, SliceGeometryError
from .interpolation import correlated_slices, interpolated_axes
from .slice_checks import air_offset, blank_slices, foreign_slices, repeated_slices, step_of_values
from .text import abbreviated_list
from .warning_codes import ScanWarning, run_check

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])

_MIN_COLUMNS = 5
BONE_HU, _COLUMN_MM, _BONE_SHARE = 130, 12.0, 0.15
SPINE_SHARE, NO_SPINE_SHARE = 0.9, 0.85
"""Share of a volume's length along which bone continues: along the spine 0.94 and more, across it 0.8 at most where the
spine is seen. A scan from head to heart, whose bones bend, has less along every axis."""

_LARGEST_SHEAR = 1e-3
"""Largest cosine of the angle between two axes."""


class _Buffer:
    """Array interface of an image's buffer, which NumPy arrays keep alive."""

    def __init__(self, image: sitk.Image) -> None:
        self.__array_interface__ = sitk.GetArrayViewFromImage(image).__array_interface__
        # SimpleITK gives an image that shares its buffer a new one at the next view. The copy is never viewed, so the
        # buffer of this view stays as it is as long as the array does.
        self.image = sitk.Image(image)


def voxels_of(image: sitk.Image) -> np.ndarray:
    """Return a read-only array [k, j, i] of an image's voxels, valid whatever happens to the image.

    `sitk.GetArrayViewFromImage` shows freed memory once the image is viewed again after any shallow copy, which many
    filters make. While the array is held, a further array of the same image is a copy.
    """
    return np.asarray(_Buffer(image))


LABEL_TOLERANCE = 1e-3
"""Largest distance of a label from a whole number; writers scale labels by floating-point slopes."""


def whole_labels(image: sitk.Image) -> sitk.Image:
    """Return labels as whole numbers if all nearly are; other images unchanged."""
    values = voxels_of(image)
    is_near = values.dtype.kind == "f" and values.ndim == 3 and bool(values.size)
    return sitk.Round(image) if is_near and np.abs(values - np.rint(values)).max() <= LABEL_TOLERANCE else image


class ArrayImage(sitk.Image):
    """SimpleITK image that NumPy reads: `np.asarray(image)` is its array [k, j, i]."""

    def __init__(self, *image: Any) -> None:
        super().__init__(*image)  # type: ignore[no-untyped-call]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = sitk.GetArrayFromImage(self)
        return array if dtype is None else array.astype(dtype, copy=False)


def image_from_array(
    array: np.ndarray, affine: np.ndarray | None, spacing_mm: tuple[float, float, float] | None
) -> sitk.Image:
    """Return an array as an image; see `CTScan.from_array`.

    Raises:
        NotVolumeError: The array does not have three axes.
        NotHounsfieldError: The array holds no real numbers.
        SliceGeometryError: The array has no geometry, or its axes are not perpendicular.
    """
    array = np.asarray(array)
    if array.ndim != 3:
        raise NotVolumeError(f"The array has {array.ndim} axes (shape {array.shape}); a volume has three.")
    if array.dtype.kind not in "iuf":
        raise NotHounsfieldError(f"The array holds values of type {array.dtype}; HU are integers or floats.")
    if (affine is None) == (spacing_mm is None):
        raise SliceGeometryError("Give either the affine of the array or its spacing in mm, not both or neither.")
    if affine is None:
        # Axes towards superior, posterior and left, as those of CTScan.hu.
        steps_mm = _numbers(spacing_mm, (3,), "The spacing")
        axes, origin = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]), np.zeros(3)
    else:
        affine = _numbers(affine, (4, 4), "The affine")
        axes, origin = affine[:3, :3], affine[:3, 3]
        steps_mm = np.linalg.norm(axes, axis=0)
        axes = axes / np.where(steps_mm > 0, steps_mm, 1.0)
    if not (steps_mm > 0).all() or not np.isfinite(steps_mm).all():
        raise SliceGeometryError(f"Spacings are above 0 mm, not {', '.join(f'{step:g}' for step in steps_mm)}.")
    if np.abs(axes.T @ axes - np.eye(3)).max() > _LARGEST_SHEAR:
        raise SliceGeometryError("The affine is sheared. Resample the array to perpendicular axes first.")
    # SimpleITK lacks half and extended precision and foreign byte orders.
    is_odd = array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8)
    array = np.ascontiguousarray(array, np.float32 if is_odd else array.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(array)
    # The last axis of an array is the first of an image.
    image.SetSpacing(steps_mm[::-1].tolist())
    image.SetOrigin((_LPS_FROM_RAS @ origin).tolist())
    image.SetDirection((_LPS_FROM_RAS @ axes[:, ::-1]).ravel().tolist())
    return image


def spine_axis(hu: np.ndarray, spacing_mm: tuple[float, ...]) -> int | None:
    """Find the axis of an array along which the spine runs, if it is another than the first; else None.

    Args:
        hu: HU, [k, j, i].
        spacing_mm: Distances of voxels along its axes.
    """
    bone = hu > BONE_HU
    for axis, step_mm in enumerate(spacing_mm):
        size = min(max(1, round(_COLUMN_MM / step_mm)), bone.shape[axis])
        stop = bone.shape[axis] // size * size
        bone = np.add.reduceat(bone.take(range(stop), axis), range(0, stop, size), axis, np.float32) / size
    if min(bone.shape) < _MIN_COLUMNS:
        return None
    shares = [float((bone > _BONE_SHARE).mean(axis).max()) for axis in range(3)]
    longest = int(np.argmax(shares))
    return longest if shares[0] < NO_SPINE_SHARE and shares[longest] >= SPINE_SHARE else None


def _numbers(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return values as float64 of a shape. Raises SliceGeometryError."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise SliceGeometryError(f"{name} is {values!r}, which are no numbers.") from error
    if array.shape != shape:
        size = " × ".join(map(str, shape))
        raise SliceGeometryError(f"{name} holds {size} numbers, not an array of shape {array.shape}.")
    return array


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


def value_warnings(image: sitk.Image) -> list[ScanWarning]:
    """Check values as stored."""
    values = voxels_of(image)
    lowest, top = values.min(), float(values.max())
    # Padding has the lowest value.
    below_air = 0 if lowest >= LOWEST_AIR_HU else int(((values < LOWEST_AIR_HU) & (values > lowest)).sum())
    offset_hu, step_hu = air_offset(values), step_of_values(values)
    warnings = run_check("below-air", below_air / values.size, below_air=below_air, lowest=lowest)
    if offset_hu:
        air_hu = offset_hu - 1000
        message = (
            f"Air measures {air_hu:.0f} HU, and −1000 HU by definition: the values were rescaled or shifted, so the "
            "score is wrong."
        )
        warnings.append(ScanWarning("air-off", message))
    warnings += run_check("coarse-values", step_hu, lower=130 - step_hu / 2, upper=130 + step_hu / 2)
    return warnings + run_check("values-clipped", float((values == top).mean()) if top < CLIPPED_HU else 0.0, top=top)


def slice_warnings(image: sitk.Image) -> list[ScanWarning]:
    """Check axial slices."""
    hu = voxels_of(image)
    blank: list[ScanWarning] = []
    changed: list[ScanWarning] = []
    if count := len(blank_slices(hu)[1]):
        message = f"{count} slices at the ends of the scan are blank, so its images end before the volume does."
        blank = [ScanWarning("slices-blank", message)]
    if pairs := repeated_slices(hu):
        count, copies = len(pairs), abbreviated_list(f"{copy} of {original}" for original, copy in pairs)
        message = (
            f"{count} slices are copies (slice {copies}, from 0 at the feet): images were lost, or the scan was "
            "resampled. Lesions may be missing or doubled."
        )
        changed.append(ScanWarning("slices-repeated", message))
    changed += _interpolation_warning(interpolated_axes(hu))
    # Copies and interpolation look foreign too, and foreign slices correlate as interpolated ones, and look like gaps.
    return [
        *blank,
        *(changed or _foreign_warning(hu) or _interpolation_warning(correlated_slices(hu)) or _gap_warning(hu)),
    ]


def _interpolation_warning(periods: dict[int, float]) -> list[ScanWarning]:
    if not periods:
        return []
    names = ("slices", "rows", "columns")
    steps = " and ".join(f"{period:.1f} {names[axis]}" for axis, period in periods.items())
    message = (
        f"The noise changes every {steps}: the voxels were interpolated, or two reconstructions are mixed. "
        "Interpolation blurs small calcium and lowers scores."
    )
    return [ScanWarning("interpolated", message)]


def _foreign_warning(hu: np.ndarray) -> list[ScanWarning]:
    if not (reasons := foreign_slices(hu, "slices-foreign")):
        return []
    count, foreign = len(reasons), abbreviated_list(f"{k} {reason}" for k, reason in reasons.items())
    message = (
        f"{count} slices do not belong where they lie (slice {foreign}; from 0 at the feet): images were changed, "
        "exchanged or computed. Lesions may be missing or displaced."
    )
    return [ScanWarning("slices-foreign", message)]


def _gap_warning(hu: np.ndarray) -> list[ScanWarning]:
    if not (reasons := foreign_slices(hu, "slice-gaps")):
        return []
    jumps = abbreviated_list(f"{k} {reason}" for k, reason in reasons.items())
    message = (
        f"The patient moved or breathed, or slices are missing (slice {jumps}; from 0 at the feet). Lesions may be "
        "missing or doubled there."
    )
    return [ScanWarning("slice-gaps", message)]
