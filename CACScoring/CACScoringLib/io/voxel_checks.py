"""Integrity checks of the headers and voxels of NIfTI, NRRD and MetaImage files.

ITK replaces data that it cannot decompress with zeros (HU of water, no label) and ignores the check sums of gzip and
zlib streams. A compressed file is therefore decompressed block by block before ITK reads it, and its check sums and
length are compared; for the usual NIfTI file the check sum is compared with the voxels that ITK has read, in a tenth of
the time. Uncompressed voxels have no check sum: only their length is checked, because surplus bytes shift the image as
missing bytes do. ITK also reads NaN and infinity in a NIfTI file as zeros, and takes one of its two geometries without
comparing them; both are checked here.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk

from ..core.errors import NotHounsfieldError, SliceGeometryError, UnreadableError
from ..core.files import open_file
from ..core.text import printable
from ..core.voxels import voxels_of

MAX_AXES, MAX_CHARACTERS, MAX_ITEMS = 5, 255, 16
"""Largest number of axes that ITK reads, of characters in a field, and of items in one; matrices have nine."""

_MAX_LINE_BYTES = 2**24
"""Largest line, such as the table of a segmentation's segments that NRRD stores as a pair of key and value."""


def check_header(path: Path) -> None:
    """Raise UnreadableError for an NRRD or MetaImage file whose header ITK cannot read safely, OSError for a pipe."""
    with open_file(path) as file:
        is_nrrd = file.read(4) == b"NRRD"
        file.seek(0)
        if is_nrrd:
            nrrd_fields(file, path.name)
        elif path.suffix.lower() in (".mha", ".mhd"):
            meta_image_fields(file, path.name)


def nrrd_fields(file: BinaryIO, name: str) -> dict[str, str]:
    """Return the fields of an NRRD header in lower case, leaving the file behind it. Raises UnreadableError."""
    fields: dict[str, str] = {}
    file.readline(_MAX_LINE_BYTES)
    while line := file.readline(_MAX_LINE_BYTES).decode("latin-1").strip():
        field, _, value = line.partition(":")
        if line.startswith("#") or value.startswith("="):  # comments, and pairs of key and value
            continue
        fields[field.lower()] = value.strip()
        is_free_text = field.lower() == "content"
        # Items are vectors, quoted texts and words.
        items = len(re.findall(r'"[^"]*"|\([^)]*\)|\S+', value))
        if not is_free_text and (max(len(field), len(value)) > MAX_CHARACTERS or items > MAX_ITEMS):
            raise _damaged(name, field)
        if value.split()[:1] in (["LIST"], ["LIST:"]):
            break
    _check_axes(fields.get("dimension", ""), fields.get("sizes", ""), name)
    return fields


def meta_image_fields(file: BinaryIO, name: str) -> dict[str, str]:
    """Return the fields of a MetaImage header, leaving the file at the voxels. Raises UnreadableError."""
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields and (line := file.readline(_MAX_LINE_BYTES)):
        # Names from other formats hold other characters, such as dim[0] or 0008|0060.
        field = re.fullmatch(rb"\s*([^\s=:\0][^=:\0]*?)\s*[=:]([^\0]*)", line)
        if field is None and line.strip():
            raise _damaged(name, line[:MAX_CHARACTERS].decode("latin-1"))
        if field is not None:
            fields[field[1].decode("latin-1")] = field[2].strip().decode("utf-8", "replace")
    if "ElementDataFile" not in fields or len(fields.get("Name", "")) > MAX_CHARACTERS:
        raise _damaged(name, "Name" if "ElementDataFile" in fields else "ElementDataFile")
    _check_axes(fields.get("NDims", ""), fields.get("DimSize", ""), name)
    return fields


def _check_axes(count: str, sizes: str, name: str) -> None:
    if re.fullmatch(rf"[1-{MAX_AXES}]", count) is None:
        raise _damaged(name, f"number of axes: {count or 'none'}")
    if re.fullmatch(rf"(0*[1-9]\d{{0,9}}\s*?\b\s*){{{count}}}", sizes) is None:
        raise _damaged(name, f"sizes: {sizes or 'none'}")


