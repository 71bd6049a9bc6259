"""New CT series of an archive, each scored once, and its results sent back, also where either side is restarted.

Every step is entered in the journal when it is done and not before, and every step may be done twice without harm: a
series is pulled into a folder that is whole or not there, a result is moved to its place as a whole, and results have
the same UIDs each time, so that an archive that is sent them again has them once.
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
from ..cohort.scans import CohortScan
from ..cohort.scoring import ScanJob, ScanOutcome, prepare_scoring
from ..cohort.workers import Workers
from ..core.ct import CTError
from ..core.files import LAST_FILE, OutputError, remove_partial, sync_folder, write_text_atomically
from ..core.progress import Progress
from ..core.tables import table_text
from ..io.image_files import quiet
from ..models.choice import ChosenModels
from ..run import RunSettings
from .address import ArchiveError, ArchiveUnauthorisedError, ArchiveUnreachableError
from .files import dicom_files, pull
from .journal import ARRIVING, DONE, FAILED, GROWN, PRESENT, SCORED, SKIPPED, Entry, Journal, WatchSettings
from .series import Archive, FoundSeries, SeriesFilter
from .transfer import push_all, wait_seconds

JOURNAL, TABLE, LOCK = "journal.json", "watch.csv", ".watch.lock"
SERIES, WORK = "series", ".work"
"""Folders within the output: of pulled series, and of results that are not whole."""

RESULTS = ("SR", "SEG")
"""Modalities of results that refer to the series."""

MAKER = "CAC"
"""Begins the manufacturer or the manufacturer's model of the results."""

FAILURES = 12
"""How often a series is tried where the archive answers, but not about it: over an hour."""

LOST = 3
"""How often a scan is tried whose process the system ended."""


Prepare = Callable[[], Callable[[tuple[Path, Path]], "str | None"]]
"""Called in a process of its own; returns what scores a series, given as a folder, into a folder, and says why it could
not."""


