"""One scan of a cohort, in a worker: scored into its folder unless the same content was, with the same settings."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from ..core.ct import CTError, UnreadableError
from ..core.files import LAST_FILE, OutputError, OutputFolder, remove_result, write_text_atomically
from ..core.records import check_record
from ..models.choice import ChosenModels, LoadedModels, load_models
from ..models.inference import use_threads
from ..run import RunSettings, ScanInput, run_scan
from .scans import CohortScan

RECORD = "cohort-scan.json"
"""In the folder of a scan: of what it was made."""
SCHEMA = "cac-cohort-scan/1"

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """Content of RECORD.

    content: SHA-256 of the scan's files. files: of their names, sizes and times of change, by which content that was
    not touched is known without reading it; times are compared for equality, so that no clock has to be right.
    settings: SHA-256 of settings and models.
    """

    content: str
    files: str
    settings: str
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class ScanJob:
    """A scan to be scored into a folder.

    settings: as in `ScanRecord`. sign: a file that is there while the folder of all results is in reach: where a
    network drive is gone, its place is an empty folder of the worker's own machine.
    """

    scan: CohortScan
    folder: Path
    settings: str
    sign: Path | None = None


@dataclass(frozen=True)
class ScanOutcome:
    """Outcome of a scan: the content of its `scores.json`, or the reason why it could not be scored.

    reused: it had been scored before.
    """

    content: dict | None = None
    reason: str | None = None
    reused: bool = False


class ScanFolder(OutputFolder):
    """The folder of a scan's result, which appears with all files at once, so that of two workers that score the same
    scan the first one counts."""

    def __init__(self, path: Path, record: Callable[[], ScanRecord]) -> None:
        super().__init__(path, overwrite=True)
        self._record = record

    @contextmanager
    def being_written(self) -> Iterator[Path]:
        with super().being_written() as folder:
            yield folder
            write_record(folder, self._record())

    def _remove_left(self) -> None:
        """Nothing: the cohort does it once, and its folder has too many names to look through for each scan."""

    def _move_in(self, temporary: Path) -> None:
        temporary.chmod(self.path.parent.stat().st_mode & 0o777)
        try:
            temporary.rename(self.path)
        except OSError:  # it has a result already, or files of others
            if not (self.path / LAST_FILE).exists():
                super()._move_in(temporary)


def prepare_scoring(settings: RunSettings, chosen: ChosenModels) -> Callable[[ScanJob], ScanOutcome]:
    """Prepare the scorer of a worker, its networks loaded. All cores are at work already, so each keeps to one."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if chosen.networks or chosen.estimates:
        use_threads(1)
    return partial(score_job, settings, load_models(chosen))


def score_job(settings: RunSettings, models: LoadedModels, job: ScanJob) -> ScanOutcome:
    """Score a scan into its folder. Where it was not changed but touched, its result stays as it is."""
    try:
        return _score(settings, models, job)
    except (CTError, OutputError) as error:
        return ScanOutcome(reason=str(error))
    except OSError as error:
        return ScanOutcome(reason=f"Reading or writing failed: {error.strerror} ({error.filename}).")
    except MemoryError:
        return ScanOutcome(reason="Memory ran out. Score it with fewer --workers.")
    except Exception as error:  # whatever a scan brings about, the other scans go on
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        fault = f"Unexpected {type(error).__name__} at {place}: {error}. This is a fault of CAC: please report it."
        return ScanOutcome(reason=fault)


def _score(settings: RunSettings, models: LoadedModels, job: ScanJob) -> ScanOutcome:
    scan, folder = job.scan, job.folder
    _check_reach(job)
    content, files = content_key(scan), files_key(scan)
    known = read_record(folder)
    if known and (known.content, known.settings) == (content, job.settings) and (scores := whole_scores(folder)):
        write_record(folder, ScanRecord(content, files, job.settings))
        return ScanOutcome(scores, reused=True)
    forget(folder)
    # Results are named as the cohort names the scan: files of many scans are called alike.
    given = ScanInput(scan.ct, scan.series, scan.heart, scan.lesions, name=folder.name)

    def record() -> ScanRecord:
        _check_reach(job)
        return ScanRecord(content, files, job.settings)

    run_scan(given, settings, models, ScanFolder(folder, record))
    return ScanOutcome(read_scores(folder))


def _check_reach(job: ScanJob) -> None:
    if job.sign is not None and not job.sign.exists():
        place = job.sign.parent
        raise OutputError(f"The folder of the results, {place}, is out of reach. Mount it, and run the command again.")


def forget(folder: Path) -> None:
    """Remove a scan's result; what else lies in its folder stays."""
    remove_result(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        with suppress(OSError):  # another worker has just put its result there
            folder.rmdir()


def read_scores(folder: Path) -> dict | None:
    """The content of a whole result's `scores.json`; None where there is none. Raises UnreadableError where it is
    damaged."""
    file = folder / LAST_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        return None
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{file} is damaged: it is not JSON. Score the scan again.") from error
    check_record(content, str(file))
    return content


def whole_scores(folder: Path) -> dict | None:
    """Read scores as `read_scores` does; None also for a damaged result, so that it is made anew."""
    with suppress(UnreadableError):
        return read_scores(folder)
    return None


def read_record(folder: Path) -> ScanRecord | None:
    """Read RECORD of a scan's folder; None if there is none."""
    try:
        return ScanRecord(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(folder: Path, record: ScanRecord) -> None:
    """Write RECORD. Raises OSError."""
    write_text_atomically(folder / RECORD, json.dumps(asdict(record), indent=1) + "\n")


def content_key(scan: CohortScan) -> str:
    """SHA-256 of the content of a scan's files, and of which series is meant. Raises OSError."""
    digest = hashlib.sha256(json.dumps(scan.series).encode())
    for group in _files(scan):
        hashes = sorted(_file_key(file) for file in group)
        digest.update(json.dumps(hashes).encode())
    return digest.hexdigest()


def files_key(scan: CohortScan) -> str:
    """Digest of names, sizes and modification times of a scan's files. Raises OSError."""
    parts: list[object] = [scan.series]
    for group in _files(scan):
        found = [(file.name, file.stat()) for file in group]
        parts.append(sorted((name, status.st_size, status.st_mtime_ns) for name, status in found))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _files(scan: CohortScan) -> Iterator[list[Path]]:
    for place in (scan.ct, scan.heart, scan.lesions):
        if place is None:
            yield []
        elif place.is_dir():
            yield [path for path in place.rglob("*") if path.is_file()]
        else:
            yield [place]


def _file_key(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
