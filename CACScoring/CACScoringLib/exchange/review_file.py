"""Header of a DICOM file of lesions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage

from ..core.ct import MaskError
from ..core.text import printable
from ..io.dicom import read_bounded, translate_dicom_errors
from .source import MANUFACTURER

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP class UIDs of Segmentation and Label Map Segmentation."""


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
        check_kind(data, path.name)
        if str(data.SOPClassUID) in SEGMENTATIONS:
            items = [item for item in data.SegmentSequence if int(item.SegmentNumber)]
            names, makers = [item.get("SegmentLabel") for item in items], [i.get("SegmentAlgorithmType") for i in items]
            frames = [data.get("FrameOfReferenceUID")]
        else:
            items = list(data.StructureSetROISequence)
            names, makers = [item.get("ROIName") for item in items], [i.get("ROIGenerationAlgorithm") for i in items]
            frames = [item.get("ReferencedFrameOfReferenceUID") for item in items]
    frames_of_reference = tuple(dict.fromkeys(str(uid) for uid in frames if uid))
    automatic = bool(makers) and all(str(kind).upper() == "AUTOMATIC" for kind in makers)
    status = ("automatic" if automatic else "reviewed") if data.get("Manufacturer") == MANUFACTURER else None
    return ReviewFile(tuple(printable(str(name or "")) for name in names), frames_of_reference, automatic, status)


def check_kind(data: Dataset, name: str) -> None:
    """Raise MaskError when a DICOM object holds no lesions."""
    if str(data.get("SOPClassUID")) not in (*SEGMENTATIONS, RTStructureSetStorage):
        raise MaskError(
            f"{name} is a DICOM file of modality {data.get('Modality') or 'unknown'}, which holds no lesions. "
            "Give a segmentation (SEG), a structure set (RTSTRUCT) or a label map."
        )
