"""Folder of a cohort's results: the folder of each scan, existing results and their settings.

`cohort.json` holds the settings, the models and the scans' folders. A scan's result is whole where its folder has
`scores.json`; that it was made with these settings is known because other settings are refused, and --overwrite
removes all results before it begins.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from ..core.files import OutputError, remove_partial, write_text_atomically
from .parquet import TABLES, WRITTEN, table_path
from .scans import CohortScan
from .scoring import ScanOutcome, ScanRecord, files_key, forget, read_record, read_scores

SCHEMA = "cac-cohort/1"
RECORD, TABLE, FAILURES, LOCK = "cohort.json", "cohort.csv", "failures.csv", ".cohort.lock"

ELSEWHERE_SECONDS = 86400.0
"""How long a worker elsewhere may take for a scan, when its client is gone."""

NAME_LENGTH = 50
"""Of folders, in characters: with a temporary ending and four bytes each they stay below what file systems allow."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # device names of Windows


class CohortFolder:
    """The folder of a cohort, made for it and locked; see `open_cohort`."""

    def __init__(self, path: Path, record: dict, local: bool = True) -> None:
        self.path = path
        self._record, self._local = record, local

    def folders_of(self, scans: Sequence[CohortScan]) -> list[Path]:
        """A folder for each scan: the one it had before, or a new one with a safe name of its own; recorded."""
        known = self._record["scans"]
        by_scan = {entry["scan"]: name for name, entry in known.items()}
        tables = (table_path(self.path, name).name for name in TABLES)
        names = [RECORD, TABLE, FAILURES, *tables, *known, *(path.name for path in self.path.iterdir())]
        taken = {name.casefold() for name in names}
        folders = []
        for scan in scans:
            digest = scan_digest(scan.key)
            name = by_scan.get(digest)
            if name is None:
                name = free_name(safe_name(scan.name), taken)
                taken.add(name.casefold())
            known[name] = {"scan": digest}
            folders.append(self.path / name)
        self._write_record()
        return folders

    def number_of(self, folder: Path) -> str:
        """Anonymous label of a scan, derived from its folder."""
        return self._record["scans"][folder.name]["scan"]

    @property
    def settings_key(self) -> str:
        """SHA-256 of the settings and models."""
        return hashlib.sha256(json.dumps(self._record["made_with"], sort_keys=True).encode()).hexdigest()

    def result(self, scan: CohortScan, folder: Path) -> ScanOutcome | None:
        """A scan's result that is whole and made of its files as they are; None where a worker has to see to it.

        Files that only look changed are compared by their content in a worker, see `scoring.score_job`. Raises
        UnreadableError where its `scores.json` is damaged.
        """
        content, known = read_scores(folder), read_record(folder)
        if content is None or known is None or known.settings != self.settings_key or not _untouched(scan, known):
            return None
        return ScanOutcome(content, reused=True)

    def write(self, table: str, failures: str) -> bool:
        """Replace both tables; False where the system refuses, as Windows does while a spreadsheet shows them."""
        try:
            write_text_atomically(self.path / TABLE, table)
            write_text_atomically(self.path / FAILURES, failures)
        except OSError:
            return False
        return True

    def remove_leftovers(self) -> None:
        """Remove what processes that were ended left half-written, but not what workers elsewhere may still write."""
        remove_partial(self.path, 0.0 if self._local else ELSEWHERE_SECONDS)
        remove_partial(self.path, name=WRITTEN)  # by a client, of which there is one at a time

    def begin(self, wanted: dict, overwrite: bool) -> None:
        """Compare the settings with those of earlier results. Raises OutputError where they differ."""
        self.remove_leftovers()
        file = self.path / RECORD
        if file.exists():
            self._record = _read_record(file)
            changed = _differences(self._record["made_with"], wanted)
            if changed and not overwrite:
                raise OutputError(
                    f"{self.path} holds results made with other settings ({changed}). Choose another --output, or "
                    "score all scans again with --overwrite."
                )
        if overwrite:
            for name in self._record["scans"]:
                forget(self.path / name)
        self._record["made_with"] = wanted
        self._write_record()

    def _write_record(self) -> None:
        write_text_atomically(self.path / RECORD, json.dumps(self._record, indent=1) + "\n")


