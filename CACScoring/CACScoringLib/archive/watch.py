"""Watch of an archive: new CT series are scored once and their results sent back, even if either side restarts.

Each step is entered in the journal after it is done, and can be repeated without harm: series are pulled and results
moved atomically, and results have the same UIDs each time, so that an archive that receives them again has them once.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pydicom

from ..cohort.cohort import without_uids
from ..cohort.folder import own_folder
from ..cohort.scoring import ScanJob, ScanOutcome, prepare_scoring
from ..cohort.workers import Workers
from ..core.errors import ArchiveError, ArchiveUnauthorisedError, ArchiveUnreachableError, CTError, OutputError
from ..core.files import LAST_FILE, remove_partial, sync_folder, write_text_atomically
from ..core.progress import Progress
from ..core.tables import table_text
from ..io.image_files import quiet
from ..models.choice import ChosenModels
from ..record.provenance import command_as_run
from ..record.score_record import read_result
from ..run import RunSettings
from ..scans.source import ScanSource
from . import journal as states
from .journal import ArchiveEntry, ArchiveJournal, WatchSettings, metrics_text
from .series import Archive, SeriesFilter, SeriesSummary
from .transfer import dicom_files, missing_in, pull, push_all, retry, wait_seconds

JOURNAL, TABLE, METRICS, LOCK = "journal.json", "watch.csv", "watch.prom", ".watch.lock"
SERIES, WORK = "series", ".work"
"""Folders in the output for pulled series and for incomplete results."""

WAITING = (states.ARRIVING, states.GROWN)
"""States of series whose images may still arrive."""

RESULTS = ("SR", "SEG")
"""Modalities of results that refer to the series."""

MANUFACTURER = "CAC"
"""Beginning of the manufacturer, or of the manufacturer's model, in the results."""

ATTEMPTS = 12
"""Number of attempts, over an hour in all, if the archive answers, but not about this series."""

CRASH_ATTEMPTS = 3
"""Number of attempts to score a scan whose process was killed by the system."""


Prepare = Callable[[], Callable[[tuple[Path, Path]], "str | None"]]
"""Function called in a worker process. It returns a function that scores a series' folder into another folder, and
returns the reason of a failure."""


