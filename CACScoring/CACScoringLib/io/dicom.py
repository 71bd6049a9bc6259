"""Reading of DICOM files, whose headers cannot be trusted.

No more memory is allocated for a file than it can hold. A file may lack its preamble, or be compressed by gzip.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..core.errors import CTError, NotCTError, NotVolumeError, UnreadableError
from ..core.files import open_file, resource_rows
from ..core.header_ranges import RANGES, are_in_range
from ..core.text import abbreviated_list, printable
from .files import archives_in, files_below, incompleteness, original_of

if TYPE_CHECKING:
    import pydicom

_ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # Enhanced, Legacy Converted Enhanced
_DICOMDIR = "1.2.840.10008.1.3.10"
_MAGIC = slice(128, 132)
_GZIP_MAGIC = b"\x1f\x8b"
_FIRST_GROUPS, _LAST_FIRST_ELEMENT, _LONGEST_FIRST_VALUE = (2, 8), 0x18, 256
"""Group, highest element number and longest value of the first element in a file without preamble."""

_TEXT_KINDS = ("UT", "LT", "ST", "LO", "SH", "UC")
"""Kinds of text that some writers state for numbers."""

_FILE_NAMES = (".dcm", ".dicom", ".ima", ".dcm.gz")
"""Endings of names that claim DICOM."""

TAGS = [row["keyword"] for row in resource_rows("dicom_elements.csv") if row["part"] == "read"]
"""Keywords of the elements that are read of each slice."""

MAX_INFLATED_BYTES, MAX_INFLATED_TIMES = 2**26, 50
"""Largest content of a deflated file: bytes, or multiple of its size if that is more. A small file of air may inflate
hundreds of times."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_START = 144
"""Offset in bytes from which the length of the file meta information counts (PS3.10 7.1)."""

_BLOCK_BYTES = 2**12
"""Bytes of a compressed file read at once; they inflate to 4 MB at most."""


def value_of(elements: pydicom.Dataset, keyword: str) -> Any:
    """Return an element's value; None if it is missing, empty or broken."""
    try:
        value = elements.get(keyword)
    except Exception:  # pydicom converts on access, and broken bytes raise whatever its converters meet
        return None
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


@dataclass(frozen=True)
class DicomSlice:
    """Image of a DICOM file with the header elements that reading a CT needs.

    Attributes:
        path: The file.
        header: Elements named in TAGS; for a frame also those of its functional groups.
        frame: Number of the frame in a multi-frame file, from 1.
        pixels: Stored pixels of the frame, compressed as in the file.
    """

    path: Path
    header: pydicom.Dataset
    frame: int | None = None
    pixels: bytes | None = None

    @property
    def name(self) -> str:
        """Name of the image in messages."""
        return self.path.name if self.frame is None else f"{self.path.name} frame {self.frame}"

    def value(self, keyword: str) -> Any:
        return value_of(self.header, keyword)

    def text(self, keyword: str) -> str | None:
        import pydicom

        value = self.value(keyword)
        parts = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        return printable(" ".join(str(part) for part in parts if part is not None)) or None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Return the numbers of an element; None if they are missing, broken, or out of the element's range."""
        value = self.value(keyword)
        try:
            numbers = tuple(float(part) for part in (value if count > 1 else [value]))
        except (TypeError, ValueError, OverflowError):
            return None
        return numbers if len(numbers) == count and are_in_range(keyword, numbers) else None

    def number(self, keyword: str) -> float | None:
        numbers = self.numbers(keyword, 1)
        return numbers[0] if numbers else None

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in (self.text("ImageType") or "").upper().split()

    @property
    def is_multi_frame(self) -> bool:
        is_many = self.text("SOPClassUID") in _ENHANCED_CT or (self.number("NumberOfFrames") or 1) > 1
        return self.frame is None and is_many


def is_dicom(path: Path) -> bool:
    """True if a file begins with a preamble (PS3.10: 128 bytes, then DICM), or with elements of an image.

    Raises UnreadableError.
    """
    try:
        with open_file(path) as file:
            start = file.read(_MAGIC.stop)
        if _is_packed(path, start):
            with gzip.open(path) as content:
                start = content.read(_MAGIC.stop)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableError(f"{path.name} is damaged ({error}). Copy or export it again.") from error
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be opened ({error.strerror}). Check its permissions.") from error
    return start[_MAGIC] == b"DICM" or _begins_with_elements(start)


def _is_packed(path: Path, start: bytes) -> bool:
    """True for a gzip file that is not a compressed image file."""
    return start.startswith(_GZIP_MAGIC) and path.name.lower().endswith(".gz") and not _IMAGE.search(path.name)


_IMAGE = re.compile(r"\.(nii|nrrd|mha|raw)\.gz$", re.IGNORECASE)


