"""A reader's lesions from a DICOM Segmentation, or from the contours of an RT Structure Set, of any tool.

The site of a segment follows from its codes or else its name.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import RTStructureSetStorage

from ..core.ct import GRID_TOLERANCE_MM, CTScan, ScanWarning
from ..core.errors import MaskError, UnreadableError
from ..core.grid import Grid
from ..core.labels import NOT_CORONARY, SITE_NAMES, SNOMED_CODES, Artery, is_not_coronary, site_called, site_of
from ..core.text import printable
from ..core.voxels import voxels_of
from ..io.dicom import read_bounded, translate_dicom_errors
from ..io.reading import overlap_message
from ..record.rules import rules_for_tube_voltage
from ..record.score_record import InputRecord
from ..scoring.lesions import score_labels
from .belonging import check_origin, frames_of, origin_of
from .codes import CORONARY
from .source import MANUFACTURER

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP class UIDs of Segmentation and Label Map Segmentation."""

_SITES = {Code(value, "SCT", ""): site for site, values in SNOMED_CODES.items() for value in values}


CENTRE_TOLERANCE = 0.02
"""Distance in pixels within which a contour passes a pixel's centre: writers round coordinates to 0.01 mm."""

TOUCHING = 1e-3
"""Share of its size by which a hole may reach beyond the contour around it, whose side it touches."""

HALF_PIXELS = tuple(step for step in itertools.product((0.0, -0.5, 0.5), repeat=2) if any(step))
"""Shifts along rows and columns of contours whose writer counts from a pixel's corner, not from its centre."""

MIN_GAIN, MIN_GAINED = 0.1, 4
"""Share and number of dense voxels that contours gain by a shift from which they are drawn off their place."""

PLANE_TOLERANCE = 0.1
"""Distance in slices within which a contour lies in a slice, and contours lie in one plane."""


@dataclass(frozen=True)
class ReviewFile:
    """Segmentation or structure set.

    Attributes:
        segments: Names of segments or structures.
        frames_of_reference: UIDs of their frames of reference.
        automatic: True if an algorithm alone made all segments (Segment Algorithm Type, PS3.3 C.8.20.2; ROI Generation
            Algorithm, PS3.3 C.8.8.5).
        status: Status of the score that CAC wrote it with; None of other programs' files.
    """

    segments: tuple[str, ...]
    frames_of_reference: tuple[str, ...]
    automatic: bool
    status: str | None = None


def read_review_file(path: Path) -> ReviewFile:
    """Read the header of a file of lesions.

    Raises MaskError when it holds no lesions, UnreadableError when it is broken or no DICOM file.
    """
    data = read_bounded(path, stop_before_pixels=True)
    with translate_dicom_errors(path.name):
        _check_kind(data, path.name)
        if str(data.SOPClassUID) in SEGMENTATIONS:
            items = [item for item in data.SegmentSequence if int(item.SegmentNumber)]
            names, makers = [item.get("SegmentLabel") for item in items], [i.get("SegmentAlgorithmType") for i in items]
        else:
            items = list(data.StructureSetROISequence)
            names, makers = [item.get("ROIName") for item in items], [i.get("ROIGenerationAlgorithm") for i in items]
        frames = tuple(sorted(frames_of(data)[0]))
    automatic = bool(makers) and all(str(kind).upper() == "AUTOMATIC" for kind in makers)
    status = ("automatic" if automatic else "reviewed") if data.get("Manufacturer") == MANUFACTURER else None
    return ReviewFile(tuple(printable(str(name or "")) for name in names), frames, automatic, status)


def read_reviewed(
    path: Path, scan: CTScan, recorded: InputRecord | None = None
) -> tuple[sitk.Image, tuple[ScanWarning, ...]]:
    """Read a reader's lesions of a scan as a map of `Site` labels.

    Args:
        path: A DICOM Segmentation (binary or label map), or an RT Structure Set with closed planar contours.
        scan: The scan. Lesions on its grid are returned on it, others on the grid of the file.
        recorded: Record of the scan, if that was restored from a result.

    Returns:
        The labels, and warnings about their origin, and contours that do not lie in the scan's slices.

    Raises:
        MaskError: A segment has no known site, segments overlap, or they were drawn on another scan.
        CTError: As `read_ct` does.
    """
    data = read_bounded(path)
    with translate_dicom_errors(path.name):
        _check_kind(data, path.name)
        doubts = check_origin(origin_of(data, path.name), scan, path.name, recorded=recorded)
        if str(data.SOPClassUID) in SEGMENTATIONS:
            return _segmentation(data, scan, path.name), doubts
        labels, warnings = _structures(data, scan, path.name)
        return labels, (*doubts, *warnings)


