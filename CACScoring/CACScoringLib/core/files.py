"""Atomic writes of files and folders, the folder of a result, and the places of CAC's own files."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

from .errors import OutputError
from .text import OUTPUT, REPLACE

LEFT_SECONDS = 3600.0
"""Age in seconds above which a partial file belongs to a killed program; files are written in seconds."""

_PARTIAL = ".*.partial-*"

LAST_FILE = "scores.json"
"""File that is written last, so a folder that holds it holds a complete result."""

FACTS_FILE = "facts.npz"
"""Facts of a scan that its scores follow from (`facts.store`)."""

REVIEWS = "reviews"
"""Subfolder of a result with the journals of its readings."""

REVIEW_PORT = 8350
"""Default port of the page that `cac review` serves."""

SCHEMA = "cac-score/1"
"""Schema of LAST_FILE."""

RESULT_FILES = (
    *(LAST_FILE, "report.html", "lesions.csv", "features.csv", "scene.mrb", "heart.nii.gz", "lesions.nii.gz"),
    *("calcium_map.nii.gz", "healthy.nii.gz", "map_lesions.nii.gz", "territories.nii.gz", "pericardium.nii.gz"),
    *("saliency_vessels.nii.gz", "cohort-scan.json", "segmentation.dcm", "measurements.dcm"),
    FACTS_FILE,
    *("view_PA.nii.gz", "evidence_PA.nii.gz", "view_lateral.nii.gz", "evidence_lateral.nii.gz"),
)
"""Files that scoring may write, in order of removal: LAST_FILE first marks a partly removed result as incomplete."""


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Provide a hidden folder beside `path` for incomplete files; it is removed at the end. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """Provide a temporary path that replaces `path` at the end if no error occurred. Raises OSError.

    The temporary path has the same name, because some writers choose the format by it. It may become a folder if `path`
    does not exist.

    Args:
        path: Destination.
        durable: Flush the file to the disk before it replaces `path`.
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
def atomic_folder(path: Path) -> Iterator[Path]:
    """Provide a folder that becomes `path` at the end if no error occurred. Raises OSError."""
    with atomic_write(path) as half:
        half.mkdir()
        yield half


def write_once(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read, unless it exists; never half of it. Raises OSError."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(path) as folder:
        new = folder / path.name
        new.touch(0o600)
        new.write_bytes(content)
        try:
            os.link(new, path)
        except FileExistsError:  # another process was first
            pass
        except OSError:  # a disk without hard links
            new.rename(path)


def write_bytes_atomically(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file as `atomic_write` does. Raises OSError."""
    with atomic_write(path, durable) as half:
        half.write_bytes(content)


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text as `atomic_write` does. Lone surrogates become escapes. Raises OSError."""
    write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))


