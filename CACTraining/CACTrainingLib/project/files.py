"""Read and write the files of a project: `project.json`, which describes the folder, and `scans.csv`, a row per scan.

Writes are atomic. The previous `scans.csv` is kept as `scans.csv.bak`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import Any

from CACScoringLib.core.errors import CTError, ProjectError, ProjectWriteError, TableError
from CACScoringLib.core.files import atomic_folder, read_json, remove_partial, sync_folder, write_bytes_atomically
from CACScoringLib.core.tables import read_cells, table_text
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.scans.source import ScanSource

from .scan_identity import content_hash

SCHEMA = "cac-project/1"
PROJECT_FILE, SCANS_FILE, BACKUP_FILE = "project.json", "scans.csv", "scans.csv.bak"
LOCK_SECONDS = 20
"""Longest wait for another program that changes the project; each change takes a fraction of a second."""

_LEFT_SECONDS = 24 * 3600

README = Path(__file__).parents[1] / "Resources" / "project.txt"
"""Description of the folder, copied into it as README.txt."""


COLUMNS = ("id", "name", "patient", "ct", "series", "sha256", "source", "use", "truth")
"""Columns of `scans.csv`; unknown values are empty cells."""


@dataclass(frozen=True, kw_only=True)
class ProjectScan(ScanSource):
    """Scan of a project, with absolute paths. The scans of a patient share one use.

    Attributes:
        id: Identifier and name of its folder, such as "0001".
        sha256: Hash of the content, by `content_hash`.
        source: One of `project.SOURCES`.
        use: "" or one of `split.USES`.
    """

    id: str
    sha256: str
    source: str
    use: str


def write_durably(path: Path, data: bytes) -> None:
    """Write a file atomically and durably. Raises ProjectWriteError."""
    try:
        write_bytes_atomically(path, data, durable=True)
    except OSError as error:
        raise disk_error(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Remove partial files that killed programs have left in a folder long ago."""
    remove_partial(folder, _LEFT_SECONDS)


def disk_error(path: Path, error: OSError) -> ProjectWriteError:
    """Return the error of a file that could not be written."""
    return ProjectWriteError(
        f"{path} could not be written: {error.strerror or error}. Nothing that was saved before is lost. Free some "
        "space or check the permissions of the folder, then do it again."
    )


@contextmanager
def project_lock(folder: Path) -> Iterator[None]:
    """Lock the project, so that only one program changes it at a time.

    The system releases the lock when a program ends, even by a crash. Raises ProjectWriteError after LOCK_SECONDS.
    """
    file = folder / ".lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise disk_error(file, error) from error
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _try_lock(descriptor, file):
            if time.monotonic() > deadline:
                raise ProjectWriteError(
                    f"Another program has been changing {folder} for {LOCK_SECONDS} seconds. Wait until it has ended, "
                    "or close it, and do it again."
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, file: Path) -> bool:
    """Acquire the lock without waiting; return False if it is held. Raises ProjectWriteError on disks without locks."""
    # Without the package filelock, which 3D Slicer has only with the training's packages; annotators need none of them.
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise disk_error(file, error) from error
    return True


def time_with_zone() -> str:
    """Return the time as text, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def stamp() -> str:
    """Return the time as part of a file's name."""
    return datetime.now().strftime("%Y%m%d-%H%M%S-%f")


