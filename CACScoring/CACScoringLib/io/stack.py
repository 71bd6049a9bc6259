"""Volume in HU from the slices of a DICOM series, without images outside its stack.

Slices are ordered only by their position along the slice normal. Anything but one evenly spaced stack of HU slices
raises a `CTError`; nothing is repaired silently.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import SimpleITK as sitk

from ..core.ct import ScanWarning, whole_hu
from ..core.errors import CTError, NotVolumeError, SliceGeometryError
from ..core.text import abbreviated_list
from .dicom import DicomSlice, check_numbers
from .image_files import ORTHONORMAL_TOLERANCE, SHEARED, check_spacing
from .pixels import read_hu, stored_values

POSITION_TOLERANCE_MM, POSITION_TOLERANCE = 0.15, 1 / 12
"""Largest distance of a slice from its place in an even stack: mm or fraction of the spacing, whichever is more.
Positions rounded to 0.1 mm reach 0.1 mm, those of a table's encoder 0.2 mm with slices of 3 mm."""

IN_PLANE_TOLERANCE_MM = 0.5
"""Largest in-plane shift between slices: rounded positions and direction cosines reach 0.3 mm over a chest; a gantry
tilt of 1° causes 5 mm over 300 mm."""

DUPLICATE_TOLERANCE_MM = 0.01
"""Largest distance between slices of the same position."""

PIXEL_SPACING_TOLERANCE_MM = 0.001
"""Largest difference between pixel spacings of one series (0.5 mm over 512 pixels)."""

DIRECTION_TOLERANCE = 0.001
"""Largest difference between direction cosines of one series (0.06°)."""

_GEOMETRY = {
    "ImagePositionPatient": (3, "valid image position"),
    "ImageOrientationPatient": (6, "valid image orientation"),
    "PixelSpacing": (2, "valid pixel spacing"),
}

MAX_LEFT_OUT = 3
"""Largest number of images to leave out besides localizers and copies; with more, the right stack is ambiguous."""

MIN_REMAINING_RATIO = 3
"""Smallest ratio of remaining slices to those left out."""

_KIND_KEYWORDS = ("SOPClassUID", "Columns", "Rows", "SamplesPerPixel", "ImageType")
_VALUE_KEYWORDS = ("ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "BitsStored")
_ACQUISITION_KEYWORDS = ("ImageType", "KVP", "ConvolutionKernel", "SliceThickness", "SOPClassUID", "AcquisitionNumber")


def without_strays(slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], tuple[ScanWarning, ...]]:
    """Leave out images of a series that clearly do not belong to its stack.

    Localizers and copies of a slice are always left out. At most `MAX_LEFT_OUT` further images are left out, and only
    if the remaining slices are one evenly spaced stack without a gap: images whose size, pixel spacing or orientation
    differs from most, images without a position whose kind differs too (dose sheets), and, among slices of one
    position, those whose acquisition differs from the other slices.

    Returns:
        The remaining slices, and a warning that names those left out. If the series is complete or the right images
        are unclear, all slices without a warning; `read_stack` then raises the error.

    Raises:
        NotVolumeError: There are only localizers.
    """
    images = [s for s in slices if not s.is_localizer]
    if not images:
        raise NotVolumeError("The series holds only localizer (scout) images. Give the axial slices.")
    localizers = [s for s in slices if s.is_localizer]
    images, copies = _split_copies(images)
    stack = _complete_stack(images)
    stack_ids = set(map(id, stack))
    strays = [s for s in images if id(s) not in stack_ids]
    kinds = {"localizers": localizers, "copies of slices": copies, "images that do not belong to its stack": strays}
    causes = [f"{len(s)} {kind} ({abbreviated_list(x.name for x in s)})" for kind, s in kinds.items() if s]
    if not causes:
        return stack, ()
    message = f"These images of the series were left out: {'; '.join(causes)}."
    return stack, (ScanWarning("images-left-out", message),)


