"""Study of radiograph models: a page that compares cross-validated training configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import write_table

from ...data.scan_table import table_hash
from ...evaluation.experiment import (
    HELD_OUT,
    PREDICTIONS,
    Cohort,
    Experiment,
    ExperimentRun,
    ExperimentSettings,
    check_folds,
    check_known,
    scores_table,
)
from ...evaluation.jobs import StudyError
from ...evaluation.measures import Comparison, Measure, rates
from ...evaluation.parts import Cell, Section, Table, heading, p_cell
from ...statistics.agreement import kappa
from ...statistics.bootstrap import paired_difference
from ...statistics.patient_folds import CATEGORY_TITLES, category_of, parts_by_patient
from ...statistics.roc import above, area_within
from ..cases import LABELS, read_table
from ..cohort import SETTINGS
from .prognosis import FACTORS, PROBABILITIES, likely_category
from .runs import (
    BASE,
    CONFIGURATIONS,
    THRESHOLD_TITLES,
    THRESHOLDS,
    RadiographConfiguration,
    fit_settings,
    radiographs_of,
)

MIN_FOLDS = 3
"""Least number of folds: one for testing, one for stopping and calibration, the others for training."""

CALIBRATION_GROUPS = 10

COLUMNS = (
    *("Predictor", "AUC", "AUC minus base", "p", "Sensitivity", "Specificity"),
    *("Category κ", "Calibration error"),
)
NOTE = (
    "AUC: area under the ROC curve, of pairs of patients in the same fold. Differences are paired; p is not adjusted "
    "for the number of comparisons. Sensitivity and specificity: at a probability equal to the proportion of patients "
    "above the threshold. Category: the highest threshold whose probability, and that of all below it, is one half or "
    "more; linearly weighted κ with the true category. Calibration error: mean difference of predicted and observed "
    f"proportions in {CALIBRATION_GROUPS} groups of rising probability."
)


@dataclass(frozen=True)
class RadiographStudySettings(ExperimentSettings):
    """Settings of the study, besides those of all experiments; data is a table of radiographs or its folder.

    Attributes:
        external: Table of other patients for a single test.
        names: Configurations besides the base; none for all.
    """

    external: Path | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_known(self.names, [config.name for config in CONFIGURATIONS], "configuration")
        check_folds(self.budget.folds, MIN_FOLDS)


def read_cohort(table: Path, folds: int, seed: int) -> Cohort:
    """Read a table of radiographs (`cases.read_table`) and split its patients. Raises TableError, StudyError."""
    rows = read_table(table, LABELS[0])
    patients, score = [row.patient for row in rows], np.array([row.scores[LABELS[0]] for row in rows])
    if len(set(patients)) < folds:
        raise StudyError(f"{len(set(patients))} patients cannot be split into {folds} folds. Give fewer --folds.")
    parts = parts_by_patient(patients, category_of(score), folds, seed) if folds > 1 else np.zeros(len(rows), int)
    return Cohort(rows, parts, score, np.array([row.factors for row in rows]))


@dataclass(frozen=True)
class RadiographStudy(Experiment):
    """Study of training configurations, besides the base. external: cohort on which the base is tested once."""

    PAGE_TITLE: ClassVar[str] = "Detection of coronary calcium on chest radiographs"

    settings: RadiographStudySettings
    configurations: tuple[RadiographConfiguration, ...]
    external: Cohort | None

    @classmethod
    def read(cls, settings: RadiographStudySettings, progress: Progress) -> RadiographStudy:
        budget = settings.budget
        cohort = read_cohort(settings.data, budget.folds, budget.seed)
        external = read_cohort(settings.external, 1, budget.seed) if settings.external else None
        if shared := sorted(set(cohort.patients) & set(external.patients)) if external else []:
            raise StudyError(f"Patient {shared[0]} is in the external cohort too. Give one of other patients.")
        configurations = [c for c in CONFIGURATIONS if c == BASE or not settings.names or c.name in settings.names]
        if not _is_digital(settings.data) and not settings.names:
            # The other configurations need CTs with known calcium.
            configurations = [config for config in configurations if config.super_resolution == "none"]
            configurations = [config for config in configurations if config.name not in ("not-located", "no-pairs")]
        return cls(settings, cohort, tuple(configurations), external)

    @property
    def is_digital(self) -> bool:
        return _is_digital(self.settings.data)

    def runs(self) -> list[ExperimentRun]:
        folds = range(self.settings.budget.folds)
        base = [ExperimentRun(BASE, fold) for fold in (*folds, *([HELD_OUT] if self.external else []))]
        compared = [config for config in self.configurations if config != BASE]
        return [*base, *(ExperimentRun(config, fold) for config in compared for fold in folds)]

    def stamp(self, run: ExperimentRun) -> str:
        tested = f" {table_hash(self.external.scans)[:16]}" if run.fold == HELD_OUT and self.external else ""
        return super().stamp(run) + tested

    def title_of(self, run: ExperimentRun) -> str:
        return run.configuration.title

    def train(self, run: ExperimentRun, folder: Path) -> dict[str, Any]:
        import torch

        from ..fitting import fit, knows_hearts, predictions_of, validation_split

        torch.set_num_threads(1)
        budget, training_cases = self.settings.budget, self.cohort.training(run.fold)
        settings = fit_settings(run.configuration, budget, self.settings.device)
        data = radiographs_of(run.configuration, self.settings.data)
        split = validation_split(data, 0.2, budget.seed + 1 + run.fold, LABELS[0], training_cases)
        network, calibration, outcome, _ = fit(data, *split, settings, folder)
        cases = self.cohort.validation(run.fold)
        if run.fold == HELD_OUT and self.settings.external is not None:
            data = radiographs_of(run.configuration, self.settings.external)
            cases = np.arange(len(data))
        image, fused = predictions_of(network, data, cases, calibration, knows_hearts(settings))
        if not np.isfinite(image).all():
            raise CTError(f"{run.configuration.name} gave no numbers. Choose fewer --steps, or another --seed.")
        return {
            "names": [data.names[n] for n in cases],
            "image": image.tolist(),
            "both": fused.tolist() if np.isfinite(fused).all() else None,
            "seconds": float(outcome.seconds),
        }

    def sections(
        self, results: Mapping[ExperimentRun, dict[str, Any]], failures: Sequence[Table]
    ) -> tuple[list[Section], dict[str, str]]:
        facts = {
            **({"External cohort": str(self.settings.external)} if self.external else {}),
            "Steps": str(self.settings.budget.steps or "those of the presets"),
            "Every patient": f"{PREDICTIONS}: predictions of the base, for cac evaluate prognosis",
        }
        return [self._data_section(len(results), failures), self._results_section(results)], facts

    def _data_section(self, finished: int, failures: Sequence[Table]) -> Section:
        text = [
            f"Cross-validated in {self.settings.budget.folds} folds, split by patient. "
            f"{finished} of {len(self.runs())} trainings are done.",
            "The best of many configurations does better here than can be expected in new patients.",
        ]
        if self.is_digital:
            text.append("No real radiograph whose calcium is known was available. Nothing here was measured on one.")
        cohorts = {"Cross-validated": self.cohort, "External": self.external}
        parts = {title: (part, np.arange(len(part.scans))) for title, part in cohorts.items() if part is not None}
        table = scores_table("radiographs", "Radiographs by the reference score", parts)
        return Section("data", "The radiographs", tuple(text), (table, *failures))

    def _results_section(self, done: Mapping[ExperimentRun, Mapping[str, Any]]) -> Section:
        entries: dict[str, np.ndarray | str] = {}
        seed = self.settings.budget.seed
        finished = [run for run in self.runs() if run in done and run.fold != HELD_OUT]
        for config in self.configurations:
            results = [done[run] for run in finished if run.configuration == config]
            if len(results) < self.settings.budget.folds:
                entries[config.name] = f"{len(results)} of {self.settings.budget.folds} folds"
                continue
            image, fused = gather(self.cohort, results)
            entries[config.name] = image
            if config == BASE:
                _write_predictions(self.settings.output / PREDICTIONS, self.cohort, image if fused is None else fused)
                if np.isfinite(self.cohort.factors).all():
                    entries["age, sex, BMI"] = factors_alone(self.cohort)
                if fused is not None:
                    entries["base with age, sex, BMI"] = fused
        lines, table = predictor_lines(self.cohort, entries, seed)
        values = [table.assign(cohort="cross-validated")]
        tables = [Table("configurations", "Training configurations", COLUMNS, tuple(lines), NOTE)]
        if self.external is not None:
            held_out = done.get(ExperimentRun(BASE, HELD_OUT))
            entries = {"base": "not run"}
            if held_out:
                entries["base"], fused = gather(self.external, [held_out])
                entries |= {} if fused is None else {"base with age, sex, BMI": fused}
            note = "The base, trained on all patients of the cohort and evaluated once on others."
            lines, table = predictor_lines(self.external, entries, seed)
            values.append(table.assign(cohort="external"))
            tables.append(Table("external", "External test", COLUMNS, tuple(lines), note))
        return Section("results", "Results", (), tuple(tables), values=tuple(values))


def gather(cohort: Cohort, results: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray | None]:
    """Collect the runs' probabilities [n, thresholds] in the table's order, of the image and with factors."""
    names = [name for result in results for name in result["names"]]
    place = {name: n for n, name in enumerate(names)}
    order = [place[row.name] for row in cohort.scans]
    image = np.concatenate([np.asarray(result["image"], float) for result in results])[order]
    if any(result["both"] is None for result in results):
        return image, None
    return image, np.concatenate([np.asarray(result["both"], float) for result in results])[order]


def predictor_lines(
    cohort: Cohort, entries: Mapping[str, np.ndarray | str], seed: int
) -> tuple[list[tuple[Cell, ...]], pd.DataFrame]:
    """Return the rows of the table: each predictor at each threshold, and the mean; the first is the base.

    Return their long table too.

    Args:
        entries: Probabilities [n, thresholds] by the predictor's title, or the reason why there are none.
        seed: Seed of the bootstrap.
    """
    truth = above(cohort.score, THRESHOLDS) > 0
    names = {"patient": cohort.patients, "scan": [row.name for row in cohort.scans], "fold": cohort.folds}
    tables, classes = [], []
    probabilities = {title: values for title, values in entries.items() if not isinstance(values, str)}
    for title, values in probabilities.items():
        for n, item in enumerate(THRESHOLD_TITLES):
            called = values[:, n] >= truth[:, n].mean()
            columns = {"truth": truth[:, n], "value": values[:, n], "called": called}
            tables.append(pd.DataFrame({**names, "method": title, "item": item, **columns}))
        columns = {"truth": category_of(cohort.score), "value": likely_category(values)}
        classes.append(pd.DataFrame({**names, "method": title, "item": "category", **columns}))
    if not tables:
        return [(title, str(reason), *[None] * 6) for title, reason in entries.items()], pd.DataFrame()
    table, comparison = pd.concat(tables), Comparison(cohort.patients, {}, np.random.default_rng(seed))
    category_kappa = Measure("κ", partial(kappa, classes=len(CATEGORY_TITLES)), pd.concat(classes))

    def area(weights: np.ndarray, is_above: np.ndarray, values: np.ndarray) -> np.ndarray:
        return area_within(weights, cohort.folds, is_above, values)

    lines: list[tuple[Cell, ...]] = []
    for title, reason in entries.items():
        if title not in probabilities:
            lines.append((title, str(reason), *[None] * 6))
            continue
        lines.append(heading(title, COLUMNS))
        for item in (*THRESHOLD_TITLES, "Mean"):
            rows = table if item == "Mean" else table[table.item == item]
            measure = Measure(item, area, rows)
            result, base = (comparison.averaged(measure, method) for method in (title, next(iter(probabilities))))
            change = paired_difference(result, base)
            cells: list[Cell] = [f"  {item}", result.estimate, change.estimate, p_cell(change.p)]
            if item == "Mean":
                cells += [None, None, comparison.estimate(category_kappa, title), None]
            else:
                part = measure.rows_of(title)
                hits = rates(("Sensitivity", "Specificity"), part.assign(value=part.called))
                error = calibration_error(part.value.to_numpy(), part.truth.to_numpy(bool))
                cells += [*(comparison.estimate(rate, title) for rate in hits), None, round(error, 3)]
            lines.append(tuple(cells))
    return lines, pd.concat([table, *classes])


def calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean |mean probability − observed proportion| over groups of rising probability, by size."""
    groups = np.array_split(np.argsort(probabilities, kind="stable"), CALIBRATION_GROUPS)
    return sum(abs(probabilities[g].sum() - truth[g].sum()) for g in groups if len(g)) / len(truth)


