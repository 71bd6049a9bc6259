"""Reading NIfTI, NRRD and MetaImage files, and refusing those whose compressed voxels are damaged.

ITK fills what it cannot decompress with zeros, which are HU of water and no label at all, and passes over the check
sums of gzip and zlib streams without a word. So a compressed file is decompressed once before ITK reads it, block by
block, and its check sums and length are compared; of the usual NIfTI file the check sum is compared with the voxels
that ITK has read, which takes a tenth of the time. Voxels that are not compressed have no check sum: of these only the
length is known. ITK also reads NaN and infinity in a NIfTI file as zeros, and takes one of its two geometries
without comparing them; both are checked here.
"""

from __future__ import annotations

import errno
import gzip
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk

from ..core.ct import Acquisition, NotHounsfieldError, ScanWarning, SliceGeometryError, UnreadableError
from ..core.text import printable

MAX_VOXELS = 2**31
"""More voxels than any chest CT has: the header is broken."""

# Others that ITK reads (VTK, TIFF, pictures) lose HU or geometry, or hide that a file is truncated.
FORMATS = {"NiftiImageIO": "NIfTI", "NrrdImageIO": "NRRD", "MetaImageIO": "MetaImage"}
"""Name of a format by the name of ITK's reader (`ImageFileReader.GetImageIO`)."""

MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 10.0
"""Distance of neighbouring voxels on any axis; beyond these the header's geometry cannot be a chest CT's."""

ORTHONORMAL_TOLERANCE = 0.01
"""Row and column directions are unit vectors at right angles within this: cosines rounded to two decimals pass."""

SHEARED = (
    "the gantry was tilted, or the volume deformed. Resample it to a straight volume (in 3D Slicer: DICOM settings, "
    "acquisition geometry regularization) and score that."
)

CORNER_TOLERANCE_MM, SPACING_TOLERANCE = 1.0, 0.002
"""Largest distance between the corners by sform and by qform of a NIfTI file, and largest relative difference between
its spacings: headers hold single precision, and some programs round."""

_GZIP, _ZLIB = 31, 15  # window bits, as zlib takes them
_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 2**14
_NIFTI_HEADER_BYTES, _NIFTI_SIZE = 352, 348
"""Of the header with what follows it, and of what it says of itself in its first four bytes."""

_NIFTI_FLOATS = {"16": "f4", "64": "f8"}
_FLOAT_BLOCK_BYTES = 2**20
_MOST_EXTENSION_BYTES = 2**28
"""That a NIfTI file may hold after its voxels; more would only take time to look through."""


def read_image(path: Path) -> sitk.Image:
    """Read an image file whole.

    Raises:
        UnreadableError: If it is missing, in another format, truncated or damaged.
        NotHounsfieldError: If a NIfTI file holds NaN or infinity.
        SliceGeometryError: If its axes are not at right angles, or the geometry of a NIfTI file contradicts itself.
    """
    return _read_voxels(Path(path), read_header(path))


def read_ct_image(path: Path) -> tuple[sitk.Image, Acquisition, tuple[ScanWarning, ...]]:
    """Read a CT from an image file.

    Returns:
        The image as it is stored, what is known of the acquisition (the file's format), and warnings.

    Raises:
        UnreadableError: As `read_image` does.
        NotHounsfieldError: It is a segmentation, or holds NaN or infinity.
        SliceGeometryError: As `read_image` does, or a spacing is none that a chest CT has.
    """
    reader = read_header(path)
    image_format, image = FORMATS[reader.GetImageIO()], _read_voxels(path, reader)
    if any(key.startswith(("Segment0_", "Segmentation_")) for key in image.GetMetaDataKeys()):
        raise NotHounsfieldError(f"{path.name} is a segmentation (label map), not a CT. Give the CT itself.")
    axes = np.reshape(image.GetDirection(), (image.GetDimension(), -1))
    if np.abs(axes.T @ axes - np.eye(len(axes))).max() > ORTHONORMAL_TOLERANCE:
        raise SliceGeometryError(f"The axes of {path.name} are not at right angles: {SHEARED}")
    check_spacing(image.GetSpacing()[:3])
    return image, Acquisition(image_format), _lost_geometry(image, image_format)