def _damaged(name: str, place: str) -> UnreadableError:
    place = printable(place[:40])
    return UnreadableError(f"The header of {name} is damaged ({place}). Copy or export it again.")


CORNER_TOLERANCE_MM, SPACING_TOLERANCE = 1.0, 0.002
"""Largest distance between corners by sform and qform of a NIfTI file, and largest relative difference of spacings:
headers hold single precision, and some programs round."""

_GZIP, _ZLIB = 31, 15  # window bits, as zlib takes them
_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 2**14
MAX_VOXELS = 2**31
"""Largest number of voxels; a header that claims more is broken."""

NIFTI_HEADER_BYTES, _NIFTI_SIZEOF_HDR = 352, 348
"""Bytes before the voxels of a NIfTI file, and header size stated in its first four bytes (nifti1.h)."""

_SCANNER, _TEMPLATES = 1, (3, 4, 5)
"""Codes of NIfTI for the scanner's coordinates, and for those of a template (nifti1.h)."""

_META_IMAGE_FLAGS = {"CompressedData": ("T", "t", "1"), "BinaryData": ("F", "f", "0")}
"""First letters of the fields that mark compressed voxels, and voxels written as text."""

_NIFTI_FLOATS = {"16": "f4", "64": "f8"}
_FLOAT_BLOCK_BYTES = 2**20


def checked_image(path: Path, reader: sitk.ImageFileReader) -> sitk.Image | None:
    """Check the voxels of a file.

    Args:
        path: The file.
        reader: Reader of the file, which has read its header.

    Returns:
        The image if the check has read it, else None.

    Raises:
        UnreadableError: Voxels are damaged or missing, or bytes exceed those of the header.
        NotHounsfieldError: A NIfTI file holds NaN or infinity.
    """
    match reader.GetImageIO():
        case "NiftiImageIO":
            if (image := _checked_nifti(path, reader)) is not None:
                return image
            _check_nifti(path, reader)
        case "NrrdImageIO":
            _check_nrrd(path, _voxel_bytes(reader))
        case "MetaImageIO":
            _check_meta_image(path, _voxel_bytes(reader))
    return None


def _voxel_bytes(reader: sitk.ImageFileReader) -> int:
    # SimpleITK states the size of a component only for an image, not for a pixel type.
    voxel = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
    return math.prod(reader.GetSize()) * voxel.GetSizeOfPixelComponent() * voxel.GetNumberOfComponentsPerPixel()


def _checked_nifti(path: Path, reader: sitk.ImageFileReader) -> sitk.Image | None:
    """Read a .nii.gz file of one gzip member with header and voxels alone, as most are, and compare its check sum.

    Returns:
        The image, or None for another layout or a different check sum; such a file may still be intact.
    """
    if not path.name.lower().endswith(".nii.gz") or float(reader.GetMetaData("vox_offset")) != NIFTI_HEADER_BYTES:
        return None
    check_sum, has_length = _gzip_end(path, NIFTI_HEADER_BYTES + _voxel_bytes(reader))
    if not has_length:
        return None
    try:
        image = reader.Execute()
        with gzip.open(path) as content:
            header = content.read(NIFTI_HEADER_BYTES)
    except (RuntimeError, OSError, EOFError, zlib.error):
        return None
    return image if zlib.crc32(voxels_of(image).data, zlib.crc32(header)) == check_sum else None


def _gzip_end(path: Path, length: int) -> tuple[int, bool]:
    """Return the check sum at the end of a gzip file (RFC 1952), and whether it states a length of the content."""
    with open_file(path) as file:
        file.seek(-min(8, path.stat().st_size), os.SEEK_END)
        end = file.read()
    return int.from_bytes(end[:4], "little"), end[4:] == length.to_bytes(8, "little")[:4]


