"""Work of a study that takes long: scans that are scored, and jobs that are kept as lines of JSON, so that it
continues.

Both are shared out to processes.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from CACScoringLib.cohort.cohort import score_cohort
from CACScoringLib.cohort.workers import Workers
from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.choice import ModelChoice
from CACScoringLib.run import RunSettings

SCANS = "scans"
"""In the output folder, what scoring wrote."""


class StudyError(CTError):
    """There is nothing to study, or not as asked. The message says what to do."""


@dataclass(frozen=True)
class JobSettings:
    """workers: processes at work. device: of the networks: "auto", "cpu" or "cuda"."""

    workers: int = 1
    device: str = "auto"
    progress: Progress = field(default_factory=Progress)


Prepared = Callable[[Any], dict]
"""Does a job, and returns JSON values."""


def job_key(name: str, *content: object, files: Iterable[Path] = ()) -> str:
    """Key of a job: its name, and a digest of all that its result depends on.

    Args:
        name: readable part.
        content: JSON values, dataclasses among them.
        files: by their paths and times of change.
    """
    stamps = [(str(path), path.stat().st_mtime_ns) for path in files]
    text = json.dumps([content, stamps], sort_keys=True, default=asdict)
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}".strip()


def kept_jobs(
    jobs: Mapping[str, Any], file: Path, prepare: Callable[[], Prepared], work: JobSettings
) -> tuple[dict[str, dict], dict[str, str]]:
    """Do the jobs that `file` does not hold yet.

    What failed is not kept, and so tried again the next time.

    Args:
        jobs: by key, which contains all that a result depends on; picklable.
        file: lines of JSON.
        prepare: called in each process; picklable.
        work: processes, device and progress.

    Returns:
        The results, and why others failed, both by the jobs' keys.

    Raises:
        OutputError: the file cannot be written.
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
                work.progress.counted(len(results) + len(failed), len(jobs))
    except OSError as error:
        raise OutputError(f"Cannot write {file}: {error.strerror}. Choose another --output.") from error
    return results, failed


def _guarded(prepare: Callable[[], Prepared]) -> Callable[[Any], dict | str]:
    return partial(_result_or_reason, prepare())


def _result_or_reason(do: Prepared, job: Any) -> dict | str:
    try:
        return do(job)
    except CTError as error:
        return str(error)
    except Exception as error:  # whatever one scan brings about, the others go on
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"


def kept_results(file: Path) -> dict[str, dict]:
    """Read the file of `kept_jobs`, by key; its last line may be torn, when a run was ended while writing it."""
    results = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                content = json.loads(line)
                results[content["key"]] = content["result"]
            except (ValueError, KeyError, TypeError):
                continue
    return results


TIME_IS_UP = "The time given is used up."
"""Why a job failed that was not begun; see `InTime`."""


@dataclass
class InTime:
    """Does no job after a time (of `time.time`; None: always). prepare: called with the first job that is done."""

    prepare: Callable[[], Prepared]
    limit: float | None
    do: Prepared | None = None

    def __call__(self, job: Any) -> dict:
        if self.limit is not None and time.time() >= self.limit:
            raise CTError(TIME_IS_UP)
        self.do = self.do or self.prepare()
        return self.do(job)


def make_folder(path: Path) -> None:
    """Make a study's output folder. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write to {path}: {error.strerror}. Choose another --output.") from error


def scored_folders(
    table: Path, output: Path, models: ModelChoice, workers: int | None, overwrite: bool, progress: Progress
) -> list[Path | str]:
    """Score the scans of a table, into SCANS of the output folder; those that are there are kept.

    Args:
        table: As `cac cohort` takes it.
        output: The study's folder.
        models: Those asked for.
        workers: Processes at work, None for as many as fit.
        overwrite: Score anew, whatever is there.
        progress: Counts within its present step.

    Returns:
        Of each scan the folder of its results, or why it has none.

    Raises:
        CTError: The table cannot be read.
        OutputError: The results cannot be written, or were made with other settings.
    """
    settings = RunSettings()
    states = score_cohort(table, output / SCANS, settings, models, workers, overwrite, _WithinStep(progress))
    return [state.folder if state.state in ("done", "skipped") else str(state.reason) for state in states]


class _WithinStep(Progress):
    """Progress that counts within the present step of another."""

    def __init__(self, outer: Progress) -> None:
        super().__init__()
        self.counted, self.scan, self.warning = outer.counted, outer.scan, outer.warning
