"""Checks that lesions and masks belong to a scan: their frame of reference, series, images and patient, if stated.

DICOM objects state them, and image files that ITK made of DICOM images, whose elements it keeps. Of image files in the
folder of a result, its record does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from ..core.acquisition import Acquisition, with_pseudonym
from ..core.ct import CTScan, ScanWarning
from ..core.errors import CTError, MaskError
from ..core.files import LAST_FILE
from ..core.text import printable
from ..io.dicom import DicomSlice, read_bounded
from ..io.files import real_files
from ..io.image_files import read_header
from ..io.series_acquisition import acquisition_of
from ..record.score_record import InputRecord, read_result
from ..scoring.comparison import difference_of_patients

_IMAGES = ("ContourImageSequence", "SourceImageSequence", "ReferencedInstanceSequence", "ReferencedImageSequence")
"""Sequences of the images that segments and contours were drawn on."""

_SERIES = ("ReferencedSeriesSequence", "RTReferencedSeriesSequence")
"""Sequences of their series."""

Kind = Literal["lesions", "heart", "pericardium", "calibration insert"]

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


def origin_of_image(metadata: Mapping[str, str], name: str) -> Origin:
    """Return the origin of an image by the elements ("0020|000e") of the DICOM image that it was made of.

    metadata: Texts that the image holds beside its voxels.
    """
    elements = Dataset()
    for tag, keyword in _ELEMENTS.items():
        if text := metadata.get(tag, "").strip():
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


def check_image_file(
    path: Path, scan: CTScan, kind: Kind = "lesions", recorded: InputRecord | None = None
) -> tuple[ScanWarning, ...]:
    """Check that an image file of lesions or of a mask is of a scan, as `check_origin` does.

    Args:
        path: A NIfTI, NRRD or MetaImage file. In the folder of a result it is of the scan of that result.
        scan: The scan.
        kind: What the file marks.
        recorded: As in `check_origin`.

    Raises:
        MaskError: As `check_origin` does.
        CTError: The header cannot be read.
    """
    reader = read_header(path)
    origin = origin_of_image({key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}, path.name)
    if warnings := check_origin(origin, scan, path.name, kind, recorded):
        return warnings
    record = None
    if (path.parent / LAST_FILE).is_file():
        with suppress(CTError):
            record = read_result(path.parent)
    voxels_sha256 = recorded.voxels_sha256 if recorded else scan.voxels_sha256
    if record is None or voxels_sha256 == record.input.voxels_sha256:
        return ()
    message = f"{printable(path.name)} is of the result in its folder, which was made of another CT"
    if difference := difference_of_patients(record.acquisition, with_pseudonym(scan.acquisition)):
        raise MaskError(f"{message}, and the two {difference}. Give the {kind} of this scan.")
    if kind != "lesions":
        return ()
    message += ". Lesions may lie elsewhere, or may not all be labelled."
    return (ScanWarning("labels-other-series", message),)


def check_origin(
    origin: Origin, scan: CTScan, name: str, kind: Kind = "lesions", recorded: InputRecord | None = None
) -> tuple[ScanWarning, ...]:
    """Check that lesions, or a mask, were drawn on a scan of this patient.

    Args:
        origin: Their origin.
        scan: The scan; of one that was not read from DICOM nothing is known but what the user states.
        name: Name of the object's file.
        kind: What it marks. A mask may be of another series in the scan's frame of reference.
        recorded: Record of the scan, if that was restored from a result.

    Returns:
        Severe warnings about another series in the scan's frame of reference, and another patient of the same images.

    Raises:
        MaskError: The frame of reference is another one; or series or patient are, and nothing else ties the object to
            the scan.
    """
    name = printable(name)
    frame, is_of_series = _ties(origin, scan, recorded)
    if frame is False:
        raise MaskError(
            f"{name} was drawn on another scan: its frame of reference is not that of the CT. Give the {kind} of this "
            "scan."
        )
    warnings = []
    if is_of_series is False:
        message = (
            f"{name} was drawn on another series than this CT: neither its series nor its images are those of the CT"
        )
        if not frame:
            remedy = ", or score the CT itself with them" if recorded else ""
            raise MaskError(f"{message}. Give the {kind} of this scan{remedy}.")
        message += ", though its frame of reference is. Lesions may lie elsewhere, or may not all be labelled."
        if kind == "lesions":
            warnings.append(ScanWarning("labels-other-series", message))
    if difference := difference_of_patients(*map(with_pseudonym, (origin.patient, scan.acquisition))):
        message = f"{name} and the CT {difference}"
        if not is_of_series:
            raise MaskError(f"{message}: the file is of another patient. Give the {kind} of this scan.")
        message += ", though the file refers to the images of this CT."
        warnings.append(ScanWarning("labels-other-patient", message))
    return tuple(warnings)


def _ties(origin: Origin, scan: CTScan, recorded: InputRecord | None) -> tuple[bool | None, bool | None]:
    """Return whether frame of reference, and series or images, are those of a scan; None where either is unknown."""
    if recorded and recorded.series_sha256 and origin.series:
        hashes = {Acquisition("DICOM", series_uid=uid).series_sha256 for uid in origin.series}
        return None, recorded.series_sha256 in hashes
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