def check_lengths(path: Path, reader: sitk.ImageFileReader) -> None:
    """Check that a file holds the bytes that its header states.

    A usual .nii.gz file states them at its end; other compressed files are decompressed, no further than stated.

    Args:
        path: The file.
        reader: Reader of the file, which has read its header.

    Raises:
        UnreadableError: Bytes are missing or damaged, or exceed those of the header.
    """
    match reader.GetImageIO():
        case "NiftiImageIO":
            needed = _nifti_bytes_stated(reader)
            if not (path.name.lower().endswith(".nii.gz") and _gzip_end(path, needed)[1]):
                _check_nifti_length(path, needed)
        case "NrrdImageIO":
            _check_nrrd(path, _voxel_bytes(reader))
        case "MetaImageIO":
            _check_meta_image(path, _voxel_bytes(reader))


def _nifti_bytes_stated(reader: sitk.ImageFileReader) -> int:
    """Return the bytes of a NIfTI file by its header."""
    start = int(float(reader.GetMetaData("vox_offset")))
    return start + math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix")) // 8


def _check_nifti_length(path: Path, needed: int) -> None:
    if not re.search(r"\.nii(\.gz)?$", path.name, re.IGNORECASE):
        raise UnreadableError(f"{path.name} is a NIfTI file with another ending. Name it .nii or .nii.gz.")
    if (length := nifti_bytes(path, needed)) < needed:
        raise UnreadableError(f"{path.name} is truncated ({length} bytes of {needed}). Copy or export it again.")
    _check_length(length, needed, path)


