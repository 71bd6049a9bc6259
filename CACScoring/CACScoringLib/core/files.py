"""Files and folders that are either complete or not there, a folder of results among them; and where CAC's own are."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

LEFT_SECONDS = 3600.0
"""Files are written in seconds: what is half written and so old was left by a program that was killed."""

_PARTIAL = ".*.partial-*"

LAST_FILE = "scores.json"
"""Written last: where it is, the result beside it is complete."""

REVIEW_PORT = 8350
"""Port of the page of results that `cac review` serves, unless another is asked for."""

SCHEMA = "cac-score/1"
"""Schema of LAST_FILE."""

RESULT_FILES = (
    *(LAST_FILE, "report.html", "lesions.csv", "scene.mrb", "heart.nii.gz", "lesions.nii.gz", "calcium_map.nii.gz"),
    *("healthy.nii.gz", "map_lesions.nii.gz", "territories.nii.gz", "saliency_vessels.nii.gz", "cohort-scan.json"),
    *("segmentation.dcm", "measurements.dcm", "cardiovascular-report.dcm", "report.pdf.dcm", "calcium_map.dcm"),
    *("key_1.dcm", "key_2.dcm", "key_3.dcm", "key_4.dcm"),
    *("view_PA.nii.gz", "saliency_PA.nii.gz", "view_lateral.nii.gz", "saliency_lateral.nii.gz"),
)
"""What scoring may write into a folder; LAST_FILE first, so that what is half removed is not whole."""


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder beside `path` for what is not whole yet; it is removed at the end. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
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
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes `path` at the end when no error came. Raises OSError."""
    with atomic_write(path) as half:
        half.mkdir()
        yield half


def write_bytes_atomically(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file as `atomic_write` does. Raises OSError."""
    with atomic_write(path, durable) as half:
        half.write_bytes(content)


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text as `atomic_write` does. Characters that are none become escapes. Raises OSError."""
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


class OutputError(Exception):
    """The results cannot be written where the user asked. The message says what to do."""


class OutputFolder:
    """Output folder of a run.

    Files are made in a hidden folder beside the target and moved in at the end, in place of all files of an earlier
    result; of a run that was killed while it did so, the next run to the same target moves in what is left. Raises
    OutputError at once when the target holds an earlier result and overwrite is False, so that nobody waits for a run
    that cannot be kept.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        self.path = path
        self.overwrite = overwrite
        self._check()

    @contextmanager
    def being_written(self) -> Iterator[Path]:
        """Give a temporary folder; on leaving without an error, move its files to the target.

        What killed runs have left beside the same target is removed. An OSError on the way becomes an OutputError.
        """
        self._check()
        self._remove_left()
        with ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                temporary = stack.enter_context(partial_folder(self.path))
            except OSError as error:
                message = f"Cannot write beside {self.path}: {error.strerror}. Choose another --output."
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
            raise OutputError(f"{self.path} is a file. Choose a folder with --output.")
        if not self.overwrite and self.path.is_dir() and any(self.path.iterdir()):
            raise OutputError(
                f"{self.path} is not empty. Choose another --output, or replace results with --overwrite."
            )

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
        """Hold the empty target against other runs. Raises OutputError if one has written to it since the start."""
        claim = self.path / ".writing"
        message = (
            f"Another run has written to {self.path} in the meantime. Its results are kept, those of this run are not. "
            "Run it again with another --output."
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
            "permissions, and run it again, or choose another --output."
        )


def finish_replacing(folder: Path) -> None:
    """Move in a result that waits beside a folder for the earlier one's place, as after a kill. Raises OSError.

    Two files cannot be exchanged at once. Therefore the new result first waits, whole, under a hidden name; it has
    another one from when the earlier result is removed, and so a folder that is half filled is never taken for that.
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


def remove_result(folder: Path) -> None:
    """Remove what scoring wrote into a folder; what else lies there stays."""
    for name in RESULT_FILES:
        (folder / name).unlink(missing_ok=True)


def resource_folder(name: str) -> Path:
    """Folder of the files of one kind ("Models", "Atlas") that come with the library."""
    return Path(__file__).resolve().parents[1] / "Resources" / name


def user_data_folder() -> Path:
    """The system's place for what CAC keeps for a user."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return base / "CAC"