def _check_kind(data: Dataset, name: str) -> None:
    """Raise MaskError when a DICOM object holds no lesions."""
    if str(data.get("SOPClassUID")) not in (*SEGMENTATIONS, RTStructureSetStorage):
        raise MaskError(
            f"{name} is a DICOM file of modality {data.get('Modality') or 'unknown'}, which holds no lesions. "
            "Give a segmentation (SEG), a structure set (RTSTRUCT) or a label map."
        )


class _Lesions:
    """Label map of lesions on the scan's grid, painted segment by segment."""

    def __init__(self, scan: CTScan, name: str) -> None:
        self.image, self._name = scan.image, name
        self.labels = np.zeros(self.image.GetSize()[::-1], np.uint8)
        self._overlaps: Counter[tuple[str, str]] = Counter()

    def paint(self, index: np.ndarray, label: int) -> None:
        """Label voxels, [voxel, (i, j, k)] as integers; those outside the scan are skipped."""
        inside = ((index >= 0) & (index < self.image.GetSize())).all(axis=1)
        voxels = tuple(index[inside].T[::-1])
        labels = self.labels[voxels]
        for earlier in labels[(labels != 0) & (labels != label)].tolist():
            self._overlaps[_name_of(earlier), _name_of(label)] += 1
        self.labels[voxels] = label

    def as_image(self) -> sitk.Image:
        """Return the label map. Raises MaskError if segments overlap."""
        if self._overlaps:
            raise MaskError(overlap_message(self._name, self._overlaps))
        return Grid.of(self.image).image(np.where(self.labels == NOT_CORONARY, np.uint8(0), self.labels))


def _name_of(label: int) -> str:
    return "not-coronary" if label == NOT_CORONARY else site_of(label).full_name


def _segmentation(data: Dataset, scan: CTScan, name: str) -> sitk.Image:
    try:
        from highdicom.seg import Segmentation
    except ModuleNotFoundError as error:
        message = f"Reading {name} needs highdicom. Install it with: pip install highdicom"
        raise UnreadableError(message) from error
    if data.SegmentationType == "FRACTIONAL":
        raise MaskError(f"{name} is a fractional segmentation. Export it as a binary one.")
    items = [item for item in data.SegmentSequence if int(item.SegmentNumber)]
    labels = labels_of_segments(
        "segment",
        name,
        [(int(item.SegmentNumber), str(item.get("SegmentLabel") or ""), coded_anatomy(item)) for item in items],
    )
    segmentation = Segmentation.from_dataset(data, copy=False)
    lesions = _Lesions(scan, name)
    frames = segmentation.get_stored_frames()
    shared = data.SharedFunctionalGroupsSequence[0]
    for frame, group in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        place = _indices(lesions.image, shared, group)
        if place is None:
            return _label_map(segmentation, labels)
        binary = data.SegmentationType == "BINARY"
        numbers = (
            [int(_group(shared, group, "SegmentIdentificationSequence").ReferencedSegmentNumber)]
            if binary
            else list(labels)
        )
        for number in numbers:
            rows, columns = np.nonzero(frame == (1 if binary else number))
            first, down, across = place
            lesions.paint(first + rows[:, None] * down + columns[:, None] * across, labels[number])
    return lesions.as_image()


