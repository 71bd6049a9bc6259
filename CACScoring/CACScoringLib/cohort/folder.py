"""Folder of a cohort's results: the folder of each scan, existing results and their settings.

`cohort.json` holds the settings, the models and the scans' folders. A scan's result is complete if its folder has
`scores.json`. All results have the same settings, because other settings are refused, and --overwrite first removes all
results; those of an earlier calibration are scored again by their facts.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from ..core.errors import OutputError, UnreadableError
from ..core.files import check_unread, read_document, read_json, remove_partial, write_text_atomically
from ..core.text import OUTPUT, REPLACE
from ..networks.configs import SCORING
from ..record.provenance import provenance_of
from ..scans.source import ScanSource
from .scoring import ScanOutcome, ScanRecord, files_key, forget, read_record, read_scores

SCHEMA = "cac-cohort/1"
RECORD, TABLE, FAILURES, LOCK = "cohort.json", "cohort.csv", "failures.csv", ".cohort.lock"

ELSEWHERE_SECONDS = 86400.0
"""Time after which an incomplete result of a worker on another machine is removed."""

NAME_LENGTH = 50
"""Maximum length of a folder's name in characters; within file systems' limits with four bytes each and an ending."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # device names of Windows


CohortRecord = dict[str, Any]
"""Content of RECORD without its schema: "made_with", the settings and models; "runs", the provenance of each run;
"scans", the label of each scan by its folder; and "calibrated_before", keys of earlier calibrations, if any."""


class CohortFolder:
    """The folder of a cohort, made and locked by `open_cohort`."""

    def __init__(self, path: Path, record: CohortRecord, local: bool = True) -> None:
        self.path = path
        self._record, self._local = record, local

    def folders_of(self, scans: Sequence[ScanSource]) -> list[Path]:
        """Return and record a folder for each scan: its former folder, or a new one with a safe, unique name."""
        entries = self._record["scans"]
        by_scan = {entry["scan"]: name for name, entry in entries.items()}
        names = [RECORD, TABLE, FAILURES, *entries, *(path.name for path in self.path.iterdir())]
        used_names = {name.casefold() for name in names}
        folders = []
        for scan in scans:
            digest = scan.label
            name = by_scan.get(digest)
            if name is None:
                name = free_name(safe_name(scan.name), used_names)
                used_names.add(name.casefold())
            entries[name] = {"scan": digest}
            folders.append(self.path / name)
        self._write_record()
        return folders

    @property
    def settings_key(self) -> str:
        """SHA-256 of the settings and models."""
        return hashlib.sha256(json.dumps(self._record["made_with"], sort_keys=True).encode()).hexdigest()

    @property
    def former_keys(self) -> tuple[str, ...]:
        """Keys of the same settings with earlier calibrations, whose results are scored again by their facts."""
        return tuple(self._record.get("calibrated_before", ()))

    def result(self, scan: ScanSource, folder: Path) -> ScanOutcome | None:
        """Return a scan's complete result if its files are unchanged; None if a worker has to check or score it.

        A worker compares files with another date by their content, see `scoring.score_job`. Raises UnreadableError if
        `scores.json` is damaged.
        """
        scores, record = read_scores(folder), read_record(folder)
        if scores is None or record is None or record.settings != self.settings_key or not _is_unchanged(scan, record):
            return None
        return ScanOutcome(scores, reused=True)

    def write(self, table: str, failures: str) -> bool:
        """Replace both tables. Returns False if the system refuses, as Windows does while a spreadsheet is open."""
        try:
            for name, text in ((TABLE, table), (FAILURES, failures)):
                # Excel takes UTF-8 without a byte order mark for another encoding.
                write_text_atomically(self.path / name, f"\ufeff{text}")
        except OSError:
            return False
        return True

    def remove_leftovers(self) -> None:
        """Remove incomplete results of killed processes, except those that other machines may still be writing."""
        remove_partial(self.path, 0.0 if self._local else ELSEWHERE_SECONDS)

    def begin(self, settings: dict[str, object], overwrite: bool) -> None:
        """Compare the settings with those of earlier results.

        Raises OutputError if they differ in more than calibrations, or if results to be calibrated anew have readings.
        """
        self.remove_leftovers()
        file = self.path / RECORD
        if file.exists():
            self._record = _read_record(file)
            before = self._record["made_with"]
            differences = _differences(before, settings)
            if differences and not overwrite:
                if not _differs_in_calibration(before, settings):
                    raise OutputError(
                        f"{self.path} holds results made with other settings ({differences}). Choose {OUTPUT}{REPLACE}."
                    )
                for name in self._record["scans"]:
                    check_unread(self.path / name)
                self._record["calibrated_before"] = sorted({*self.former_keys, self.settings_key})
        if overwrite:
            self._record.pop("calibrated_before", None)
            for name in self._record["scans"]:
                check_unread(self.path / name)
            for name in self._record["scans"]:
                forget(self.path / name)
        self._record["made_with"] = settings
        run = asdict(provenance_of(settings).stated(bool(settings.get("identify"))))
        self._record["runs"] = [*self._record["runs"], run]
        self._write_record()

    def _write_record(self) -> None:
        write_text_atomically(self.path / RECORD, json.dumps({"schema": SCHEMA, **self._record}, indent=1) + "\n")


