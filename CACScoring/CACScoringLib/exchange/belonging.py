"""Checks that lesions belong to a scan: their frame of reference, series, images and patient, as far as stated.

DICOM objects state them; of other files those do that ITK made of DICOM images, whose elements it keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from ..core.acquisition import Acquisition
from ..core.ct import CTScan, ScanWarning
from ..core.errors import MaskError
from ..core.text import printable
from ..io.dicom import DicomSlice, read_bounded
from ..io.files import real_files
from ..io.series_acquisition import acquisition_of
from ..scoring.comparison import difference_of_patients

_IMAGES = ("ContourImageSequence", "SourceImageSequence", "ReferencedInstanceSequence", "ReferencedImageSequence")
"""Sequences of the images that segments and contours were drawn on."""

_SERIES = ("ReferencedSeriesSequence", "RTReferencedSeriesSequence")
"""Sequences of their series."""

_IDENTITY = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")


@dataclass(frozen=True)
class Origin:
    """Scan that an object was drawn on, as far as the object states it.

    Attributes:
        frames: UIDs of the frames of reference that lesions may lie in.
        structure_frames: UIDs of those that drawn structures state themselves.
        series: UIDs of series.
        images: UIDs of images.
        patient: Facts of the patient.
    """

    frames: frozenset[str]
    structure_frames: frozenset[str]
    series: frozenset[str]
    images: frozenset[str]
    patient: Acquisition


def frames_of(data: Dataset) -> tuple[frozenset[str], frozenset[str]]:
    """Return the UIDs of the frames of reference that lesions may lie in, and of those that structures state.

    A structure without its own lies in one of those that the structure set refers to (PS3.3 C.8.8.5).
    """
    general = [data.get("FrameOfReferenceUID")]
    general += [item.get("FrameOfReferenceUID") for item in data.get("ReferencedFrameOfReferenceSequence") or ()]
    structures = list(data.get("StructureSetROISequence") or ())
    drawn = {int(c.ReferencedROINumber) for c in data.get("ROIContourSequence") or () if c.get("ContourSequence")}
    of_structures = [
        roi.get("ReferencedFrameOfReferenceUID") for roi in structures if int(roi.ROINumber) in drawn or not drawn
    ]
    frames = of_structures if of_structures and all(of_structures) else [*of_structures, *general]
    return _uids(frames), _uids(of_structures)


def _uids(values: Iterable[object]) -> frozenset[str]:
    return frozenset(str(uid) for uid in values if uid)


def origin_of(data: Dataset, name: str) -> Origin:
    """Return the origin of a segmentation or structure set. name: Name of its file."""
    series = {item.get("SeriesInstanceUID") for item in _items(data, _SERIES)}
    images = {item.get("ReferencedSOPInstanceUID") for item in _items(data, _IMAGES)}
    patient = acquisition_of([DicomSlice(Path(name), data)])
    return Origin(*frames_of(data), _uids(series), _uids(images), patient)


def _items(data: Dataset, keywords: tuple[str, ...]) -> Iterator[Dataset]:
    """Yield the items of sequences of these names at any depth."""
    for element in data.iterall():
        if element.VR == "SQ" and element.keyword in keywords:
            yield from element.value


def origin_of_image(image: sitk.Image, name: str) -> Origin:
    """Return the origin of an image file by the elements ("0020|000e") of the DICOM image it was made of."""
    elements = Dataset()
    for tag, keyword in _ELEMENTS.items():
        if image.HasMetaDataKey(tag) and (text := image.GetMetaData(tag).strip()):
            setattr(elements, keyword, text)
    frames, series, images = (_uids([elements.get(keyword)]) for keyword in _UIDS)
    if elements.get("Modality", "CT") != "CT":  # UIDs of a segmentation are its own
        series = images = frozenset()
    return Origin(frames, frozenset(), series, images, acquisition_of([DicomSlice(Path(name), elements)]))


_UIDS = ("FrameOfReferenceUID", "SeriesInstanceUID", "SOPInstanceUID")
_ELEMENTS = {
    f"{tag >> 16:04x}|{tag & 0xFFFF:04x}": keyword
    for keyword in (*_IDENTITY, "Modality", *_UIDS)
    if (tag := tag_for_keyword(keyword)) is not None
}
"""Keywords of elements by the names that ITK gives them."""


def check_origin(origin: Origin, scan: CTScan, name: str) -> tuple[ScanWarning, ...]:
    """Check that lesions were drawn on a scan of this patient.

    Args:
        origin: Their origin.
        scan: The scan; of one that was not read from DICOM nothing is known but what the user states.
        name: Name of the object's file.

    Returns:
        Severe warnings about another series in the scan's frame of reference, and another patient of the same images.

    Raises:
        MaskError: The frame of reference is another one; or series or patient are, and nothing else ties the object to
            the scan.
    """
    name = printable(name)
    frame, is_of_series = _ties(origin, scan)
    if frame is False:
        raise MaskError(
            f"{name} was drawn on another scan: its frame of reference is not that of the CT. Give the lesions of this "
            "scan."
        )
    warnings = []
    if is_of_series is False:
        message = (
            f"{name} was drawn on another series than this CT: neither its series nor its images are those of the CT"
        )
        if not frame:
            raise MaskError(f"{message}. Give the lesions of this scan.")
        message += ", though its frame of reference is. Lesions may lie elsewhere, or may not all be labelled."
        warnings.append(ScanWarning("labels-other-series", message))
    if difference := difference_of_patients(origin.patient, scan.acquisition):
        message = f"{name} and the CT {difference}"
        if not is_of_series:
            raise MaskError(f"{message}: the lesions are of another patient. Give the lesions of this scan.")
        message += ", though the lesions refer to the images of this CT."
        warnings.append(ScanWarning("labels-other-patient", message))
    return tuple(warnings)


def _ties(origin: Origin, scan: CTScan) -> tuple[bool | None, bool | None]:
    """Return whether frame of reference, and series or images, are those of a scan; None where either is unknown."""
    if not scan.dicom_files:
        return None, None
    tags = ["FrameOfReferenceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    with real_files(scan.dicom_files) as files:
        first = read_bounded(files[0], stop_before_pixels=True, specific_tags=tags)
        frame, series = (str(first.get(tag) or "") for tag in tags[:2])
        is_frame = None
        if frame and origin.frames:
            is_frame = frame in origin.frames and origin.structure_frames <= {frame}
        if series and series in origin.series:
            return is_frame, True
        if not origin.images:
            return is_frame, False if series and origin.series else None
        headers = (read_bounded(file, stop_before_pixels=True, specific_tags=tags[2:]) for file in files)
        return is_frame, any(str(header.get("SOPInstanceUID")) in origin.images for header in headers)