def _begins_with_elements(start: bytes) -> bool:
    """True if a file's first bytes are an element of the file meta information or the SOP common module."""
    group, element, length = (int.from_bytes(start[at : at + size], "little") for at, size in ((0, 2), (2, 2), (4, 4)))
    if len(start) < _MAGIC.stop or group not in _FIRST_GROUPS or element > _LAST_FIRST_ELEMENT:
        return False
    return start[4:6] in (b"UL", b"OB", b"UI", b"CS", b"DA", b"TM", b"LO") or 0 < length <= _LONGEST_FIRST_VALUE


def read_slices(folder: Path) -> tuple[list[DicomSlice], dict[Path, UnreadableError]]:
    """Read the headers of all DICOM files below a folder.

    Returns:
        As `find_slices`; there is at least one slice.

    Raises:
        UnreadableError: There is none that can be read.
    """
    slices, broken = find_slices(folder)
    if not slices:
        raise no_slices(folder, broken)
    return slices, broken


def no_slices(folder: Path, broken: Mapping[Path, UnreadableError]) -> UnreadableError:
    """Return the error of a folder without a DICOM file that can be read. broken: Errors of its files."""
    reason = f"{len(broken)} files or folders there cannot be read" if broken else "no file there is one"
    first = f" {next(iter(broken.values()))}" if broken else ""
    advice = archives_in(folder) or " Give the folder of a CT series or an image."
    return UnreadableError(f"{folder} holds no readable DICOM file ({reason}).{first}{advice}")


def find_slices(folder: Path) -> tuple[list[DicomSlice], dict[Path, UnreadableError]]:
    """Find the DICOM files below a folder, links to folders included, and read their headers.

    Returns:
        The files with a modality, by path, and the errors of files and folders that are broken or incomplete, cannot be
        opened, or have the name of a DICOM file or slice without being one.

    Raises:
        UnreadableError: The folder cannot be opened.
    """
    paths, broken = files_below(folder)
    slices: list[DicomSlice] = []
    other_files = []
    for path in paths:
        try:
            slice_ = read_slice(path)
        except UnreadableError as error:
            broken[path] = error
            continue
        if slice_ is not None:
            slices.append(slice_)
        else:
            other_files.append(path)
    names = {name_pattern(slice_.path) for slice_ in slices}
    for path in other_files:
        if reason := incompleteness(path):
            broken[path] = UnreadableError(reason)
        elif path.name.lower().endswith(_FILE_NAMES) or name_pattern(path) in names:
            broken[path] = UnreadableError(f"{path.name} does not begin as a DICOM file. Copy or export it again.")
    return slices, broken


def name_pattern(path: Path) -> str:
    """Return a path with its numbers replaced, equal for the slices of a series and for placeholders of them."""
    return re.sub(r"\d+", "0", str(original_of(path)))


def read_multi_frame(path: Path) -> DicomSlice:
    """Read the header of a multi-frame CT.

    Raises:
        UnreadableError: The file is broken.
        NotCTError: The modality is not CT.
        NotVolumeError: It is one slice of a series.
    """
    image = read_slice(path)
    if image is not None and image.text("Modality") != "CT":
        raise NotCTError(f"{path.name} is of modality {image.text('Modality')}; a CT is needed.")
    if image is None or not image.is_multi_frame:
        raise NotVolumeError(f"{path.name} is one file of a DICOM series. Give the folder that holds all its slices.")
    return image


def read_slice(path: Path) -> DicomSlice | None:
    """Read the header of a DICOM file; None for other files and a DICOMDIR. Raises UnreadableError."""
    if not is_dicom(path):
        return None
    header = read_bounded(path, stop_before_pixels=True, specific_tags=TAGS)
    if value_of(header.file_meta, "MediaStorageSOPClassUID") == _DICOMDIR:
        return None
    _mend_numbers(header)
    slice_ = DicomSlice(path, header)
    if slice_.text("Modality") is None:
        raise UnreadableError(f"{path.name} is a DICOM file without a modality.")
    return slice_


def _mend_numbers(header: pydicom.Dataset) -> None:
    """Mend numbers that are not converted yet: written as text of another kind, or with decimal commas (PS3.5 6.2)."""
    import pydicom

    for tag in list(header.keys()):
        element = header.get_item(tag)
        if not isinstance(element, pydicom.dataelem.RawDataElement) or tag.is_private or tag.element == 0:
            continue
        kind = pydicom.datadict.dictionary_VR(tag)
        if kind in ("DS", "IS") and element.VR in _TEXT_KINDS:
            header[tag] = element = element._replace(VR=kind)
        if b"," in (element.value or b"") and (element.VR or kind) == "DS":
            header[tag] = element._replace(value=element.value.replace(b",", b"."))


