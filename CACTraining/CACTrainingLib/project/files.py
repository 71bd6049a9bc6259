"""The files of a project on disk: written whole or not at all, and read back exactly as they were written.

A project is `project.json`, which says what the folder is, and `scans.csv`, a row per scan. Before `scans.csv` is
replaced, what it held is kept as `scans.csv.bak`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import atomic_folder, remove_partial, sync_folder, write_bytes_atomically
from CACScoringLib.core.tables import TableError, read_cells, table_text

SCHEMA = "cac-project/1"
PROJECT_FILE, SCANS_FILE, BACKUP_FILE = "project.json", "scans.csv", "scans.csv.bak"
LOCK_SECONDS = 20
"""How long to wait for another program that changes the project. Each change takes a fraction of a second."""

_LEFT_SECONDS = 24 * 3600

README = Path(__file__).parents[1] / "Resources" / "project.txt"
"""Explains the folder; copied into it as README.txt."""


@dataclass
class ScanRow:
    """A row of `scans.csv`, as it is written there; empty for what is not known."""

    id: str
    name: str
    patient: str
    ct: str
    series: str
    sha256: str
    source: str
    use: str
    truth: str


COLUMNS = tuple(field.name for field in fields(ScanRow))


class ProjectError(CTError):
    """The project cannot be used as it is, or not in this way. The message says why and what to do."""


class ProjectWriteError(ProjectError):
    """The disk did not take what was to be saved. What was saved before is still there."""


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and see it onto the disk. Raises ProjectWriteError."""
    try:
        write_bytes_atomically(path, data, durable=True)
    except OSError as error:
        raise not_written(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what programs that were killed long ago have left half written in a folder."""
    remove_partial(folder, _LEFT_SECONDS)


def not_written(path: Path, error: OSError) -> ProjectWriteError:
    """The error of a file that could not be written."""
    return ProjectWriteError(
        f"{path} could not be written: {error.strerror or error}. Nothing that was saved before is lost. Free some "
        "space or check the permissions of the folder, then do it again."
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one program changes the project at a time. Raises ProjectWriteError when another does not end.

    The system gives the lock back when a program ends, however it ends.
    """
    file = folder / ".lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise not_written(file, error) from error
    try:
        end = time.monotonic() + LOCK_SECONDS
        while not _got(descriptor, file):
            if time.monotonic() > end:
                raise ProjectWriteError(
                    f"Another program has been changing {folder} for {LOCK_SECONDS} seconds. Wait until it has ended, "
                    "or close it, and do it again."
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _got(descriptor: int, file: Path) -> bool:
    """True if the lock could be had at once. Raises ProjectWriteError where the disk knows no locks."""
    # Not the package filelock: 3D Slicer has it only with training's packages, and annotators need none of them.
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise not_written(file, error) from error
    return True


def now() -> str:
    """The time as text, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def stamp() -> str:
    """The time as part of a file's name."""
    return datetime.now().strftime("%Y%m%d-%H%M%S-%f")


def move(source: Path, target: Path) -> None:
    """Rename a folder. Raises ProjectWriteError."""
    try:
        source.rename(target)
    except OSError as error:
        raise not_written(target, error) from error
    sync_folder(target.parent)


def write_new_project(folder: Path, name: str) -> None:
    """Make a project's folder, which must not exist yet or be empty. Raises ProjectError."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ProjectError(f"{folder} is not empty. Choose another folder for the new project.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as half:
            for part in ("scans", "models", "studies"):
                (half / part).mkdir()
            shutil.copyfile(README, half / "README.txt")
            write_table(half / SCANS_FILE, [])
            about = {"schema": SCHEMA, "name": name, "created": now()}
            write_durably(half / PROJECT_FILE, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
            if folder.exists():
                folder.rmdir()  # Windows renames to no folder that is there, even an empty one
    except OSError as error:
        raise not_written(folder, error) from error


def read_name(folder: Path) -> str:
    """A project's name, from project.json. Raises ProjectError."""
    file = folder / PROJECT_FILE
    if not file.is_file():
        raise ProjectError(
            f"{folder} is not a project: it has no {PROJECT_FILE}. Choose the folder of a project, or make a new one."
        )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        name, schema = about["name"], about["schema"]
        if schema != SCHEMA or not isinstance(name, str):
            raise ValueError(f"its schema is {schema!r}, and this version of CAC reads {SCHEMA}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        line = json.dumps({"schema": SCHEMA, "name": folder.name})
        raise ProjectError(
            f"{file} cannot be used ({type(error).__name__}: {error}). The scans and the annotations are untouched. "
            f"Update CAC, or replace the file with a copy from a backup or this one line: {line}"
        ) from error
    return name


def write_table(file: Path, rows: Sequence[ScanRow]) -> None:
    """Replace a table. Raises ProjectWriteError."""
    # Paths may hold bytes that are no UTF-8; they must come back as they were.
    write_durably(file, table_text(COLUMNS, map(vars, rows)).encode("utf-8", "surrogateescape"))


def read_table(file: Path) -> list[ScanRow]:
    """The rows of a table. Raises TableError where it is no table at all, ProjectError for a bad row."""
    lines = read_cells(file, errors="surrogateescape")
    if not lines:
        raise TableError(f"The table {file} is empty.")
    (_, header), *rest = lines
    if sorted(header) != sorted(COLUMNS):
        raise _bad_row(file, 1, f"the columns are {', '.join(header)[:200]}, not {', '.join(COLUMNS)}")
    rows: list[ScanRow] = []
    seen: set[str] = set()
    for number, cells in rest:
        if len(cells) != len(header):
            raise _bad_row(file, number, f"it has {len(cells)} cells, not {len(header)}")
        row = ScanRow(**dict(zip(header, cells, strict=True)))
        if any(unicodedata.category(c) == "Cc" for c in row.name + row.patient):
            raise _bad_row(file, number, "its name or patient holds control characters")
        if not is_id(row.id) or row.id in seen:
            raise _bad_row(file, number, f"{row.id[:40]!r} is not an id such as 0001, or is there twice")
        seen.add(row.id)
        rows.append(row)
    return rows


def is_id(text: str) -> bool:
    """True if a text is a scan's id, and so can be the name of its folder."""
    return re.fullmatch(r"[0-9]{4,9}", text) is not None


def _bad_row(file: Path, line: int, why: str) -> ProjectError:
    return ProjectError(
        f"Line {line} of {file} is wrong: {why}. The annotations are untouched. Correct the line, or replace the file "
        f"with {BACKUP_FILE}, which is the state before the last change."
    )


def read_scans(folder: Path) -> tuple[list[ScanRow], tuple[str, ...]]:
    """The rows of scans.csv, or of its backup when it is gone or no text; and doubts. Raises ProjectError."""
    file, backup = folder / SCANS_FILE, folder / BACKUP_FILE
    try:
        return read_table(file), ()
    except TableError as error:
        why = getattr(error.__cause__, "strerror", None) or str(error.__cause__ or error)
    try:
        rows = read_table(backup)
    except TableError as error:
        raise ProjectError(
            f"{file} cannot be read ({why}), and there is no backup of it that can. The annotations in "
            f"{folder / 'scans'} are untouched. Put back {SCANS_FILE} from a copy of the project."
        ) from error
    warning = (
        f"{SCANS_FILE} cannot be read ({why}), so {BACKUP_FILE} was taken: the last change of the list of scans may be "
        "missing."
    )
    return rows, (warning,)


def write_scans(folder: Path, rows: Sequence[ScanRow], broken: bool = False) -> None:
    """Replace scans.csv and keep what it held; also where that could not be read. Raises ProjectWriteError.

    broken: the file cannot be read, so that it must not take the place of the backup.
    """
    file = folder / SCANS_FILE
    try:
        held = file.read_bytes() if file.exists() else None
    except OSError as error:
        raise not_written(file, error) from error
    if held is not None:
        write_durably(folder / (f"scans.broken-{stamp()}.csv" if broken else BACKUP_FILE), held)
    write_table(file, rows)


def note_removed(folder: Path, row: ScanRow) -> None:
    """Write a scan's row into its folder, which goes with it. Raises ProjectWriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error) from error
    write_table(folder / "scan.csv", [row])
