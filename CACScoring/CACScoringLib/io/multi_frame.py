"""Conversion of Enhanced (multi-frame) CT to single-frame slices (PS3.3 A.38, C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import CTImageStorage

from ..core.errors import UnreadableError
from .dicom import TAGS, DicomSlice, read_bounded, translate_dicom_errors
from .pixels import frame_bytes, is_encapsulated, pixel_bytes

_OTHER_NAMES = {"ExposureInmAs": "Exposure", "FrameType": "ImageType", "NominalCardiacTriggerDelayTime": "TriggerTime"}
"""Single-frame keywords of functional-group attributes whose keywords differ."""

_FRAME_KEYWORDS = (*TAGS, *_OTHER_NAMES, "StackID")


def single_frames(slices: Sequence[DicomSlice]) -> list[DicomSlice]:
    """Return slices with each multi-frame CT replaced by its frames, with the attributes of single-frame slices.

    Raises UnreadableError if a multi-frame CT cannot be read, or functional groups of its frames are missing.
    """
    return [frame for s in slices for frame in (_frames(s) if s.is_multi_frame else [s])]


def with_pixels(slices: Sequence[DicomSlice]) -> list[DicomSlice]:
    """Return slices with the stored pixels of those that are frames. Raises UnreadableError."""
    counts = {s.path: int(s.number("NumberOfFrames") or 0) for s in slices if s.frame is not None}
    pixels = {}
    for path, count in counts.items():
        with translate_dicom_errors(path.name):
            pixels[path] = _pixels(next(s for s in slices if s.path == path), count)
    return [s if s.frame is None else replace(s, pixels=pixels[s.path][s.frame - 1]) for s in slices]


def _frames(slice_: DicomSlice) -> list[DicomSlice]:
    with translate_dicom_errors(slice_.path.name):
        headers = _frame_headers(slice_.path, read_bounded(slice_.path, stop_before_pixels=True))
        return [DicomSlice(slice_.path, header, n) for n, header in enumerate(headers, 1)]


def _frame_headers(path: Path, image: pydicom.Dataset) -> list[pydicom.Dataset]:
    frames = image.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        raise UnreadableError(
            f"{path.name} is a multi-frame CT without functional groups, so that the places of its frames are unknown. "
            "Export it as Enhanced or single-frame CT."
        )
    if len(frames) != int(image.get("NumberOfFrames") or 0):
        raise UnreadableError(
            f"{path.name} states {image.get('NumberOfFrames') or 0} frames and describes {len(frames)}. Copy or export "
            "it again."
        )
    common = _common_header(image)
    return [_with_groups(common, frame) for frame in frames]


def _common_header(image: pydicom.Dataset) -> pydicom.Dataset:
    header = pydicom.Dataset()
    for keyword in TAGS:
        if keyword in image:
            header[keyword] = image[keyword]
    header.SOPClassUID = CTImageStorage
    agents = image.get("ContrastBolusAgentSequence")
    if agents and "ContrastBolusAgent" not in header:
        header.ContrastBolusAgent = str(agents[0].get("CodeMeaning") or "unnamed")
    shared = image.get("SharedFunctionalGroupsSequence")
    header = _with_groups(header, shared[0]) if shared else header
    header.file_meta = image.file_meta
    return header


def _with_groups(header: pydicom.Dataset, groups: pydicom.Dataset) -> pydicom.Dataset:
    """Return a copy of a header with the attributes of an item of functional groups."""
    combined = pydicom.Dataset()
    combined.update(header)
    combined.file_meta = getattr(header, "file_meta", FileMetaDataset())
    values: dict[str, object] = {}
    for group in groups:
        # Groups of several items, such as the two tubes of a dual-energy scan, are ambiguous. Private groups repeat
        # public attributes.
        if group.tag.is_private or group.VR != "SQ" or len(group.value) != 1:
            continue
        for keyword in _FRAME_KEYWORDS:
            if keyword in group.value[0]:
                # A new element: those of the header belong to all frames.
                name = _OTHER_NAMES.get(keyword, keyword)
                value = group.value[0][keyword].value
                combined[name] = pydicom.DataElement(name, dictionary_VR(name), value)
                if values.setdefault(name, value) != value:  # as of an additional X-ray source
                    combined[name].value = None
    return combined


def _pixels(slice_: DicomSlice, count: int) -> list[bytes]:
    """Return the stored pixels of each frame of a file, compressed as in the file."""
    pixels = pixel_bytes(slice_.path)
    if is_encapsulated(slice_.header):
        return list(generate_frames(pixels, number_of_frames=count))
    size = frame_bytes(slice_)
    if len(pixels) not in (count * size, count * size + count * size % 2):
        raise UnreadableError(
            f"{slice_.path.name} holds {len(pixels):,} bytes of pixels, and {count * size:,} by its header. Export it "
            "again."
        )
    return [pixels[n * size : (n + 1) * size] for n in range(count)]
