"""Files of a scan below a folder or in an archive, and paths that ITK can open."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..core.ct import UnreadableError

MOST_UNPACKED_BYTES = 2**34
"""Largest content of an archive in bytes: 16 GB, several times a cardiac CT of all phases."""

_UNPACKING_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""Errors of damaged archives, of unknown compression, and of passwords (RuntimeError)."""


def files_below(folder: Path) -> tuple[list[Path], dict[Path, UnreadableError]]:
    """List all files below a folder. Links are followed, and each folder is searched once.

    Returns:
        The files, by path, and the folders and files that cannot be opened, each with its error.

    Raises:
        UnreadableError: The folder itself cannot be opened.
    """
    files: list[Path] = []
    unreadable: dict[Path, UnreadableError] = {}
    searched: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        path = Path(error.filename)
        unreadable[path] = UnreadableError(f"{path} cannot be opened ({error.strerror}). Check its permissions.")

    for place, inner, names in os.walk(folder, followlinks=True, onerror=refuse):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in searched:
            inner.clear()
            continue
        searched.add((status.st_dev, status.st_ino))
        for path in (Path(place, name) for name in names):
            try:
                path.stat()
            except FileNotFoundError:
                unreadable[path] = UnreadableError(f"{path} is a link to a file that does not exist. Copy that too.")
            except OSError as error:
                refuse(error)
            else:
                files.append(path)
    if folder in unreadable:
        raise unreadable[folder]
    return sorted(file for file in files if file.is_file()), unreadable


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Provide a temporary folder with the content of a ZIP archive.

    Raises:
        UnreadableError: It is encrypted, damaged or too large, or there is no room for it.
    """
    with TemporaryDirectory(prefix="cac-archive-") as folder:
        try:
            with zipfile.ZipFile(archive) as file:
                size = sum(entry.file_size for entry in file.infolist())
                if size > MOST_UNPACKED_BYTES:
                    raise UnreadableError(f"{archive.name} holds {size:,} bytes. Unpack it, and give one scan of it.")
                file.extractall(folder)
        except _UNPACKING_ERRORS as error:
            raise UnreadableError(f"{archive.name} cannot be unpacked ({error}). Unpack it yourself.") from error
        except OSError as error:
            raise UnreadableError(
                f"{archive.name} cannot be unpacked to {folder} ({error.strerror}). Make room there, or name another "
                "folder for temporary files (TMPDIR)."
            ) from error
        yield Path(folder)


@contextmanager
def path_for_itk(path: Path) -> Iterator[Path]:
    """Provide a path that ITK can open: a temporary link if the path is not UTF-8, on which ITK aborts."""
    if _is_utf8(path):
        yield path
        return
    with TemporaryDirectory(prefix="cac-link-") as folder:
        link = Path(folder, "folder")
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        name = path.name
        if not _is_utf8(Path(name)):  # a file beside it, such as a header's voxels, is not found then
            link = Path(folder)
            name = name.encode("utf-8", "replace").decode()
            Path(folder, name).symlink_to(path.absolute())
        yield link / name


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
