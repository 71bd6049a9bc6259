"""Scoring of many scans by one command: parallel, resumable, with one table. A failed scan does not stop others."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ..core.ct import ScanWarning
from ..core.errors import OutputError, UnreadableError
from ..core.files import LAST_FILE, write_text_atomically
from ..core.progress import Progress, ScanState
from ..core.tables import table_text
from ..core.text import abbreviated_list
from ..core.version import available_memory_bytes
from ..core.warning_codes import ADVICE
from ..models.cards import Calibration
from ..models.choice import ChosenModels, ModelChoice, chosen_models
from ..record.provenance import command_as_run
from ..results import METHOD_TITLES
from ..run import RunSettings
from ..scans.folder import Listing, listing_of, scans_of_folder, search
from ..scans.source import ScanSource
from ..scans.table import scans_of_table
from .dictionary import FILE as DICTIONARY
from .dictionary import all_tables, dictionary_text
from .folder import RECORD, CohortFolder, open_cohort, scan_digests
from .reviewed import scan_row
from .scoring import ScanJob, ScanOutcome, prepare_scoring, read_record
from .table import columns, failures_as_csv, line, with_scores
from .workers import LOCAL, Workers, chosen_cluster, sensible_count

TABLE_SECONDS = 2.0
"""Minimum interval between two writes of the tables; longer for many scans, see TABLE_PART."""

TABLE_PART = 0.05
"""Maximum fraction of the time spent on writing the tables before the end."""

_FINAL_STATES = ("done", "skipped", "failed")
_TABLE_ENDINGS = (".csv", ".tsv", ".txt")
_UID = re.compile(r", UID [\d.]+|(?<=CT series) '(?!\d+(\.\d+)?')[^']*'")
"""UIDs in messages of `reading.read_ct` about a folder's series; numbers of series are kept."""
_PATIENT = re.compile(r", patient [^\n]*, acquired [^\n]*(?=, in )")
"""Patient and acquisition in these messages (`series_rule.SeriesFacts.origin`)."""


