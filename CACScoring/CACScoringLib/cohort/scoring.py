"""Scoring of a cohort's scan in a worker, unless its folder has a result of the same content and settings."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from ..core.errors import CTError, OutputError, UnreadableError, code_of
from ..core.files import (
    LAST_FILE,
    OutputFolder,
    check_unread,
    file_sha256,
    read_document,
    read_file,
    remove_result,
    write_text_atomically,
)
from ..core.progress import Progress
from ..models.choice import ChosenModels, LoadedModels, load_models
from ..models.inference import use_threads
from ..record.provenance import remember_command
from ..record.score_record import ScoreRecord, read_result, record_from_text
from ..rescoring import rescore
from ..run import RunSettings, ScanInput, run_scan, write_result
from ..scans.source import ScanSource

RECORD = "cohort-scan.json"
"""File in the folder of a scan that identifies the input of its result."""
SCHEMA = "cac-cohort-scan/1"


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """Content of RECORD.

    Attributes:
        content: SHA-256 of the scan's files.
        files: SHA-256 of their names, sizes and modification times, which shows without reading the files that they are
            unchanged. Times are compared for equality, so clocks need not be right.
        settings: SHA-256 of settings and models.
    """

    content: str
    files: str
    settings: str


@dataclass(frozen=True, slots=True)
class ScanJob:
    """A scan to be scored into a folder.

    Attributes:
        scan: The scan.
        folder: Folder of its result.
        settings: Settings as in `ScanRecord`.
        marker: File that exists while the folder of all results is in reach; a disconnected network drive leaves an
            empty folder of the worker's machine.
        former: Settings with earlier calibrations, whose results are scored again by their facts.
    """

    scan: ScanSource
    folder: Path
    settings: str
    marker: Path | None = None
    former: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScanOutcome:
    """Outcome of a scan.

    Attributes:
        scores: Its record, or None.
        reason: Reason why it could not be scored, or None.
        reused: True if it had been scored before.
        code: Code of the reason, for programs.
        by_facts: True if its former result was scored again by its facts, after a new calibration.
        facts_fault: Why its former result could not be, so that it was scored anew.
    """

    scores: ScoreRecord | None = None
    reason: str | None = None
    reused: bool = False
    code: str = ""
    by_facts: bool = False
    facts_fault: str = ""


class ScanFolder(OutputFolder):
    """Folder of a scan's result, written atomically; if two workers score the same scan, the first result stays."""

    def __init__(self, path: Path, record: Callable[[], ScanRecord]) -> None:
        super().__init__(path, overwrite=True)
        self._record = record

    @contextmanager
    def being_written(self) -> Iterator[Path]:
        with super().being_written() as folder:
            yield folder
            write_record(folder, self._record())

    def _remove_left(self) -> None:
        """Do nothing: the cohort removes leftovers once; searching its large folder for each scan would be slow."""

    def _move_in(self, temporary: Path) -> None:
        temporary.chmod(self.path.parent.stat().st_mode & 0o777)
        try:
            temporary.rename(self.path)
        except OSError:  # the folder has a result already, or other files
            if not (self.path / LAST_FILE).exists():
                super()._move_in(temporary)


def prepare_scoring(
    settings: RunSettings, models: ChosenModels, command: Sequence[str] = ()
) -> Callable[[ScanJob], ScanOutcome]:
    """Return the scoring function of a worker, with loaded networks and one thread, because workers use all cores.

    command: Words of the command that the worker works for.
    """
    remember_command(command)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if models.networks or models.estimates:
        use_threads(1)
    return partial(score_job, settings, load_models(models))


def score_job(settings: RunSettings, models: LoadedModels, job: ScanJob) -> ScanOutcome:
    """Score a scan into its folder, unless only the dates of its files have changed."""
    try:
        return _score(settings, models, job)
    except (CTError, OutputError) as error:
        return ScanOutcome(reason=str(error), code=code_of(error))
    except OSError as error:
        return ScanOutcome(reason=f"Reading or writing failed: {error.strerror} ({error.filename}).", code="file")
    except MemoryError:
        return ScanOutcome(reason="Memory ran out. Score it with fewer workers.", code="memory")
    except Exception as error:  # no exception of a scan stops the others
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        fault = f"Unexpected {type(error).__name__} at {place}: {error}. This is a fault of CAC: please report it."
        return ScanOutcome(reason=fault, code="fault")


