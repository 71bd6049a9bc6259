"""The study of radiograph models: every way to train of `radiograph.study.plan`, cross-validated, and its page.

What a training foretold is kept as a line of JSON, so that the study goes on where it stopped and its page can be made
again without training. The page is written from time to time while the trainings go on.
"""

from __future__ import annotations

import csv
import datetime
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.output import OutputError, write_text_atomically
from CACScoringLib.core.progress import Progress

from ...experiments.errors import StudyError
from ...experiments.jobs import TIME_IS_UP, InTime, JobSettings, PagesBetween, Prepared, kept_jobs, kept_results
from ...report.page import write_study
from ...report.parts import Section, Table
from ...statistics.measures import RESAMPLES
from ...statistics.patient_folds import category_of
from ..cohort import SETTINGS
from ..events import CHANCES, FACTORS
from .plan import THRESHOLD_TITLES, Cell, Effort, Job, cells_of, chosen_tables, folds_of_patients, jobs_of
from .results import Predictions, Radiographs, Study, factors_model, gathered, read_radiographs
from .study_training import Data, trainer
from .tables import PUBLISHED_EXTERNAL, rivals_of, sections_of, thresholds_section

KEPT = "trainings.jsonl"
"""In the output folder: what each training foretold, a line each."""

PREDICTIONS = "predictions.csv"
"""In the output folder: what the base foretold of each patient; `cac evaluate prognosis` reads it, once the columns
time_years and event are in it."""


@dataclass(frozen=True)
class RadiographStudySettings:
    """data: table of radiographs, or its folder. external: another, judged by once. tables: names in TABLES; none: all.
    minutes: after which no training begins; 0 only makes the page. Trainings run on one processor core each.
    """

    data: Path
    output: Path
    external: Path | None = None
    tables: tuple[str, ...] = ()
    effort: Effort = field(default_factory=Effort)
    minutes: float | None = None
    workers: int = 1
    device: str = "cpu"


Trainer = Callable[[Data, Effort], Prepared]
"""Prepares, in a process of its own, what does a `radiograph.study.plan.Job` (see `study_training.trainer`)."""


def evaluate_radiographs(
    settings: RadiographStudySettings, progress: Progress | None = None, train: Trainer = trainer
) -> Path:
    """Train what is not yet kept, write `study.html` with its tables and figures, and return the page.

    train: what trains; picklable. A training that fails is said on the page and stops nothing. Raises StudyError,
    TableError, OutputError.
    """
    progress = progress or Progress()
    started = time.time()
    tables = chosen_tables(settings.tables)
    if settings.external is None:
        if settings.tables and "external" in tables:
            raise StudyError("The table “external” takes another cohort. Name it with --external.")
        tables = tuple(name for name in tables if name != "external")
    progress.begin(["radiographs", "trainings", "page"])
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write to {settings.output}: {error.strerror}. Choose another --output.") from error
    if not _is_digital(settings.data):
        tables = tuple(name for name in tables if name != "twins")  # takes CTs whose calcium is known
    with progress.step("radiographs"):
        known = read_radiographs(settings.data)
        other = read_radiographs(settings.external) if settings.external else None
        both = sorted(set(known.patients) & set(other.patients)) if other is not None else []
        if both:
            raise StudyError(f"Patient {both[0]} is in the external cohort too. Give one of other patients.")
        folds = folds_of_patients(known.patients, known.agatston, settings.effort.folds, settings.effort.seed)
        data = Data(settings.data, tuple(map(int, folds)), settings.external, settings.output, settings.device)
    whole = _Whole(settings, tables, known, other, folds)
    with progress.step("trainings"):
        limit = None if settings.minutes is None else started + 60 * settings.minutes
        jobs = {job.key(settings.effort, whole.stamp(job)): job for job in jobs_of(tables, settings.effort)}
        prepare = partial(InTime, partial(train, data, settings.effort), limit)
        work = JobSettings(settings.workers, settings.device, PagesBetween(progress, partial(whole.write_page, {})))
        _, failed = kept_jobs(jobs, settings.output / KEPT, prepare, work)
    with progress.step("page"):
        for reason in sorted({reason for reason in failed.values() if reason != TIME_IS_UP}):
            progress.warning(ScanWarning("training-failed", f"A training failed: {reason}"))
        return whole.write_page({jobs[key].cell.name: reason for key, reason in failed.items()})


