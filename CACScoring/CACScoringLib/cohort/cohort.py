"""Many scans scored by one command: on all cores, resumable, into one table. A scan that fails stops no other."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from ..core.ct import CTError, ScanWarning, UnreadableError
from ..core.output import LAST_FILE, OutputError, OutputFolder
from ..core.progress import Progress, ScanState
from ..io.reading import Series, find_series
from ..results import METHOD_TITLES
from ..run import ChosenModels, LoadedModels, ModelChoice, RunSettings, ScanInput, chosen_models, load_models, run_scan
from .folder import CohortFolder, forget, opened
from .memory import IDLE_BYTES, Asked, Plan, plan
from .scans import CohortScan, scans_of_folder, scans_of_table, search
from .table import as_csv, columns, failures_as_csv, result_row, scored
from .workers import Workers, sensible_count

TABLE_SECONDS = 2.0
"""How long the tables may lag behind."""

_ENDED = ("done", "skipped", "failed")
_TABLE_ENDINGS = (".csv", ".tsv", ".txt")
_UID = re.compile(r", UID [\d.]+|(?<=CT series) '(?!\d+(\.\d+)?')[^']*'")
"""In the words about the series of a folder, `reading.read_ct`; a series may be asked for by its number."""


def score_cohort(
    source: Path,
    output: Path,
    settings: RunSettings,
    choice: ModelChoice,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[ScanState]:
    """Score every CT below a folder (see `cohort.scans.search`), or those of a table (`cohort.scans.scans_of_table`).

    Called again after an interruption it goes on: results that are whole and no older than their scan are kept, scans
    that failed are tried again. workers: processes at work; None for one per core, as far as free memory has room for
    the scans (`cohort.memory`). A scan whose process the system ended is tried once more at the end, alone.
    overwrite: score all anew, whatever was there.

    Writes into `output` a folder per scan, `cohort.csv` (a row per scan, kept up to date), `failures.csv` and
    `cohort.json`. Returns what became of each scan. Raises OutputError when `output` holds results of other settings,
    and CTError when there is nothing to score or the models cannot be used.
    """
    progress = progress or Progress()
    if not source.is_dir() and not (source.is_file() and source.name.lower().endswith(_TABLE_ENDINGS)):
        raise UnreadableError(f"{source} is neither a folder nor a table (CSV). Use cac score for a single CT.")
    if workers is not None and workers < 1:
        raise OutputError(f"At least one worker is needed, not {workers}.")
    models = chosen_models(choice)
    progress.begin(["finding", "scans"])
    with opened(output, made_with(settings, models), overwrite) as folder:
        with progress.step("finding"):
            scans, found_warnings = _find(source, output, workers or sensible_count(IDLE_BYTES), progress)
        if not scans:
            raise UnreadableError(f"{source} holds no CT: no NIfTI, NRRD or MHA file and no DICOM series.")
        for warning in (*found_warnings, *models.warnings):
            progress.warning(warning)
        with progress.step("scans"):
            methods = list(METHOD_TITLES) if models.networks else ["threshold"]
            names = columns(methods, settings.identify, models.estimates)
            board = _Board(scans, folder, names, settings.identify, progress)
            asked = Asked(bool(models.networks), bool(models.estimates), settings.scene)
            board.score(partial(prepare_scoring, settings, models), plan(scans, asked, workers))
    return board.states


def made_with(settings: RunSettings, chosen: ChosenModels) -> dict:
    """What results depend on, as JSON: settings, models and their calibrations."""
    models = chosen.networks | chosen.estimates
    made_with = {
        "score": asdict(settings.score),
        "identify": settings.identify,
        "scene": settings.scene,
        **({} if settings.healthy else {"healthy": False}),
        **({"dicom": True} if settings.dicom else {}),
        "models": {network: f"{m.card.name} {m.card.sha256[:12]}" for network, m in sorted(models.items())},
        "calibrations": {network: _digest(m.card.calibration) for network, m in sorted(models.items())},
    }
    return json.loads(json.dumps(made_with, default=str))


def _digest(calibration: Mapping) -> str:
    return hashlib.sha256(json.dumps(calibration, sort_keys=True).encode()).hexdigest()[:12]


def _find(
    source: Path, output: Path, workers: int, progress: Progress
) -> tuple[list[CohortScan], tuple[ScanWarning, ...]]:
    if source.is_file():
        return scans_of_table(source)
    found = search(source, output)
    series: list[tuple[list[Series], int] | None] = [None] * len(found.folders)
    done = 0
    with Workers(min(workers, len(found.folders)), _series_finder) as pool, closing(pool.run(found.folders)) as events:
        for event in events:
            if event.state != "begun":
                series[event.index] = event.result
                done += 1
                progress.counted(done, len(found.folders))
    return scans_of_folder(source, found, series), found.warnings


def _series_finder() -> Callable[[Path], tuple[list[Series], int]]:
    return find_series


def prepare_scoring(settings: RunSettings, chosen: ChosenModels) -> Callable[[tuple[CohortScan, Path]], str | None]:
    """What a worker scores scans with, its networks loaded. All cores are at work already, so each keeps to one."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if chosen.networks:
        import torch

        torch.set_num_threads(1)
    return partial(_score, settings, load_models(chosen))


