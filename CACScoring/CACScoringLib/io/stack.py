"""The slices of a DICOM series as one volume in HU, without images that do not belong to its stack.

Slices are ordered by their position along the slice normal and by nothing else. Whatever is not one evenly
spaced stack of HU slices ends in a `CTError`; nothing is repaired silently.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTError, NotVolumeError, ScanWarning, SliceGeometryError
from ..core.text import abbreviated_list
from .dicom import DicomSlice, check_numbers
from .image_files import ORTHONORMAL_TOLERANCE, SHEARED, check_spacing
from .pixels import read_hu, stored_values

POSITION_TOLERANCE_MM, POSITION_TOLERANCE = 0.15, 1 / 12
"""How far a slice may lie from its place in an even stack, in mm or parts of the spacing, whichever is more: positions
rounded to 0.1 mm reach 0.1 mm, those of a table's encoder 0.2 mm with slices of 3 mm."""

IN_PLANE_TOLERANCE_MM = 0.5
"""How far slices may be shifted against each other within their plane: rounded positions and direction cosines
reach 0.3 mm over a chest; a gantry tilt of 1° moves 5 mm over 300 mm."""

DUPLICATE_TOLERANCE_MM = 0.01
"""Slices closer than this have the same position."""

PIXEL_SPACING_TOLERANCE_MM = 0.001
"""Pixel spacings of one series differ less than this (0.5 mm over 512 pixels)."""

DIRECTION_TOLERANCE = 0.001
"""Direction cosines of one series differ less than this (0.06°)."""

_GEOMETRY = {
    "ImagePositionPatient": (3, "valid image position"),
    "ImageOrientationPatient": (6, "valid image orientation"),
    "PixelSpacing": (2, "valid pixel spacing"),
}

MOST_LEFT_OUT = 3
"""How many images beside localizers a whole series may hold too many; of more, nobody can say which are right."""

LEAST_REST = 3
"""How many times as many slices have to remain as are left out."""

_KIND = ("SOPClassUID", "Columns", "Rows", "SamplesPerPixel", "ImageType")
_VALUES = ("ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "BitsStored")
_MADE = ("ImageType", "KVP", "ConvolutionKernel", "SliceThickness", "SOPClassUID", "AcquisitionNumber")


def without_strays(slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], tuple[ScanWarning, ...]]:
    """Leave out of a series what does not belong to its stack, where there is no doubt about it.

    Localizers and copies of a slice are left out always. At most `MOST_LEFT_OUT` other images are, and only where what
    remains is one evenly spaced stack without a gap: those of another size, pixel spacing or orientation than most,
    those without a place that are of another kind too (dose sheets), and of slices with the same position those that
    were made in another way than the rest of the series.

    Returns:
        The slices that remain, and a warning that names those left out. All slices, without a warning, where the
        series is complete or the right images are unclear: `read_stack` raises what is wrong.

    Raises:
        NotVolumeError: There are only localizers.
    """
    images = [s for s in slices if not s.is_localizer]
    if not images:
        raise NotVolumeError("The series holds only localizer (scout) images. Give the axial slices.")
    localizers = [s for s in slices if s.is_localizer]
    images, copies = _without_copies(images)
    stack = _complete(images)
    stack_ids = set(map(id, stack))
    others = [s for s in images if id(s) not in stack_ids]
    causes = []
    if localizers:
        causes.append(f"{len(localizers)} localizers ({abbreviated_list(s.name for s in localizers)})")
    if copies:
        causes.append(f"{len(copies)} copies of slices ({abbreviated_list(s.name for s in copies)})")
    if others:
        causes.append(
            f"{len(others)} images that do not belong to its stack ({abbreviated_list(s.name for s in others)})"
        )
    if not causes:
        return stack, ()
    return stack, (ScanWarning("images-left-out", f"These images of the series were left out: {'; '.join(causes)}."),)


def _complete(slices: list[DicomSlice]) -> list[DicomSlice]:
    """The slices that make a complete stack, or all of them where that is not clear."""
    if len(slices) < 2:
        return slices
    with suppress(CTError):
        stack_of(slices)
        return slices
    with suppress(CTError):
        stack = _one_of_each_place(_of_one_plane(slices))
        count = len(slices) - len(stack)
        if 0 < count <= MOST_LEFT_OUT and len(stack) >= LEAST_REST * count:
            stack_of(stack)
            return stack
    return slices


