"""Images of a CT series that do not belong to its stack: localizers, dose sheets, one slice too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTError, NotVolumeError, ScanWarning
from ..core.text import some
from .dicom import DicomSlice
from .stack import DIRECTION_TOLERANCE, DUPLICATE_TOLERANCE_MM, PIXEL_SPACING_TOLERANCE_MM, read_slice_image, stack_of

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
        series is whole, or where it cannot be told what is right: reading it says what is wrong.

    Raises NotVolumeError when there are only localizers.
    """
    stack = [s for s in slices if not s.is_localizer]
    if not stack:
        raise NotVolumeError("The series holds only localizer (scout) images. Give the axial slices.")
    localizers = [s for s in slices if s.is_localizer]
    kept = _whole(stack)
    kept_ids = set(map(id, kept))
    others = [s for s in stack if id(s) not in kept_ids]
    found = []
    if localizers:
        found.append(f"{len(localizers)} localizers ({some(s.path.name for s in localizers)})")
    if others:
        found.append(f"{len(others)} images that do not belong to its stack ({some(s.path.name for s in others)})")
    if not found:
        return kept, ()
    return kept, (ScanWarning("images-left-out", f"Of the series were left out: {'; '.join(found)}."),)


def _whole(slices: list[DicomSlice]) -> list[DicomSlice]:
    """The slices that make a whole stack, or all of them where that is not clear."""
    if len(slices) < 2 or _is_stack(slices):
        return slices
    try:
        kept = _without_copies(_of_one_plane(slices))
        left = len(slices) - len(kept)
        if left == 0 or left > MOST_LEFT_OUT or len(kept) < LEAST_REST * left:
            return slices
    except CTError:
        return slices
    return kept if _is_stack(kept) else slices


def _is_stack(slices: list[DicomSlice]) -> bool:
    try:
        stack_of(slices)
    except CTError:
        return False
    return True


def _of_one_plane(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Slices of the size, pixel spacing and orientation that most have, without images that have no place."""
    kept = _usual([s for s in slices if _is_placed(s)], lambda s: _facts(s, ("Rows", "Columns", "SamplesPerPixel")))
    for keyword, count, tolerance in (
        ("ImageOrientationPatient", 6, DIRECTION_TOLERANCE),
        ("PixelSpacing", 2, PIXEL_SPACING_TOLERANCE_MM),
    ):
        if kept:
            values = np.array([s.numbers(keyword, count) for s in kept])
            near = np.abs(values - np.median(values, axis=0)).max(axis=1) <= tolerance
            kept = [s for s, is_near in zip(kept, near, strict=True) if is_near]
    kinds = {_facts(s, _KIND) for s in kept}
    # A slice that lost its position, but is a slice otherwise, may be one of the stack: it stays, and is an error.
    return kept + [s for s in slices if not _is_placed(s) and _facts(s, _KIND) in kinds]


def _is_placed(slice_: DicomSlice) -> bool:
    places = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    return all(slice_.numbers(keyword, count) is not None for keyword, count in places)


def _facts(slice_: DicomSlice, keywords: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(slice_.text(keyword) for keyword in keywords)


def _usual(slices: list[DicomSlice], kind: Callable[[DicomSlice], Hashable]) -> list[DicomSlice]:
    """The slices of the most frequent kind."""
    most = Counter(map(kind, slices)).most_common(1)
    return [s for s in slices if kind(s) == most[0][0]]


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
