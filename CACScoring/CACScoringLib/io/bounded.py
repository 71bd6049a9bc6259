"""Reading DICOM files whose headers cannot be trusted: no more is set aside than the file can hold."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.ct import CTError, UnreadableError
from ..core.text import printable

if TYPE_CHECKING:
    import pydicom

MOST_INFLATED_BYTES, MOST_INFLATED_TIMES = 2**26, 50
"""A deflated file may hold this much, or so many times its size where that is more; a small file of air alone may hold
hundreds of times its size."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BEFORE_META = 144
"""Bytes before the first element that the length of the file meta information counts (PS3.10 7.1)."""

_BLOCK_BYTES = 2**20


def read_bounded(path: Path, **how) -> pydicom.Dataset:
    """`pydicom.dcmread` of a file whose elements must lie within it. how: as `dcmread` takes it.

    Raises UnreadableError when an element claims to reach beyond the file's end, the file inflates to far more than
    images do, or is broken otherwise.
    """
    import pydicom  # takes 0.3 s, which images in other formats need not wait for

    with translate_dicom_errors(path.name):
        _check_inflated(path)
        with _BoundedFile(path) as file:
            data = pydicom.dcmread(file, **how)
        list(data.file_meta)  # raises for elements of unknown kinds, at which GDCM takes 700 MB of memory
        return data


@contextmanager
def translate_dicom_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong with the elements of a DICOM file, converted on access, into an UnreadableError.

    name: of the file, for the message. Other CTErrors pass.
    """
    try:
        yield
    except CTError:
        raise
    except Exception as error:  # broken elements raise whatever pydicom's parser and converters meet
        reason = printable(str(error))
        raise UnreadableError(f"{name} is a broken DICOM file ({reason}). Copy or export it again.") from error


class _BoundedFile(io.FileIO):
    """A file to read that raises UnreadableError when it is asked for what lies far behind its end.

    Parsers of DICOM ask for as much as an element claims to have, and some of them set all of it aside first.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE and self.tell() + size > self._bytes:
            raise self._claimed(self.tell() + size)
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = super().seek(offset, whence)
        if place > self._bytes:
            raise self._claimed(place)
        return place

    def _claimed(self, end: int) -> UnreadableError:
        return UnreadableError(
            f"{Path(self.name).name} is truncated, or other bytes were written into it: an element claims to reach to "
            f"byte {end:,}, and the file ends at {self._bytes:,}. Copy or export the series again."
        )


def _check_inflated(path: Path) -> None:
    """Raise UnreadableError where a deflated file would fill the memory."""
    with path.open("rb") as file:
        start = file.read(1024)
        if _DEFLATED not in start:
            return
        file.seek(_BEFORE_META + int.from_bytes(start[_BEFORE_META - 4 : _BEFORE_META], "little"))
        own = os.fstat(file.fileno()).st_size
        most = max(MOST_INFLATED_BYTES, MOST_INFLATED_TIMES * own)
        stream, length = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while length <= most and not stream.eof and (block := stream.unconsumed_tail or file.read(_BLOCK_BYTES)):
            length += len(stream.decompress(block, _BLOCK_BYTES))
    if length > most:
        raise UnreadableError(
            f"{path.name} has {own:,} bytes and inflates to more than {most:,}, as no image does. Export the series "
            "again, uncompressed."
        )
