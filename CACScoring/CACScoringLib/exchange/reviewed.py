"""A reader's lesions from a DICOM Segmentation, or from the contours of an RT Structure Set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset

from ..core.ct import GRID_TOLERANCE_MM, CTScan, MaskError, UnreadableError
from ..core.labels import site_of
from ..io.dicom import read_bounded, translate_dicom_errors
from ..io.slicer_segments import overlap_message
from .review_file import SEGMENTATIONS, check_kind
from .segment_sites import coded_anatomy, labels_of

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

CENTRE_TOLERANCE = 0.02
"""Distance in pixels within which a contour passes a pixel's centre: writers round coordinates to 0.01 mm."""


def read_reviewed(path: Path, scan: CTScan) -> sitk.Image:
    """Read a reader's lesions of a scan as a map of `Site` labels.

    Args:
        path: A DICOM Segmentation (binary or label map), or an RT Structure Set with closed planar contours in the
            scan's slices.
        scan: The scan. Lesions on its grid are returned on it, others on the grid of the file.

    Raises:
        MaskError: A segment has no known site, segments overlap, or they were drawn on another scan.
        CTError: As `read_ct` does.
    """
    data = read_bounded(path)
    with translate_dicom_errors(path.name):
        check_kind(data, path.name)
        read = _segmentation if str(data.SOPClassUID) in SEGMENTATIONS else _structures
        return read(data, scan, path.name)


class _Lesions:
    """Label map of lesions on the scan's grid, painted segment by segment."""

    def __init__(self, scan: CTScan, name: str) -> None:
        self.image, self._name = scan.image, name
        self.labels = np.zeros(self.image.GetSize()[::-1], np.uint8)
        self._overlaps: Counter[tuple[str, str]] = Counter()

    def paint(self, index: np.ndarray, label: int) -> None:
        """Label voxels, [voxel, (i, j, k)] as integers; those outside the scan are skipped."""
        if not label:
            return
        inside = ((index >= 0) & (index < self.image.GetSize())).all(axis=1)
        voxels = tuple(index[inside].T[::-1])
        labels = self.labels[voxels]
        for earlier in labels[(labels != 0) & (labels != label)].tolist():
            self._overlaps[site_of(earlier).full_name, site_of(label).full_name] += 1
        self.labels[voxels] = label

    def as_image(self) -> sitk.Image:
        """Return the label map. Raises MaskError if segments overlap."""
        if self._overlaps:
            raise MaskError(overlap_message(self._name, self._overlaps))
        image = sitk.GetImageFromArray(self.labels)
        image.CopyInformation(self.image)
        return image


def _segmentation(data: Dataset, scan: CTScan, name: str) -> sitk.Image:
    try:
        from highdicom.seg import Segmentation
    except ModuleNotFoundError as error:
        message = f"Reading {name} needs highdicom. Install it with: pip install highdicom"
        raise UnreadableError(message) from error
    if data.SegmentationType == "FRACTIONAL":
        raise MaskError(f"{name} is a fractional segmentation. Export it as a binary one.")
    _check_frame_of_reference(data.get("FrameOfReferenceUID"), scan, name)
    items = [item for item in data.SegmentSequence if int(item.SegmentNumber)]
    labels = labels_of(
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
        values[number] = label
    image = sitk.GetImageFromArray(values[volume.array])
    affine = np.asarray(volume.affine)[:, [2, 1, 0, 3]]  # ITK's axes: column, row, slice
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def _structures(data: Dataset, scan: CTScan, name: str) -> sitk.Image:
    rois = {int(roi.ROINumber): roi for roi in data.StructureSetROISequence}
    coded: dict[int, list[Dataset]] = {}
    for item in data.get("RTROIObservationsSequence") or ():
        coded[int(item.ReferencedROINumber)] = list(item.get("RTROIIdentificationCodeSequence") or ())
    drawn = [contours for contours in data.get("ROIContourSequence") or () if contours.get("ContourSequence")]
    numbers = [int(contours.ReferencedROINumber) for contours in drawn]
    labels = labels_of("structure", name, [(n, str(rois[n].get("ROIName") or ""), coded.get(n, [])) for n in numbers])
    for number in numbers:
        _check_frame_of_reference(rois[number].get("ReferencedFrameOfReferenceUID"), scan, name)
    lesions = _Lesions(scan, name)
    for number, contours in zip(numbers, drawn, strict=True):
        for k, inside in _filled(contours.ContourSequence, lesions.image, name).items():
            rows, columns = np.nonzero(inside)
            lesions.paint(np.column_stack([columns, rows, np.full_like(rows, k)]), labels[number])
    return lesions.as_image()


def _filled(contours: list[Dataset], image: sitk.Image, name: str) -> dict[int, np.ndarray]:
    """Return pixels in and on the contours of a structure, by slice; a contour within another is a hole."""
    from skimage.draw import polygon2mask

    columns, rows, slices = image.GetSize()
    inside: dict[int, np.ndarray] = {}
    border: dict[int, np.ndarray] = {}
    for contour in contours:
        if (
            not str(contour.ContourGeometricType).startswith("CLOSED_PLANAR")
            and contour.ContourGeometricType != "POINT"
        ):
            raise MaskError(f"{name} holds contours that are not closed ({contour.ContourGeometricType}).")
        points = np.reshape(np.asarray(contour.ContourData, float), (-1, 3))
        index = np.array([image.TransformPhysicalPointToContinuousIndex(point.tolist()) for point in points])
        k = round(float(index[:, 2].mean()))
        if np.abs(index[:, 2] - k).max() > 0.5:
            raise MaskError(f"{name} holds contours that do not lie in the slices of the CT. Draw them in its slices.")
        if not 0 <= k < slices or contour.ContourGeometricType == "POINT":
            continue
        corners = index[:, [1, 0]]
        on_contour = _on_contour(corners, (rows, columns))
        border[k] = border.get(k, False) | on_contour
        inside[k] = inside.get(k, False) ^ (polygon2mask((rows, columns), corners) & ~on_contour)
    return {k: pixels | border[k] for k, pixels in inside.items()}


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


def _check_frame_of_reference(uid: object, scan: CTScan, name: str) -> None:
    if not uid or not scan.dicom_files:
        return
    header = read_bounded(scan.dicom_files[0], stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
    if header.get("FrameOfReferenceUID") and str(header.FrameOfReferenceUID) != str(uid):
        raise MaskError(
            f"{name} was drawn on another scan: its frame of reference is not that of the CT. Give the lesions of this "
            "scan."
        )