def score_cohort(
    source: Path,
    output: Path,
    settings: RunSettings,
    choice: ModelChoice,
    count: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[ScanState]:
    """Score every CT below a folder (see `scans.folder.search`) or of a table (see `scans.table.scans_of_table`).

    Another call after an interruption resumes: complete results of the same content and settings are kept, and failed
    scans are retried. After a new calibration of the same networks results are scored again by their facts, without CT
    and networks; where these do not hold what it needs, the scan is scored anew. A scan whose worker died is retried
    alone at the end.

    Writes into `output` a folder per scan, `cohort.csv` (a row per scan, kept up to date), `failures.csv`,
    `dictionary.csv` (meaning of all columns) and `cohort.json`.

    Args:
        source: Folder or table.
        output: Folder of the results.
        settings: Settings of scoring.
        choice: Choice of models.
        count: Number of workers; None for as many as the cluster has, or as this machine's memory allows.
        overwrite: Score all scans again.
        progress: Receiver of progress.

    Returns:
        State of each scan.

    Raises:
        OutputError: `output` holds results of other settings.
        CTError: There is nothing to score, or models or cluster cannot be used.
    """
    progress = progress or Progress()
    _check_source(source)
    if count is not None and count < 1:
        raise OutputError(f"At least one worker is needed, not {count}.")
    local = chosen_cluster() == LOCAL
    count = count or (sensible_count() if local else None)
    models = chosen_models(choice)
    progress.begin(["finding", "scans"])
    with open_cohort(output, settings_record(settings, models), overwrite, local) as folder:
        with progress.step("finding"):
            scans, warnings = scans_of(source, output, count, progress)
        _require_scans(scans, source)
        for warning in (*warnings, *models.warnings):
            progress.warning(warning)
        with progress.step("scans"):
            methods = list(METHOD_TITLES) if models.networks else ["threshold"]
            names = columns(methods, settings.identify, models.estimates)
            write_text_atomically(output / DICTIONARY, dictionary_text(all_tables(settings.identify, names)))
            board = _ScanBoard(scans, folder, names, settings.identify, progress)
            prepare = partial(prepare_scoring, settings, models, command_as_run())
            workers = Workers(count, prepare, available_memory_bytes(), progress.warning)
            board.score(workers)
        for warning in (*_repeated(scans, board.states), *_cautions(board.states)):
            progress.warning(warning)
    return board.states


def listed_scans(
    source: Path, output: Path, count: int | None = None, progress: Progress | None = None
) -> list[tuple[ScanSource, bool]]:
    """List the scans that `score_cohort` would score, and whether they have a result; write nothing.

    Results of other settings or of changed files count too. Arguments and errors are those of `score_cohort`.
    """
    progress = progress or Progress()
    _check_source(source)
    progress.begin(["finding"])
    with progress.step("finding"):
        scans, warnings = scans_of(source, output, count or sensible_count(), progress)
    _require_scans(scans, source)
    for warning in warnings:
        progress.warning(warning)
    record = output / RECORD
    names = {digest: name for name, digest in scan_digests(record).items()} if record.exists() else {}
    return [(scan, scan.label in names and (output / names[scan.label] / LAST_FILE).is_file()) for scan in scans]


def _check_source(source: Path) -> None:
    """Raise UnreadableError for what is neither a folder nor a table."""
    if not source.exists():
        raise UnreadableError(f"{source} does not exist. Check the path.")
    if not source.is_dir() and not (source.is_file() and source.name.lower().endswith(_TABLE_ENDINGS)):
        raise UnreadableError(f"{source} is neither a folder nor a table (CSV). Use cac score for a single CT.")


def _require_scans(scans: Sequence[ScanSource], source: Path) -> None:
    if not scans:
        raise UnreadableError(f"{source} holds no CT: no NIfTI, NRRD or MHA file and no DICOM series.")


def _cautions(states: Sequence[ScanState]) -> list[ScanWarning]:
    """One severe warning per code, with the names of the scans that have it."""
    first = {warning.code: warning for state in reversed(states) for warning in state.severe}
    cautions = []
    for code, warning in first.items():
        names = [state.name for state in states if code in {severe.code for severe in state.severe}]
        message = f"{code} in {len(names)} of {len(states)} scans: {abbreviated_list(names)}. {ADVICE.get(code, '')}"
        cautions.append(replace(warning, message=message.rstrip()))
    return cautions


def _repeated(scans: Sequence[ScanSource], states: Sequence[ScanState]) -> list[ScanWarning]:
    """Warn of scans whose files are the same."""
    groups: dict[str, list[str]] = {}
    for scan, state in zip(scans, states, strict=True):
        if record := read_record(state.folder):
            groups.setdefault(record.content, []).append(scan.name)
    repeated = abbreviated_list(" = ".join(names) for names in groups.values() if len(names) > 1)
    return [ScanWarning("scans-repeated", f"Scans hold the same files: {repeated}.")] if repeated else []


def settings_record(settings: RunSettings, models: ChosenModels) -> dict[str, object]:
    """Return what results depend on, as JSON: settings, models and their calibrations."""
    cards = {network: model.card for network, model in sorted((models.networks | models.estimates).items())}
    record = {
        "score": asdict(settings.score),
        "identify": settings.identify,
        "scene": settings.scene,
        **{name: value for name in ("healthy", "dicom", "reader") if (value := getattr(settings, name))},
        "models": {network: f"{card.name} {card.sha256[:12]}" for network, card in cards.items()},
        "calibrations": {network: _digest(card.calibration) for network, card in cards.items()},
    }
    return json.loads(json.dumps(record, default=str))


def _digest(calibration: Calibration) -> str:
    return hashlib.sha256(json.dumps(calibration, sort_keys=True).encode()).hexdigest()[:12]


def scans_of(
    source: Path, output: Path, count: int | None, progress: Progress
) -> tuple[list[ScanSource], tuple[ScanWarning, ...]]:
    """Return the scans of a table or below a folder, and warnings. Raises TableError.

    output: Folder of results, which is not searched. count: Processes that read the folders' DICOM headers.
    """
    if source.is_file():
        return scans_of_table(source)
    places = search(source, output)
    listings: list[Listing] = [None] * len(places.folders)
    pool = Workers(count, lambda: listing_of)
    with pool, closing(pool.run(places.folders)) as events:
        for done, event in enumerate((event for event in events if event.state != "begun"), 1):
            listings[event.index] = event.result
            progress.counted(done, len(listings))
    return scans_of_folder(source, places, listings), places.warnings


class _ScanBoard:
    """State of every scan, reported to the progress and written into the tables."""

    def __init__(
        self,
        scans: Sequence[ScanSource],
        folder: CohortFolder,
        names: Sequence[str],
        identify: bool,
        progress: Progress,
    ) -> None:
        self._scans, self._folder, self._names = scans, folder, names
        self._identify, self._progress = identify, progress
        folders = folder.folders_of(scans)
        self.states = [ScanState(i, scan.name, folders[i], scan.ct, scan.series) for i, scan in enumerate(scans)]
        self._lines = [line(scan, state, {}, names) for scan, state in zip(scans, self.states, strict=True)]
        self._final_count = 0
        self._begun: tuple[float, int] | None = None
        """Time at which scoring began, and the number of final scans then."""
        self._next_write = 0.0

    def score(self, workers: Workers) -> None:
        """Score all scans without a result."""
        for state in self.states:
            self._progress.scan(state)
        self._progress.counted(0, len(self.states))
        try:
            with workers:
                pending = self._settle_existing()
                self._write()
                lost = self._run(pending, workers)
                for i, reason in self._run([*lost], workers, last=True).items():
                    self._fail(i, f"{reason} It did so also when it ran alone.", "worker-lost")
        finally:
            has_written = self._write()
        if not has_written:
            path = self._folder.path
            raise OutputError(
                f"The tables in {path} cannot be replaced. Close them in other programs and run the command again."
            )

    def _settle_existing(self) -> list[int]:
        """Set the states of scans that need no scoring; return the indices of the others."""
        pending, damaged = [], []
        for i, (scan, state) in enumerate(zip(self._scans, self.states, strict=True)):
            outcome = None
            try:
                outcome = None if scan.fault else self._folder.result(scan, state.folder)
            except UnreadableError:
                damaged.append(f"{state.folder.name}/{LAST_FILE}")
            if scan.fault:
                self._fail(i, scan.fault, "series")
            elif outcome:
                self._finish(i, outcome)
            else:
                pending.append(i)
        if damaged:
            count, names = len(damaged), abbreviated_list(damaged)
            message = f"{count} results are damaged, and these scans are scored again: {names}."
            self._progress.warning(ScanWarning("results-damaged", message))
        return pending

    def _run(self, pending: list[int], workers: Workers, last: bool = False) -> dict[int, str]:
        """Score scans. Returns reasons for scans whose worker died. last: score alone, without another attempt."""
        self._begun = time.monotonic(), self._final_count
        lost = {}
        key, marker = self._folder.settings_key, self._folder.path / RECORD
        former = self._folder.former_keys
        jobs = [ScanJob(self._scans[i], self.states[i].folder, key, marker, former) for i in pending]
        with closing(workers.run(jobs, alone=last)) as events:
            for event in events:
                i = pending[event.index]
                if event.state == "begun":
                    self._update(replace(self.states[i], state="running", reason=None))
                elif event.state == "lost":
                    lost[i] = event.reason
                    if not last:
                        reason = f"{event.reason} It will be tried again at the end, alone."
                        self._update(replace(self.states[i], state="waiting", reason=reason))
                else:
                    self._finish(i, event.result)
        return lost

    def _finish(self, i: int, outcome: ScanOutcome) -> None:
        if outcome.scores is None:
            return self._fail(i, outcome.reason or "", outcome.code)
        state = replace(self.states[i], state="skipped" if outcome.reused else "done")
        state = replace(state, by_facts=outcome.by_facts, facts_fault=outcome.facts_fault)
        record, row = scan_row(state.folder, outcome.scores)
        self._update(with_scores(state, record), row)

    def _fail(self, i: int, reason: str, code: str) -> None:
        reason = reason if self._identify else _without_uids(reason)
        self._update(replace(self.states[i], state="failed", reason=reason, code=code))

    def _update(self, state: ScanState, row: dict[str, object] | None = None) -> None:
        self.states[state.index] = state
        self._lines[state.index] = line(self._scans[state.index], state, row or {}, self._names)
        self._progress.scan(state)
        if state.state in _FINAL_STATES:
            self._final_count += 1
            self._progress.counted(self._final_count, len(self.states), self._seconds_left())
        if time.monotonic() > self._next_write:
            self._write()

    def _seconds_left(self) -> float | None:
        """Return how long the remaining scans take as those scored now; None before the first."""
        if self._begun is None:
            return None
        start, before = self._begun
        return (time.monotonic() - start) / (self._final_count - before) * (len(self.states) - self._final_count)

    def _write(self) -> bool:
        start = time.monotonic()
        table = table_text(self._names, ()) + "".join(self._lines)
        written = self._folder.write(table, failures_as_csv(self._scans, self.states))
        now = time.monotonic()
        self._next_write = now + max(TABLE_SECONDS, (now - start) / TABLE_PART)
        return written


def _without_uids(reason: str) -> str:
    """Return the reason of a failure without UIDs of series, patients and dates, which identify a person."""
    return _PATIENT.sub("", _UID.sub("", reason))