def factors_alone(cohort: Cohort) -> np.ndarray:
    """Predict probabilities [n, thresholds] by logistic regression on age, sex and BMI, cross-validated in folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = above(cohort.score, THRESHOLDS) > 0
    probabilities = np.zeros(truth.shape)
    for fold in np.unique(cohort.folds):
        train, test = cohort.folds != fold, cohort.folds == fold
        for n, labels in enumerate(truth[train].T):
            if labels.all() or not labels.any():
                probabilities[test, n] = labels.mean()
                continue
            model = make_pipeline(StandardScaler(), LogisticRegression()).fit(cohort.factors[train], labels)
            probabilities[test, n] = model.predict_proba(cohort.factors[test])[:, 1]
    return probabilities


def _write_predictions(file: Path, cohort: Cohort, probabilities: np.ndarray) -> None:
    """Write the base's probabilities in the format of `prognosis.read_events`."""
    factors = FACTORS if np.isfinite(cohort.factors).all() else ()
    columns = ["name", "patient", "fold", "agatston", *PROBABILITIES, *factors]
    rows = [
        (row.name, row.patient, fold, score, *(round(float(p), 4) for p in values), *(getattr(row, f) for f in factors))
        for row, fold, score, values in zip(cohort.scans, cohort.folds, cohort.score, probabilities, strict=True)
    ]
    write_table(file, columns, rows)


def _is_digital(table: Path) -> bool:
    """Return True for a table of digital patients, which has their cohort's settings beside it."""
    file = (table if table.is_dir() else table.parent) / SETTINGS
    return file.is_file() and "made_of" not in file.read_text(encoding="utf-8")