@contextmanager
def open_cohort(path: Path, settings: dict[str, object], overwrite: bool, local: bool = True) -> Iterator[CohortFolder]:
    """Make or reopen a cohort's folder for one run at a time.

    Args:
        path: The folder.
        settings: Settings and models as JSON, see `cohort.settings_record`.
        overwrite: Remove existing results.
        local: All workers are on this machine and end with the run.

    Raises:
        OutputError: The folder has other content or settings, or another run is using it.
    """
    with _locked(path, overwrite), ExitStack() as stack:
        try:
            folder = CohortFolder(path.resolve(), {"made_with": settings, "scans": {}, "runs": []}, local)
            folder.begin(settings, overwrite)
            stack.callback(folder.remove_leftovers)
            yield folder
        except OSError as error:
            raise OutputError(
                f"Reading or writing failed: {error}. What is done is kept. Make room on {path}, or mount it again, "
                "and run the same command again."
            ) from error


@contextmanager
def _locked(path: Path, overwrite: bool) -> Iterator[None]:
    """Make or reopen a cohort's folder and lock it, as `open_cohort` does. Raises OutputError."""
    from filelock import FileLock, Timeout  # Slicer, which reads results, lacks it

    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file. Choose a folder.")
    foreign = path.is_dir() and not (path / RECORD).exists() and not overwrite
    if foreign and any(not entry.name.startswith(".") for entry in path.iterdir()):
        raise OutputError(f"{path} is not empty and holds no cohort. Choose {OUTPUT}.")
    file_lock = FileLock(path / LOCK, timeout=0)
    try:
        path.mkdir(parents=True, exist_ok=True)
        file_lock.acquire()
    except Timeout as error:
        message = f"Another cohort is using {path}. Wait for it to end, or choose {OUTPUT}."
        raise OutputError(message) from error
    except OSError as error:
        raise OutputError(f"Cannot write to {path}: {error.strerror}. Choose {OUTPUT}.") from error
    try:
        yield
    finally:
        file_lock.release()


def safe_name(name: str) -> str:
    """Return a name as a safe folder name: letters and digits of any script, dots, dashes and underscores."""
    text = unicodedata.normalize("NFC", name)
    text = "".join(c if c.isalnum() or c in "._-" else "-" if c == "/" else "_" for c in text)
    text = text.strip("._-")[:NAME_LENGTH].rstrip("._-") or "scan"
    return f"scan-{text}" if _RESERVED.fullmatch(text) else text


def free_name(name: str, used_names: Container[str]) -> str:
    """Return the name, with "-2", "-3" … if it is used already. used_names: names in `str.casefold`."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(candidate for candidate in names if candidate.casefold() not in used_names)


def _is_unchanged(scan: ScanSource, record: ScanRecord) -> bool:
    """Return True if a scan's files are unchanged, or out of reach, as on a disconnected network drive."""
    try:
        return record.files == files_key(scan)
    except OSError:
        return True


def _read_record(file: Path) -> CohortRecord:
    try:
        record = read_document(file, SCHEMA)
        # Results are removed by these names, which must not lead out of the folder.
        is_valid = all(Path(name).name == name and name not in (".", "..") for name in record["scans"])
        if not is_valid or not isinstance(record["made_with"], dict):
            raise ValueError("it was changed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{file} is not the record of a cohort ({error}). Choose {OUTPUT}.") from error
    record.setdefault("runs", [])
    return record


def _differences(before: dict[str, object], now: dict[str, object]) -> str:
    first, second = dict(_flat(before)), dict(_flat(now))
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return ", ".join(f"{key} was {first.get(key)} and is {second.get(key)}" for key in keys[:3])


def _differs_in_calibration(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return True if only calibrations of the scoring networks, and names of their models, differ.

    Scenes, healthy images and DICOM objects hold the CT, so that no such result can be written from facts.
    """
    if any(now.get(name) for name in ("scene", "healthy", "dicom")):
        return False
    first, second = dict(_flat(before)), dict(_flat(now))
    for key in {key for key in {**first, **second} if first.get(key) != second.get(key)}:
        part, _, network = key.partition(".")
        digests = {str(values.get(key)).rpartition(" ")[2] for values in (first, second)}
        if network not in SCORING or not (part == "calibrations" or (part == "models" and len(digests) == 1)):
            return False
    return True


def _flat(values: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def scan_digests(record: Path) -> dict[str, str]:
    """Read the digests of a cohort's scans from its record, by folder. Raises UnreadableError."""
    try:
        scans = read_json(record)["scans"]
        return {name: str(entry["scan"]) for name, entry in scans.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{record} is damaged ({error!r}). Run the cac cohort that made it again, with --overwrite."
        raise UnreadableError(message) from error
