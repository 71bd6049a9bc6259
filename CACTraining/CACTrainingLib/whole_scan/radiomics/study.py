"""The study of radiomics: zero or non-zero coronary calcium, by sets of features and classifiers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from CACScoringLib.core.progress import Progress
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE

from ...experiments.engine import ExperimentRun, Trainer, TrainingBudget, carry_out
from ...experiments.jobs import Prepared
from ...report.parts import PUBLISHED
from ..evaluation import ACCURACY, AUC, SENSITIVITY, SPECIFICITY, Measure, with_calls
from ..scan_table import read_scan_table
from ..study import FACTORS, Cohort, Fit, WholeScanStudy, WholeScanStudySettings, cohort_of
from .fitting import CLASSIFIERS, HEART_ML, FeatureTable, features_of, fit_classifier, limit_for_sensitivity

SETS = {
    "both": "Radiomics of heart and candidates",
    "heart": "Radiomics of the heart",
    "candidates": "Radiomics of the candidates",
}


@dataclass(frozen=True)
class Configuration:
    """Configuration of a model. features: of SETS. classifier: of CLASSIFIERS. contrast: contrast-enhanced scans are
    learned from too. pseudo: learned from pseudo-labels instead of the truth, by which all are evaluated.
    """

    features: str = "both"
    classifier: str = "logistic"
    contrast: bool = False
    pseudo: bool = False

    @property
    def title(self) -> str:
        title = f"{SETS[self.features]}, {CLASSIFIERS[self.classifier].lower()}"
        title += ", with contrast-enhanced scans" if self.contrast else ""
        return title + (", from pseudo-labels" if self.pseudo else "")


def configurations_of(contrast: bool) -> tuple[Configuration, ...]:
    """All models of a study. contrast: whether contrast-enhanced scans are given."""
    models = [Configuration(name, classifier) for name in SETS for classifier in CLASSIFIERS]
    enhanced = [Configuration("both", classifier, contrast=True) for classifier in CLASSIFIERS if contrast]
    pseudo = [
        Configuration(name, classifier, pseudo=True)
        for name in ("both", "heart")
        for classifier in ("logistic", "boosting")
    ]
    return (*models, *enhanced, *pseudo)


@dataclass(frozen=True)
class RadiomicsStudySettings(WholeScanStudySettings):
    """contrast: table of contrast-enhanced scans to learn from too. Otherwise as `WholeScanStudySettings`."""

    workers: int | None = None
    contrast: Path | None = None


@dataclass(frozen=True)
class Data:
    """Data of a training: the patients, their features, and those of contrast-enhanced scans."""

    cohort: Cohort
    own: FeatureTable
    contrast: FeatureTable | None


def evaluate_radiomics(
    settings: RadiomicsStudySettings, progress: Progress | None = None, train: Trainer | None = None
) -> Path:
    """Make the study; see `experiments.engine.carry_out`.

    Raises StudyError, TableError, OutputError, and CTError where no scan can be prepared.
    """
    progress = progress or Progress()
    return carry_out(
        settings, partial(_read, settings, progress), train or trainer, ("scans", "models", "page"), progress
    )


def _read(settings: RadiomicsStudySettings, progress: Progress) -> _RadiomicsStudy:
    scans, tested = settings.read()

    features = partial(features_of, folder=settings.prepared, workers=settings.workers, progress=progress)
    table, failed = features(scans)
    contrast = None
    if settings.contrast:
        contrast, lost = features(read_scan_table(settings.contrast))
        failed = failed | lost
    names = [scan.name for scan in table.scans]
    volumes = dict(zip(names, table.columns([HEART_ML])[:, 0], strict=True))
    budget = settings.budget
    cohort = cohort_of(table.scans, tested, volumes, failed, budget.folds, budget.seed)
    data = Data(cohort, table, contrast)
    return _RadiomicsStudy(settings, cohort, data, configurations_of(contrast is not None))


@dataclass(frozen=True)
class _RadiomicsStudy(WholeScanStudy):
    PAGE_TITLE: ClassVar[str] = "Zero or non-zero coronary calcium by radiomics"
    PUBLISHED: ClassVar = (f"{PUBLISHED}: Abaid et al. 2025, arXiv 2510.25347", None, 0.95, None, 0.84)
    EXPLANATION: ClassVar[str] = (
        "The task is to detect any coronary calcium of a patient. A model gives a probability; those that reach its "
        "limit are called positive. The limit was chosen for a sensitivity of 95 % on the training scans, each "
        "predicted by models that had not seen it; settings of classifiers were chosen inside each fold. Published "
        "are 182 patients with a clinical CT."
    )
    COLUMNS: ClassVar = ("calcium", "probability", "positive")

    @cached_property
    def stamp(self) -> str:
        tables = [table for table in (self.data.own, self.data.contrast) if table is not None]
        values = b"".join(table.values.tobytes() + repr(table.names).encode() for table in tables)
        return f"{super().stamp} {hashlib.sha256(values).hexdigest()[:16]}"

    @property
    def truth(self) -> np.ndarray:
        return self.data.own.truth

    def measures(self) -> Sequence[Measure]:
        return (AUC, SENSITIVITY, SPECIFICITY, ACCURACY)

    def comparators(self) -> Sequence[tuple[str, Fit]]:
        cohort, table = self.cohort, self.data.own
        rule = np.stack([table.columns([PSEUDO_FEATURE])[:, 0], table.pseudo_labels], 1)
        columns = cohort.known_factors
        title = ", ".join(FACTORS[n] for n in columns).capitalize()

        def by_factors(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            factors = cohort.factors[:, columns]
            model = make_pipeline(StandardScaler(), LogisticRegression())
            unseen = cross_val_predict(model, factors[rows], table.truth[rows], method="predict_proba")[:, 1]
            limit = limit_for_sensitivity(unseen, table.truth[rows])
            model.fit(factors[rows], table.truth[rows])
            return lambda held_out: with_calls(model.predict_proba(factors[held_out])[:, 1], limit)

        return [
            ("Always calcium", lambda rows: lambda held_out: np.ones((len(held_out), 2))),
            ("130 HU in the heart (the pseudo-label)", lambda rows: lambda held_out: rule[held_out]),
            (title, by_factors),
        ]


def trainer(data: Data, budget: TrainingBudget) -> Prepared:
    """Prepare the function that makes a model of a fold."""
    return partial(_train, data, budget)


def _train(data: Data, budget: TrainingBudget, run: ExperimentRun) -> dict:
    began = time.perf_counter()
    cohort, config = data.cohort, run.configuration
    parts = {"validation": data.own.rows(cohort.validation(run.fold)), "test": data.own.rows(cohort.held_out)}
    learned = data.own.rows(cohort.training(run.fold))
    if config.contrast and data.contrast is not None:
        unseen = [patient for part in parts.values() for patient in part.patients]
        learned = learned.joined(data.contrast.without(unseen))
    labels = learned.pseudo_labels if config.pseudo else learned.truth
    names = learned.of_set(config.features)
    model = fit_classifier(config.classifier, learned.columns(names), labels, learned.patients, budget.seed)
    values = {
        name: with_calls(model.probabilities(part.columns(names)), model.limit).tolist() for name, part in parts.items()
    }
    return {**values, "fold": run.fold, "seconds": time.perf_counter() - began}