def _lost_geometry(image: sitk.Image, file_format: str) -> tuple[ScanWarning, ...]:
    # A file without geometry reads as voxels of 1 mm at the origin along the axes, which no scanner produces.
    default_direction = np.allclose(np.abs(image.GetDirection()), np.eye(image.GetDimension()).ravel())
    if np.allclose(image.GetSpacing(), 1, atol=1e-4) and not any(image.GetOrigin()) and default_direction:
        message = (
            "The file gives voxels of exactly 1×1×1 mm at the origin: its geometry was probably lost, in which case "
            "areas, volumes and scores are wrong. Compare it with the DICOM series."
        )
        return (ScanWarning("geometry-unknown", message),)
    codes = [image.GetMetaData(key) for key in ("qform_code", "sform_code") if image.HasMetaDataKey(key)]
    if file_format == "NIfTI" and codes == ["0", "0"]:
        message = (
            "The NIfTI file does not state its orientation (qform and sform are 0); the third axis is taken to run "
            "from feet to head. Check the images."
        )
        return (ScanWarning("geometry-unknown", message),)
    return ()


def read_header(path: Path) -> sitk.ImageFileReader:
    """A reader that has read a file's header: size, spacing, metadata. Raises CTError as `read_image` does."""
    path, reader = Path(path), sitk.ImageFileReader()
    with _answered(path):
        if not path.is_file():
            raise UnreadableError(f"{path} does not exist. Give a NIfTI, NRRD or MHA file.")
        image_io = reader.GetImageIOFromFileName(str(path))
        if image_io not in FORMATS:
            if path.suffix.lower() == ".gz" and _is_gzip(path):
                _nifti_bytes(path)  # where it is so damaged that ITK does not know it
            kind = f"is a {image_io.removesuffix('ImageIO')} file" if image_io else "is in no known image format"
            raise UnreadableError(f"{path.name} {kind}. Give a DICOM folder or a NIfTI, NRRD or MHA file.")
        reader.SetImageIO(image_io)
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        if math.prod(reader.GetSize()) > MAX_VOXELS:
            size = "×".join(map(str, reader.GetSize()))
            raise UnreadableError(f"{path.name} claims {size} voxels; its header is broken. Export the CT again.")
    return reader


