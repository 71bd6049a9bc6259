"""Radiomics: zero or non-zero coronary calcium by features and classifiers, and the training of a model.

Training data are a table of CTs with a score for each artery (`data.scan_table`). Without a test table, a fifth of the
patients, the same for every seed, is held out. Cross-validation on the others tunes a logistic regression and the limit
from which a probability counts as calcium. The finished model, as scoring loads it, is evaluated once on the test
patients, and the results are written on its card.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.networks.configs import RadiomicsConfig
from CACScoringLib.statistics.roc import area_under_curve
from CACScoringLib.whole_scan.radiomics import THRESHOLD_FEATURE

from ...data.scan_table import TOTAL, TableScan, read_cts
from ...evaluation.experiment import HELD_OUT, Fit, FittedModel, Predict, TrainingBudget, predicted_rows
from ...evaluation.measures import ExperimentComparison, Measure, rates
from ...evaluation.papers import texts_of
from ...training.runs import TrainedModel
from ...training.settings import RunOptions
from ..sources import (
    ScanList,
    SourceSettings,
    WholeScanStudy,
    WholeScanStudySettings,
    check_noncoronary_controls,
)
from . import fitting

SETS = {
    "both": "Radiomics of heart and candidates",
    "heart": "Radiomics of the heart",
    "candidates": "Radiomics of the candidates",
    "encoder": "Pretrained encoder",
}


def with_calls(probabilities: np.ndarray, limit: float) -> np.ndarray:
    """Return predicted values [m, 2] from probabilities [m] and the limit from which they count as calcium."""
    return np.stack([probabilities, probabilities >= limit], 1)


@dataclass(frozen=True)
class RadiomicsConfiguration:
    """Configuration of a model.

    Attributes:
        features: Set of SETS.
        classifier: Classifier of CLASSIFIERS.
        contrast: True to train on contrast-enhanced scans too.
        by_threshold: True to train on the classes at 130 HU; all models are evaluated on the truth.
    """

    features: str = "both"
    classifier: str = "logistic"
    contrast: bool = False
    by_threshold: bool = False

    @property
    def title(self) -> str:
        title = f"{SETS[self.features]}, {fitting.CLASSIFIERS[self.classifier].lower()}"
        title += ", with contrast-enhanced scans" if self.contrast else ""
        return title + (", from classes at 130 HU" if self.by_threshold else "")

    def fit_settings(self, budget: TrainingBudget) -> RadiomicsFitSettings:
        """Return the settings of a fit."""
        return RadiomicsFitSettings(self, budget.seed)


CONFIGURATIONS = {
    **{f"{name}-{kind}": RadiomicsConfiguration(name, kind) for name in SETS for kind in fitting.CLASSIFIERS},
    **{f"both-{kind}-contrast": RadiomicsConfiguration("both", kind, contrast=True) for kind in fitting.CLASSIFIERS},
    **{
        f"{name}-{kind}-threshold": RadiomicsConfiguration(name, kind, by_threshold=True)
        for name in ("both", "heart", "encoder")
        for kind in ("logistic", "boosting")
    },
}


@dataclass(frozen=True)
class RadiomicsStudySettings(WholeScanStudySettings):
    """Settings of the study.

    Attributes:
        contrast: Table of contrast-enhanced scans to train on too.
        encoder: Pretrained encoder.
    """

    contrast: Path | None = None
    encoder: fitting.EncoderSettings = field(default_factory=fitting.EncoderSettings)


LABELS = ("truth", "threshold")


@dataclass(frozen=True)
class RadiomicsTraining:
    """Settings of a radiomics model.

    Attributes:
        sources: Tables for the test, and cache.
        contrast_data: Table of contrast-enhanced scans to train on as well.
        labels: Classes to learn: calcium by the true scores, or by the threshold of 130 HU alone.
        features: Features of the heart, of dense candidates in it, or both.
        sensitivity: Least sensitivity on unseen training patients of the limit; 0 for the best mean of sensitivity and
            specificity.
        seed: Seed of the inner folds and the classifier.
    """

    sources: SourceSettings = field(default_factory=SourceSettings)
    contrast_data: Path | None = None
    labels: str = option("truth", choices=LABELS)
    features: str = option("both", choices=("both", "heart", "candidates"))
    sensitivity: float = 0.95
    seed: int = option(0)


@dataclass(frozen=True)
class RadiomicsFitSettings:
    """Settings of a fit. sensitivity: as of `fitting.best_limit`."""

    configuration: RadiomicsConfiguration
    seed: int
    sensitivity: float | None = None


INTENDED_USE = (
    "Estimates whether a non-contrast chest CT shows any coronary calcium, by radiomic features of the "
    "heart and of dense candidates in it, as a whole-scan estimate beside a score of lesions. For research; not a "
    "medical device."
)
LIMIT = "probability_limit"
"""Key of the limit in a card's calibration."""


