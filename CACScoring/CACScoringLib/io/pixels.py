"""Pixels of DICOM slices as HU.

Uncompressed pixels are decoded as the header describes their bits (PS3.3 C.7.6.3.1), compressed pixels by GDCM
through SimpleITK. Each slice has its own rescale slope and intercept (PS3.3 C.8.2.1).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..core.ct import AIR_HU, HIGHEST_AIR_HU, ScanWarning, padded_corners
from ..core.errors import NotHounsfieldError, UnreadableError
from ..core.text import abbreviated_list
from .dicom import DicomSlice, open_dicom, read_bounded, translate_dicom_errors, value_of

if TYPE_CHECKING:
    import pydicom

MIN_SWAPPED, SWAPPED_RATIO = 500.0, 4.0
"""Least median difference of neighbouring stored values, and its ratio to that with exchanged bytes, from which bytes
are exchanged. Of CT it is below 100, with exchanged bytes some 10,000."""

MAX_STEP_HU = 30.0
"""Largest median difference of soft tissue between neighbouring slices. Patients' chests reach 11 HU with slices up to
5 mm apart."""

MIN_RESCALED_HU = 6.0
"""Least change of soft tissue by a rescale that differs from its neighbours' from which the images decide."""

SOFT_TISSUE_HU = -300
"""Threshold of soft tissue; a pixel above it in either of two slices is compared."""

HIGHEST_TISSUE_HU = 3071
"""Top of the 12-bit CT scale; padding values above it are no tissue."""

DENSE_HU, MAX_DENSE = 500, 0.2
"""Largest share of voxels above DENSE_HU in a CT; air and lung exceed it in an inverted one."""

_SOFT_TISSUE = 40.0
"""HU of blood and muscle."""

_ENCAPSULATED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")  # JPEG and its relatives, RLE
_DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_CT_IMAGE, _ANY_UID = "1.2.840.10008.5.1.4.1.1.2", "2.25.1"
_PIXEL_DATA = 0x7FE0, 0x0010
_COLUMNS = 0x0028, 0x0011
_MAX_BLANK_BYTES = 2**20
_PIXEL_TAGS = ("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")


