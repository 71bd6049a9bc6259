"""Enhanced (multi-frame) CT as the single-frame slices that it stands for (PS3.3 A.38, C.7.6.16)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian

from ..core.ct import SliceGeometryError, UnreadableError
from ..core.text import abbreviated_list
from .dicom import TAGS, DicomSlice, read_bounded, translate_dicom_errors, unreadable_pixels
from .stack import END_OF_SEQUENCE

_OTHER_NAMES = {"ExposureInmAs": "Exposure", "FrameType": "ImageType", "NominalCardiacTriggerDelayTime": "TriggerTime"}
"""Attributes of functional groups by what the same is called in a single-frame CT."""

_OF_FRAMES = (*TAGS, *_OTHER_NAMES, "StackID")
_OF_PIXELS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "RescaleSlope", "RescaleIntercept", "RescaleType"),
)


def frame_headers(slice_: DicomSlice) -> list[pydicom.Dataset]:
    """The headers of a multi-frame CT's frames, each with the attributes that a single-frame slice has.

    Raises:
        UnreadableError: It has no functional groups, or not those of all frames.
        SliceGeometryError: It holds several stacks.
    """
    with translate_dicom_errors(slice_.path.name):
        return _frame_headers(slice_.path, read_bounded(slice_.path, stop_before_pixels=True))


@contextmanager
def single_frames(slices: list[DicomSlice]) -> Iterator[list[DicomSlice]]:
    """Give the slices of a series with each multi-frame CT replaced by its frames.

    The pixels of the frames, and nothing else about the scan, lie in a temporary folder until the end.

    Raises:
        UnreadableError: A multi-frame CT cannot be read, or there is no room for its frames.
        SliceGeometryError: One holds several stacks.
    """
    if not any(slice_.is_multi_frame for slice_ in slices):
        yield slices
        return
    with TemporaryDirectory(prefix="cac-frames-") as folder:
        parts = [_frames(slice_, folder) if slice_.is_multi_frame else [slice_] for slice_ in slices]
        yield list(itertools.chain(*parts))


def _frames(slice_: DicomSlice, folder: str) -> list[DicomSlice]:
    """The frames of a multi-frame CT, their pixels written to files in a folder of their own."""
    own = Path(mkdtemp(dir=folder))
    frames = []
    with translate_dicom_errors(slice_.path.name):
        image = read_bounded(slice_.path)
        headers = _frame_headers(slice_.path, image)
        stored = zip(headers, _pixels(slice_.path, image, len(headers)), strict=True)
        for n, (header, pixels) in enumerate(stored):
            # The name is what messages about the frame say. Shortened, it fits any file system.
            path = own / f"{slice_.path.name[:60]} frame {n + 1}"
            try:
                _write(path, header, image, pixels)
            except OSError as error:
                raise UnreadableError(
                    f"The frames of {slice_.path.name} cannot be written to {folder} ({error.strerror}). Make room "
                    "there, or name another folder for temporary files (TMPDIR)."
                ) from error
            frames.append(DicomSlice(path, header, slice_.path))
    return frames


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
    """A copy of a header with the attributes of an item of functional groups."""
    filled = pydicom.Dataset()
    filled.update(header)
    filled.file_meta = getattr(header, "file_meta", FileMetaDataset())
    for group in groups:
        # A group of several items, such as the two tubes of a dual-energy scan, states no one value.
        if group.VR != "SQ" or len(group.value) != 1:
            continue
        for keyword in _OF_FRAMES:
            if keyword in group.value[0]:
                # A new element: those of the header belong to all frames.
                name = _OTHER_NAMES.get(keyword, keyword)
                filled[name] = pydicom.DataElement(name, dictionary_VR(name), group.value[0][keyword].value)
    return filled


def _pixels(path: Path, image: pydicom.Dataset, count: int) -> Iterator[bytes]:
    """The stored pixels of the frames, one after the other, compressed as they are in the file."""
    pixels = image.get("PixelData")
    if pixels is None or image.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        raise unreadable_pixels(path)
    if image.file_meta.TransferSyntaxUID.is_encapsulated:
        if END_OF_SEQUENCE not in path.read_bytes():
            raise unreadable_pixels(path)
        yield from generate_frames(pixels, number_of_frames=count)
        return
    size = int(image.Rows) * int(image.Columns) * int(image.SamplesPerPixel) * int(image.BitsAllocated) // 8
    if len(pixels) not in (count * size, count * size + count * size % 2):
        raise unreadable_pixels(path)
    yield from (pixels[n * size : (n + 1) * size] for n in range(count))


def _write(path: Path, header: pydicom.Dataset, image: pydicom.Dataset, pixels: bytes) -> None:
    """A file of a frame's pixels and what turns them into HU."""
    file = pydicom.Dataset()
    for keyword in _OF_PIXELS:
        source = header if keyword in header else image
        if keyword in source:
            file[keyword] = source[keyword]
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, "2.25.1"
    file.file_meta = FileMetaDataset()
    file.file_meta.MediaStorageSOPClassUID, file.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, UID("2.25.1")
    encapsulated = image.file_meta.TransferSyntaxUID.is_encapsulated
    file.file_meta.TransferSyntaxUID = image.file_meta.TransferSyntaxUID if encapsulated else ExplicitVRLittleEndian
    file.PixelData = encapsulate([pixels]) if encapsulated else pixels
    file["PixelData"].VR = "OB" if encapsulated else "OW"
    file.save_as(path, enforce_file_format=True)