def _complete_stack(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Return the slices of a complete stack, or all slices if the stack is unclear."""
    if len(slices) < 2:
        return slices
    with suppress(CTError):
        stack_of(slices)
        return slices
    with suppress(CTError):
        stack = _one_slice_per_position(_most_common_plane(slices))
        count = len(slices) - len(stack)
        if 0 < count <= MAX_LEFT_OUT and len(stack) >= MIN_REMAINING_RATIO * count:
            stack_of(stack)
            return stack
    return slices


def _most_common_plane(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Select slices with the most common size, pixel spacing and orientation, without images that lack a position."""
    placed = [s for s in slices if _is_placed(s)]
    sizes = [_header_texts(s, ("Rows", "Columns", "SamplesPerPixel")) for s in placed]
    usual = Counter(sizes).most_common(1)
    stack = [s for s, size in zip(placed, sizes, strict=True) if size == usual[0][0]]
    for keyword, count, tolerance in (
        ("ImageOrientationPatient", 6, DIRECTION_TOLERANCE),
        ("PixelSpacing", 2, PIXEL_SPACING_TOLERANCE_MM),
    ):
        if stack:
            values = np.array([s.numbers(keyword, count) for s in stack])
            deviations = np.abs(values - np.median(values, axis=0)).max(axis=1)
            stack = [s for s, deviation in zip(stack, deviations, strict=True) if deviation <= tolerance]
    kinds = {_header_texts(s, _KIND_KEYWORDS) for s in stack}
    # A slice that only lacks its position may belong to the stack: it stays and causes an error.
    return stack + [s for s in slices if not _is_placed(s) and _header_texts(s, _KIND_KEYWORDS) in kinds]


def _is_placed(slice_: DicomSlice) -> bool:
    places = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    return all(slice_.numbers(keyword, count) is not None for keyword, count in places)


def _header_texts(slice_: DicomSlice, keywords: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(slice_.text(keyword) for keyword in keywords)


def _split_copies(slices: list[DicomSlice]) -> tuple[list[DicomSlice], list[DicomSlice]]:
    """Split slices into originals and copies, which equal an earlier slice in position, header and pixels."""
    places: dict[tuple[float, ...] | None, list[DicomSlice]] = {}
    for slice_ in slices:
        places.setdefault(slice_.numbers("ImagePositionPatient", 3), []).append(slice_)
    copies = []
    for place, group in places.items():
        originals: set[object] = set()
        for slice_ in group if place is not None and len(group) > 1 else ():
            content = _content(slice_)
            if content in originals:
                copies.append(slice_)
            originals.add(content)
    copy_ids = set(map(id, copies))
    return [s for s in slices if id(s) not in copy_ids], copies


def _content(slice_: DicomSlice) -> object:
    """Return a value that copies of a slice share: header and a hash of the pixels."""
    keywords = (*_KIND_KEYWORDS, *_ACQUISITION_KEYWORDS, *_VALUE_KEYWORDS)
    with suppress(CTError):
        pixels = np.ascontiguousarray(stored_values(slice_))
        return _header_texts(slice_, keywords), hashlib.sha256(pixels.data).digest()
    return id(slice_)


def _one_slice_per_position(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Select one slice per position; all slices of a position if the right one is unclear."""
    if not slices or not all(map(_is_placed, slices)):
        return slices
    directions = np.array(slices[0].numbers("ImageOrientationPatient", 6))
    normal = np.cross(directions[:3], directions[3:])
    distances = np.array([s.numbers("ImagePositionPatient", 3) for s in slices]) @ normal
    order = np.argsort(distances, kind="stable")
    starts = np.flatnonzero(np.diff(distances[order]) > DUPLICATE_TOLERANCE_MM) + 1
    places = [[slices[n] for n in place] for place in np.split(order, starts)]
    if len(slices) - len(places) > MAX_LEFT_OUT:
        return slices
    acquisitions = {_header_texts(place[0], _ACQUISITION_KEYWORDS) for place in places if len(place) == 1}
    stack = []
    for place in places:
        usual = [s for s in place if _header_texts(s, _ACQUISITION_KEYWORDS) in acquisitions]
        stack += usual if len(usual) == 1 else place
    return stack


def read_stack(slices: list[DicomSlice]) -> tuple[sitk.Image, tuple[ScanWarning, ...]]:
    """Read the slices of one stack, in any order, as a volume. None of them is multi-frame.

    Returns:
        The volume in HU (int16, or float32 if a rescale is fractional), and warnings.

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
    return whole_hu(image, max(abs(slice_.number("RescaleSlope") or 0.0) for slice_ in slices)), warnings


def stack_of(
    slices: list[DicomSlice],
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float], np.ndarray]:
    """Compute the geometry of the stack of one series.

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
    # Messages state positions along the axis closest to the normal, so axial slices by their z.
    sign = math.copysign(1.0, normal[np.argmax(np.abs(normal))])
    try:
        spacing_mm = (spacing_i, spacing_j, _even_spacing(positions @ normal, sign))
    except SliceGeometryError as error:
        raise SliceGeometryError(f"{error}{_reversals([slices[n] for n in order], positions @ normal)}") from error
    _check_no_shear(positions, normal)
    check_spacing(spacing_mm)
    return order, positions[0], spacing_mm, np.column_stack([row, column, normal])


def _plane(slices: list[DicomSlice]) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Return unit directions of rows and columns, and the pixel spacing (down, across), shared by all slices."""
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
    """Return the spacing of slices at sorted distances along the normal, mm. sign: Sign of positions in messages."""
    gaps = np.diff(distances)
    repeats = np.flatnonzero(gaps <= DUPLICATE_TOLERANCE_MM)
    if repeats.size:
        positions = abbreviated_list(f"{sign * distances[n]:.1f}" for n in repeats)
        raise SliceGeometryError(
            f"{repeats.size} slices have the same position as another one, at {positions} mm: the series holds several "
            "reconstructions, phases or copies. Export one of them."
        )
    # Most gaps span one spacing; averaging over these undoes rounding of positions.
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
    # A robust line through the positions, which one misplaced slice does not move.
    half = distances.size // 2
    residuals = distances - np.median(distances[half:] - distances[:-half]) / half * np.arange(distances.size)
    offsets_mm = np.abs(residuals - np.median(residuals))
    if offsets_mm.max() > tolerance_mm:
        raise SliceGeometryError(
            f"The slices are unevenly spaced: {gaps.min():.2f} to {gaps.max():.2f} mm apart, the one at "
            f"{sign * distances[offsets_mm.argmax()]:.1f} mm lies {offsets_mm.max():.2f} mm off an even stack. Export "
            "an evenly spaced reconstruction."
        )
    return float((distances[-1] - distances[0]) / gaps.size)


def _reversals(slices: list[DicomSlice], distances: np.ndarray) -> str:
    """Return a sentence if slices go back and forth in the order of their instance numbers; else empty."""
    numbers = [number for s in slices if (number := s.number("InstanceNumber")) is not None]
    if len(set(numbers)) < len(slices):
        return ""
    gaps = np.diff(distances[np.argsort(numbers)])
    forward, backward = gaps[gaps > 0], gaps[gaps < 0]
    if min(forward.size, backward.size) < gaps.size / 4:
        return ""
    return (
        f" In the order of their instance numbers the slices go back and forth, by {np.median(forward):+.1f} and "
        f"{np.median(backward):+.1f} mm: positions were exchanged, or two series were mixed."
    )


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