def remove_partial(folder: Path, seconds_old: float = 0.0, name: str = "*") -> None:
    """Remove the partial files of killed processes from a folder.

    Args:
        folder: Folder to clean.
        seconds_old: Smallest age of the files to remove.
        name: Glob pattern of the names that were being written.
    """
    for path in folder.glob(_PARTIAL.replace("*", name, 1)):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= seconds_old:
                shutil.rmtree(path, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, if the system can (Windows cannot)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class OutputFolder:
    """Output folder of a run.

    Files are written to a hidden folder beside the target and moved in at the end, where they replace all files of an
    earlier result; if a run is killed while moving, the next run to the same target completes the move.

    Raises:
        OutputError: The target holds an earlier result and `overwrite` is False; raised before any scoring.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        self.path = path
        self.overwrite = overwrite
        self._check()

    @contextmanager
    def being_written(self) -> Iterator[Path]:
        """Provide a temporary folder; on leaving without an error, move its files to the target.

        Partial files of killed runs beside the same target are removed. An OSError becomes an OutputError.
        """
        self._check()
        self._remove_left()
        with ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                temporary = stack.enter_context(partial_folder(self.path))
            except OSError as error:
                message = f"Cannot write beside {self.path}: {error.strerror}. Choose {OUTPUT}."
                raise OutputError(message) from error
            try:
                yield temporary
                self._move_in(temporary)
            except OSError as error:
                raise self._failed(error) from error

    def _check(self) -> None:
        try:
            finish_replacing(self.path)
        except OSError as error:
            raise self._failed(error) from error
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file. Choose a folder.")
        check_unread(self.path)
        if not self.overwrite and self.path.is_dir() and any(self.path.iterdir()):
            raise OutputError(f"{self.path} is not empty. Choose {OUTPUT}{REPLACE}.")

    def _remove_left(self) -> None:
        remove_partial(self.path.parent, LEFT_SECONDS, glob.escape(self.path.name))

    def _move_in(self, temporary: Path) -> None:
        self.path.mkdir(exist_ok=True)
        if self.overwrite and (self.path / LAST_FILE).exists():
            temporary.rename(_waiting(self.path))  # from here on the new result counts
            finish_replacing(self.path)
        else:
            with nullcontext() if self.overwrite else self._claimed():
                remove_result(self.path)
                _move_files(temporary, self.path)

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Reserve the empty target. Raises OutputError if another run has written to it since the start."""
        claim = self.path / ".writing"
        message = (
            f"Another run has written to {self.path} in the meantime. Its results are kept, those of this run are not. "
            f"Run it again with {OUTPUT}."
        )
        try:
            claim.mkdir()
        except FileExistsError as error:
            raise OutputError(message) from error
        try:
            if any(path != claim for path in self.path.iterdir()):
                raise OutputError(message)
            yield
        finally:
            claim.rmdir()

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(
            f"The results cannot be written to {self.path}: {error.strerror or error}. Make room there or check the "
            f"permissions, and run it again, or choose {OUTPUT}."
        )


def finish_replacing(folder: Path) -> None:
    """Move in a complete result that waits beside a folder to replace the earlier one. Raises OSError.

    Two folders cannot be exchanged atomically. The new result waits under a hidden name until the earlier one is
    removed, and is then renamed, so a partly filled folder is never mistaken for an earlier result.
    """
    waiting, entering = _waiting(folder), _entering(folder)
    if waiting.is_dir():
        remove_result(folder)
        waiting.rename(entering)
    if entering.is_dir():
        folder.mkdir(exist_ok=True)
        _move_files(entering, folder)
        entering.rmdir()


def _waiting(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.new"


def _entering(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.entering"


def _move_files(source: Path, target: Path) -> None:
    for file in sorted(source.iterdir(), key=lambda f: f.name == LAST_FILE):
        file.replace(target / file.name)


def check_unread(folder: Path) -> None:
    """Raise OutputError if a result has readings, which a new result would make void."""
    if any((folder / REVIEWS).glob("*.jsonl")):
        raise OutputError(
            f"{folder} has been read: the journals in {folder / REVIEWS} belong to its result, which stays. Choose "
            f"{OUTPUT}, or move {REVIEWS} away first; journals are valid again beside a result with the same content."
        )


def remove_result(folder: Path) -> None:
    """Remove the files that scoring wrote into a folder; other files stay."""
    for name in RESULT_FILES:
        (folder / name).unlink(missing_ok=True)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is none, is nested too deep, or has a key twice in an object.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r} twice")
    return content


def is_stream(path: Path) -> bool:
    """True for a pipe or a device, whose content may never come or never end."""
    return path.exists() and not (path.is_file() or path.is_dir())


def open_file(path: Path) -> BinaryIO:
    """Open a file that a user names, to read. Raises OSError, also for a pipe or a device."""
    if is_stream(path):
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))
    return path.open("rb")


def read_file(path: Path) -> bytes:
    """Return the content of a file as `open_file` opens it. Raises OSError."""
    with open_file(path) as file:
        return file.read()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content. Raises OSError."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path) -> Any:
    """Return the value of a JSON file in UTF-8.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, or nested too deep.
    """
    return parse_json(read_file(path).decode("utf-8-sig"))


def read_document(path: Path, schema: str) -> dict[str, Any]:
    """Return the object of a JSON file without the name of its schema.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON object of this schema.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("schema", None) != schema:
        raise ValueError(f"it is not of schema {schema}")
    return content


def resource_folder(name: str) -> Path:
    """Return the folder of files of one kind ("Models", "Pages") that come with the library."""
    return Path(__file__).resolve().parents[1] / "Resources" / name


@cache
def resource_rows(name: str, module: str = __name__) -> list[dict[str, str]]:
    """Return the rows of a table, such as "columns.csv", among the resources of a module's library."""
    table = resources.files(module.partition(".")[0]) / "Resources" / name
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines(keepends=True)))


@cache
def resource_blocks(folder: str, module: str = __name__) -> dict[str, dict[str, str]]:
    """Return the blocks, by name, of the INI files of a folder among the resources of a module's library.

    Lines of a value are joined by blanks.

    Raises:
        configparser.Error: A file is no INI file, or two blocks or two keys of a block have one name.
    """
    place = resources.files(module.partition(".")[0]) / "Resources" / folder
    files = sorted(place.iterdir(), key=lambda file: file.name)
    parser = ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None)
    parser.read_string("\n".join(file.read_text(encoding="utf-8") for file in files))
    return {name: {key: " ".join(text.split()) for key, text in parser[name].items()} for name in parser.sections()}


def user_data_folder() -> Path:
    """Return the folder where the system expects CAC's data of a user."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "CAC"
    return _user_folder("XDG_DATA_HOME", ".local/share")


def user_cache_folder() -> Path:
    """Return the folder where the system expects what CAC can make again for a user."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "CAC"
    return _user_folder("XDG_CACHE_HOME", ".cache")


def _user_folder(variable: str, usual: str) -> Path:
    is_windows = sys.platform == "win32"
    base = os.environ.get("LOCALAPPDATA" if is_windows else variable, "")
    if not Path(base).is_absolute():  # unset, or to be ignored (XDG Base Directory Specification)
        return Path.home() / ("AppData/Local" if is_windows else usual) / "CAC"
    return Path(base) / "CAC"
