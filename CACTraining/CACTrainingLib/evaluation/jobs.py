"""Long work of a study in several processes: scored scans, and jobs stored as lines of JSON, so that it resumes."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CACScoringLib.cohort.cohort import score_cohort
from CACScoringLib.cohort.workers import Workers
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError, OutputError, WrongValueError
from CACScoringLib.core.progress import Progress, ScanState
from CACScoringLib.core.text import OUTPUT
from CACScoringLib.models.choice import ModelChoice
from CACScoringLib.run import RunSettings
from CACScoringLib.scans.source import ScanSource
from CACScoringLib.scans.table import write_scans

SCANS, SCAN_TABLE = "scans", "scans.csv"
"""Folder of the scans' results, and table of the scans, in the output folder."""


@dataclass(frozen=True)
class JobSettings:
    """Settings of jobs.

    Attributes:
        workers: Number of processes.
        device: Device of the networks: "auto", "cpu" or "cuda".
        progress: Progress of the present step.
    """

    workers: int = 1
    device: str = "auto"
    progress: Progress = field(default_factory=Progress)


Prepared = Callable[[Any], dict[str, Any]]
"""Function that does a job and returns JSON values."""


def job_key(name: str, *content: object, files: Iterable[Path] = ()) -> str:
    """Key of a job: its name, and a digest of all that its result depends on.

    Args:
        name: Readable part.
        content: JSON values, dataclasses among them.
        files: Files, identified by path and time of change.
    """
    stamps = [(str(path), path.stat().st_mtime_ns) for path in files]
    text = json.dumps([content, stamps], sort_keys=True, default=asdict)
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}".strip()


def kept_jobs(
    jobs: Mapping[str, Any], file: Path, prepare: Callable[[], Prepared], work: JobSettings
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Do the jobs that `file` does not hold yet. Failed jobs are not stored, so that the next call repeats them.

    Args:
        jobs: Jobs by key (`job_key`); picklable.
        file: File of results, lines of JSON.
        prepare: Function, called in each process, that returns the function for a job; picklable.
        work: Processes, device and progress.

    Returns:
        The results, and the reasons of failed jobs, both by key.

    Raises:
        OutputError: The file cannot be written.
    """
    results = {key: result for key, result in kept_results(file).items() if key in jobs}
    waiting = [key for key in jobs if key not in results]
    failed: dict[str, str] = {}
    if not waiting:
        return results, failed
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            file.open("a", encoding="utf-8") as stream,
            Workers(min(work.workers, len(waiting)), partial(_guarded, prepare)) as pool,
            closing(pool.run([jobs[key] for key in waiting])) as events,
        ):
            if stream.tell() > 0:
                stream.write("\n")  # a torn line ends here
            began, first = time.monotonic(), len(results)
            for event in events:
                if event.state == "begun":
                    continue
                key = waiting[event.index]
                if event.state == "lost":
                    failed[key] = event.reason
                elif isinstance(event.result, str):
                    failed[key] = event.result
                else:
                    results[key] = event.result
                    stream.write(json.dumps({"key": key, "result": event.result}, allow_nan=False) + "\n")
                    stream.flush()
                done = len(results) + len(failed)
                seconds = (time.monotonic() - began) / (done - first)
                work.progress.counted(done, len(jobs), seconds * (len(jobs) - done))
    except OSError as error:
        raise OutputError(f"Cannot write {file}: {error.strerror}. Choose {OUTPUT}.") from error
    return results, failed


def kept_records(
    jobs: Sequence[tuple[str, Any] | str], file: Path, make: Callable[[Any], Any], kind: type, work: JobSettings
) -> list[Any]:
    """Make the records that `file` does not hold yet.

    Args:
        jobs: Key and job of each scan, or the reason why it has none.
        file: File of results, as for `kept_jobs`.
        make: Function that makes the record of a job; picklable.
        kind: Dataclass of the records.
        work: Processes, device and progress.

    Returns:
        The record of each scan, or the reason why it has none.

    Raises:
        OutputError: The file cannot be written.
        CTError: A stored record is not of this kind.
    """
    waiting = dict(job for job in jobs if not isinstance(job, str))
    results, failed = kept_jobs(waiting, file, lambda: lambda job: asdict(make(job)), work)
    try:
        records = {key: restore(result, kind) for key, result in results.items()} | failed
    except WrongValueError as wrong:
        raise CTError(f"A record cannot be read ({wrong}). Remove {file}.") from wrong
    return [job if isinstance(job, str) else records[job[0]] for job in jobs]


def _guarded(prepare: Callable[[], Prepared]) -> Callable[[Any], dict[str, Any] | str]:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the other workers use the rest
    return partial(_result_or_reason, prepare())


def _result_or_reason(do_job: Prepared, job: Any) -> dict[str, Any] | str:
    try:
        return do_job(job)
    except CTError as error:
        return str(error)
    except Exception as error:  # no error of one job may stop the others
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"


def kept_results(file: Path) -> dict[str, dict[str, Any]]:
    """Read the file of `kept_jobs`, by key. Incomplete lines of interrupted runs are skipped."""
    results = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                content = json.loads(line)
                results[content["key"]] = content["result"]
            except (ValueError, KeyError, TypeError):
                continue
    return results


def make_folder(path: Path) -> None:
    """Make a study's output folder. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write to {path}: {error.strerror}. Choose {OUTPUT}.") from error


def scored_folders(
    scans: Sequence[ScanSource],
    output: Path,
    models: ModelChoice,
    workers: int | None,
    overwrite: bool,
    progress: Progress,
) -> list[Path | str]:
    """List scans in SCAN_TABLE and score them into SCANS of the output folder; existing results are kept.

    Args:
        scans: The scans.
        output: Output folder of the study.
        models: Models to score with.
        workers: Number of processes; None for as many as fit.
        overwrite: True to score again.
        progress: Progress whose present step counts the scans.

    Returns:
        Folder of each scan's results, or the reason why it has none.

    Raises:
        CTError: Scans cannot be listed.
        OutputError: The results cannot be written, or were made with other settings.
    """
    table, settings = output / SCAN_TABLE, RunSettings()
    write_scans(table, scans)
    states = score_cohort(table, output / SCANS, settings, models, workers, overwrite, _WithinStep(progress))
    return [state.folder if state.state in ("done", "skipped") else str(state.reason) for state in states]


class _WithinStep(Progress):
    """Progress that counts within the present step of another."""

    def __init__(self, outer: Progress) -> None:
        super().__init__()
        self._outer = outer

    def counted(self, done: int, count: int, seconds_left: float | None = None) -> None:
        self._outer.counted(done, count)

    def scan(self, state: ScanState) -> None:
        self._outer.scan(state)

    def warning(self, warning: ScanWarning) -> None:
        self._outer.warning(warning)