@dataclass(frozen=True)
class RadiomicsStudy(WholeScanStudy):
    """Sets of features and classifiers.

    Attributes:
        features: Features of the cohort's scans.
        contrast: Features of contrast-enhanced scans, if any.
    """

    features: pd.DataFrame
    contrast: pd.DataFrame | None

    NAME: ClassVar[str] = "radiomics"
    TEXTS: ClassVar = texts_of("radiomics")
    SETTINGS: ClassVar = RadiomicsStudySettings
    PRESETS: ClassVar = {"default": RadiomicsTraining()}
    CONFIGURATIONS: ClassVar = CONFIGURATIONS
    COLUMNS: ClassVar = ("calcium", "probability", "positive")
    SCORES: ClassVar = TOTAL

    @classmethod
    def configurations_for(
        cls, settings: RadiomicsStudySettings, scans: Sequence[TableScan]
    ) -> Sequence[RadiomicsConfiguration]:
        configurations = [cls.CONFIGURATIONS[name] for name in settings.names or cls.CONFIGURATIONS]
        return [config for config in configurations if settings.contrast or not config.contrast]

    @classmethod
    def shared_settings(cls, settings: RadiomicsTraining) -> dict[str, Any]:
        return {"contrast": settings.contrast_data}

    @classmethod
    def settings_of_fit(cls, settings: RadiomicsTraining) -> RadiomicsFitSettings:
        by_threshold, has_contrast = settings.labels == "threshold", settings.contrast_data is not None
        configuration = RadiomicsConfiguration(settings.features, contrast=has_contrast, by_threshold=by_threshold)
        return RadiomicsFitSettings(configuration, settings.seed, settings.sensitivity or None)

    @classmethod
    def of_scans(
        cls,
        settings: RadiomicsStudySettings,
        scan_list: ScanList,
        fits: Sequence[RadiomicsFitSettings],
        progress: Progress,
    ) -> RadiomicsStudy:
        features = partial(
            fitting.features_of,
            folder=settings.prepared,
            workers=settings.workers,
            progress=progress,
            encoder=settings.encoder,
        )
        (table, failed), contrast = features(scan_list.scans), None
        if settings.contrast:
            enhanced = read_cts(settings.contrast, TOTAL)
            check_noncoronary_controls(enhanced, scan_list.controls)
            contrast, contrast_failed = features(enhanced)
            failed = failed | contrast_failed
        volumes = {scan.name: volume for scan, volume in zip(table.scan, table[fitting.HEART_ML], strict=True)}
        cohort = scan_list.cohort(volumes, failed, settings.budget)
        return cls(settings, cohort, tuple(fits), table, contrast)

    def stamp(self) -> str:
        return f"{super().stamp()} {self._digest}"

    @cached_property
    def _digest(self) -> str:
        tables = [table for table in (self.features, self.contrast) if table is not None]
        features = [table.drop(columns=["scan", "patient", "calcium"]) for table in tables]
        values = b"".join(table.to_numpy(float).tobytes() + repr(tuple(table)).encode() for table in features)
        return hashlib.sha256(values).hexdigest()[:16]

    def fit(
        self, settings: RadiomicsFitSettings, fold: int, folder: Path, progress: Progress | None = None
    ) -> FittedModel:
        began, config = time.perf_counter(), settings.configuration
        training = self._training(config, fold)
        names = fitting.features_in(training, config.features)
        labels = fitting.true_classes(training, config.by_threshold)
        data = (training[names].to_numpy(), labels, training.patient.to_numpy())
        model = fitting.fit_classifier(config.classifier, *data, settings.seed, settings.sensitivity)

        def predict(rows: np.ndarray) -> np.ndarray:
            return with_calls(model.probabilities(self.features[names].to_numpy()[rows]), model.limit)

        return FittedModel(model, predict, time.perf_counter() - began)

    def _training(self, configuration: RadiomicsConfiguration, fold: int) -> pd.DataFrame:
        """Return the features of training scans, and of contrast-enhanced ones of patients that are not predicted."""
        cohort = self.cohort
        training = self.features.iloc[cohort.training(fold)]
        unseen = np.concatenate([cohort.validation(fold), cohort.held_out])
        contrast = self.contrast if configuration.contrast else None
        return fitting.with_contrast(training, contrast, [cohort.patients[row] for row in unseen])

    def alike(self, configuration: RadiomicsConfiguration) -> Hashable:
        return configuration.classifier

    def training_seconds(self, configuration: RadiomicsConfiguration) -> float:
        return self.fit(self.fit_settings(configuration), 0, self.settings.output).seconds

    @property
    def truth(self) -> np.ndarray:
        return self.features.calcium.to_numpy()

    @property
    def reference(self) -> str:
        return self.factors_title.capitalize()

    def outcomes(self, rows: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """Return true calcium, probability and call."""
        return {"": {"truth": self.truth[rows], "value": values[:, 0], "called": values[:, 1] > 0}}

    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        """Return discrimination by the probability, and hits of what is called calcium."""
        hits = rates(("Sensitivity", "Specificity", "Accuracy"), table.assign(value=table.called))
        return [Measure("AUC", area_under_curve, table), *hits]

    def comparators(self) -> Mapping[str, Fit]:
        table = self.features
        rule = np.stack([table[THRESHOLD_FEATURE], fitting.true_classes(table, by_threshold=True)], 1)
        return {
            "130 HU in the heart": lambda rows: lambda cases: rule[cases],
            "Always calcium": lambda rows: lambda cases: np.ones((len(cases), 2)),
            self.reference: self.factors_alone,
        }

    def fit_factors(self, factors: np.ndarray, truth: np.ndarray) -> Predict:
        """Fit a logistic regression, and the limit on inner folds, fewer of few patients."""
        model = make_pipeline(StandardScaler(), LogisticRegression())
        folds = min(fitting.INNER_FOLDS, np.count_nonzero(truth), np.count_nonzero(~truth))
        probabilities = cross_val_predict(model, factors, truth, cv=folds, method="predict_proba")[:, 1]
        limit = fitting.best_limit(probabilities, truth)
        model.fit(factors, truth)
        return lambda cases: with_calls(model.predict_proba(cases)[:, 1], limit)

    def trained_model(self, options: RunOptions, settings: RadiomicsFitSettings, fitted: FittedModel) -> TrainedModel:
        config, fit = settings.configuration, cast(fitting.FittedClassifier, fitted.model)
        network, of_network = fitting.as_network(
            fit, fitting.features_in(self.features, config.features), RadiomicsConfig()
        )
        n_plain, n_learned = len(self.cohort.training(HELD_OUT)), len(self._training(config, HELD_OUT))
        counts = {
            "training": n_plain,
            "contrast-enhanced training": n_learned - n_plain,
            "test": len(self.cohort.held_out),
        }
        facts = {
            **{"labels": LABELS[config.by_threshold], "features": config.features, **fit.settings},
            **{"features_tried": fit.inputs, "features_kept": len(of_network.features)},
        }

        def evaluate(model: LoadedModel) -> tuple[dict[str, Any], dict[str, Any]]:
            return {"test": self.test_results(model, settings, fitted)}, {LIMIT: fit.limit}

        about = (self.describe_data(counts), settings.seed, facts, INTENDED_USE)
        return TrainedModel(network, of_network, "custom", *about, evaluate)

    def test(
        self, model: LoadedModel, fitted: FittedModel, settings: RadiomicsFitSettings, comparison: ExperimentComparison
    ) -> tuple[dict[str, object], np.ndarray]:
        import torch

        def predict(rows: np.ndarray) -> np.ndarray:
            table = self.features.iloc[rows][[*model.card.config["features"]]]
            values = torch.tensor(table.to_numpy(), dtype=torch.float32)
            with torch.inference_mode():
                probabilities = torch.sigmoid(cast("torch.nn.Module", model.network)(values))[:, 0].double().numpy()
            return with_calls(probabilities, fitted.model.limit)

        rows = self.cohort.held_out
        table = predicted_rows(self.cohort.scans_at(rows), self.outcomes(rows, predict(rows))[""])
        measures = {
            measure.title.lower(): comparison.result(measure, "model").estimate.as_json()
            for measure in self.measures(table)
        }
        return {"with_calcium": int(self.truth[rows].sum()), **measures}, predict(self.cohort.controls)[:, 1] > 0