def _indices(image: sitk.Image, shared: Dataset, group: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the index of a frame's first pixel in an image, and the steps down and across; None off the grid."""
    position = _group(shared, group, "PlanePositionSequence").ImagePositionPatient
    orientation = np.asarray(_group(shared, group, "PlaneOrientationSequence").ImageOrientationPatient, float)
    down_mm, across_mm = (float(n) for n in _group(shared, group, "PixelMeasuresSequence").PixelSpacing)
    size = np.asarray(image.GetSize(), float)
    first = np.asarray(position, float)
    places = [first, first + orientation[3:] * down_mm, first + orientation[:3] * across_mm]
    index = np.array([image.TransformPhysicalPointToContinuousIndex(place.tolist()) for place in places])
    steps = index[1:] - index[0]
    rounded = np.rint(steps)
    offset = np.abs(index[0] - np.rint(index[0])) * image.GetSpacing()
    # A rounded spacing adds up over the width of an image.
    drift = np.abs(steps - rounded).max() * size.max() * max(image.GetSpacing())
    if (
        offset.max() > 10 * GRID_TOLERANCE_MM
        or drift > 0.5 * min(image.GetSpacing())
        or (abs(rounded).sum(axis=1) != 1).any()
    ):
        return None
    return np.rint(index[0]).astype(int), rounded[0].astype(int), rounded[1].astype(int)


def _group(shared: Dataset, frame: Dataset, name: str) -> Dataset:
    return (frame if name in frame else shared)[name][0]


def _label_map(segmentation: Segmentation, labels: dict[int, int]) -> sitk.Image:
    """Return a segmentation on its own grid; scoring resamples it with a warning."""
    try:
        volume = segmentation.get_volume(combine_segments=True)
    except (RuntimeError, ValueError) as error:
        raise MaskError(
            f"The segmentation is no volume of separate segments ({error}). Draw it on the CT that is scored."
        ) from error
    values = np.zeros(256, np.uint8)
    for number, label in labels.items():
        values[number] = label if label != NOT_CORONARY else 0
    affine = np.asarray(volume.affine)[:, [2, 1, 0, 3]]  # ITK's axes: column, row, slice
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    geometry = (tuple(part.tolist()) for part in (spacing, affine[:3, 3], (affine[:3, :3] / spacing).ravel()))
    return Grid(volume.array.shape[::-1], *geometry).image(values[volume.array])


def _structures(data: Dataset, scan: CTScan, name: str) -> tuple[sitk.Image, tuple[ScanWarning, ...]]:
    rois = {int(roi.ROINumber): roi for roi in data.StructureSetROISequence}
    coded: dict[int, list[Dataset]] = {}
    for item in data.get("RTROIObservationsSequence") or ():
        coded[int(item.ReferencedROINumber)] = list(item.get("RTROIIdentificationCodeSequence") or ())
    drawn = [contours for contours in data.get("ROIContourSequence") or () if contours.get("ContourSequence")]
    numbers = [int(contours.ReferencedROINumber) for contours in drawn]
    labels = labels_of_segments(
        "structure", name, [(n, str(rois[n].get("ROIName") or ""), coded.get(n, [])) for n in numbers]
    )
    corners = [_corners(contours.ContourSequence, scan.image, name) for contours in drawn]
    combined = [
        any(contour.ContourGeometricType == "CLOSEDPLANAR_XOR" for contour in contours.ContourSequence)
        for contours in drawn
    ]
    places = np.unique([place for structure in corners for place, _ in structure])
    gaps = np.diff(places)[np.diff(places) > PLANE_TOLERANCE]
    is_off = bool((np.abs(places - np.rint(places)) > PLANE_TOLERANCE).any())
    # A contour of another series reaches half the way to its neighbours, as a slice does.
    reach = float(gaps.min()) / 2 if is_off and gaps.size else 0.0

    def painted(step: tuple[float, ...] = (0.0, 0.0)) -> sitk.Image:
        """Label the voxels within the contours, moved along rows and columns."""
        lesions = _Lesions(scan, name)
        for number, structure, exclusive in zip(numbers, corners, combined, strict=True):
            moved = [(place, points + step) for place, points in structure]
            for k, inside in _filled(moved, lesions.labels.shape, reach, exclusive).items():
                rows, columns = np.nonzero(inside)
                lesions.paint(np.column_stack([columns, rows, np.full_like(rows, k)]), labels[number])
        return lesions.as_image()

    image = painted()
    shifted = _shift_warnings([place for structure in corners for place in structure], scan, name, painted)
    if not is_off:
        return image, shifted
    message = (
        f"Contours of {printable(name)} lie between the slices of this CT, up to "
        f"{np.abs(places - np.rint(places)).max() * scan.slice_spacing_mm:.1f} mm off them: they were drawn on other "
        "slices. Each was taken for the slices that it reaches."
    )
    return image, (*shifted, ScanWarning("contours-between-slices", message))


def _shift_warnings(
    contours: list[tuple[float, np.ndarray]], scan: CTScan, name: str, painted: Callable[..., sitk.Image]
) -> tuple[ScanWarning, ...]:
    """Warn of contours that hold more calcium half a pixel further, and no more of anything else.

    Args:
        contours: As `_corners` returns them.
        scan: The scan.
        name: Name of the file in messages.
        painted: Function of a shift that labels the voxels within the contours.
    """
    unmoved = _voxels_within(contours, (0.0, 0.0), scan)
    shifts = {step: _voxels_within(contours, step, scan) for step in HALF_PIXELS}
    (down, right), (dense, empty) = max(shifts.items(), key=lambda shift: shift[1][0] - shift[1][1])
    if dense - unmoved[0] <= max(MIN_GAINED, MIN_GAIN * unmoved[0]) or empty > unmoved[1]:
        return ()
    axes = (down, ("anterior", "posterior")), (right, ("right", "left"))
    sides = [ends[step > 0] for step, ends in axes if step]
    scores = [_agatston(painted(step), scan) for step in ((0.0, 0.0), (down, right))]
    message = (
        f"The contours of {printable(name)} hold {unmoved[0]} dense voxels, Agatston {scores[0]:.0f}, and {dense}, "
        f"{scores[1]:.0f}, half a pixel further {' and '.join(sides)}: their writer probably counts from the corner of "
        "a pixel, where DICOM counts from its centre. They are scored as they are. Export them again with another "
        "program, or draw them anew."
    )
    return (ScanWarning("labels-off-calcium", message),)


def _agatston(labels: sitk.Image, scan: CTScan) -> float:
    """Return the score of labels in the arteries."""
    return score_labels(scan, voxels_of(labels)).total.agatston


def _voxels_within(contours: list[tuple[float, np.ndarray]], step: tuple[float, ...], scan: CTScan) -> tuple[int, int]:
    """Count the dense and the other voxels within contours that are moved along rows and columns."""
    dense = count = 0
    threshold_hu = rules_for_tube_voltage(scan.acquisition).threshold_hu
    for place, corners in contours:
        first = np.floor(corners.min(0)).astype(int) - 1
        size = np.ceil(corners.max(0)).astype(int) - first + 2
        at = np.argwhere(_Contour.of(corners + step - first, (size[0], size[1])).pixels) + first
        at = at[((at >= 0) & (at < scan.hu.shape[1:])).all(axis=1)]
        if 0 <= (k := math.floor(place + 0.5)) < len(scan.hu):
            dense += int((scan.hu[k, at[:, 0], at[:, 1]] >= threshold_hu).sum())
            count += len(at)
    return dense, count - dense


def _corners(contours: list[Dataset], image: sitk.Image, name: str) -> list[tuple[float, np.ndarray]]:
    """Return the place of each closed contour among the slices, and its corners: rows and columns, [n, 2]."""
    corners = []
    for contour in contours:
        kind = str(contour.ContourGeometricType)
        if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "POINT"):
            raise MaskError(f"{name} holds contours that are not closed ({kind}).")
        points = np.reshape(np.asarray(contour.ContourData, float), (-1, 3))
        index = np.array([image.TransformPhysicalPointToContinuousIndex(point.tolist()) for point in points])
        place = float(index[:, 2].mean())
        if np.abs(index[:, 2] - place).max() > 0.5:
            raise MaskError(f"{name} holds contours that do not lie in the slices of the CT. Draw them in its slices.")
        if kind != "POINT":
            corners.append((place, index[:, [1, 0]]))
    return corners