@dataclass(frozen=True)
class _Whole:
    """The study as it is, and its page."""

    settings: RadiographStudySettings
    tables: tuple[str, ...]
    known: Radiographs
    other: Radiographs | None
    folds: np.ndarray

    def stamp(self, job: Job) -> str:
        """What stands for the radiographs of a training."""
        own = self.known.sha256[:16]
        return f"{own} {self.other.sha256[:16]}" if job.cell.external and self.other else own

    def results(self) -> dict[Cell, list[dict]]:
        """What is kept of this study's trainings, by cell, in the order of the folds."""
        kept = kept_results(self.settings.output / KEPT)
        found: dict[Cell, list[dict]] = {}
        for job in jobs_of(self.tables, self.settings.effort):
            key = job.key(self.settings.effort, self.stamp(job))
            if key in kept:
                found.setdefault(job.cell, []).append(kept[key])
        return found

    def write_page(self, failed: Mapping[str, str]) -> Path:
        effort = self.settings.effort
        results = self.results()
        trained = {
            cell: (len(results.get(cell, ())), effort.folds_of(cell, self.tables)) for cell in cells_of(self.tables)
        }
        own = {cell: found for cell, found in results.items() if not cell.external}
        # Of the base, what is there is shown; other cells only whole, so that all have the same patients.
        whole = {
            cell: gathered(self.known, found)
            for cell, found in own.items()
            if cell == Cell() or trained[cell][0] == trained[cell][1]
        }
        study = Study(self.known, whole, self.folds, effort.seed)
        digital = _is_digital(self.settings.data) and (self.other is None or _is_digital(self.settings.external))
        sections = [self._data_section(digital, trained, failed), *sections_of(study, self.tables, trained, digital)]
        if "external" in self.tables:
            sections.append(self._external_section([f for cell, f in results.items() if cell.external], digital))
        if Cell() in whole:
            text = _predictions_text(self.known, whole[Cell()])
            write_text_atomically(self.settings.output / PREDICTIONS, text)
        title = "Coronary calcium on chest radiographs: how well it is told"
        return write_study(self.settings.output, title, sections, self._facts(results), digital)

    def _data_section(
        self, digital: bool, trained: Mapping[Cell, tuple[int, int]], failed: Mapping[str, str]
    ) -> Section:
        done, planned = (sum(counts[n] for counts in trained.values()) for n in (0, 1))
        text = [
            f"{len(self.known.names)} radiographs of {len(set(self.known.patients))} patients, cross-validated in "
            f"{self.settings.effort.folds} folds. {done} of {planned} trainings are done.",
            "No real radiograph whose calcium is known was available. Nothing here was measured on one."
            if digital
            else "Whether a picture is a real radiograph or was projected from a CT, the table does not say.",
            "Ways to train were compared on the patients by whom the best of them would be chosen: the best figure of "
            "a table is better than what new patients would give."
            + (" The external cohort was used for no choice." if self.other is not None else ""),
        ]
        if digital:
            text.append(
                "The radiographs were projected from computed CTs with the whole chest. Of what makes calcium hard to "
                "see in people they have ribs, spine, vessels and calcium outside the coronary arteries, but neither "
                "scatter nor the finer blur of a real detector; and nothing but calcium, shape and size tells of age."
            )
        rows = [_counts("Cross-validated", self.known)]
        if self.other is not None:
            rows.append(_counts("External", self.other))
        columns = ("Radiographs", "Patients", "All", "0", "1–99", "100–399", "≥ 400")
        tables = [Table("radiographs", "Radiographs by the reference score", columns, tuple(rows))]
        reasons = [(name, reason) for name, reason in failed.items() if reason != TIME_IS_UP]
        if reasons:
            tables.append(Table("failed", "Trainings that failed", ("Training", "Why"), tuple(reasons)))
        return Section("data", "The radiographs", tuple(text), tuple(tables))

    def _external_section(self, results: list[list[dict]], digital: bool) -> Section:
        if not results or self.other is None:
            text = ("It was not run yet. Run the same command again to go on.",)
            return Section("external", "External test", text)
        found = gathered(self.other, results[0])
        study = Study(self.other, {}, np.zeros(len(self.other.names), int), self.settings.effort.seed)
        alone = self._factors_alone(found)
        text = [
            f"One network was trained on all patients of the cohort, and judged once by {len(set(self.other.patients))}"
            " patients that neither it nor any choice has seen.",
        ]
        if digital:
            text.append(
                "They are digital patients like the others, only other ones: it says nothing of real hospitals."
            )
        return thresholds_section(
            study, rivals_of(study, found, alone), "external", text, PUBLISHED_EXTERNAL, "External test"
        )

    def _factors_alone(self, found: Predictions) -> Predictions | None:
        if self.known.factors is None or self.other is None or self.other.factors is None:
            return None
        chances = factors_model(self.known, np.ones(len(self.known.names), bool))(self.other.factors)
        everyone = np.arange(len(self.other.names))
        return Predictions(everyone, np.zeros(len(everyone), int), chances, chances, chances, (), (), None)

    def _facts(self, results: Mapping[Cell, list[dict]]) -> dict[str, str]:
        effort = self.settings.effort
        seconds = sum(result["seconds"] for found in results.values() for result in found)
        facts = {"Date": datetime.date.today().isoformat(), "Data": str(self.settings.data)}
        if self.settings.external:
            facts["External cohort"] = str(self.settings.external)
        count = sum(map(len, results.values()))
        facts["Trainings"] = f"{count}, {seconds / 60:.0f} min of one processor core in all, kept in {KEPT}"
        fewer = ", ".join(f"{name} {n}" for name, n in effort.only.items())
        facts["Effort"] = f"{effort.folds} folds" + (f"; of these trained: {fewer}" if fewer else "")
        facts["Steps"] = "at most as the presets say"
        if effort.steps is not None:
            facts["Steps"] = f"at most {effort.steps} of a light network, of others in proportion to their presets"
        facts["Every patient"] = f"{PREDICTIONS}: what the base foretold, for cac evaluate prognosis"
        facts["Bootstrap"] = f"{RESAMPLES} resamples of patients, seed {effort.seed}, as of folds and trainings"
        return facts


def _predictions_text(data: Radiographs, found: Predictions) -> str:
    """The base's chances, with clinical factors where they are known, as `events.read_events` takes them."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    factors = () if data.factors is None else FACTORS
    writer.writerow(("name", "patient", "fold", "agatston", *CHANCES, *factors))
    chances = found.image if found.both is None else found.both
    for row, fold, chance in zip(found.rows, found.folds, chances, strict=True):
        known = () if data.factors is None else data.factors[row]
        told = [value if n != 1 else "FM"[int(value)] for n, value in enumerate(known)]
        writer.writerow(
            (
                data.names[row],
                data.patients[row],
                fold,
                data.agatston[row],
                *(round(float(c), 4) for c in chance),
                *told,
            )
        )
    return stream.getvalue()


def _counts(title: str, data: Radiographs) -> tuple:
    category = np.bincount(category_of(data.agatston), minlength=len(THRESHOLD_TITLES) + 1)
    return (title, len(set(data.patients)), len(data.names), *map(int, category))


def _is_digital(table: Path | None) -> bool:
    """Whether a table is of digital patients: their cohort's settings lie beside it."""
    return table is not None and ((table if table.is_dir() else table.parent) / SETTINGS).is_file()