def _of_one_plane(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Slices of the size, pixel spacing and orientation that most have, without images that have no place."""
    placed = [s for s in slices if _is_placed(s)]
    sizes = [_facts(s, ("Rows", "Columns", "SamplesPerPixel")) for s in placed]
    usual = Counter(sizes).most_common(1)
    stack = [s for s, size in zip(placed, sizes, strict=True) if size == usual[0][0]]
    for keyword, count, tolerance in (
        ("ImageOrientationPatient", 6, DIRECTION_TOLERANCE),
        ("PixelSpacing", 2, PIXEL_SPACING_TOLERANCE_MM),
    ):
        if stack:
            values = np.array([s.numbers(keyword, count) for s in stack])
            near = np.abs(values - np.median(values, axis=0)).max(axis=1) <= tolerance
            stack = [s for s, is_near in zip(stack, near, strict=True) if is_near]
    kinds = {_facts(s, _KIND) for s in stack}
    # A slice that lost its position, but is a slice otherwise, may be one of the stack: it stays, and is an error.
    return stack + [s for s in slices if not _is_placed(s) and _facts(s, _KIND) in kinds]


def _is_placed(slice_: DicomSlice) -> bool:
    places = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    return all(slice_.numbers(keyword, count) is not None for keyword, count in places)


def _facts(slice_: DicomSlice, keywords: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(slice_.text(keyword) for keyword in keywords)


def _without_copies(slices: list[DicomSlice]) -> tuple[list[DicomSlice], list[DicomSlice]]:
    """Part slices into those that are unlike all before them, and copies: images alike in place, making and pixels."""
    places: dict[tuple[float, ...] | None, list[DicomSlice]] = {}
    copies = []
    for slice_ in slices:
        place = slice_.numbers("ImagePositionPatient", 3)
        if place is not None and any(_is_copy(slice_, other) for other in places.get(place, [])):
            copies.append(slice_)
        else:
            places.setdefault(place, []).append(slice_)
    copy_ids = set(map(id, copies))
    return [s for s in slices if id(s) not in copy_ids], copies


def _is_copy(slice_: DicomSlice, other: DicomSlice) -> bool:
    facts = (*_KIND, *_MADE, *_VALUES)
    if _facts(slice_, facts) != _facts(other, facts):
        return False
    with suppress(CTError):
        return np.array_equal(stored_values(slice_), stored_values(other))
    return False


def _one_of_each_place(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Slices with one of each position; all of a position where none of them is the right one for sure."""
    if not slices or not all(map(_is_placed, slices)):
        return slices
    directions = np.array(slices[0].numbers("ImageOrientationPatient", 6))
    normal = np.cross(directions[:3], directions[3:])
    distances = np.array([s.numbers("ImagePositionPatient", 3) for s in slices]) @ normal
    order = np.argsort(distances, kind="stable")
    starts = np.flatnonzero(np.diff(distances[order]) > DUPLICATE_TOLERANCE_MM) + 1
    places = [[slices[n] for n in place] for place in np.split(order, starts)]
    if len(slices) - len(places) > MOST_LEFT_OUT:
        return slices
    made = {_facts(place[0], _MADE) for place in places if len(place) == 1}
    stack = []
    for place in places:
        usual = [s for s in place if _facts(s, _MADE) in made]
        stack += usual if len(usual) == 1 else place
    return stack


def read_stack(slices: list[DicomSlice]) -> tuple[sitk.Image, tuple[ScanWarning, ...]]:
    """Read the slices of one stack, in any order, as a volume. None of them is multi-frame.

    Returns:
        The volume in HU (int16, or float32 where a rescale is fractional), and warnings.

    Raises:
        UnreadableError: The pixels of a slice cannot be read.
        NotVolumeError: There is only one slice.
        NotHounsfieldError: The values are not Hounsfield units.
        SliceGeometryError: Slices are missing, repeated, uneven or sheared.
    """
    if len(slices) < 2:
        raise NotVolumeError("The CT series has 1 slice; at least 2 are needed. Give the folder that holds them all.")
    order, origin, spacing_mm, direction = stack_of(slices)
    volume, warnings = read_hu([slices[n] for n in order])
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(spacing_mm)
    image.SetOrigin(origin.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image, warnings


def stack_of(
    slices: list[DicomSlice],
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float], np.ndarray]:
    """The stack that slices of one series make.

    Returns:
        The order of the slices along their normal, the centre of the first voxel (LPS, mm), spacing (i, j, k) in mm,
        and the directions of the axes as columns.

    Raises:
        SliceGeometryError: Slices are missing, repeated, uneven or sheared.
    """
    row, column, (spacing_j, spacing_i) = _plane(slices)
    normal = np.cross(row, column)
    positions = np.array([s.numbers("ImagePositionPatient", 3) for s in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    # Named along the axis that the normal is closest to, so that axial slices are named by their z.
    sign = math.copysign(1.0, normal[np.argmax(np.abs(normal))])
    spacing_mm = (spacing_i, spacing_j, _even_spacing(positions @ normal, sign))
    _check_no_shear(positions, normal)
    check_spacing(spacing_mm)
    return order, positions[0], spacing_mm, np.column_stack([row, column, normal])


def _plane(slices: list[DicomSlice]) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Unit directions of rows and columns, and pixel spacing (down, across), which all slices have to share."""
    check_numbers(slices, _GEOMETRY, SliceGeometryError)
    sizes = Counter(f"{s.number('Columns') or 0:g}×{s.number('Rows') or 0:g}" for s in slices)
    if len(sizes) > 1:
        counts = ", ".join(f"{count} of {size}" for size, count in sizes.items())
        raise SliceGeometryError(f"The slices differ in size: {counts} pixels. Export one reconstruction only.")
    spacings = np.array([s.numbers("PixelSpacing", 2) for s in slices])
    if np.ptp(spacings, axis=0).max() > PIXEL_SPACING_TOLERANCE_MM:
        low, high = spacings.min(), spacings.max()
        raise SliceGeometryError(
            f"The slices differ in pixel spacing ({low:g} to {high:g} mm). Export one reconstruction only."
        )
    directions = np.array([s.numbers("ImageOrientationPatient", 6) for s in slices])
    if np.abs(directions - directions[0]).max() > DIRECTION_TOLERANCE:
        count = int((np.abs(directions - directions[0]).max(axis=1) > DIRECTION_TOLERANCE).sum())
        raise SliceGeometryError(
            f"{count} of {len(slices)} slices have a different orientation from {slices[0].name}. Export the "
            "axial slices as a series of their own."
        )
    row, column = directions[0, :3], directions[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > ORTHONORMAL_TOLERANCE:
        values = ", ".join(f"{value:g}" for value in directions[0])
        raise SliceGeometryError(
            f"The image orientation ({values}) is not a pair of perpendicular directions. Export the series again."
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column), (float(spacings[0, 0]), float(spacings[0, 1]))


def _even_spacing(distances: np.ndarray, sign: float) -> float:
    """Spacing of slices at sorted distances along the normal, mm; sign turns a distance into the named position."""
    gaps = np.diff(distances)
    same = np.flatnonzero(gaps <= DUPLICATE_TOLERANCE_MM)
    if same.size:
        where = abbreviated_list(f"{sign * distances[n]:.1f}" for n in same)
        raise SliceGeometryError(
            f"{same.size} slices have the same position as another one, at {where} mm: the series holds several "
            "reconstructions, phases or copies. Export one of them."
        )
    # Most gaps are whole ones; averaging over those undoes positions that were rounded.
    usual = float(np.sort(gaps)[(gaps.size - 1) // 2])
    spacing = float(gaps[gaps < 1.5 * usual].mean())
    steps = np.rint(gaps / spacing).astype(int)
    tolerance_mm = max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE * spacing)
    if (steps >= 2).any() and np.abs(gaps - steps * spacing).max() <= 2 * tolerance_mm:
        holes = abbreviated_list(
            f"{steps[n] - 1} between {sign * distances[n]:.1f} and {sign * distances[n + 1]:.1f} mm"
            for n in np.flatnonzero(steps >= 2)
        )
        raise SliceGeometryError(
            f"{int((steps - 1).sum())} slices are missing (slice spacing {spacing:g} mm): {holes}. Export or copy the "
            "series again."
        )
    # The line of most slices, which one that is out of place does not move.
    half = distances.size // 2
    rising = distances - np.median(distances[half:] - distances[:-half]) / half * np.arange(distances.size)
    off = np.abs(rising - np.median(rising))
    if off.max() > tolerance_mm:
        raise SliceGeometryError(
            f"The slices are unevenly spaced: {gaps.min():.2f} to {gaps.max():.2f} mm apart, the one at "
            f"{sign * distances[off.argmax()]:.1f} mm lies {off.max():.2f} mm off an even stack. Export an evenly "
            "spaced reconstruction."
        )
    return float((distances[-1] - distances[0]) / gaps.size)


def _check_no_shear(positions: np.ndarray, normal: np.ndarray) -> None:
    offsets = positions - positions[0]
    along = offsets @ normal
    shift = offsets - along[:, None] * normal
    if np.linalg.norm(shift, axis=1).max() <= IN_PLANE_TOLERANCE_MM:
        return
    slope = shift[-1] / along[-1]
    if np.linalg.norm(shift - along[:, None] * slope, axis=1).max() <= IN_PLANE_TOLERANCE_MM:
        tilt = math.degrees(math.atan(float(np.linalg.norm(slope))))
        raise SliceGeometryError(f"The slices are sheared by {tilt:.1f}° against their normal: {SHEARED}")
    raise SliceGeometryError(
        f"The slices are shifted against each other by up to {np.linalg.norm(shift, axis=1).max():.1f} mm within "
        "their plane: the series mixes reconstructions. Export one of them."
    )
