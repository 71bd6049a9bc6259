"""Headers of NRRD and MetaImage files, read before ITK sees them.

ITK's readers copy both into arrays of a fixed size, so that a number of axes or a long field can end the process.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from ..core.errors import UnreadableError
from ..core.files import open_file
from ..core.text import printable

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
