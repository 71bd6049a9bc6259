"""The study of vessel regression: every network of `vessels.plan`, cross-validated and judged once, and its page.

What a training foretold is kept as a line of JSON, so that the study goes on where it stopped and its page can be made
again without training.
"""

from __future__ import annotations

import csv
import datetime
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import Progress

from ...experiments.errors import StudyError
from ...experiments.jobs import TIME_IS_UP, InTime, JobSettings, PagesBetween, Prepared, kept_jobs, kept_results
from ...report.page import write_study
from ...report.parts import Section
from ...statistics.measures import RESAMPLES
from ..scan_table import ARTERIES, TableScan, read_scan_table, table_hash
from ..split import folds, learned_and_tested
from . import checks
from .plan import SHOWN, Cell, Chosen, Effort, Job, cells_of, chosen_of, chosen_tables, grid_jobs, jobs_of
from .results import Result, Study, read_result
from .scans import Known, data_section, read_scans
from .study_training import Data, trainer
from .tables import errors_section, goals_section, models_section, shown

KEPT = "trainings.jsonl"
"""In the output folder: what each training foretold, a line each."""
PREDICTIONS = "predictions.csv"
"""In the output folder: what each network of the main table foretold of those it did not learn from."""


@dataclass(frozen=True)
class VesselStudySettings:
    """data: table of scans, or a cohort's folder. test: to test on; None: a fifth of data. others: of patients whose
    calcium lies elsewhere only. tables: names in `whole_scan.vessels.plan.TABLES`; none: all. minutes: after which no
    training begins; 0 only makes the page. cache: where prepared scans are kept; None: in the output folder. Trainings
    run on one processor core each.
    """

    data: Path
    output: Path
    test: Path | None = None
    others: Path | None = None
    tables: tuple[str, ...] = ()
    effort: Effort = field(default_factory=Effort)
    minutes: float | None = None
    workers: int = 1
    device: str = "cpu"
    cache: Path | None = None


Trainer = Callable[[Data, Effort], Prepared]
"""Prepares, in a process of its own, what does a `vessels.plan.Job` (see `vessels.study_training.trainer`)."""


def evaluate_vessels(
    settings: VesselStudySettings,
    progress: Progress | None = None,
    train: Trainer = trainer,
    read: Callable[..., Known] = read_scans,
) -> Path:
    """Train what is not yet kept, write `study.html` with its tables and figures, and return the page.

    train, read: what trains and what prepares the scans; train is picklable. A training that fails is said on the page
    and stops nothing. Raises StudyError, TableError, OutputError, and CTError where no scan can be prepared.
    """
    progress = progress or Progress()
    started = time.time()
    tables = chosen_tables(settings.tables)
    progress.begin(["scans", "trainings", "page"])
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write to {settings.output}: {error.strerror}. Choose another --output.") from error
    with progress.step("scans"):
        whole = _read(settings, tables, read, progress)
    with progress.step("trainings"):
        limit = None if settings.minutes is None else started + 60 * settings.minutes
        prepare = partial(InTime, partial(train, whole.data, whole.settings.effort), limit)
        work = JobSettings(settings.workers, settings.device, PagesBetween(progress, partial(whole.write_page, {})))
        failed: dict[str, str] = {}
        for jobs in (whole.grid_jobs, whole.jobs):  # the second take what the first chose
            todo = {whole.key(job): job for job in jobs()}
            _, reasons = kept_jobs(todo, settings.output / KEPT, prepare, work)
            failed |= {f"{todo[key].cell.name}, fold {todo[key].fold + 1}": why for key, why in reasons.items()}
    with progress.step("page"):
        reasons = {name: why for name, why in failed.items() if why != TIME_IS_UP}
        for reason in sorted(set(reasons.values())):
            progress.warning(ScanWarning("training-failed", f"A training failed: {reason}"))
        return whole.write_page(reasons)


