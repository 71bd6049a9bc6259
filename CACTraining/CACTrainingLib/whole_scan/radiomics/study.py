"""Task of radiomics: zero or non-zero coronary calcium by sets of features and classifiers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from CACScoringLib.core.progress import Progress
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE

from ...data.scan_table import read_cts
from ...evaluation.experiment import Experiment, ExperimentRun, Fit, Predict
from ...evaluation.measures import Measure, rates
from ...statistics.roc import area_under_curve
from ..sources import WholeScanStudySettings, are_digital, cohort_of, factors_title
from .fitting import CLASSIFIERS, HEART_ML, FeatureTable, best_limit, features_of, fit_classifier

SETS = {
    "both": "Radiomics of heart and candidates",
    "heart": "Radiomics of the heart",
    "candidates": "Radiomics of the candidates",
    "encoder": "Pretrained encoder",
}


def with_calls(probabilities: np.ndarray, limit: float) -> np.ndarray:
    """Return predicted values [m, 2] from probabilities [m] and the limit from which they count as calcium."""
    return np.stack([probabilities, probabilities >= limit], 1)


def columns_of(truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of `predicted_rows` from true calcium, bool [n], and values of `with_calls`."""
    return {"truth": truth, "value": predicted[:, 0], "called": predicted[:, 1] > 0}


def measures_of(table: pd.DataFrame) -> list[Measure]:
    """Discrimination by the probability, and hits of what is called calcium."""
    hits = rates(("Sensitivity", "Specificity", "Accuracy"), table.assign(value=table.called))
    return [Measure("AUC", area_under_curve, table), *hits]


@dataclass(frozen=True)
class RadiomicsConfiguration:
    """Configuration of a model.

    Attributes:
        features: Set of SETS.
        classifier: Classifier of CLASSIFIERS.
        contrast: True to train on contrast-enhanced scans too.
        pseudo: True to train on pseudo-labels; all models are evaluated on the truth.
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


CONFIGURATIONS = {
    **{f"{name}-{kind}": RadiomicsConfiguration(name, kind) for name in SETS for kind in CLASSIFIERS},
    **{f"both-{kind}-contrast": RadiomicsConfiguration("both", kind, contrast=True) for kind in CLASSIFIERS},
    **{
        f"{name}-{kind}-pseudo": RadiomicsConfiguration(name, kind, pseudo=True)
        for name in ("both", "heart", "encoder")
        for kind in ("logistic", "boosting")
    },
}


@dataclass(frozen=True)
class RadiomicsStudySettings(WholeScanStudySettings):
    """Settings of the study. contrast: table of contrast-enhanced scans to train on too."""

    contrast: Path | None = None


@dataclass(frozen=True)
class RadiomicsStudy(Experiment):
    """Task of sets of features and classifiers.

    Attributes:
        features: Features of the cohort's scans.
        contrast: Features of contrast-enhanced scans, if any.
    """

    features: FeatureTable
    contrast: FeatureTable | None

    NAME: ClassVar[str] = "radiomics"
    PAGE_TITLE: ClassVar[str] = "Zero or non-zero coronary calcium by radiomics"
    EXPLANATION: ClassVar[str] = (
        "The task is to detect any coronary calcium of a patient. A model gives a probability; those that reach its "
        "limit are called positive. The limit has the highest mean of sensitivity and specificity on the training "
        "scans, each predicted by models that had not seen it; settings of classifiers were chosen inside each fold. "
        "The encoder is that of the bundled network of territories. Published are 182 patients with a clinical CT."
    )
    SETTINGS: ClassVar = RadiomicsStudySettings
    CONFIGURATIONS: ClassVar = CONFIGURATIONS
    COLUMNS: ClassVar = ("calcium", "probability", "positive")

    @classmethod
    def read(cls, settings: RadiomicsStudySettings, progress: Progress) -> RadiomicsStudy:
        scans, test_names = settings.read()
        features = partial(features_of, folder=settings.prepared, workers=settings.workers, progress=progress)
        (table, failed), contrast = features(scans), None
        if settings.contrast:
            contrast, contrast_failed = features(read_cts(settings.contrast))
            failed = failed | contrast_failed
        volumes = dict(zip([scan.name for scan in table.scans], table.columns([HEART_ML])[:, 0], strict=True))
        cohort = cohort_of(table.scans, test_names, volumes, failed, settings.budget)
        configurations = [cls.CONFIGURATIONS[name] for name in settings.names or cls.CONFIGURATIONS]
        usable = tuple(config for config in configurations if contrast is not None or not config.contrast)
        return cls(settings, cohort, usable, table, contrast)

    def stamp(self) -> str:
        return f"{super().stamp()} {self._digest}"

    @cached_property
    def _digest(self) -> str:
        tables = [table for table in (self.features, self.contrast) if table is not None]
        values = b"".join(table.values.tobytes() + repr(table.names).encode() for table in tables)
        return hashlib.sha256(values).hexdigest()[:16]

    def fit(self, run: ExperimentRun, folder: Path) -> tuple[Predict, float]:
        began = time.perf_counter()
        cohort, config = self.cohort, run.configuration
        training = self.features.rows(cohort.training(run.fold))
        if config.contrast:
            others = np.concatenate([cohort.validation(run.fold), cohort.held_out])
            training = training.joined(self.contrast, [cohort.patients[row] for row in others])
        labels = training.pseudo_labels if config.pseudo else training.truth
        names = training.of_set(config.features)
        seed = self.settings.budget.seed
        model = fit_classifier(config.classifier, training.columns(names), labels, training.patients, seed)

        def predict(rows: np.ndarray) -> np.ndarray:
            return with_calls(model.probabilities(self.features.rows(rows).columns(names)), model.limit)

        return predict, time.perf_counter() - began

    @property
    def is_digital(self) -> bool:
        return are_digital(self.cohort.scans)

    @property
    def truth(self) -> np.ndarray:
        return self.features.truth

    @property
    def reference(self) -> str:
        return "130 HU in the heart (the pseudo-label)"

    def outcomes(self, rows: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        return {"": columns_of(self.truth[rows], values)}

    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        return measures_of(table)

    def comparators(self) -> Mapping[str, Fit]:
        table, columns = self.features, self.cohort.known_factors
        rule = np.stack([table.columns([PSEUDO_FEATURE])[:, 0], table.pseudo_labels], 1)

        def by_factors(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            factors = self.cohort.factors[:, columns]
            model = make_pipeline(StandardScaler(), LogisticRegression())
            probabilities = cross_val_predict(model, factors[rows], table.truth[rows], method="predict_proba")[:, 1]
            limit = best_limit(probabilities, table.truth[rows])
            model.fit(factors[rows], table.truth[rows])
            return lambda held_out: with_calls(model.predict_proba(factors[held_out])[:, 1], limit)

        return {
            self.reference: lambda rows: lambda held_out: rule[held_out],
            "Always calcium": lambda rows: lambda held_out: np.ones((len(held_out), 2)),
            factors_title(columns): by_factors,
        }
