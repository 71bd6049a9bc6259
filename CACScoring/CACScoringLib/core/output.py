"""A folder of results that is either whole or not there."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .files import LEFT_SECONDS, partial_folder, remove_partial

LAST_FILE = "scores.json"
"""Written last: where it is, the result beside it is whole."""

REVIEW_PORT = 8350
"""At which `cac review` serves the page of results, unless another is asked for."""

SCHEMA = "cac-score/1"
"""Of LAST_FILE."""

RESULT_FILES = (
    *(LAST_FILE, "report.html", "lesions.csv", "scene.mrb", "heart.nii.gz", "lesions.nii.gz", "calcium_map.nii.gz"),
    *("healthy.nii.gz", "map_lesions.nii.gz", "territories.nii.gz", "saliency_vessels.nii.gz", "cohort-scan.json"),
    *("segmentation.dcm", "measurements.dcm", "cardiovascular-report.dcm", "report.pdf.dcm", "calcium_map.dcm"),
    *("key_1.dcm", "key_2.dcm", "key_3.dcm", "key_4.dcm"),
    *("view_PA.nii.gz", "saliency_PA.nii.gz", "view_lateral.nii.gz", "saliency_lateral.nii.gz"),
)
"""What scoring may write into a folder; LAST_FILE first, so that what is half removed is not whole."""


class OutputError(Exception):
    """The results cannot be written where the user asked. The message says what to do."""


class OutputFolder:
    """Where a run's results go.

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
        if (self.path / LAST_FILE).exists():
            temporary.rename(_waiting(self.path))  # from here on the new result counts
            finish_replacing(self.path)
        else:
            remove_result(self.path)
            _move_files(temporary, self.path)

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
