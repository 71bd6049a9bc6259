"""Conversion of NIfTI-2 files and of NIfTI pairs (.hdr and .img) to NIfTI-1 files, which ITK reads."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..core.ct import UnreadableError
from .voxel_checks import MAX_VOXELS, NIFTI_HEADER_BYTES, nifti_content

# Names, types and offsets of the fields that ITK reads (nifti1.h and nifti2.h).
_NAMES = ["size", "dim", "pixdim", "datatype", "bitpix", "offset", "slope", "intercept", "units", "codes", "geometry"]
_NIFTI_1 = np.dtype(
    {
        "names": _NAMES,
        "formats": ["<i4", "<8i2", "<8f4", "<i2", "<i2", "<f4", "<f4", "<f4", "u1", "<2i2", "<18f4"],
        "offsets": [0, 40, 76, 70, 72, 108, 112, 116, 123, 252, 256],
        "itemsize": 348,
    }
)
_NIFTI_2 = np.dtype(
    {
        "names": _NAMES,
        "formats": ["<i4", "<8i8", "<8f8", "<i2", "<i2", "<i8", "<f8", "<f8", "<i4", "<2i4", "<18f8"],
        "offsets": [0, 16, 104, 12, 14, 168, 176, 184, 500, 344, 352],
        "itemsize": 540,
    }
)
_MAGIC_1 = b"n+1\0"
_MAX_SIZE = 2**15 - 1
"""Largest number of voxels along an axis of a NIfTI-1 file."""

_PAIR = re.compile(r"\.(hdr|img)(\.gz)?", re.IGNORECASE)
_BLOCK_BYTES = 2**20


@contextmanager
def as_nifti1(path: Path) -> Iterator[Path]:
    """Provide a temporary NIfTI-1 file (.nii) for a NIfTI-2 file or a pair, given by either file; another path as is.

    Raises:
        UnreadableError: A file of the pair is missing, it is an Analyze pair, whose orientation is unknown, it is
            damaged, or there is no room for the temporary file.
    """
    suffix = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:])
    is_pair = _PAIR.fullmatch(suffix) is not None
    header_file = _partner(path, suffix, "hdr") if is_pair else path
    start = _start(header_file) if header_file and (is_pair or suffix.lower() in (".nii", ".nii.gz")) else b""
    magic = start[4:7] if _number(start, 0) == _NIFTI_2.itemsize else start[344:347]
    if is_pair and _number(start, 0) == _NIFTI_1.itemsize and magic not in (b"ni1", b"n+1"):
        raise UnreadableError(
            f"{path.name} is an Analyze file, which does not state left and right reliably. Convert the DICOM series "
            "to NIfTI (.nii.gz)."
        )
    data_file = _partner(path, suffix, "img") if is_pair else path
    if magic not in ((b"ni1", b"ni2") if is_pair else (b"n+2",)) and (header_file or not path.is_file()):
        yield path
        return
    if header_file is None or data_file is None:
        raise UnreadableError(f"{path.name} is one of two files, .hdr and .img. Copy the other beside it.")
    with TemporaryDirectory(prefix="cac-nifti-") as folder:
        file = Path(folder, f"{path.name.removesuffix(suffix)}.nii")
        try:
            _convert(start, data_file, file)
        except (EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
            raise UnreadableError(f"{data_file.name} is damaged ({error}). Copy or export it again.") from error
        except OSError as error:
            raise UnreadableError(
                f"{path.name} cannot be converted in {folder} ({error.strerror}). Make room there, or name another "
                "folder for temporary files (TMPDIR)."
            ) from error
        yield file


def _partner(path: Path, suffix: str, kind: str) -> Path | None:
    """Return the file of a pair that is of a kind ("hdr" or "img"), or None if it is missing."""
    if suffix[1:4].lower() == kind:
        return path
    stem = path.name.removesuffix(suffix)
    names = [f"{stem}.{letters}{end}" for letters in (kind, kind.upper()) for end in (suffix[4:], "", ".gz", ".GZ")]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def _start(file: Path) -> bytes:
    """Return the bytes of a header; none if the file is missing or damaged, which reading it reports."""
    with suppress(OSError, EOFError, zlib.error), nifti_content(file) as content:
        return content.read(_NIFTI_2.itemsize)
    return b""


def _number(start: bytes, at: int) -> int:
    """Return a four-byte integer of a header in the order of bytes that makes it small."""
    return min(int.from_bytes(start[at : at + 4], order) for order in ("little", "big"))


def _convert(start: bytes, data_file: Path, file: Path) -> None:
    """Write a header and voxels as NIfTI-1; of voxels that exceed the header, one byte more is kept."""
    source = _NIFTI_2 if _number(start, 0) == _NIFTI_2.itemsize else _NIFTI_1
    is_little = int.from_bytes(start[:4], "little") == source.itemsize
    source, target = (kind.newbyteorder("<" if is_little else ">") for kind in (source, _NIFTI_1))
    old = np.frombuffer(start, source, 1)[0]
    sizes = [int(n) for n in old["dim"][1 : 1 + max(0, int(old["dim"][0]))]]
    if not all(0 < n <= _MAX_SIZE for n in sizes):
        raise UnreadableError(f"{data_file.name} claims {'×'.join(map(str, sizes))} voxels; its header is broken.")
    header = np.zeros(1, target)
    with np.errstate(all="ignore"):
        for name in _NAMES:
            header[name] = old[name]
    header["size"], header["offset"] = _NIFTI_1.itemsize, NIFTI_HEADER_BYTES
    # Without voxels of a header that claims too many, which reading it refuses.
    bytes_left = 1 + math.prod(sizes) * int(old["bitpix"]) // 8 if math.prod(sizes) <= MAX_VOXELS else 0
    with nifti_content(data_file) as content, file.open("wb") as output:
        output.write(header.tobytes()[:-4] + _MAGIC_1 + bytes(4))
        content.seek(max(0, int(old["offset"])))
        while bytes_left > 0 and (block := content.read(min(bytes_left, _BLOCK_BYTES))):
            output.write(block)
            bytes_left -= len(block)