def check_nifti_geometry(path: Path, reader: sitk.ImageFileReader) -> None:
    """Raise SliceGeometryError if a NIfTI file's sform contradicts its qform or spacing; reads its header alone."""
    try:
        with nifti_content(path) as content:
            header = content.read(NIFTI_HEADER_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return  # `checked_image` reports damage
    if len(header) == NIFTI_HEADER_BYTES:
        _check_one_geometry(header, _byte_order(header), reader, path.name)


def _check_nifti(path: Path, reader: sitk.ImageFileReader) -> None:
    start = int(float(reader.GetMetaData("vox_offset")))
    _check_nifti_length(path, _nifti_bytes_stated(reader))
    with nifti_content(path) as content:
        order = _byte_order(content.read(NIFTI_HEADER_BYTES))
    if name := _NIFTI_FLOATS.get(reader.GetMetaData("datatype")):
        kind = np.dtype(order + name)
        with nifti_content(path) as content:
            content.seek(start)
            voxels = _blocks(content, math.prod(reader.GetSize()) * kind.itemsize, _FLOAT_BLOCK_BYTES)
            _check_finite(voxels, kind, path.name)


def _byte_order(header: bytes) -> str:
    return "<" if int.from_bytes(header[:4], "little") == _NIFTI_SIZEOF_HDR else ">"


def nifti_content(file: Path) -> BinaryIO | gzip.GzipFile:
    """Open the content of a file whose check sums were compared."""
    return gzip.open(file) if file.suffix.lower() == ".gz" else open_file(file)


def _check_finite(blocks: Iterable[bytes], kind: np.dtype, name: str) -> None:
    count = sum(int((~np.isfinite(np.frombuffer(block, kind))).sum()) for block in blocks)
    if count:
        raise NotHounsfieldError(f"{count} voxels of {name} are not numbers (NaN or infinite). Export it again.")


def _check_one_geometry(header: bytes, order: str, reader: sitk.ImageFileReader, name: str) -> None:
    """Raise SliceGeometryError if the sform of a NIfTI file contradicts its qform or its spacing (pixdim)."""
    codes = [int(reader.GetMetaData(f"{name}form_code")) for name in "sq"]
    # ITK then reads the qform, which is the scanner's.
    if codes[0] <= 0 or (codes[0] in _TEMPLATES and codes[1] == _SCANNER):
        return
    # Offsets of nifti1.h.
    qfac, *steps = np.frombuffer(header, f"{order}f4", 4, 76).astype(float)
    *quaternion, x, y, z = np.frombuffer(header, f"{order}f4", 6, 256).astype(float)
    sform = np.frombuffer(header, f"{order}f4", 12, 280).astype(float).reshape(3, 4)
    spacing_mm = np.abs(steps)
    lengths_mm = np.linalg.norm(sform[:, :3], axis=0)
    if not np.allclose(lengths_mm, spacing_mm, rtol=SPACING_TOLERANCE, atol=0):
        by_sform, by_pixdim = ("×".join(f"{v:.4g}" for v in values) for values in (lengths_mm, spacing_mm))
        raise SliceGeometryError(
            f"The geometry of {name} contradicts itself: voxels of {by_sform} mm by its sform and of {by_pixdim} mm by "
            "its pixdim. Convert the DICOM series again."
        )
    if int(reader.GetMetaData("qform_code")) <= 0:
        return
    real = math.sqrt(max(0.0, 1 - np.dot(quaternion, quaternion)))
    rotation = np.reshape(sitk.VersorTransform((*quaternion, real)).GetMatrix(), (3, 3))
    axes = rotation * spacing_mm * (1, 1, -1 if qfac < 0 else 1)
    qform = np.column_stack([axes, (x, y, z)])
    last_index = [n - 1 for n in (*reader.GetSize(), 1)[:3]]
    corners = np.array([(*index, 1) for index in np.ndindex(2, 2, 2)]) * (*last_index, 1)
    distance_mm = np.linalg.norm(corners @ (sform - qform).T, axis=1).max()
    if not distance_mm <= CORNER_TOLERANCE_MM:
        raise SliceGeometryError(
            f"The geometry of {name} contradicts itself: its sform and its qform place voxels up to {distance_mm:.0f} "
            "mm apart, so left, right or the slices' order are unknown. Convert the DICOM series again."
        )


def is_gzip(path: Path) -> bool:
    """True if a file begins with the gzip signature."""
    with open_file(path) as file:
        return file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def nifti_bytes(file: Path, limit: int) -> int:
    """Count the bytes of a NIfTI file; stop soon after `limit` if it is compressed. Raises UnreadableError."""
    if file.suffix.lower() != ".gz":
        return file.stat().st_size
    with open_file(file) as stream:
        return _decompressed_size(_blocks(stream), _GZIP, file.name, limit)


def _check_nrrd(path: Path, needed: int) -> None:
    with open_file(path) as file:
        fields = nrrd_fields(file, path.name)
        encoding = fields.get("encoding", "").lower()
        skipped = int(fields.get("byte skip", fields.get("byteskip", 0)))
        place = fields.get("data file", fields.get("datafile"))
        if encoding not in ("gzip", "gz", "raw") or skipped < 0 or (encoding == "raw" and place and _is_list(place)):
            return  # Teem compares these lengths
        needed += skipped
        lines = int(fields.get("line skip", fields.get("lineskip", 0)))
        with _open_voxel_file(path, place) if place else nullcontext(file) as data:
            for _ in range(lines):
                data.readline()
            if encoding == "raw":
                length = _unread_bytes(data)
            else:
                length = _decompressed_size(_blocks(data), _GZIP, place or path.name, needed)
    _check_length(length, needed, path)


def _check_meta_image(path: Path, needed: int) -> None:
    with open_file(path) as file:
        fields = meta_image_fields(file, path.name)
        place = fields["ElementDataFile"]
        is_inside = place.upper() == "LOCAL"
        is_packed, is_text = (fields.get(name, "")[:1] in values for name, values in _META_IMAGE_FLAGS.items())
        skipped = int(fields.get("HeaderSize", 0))
        if not is_packed and (is_text or skipped < 0):
            return  # ITK reads no further than the end
        if not is_packed and not is_inside and _is_list(place):
            lengths = [_file_bytes(path, name) - skipped for name in _listed_files(path, place, file)]
            length = sum(lengths) + skipped if len({*lengths}) == 1 else 0
        else:
            with nullcontext(file) if is_inside else _open_voxel_file(path, place) as data:
                if is_packed:
                    # ITK reads as many bytes as the header states; else all of a separate file, nothing inline.
                    size = int(fields.get("CompressedDataSize", 0)) or (0 if is_inside else None)
                    length = _decompressed_size(_blocks(data, size), _ZLIB, path.name if is_inside else place, needed)
                else:
                    length = _unread_bytes(data)
    _check_length(max(0, length - skipped), needed, path)


def _is_list(place: str) -> bool:
    """True if a header names several files of voxels: a list, or a pattern with numbers."""
    return place.split()[:1] in (["LIST"], ["LIST:"]) or "%" in place


def _listed_files(header: Path, place: str, lines: BinaryIO) -> list[str]:
    """Return the names of the files that a MetaImage header lists below it, or as a pattern with first, last, step."""
    if "%" not in place:
        return [line.decode("utf-8", "replace").strip() for line in lines if line.strip()]
    pattern = re.fullmatch(r"([^%\s]*%0?\d?d[^%\s]*) (\d{1,6}) (\d{1,6}) (\d{1,6})", place)
    if pattern is None or not int(pattern[4]):
        raise _unknown_place(header, place)
    first, last, step = map(int, pattern.groups()[1:])
    return [pattern[1] % number for number in range(first, last + 1, step)]


def _unread_bytes(file: BinaryIO) -> int:
    """Count the bytes from a file's position to its end."""
    return os.fstat(file.fileno()).st_size - file.tell()


def _file_bytes(header: Path, place: str) -> int:
    with _open_voxel_file(header, place) as file:
        return _unread_bytes(file)


def _open_voxel_file(header: Path, place: str) -> BinaryIO:
    """Open the file that a header names for its voxels. Raises UnreadableError."""
    data = header.parent / place
    if not data.is_file():
        raise _unknown_place(header, place)
    return open_file(data)


def _unknown_place(header: Path, place: str) -> UnreadableError:
    return UnreadableError(
        f"{header.name} has its voxels in {printable(place)}, which is not one file beside it. Save it as one file."
    )


def _check_length(length: int, needed: int, path: Path) -> None:
    if length != needed:
        raise UnreadableError(
            f"{path.name} is damaged: it holds {'more' if length > needed else f'{length} bytes'}, but its header "
            f"states {needed} bytes of voxels. Copy or export it again."
        )


def _blocks(file: BinaryIO | gzip.GzipFile, limit: int | None = None, size: int = _BLOCK_BYTES) -> Iterator[bytes]:
    """Yield a file in blocks from its position, up to a limit in bytes."""
    bytes_left = math.inf if limit is None else limit
    while block := file.read(int(min(bytes_left, size))):
        bytes_left -= len(block)
        yield block


def _decompressed_size(blocks: Iterator[bytes], kind: int, name: str, limit: int) -> int:
    """Count the bytes that a compressed stream holds, in all members of gzip (RFC 1952) without zeros after them.

    Counting stops above `limit`.

    Raises:
        UnreadableError: A check sum or length is wrong, or the stream ends early.
    """
    length, block = 0, next(blocks, b"")
    while True:
        stream = zlib.decompressobj(kind)
        while not stream.eof:
            if not block:
                raise UnreadableError(f"{name} is truncated: its compressed data end early. Copy or export it again.")
            try:
                length += len(stream.decompress(block))
            except zlib.error as error:
                raise UnreadableError(f"{name} is damaged ({error}). Copy or export it again.") from error
            if length > limit:
                return length
            block = next(blocks, b"")
        next_member = (stream.unused_data + block).lstrip(b"\0")
        while len(next_member) < len(_GZIP_MAGIC) and (block := next(blocks, b"")):
            next_member = (next_member + block).lstrip(b"\0")
        # ITK and gzip stop at bytes that begin no further member.
        if kind != _GZIP or not next_member.startswith(_GZIP_MAGIC):
            return length
        block = next_member