def _score(settings: RunSettings, models: LoadedModels, job: tuple[CohortScan, Path]) -> str | None:
    """Score a scan into its folder; returns why that failed, None when it did not."""
    scan, folder = job
    # Results are named as the cohort names the scan: files of many scans are called alike.
    given = ScanInput(scan.ct, scan.series, scan.heart, scan.lesions, name=folder.name)
    try:
        run_scan(given, settings, models, OutputFolder(folder, overwrite=True))
    except (CTError, OutputError) as error:
        return str(error)
    except OSError as error:
        return f"Reading or writing failed: {error.strerror} ({error.filename})."
    except MemoryError:
        return "Memory ran out. Score it with fewer --workers."
    except Exception as error:  # whatever a scan brings about, the other scans go on
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return f"Unexpected {type(error).__name__} at {place}: {error}. This is a fault of CAC: please report it."
    return None


class _Board:
    """What is known of every scan, told to the progress and kept in the tables."""

    def __init__(
        self,
        scans: Sequence[CohortScan],
        folder: CohortFolder,
        names: Sequence[str],
        identify: bool,
        progress: Progress,
    ) -> None:
        self._scans, self._folder, self._names = scans, folder, names
        self._identify, self._progress = identify, progress
        folders = folder.folders_of(scans)
        self.states = [ScanState(i, scan.name, folders[i], scan.ct, scan.series) for i, scan in enumerate(scans)]
        self._rows: list[dict[str, object]] = [{} for _ in scans]
        self._written = 0.0

    def score(self, prepare: Callable, shares: Plan) -> None:
        """Score what is not scored yet."""
        for state in self.states:
            self._progress.scan(state)
        try:
            todo = self._settle_known()
            self._write()
            lost = self._run(todo, prepare, shares)
            for i, code in self._run(list(lost), prepare, replace(shares, count=1), last=True).items():
                self._fail(i, f"Its process was ended {_how(code)}, also when it ran alone.")
        finally:
            written = self._write()
        if not written:
            path = self._folder.path
            raise OutputError(
                f"The tables in {path} cannot be replaced. Close them in other programs and run the command again."
            )

    def _settle_known(self) -> list[int]:
        """Settle scans that need no work; returns the others."""
        todo = []
        for i, (scan, state) in enumerate(zip(self._scans, self.states, strict=True)):
            if scan.fault:
                self._fail(i, scan.fault)
            elif content := self._folder.result(scan, state.folder):
                self._finish(i, "skipped", content)
            else:
                forget(state.folder)
                todo.append(i)
        return todo

    def _run(self, todo: list[int], prepare: Callable, shares: Plan, last: bool = False) -> dict[int, int]:
        """Score scans; returns those whose process was ended, with its exit code. last: they are not tried again."""
        lost = {}
        jobs = [(self._scans[i], self.states[i].folder) for i in todo]
        needs = [shares.needs[i] for i in todo]
        pool = Workers(min(shares.count, len(jobs)), prepare, shares.budget)
        with pool, closing(pool.run(jobs, needs)) as events:
            for event in events:
                i = todo[event.index]
                if event.state == "begun":
                    self._tell(replace(self.states[i], state="running", reason=None))
                elif event.state == "lost":
                    lost[i] = event.exit_code
                    if not last:
                        reason = (
                            f"Its process was ended {_how(event.exit_code)}. It will be tried again at the end, alone."
                        )
                        self._tell(replace(self.states[i], state="waiting", reason=reason))
                elif event.result is not None:
                    self._fail(i, event.result)
                else:
                    content = json.loads((self.states[i].folder / LAST_FILE).read_text(encoding="utf-8"))
                    self._finish(i, "done", content)
        return lost

    def _finish(self, i: int, state: str, content: dict) -> None:
        self._rows[i] = result_row(content)
        self._tell(scored(replace(self.states[i], state=state), content))

    def _fail(self, i: int, reason: str) -> None:
        reason = reason if self._identify else without_uids(reason)
        self._tell(replace(self.states[i], state="failed", reason=reason))

    def _tell(self, state: ScanState) -> None:
        self.states[state.index] = state
        self._progress.scan(state)
        if state.state in _ENDED:
            self._progress.counted(sum(state.state in _ENDED for state in self.states), len(self.states))
        if time.monotonic() - self._written > TABLE_SECONDS:
            self._write()

    def _write(self) -> bool:
        table = as_csv(self._scans, self.states, self._rows, self._names)
        written = self._folder.write(table, failures_as_csv(self._scans, self.states))
        self._written = time.monotonic()
        return written


def without_uids(reason: str) -> str:
    """Why a scan could not be scored, without the UIDs of series, which identify a person."""
    return _UID.sub("", reason)


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"by {name}" + (", as systems do when memory runs out" if name == "SIGKILL" else "")