def _read(settings: VesselStudySettings, tables: tuple[str, ...], read: Callable[..., Known], progress) -> _Whole:
    given = [read_scan_table(path) if path else () for path in (settings.data, settings.test)]
    without = [tuple(scan for scan in table if not scan.contrast) for table in given]
    if any(table and not plain for table, plain in zip(given, without, strict=True)):
        raise StudyError("There is no scan without contrast agent. Scores are foretold of such.")
    plain, training, test = learned_and_tested(*without)
    others: tuple[TableScan, ...] = ()
    if settings.others is not None:
        patients = {scan.patient for scan in plain}
        asked = read_scan_table(settings.others, scored=False)
        # Of whom a network may have learned, and those who have coronary calcium after all, it would say nothing.
        others = tuple(scan for scan in asked if scan.patient not in patients and not scan.total)
        if not others:
            raise StudyError(
                f"None of the {len(asked)} scans of --others is of a new patient without coronary calcium."
            )
    cache = settings.cache or settings.output / "prepared"
    known = read(plain, others, test, settings.effort, cache, settings.workers, progress)
    if not known.digital:  # where calcium lies is not known
        effort = settings.effort
        kinds = tuple(kind for kind in effort.kinds if kind != SHOWN)
        settings = replace(settings, effort=replace(effort, kinds=kinds))
    there = set(known.scans.names)
    rest = [scan for scan in plain if scan.name in there and scan.name in set(training)]
    split = folds(rest, settings.effort.folds, settings.effort.seed)
    data = Data(
        known.inputs,
        {name: tuple(map(float, scores)) for name, scores in zip(known.scans.names, known.scans.agatston, strict=True)},
        tuple((tuple(outside), tuple(inside)) for outside, inside in split),
        tuple(name for name in test if name in there),
        () if known.others is None else known.others.names,
        known.looked_at,
        settings.output,
        settings.device,
    )
    if not data.test:
        raise StudyError("None of the scans that were held out could be prepared.")
    left_out = sum(map(len, given)) - len(plain)
    return _Whole(settings, tables, known, data, f"{table_hash(plain)[:16]} {table_hash(others)[:16]}", left_out)