def _score(settings: RunSettings, models: LoadedModels, job: ScanJob) -> ScanOutcome:
    scan, folder = job.scan, job.folder
    _check_reach(job)
    content, files = content_key(scan), files_key(scan)
    former = read_record(folder)
    if former and (former.content, former.settings) == (content, job.settings) and (scores := whole_scores(folder)):
        write_record(folder, ScanRecord(content, files, job.settings))
        return ScanOutcome(scores, reused=True)

    def record() -> ScanRecord:
        _check_reach(job)
        return ScanRecord(content, files, job.settings)

    fault = ""
    if former and former.content == content and former.settings in job.former:
        check_unread(folder)
        try:
            result = rescore(folder, scan.lesions, settings.reader, Progress(), models)
        except CTError as error:
            fault = str(error)
        else:
            forget(folder)
            write_result(ScanFolder(folder, record), result, settings, Progress())
            return ScanOutcome(read_result(folder), by_facts=True)
    forget(folder)
    # Results take the scan's name in the cohort, because many scans' files have the same name.
    scan_input = ScanInput(scan.ct, scan.series, scan.heart, scan.lesions, scan.pericardium, name=folder.name)
    run_scan(scan_input, settings, models, ScanFolder(folder, record))
    return ScanOutcome(read_result(folder), facts_fault=fault)


def _check_reach(job: ScanJob) -> None:
    if job.marker is not None and not job.marker.exists():
        place = job.marker.parent
        raise OutputError(f"The folder of the results, {place}, is out of reach. Mount it, and run the command again.")


def forget(folder: Path) -> None:
    """Remove a scan's result, but no other files in its folder. Raises OutputError if it has readings."""
    check_unread(folder)
    remove_result(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        with suppress(OSError):  # another worker has just stored its result
            folder.rmdir()


def read_scores(folder: Path) -> ScoreRecord | None:
    """Return the record of a result; None if there is none. Raises UnreadableError if damaged."""
    file = folder / LAST_FILE
    try:
        text = read_file(file)
    except OSError:
        return None
    return record_from_text(text, str(file))


def whole_scores(folder: Path) -> ScoreRecord | None:
    """Return scores like `read_scores`; None for a damaged result, too, which is then scored again."""
    with suppress(UnreadableError):
        return read_scores(folder)
    return None


def read_record(folder: Path) -> ScanRecord | None:
    """Return the RECORD of a scan's folder; None if there is none."""
    try:
        return ScanRecord(**read_document(folder / RECORD, SCHEMA))
    except (OSError, ValueError, TypeError):
        return None


def write_record(folder: Path, record: ScanRecord) -> None:
    """Write RECORD. Raises OSError."""
    write_text_atomically(folder / RECORD, json.dumps({"schema": SCHEMA, **asdict(record)}, indent=1) + "\n")


def content_key(scan: ScanSource) -> str:
    """Return the SHA-256 of a scan's files and its series. Raises OSError."""
    digest = hashlib.sha256(json.dumps(scan.series).encode())
    for group in _files(scan):
        hashes = sorted(map(file_sha256, group))
        digest.update(json.dumps(hashes).encode())
    return digest.hexdigest()


def files_key(scan: ScanSource) -> str:
    """Return the SHA-256 of names, sizes and modification times of a scan's files. Raises OSError."""
    parts: list[object] = [scan.series]
    for group in _files(scan):
        statuses = [(file.name, file.stat()) for file in group]
        parts.append(sorted((name, status.st_size, status.st_mtime_ns) for name, status in statuses))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _files(scan: ScanSource) -> Iterator[list[Path]]:
    # Without a pericardium the keys are those of earlier versions.
    for place in (scan.ct, scan.heart, scan.lesions, *filter(None, [scan.pericardium])):
        if place is None:
            yield []
        elif place.is_dir():
            yield [path for path in place.rglob("*") if path.is_file()]
        else:
            yield [place]