def read_bounded(path: Path, **options: Any) -> pydicom.Dataset:
    """Read a DICOM file whose elements must lie within it.

    Args:
        path: The file.
        **options: Options of `pydicom.dcmread`, or of `read_partial` if `stop_when` is among them.

    Raises:
        UnreadableError: An element claims to reach beyond the file's end, the file inflates to far more than images
            do, or it is broken otherwise.
    """
    import pydicom  # takes 0.3 s, which images in other formats need not wait for

    with translate_dicom_errors(path.name), open_dicom(path) as file:
        start = file.read(_MAGIC.stop)
        file.seek(0)
        is_bare = start[_MAGIC] != b"DICM" and _begins_with_elements(start)
        read = pydicom.filereader.read_partial if "stop_when" in options else pydicom.dcmread
        data = read(file, force=is_bare, **options)
        list(data.file_meta)  # raises for elements of unknown kinds, at which GDCM takes 700 MB of memory
        return data


def open_dicom(path: Path) -> BinaryIO:
    """Open a DICOM file, decompressed by gzip if needed. Raises UnreadableError if that would fill the memory."""
    with open_file(path) as file:
        is_packed = _is_packed(path, file.read(len(_GZIP_MAGIC)))
        file.seek(0)
        if not is_packed:
            _check_inflated(file, path)
            return _BoundedFile(path)
        content = io.BytesIO(b"".join(_inflate(file, zlib.MAX_WBITS + 16, path)))
    _check_inflated(content, path)
    content.seek(0)
    return content


@contextmanager
def translate_dicom_errors(name: str) -> Iterator[None]:
    """Turn errors of DICOM elements, which are converted on access, into an UnreadableError; CTErrors pass.

    Args:
        name: Name of the file for the message.
    """
    try:
        yield
    except CTError:
        raise
    except Exception as error:  # broken elements raise whatever pydicom's parser and converters meet
        reason = printable(str(error))
        raise UnreadableError(f"{name} is a broken DICOM file ({reason}). Copy or export it again.") from error


class _BoundedFile(io.FileIO):
    """File that raises UnreadableError when a read or seek goes far beyond its end.

    DICOM parsers request as many bytes as an element claims, and some allocate them first.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))  # pydicom adds the name to messages
        self._bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE and self.tell() + size > self._bytes:
            raise self._truncation_error(self.tell() + size)
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = super().seek(offset, whence)
        if place > self._bytes:
            raise self._truncation_error(place)
        return place

    def _truncation_error(self, end: int) -> UnreadableError:
        return UnreadableError(
            f"{Path(self.name).name} is truncated, or other bytes were written into it: an element claims to reach to "
            f"byte {end:,}, and the file ends at {self._bytes:,}. Copy or export the series again."
        )


def _check_inflated(file: BinaryIO, path: Path) -> None:
    """Raise UnreadableError if a deflated file would fill the memory."""
    start = file.read(1024)
    if _DEFLATED in start:
        file.seek(_META_START + int.from_bytes(start[_META_START - 4 : _META_START], "little"))
        for _ in _inflate(file, -zlib.MAX_WBITS, path):
            pass


def _inflate(file: BinaryIO, kind: int, path: Path) -> Iterator[bytes]:
    """Decompress the remaining bytes of a file, block by block. kind: Window bits of zlib."""
    size = path.stat().st_size
    limit = max(MAX_INFLATED_BYTES, MAX_INFLATED_TIMES * size)
    stream, length = zlib.decompressobj(kind), 0
    while not stream.eof and (block := file.read(_BLOCK_BYTES)):
        content = stream.decompress(block)
        length += len(content)
        if length > limit:
            raise UnreadableError(
                f"{path.name} has {size:,} bytes and inflates to more than {limit:,}, as no image does. Export the "
                "series again, uncompressed."
            )
        yield content
    if not stream.eof:
        raise EOFError("its compressed data end early")


def check_numbers(slices: list[DicomSlice], needed: dict[str, tuple[int, str]], error: type[CTError]) -> None:
    """Raise an error if slices lack numbers. needed: Count and name of the numbers, by keyword."""
    for keyword, (count, name) in needed.items():
        incomplete = [s for s in slices if s.numbers(keyword, count) is None]
        if not incomplete:
            continue
        stated = next((text for text in (s.text(keyword) for s in incomplete) if text), None)
        reason = f" ({RANGES[keyword]}; stated: {stated})" if stated and keyword in RANGES else ""
        raise error(
            f"{len(incomplete)} of {len(slices)} slices have no {name}{reason}: "
            f"{abbreviated_list(s.name for s in incomplete)}. Export the series again from the scanner or archive."
        )


def first_value(slices: Sequence[DicomSlice], get: Callable[..., Any], keyword: str) -> Any:
    """Return the first value in the order of the slices; None if no slice has one."""
    return next((value for value in (get(s, keyword) for s in slices) if value is not None), None)