@dataclass(frozen=True)
class _Whole:
    """The study as it is, and its page. stamp: stands for the tables. with_contrast: how many scans were left out."""

    settings: VesselStudySettings
    tables: tuple[str, ...]
    known: Known
    data: Data
    stamp: str
    with_contrast: int

    def key(self, job: Job) -> str:
        failed = sorted(self.known.failed)
        # Only what the job uses is in its key: without judging, other patients change nothing.
        of = self.stamp if job.judged else self.stamp.partition(" ")[0]
        return job.key(self.settings.effort, f"{of} {failed}" if failed else of)

    def grid_jobs(self) -> list[Job]:
        return grid_jobs(self.settings.effort) if "grid" in self.tables else []

    def grid(self) -> tuple[dict[Cell, Result], set[str]]:
        """What there is of it, and the kinds of which nothing is to come."""
        kept, jobs = kept_results(self.settings.output / KEPT), self.grid_jobs()
        lacking = {job.cell.kind for job in jobs if self.key(job) not in kept}
        found = {cell: results[0] for cell, results in self._results(jobs).items()}
        return found, {cell.kind for cell in found} - lacking

    def chosen(self) -> Chosen:
        """Of the kinds whose grid is whole."""
        found, whole = self.grid()
        study = self.study
        return chosen_of({cell: study.error_of(one.validation) for cell, one in found.items() if cell.kind in whole})

    def jobs(self) -> list[Job]:
        """What can be trained by now: with a grid, what it chose for."""
        chosen = self.chosen()
        jobs = jobs_of(self.tables, self.settings.effort, chosen)
        return [job for job in jobs if job.cell.kind in chosen] if "grid" in self.tables else jobs

    @cached_property
    def study(self) -> Study:
        rows = self.known.scans.rows(self.data.test)
        return Study(self.known.scans, self.known.others, self.data.folds, rows, self.settings.effort.seed)

    def _results(self, jobs: Sequence[Job]) -> dict[Cell, list[Result]]:
        kept = kept_results(self.settings.output / KEPT)
        found: dict[Cell, list[Result]] = {}
        for job in jobs:
            if (key := self.key(job)) in kept and "useless" not in kept[key]:
                result = read_result(self.known.scans, self.known.others, kept[key])
                found.setdefault(job.cell, []).append(result)
        return {cell: sorted(results, key=lambda result: result.fold) for cell, results in found.items()}

    def write_page(self, failed: Mapping[str, str]) -> Path:
        """failed: trainings that failed, and why."""
        effort, study = self.settings.effort, self.study
        grid, chosen = self.grid()[0], self.chosen()
        results = self._results(jobs_of(self.tables, effort, chosen))
        models = cells_of("models", effort, chosen)
        page = shown(study, results, models, effort.folds_of("models"))
        sections: list[Section | None] = [
            goals_section(page),
            data_section(self.known, self.data, self.with_contrast, failed),
            models_section(page),
            errors_section(page),
            checks.control_section(page),
            checks.saliency_section(page, self.settings.output),
        ]
        for table in ("augmentation", "published"):
            if table in self.tables:
                cells = cells_of(table, effort, chosen)
                sections.append(checks.variants_section(page, table, cells, effort.folds_of(table)))
        if "grid" in self.tables:
            cells = [job.cell for job in self.grid_jobs()]
            sections.append(checks.grid_section(study, grid, cells, chosen))
        self._write_predictions(page.models, results)
        title = "Coronary calcium by vessel regression: how well scores are told without finding lesions"
        facts = self._facts(list(results.values()) + [[one] for one in grid.values()])
        return write_study(self.settings.output, title, list(filter(None, sections)), facts, self.known.digital)

    def _write_predictions(self, models: Sequence[Cell], results: Mapping[Cell, Sequence[Result]]) -> None:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        scores = [f"{what}_{artery}" for what in ("true", "foretold") for artery in ARTERIES]
        writer.writerow(("network", "fold", "scan", "patient", "use", *scores))
        for cell in models:
            for result in results.get(cell, ()):
                for use, part, of in (
                    ("validation", result.validation, self.known.scans),
                    ("held out", result.test, self.known.scans),
                    ("others", result.others, self.known.others),
                ):
                    for row, foretold in zip(part.rows, part.agatston, strict=True) if part is not None else ():
                        true = [round(float(score), 2) for score in of.agatston[row]]
                        place = (cell.title, result.fold + 1, of.names[row], of.patients[row], use)
                        writer.writerow((*place, *true, *(round(float(score), 2) for score in foretold)))
        write_text_atomically(self.settings.output / PREDICTIONS, stream.getvalue())

    def _facts(self, results: Sequence[Sequence[Result]]) -> dict[str, str]:
        effort = self.settings.effort
        seconds = sum(result.seconds for found in results for result in found)
        facts = {"Date": datetime.date.today().isoformat(), "Data": str(self.settings.data)}
        if self.settings.others:
            facts["Others"] = str(self.settings.others)
        total = sum(map(len, results))
        facts["Trainings"] = f"{total}, {seconds / 60:.0f} min of one processor core in all, kept in {KEPT}"
        fewer = ", ".join(f"{name} {n}" for name, n in effort.only.items())
        facts["Effort"] = f"preset {effort.preset}; {effort.folds} folds"
        facts["Effort"] += f"; of these trained: {fewer}" if fewer else ""
        facts["Steps"] = "at most as the preset says" if effort.steps is None else f"at most {effort.steps}"
        facts["Every patient"] = f"{PREDICTIONS}: what each network foretold"
        facts["Bootstrap"] = f"{RESAMPLES} resamples of patients, seed {effort.seed}, as of folds and trainings"
        return facts