def read_hu(slices: Sequence[DicomSlice]) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Read the pixels of slices of one size, in the order of the stack.

    Returns:
        HU [k, j, i] as int16, or float32 if a rescale is fractional, with padding above all tissue set to air; and
        warnings.

    Raises:
        UnreadableError: The pixels of a slice cannot be read.
        NotHounsfieldError: Neighbouring slices are on different scales, or the values are inverted.
    """
    rescales = [tuple(slice_.number(f"Rescale{name}") or 0.0 for name in ("Slope", "Intercept")) for slice_ in slices]
    is_integral = all(value.is_integer() for rescale in rescales for value in rescale)
    shape = (int(slices[0].number("Rows") or 0), int(slices[0].number("Columns") or 0))
    volume = np.empty((len(slices), *shape), np.int16 if is_integral else np.float32)
    limits = np.iinfo(np.int16)
    tissue_padding = set()
    for k, (slice_, (slope, intercept)) in enumerate(zip(slices, rescales, strict=True)):
        values = stored_values(slice_)
        if values.shape != shape:
            raise UnreadableError(f"{slice_.name} holds pixels that do not match its header. Copy it again.")
        if k == len(slices) // 2:
            _check_bytes(values, slice_)
        padding = _stored_padding(slice_)
        is_padding = None if padding is None else values == padding
        hu: np.ndarray = real_bits(values, slice_, is_padding).astype(np.int64 if is_integral else np.float64)
        hu = hu * (int(slope) if is_integral else slope) + (int(intercept) if is_integral else intercept)
        # Clipping to int16 changes no score: only padding lies below, and scores saturate far below the upper end.
        np.clip(hu, limits.min, limits.max, out=volume[k], casting="unsafe")
        padding_hu = None if padding is None else slope * padding + intercept
        is_wide = padding is not None and _without_spare_bits(np.asarray([padding], values.dtype), slice_)[0] != padding
        if padding_hu is not None and (padding_hu > HIGHEST_TISSUE_HU or is_wide):
            volume[k][is_padding] = AIR_HU
        elif padding_hu is not None and padding_hu > HIGHEST_AIR_HU:
            tissue_padding.add(f"{padding_hu:g}")
    _check_continuous(volume, slices, rescales)
    _check_not_inverted(volume, slices)
    if not tissue_padding or padded_corners(volume).any():
        return volume, ()
    values_hu = abbreviated_list(sorted(tissue_padding))
    message = (
        f"The header's padding value ({values_hu} HU) is a tissue value, so padding cannot be distinguished from "
        "tissue and was left as it is."
    )
    return volume, (ScanWarning("padding-among-tissue", message),)


def stored_values(slice_: DicomSlice) -> np.ndarray:
    """Return the stored values of a slice, [j, i], before its rescale. Raises UnreadableError."""
    pixels = pixel_bytes(slice_.path) if slice_.pixels is None else slice_.pixels
    if is_encapsulated(slice_.header):
        return _decode(slice_, pixels if slice_.pixels is not None else _only_frame(slice_, pixels))
    size = frame_bytes(slice_)
    if len(pixels) not in (size, size + size % 2):
        raise UnreadableError(
            f"{slice_.name} holds {len(pixels):,} bytes of pixels, and {size:,} by its header. Export the series again."
        )
    order = ">" if _syntax(slice_.header) == _BIG_ENDIAN else "<"
    rows, columns, allocated = (int(slice_.number(name) or 0) for name in ("Rows", "Columns", "BitsAllocated"))
    kind = np.dtype(f"{order}{'i' if slice_.number('PixelRepresentation') else 'u'}{allocated // 8}")
    return np.frombuffer(pixels, kind, rows * columns).reshape(rows, columns)


def _check_bytes(values: np.ndarray, slice_: DicomSlice) -> None:
    """Raise if stored values lie in the upper bits of their words, or the bytes of words are exchanged.

    Raises:
        UnreadableError: The values are those that BitsStored and HighBit describe, but not in the lowest bits.
        NotHounsfieldError: Neighbouring pixels are alike only with exchanged bytes.
    """
    bits = 8 * values.dtype.itemsize
    spare_bits = bits - int(slice_.number("BitsStored") or bits)
    is_upper = spare_bits > 0 and slice_.number("HighBit") == bits - 1
    if is_upper and values.any() and not (values & ((1 << spare_bits) - 1)).any():
        raise UnreadableError(
            f"{slice_.name} stores its values in the upper {bits - spare_bits} of {bits} bits. Export the series again."
        )
    if bits != 16:
        return
    roughness = [
        float(np.median(np.abs(np.diff(pixels.astype(np.int32), axis=1)))) for pixels in (values, values.byteswap())
    ]
    if roughness[0] > max(MIN_SWAPPED, SWAPPED_RATIO * roughness[1]):
        raise NotHounsfieldError(
            f"The bytes of the pixels of {slice_.name} are exchanged: its transfer syntax states another order than "
            "its writer used. Export the series again, or correct the transfer syntax."
        )


def frame_bytes(slice_: DicomSlice) -> int:
    """Return the size of an uncompressed frame by its header, bytes."""
    return math.prod(int(slice_.number(name) or 0) for name in ("Rows", "Columns", "BitsAllocated")) // 8


def pixel_bytes(path: Path) -> bytes:
    """Return the stored pixels of a DICOM file. Raises UnreadableError, also for stray bytes after them."""
    import pydicom

    tags = [pydicom.tag.Tag(tag) for tag in (_PIXEL_DATA, _COLUMNS)]
    data = read_bounded(path, specific_tags=tags, stop_when=lambda tag, *_: tag > tags[0])
    with translate_dicom_errors(path.name):
        element = data.get_item(_PIXEL_DATA)
        if not isinstance(element, pydicom.dataelem.RawDataElement) or element.value is None:
            raise UnreadableError(f"{path.name} has no pixels. Export the series again.")
        if not is_encapsulated(data) and _syntax(data) != _DEFLATED:
            with open_dicom(path) as file:
                start, end = element.value_tell + len(element.value), file.seek(0, os.SEEK_END)
                file.seek(start)
                tail = file.read(min(end - start, _MAX_BLANK_BYTES + 1))
            next_bytes = tail[:8]
            group = int.from_bytes(next_bytes[:2], "big" if _syntax(data) == _BIG_ENDIAN else "little")
            # Elements ascend (PS3.5 7.1). Bytes inserted into the pixels shift their end to here.
            if tail and not _is_blank(tail, element.value, int(data.get("Columns") or 0)):
                error = UnreadableError(
                    f"{path.name} holds bytes after its pixels that are no whole elements: it is truncated, or "
                    "other bytes were written into it. Copy or export the series again."
                )
                if len(next_bytes) < 8 or group <= _PIXEL_DATA[0]:
                    raise error
                try:
                    read_bounded(path, specific_tags=["Columns"])
                except UnreadableError as cause:  # of elements that reach beyond the end
                    raise error from cause
        return bytes(element.value)


def _is_blank(tail: bytes, pixels: bytes, columns: int) -> bool:
    """True if bytes after the pixels are zeros, FF or line ends, and not the last pixels, shifted by others."""
    is_image = columns > 1 and len(pixels) % (2 * columns) == 0
    is_filled = not tail.strip(b"\xff")
    if not is_image or len(tail) > _MAX_BLANK_BYTES or (tail.strip(b"\0\r\n ") and not is_filled):
        return False
    rows = np.frombuffer(pixels, np.uint16).reshape(-1, columns).astype(np.int32)
    last = rows[-1]
    if is_filled:
        return not (last == np.iinfo(np.uint16).max).any()
    if len(tail) % 2:
        # An odd number of bytes written into the pixels exchanges the high and low bytes of the last row.
        shifted = np.frombuffer((pixels + tail[:1])[-2 * columns :], np.uint16).astype(np.int32)
        return bool(np.abs(np.diff(last)).sum() < np.abs(np.diff(shifted)).sum())
    if any(tail) or last.all():
        return True
    # Padding around a round field of view is as wide on the left as on the right, unless the last rows were shifted.
    within = np.flatnonzero(rows[rows.any(1)][-1:])
    return bool(within.size and within[0] > 1 and abs(within[0] - (columns - 1 - within[-1])) <= 1)


def is_encapsulated(header: pydicom.Dataset) -> bool:
    """True if the pixels of a file are compressed."""
    return _syntax(header).startswith(_ENCAPSULATED)


def unreadable_pixels(name: str, header: pydicom.Dataset) -> UnreadableError:
    """Return the error of an image whose compressed pixels cannot be read."""
    from pydicom.uid import UID

    return UnreadableError(
        f"The pixels of {name} cannot be read: the file is truncated or broken, or its compression "
        f"({UID(_syntax(header)).name}) is not supported. Copy the series again, or export it uncompressed."
    )


def _syntax(header: pydicom.Dataset) -> str:
    return str(value_of(header.file_meta, "TransferSyntaxUID") or "")


def _only_frame(slice_: DicomSlice, pixels: bytes) -> bytes:
    from pydicom.encaps import generate_frames

    try:
        return next(generate_frames(pixels, number_of_frames=1))
    except Exception as error:  # broken items raise whatever pydicom's parser meets
        raise unreadable_pixels(slice_.name, slice_.header) from error


def _decode(slice_: DicomSlice, pixels: bytes) -> np.ndarray:
    """Decode compressed pixels from a minimal file, so that no other element changes their values."""
    import pydicom

    file, meta, uid = pydicom.Dataset(), pydicom.dataset.FileMetaDataset(), pydicom.uid.UID
    for keyword in _PIXEL_TAGS:
        if keyword in slice_.header:
            file[keyword] = slice_.header[keyword]
    file.PhotometricInterpretation = "MONOCHROME2"
    file.SOPClassUID, file.SOPInstanceUID = uid(_CT_IMAGE), uid(_ANY_UID)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = uid(_CT_IMAGE), uid(_ANY_UID)
    meta.TransferSyntaxUID = uid(_syntax(slice_.header))
    file.file_meta = meta
    file.PixelData = pydicom.encaps.encapsulate([pixels])
    file["PixelData"].VR = "OB"
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    try:
        with TemporaryDirectory(prefix="cac-pixels-") as folder:
            path = Path(folder, "pixels.dcm")
            file.save_as(path, enforce_file_format=True)
            reader.SetFileName(str(path))
            return sitk.GetArrayFromImage(reader.Execute())[0]
    except (RuntimeError, MemoryError, OSError, ValueError) as error:
        raise unreadable_pixels(slice_.name, slice_.header) from error


def _without_spare_bits(values: np.ndarray, slice_: DicomSlice) -> np.ndarray:
    """Clear the bits above BitsStored, which may hold overlays, and extend the sign (PS3.5 8.1.1)."""
    spare_bits = values.dtype.itemsize * 8 - int(slice_.number("BitsStored") or values.dtype.itemsize * 8)
    return (values << spare_bits) >> spare_bits if spare_bits > 0 else values


def real_bits(values: np.ndarray, slice_: DicomSlice, is_padding: np.ndarray | None) -> np.ndarray:
    """Clear the bits above BitsStored, unless pixels beside them show that they belong to the values."""
    cleared = _without_spare_bits(values, slice_)
    is_wide = (cleared != values) if is_padding is None else (cleared != values) & ~is_padding
    if not is_wide.any() or is_wide.all():
        return cleared
    places = np.flatnonzero(~is_wide)
    expected = np.interp(np.flatnonzero(is_wide), places, cleared.ravel()[places])
    distances = [np.median(np.abs(pixels[is_wide].astype(np.float64) - expected)) for pixels in (values, cleared)]
    return values if distances[0] < distances[1] else cleared


def _stored_padding(slice_: DicomSlice) -> int | None:
    """Return Pixel Padding Value as stored; some writers state the unsigned bit pattern of a signed value."""
    value = slice_.number("PixelPaddingValue")
    if value is None:
        return None
    if slice_.number("BitsAllocated") == 16:
        value = int(value) & 0xFFFF
        if slice_.number("PixelRepresentation") == 1 and value >= 0x8000:
            value -= 0x10000
    return int(value)


def _check_continuous(volume: np.ndarray, slices: Sequence[DicomSlice], rescales: list[tuple[float, ...]]) -> None:
    """Raise NotHounsfieldError if soft tissue changes together with the rescale. volume: HU, [k, j, i]."""
    if len(set(rescales)) == 1:
        return
    steps_hu = [_tissue_step(*volume[k - 1 : k + 1].astype(np.float32)) for k in range(1, len(slices))]
    is_usual = [rescales[k - 1] == rescales[k] for k in range(1, len(slices))]
    for k, step_hu in enumerate(steps_hu, 1):
        if is_usual[k - 1]:
            continue
        # Anatomy changes as much as between the slices beside them.
        adjacent_steps_hu = [steps_hu[n] for n in (k - 2, k) if 0 <= n < len(steps_hu) and is_usual[n]]
        excess_hu = step_hu - (sum(adjacent_steps_hu) / len(adjacent_steps_hu) if adjacent_steps_hu else 0.0)
        (slope_below, below), (slope, above) = rescales[k - 1 : k + 1]
        caused_hu = slope * (_SOFT_TISSUE - below) / slope_below + above - _SOFT_TISSUE
        is_caused = abs(caused_hu) >= MIN_RESCALED_HU and abs(excess_hu - caused_hu) < abs(excess_hu)
        if abs(step_hu) > MAX_STEP_HU or is_caused:
            texts = (f"{slices[n].name} (slope {rescales[n][0]:g}, intercept {rescales[n][1]:g})" for n in (k - 1, k))
            raise NotHounsfieldError(
                f"The rescale of neighbouring slices differs, and with it soft tissue by {step_hu:+.0f} HU: "
                f"{' and '.join(texts)}. Export the series again from the scanner or archive."
            )


def _tissue_step(below: np.ndarray, above: np.ndarray) -> float:
    tissue = np.maximum(below, above) > SOFT_TISSUE_HU
    return float(np.median((above - below)[tissue])) if tissue.any() else 0.0


def _check_not_inverted(volume: np.ndarray, slices: Sequence[DicomSlice]) -> None:
    """Raise NotHounsfieldError if values were inverted for MONOCHROME1, which concerns display alone."""
    if any(s.text("PhotometricInterpretation") == "MONOCHROME1" for s in slices):
        share = float((volume > DENSE_HU).mean())
        if share > MAX_DENSE:
            raise NotHounsfieldError(
                f"The images are stored inverted (MONOCHROME1): {share:.0%} of the voxels lie above {DENSE_HU} HU. "
                "Export them as MONOCHROME2."
            )
