"""Conversion of Enhanced (multi-frame) CT to single-frame slices (PS3.3 A.38, C.7.6.16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import CTImageStorage

from ..core.errors import SliceGeometryError, UnreadableError
from ..core.text import abbreviated_list
from .dicom import TAGS, DicomSlice, read_bounded, translate_dicom_errors
from .pixels import frame_bytes, is_encapsulated, pixel_bytes

_OTHER_NAMES = {"ExposureInmAs": "Exposure", "FrameType": "ImageType", "NominalCardiacTriggerDelayTime": "TriggerTime"}
"""Single-frame keywords of functional-group attributes whose keywords differ."""

_FRAME_KEYWORDS = (*TAGS, *_OTHER_NAMES, "StackID")


def single_frames(slices: Sequence[DicomSlice], with_pixels: bool = True) -> list[DicomSlice]:
    """Return slices with each multi-frame CT replaced by its frames, with the attributes of single-frame slices.

    Raises:
        UnreadableError: A multi-frame CT cannot be read, or functional groups of its frames are missing.
        SliceGeometryError: One holds several stacks.
    """
    return [frame for s in slices for frame in (_frames(s, with_pixels) if s.is_multi_frame else [s])]


def _frames(slice_: DicomSlice, with_pixels: bool) -> list[DicomSlice]:
    with translate_dicom_errors(slice_.path.name):
        headers = _frame_headers(slice_.path, read_bounded(slice_.path, stop_before_pixels=True))
        pixels = _pixels(slice_, len(headers)) if with_pixels else repeat(None, len(headers))
        frames = zip(headers, pixels, strict=True)
        return [DicomSlice(slice_.path, header, n, frame) for n, (header, frame) in enumerate(frames, 1)]


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
    headers = [_with_groups(common, frame) for frame in frames]
    stacks = {str(header.StackID) for header in headers if "StackID" in header}
    if len(stacks) > 1:
        raise SliceGeometryError(
            f"{path.name} holds {len(stacks)} stacks ({abbreviated_list(sorted(stacks))}): several reconstructions or "
            "parts of the body. Export one of them."
        )
    return headers


def _common_header(image: pydicom.Dataset) -> pydicom.Dataset:
    header = pydicom.Dataset()
    for keyword in TAGS:
        if keyword in image:
            header[keyword] = image[keyword]
    if "NumberOfFrames" in header:
        del header.NumberOfFrames
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


def _pixels(slice_: DicomSlice, count: int) -> Iterator[bytes]:
    """Yield the stored pixels of each frame, compressed as in the file."""
    pixels = pixel_bytes(slice_.path)
    if is_encapsulated(slice_.header):
        yield from generate_frames(pixels, number_of_frames=count)
        return
    size = frame_bytes(slice_)
    if len(pixels) not in (count * size, count * size + count * size % 2):
        raise UnreadableError(
            f"{slice_.name} holds {len(pixels):,} bytes of pixels, and {count * size:,} by its header. Export it again."
        )
    yield from (pixels[n * size : (n + 1) * size] for n in range(count))