@contextmanager
def open_cohort(path: Path, wanted: dict, overwrite: bool, local: bool = True) -> Iterator[CohortFolder]:
    """Make or reopen a cohort's folder for one run at a time.

    wanted: settings and models, as JSON. overwrite: remove results that are there. local: all workers are on this
    machine, and end with the run.
    Raises OutputError when it holds something else or results of other settings, or another run is at work in it.
    """
    with own_folder(path, RECORD, LOCK, "cohort", overwrite), ExitStack() as stack:
        try:
            folder = CohortFolder(path.resolve(), {"schema": SCHEMA, "made_with": wanted, "scans": {}}, local)
            folder.begin(wanted, overwrite)
            stack.callback(folder.remove_leftovers)
            yield folder
        except OSError as error:
            raise OutputError(
                f"Reading or writing failed: {error}. What is done is kept. Make room on {path}, or mount it again, "
                "and run the same command again."
            ) from error


@contextmanager
def own_folder(path: Path, mark: str, lock: str, what: str, overwrite: bool = False) -> Iterator[None]:
    """Make or reopen a folder that belongs to one command, for one run at a time.

    Args:
        path: The folder.
        mark: A file by which it is known.
        lock: A file that is held meanwhile.
        what: What it holds, for messages.
        overwrite: It may hold something else.

    Raises:
        OutputError: It holds something else, another run is at work in it, or it cannot be made.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file. Choose a folder with --output.")
    foreign = path.is_dir() and not (path / mark).exists() and not overwrite
    if foreign and any(not entry.name.startswith(".") for entry in path.iterdir()):
        raise OutputError(f"{path} is not empty and holds no {what}. Choose another --output.")
    held = FileLock(path / lock, timeout=0)
    try:
        path.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout as error:
        raise OutputError(f"Another {what} is using {path}. Wait for it to end, or choose another --output.") from error
    except OSError as error:
        raise OutputError(f"Cannot write to {path}: {error.strerror}. Choose another --output.") from error
    try:
        yield
    finally:
        held.release()


def safe_name(name: str) -> str:
    """A name from anywhere as the name of a folder: letters, digits, dots, dashes and underscores of any script."""
    text = unicodedata.normalize("NFC", name)
    text = "".join(c if c.isalnum() or c in "._-" else "-" if c == "/" else "_" for c in text)
    text = text.strip("._-")[:NAME_LENGTH].rstrip("._-") or "scan"
    return f"scan-{text}" if _RESERVED.fullmatch(text) else text


def free_name(name: str, taken: Container[str]) -> str:
    """The name itself, or with "-2", "-3" … where it is taken. taken: names without case (`str.casefold`)."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(free for free in names if free.casefold() not in taken)


def _untouched(scan: CohortScan, known: ScanRecord) -> bool:
    """True if a scan's files are as they were, or out of reach, as on a network drive that is gone for a while."""
    try:
        return known.files == files_key(scan)
    except OSError:
        return True


def scan_digest(key: str) -> str:
    """Anonymous label of a scan in `cohort.json`. key: of a `CohortScan`; a series' UID in it identifies a person."""
    return hashlib.sha256(json.dumps([key]).encode()).hexdigest()[:32]


def _read_record(file: Path) -> dict:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        whole = record["schema"] == SCHEMA and isinstance(record["made_with"], dict)
        # Names of folders that are removed must not lead elsewhere, whoever wrote the file.
        whole = whole and all(Path(name).name == name and name not in (".", "..") for name in record["scans"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{file} is not the record of a cohort ({error}). Choose another --output.") from error
    if not whole:
        raise OutputError(f"{file} is not of schema {SCHEMA}. Choose another --output.")
    return record


def _differences(before: dict, now: dict) -> str:
    first, second = dict(_flat(before)), dict(_flat(now))
    different = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return ", ".join(f"{key} was {first.get(key)} and is {second.get(key)}" for key in different[:3])


def _flat(values: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
