"""Files and folders that are either whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFT_SECONDS = 3600.0
"""Files are written in seconds: what is half written and so old was left by a program that was killed."""

_PARTIAL = ".*.partial-*"


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder beside `path` for what is not whole yet; it is removed at the end. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole(path: Path, durable: bool = False) -> Iterator[Path]:
    """Give a place to write a file to, which takes the place of `path` at the end when no error came.

    The given place has the same name, for some writers choose the format by it. A folder may be made there as well,
    where `path` is none yet. durable: see the file onto the disk first. Raises OSError.
    """
    with partial_folder(path) as folder:
        half = folder / path.name
        yield half
        if durable:
            with half.open("rb+") as file:
                os.fsync(file.fileno())
        half.replace(path)
    if durable:
        sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes `path` at the end when no error came. Raises OSError."""
    with whole(path) as half:
        half.mkdir()
        yield half


def write_bytes_atomically(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file as `whole` does. Raises OSError."""
    with whole(path, durable) as half:
        half.write_bytes(content)


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text as `whole` does. Characters that are none become escapes. Raises OSError."""
    write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))


def remove_partial(folder: Path, seconds_old: float = 0.0, name: str = "*") -> None:
    """Remove from a folder what processes that were killed have left half written; seconds_old: at least so old. name:
    of what was written."""
    for path in folder.glob(_PARTIAL.replace("*", name, 1)):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= seconds_old:
                shutil.rmtree(path, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make sure that names in a folder are on the disk, where the system can (Windows cannot)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
