"""The study of radiomics: zero or non-zero coronary calcium, by all features and classifiers, and its page.

What a model said is kept as a line of JSON, so that the study goes on where it stopped and its page can be made again
without fitting anything.
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

from CACScoringLib.cohort.workers import sensible_count
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import Progress

from ...experiments.errors import StudyError
from ...experiments.jobs import TIME_IS_UP, InTime, JobSettings, Prepared, kept_jobs
from ...report.page import write_study
from ...report.parts import Section, Table
from ...statistics.measures import RESAMPLES
from ...statistics.patient_folds import category_of
from ..scan_table import TableScan, read_scan_table, table_hash
from ..split import folds, learned_and_tested
from . import checks, tables
from .data import Scans, read_scans
from .fits import Data, fitter
from .goals import goals_section
from .plan import HELD_OUT, NETWORKS, Cell, Job, cells_of, jobs_of
from .results import Study

KEPT = "models.jsonl"
"""In the output folder: what each model said, a line each."""
PREDICTIONS = "predictions.csv"
"""In the output folder: what the chosen and the installable model said of each scan."""

FEATURES_FOLDER = "features"
"""In the output folder, unless another is named: what is kept of each CT."""
MEMORY_EACH_BYTES = 500_000_000
"""Of a process that fits models."""


@dataclass(frozen=True)
class RadiomicsStudySettings:
    """data: table of scans, or a cohort's folder. test: to test on; None: a fifth of data. contrast: of scans with
    contrast agent to learn from too. others: of patients whose only calcium is not coronary. encoders: files of other
    networks, by their key in NETWORKS. workers: processes, None: as many as cores and memory allow. seed: of folds,
    models and bootstrap; who is held out does not depend on it. cache: where features are kept; in the output when
    None. minutes: after which no model is begun; 0 only makes the page. device: of the encoders, "cpu" or "cuda".
    """

    data: Path
    output: Path
    test: Path | None = None
    contrast: Path | None = None
    others: Path | None = None
    encoders: Mapping[str, Path] = field(default_factory=dict)
    folds: int = 5
    workers: int | None = None
    seed: int = 0
    cache: Path | None = None
    minutes: float | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise StudyError(f"Cross-validation takes 2 folds or more, not {self.folds}.")


Reader = Callable[[tuple[TableScan, ...], Path, Mapping[str, Path], int | None, str, Progress], Scans]
Fitter = Callable[[Data], Prepared]
"""Prepares, in a process of its own, what does a `whole_scan.radiomics.plan.Job`."""


def evaluate_radiomics(
    settings: RadiomicsStudySettings,
    progress: Progress | None = None,
    read: Reader = read_scans,
    fit: Fitter = fitter,
) -> Path:
    """Fit what is not yet kept, write `study.html` with its tables and figures, and return the page.

    read, fit: what reads features and makes models. A model that fails is said on the page and stops nothing. Raises
    StudyError, TableError, OutputError, and CTError where no scan can be read.
    """
    progress = progress or Progress()
    limit = None if settings.minutes is None else time.time() + 60 * settings.minutes
    progress.begin(["scans", "models", "page"])
    output, cache = settings.output, settings.cache or settings.output / FEATURES_FOLDER
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write to {output}: {error.strerror}. Choose another --output.") from error
    with progress.step("scans"):
        whole = _read(
            settings, lambda table: read(table, cache, settings.encoders, settings.workers, settings.device, progress)
        )
    with progress.step("models"):
        cells = cells_of(tuple(whole.data.own.features), whole.data.contrast is not None)
        jobs = {whole.key(job): job for job in jobs_of(cells, settings.folds)}
        work = JobSettings(settings.workers or sensible_count(MEMORY_EACH_BYTES), "cpu", progress)
        kept, failed = kept_jobs(jobs, output / KEPT, partial(InTime, partial(fit, whole.data), limit), work)
    with progress.step("page"):
        for reason in sorted(set(failed.values()) - {TIME_IS_UP}):
            progress.warning(ScanWarning("model-failed", f"A model was not made: {reason}"))
        found = {(jobs[key].cell, jobs[key].fold): result for key, result in kept.items()}
        return whole.write_page(found, {tables.title_of(jobs[key].cell): why for key, why in failed.items()})


def _read(settings: RadiomicsStudySettings, read: Callable[[tuple[TableScan, ...]], Scans]) -> _Whole:
    given = [read_scan_table(path) if path else () for path in (settings.data, settings.test)]
    if enhanced := sum(scan.contrast for part in given for scan in part):
        raise StudyError(
            f"{enhanced} of {sum(map(len, given))} scans are contrast-enhanced. Give those in a table of their own, "
            "with --contrast-data: models are judged by scans without contrast agent."
        )
    table, training, tested = learned_and_tested(*given)
    own = read(table)
    by_name = {scan.name: scan for scan in table}
    fold_of = dict.fromkeys(tested, HELD_OUT)
    for number, (_, inside) in enumerate(folds([by_name[n] for n in training], settings.folds, settings.seed)):
        fold_of |= dict.fromkeys(inside, number)
    contrast = read(read_scan_table(settings.contrast)) if settings.contrast else None
    others, left_out = None, 0
    if settings.others:
        learned = {by_name[name].patient for name in training}
        given = read_scan_table(settings.others, scored=False)
        # Of whom a model may have learned, and those who have coronary calcium after all, it would say nothing.
        fit = tuple(scan for scan in given if scan.patient not in learned and not scan.total)
        left_out = len(given) - len(fit)
        if not fit:
            raise StudyError(
                f"None of the {len(given)} scans of --others is of a new patient without coronary calcium. Give others."
            )
        others = read(fit)
    data = Data(own, np.array([fold_of[name] for name in own.names]), contrast, others, settings.seed)
    return _Whole(settings, table, data, left_out)


@dataclass(frozen=True)
class _Whole:
    """The study as it is, and its page. left_out: scans of --others that could not be used."""

    settings: RadiomicsStudySettings
    table: tuple[TableScan, ...]
    data: Data
    left_out: int

    def key(self, job: Job) -> str:
        """Of all that a model depends on."""
        parts = [self.data.own.stamp(job.cell.features)]
        if job.cell.contrast:
            parts.append(self.data.contrast.stamp(job.cell.features))
        if job.fold == HELD_OUT and self.data.others is not None:
            parts.append(self.data.others.stamp(job.cell.features))
        return job.key(" ".join([*parts, _split_stamp(self.data.folds)]), self.settings.folds, self.settings.seed)

    def write_page(self, kept: Mapping[tuple[Cell, int], Mapping], failed: Mapping[str, str]) -> Path:
        study = Study(self.data.own, self.data.folds, kept, self.settings.seed, self.data.others)
        digital = bool(np.isfinite(self.data.own.other).all())
        sections = [
            goals_section(study),
            self._data_section(digital, failed),
            tables.models_section(study),
            tables.significance_section(study),
            tables.contrast_section(study, len(self.data.contrast.names)) if self.data.contrast else None,
            tables.labels_section(study),
            checks.found_section(study),
            checks.importance_section(study),
            checks.others_section(study),
        ]
        write_text_atomically(self.settings.output / PREDICTIONS, _predictions_text(study))
        title = "Zero or non-zero coronary calcium by radiomics"
        shown = [section for section in sections if section is not None]
        return write_study(self.settings.output, title, shown, self._facts(kept), digital)

    def _data_section(self, digital: bool, failed: Mapping[str, str]) -> Section:
        own, held = self.data.own, self.data.folds == HELD_OUT
        text = [
            f"{len(own.names)} CTs of {len(set(own.patients))} patients; {int(held.sum())} were held out, and each "
            f"model was judged by them once. The others were cross-validated in {self.settings.folds} folds, split by "
            "patient; classifiers were tuned within each (nested cross-validation).",
        ]
        if digital:
            text.append(
                "Calcium counts however little of it there is, also what no scan can show. Patients were chosen so "
                "that each amount of it is common: accuracy and AUC are of this mix. Nothing here was measured on the "
                "scan of a person."
            )
        if not [name for name in NETWORKS if name in own.features]:
            text.append("No network’s features were at hand to compare with.")
        elif not {"ct-fm", "radimagenet"} & set(own.features):
            text.append(
                "CT-FM and RadImageNet, with which the paper compares, were not at hand (--ct-fm, --radimagenet); "
                "CAC’s own networks stand in for them. They were trained to find the heart and calcium, those not."
            )
        if late := sum(why == TIME_IS_UP for why in failed.values()):
            text.append(f"{late} ways to make models were not done in the time given. Run the same command again.")
        if self.left_out:
            text.append(
                f"{self.left_out} scans with other calcium were left out: their patients are among those learned from, "
                "or have coronary calcium too."
            )
        counted = [("Cross-validated", own.chosen(np.flatnonzero(~held)))]
        counted.append(("Held out", own.chosen(np.flatnonzero(held))))
        counted += [("Contrast-enhanced, to learn from", self.data.contrast)] if self.data.contrast else []
        counted += [("With other calcium only", self.data.others)] if self.data.others else []
        columns = ("Scans", "Patients", "All", "0", "1–99", "100–399", "≥ 400", "Pseudo-label non-zero")
        rows = tuple(_counts(title, scans) for title, scans in counted)
        made = [Table("scans", "Scans by true Agatston score", columns, rows)]
        given = [scans for scans in (own, self.data.contrast, self.data.others) if scans]
        lost = [row for scans in given for row in scans.failed.items()]
        if lost:
            made.append(Table("lost", "Scans that could not be read", ("Scan", "Why"), tuple(lost)))
        reasons = tuple((name, why) for name, why in failed.items() if why != TIME_IS_UP)
        if reasons:
            made.append(Table("failed", "Models that were not made", ("Model", "Why"), reasons))
        return Section("data", "The scans", tuple(text), tuple(made))

    def _facts(self, kept: Mapping[tuple[Cell, int], Mapping]) -> dict[str, str]:
        settings = self.settings
        seconds = sum(result["seconds"] for result in kept.values())
        facts = {"Date": datetime.date.today().isoformat(), "Data": f"{settings.data} ({table_hash(self.table)[:16]})"}
        facts |= {"Contrast-enhanced": str(settings.contrast)} if settings.contrast else {}
        facts |= {"Other calcium": str(settings.others)} if settings.others else {}
        facts |= {f"{NETWORKS[name]}": str(file) for name, file in settings.encoders.items()}
        titles = self.data.own.titles
        facts["Features"] = ", ".join(f"{name} {len(titles[name])}" for name in titles)
        facts["Models"] = f"{len(kept)}, {seconds / 60:.0f} min of one processor core in all, kept in {KEPT}"
        facts["Every scan"] = f"{PREDICTIONS}: chances by the chosen model and the one to install"
        facts["Bootstrap"] = f"{RESAMPLES} resamples of patients, seed {settings.seed}, as of folds and models"
        return facts


def _split_stamp(split: np.ndarray) -> str:
    return "".join("-" if fold == HELD_OUT else f"{fold}," for fold in split.tolist())


def _counts(title: str, scans: Scans) -> tuple:
    score = scans.agatston
    counts = [int(n) for n in np.bincount(category_of(score[np.isfinite(score)]), minlength=4)]
    return (title, len(set(scans.patients)), len(scans.names), *counts, int(scans.pseudo.sum()))


def _predictions_text(study: Study) -> str:
    """One line a scan: its truth and what two models said, each judged by those that had not seen it."""
    shown = {"chosen": study.best(tables.radiomics_cells()), "installable": checks.INSTALLABLE}
    chances = {name: np.full(len(study.scans.names), np.nan) for name in shown}
    for name, cell in shown.items():
        for part in study.parts.values():
            if cell in part:
                chances[name][part[cell].rows] = part[cell].chances
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("name", "patient", "fold", "agatston", "pseudo_label", *(f"chance_{name}" for name in shown)))
    for n, name in enumerate(study.scans.names):
        told = ["" if np.isnan(own[n]) else round(float(own[n]), 4) for own in chances.values()]
        fold = "held out" if study.folds[n] == HELD_OUT else int(study.folds[n])
        score = round(float(study.scans.agatston[n]), 2)
        writer.writerow((name, study.scans.patients[n], fold, score, int(study.scans.pseudo[n]), *told))
    return stream.getvalue()