@dataclass(frozen=True)
class _Contour:
    """Closed contour in a slice.

    Attributes:
        corners: Rows and columns, [n, 2].
        inside: Pixels within, bool [j, i].
        edge: Pixels whose centres it passes, bool [j, i].
    """

    corners: np.ndarray
    inside: np.ndarray
    edge: np.ndarray

    @classmethod
    def of(cls, corners: np.ndarray, shape: tuple[int, int]) -> _Contour:
        from skimage.draw import polygon2mask

        edge = _on_contour(corners, shape)
        return cls(corners, polygon2mask(shape, corners) & ~edge, edge)

    @property
    def pixels(self) -> np.ndarray:
        return self.inside | self.edge

    def lies_in(self, outer: _Contour) -> bool:
        """True if it lies within another contour, whose side it may touch."""
        from skimage.measure import points_in_poly

        if (self.pixels & ~outer.pixels).any():
            return False
        centre = self.corners.mean(0)
        return bool(points_in_poly(centre + (self.corners - centre) * (1 - TOUCHING), outer.corners).all())


def _filled(
    contours: list[tuple[float, np.ndarray]], shape: tuple[int, ...], reach: float, exclusive: bool
) -> dict[int, np.ndarray]:
    """Return pixels in and on the contours of a structure, by slice.

    Contours of one plane that overlap in part are united; one within another is a hole (PS3.3 C.8.8.6.3).

    Args:
        contours: Places among the slices and corners, as `_corners` returns them.
        shape: Shape of the scan, [k, j, i].
        reach: Distance in slices to which a contour holds, besides the slice nearest to it.
        exclusive: Combine the contours of a plane by exclusive or, as their type CLOSEDPLANAR_XOR demands.
    """
    planes: dict[float, dict[bytes, _Contour]] = {}
    for place, corners in sorted(contours, key=lambda contour: contour[0]):
        last = next(reversed(planes), -math.inf)
        plane = planes.setdefault(last if place - last <= PLANE_TOLERANCE else place, {})
        contour = _Contour.of(corners, (shape[1], shape[2]))
        plane[contour.inside.tobytes() + contour.edge.tobytes()] = contour  # a copy of a contour is no hole
    filled: dict[int, np.ndarray] = {}
    for place, plane in planes.items():
        pixels = _combined(list(plane.values()), exclusive)
        reached = range(math.ceil(place - reach), math.floor(place + reach) + 1)
        for k in {math.floor(place + 0.5), *reached}:
            if 0 <= k < shape[0]:
                filled[k] = filled.get(k, False) | pixels
    return filled