@dataclass(frozen=True)
class Watch:
    """A watch with its folder of results.

    Attributes:
        archive: The archive.
        output: Folder of the watch.
        series_filter: Filter of the series to score.
        settings: Settings.
        journal: Journal in the folder.
        report: Called with messages.
        clock: Function like `time.time`.
        sleep: Function like `time.sleep`.
    """

    archive: Archive
    output: Path
    series_filter: SeriesFilter
    settings: WatchSettings
    journal: ArchiveJournal
    report: Callable[[str], None]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def run(self, prepare: Prepare) -> list[ArchiveEntry]:
        """Watch until nothing is left to do with `once`, otherwise endlessly. Returns the entries of all series."""
        self.journal.retry_failed()
        has_answered, failures = False, 0
        with Workers(1, prepare) as pool:
            while True:
                try:
                    summaries = self.archive.find_series(self.series_filter)
                    if failures or not has_answered:
                        self.journal.unsettle(self.clock())
                    has_answered, failures = True, 0
                    for entry in self.journal.observe(summaries, self.clock()):
                        self.report(f"CAUTION: Series {entry.number} grew. {entry.reason} Do not use its first result.")
                    is_idle = self._work(pool)
                except ArchiveError as error:
                    if error.lasting and not has_answered:  # after an answer, wait for a renewed token instead
                        raise
                    failures += 1
                    self.report(f"The archive cannot be used; trying again. {error}")
                    self._write_table(has_answered=False)
                    self.sleep(wait_seconds(failures))
                    continue
                finally:
                    self._write_table(has_answered=not failures)
                entries = list(self.journal)
                if self.settings.once and not any(entry.state in (*WAITING, states.SCORED) for entry in entries):
                    return entries
                if is_idle:
                    self.sleep(self.settings.poll_seconds)

    def _work(self, pool: Workers) -> bool:
        """Advance the series that are due until the next search; return True if there was none."""
        is_idle, start = True, self.clock()
        for entry in self.journal:
            now = self.clock()
            if now - start > self.settings.poll_seconds:
                break
            is_due = entry.state == states.SCORED or now - entry.since >= self.settings.settle_seconds
            if entry.state not in (*WAITING, states.SCORED) or entry.due > now or not is_due:
                continue
            is_idle = False
            try:
                self._advance(entry, pool)
            except ArchiveUnreachableError as error:
                self._postpone(entry, error)
                return False  # the next search shows whether only this series is affected
            except ArchiveUnauthorisedError:
                raise
            except CTError as error:
                self._settle(entry, states.FAILED, str(error))
            except OSError as error:
                raise OutputError(f"Cannot write to {self.output}: {error.strerror}. Make room and go on.") from error
        return is_idle

    def _advance(self, entry: ArchiveEntry, pool: Workers) -> None:
        result = self._result(entry)
        if entry.state == states.GROWN and result.exists():
            self._withdraw(entry, result)
        if not (result / LAST_FILE).exists():
            # The archive holds the result of a series that grew, too.
            if entry.state == states.ARRIVING and (exclusion := self._exclusion(entry.series)):
                self._settle(entry, *exclusion)
                return
            reason = self._score(entry, pool)
            if reason is not None:
                self._settle(entry, states.FAILED, reason)
                return
        if entry.state in WAITING:
            record = read_result(result)
            self.journal.settle(entry, states.SCORED, seconds=sum(record.seconds.values()))
            for warning in record.severe_warnings(f"Series {entry.number}"):
                self.report(f"CAUTION: {warning.message}")
        self._send(entry, result)

    def _exclusion(self, series: SeriesSummary) -> tuple[str, str] | None:
        """Return the state and reason of a series that is not scored; None otherwise. Raises ArchiveError."""
        facts = self.archive.image_facts(series)
        if not facts.is_ct_slice:
            return states.SKIPPED, "Its images are no CT slices."
        if not self.series_filter.matches_image(facts):
            thickness = facts.slice_thickness_mm
            return states.SKIPPED, "Its slice thickness is " + (
                "unknown." if thickness is None else f"{thickness:g} mm."
            )
        if self._has_results(series):
            return states.PRESENT, "The archive has results of it."
        return None

    def _has_results(self, series: SeriesSummary) -> bool:
        """Return True if the archive has CAC's report or segmentation of a series, from any watch."""
        for results in self.archive.find_series(SeriesFilter(study_uid=series.study_uid, modality=None)):
            if results.modality in RESULTS:
                contents: list[bytes] = []
                self.archive.retrieve(results, contents.append)
                if any(_is_about(content, series) for content in contents):
                    return True
        return False

    def _withdraw(self, entry: ArchiveEntry, result: Path) -> None:
        """Report the result of some of a series' images in the archive, and remove it here. Raises ArchiveError."""
        paths = sorted(result.glob("*.dcm"))
        files = dicom_files(paths) if paths else []
        lacking = retry(lambda: missing_in(self.archive, files))
        work = self.output / WORK
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        if [file for file in files if file not in lacking]:
            self.report(f"CAUTION: Delete the first result of series {entry.number} in the archive.")
        result.replace(work / "superseded")
        shutil.rmtree(work)

    def _score(self, entry: ArchiveEntry, pool: Workers) -> str | None:
        """Pull a series and score it into its folder. Returns the reason of a failure."""
        series_folder, result = self.output / SERIES / f"{entry.number:06d}", self._result(entry)
        if not series_folder.is_dir() or sum(1 for _ in series_folder.iterdir()) != entry.images:
            shutil.rmtree(series_folder, ignore_errors=True)
            if pull(self.archive, entry.series, series_folder) != entry.images:
                raise ArchiveUnreachableError("Its images are still arriving.")
        work = self.output / WORK
        for _ in range(CRASH_ATTEMPTS):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            [event] = [event for event in pool.run([(series_folder, work / result.name)]) if event.state != "begun"]
            if event.state == "done":
                break
        else:
            return f"Its process was ended {CRASH_ATTEMPTS} times. {event.reason}"
        if event.result is not None:
            return event.result
        _sync(work / result.name)
        (work / result.name).replace(result)
        sync_folder(self.output)
        return None

    def _send(self, entry: ArchiveEntry, result: Path) -> None:
        """Store the objects of a result that the archive lacks. Raises ArchiveError."""
        objects = sorted(result.glob("*.dcm"))
        if objects:
            push_all(self.archive, dicom_files(objects), Progress())
        self._settle(entry, states.DONE, None if objects else "Its result has no DICOM objects.", len(objects))

    def _settle(self, entry: ArchiveEntry, state: str, reason: str | None = None, objects: int | None = None) -> None:
        self.journal.settle(entry, state, reason, objects=objects)
        if not self.settings.keep:
            shutil.rmtree(self.output / SERIES / f"{entry.number:06d}", ignore_errors=True)
        outcome = f"{objects} objects sent" if state == states.DONE else reason
        self.report(f"Series {entry.number}: {state}. {outcome or ''}".rstrip())
        self._write_table()

    def _postpone(self, entry: ArchiveEntry, error: ArchiveError) -> None:
        if entry.failures + 1 >= ATTEMPTS:
            self._settle(entry, states.FAILED, str(error))
        else:
            self.journal.postpone(entry, self.clock() + wait_seconds(entry.failures + 1), str(error))

    def _result(self, entry: ArchiveEntry) -> Path:
        return self.output / f"{entry.number:06d}"

    def _write_table(self, has_answered: bool = True) -> None:
        columns = ("number", "state", "images", "objects", "folder", "reason")
        lines = []
        for entry in self.journal:
            folder = self._result(entry).name if entry.state in (states.SCORED, states.DONE) else None
            lines.append({**asdict(entry), "folder": folder})
        write_text_atomically(self.output / TABLE, table_text(columns, lines, guarded=True))
        write_text_atomically(self.output / METRICS, metrics_text(self.journal, has_answered))