def move(source: Path, target: Path) -> None:
    """Rename a folder. Raises ProjectWriteError."""
    try:
        source.rename(target)
    except OSError as error:
        raise disk_error(target, error) from error
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
            write_project_table(half / SCANS_FILE, [], folder)
            about = {"schema": SCHEMA, "name": name, "created": time_with_zone()}
            write_durably(half / PROJECT_FILE, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
            if folder.exists():
                folder.rmdir()  # Windows cannot rename to an existing folder, even an empty one
    except OSError as error:
        raise disk_error(folder, error) from error


def read_name(folder: Path) -> str:
    """Read a project's name from project.json. Raises ProjectError."""
    file = folder / PROJECT_FILE
    if not file.is_file():
        raise ProjectError(
            f"{folder} is not a project: it has no {PROJECT_FILE}. Choose the folder of a project, or make a new one."
        )
    try:
        about = read_json(file)
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


def stored_path(path: Path, folder: Path) -> str:
    """Return a path for scans.csv: relative to the project if inside it, with forward slashes."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def path_from(text: str, folder: Path) -> Path:
    """Return a path from scans.csv. One from another operating system stays as it is, and is missing here."""
    if text.startswith("/") or PureWindowsPath(text).is_absolute():
        return Path(text)
    return folder / text


def write_project_table(file: Path, scans: Iterable[ProjectScan], project: Path) -> None:
    """Replace a table of a project's scans. Raises ProjectWriteError."""
    rows = [
        vars(scan)
        | {part: path and stored_path(path, project) for part, path in (("ct", scan.ct), ("truth", scan.truth))}
        for scan in scans
    ]
    # Paths may hold bytes that are not UTF-8, and must be read back unchanged.
    write_durably(file, table_text(COLUMNS, rows).encode("utf-8", "surrogateescape"))


def read_project_table(file: Path, project: Path) -> list[ProjectScan]:
    """Read a table of a project's scans. Raises TableError if it is not a table, ProjectError for a bad row."""
    lines = read_cells(file, errors="surrogateescape")
    if not lines:
        raise TableError(f"The table {file} is empty.")
    (_, header), *table_rows = lines
    if sorted(header) != sorted(COLUMNS):
        raise _bad_row(file, 1, f"the columns are {', '.join(header)[:200]}, not {', '.join(COLUMNS)}")
    scans: list[ProjectScan] = []
    ids: set[str] = set()
    for number, cells in table_rows:
        if len(cells) != len(header):
            raise _bad_row(file, number, f"it has {len(cells)} cells, not {len(header)}")
        row = dict(zip(header, cells, strict=True))
        if any(unicodedata.category(c) == "Cc" for c in row["name"] + row["patient"]):
            raise _bad_row(file, number, "its name or patient holds control characters")
        if not is_id(row["id"]) or row["id"] in ids:
            raise _bad_row(file, number, f"{row['id'][:40]!r} is not an id such as 0001, or is there twice")
        ids.add(row["id"])
        truth = path_from(row["truth"], project) if row["truth"] else None
        values: dict[str, Any] = {"ct": path_from(row["ct"], project), "series": row["series"] or None, "truth": truth}
        scans.append(ProjectScan(**row | values))
    return scans


def is_id(text: str) -> bool:
    """True if a text is a scan's id, which names its folder."""
    return re.fullmatch(r"[0-9]{4,9}", text) is not None


def _bad_row(file: Path, line: int, fault: str) -> ProjectError:
    return ProjectError(
        f"Line {line} of {file} is wrong: {fault}. The annotations are untouched. Correct the line, or replace the "
        f"file with {BACKUP_FILE}, which is the state before the last change."
    )


def read_scans(folder: Path) -> tuple[list[ProjectScan], tuple[str, ...]]:
    """Read scans.csv, or its backup if it is missing or damaged; return scans and warnings. Raises ProjectError."""
    file, backup = folder / SCANS_FILE, folder / BACKUP_FILE
    try:
        return read_project_table(file, folder), ()
    except TableError as error:
        reason = getattr(error.__cause__, "strerror", None) or str(error.__cause__ or error)
    try:
        scans = read_project_table(backup, folder)
    except TableError as error:
        raise ProjectError(
            f"{file} cannot be read ({reason}), and there is no backup of it that can. The annotations in "
            f"{folder / 'scans'} are untouched. Put back {SCANS_FILE} from a copy of the project."
        ) from error
    warning = (
        f"{SCANS_FILE} cannot be read ({reason}), so {BACKUP_FILE} was taken: the last change of the list of scans may "
        "be missing."
    )
    return scans, (warning,)


def write_project_scans(folder: Path, scans: Sequence[ProjectScan], is_broken: bool = False) -> None:
    """Replace scans.csv and keep the previous one as backup. Raises ProjectWriteError.

    is_broken: True if the previous file could not be read; it is kept beside the backup then.
    """
    file = folder / SCANS_FILE
    try:
        previous = file.read_bytes() if file.exists() else None
    except OSError as error:
        raise disk_error(file, error) from error
    if previous is not None:
        write_durably(folder / (f"scans.broken-{stamp()}.csv" if is_broken else BACKUP_FILE), previous)
    write_project_table(file, scans, folder)


def write_removed_row(folder: Path, scan: ProjectScan, project: Path) -> None:
    """Write a removed scan's row into its folder. Raises ProjectWriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error
    write_project_table(folder / "scan.csv", [scan], project)


def absolute(path: Path) -> Path:
    """Return an absolute path without "..", keeping the user's links and drives, which resolving would replace."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def exists(path: Path) -> bool:
    """True if a file or folder exists and can be accessed."""
    try:
        return path.exists()
    except OSError:
        return False


def path_below(path: Path, old: Path, new: Path) -> Path | None:
    """Move a path from below one folder to below another; return None if it is not below the first."""
    return new / path.relative_to(old) if path.is_relative_to(old) else None


def old_place(path: Path) -> Path:
    """Return a former folder of scans, maybe on another operating system, in the form of their stored paths."""
    text = str(path)
    if PureWindowsPath(text).is_absolute() and os.name != "nt":
        return Path(text.replace("\\", "/"))
    return absolute(path)


def find_moved(
    scans: Sequence[ProjectScan], old: Path, new: Path, progress: Callable[[int, int], None] | None = None
) -> dict[str, Path]:
    """Find scans that were moved from one folder to another; return their new CTs by id.

    progress: Function called with the numbers of checked and of all scans. Raises ProjectError if no scan was in the
    old folder, none is in the new one, or the content of one has changed.
    """
    candidates = {scan.id: ct for scan in scans if (ct := path_below(scan.ct, old, new))}
    if not candidates:
        places = sorted({str(scan.ct.parent) for scan in scans})
        raise ProjectError(f"No scan of the project lies below {old}. They lie in: {abbreviated_list(places)}.")
    new_paths = {scan: candidates[scan.id] for scan in scans if scan.id in candidates and exists(candidates[scan.id])}
    if not new_paths:
        first = next(iter(candidates.values()))
        raise ProjectError(
            f"None of the {len(candidates)} scans below {old} is below {new}; the first was looked for at {first}. "
            "Give the two folders that correspond to each other."
        )
    mismatches = []
    for n, (scan, ct) in enumerate(new_paths.items(), 1):
        try:
            if content_hash(ct, scan.series) != scan.sha256:
                mismatches.append(f"{scan.name} at {ct} (another content)")
        except CTError as error:
            mismatches.append(f"{scan.name} at {ct} ({error})")
        if progress:
            progress(n, len(new_paths))
    if mismatches:
        raise ProjectError(
            f"{len(mismatches)} of {len(new_paths)} scans below {new} are not those of the project, so nothing was "
            f"changed: {abbreviated_list(mismatches)}. Give the folder that holds the same files, or add the others as "
            "new scans."
        )
    return {scan.id: ct for scan, ct in new_paths.items()}