def _combined(contours: list[_Contour], exclusive: bool) -> np.ndarray:
    """Return pixels in and on the contours of one plane. exclusive: As of `_filled`."""
    if exclusive:
        return np.logical_or.reduce([np.logical_xor.reduce([c.inside for c in contours]), *(c.edge for c in contours)])
    pixels = np.zeros_like(contours[0].inside)
    for contour in sorted(contours, key=lambda c: np.count_nonzero(c.pixels), reverse=True):
        depth = sum(contour.lies_in(outer) for outer in contours if outer is not contour)
        pixels = pixels & ~contour.inside if depth % 2 else pixels | contour.pixels
    return pixels


def _on_contour(corners: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask of the pixels whose centres a closed contour passes, such as one through the outermost centres.

    corners: Rows and columns, [n, 2].
    """
    pixels = np.zeros(shape, bool)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        step = end - start
        axis = int(np.abs(step).argmax())
        low, high = sorted((start[axis], end[axis]))
        along = np.arange(np.ceil(low - CENTRE_TOLERANCE), np.floor(high + CENTRE_TOLERANCE) + 1)
        points = start + np.outer(along - start[axis], step / (step[axis] or 1))
        centres = np.rint(points).astype(int)
        is_near = (np.abs(points - centres) <= CENTRE_TOLERANCE).all(axis=1)
        centres = centres[is_near & ((centres >= 0) & (centres < shape)).all(axis=1)]
        pixels[tuple(centres.T)] = True
    return pixels


def label_of(name: str, coded: Iterable[Dataset]) -> int | None:
    """Return the label of a segment: `Site`, NOT_CORONARY if rejected, None if neither name nor codes state one.

    coded: Items of code sequences of its anatomy, SNOMED CT or its former codes (SRT). The name decides without such
        codes, and names the artery if the code is that of coronary arteries in general.
    """
    if is_not_coronary(name):
        return NOT_CORONARY
    # Comparing codes, pydicom takes those of SRT for their successors in SNOMED CT.
    codes = [
        Code(str(item.get("CodeValue") or ""), str(item.get("CodingSchemeDesignator") or ""), "") for item in coded
    ]
    for code in codes:
        # Not looked up: codes of SRT equal their successors but have other hashes.
        if (site := next((site for site_code, site in _SITES.items() if site_code == code), None)) is not None:
            return int(site)
    if (named := site_called(name)) is not None:
        return int(named)
    return int(Artery.OTHER) if CORONARY in codes else None


def labels_of_segments(kind: str, file_name: str, segments: Iterable[tuple[int, str, list[Dataset]]]) -> dict[int, int]:
    """Return the labels of segments by number.

    Args:
        kind: Word for a segment in messages.
        file_name: Name of the file in messages.
        segments: Number, name and codes of each segment.

    Raises:
        MaskError: A segment states no known site.
    """
    segments = list(segments)
    labels = {number: label_of(name, coded) for number, name, coded in segments}
    unknown = [f"{printable(name) or 'without a name'} ({kind} {n})" for n, name, _ in segments if labels[n] is None]
    if unknown:
        raise MaskError(
            f"{file_name} has {kind}s that name no artery by code or name: "
            f"{', '.join(unknown)}. Code their anatomy, or rename each to one of {SITE_NAMES}."
        )
    return {number: int(label) for number, label in labels.items() if label is not None}


def coded_anatomy(item: Dataset) -> list[Dataset]:
    """Return the items of a segment's code sequences of anatomy, the most specific first."""
    names = ("PrimaryAnatomicStructureSequence", "AnatomicRegionSequence", "SegmentedPropertyTypeCodeSequence")
    return [coded for name in names for coded in item.get(name) or ()]
