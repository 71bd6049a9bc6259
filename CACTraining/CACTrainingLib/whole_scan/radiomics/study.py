"""The study of radiomics: zero or non-zero coronary calcium, by all features and classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import write_table

from ...data.scan_table import TableScan, table_hash
from ...experiments.configuration import ExperimentRun
from ...experiments.engine import PREDICTIONS, Experiment, ExperimentSettings, Trainer, carry_out
from ...experiments.errors import StudyError
from ...experiments.jobs import TIME_IS_UP
from ...experiments.results import SCORE_COLUMNS, score_counts
from ...report.page import write_study
from ...report.parts import Section, Table
from ..scan_table import read_scan_table
from ..split import folds, learned_and_tested
from . import checks, tables
from .configurations import HELD_OUT, NETWORKS, configurations_of, run_key, runs_of
from .data import Scans, read_scans
from .goals import goals_section
from .results import Study
from .study_runs import Data, trainer

FEATURES_FOLDER = "features"
"""In the output folder, unless another is named: what is kept of each CT."""


@dataclass(frozen=True)
class RadiomicsStudySettings(ExperimentSettings):
    """test: to test on; None: a fifth of data. contrast: of scans with contrast agent to learn from too.
    noncoronary_controls: of patients whose only calcium is not coronary. encoders: files of other networks, by their
    key in NETWORKS. cache: where features are kept; in the output when None. device: of the encoders. Otherwise as all
    experiments' settings; who is held out does not depend on the seed.
    """

    workers: int | None = None
    test: Path | None = None
    contrast: Path | None = None
    noncoronary_controls: Path | None = None
    encoders: Mapping[str, Path] = field(default_factory=dict)
    cache: Path | None = None


Reader = Callable[[tuple[TableScan, ...], Path, Mapping[str, Path], int | None, str, Progress], Scans]


def evaluate_radiomics(
    settings: RadiomicsStudySettings,
    progress: Progress | None = None,
    read: Reader = read_scans,
    train: Trainer = trainer,
) -> Path:
    """Make the study; see `experiments.engine.carry_out`. read: what reads features.

    Raises StudyError, TableError, OutputError, and CTError where no scan can be read.
    """
    progress = progress or Progress()
    cache = settings.cache or settings.output / FEATURES_FOLDER

    def features(table: tuple[TableScan, ...]) -> Scans:
        return read(table, cache, settings.encoders, settings.workers, settings.device, progress)

    return carry_out(settings, partial(_read, settings, features), train, ("scans", "models", "page"), progress)


def _read(settings: RadiomicsStudySettings, read: Callable[[tuple[TableScan, ...]], Scans]) -> _RadiomicsStudy:
    given = [read_scan_table(path) if path else () for path in (settings.data, settings.test)]
    if enhanced := sum(scan.contrast for part in given for scan in part):
        raise StudyError(
            f"{enhanced} of {sum(map(len, given))} scans are contrast-enhanced. Give those in a table of their own, "
            "with --contrast-data: models are evaluated on scans without contrast agent."
        )
    table, training, tested = learned_and_tested(*given)
    own = read(table)
    by_name = {scan.name: scan for scan in table}
    fold_of = dict.fromkeys(tested, HELD_OUT)
    for number, (_, inside) in enumerate(
        folds([by_name[n] for n in training], settings.budget.folds, settings.budget.seed)
    ):
        fold_of |= dict.fromkeys(inside, number)
    contrast = read(read_scan_table(settings.contrast)) if settings.contrast else None
    noncoronary_controls, left_out = None, 0
    if settings.noncoronary_controls:
        learned = {by_name[name].patient for name in training}
        given = read_scan_table(settings.noncoronary_controls, scored=False)
        # Of whom a model may have learned, and those who have coronary calcium after all, it would say nothing.
        fit = tuple(scan for scan in given if scan.patient not in learned and not scan.total)
        left_out = len(given) - len(fit)
        if not fit:
            raise StudyError(
                f"None of the {len(given)} scans of --noncoronary-controls is of a new patient without coronary "
                "calcium. Give others."
            )
        noncoronary_controls = read(fit)
    data = Data(own, np.array([fold_of[name] for name in own.names]), contrast, noncoronary_controls)
    return _RadiomicsStudy(settings, data, table, left_out)


@dataclass(frozen=True)
class _RadiomicsStudy(Experiment):
    """left_out: scans of --noncoronary-controls that could not be used."""

    KEPT = "models.jsonl"
    TRAININGS = "models"
    FAILED = ("Models that were not made", "Model")

    settings: RadiomicsStudySettings
    data: Data
    table: tuple[TableScan, ...]
    left_out: int

    def stages(self) -> Iterator[Sequence[ExperimentRun]]:
        configurations = configurations_of(tuple(self.data.own.features), self.data.contrast is not None)
        yield runs_of(configurations, self.settings.budget.folds)

    def key(self, run: ExperimentRun) -> str:
        features = run.configuration.features
        parts = [self.data.own.stamp(features)]
        if run.configuration.contrast:
            parts.append(self.data.contrast.stamp(features))
        if run.fold == HELD_OUT and self.data.noncoronary_controls is not None:
            parts.append(self.data.noncoronary_controls.stamp(features))
        return run_key(run, self.settings.budget, " ".join([*parts, _split_stamp(self.data.folds)]))

    def title_of(self, run: ExperimentRun) -> str:
        return tables.title_of(run.configuration)

    def warning(self, reason: str) -> ScanWarning:
        return ScanWarning("model-failed", f"A model was not made: {reason}")

    def write_page(self, failed: Mapping[ExperimentRun, str]) -> Path:
        kept = self.kept(next(self.stages()))
        study = Study(self.data.own, self.data.folds, kept, self.settings.budget.seed, self.data.noncoronary_controls)
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
            checks.controls_section(study),
        ]
        _write_predictions(self.settings.output / PREDICTIONS, study)
        title = "Zero or non-zero coronary calcium by radiomics"
        shown = [section for section in sections if section is not None]
        return write_study(self.settings.output, title, shown, self._facts(list(kept.values())), digital)

    def _data_section(self, digital: bool, failed: Mapping[ExperimentRun, str]) -> Section:
        own, held = self.data.own, self.data.folds == HELD_OUT
        text = [
            f"{len(own.names)} CTs of {len(set(own.patients))} patients; {int(held.sum())} were held out, and each "
            f"model was evaluated on them once. The others were cross-validated in {self.settings.budget.folds} folds, "
            "split by patient; classifiers were tuned within each (nested cross-validation).",
        ]
        if digital:
            text.append(
                "Any amount of calcium counts, also what no scan can show. Patients were selected so that each amount "
                "of it is common: accuracy and AUC are of this case mix. Nothing here was measured on the scan of a "
                "real patient."
            )
        if not [name for name in NETWORKS if name in own.features]:
            text.append("No features of a network were available for comparison.")
        elif not {"ct-fm", "radimagenet"} & set(own.features):
            text.append(
                "CT-FM and RadImageNet, with which the paper compares, were not available (--ct-fm, --radimagenet); "
                "CAC’s own networks take their place. These were trained to find the heart and calcium; CT-FM and "
                "RadImageNet were not."
            )
        if late := {run.configuration for run, why in failed.items() if why == TIME_IS_UP}:
            text.append(f"{len(late)} kinds of models were not made in the time given. Run the same command again.")
        if self.left_out:
            text.append(
                f"{self.left_out} scans with other calcium were left out: their patients are among those for "
                "training, or have coronary calcium too."
            )
        counted = [("Cross-validated", own.chosen(np.flatnonzero(~held)))]
        counted.append(("Held out", own.chosen(np.flatnonzero(held))))
        counted += [("Contrast-enhanced, to learn from", self.data.contrast)] if self.data.contrast else []
        counted += (
            [("With other calcium only", self.data.noncoronary_controls)] if self.data.noncoronary_controls else []
        )
        columns = ("Scans", *SCORE_COLUMNS, "Pseudo-label non-zero")
        rows = tuple(
            (*score_counts(title, scans.patients, scans.agatston), int(scans.pseudo.sum())) for title, scans in counted
        )
        made = [Table("scans", "Scans by true Agatston score", columns, rows)]
        given = [scans for scans in (own, self.data.contrast, self.data.noncoronary_controls) if scans]
        lost = [row for scans in given for row in scans.failed.items()]
        if lost:
            made.append(Table("lost", "Scans that could not be read", ("Scan", "Why"), tuple(lost)))
        return Section("data", "The scans", tuple(text), (*made, *self.failed_tables(failed)))

    def _facts(self, results: Sequence[Mapping]) -> dict[str, str]:
        settings, titles = self.settings, self.data.own.titles
        data = {"Data": f"{settings.data} ({table_hash(self.table)[:16]})"}
        data |= {"Contrast-enhanced": str(settings.contrast)} if settings.contrast else {}
        data |= {"Other calcium": str(settings.noncoronary_controls)} if settings.noncoronary_controls else {}
        data |= {NETWORKS[name]: str(file) for name, file in settings.encoders.items()}
        data["Features"] = ", ".join(f"{name} {len(titles[name])}" for name in titles)
        every = f"{PREDICTIONS}: probabilities by the chosen model and the one to install"
        return self.facts(results, data, {"Every scan": every})


def _split_stamp(split: np.ndarray) -> str:
    return "".join("-" if fold == HELD_OUT else f"{fold}," for fold in split.tolist())


def _write_predictions(file: Path, study: Study) -> None:
    """One line a scan: its truth and what two models predicted that had not seen it."""
    shown = {"chosen": study.best(tables.radiomics_configurations()), "installable": checks.INSTALLABLE}
    probabilities = {name: np.full(len(study.scans.names), np.nan) for name in shown}
    for name, one in shown.items():
        for part in study.parts.values():
            if one in part:
                probabilities[name][part[one].rows] = part[one].probabilities
    rows = []
    for n, name in enumerate(study.scans.names):
        fold = "held out" if study.folds[n] == HELD_OUT else int(study.folds[n])
        own = (
            name,
            study.scans.patients[n],
            fold,
            round(float(study.scans.agatston[n]), 2),
            int(study.scans.pseudo[n]),
        )
        rows.append(
            (*own, *(None if np.isnan(found[n]) else round(float(found[n]), 4) for found in probabilities.values()))
        )
    columns = ("name", "patient", "fold", "agatston", "pseudo_label", *(f"chance_{name}" for name in shown))
    write_table(file, columns, rows)
