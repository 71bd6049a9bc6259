"""The slices of a DICOM series as one volume in HU, without images that do not belong to its stack.

Pixels come from SimpleITK, slice by slice, so that each slice has its own rescale slope and intercept (DICOM PS3.3
C.8.2.1). Slices are ordered by their position along the slice normal and by nothing else. Whatever is not one evenly
spaced stack of HU slices ends in a `CTError`; nothing is repaired silently.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import SimpleITK as sitk

from ..core.ct import (
    AIR_HU,
    CTError,
    NotHounsfieldError,
    NotVolumeError,
    ScanWarning,
    SliceGeometryError,
    UnreadableError,
)
from ..core.text import abbreviated_list
from .dicom import DicomSlice, check_numbers, read_bounded, unreadable_pixels, value_of
from .image_files import ORTHONORMAL_TOLERANCE, SHEARED, check_spacing

POSITION_TOLERANCE_MM = 0.15
"""How far a slice may lie from its place in an even stack: positions rounded to 0.1 mm reach 0.1 mm."""

IN_PLANE_TOLERANCE_MM = 0.5
"""How far slices may be shifted against each other within their plane: rounded positions and direction cosines
reach 0.3 mm over a chest; a gantry tilt of 1° moves 5 mm over 300 mm."""

DUPLICATE_TOLERANCE_MM = 0.01
"""Slices closer than this have the same position."""

PIXEL_SPACING_TOLERANCE_MM = 0.001
"""Pixel spacings of one series differ less than this (0.5 mm over 512 pixels)."""

DIRECTION_TOLERANCE = 0.001
"""Direction cosines of one series differ less than this (0.06°)."""

MOST_STEP_HU = 30.0
"""Median difference of soft tissue between neighbouring slices. Chests of real patients reach 11 HU, with slices up to
5 mm apart; a wrong rescale slope or intercept makes hundreds."""

SOFT_TISSUE_HU = -300
"""What lies above, in one of two slices, is compared with the other."""

HIGHEST_TISSUE_HU = 3071
"""The top of the 12-bit CT scale; a padding value above it marks no tissue."""

_ENCAPSULATED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")  # JPEG and its relatives, RLE
END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0\0\0\0\0"
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
_MADE = ("ImageType", "KVP", "ConvolutionKernel", "SliceThickness", "SOPClassUID", "AcquisitionNumber")


def without_strays(slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], tuple[ScanWarning, ...]]:
    """Leave out of a series what does not belong to its stack, where there is no doubt about it.

    Localizers are left out always. At most `MOST_LEFT_OUT` other images are, and only where what remains is one evenly
    spaced stack without a gap: those of another size, pixel spacing or orientation than most, those without a place
    that are of another kind too (dose sheets), and of slices with the same position those that were made in another
    way than the rest of the series, or that are copies.

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
    stack = _complete(images)
    stack_ids = set(map(id, stack))
    others = [s for s in images if id(s) not in stack_ids]
    causes = []
    if localizers:
        causes.append(f"{len(localizers)} localizers ({abbreviated_list(s.path.name for s in localizers)})")
    if others:
        causes.append(
            f"{len(others)} images that do not belong to its stack ({abbreviated_list(s.path.name for s in others)})"
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
        stack = _without_copies(_of_one_plane(slices))
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


def _without_copies(slices: list[DicomSlice]) -> list[DicomSlice]:
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
    return [s for place in places for s in _right_ones(place, made)]


def _right_ones(place: list[DicomSlice], made: set[tuple[str | None, ...]]) -> list[DicomSlice]:
    if len(place) == 1:
        return place
    like_the_rest = [s for s in place if _facts(s, _MADE) in made] or place
    first, *more = like_the_rest
    return [first] if all(_same_image(first, other) for other in more) else place


def _same_image(one: DicomSlice, other: DicomSlice) -> bool:
    if one.numbers("ImagePositionPatient", 3) != other.numbers("ImagePositionPatient", 3):
        return False
    pixels, others = (sitk.GetArrayFromImage(read_slice_image(s)) for s in (one, other))
    return np.array_equal(pixels, others)


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
    volume, warnings = _read_pixels([slices[n] for n in order])
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
            f"{count} of {len(slices)} slices have a different orientation from {slices[0].path.name}. Export the "
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
    if (steps >= 2).any() and np.abs(gaps - steps * spacing).max() <= POSITION_TOLERANCE_MM:
        holes = abbreviated_list(
            f"{steps[n] - 1} between {sign * distances[n]:.1f} and {sign * distances[n + 1]:.1f} mm"
            for n in np.flatnonzero(steps >= 2)
        )
        raise SliceGeometryError(
            f"{int((steps - 1).sum())} slices are missing (slice spacing {spacing:g} mm): {holes}. Export or copy the "
            "series again."
        )
    off = np.abs(distances - np.linspace(distances[0], distances[-1], distances.size))
    if off.max() > POSITION_TOLERANCE_MM:
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


def _read_pixels(slices: list[DicomSlice]) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """HU [k, j, i] as int16, or float32 where a rescale is fractional; padding above all tissue becomes air."""
    rescales = [tuple(float(s.value(f"Rescale{name}")) for name in ("Slope", "Intercept")) for s in slices]
    whole = all(value.is_integer() for rescale in rescales for value in rescale)
    shape = (int(slices[0].number("Rows") or 0), int(slices[0].number("Columns") or 0))
    volume = np.empty((len(slices), *shape), np.int16 if whole else np.float32)
    limits = np.iinfo(np.int16)
    tissue_padding = set()
    for k, (slice_, (slope, intercept)) in enumerate(zip(slices, rescales, strict=True)):
        image = read_slice_image(slice_)
        values = sitk.GetArrayViewFromImage(image)
        if values.shape != (1, *shape):
            raise UnreadableError(f"{slice_.path.name} holds pixels that do not match its header. Copy it again.")
        padding = _stored_padding(slice_)
        padding_hu = None if padding is None else slope * padding + intercept
        # Clipping to int16 changes no score: below lies only padding, and scores saturate far below its upper end.
        np.clip(values[0], limits.min, limits.max, out=volume[k], casting="unsafe")
        if padding_hu is not None and padding_hu > HIGHEST_TISSUE_HU:
            volume[k][np.isclose(values[0], padding_hu)] = AIR_HU
        elif padding_hu is not None and padding_hu > -900:
            tissue_padding.add(f"{padding_hu:g}")
    _check_continuous(volume, slices, rescales)
    if not tissue_padding:
        return volume, ()
    message = (
        f"The header's padding value ({abbreviated_list(sorted(tissue_padding))} HU) is a tissue value, so "
        "padding cannot be distinguished from tissue and was left as it is."
    )
    return volume, (ScanWarning("padding-among-tissue", message),)


def _check_continuous(volume: np.ndarray, slices: list[DicomSlice], rescales: list[tuple[float, ...]]) -> None:
    """Raise NotHounsfieldError where soft tissue changes together with the rescale. volume: HU, [k, j, i]."""
    for k in range(1, len(slices)):
        if rescales[k - 1] == rescales[k]:
            continue
        below, above = volume[k - 1 : k + 1].astype(np.float32)
        tissue = np.maximum(below, above) > SOFT_TISSUE_HU
        step_hu = float(np.median((above - below)[tissue])) if tissue.any() else 0.0
        if abs(step_hu) > MOST_STEP_HU:
            stated = (
                f"{slices[n].path.name} (slope {rescales[n][0]:g}, intercept {rescales[n][1]:g})" for n in (k - 1, k)
            )
            raise NotHounsfieldError(
                f"The rescale of neighbouring slices differs, and with it soft tissue by {step_hu:+.0f} HU: "
                f"{' and '.join(stated)}. Export the series again from the scanner or archive."
            )


def read_slice_image(slice_: DicomSlice) -> sitk.Image:
    """The pixels of a single-frame slice in HU. Raises UnreadableError when they cannot be read."""
    # GDCM takes gigabytes of memory, and up to minutes, to find out that bytes behind the pixels are no elements.
    pixels = read_bounded(slice_.path, specific_tags=["PixelData"]).get("PixelData", b"")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(slice_.path))
    encapsulated = str(value_of(slice_.header.file_meta, "TransferSyntaxUID")).startswith(_ENCAPSULATED)
    size = math.prod(int(slice_.number(name) or 0) for name in ("Rows", "Columns", "BitsAllocated")) // 8
    if not encapsulated and len(pixels) not in (size, size + size % 2):
        raise UnreadableError(
            f"{slice_.path.name} holds {len(pixels):,} bytes of pixels, and {size:,} by its header. Export the series "
            "again."
        )
    try:
        # As much to find out that compressed pixels are truncated (PS3.5 A.4).
        if encapsulated and END_OF_SEQUENCE not in slice_.path.read_bytes():
            raise EOFError("no sequence delimitation item after the pixels")
        return reader.Execute()
    except (RuntimeError, MemoryError, OSError, EOFError) as error:
        raise unreadable_pixels(slice_.path) from error


def _stored_padding(slice_: DicomSlice) -> int | None:
    """Pixel Padding Value as stored; some writers give a signed 16-bit value as its unsigned bit pattern."""
    value = slice_.number("PixelPaddingValue")
    if value is None:
        return None
    if slice_.number("BitsAllocated") == 16:
        value = int(value) & 0xFFFF
        if slice_.number("PixelRepresentation") == 1 and value >= 0x8000:
            value -= 0x10000
    return int(value)