def _is_about(content: bytes, series: SeriesSummary) -> bool:
    """Return True if a DICOM object is a result of CAC that refers to a series."""
    try:
        with quiet():
            dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
            makers = (str(dataset.get(name, "")) for name in ("Manufacturer", "ManufacturerModelName"))
            return any(maker.startswith(MANUFACTURER) for maker in makers) and any(
                element.keyword == "SeriesInstanceUID" and element.value == series.series_uid
                for element in dataset.iterall()
            )
    except Exception:  # foreign reports may be broken in any way
        return False


def _sync(folder: Path) -> None:
    """Flush the files of a folder to the disk."""
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


@contextmanager
def open_watch(output: Path, made_with: Mapping[str, object]) -> Iterator[ArchiveJournal]:
    """Make or reopen the folder of a watch with its journal, for one watch at a time.

    made_with: the settings, the models and the archive's address, as JSON. Raises OutputError if the folder has other
    content or settings, or another watch is using it.
    """
    with own_folder(output, JOURNAL, LOCK, "watch"):
        for folder in (output, output / SERIES):
            remove_partial(folder)
        shutil.rmtree(output / WORK, ignore_errors=True)
        yield ArchiveJournal(output / JOURNAL, made_with)


def prepare_series(settings: RunSettings, models: ChosenModels) -> Callable[[tuple[Path, Path]], str | None]:
    """Return a function that scores a series' folder into another folder, and returns the reason of a failure or
    None."""
    return partial(_score_series, prepare_scoring(settings, models, command_as_run()))


def _score_series(score: Callable[[ScanJob], ScanOutcome], job: tuple[Path, Path]) -> str | None:
    series, folder = job
    reason = score(ScanJob(ScanSource(folder.name, "", series), folder, "")).reason
    return None if reason is None else without_uids(reason)
