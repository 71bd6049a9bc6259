"""Files of a scan below a folder or in an archive, and paths that ITK can open."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..core.errors import CTError, UnreadableError
from ..core.files import is_stream
from ..core.text import abbreviated_list, printable

MAX_UNPACKED_BYTES = 2**34
"""Largest content of an archive in bytes: 16 GB, several times a cardiac CT of all phases."""

_SYSTEM_FILE = re.compile(r"\._.*|__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Files and folders that macOS and Windows add."""

_PLACEHOLDER = re.compile(r"\.(?P<name>.+)\.icloud", re.IGNORECASE)
"""Name of the file that stands for one which only iCloud holds."""

_UNFINISHED = re.compile(r".+\.(crdownload|part|partial|download)", re.IGNORECASE)
"""Names of browsers for downloads that have not ended."""

_START_BYTES = 512
"""Bytes by which a file that stands for another is recognized."""

_WEB_PAGE, _WEB_PAGES = (
    re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head)\b", re.IGNORECASE),
    (".html", ".htm", ".xhtml"),
)
"""Beginning of a web page, and endings of files that ought to be one."""

_DRIVE_PART = re.compile(r"(?P<download>.*-\d{8}T\d{6}Z(-\d+)?-)(?P<number>\d{3})\.zip", re.IGNORECASE)
"""Names of the archives into which Google Drive splits a download."""

SPLIT = "Google Drive splits a download into several archives: unpack all of them into one folder, and give that."

_TAR_NAMES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")

_UNPACKING_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
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
        inner[:] = [name for name in inner if not _SYSTEM_FILE.fullmatch(name)]
        for path in (Path(place, name) for name in names if not _SYSTEM_FILE.fullmatch(name)):
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


def original_of(path: Path) -> Path:
    """Return the path of the file for which a placeholder of iCloud stands; of other files, their own."""
    placeholder = _PLACEHOLDER.fullmatch(path.name)
    return path.with_name(placeholder["name"]) if placeholder else path


def incompleteness(path: Path) -> str:
    """Return why a file does not hold what it should, if it was not fetched completely, and what to do; else empty."""
    if _PLACEHOLDER.fullmatch(path.name):
        return f"{path.name} stands for a file that only iCloud holds. Download its folder (Finder: Download Now)."
    if _UNFINISHED.fullmatch(path.name):
        return f"{path.name} is an unfinished download. Wait for its end, or download it again."
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if start.startswith(b"PK\3\4") and not zipfile.is_zipfile(path):
        return f"{path.name} is a ZIP archive without its end. Download or copy it again."
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return f"{path.name} is a pointer of Git LFS, not the file itself. Fetch it: git lfs pull."
    if _WEB_PAGE.match(start) and path.suffix.lower() not in _WEB_PAGES:
        return (
            f"{path.name} is a web page, such as a login or an error, in place of the file. Sign in, and download it "
            "again."
        )
    return ""


def archives_in(folder: Path) -> str:
    """Return a sentence that names the archives below a folder and says what to do; empty without any."""
    archives = [printable(path.name) for path in files_below(folder)[0] if is_archive(path)]
    if not archives:
        return ""
    return f" It holds archives ({abbreviated_list(archives)}): unpack them, those of one scan into one folder."


def is_split(archive: Path) -> bool:
    """True for one of several archives of a download from Google Drive, by its name and those beside it."""
    part = _DRIVE_PART.fullmatch(archive.name)
    return part is not None and (part["number"] > "001" or archive.with_name(f"{part['download']}002.zip").exists())


def check_is_file(path: Path) -> None:
    """Raise UnreadableError for a pipe or a device, whose content may never end, and for an impossible path."""
    try:
        has_no_end = is_stream(path)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be opened ({error.strerror}). Choose another place.") from error
    if has_no_end:
        raise UnreadableError(f"{path} is a pipe or a device. Give a file or a folder.")


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Provide a temporary folder with the content of a ZIP or TAR archive. Errors name the archive, not the folder.

    Raises:
        UnreadableError: It is encrypted, damaged or too large, or there is no room for it.
    """
    with TemporaryDirectory(prefix="cac-archive-") as folder:
        try:
            _unpack(archive, folder)
        except _UNPACKING_ERRORS as error:
            raise UnreadableError(f"{archive.name} cannot be unpacked ({error}). Unpack it yourself.") from error
        except OSError as error:
            raise UnreadableError(
                f"{archive.name} cannot be unpacked to {folder} ({error.strerror}). Make room there, or name another "
                "folder for temporary files (TMPDIR)."
            ) from error
        try:
            yield Path(folder)
        except CTError as error:
            hint = f" {SPLIT}" if is_split(archive) else ""
            raise type(error)(str(error).replace(folder, str(archive)) + hint) from error


@contextmanager
def real_files(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Provide the files of a scan, unpacked if they lie in an archive. Raises UnreadableError as `unpacked` does."""
    archive = next((path for path in files[0].parents if path.is_file()), None)
    if archive is None:
        yield list(files)
    else:
        with unpacked(archive) as folder:
            yield [folder / file.relative_to(archive) for file in files]


def is_archive(path: Path) -> bool:
    """True for a ZIP or TAR archive. Raises UnreadableError for a pipe or a device."""
    check_is_file(path)
    return zipfile.is_zipfile(path) or (path.name.lower().endswith(_TAR_NAMES) and path.is_file())


def _unpack(archive: Path, folder: str) -> None:
    if not zipfile.is_zipfile(archive):
        with tarfile.open(archive) as tar:
            size = 0
            for member in tar:  # not as one sum, which would first decompress all of a bomb
                size += member.size
                _check_size(archive, size)
            tar.extractall(folder, filter="data")
        return
    with zipfile.ZipFile(archive) as file:
        _check_size(archive, sum(entry.file_size for entry in file.infolist()))
        file.extractall(folder)


def _check_size(archive: Path, size: int) -> None:
    if size > MAX_UNPACKED_BYTES:
        raise UnreadableError(f"{archive.name} holds {size:,} bytes. Unpack it, and give one scan of it.")


@contextmanager
def path_for_itk(path: Path) -> Iterator[Path]:
    """Provide a path at which ITK opens this file.

    It is a temporary link if the path is not UTF-8, on which ITK aborts, or if X.nii lies beside X.nii.gz, from
    which ITK would read the voxels.
    """
    is_mistaken = path.name.lower().endswith(".nii.gz") and path.with_suffix("").exists()
    if _is_utf8(path) and not is_mistaken:
        yield path
        return
    with TemporaryDirectory(prefix="cac-link-") as folder:
        link = Path(folder, "folder")
        name = path.name
        # A file beside it, such as a header's voxels, is found through a link to the folder only.
        if _is_utf8(Path(name)) and not is_mistaken:
            link.symlink_to(path.parent.absolute(), target_is_directory=True)
        else:
            link = Path(folder)
            name = name.encode("utf-8", "replace").decode()
            try:
                Path(folder, name).symlink_to(path.absolute())
            except OSError:  # Windows allows links to few users
                shutil.copyfile(path, Path(folder, name))
        yield link / name


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