def write_image(image: sitk.Image, path: Path) -> None:
    """Write an image as .nii.gz.

    Raises OSError, also where a part of it was not written, as on a full disk: ITK is silent about that.
    """
    try:
        sitk.WriteImage(image, path, True)
    except RuntimeError as error:
        raise OSError(errno.EIO, _itk_reason(error), str(path)) from error
    voxels = math.prod(image.GetSize()) * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4))
        length = int.from_bytes(file.read(), "little")  # of the content, at the end of a gzip file
    if length != (_NIFTI_HEADER_BYTES + voxels) % 2**32:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def check_spacing(spacing_mm: Sequence[float]) -> None:
    """Raise SliceGeometryError where a spacing along i, j or k is none that a chest CT has."""
    for axis, spacing in zip("ijk", spacing_mm, strict=False):
        if not MIN_SPACING_MM <= spacing <= MAX_SPACING_MM:
            raise SliceGeometryError(
                f"The voxel spacing along axis {axis} is {spacing:g} mm; a chest CT has {MIN_SPACING_MM:g} to "
                f"{MAX_SPACING_MM:g} mm. The geometry was lost or changed: export the CT again."
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep ITK and pydicom from remarking on the console on what is checked here and answered with a CTError or a
    ScanWarning."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


@contextmanager
def _answered(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into a CTError."""
    try:
        with quiet():
            yield
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be opened ({error.strerror}). Check its permissions.") from error
    except (RuntimeError, MemoryError, ValueError) as error:
        if "orthonormal" in str(error):
            raise SliceGeometryError(f"The axes of {path.name} are not at right angles: {SHEARED}") from error
        raise UnreadableError(
            f"{path.name} cannot be read. Check that it is complete, or export it again. ({_itk_reason(error)})"
        ) from error


def _itk_reason(error: BaseException) -> str:
    reason = re.split(r"ITK ERROR: |itk::ERROR: ", str(error))[-1] or "out of memory"
    return printable(re.sub(r"^\w+\(0x\w+\): ", "", reason))


def _read_voxels(path: Path, reader: sitk.ImageFileReader) -> sitk.Image:
    """The image of a file. Raises CTError where its voxels are damaged or missing. reader: of `read_header`."""
    with _answered(path):
        match reader.GetImageIO():
            case "NiftiImageIO":
                if (image := _checked_nifti(path, reader)) is not None:
                    return image
                _check_nifti(path, reader)
            case "NrrdImageIO":
                _check_nrrd(path, _voxel_bytes(reader))
            case "MetaImageIO":
                _check_meta_image(path, _voxel_bytes(reader))
        return reader.Execute()


def _voxel_bytes(reader: sitk.ImageFileReader) -> int:
    # An image of one voxel tells how large a component is; SimpleITK does not say it of a pixel type.
    one = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
    return math.prod(reader.GetSize()) * one.GetSizeOfPixelComponent() * one.GetNumberOfComponentsPerPixel()


def _checked_nifti(path: Path, reader: sitk.ImageFileReader) -> sitk.Image | None:
    """The image of a .nii.gz file of one gzip member that holds header and voxels alone, as most do, if its check sum
    is that of the header and of the voxels as ITK reads them. None for any other: it may still be sound."""
    if not path.name.lower().endswith(".nii.gz") or float(reader.GetMetaData("vox_offset")) != _NIFTI_HEADER_BYTES:
        return None
    with path.open("rb") as file:
        file.seek(-min(8, path.stat().st_size), os.SEEK_END)
        end = file.read()
    check_sum, length = int.from_bytes(end[:4], "little"), int.from_bytes(end[4:], "little")
    if length != (_NIFTI_HEADER_BYTES + _voxel_bytes(reader)) % 2**32:
        return None
    try:
        image = reader.Execute()
        with gzip.open(path) as content:
            header = content.read(_NIFTI_HEADER_BYTES)
    except (RuntimeError, OSError, EOFError, zlib.error):
        return None
    if zlib.crc32(sitk.GetArrayViewFromImage(image).data, zlib.crc32(header)) != check_sum:
        return None
    _check_one_geometry(header, _byte_order(header), reader, path.name)
    return image


def _check_nifti(path: Path, reader: sitk.ImageFileReader) -> None:
    start = int(float(reader.GetMetaData("vox_offset")))
    needed = start + math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix")) // 8
    if not re.search(r"\.nii(\.gz)?$", path.name, re.IGNORECASE):
        raise UnreadableError(f"{path.name} is one of two NIfTI files. Save both as one, .nii.gz.")
    # A file may hold more, such as extensions after the voxels.
    most = needed + _MOST_EXTENSION_BYTES
    if (length := _nifti_bytes(path, most)) < needed:
        raise UnreadableError(f"{path.name} is truncated ({length} bytes of {needed}). Copy or export it again.")
    if length > most:
        raise UnreadableError(f"{path.name} holds far more than the {needed} bytes of its header. Export it again.")
    with _nifti_content(path) as content:
        first = content.read(_NIFTI_HEADER_BYTES)
    order = _byte_order(first)
    _check_one_geometry(first, order, reader, path.name)
    if name := _NIFTI_FLOATS.get(reader.GetMetaData("datatype")):
        kind = np.dtype(order + name)
        with _nifti_content(path) as content:
            content.seek(start)
            voxels = _blocks(content, math.prod(reader.GetSize()) * kind.itemsize, _FLOAT_BLOCK_BYTES)
            _check_finite(voxels, kind, path.name)


def _byte_order(header: bytes) -> str:
    return "<" if int.from_bytes(header[:4], "little") == _NIFTI_SIZE else ">"


def _nifti_content(file: Path) -> BinaryIO | gzip.GzipFile:
    """The content of a file whose check sums were compared."""
    return gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")


def _check_finite(blocks: Iterable[bytes], kind: np.dtype, name: str) -> None:
    count = sum(int((~np.isfinite(np.frombuffer(block, kind))).sum()) for block in blocks)
    if count:
        raise NotHounsfieldError(f"{count} voxels of {name} are not numbers (NaN or infinite). Export it again.")


def _check_one_geometry(header: bytes, order: str, reader: sitk.ImageFileReader, name: str) -> None:
    """Raise SliceGeometryError where the sform of a NIfTI file contradicts its qform or its spacing (pixdim)."""
    if int(reader.GetMetaData("sform_code")) <= 0:
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
    last = [n - 1 for n in (*reader.GetSize(), 1)[:3]]
    corners = np.array([(*index, 1) for index in np.ndindex(2, 2, 2)]) * (*last, 1)
    apart_mm = np.linalg.norm(corners @ (sform - qform).T, axis=1).max()
    if not apart_mm <= CORNER_TOLERANCE_MM:
        raise SliceGeometryError(
            f"The geometry of {name} contradicts itself: its sform and its qform place voxels up to {apart_mm:.0f} mm "
            "apart, so left, right or the slices' order are unknown. Convert the DICOM series again."
        )


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def _nifti_bytes(file: Path, most: int = _MOST_EXTENSION_BYTES) -> int:
    if file.suffix.lower() != ".gz":
        return file.stat().st_size
    with file.open("rb") as stream:
        return _decompressed_bytes(_blocks(stream), _GZIP, file.name, most)


def _check_nrrd(path: Path, needed: int) -> None:
    fields = {}
    with path.open("rb") as file:
        while line := file.readline().decode("latin-1").strip():
            name, _, value = line.partition(": ")
            fields[name.lower()] = value.strip()
        if fields.get("encoding", "").lower() not in ("gzip", "gz"):
            return
        needed += int(fields.get("byte skip", fields.get("byteskip", 0)))
        lines = int(fields.get("line skip", fields.get("lineskip", 0)))
        place = fields.get("data file", fields.get("datafile"))
        with _opened(path, place) if place else nullcontext(file) as data:
            for _ in range(lines):
                data.readline()
            _check_length(_decompressed_bytes(_blocks(data), _GZIP, place or path.name, needed), needed, path)


def _check_meta_image(path: Path, needed: int) -> None:
    fields: dict[bytes, str] = {}
    with path.open("rb") as file:
        while b"ElementDataFile" not in fields and (line := file.readline()):
            field = re.fullmatch(rb"\s*(\w+)\s*[=:]([^\0]*)", line)
            if field is None and line.strip():
                raise UnreadableError(f"The header of {path.name} is damaged. Copy or export it again.")
            if field is not None:
                fields[field[1]] = field[2].strip().decode("utf-8", "replace")
        if fields.get(b"CompressedData", "")[:1] not in ("T", "t", "1"):
            return
        place = fields[b"ElementDataFile"]
        inside = place.upper() == "LOCAL"
        # ITK reads as many bytes as the header says; without that all of a file, but nothing from within a file.
        size = int(fields.get(b"CompressedDataSize", 0)) or (0 if inside else None)
        with nullcontext(file) if inside else _opened(path, place) as data:
            length = _decompressed_bytes(_blocks(data, size), _ZLIB, path.name if inside else place, needed)
    _check_length(length, needed, path)


def _opened(header: Path, place: str) -> BinaryIO:
    """The file that a header says its voxels lie in."""
    data = header.parent / place
    if not data.is_file():
        raise UnreadableError(
            f"{header.name} has its compressed voxels in {printable(place)}, which is not one file beside it. Save it "
            "as one file."
        )
    return data.open("rb")


def _check_length(length: int, needed: int, path: Path) -> None:
    if length != needed:
        raise UnreadableError(
            f"{path.name} is damaged: its compressed data hold {'more' if length > needed else f'{length} bytes'}, "
            f"but its header states {needed} bytes. Copy or export it again."
        )


def _blocks(file: BinaryIO | gzip.GzipFile, most: int | None = None, size: int = _BLOCK_BYTES) -> Iterator[bytes]:
    """A file in blocks from where it stands. most: bytes to read at most."""
    left = math.inf if most is None else most
    while block := file.read(int(min(left, size))):
        left -= len(block)
        yield block


def _decompressed_bytes(blocks: Iterator[bytes], kind: int, name: str, most: int) -> int:
    """How many bytes a compressed stream holds; of gzip in all its members (RFC 1952), zeros after them left out.

    It is looked through until it holds more than `most`. Raises UnreadableError when a check sum or length is wrong, or
    the stream ends early.
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
            if length > most:
                return length
            block = next(blocks, b"")
        rest = (stream.unused_data + block).lstrip(b"\0")
        while len(rest) < len(_GZIP_MAGIC) and (block := next(blocks, b"")):
            rest = (rest + block).lstrip(b"\0")
        # ITK stops at what is no other member, and so does gzip.
        if kind != _GZIP or not rest.startswith(_GZIP_MAGIC):
            return length
        block = rest