@dataclass(frozen=True)
class Watch:
    """A folder with a journal and results. clock, sleep: of `time`, but for tests. report: called with what happens."""

    archive: Archive
    output: Path
    wanted: SeriesFilter
    settings: WatchSettings
    journal: Journal
    report: Callable[[str], None]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def run(self, prepare: Prepare) -> list[Entry]:
        """Watch until nothing is to be done (`once`), else without end. Returns what is known of every series."""
        self.journal.retry_failed()
        answered, silent = False, 0
        with Workers(1, prepare) as pool:
            while True:
                try:
                    found = self.archive.find_series(self.wanted)
                    if silent or not answered:
                        self.journal.unsettle(self.clock())
                    answered, silent = True, 0
                    self.journal.observe(found, self.clock())
                    at_rest = self._work(pool)
                except ArchiveError as error:
                    if error.lasting and not answered:  # tokens that have run out are renewed in time
                        raise
                    silent += 1
                    self.report(f"The archive cannot be used; trying again. {error}")
                    self.sleep(wait_seconds(silent))
                    continue
                finally:
                    self._write_table()
                entries = list(self.journal)
                if self.settings.once and not any(entry.state in (ARRIVING, SCORED) for entry in entries):
                    return entries
                if at_rest:
                    self.sleep(self.settings.poll_seconds)

    def _work(self, pool: Workers) -> bool:
        """Do what can be done now; whether that was nothing."""
        at_rest = True
        for entry in self.journal:
            now = self.clock()
            settled = entry.state == SCORED or now - entry.since >= self.settings.settle_seconds
            if entry.state not in (ARRIVING, SCORED) or entry.due > now or not settled:
                continue
            at_rest = False
            try:
                self._advance(entry, pool)
            except ArchiveUnreachableError as error:
                self._postpone(entry, error)
                return False  # the next search shows whether it is the archive, or this series
            except ArchiveUnauthorisedError:
                raise
            except CTError as error:
                self._settle(entry, FAILED, str(error))
            except OSError as error:
                raise OutputError(f"Cannot write to {self.output}: {error.strerror}. Make room and go on.") from error
        return at_rest

    def _advance(self, entry: Entry, pool: Workers) -> None:
        result = self._result(entry)
        if not (result / LAST_FILE).exists():
            unwanted = self._why_not(entry.series)
            if unwanted:
                self._settle(entry, *unwanted)
                return
            reason = self._score(entry, pool)
            if reason is not None:
                self._settle(entry, FAILED, reason)
                return
        if entry.state == ARRIVING:
            self.journal.settle(entry, SCORED)
        self._send(entry, result)

    def _why_not(self, series: FoundSeries) -> tuple[str, str] | None:
        """State and reason where a series is not to be scored. Raises ArchiveError."""
        facts = self.archive.image_facts(series)
        if not facts.is_ct_slice:
            return SKIPPED, "Its images are no CT slices."
        if not self.wanted.matches_image(facts):
            known = facts.slice_thickness_mm
            return SKIPPED, "Its slice thickness is " + ("unknown." if known is None else f"{known:g} mm.")
        if self._has_results(series):
            return PRESENT, "The archive has results of it."
        return None

    def _has_results(self, series: FoundSeries) -> bool:
        """True if the archive has a report or a segmentation of ours about a series, from whichever watch."""
        for other in self.archive.find_series(SeriesFilter(study_uid=series.study_uid, modality=None)):
            if other.modality in RESULTS:
                seen: list[bool] = []
                self.archive.retrieve(other, lambda content, seen=seen: seen.append(_is_about(content, series)))
                if any(seen):
                    return True
        return False

    def _score(self, entry: Entry, pool: Workers) -> str | None:
        """Pull and score a series into its folder; returns why that failed."""
        pulled, result = self.output / SERIES / f"{entry.number:06d}", self._result(entry)
        if not pulled.is_dir() or sum(1 for _ in pulled.iterdir()) != entry.images:
            shutil.rmtree(pulled, ignore_errors=True)
            if pull(self.archive, entry.series, pulled) != entry.images:
                raise ArchiveUnreachableError("Its images are still arriving.")
        work = self.output / WORK
        for _ in range(LOST):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            [event] = [event for event in pool.run([(pulled, work / result.name)]) if event.state != "begun"]
            if event.state == "done":
                break
        else:
            return f"Its process was ended {LOST} times. {event.reason}"
        if event.result is not None:
            return event.result
        _sync(work / result.name)
        (work / result.name).replace(result)
        sync_folder(self.output)
        return None

    def _send(self, entry: Entry, result: Path) -> None:
        """Store what the archive lacks of a result, and make sure that it has all. Raises ArchiveError."""
        objects = sorted(result.glob("*.dcm"))
        if objects:
            push_all(self.archive, dicom_files(objects), Progress())
        self._settle(entry, DONE, None if objects else "Its result has no DICOM objects.", len(objects))

    def _settle(self, entry: Entry, state: str, reason: str | None = None, objects: int | None = None) -> None:
        self.journal.settle(entry, state, reason, objects)
        if not self.settings.keep:
            shutil.rmtree(self.output / SERIES / f"{entry.number:06d}", ignore_errors=True)
        outcome = f"{objects} objects sent" if state == DONE else reason
        self.report(f"Series {entry.number}: {state}. {outcome or ''}".rstrip())
        self._write_table()

    def _postpone(self, entry: Entry, error: ArchiveError) -> None:
        if entry.failures + 1 >= FAILURES:
            self._settle(entry, FAILED, str(error))
        else:
            self.journal.postpone(entry, self.clock() + wait_seconds(entry.failures + 1), str(error))

    def _result(self, entry: Entry) -> Path:
        return self.output / f"{entry.number:06d}"

    def _write_table(self) -> None:
        columns = ("number", "state", "images", "objects", "folder", "reason")
        lines = []
        for entry in self.journal:
            folder = self._result(entry).name if entry.state in (SCORED, DONE, GROWN) else None
            lines.append({**asdict(entry), "folder": folder})
        write_text_atomically(self.output / TABLE, table_text(columns, lines, guarded=True))


def _is_about(content: bytes, series: FoundSeries) -> bool:
    """True if a DICOM object is a result of ours that refers to a series."""
    try:
        with quiet():
            dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
            makers = (str(dataset.get(name, "")) for name in ("Manufacturer", "ManufacturerModelName"))
            return any(maker.startswith(MAKER) for maker in makers) and any(
                element.keyword == "SeriesInstanceUID" and element.value == series.series_uid
                for element in dataset.iterall()
            )
    except Exception:  # reports of others may be broken in any way, and are none of ours
        return False


def _sync(folder: Path) -> None:
    """See the files of a folder onto the disk."""
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


@contextmanager
def open_watch(output: Path, made_with: Mapping) -> Iterator[Journal]:
    """Make or reopen the folder of a watch, for one watch at a time, and its journal.

    made_with: the settings, the models and the archive's address, as JSON.
    Raises OutputError when it holds something else or results of other settings, or another watch is at work in it.
    """
    with own_folder(output, JOURNAL, LOCK, "watch"):
        for folder in (output, output / SERIES):
            remove_partial(folder)
        shutil.rmtree(output / WORK, ignore_errors=True)
        yield Journal(output / JOURNAL, made_with)


def prepare_series(settings: RunSettings, chosen: ChosenModels) -> Callable[[tuple[Path, Path]], str | None]:
    """Return the function that scores a series in a folder into another one, as a cohort does; it returns why that
    failed, None when it did not."""
    return partial(_score_series, prepare_scoring(settings, chosen))


def _score_series(score: Callable[[ScanJob], ScanOutcome], job: tuple[Path, Path]) -> str | None:
    series, folder = job
    reason = score(ScanJob(CohortScan(folder.name, series, folder.name), folder, "")).reason
    return None if reason is None else without_uids(reason)
