"""Radiomics: the study of zero or non-zero coronary calcium by features and classifiers, and the training of a model.

Training data are a table of CTs with a score for each artery (`data.scan_table`). Without a test table, a fifth of the
patients, the same for every seed, is held out. Cross-validation on the others tunes a logistic regression and the limit
from which a probability counts as calcium. The finished model, as scoring loads it, is evaluated once on the test
patients, and the results are written on its card.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
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

from CACScoringLib.core.errors import TableError
from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.networks.configs import RadiomicsConfig
from CACScoringLib.statistics.roc import area_under_curve
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE

from ...data.scan_table import TOTAL, TableScan, read_cts
from ...evaluation.experiment import ExperimentRun, Fit, Predict, predicted_rows
from ...evaluation.measures import ExperimentComparison, Measure, rates
from ...training.runs import training_run
from ...training.settings import RunOptions
from ..sources import (
    SourceSettings,
    WholeScanStudy,
    WholeScanStudySettings,
    check_noncoronary_controls,
    cohort_of,
    describe_data,
    factors_title,
    kind_of_data,
    on_controls,
    warn_of_failures,
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
        title = f"{SETS[self.features]}, {fitting.CLASSIFIERS[self.classifier].lower()}"
        title += ", with contrast-enhanced scans" if self.contrast else ""
        return title + (", from pseudo-labels" if self.pseudo else "")


CONFIGURATIONS = {
    **{f"{name}-{kind}": RadiomicsConfiguration(name, kind) for name in SETS for kind in fitting.CLASSIFIERS},
    **{f"both-{kind}-contrast": RadiomicsConfiguration("both", kind, contrast=True) for kind in fitting.CLASSIFIERS},
    **{
        f"{name}-{kind}-pseudo": RadiomicsConfiguration(name, kind, pseudo=True)
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


@dataclass(frozen=True)
class RadiomicsStudy(WholeScanStudy):
    """Task of sets of features and classifiers.

    Attributes:
        features: Features of the cohort's scans.
        contrast: Features of contrast-enhanced scans, if any.
    """

    features: pd.DataFrame
    contrast: pd.DataFrame | None

    NAME: ClassVar[str] = "radiomics"
    SETTINGS: ClassVar = RadiomicsStudySettings
    CONFIGURATIONS: ClassVar = CONFIGURATIONS
    COLUMNS: ClassVar = ("calcium", "probability", "positive")

    @classmethod
    def read(cls, settings: RadiomicsStudySettings, progress: Progress) -> RadiomicsStudy:
        scans, test_names = settings.read(TOTAL, progress)
        features = partial(
            fitting.features_of,
            folder=settings.prepared,
            workers=settings.workers,
            progress=progress,
            encoder=settings.encoder,
        )
        (table, failed), contrast = features(scans), None
        if settings.contrast:
            contrast, contrast_failed = features(read_cts(settings.contrast, TOTAL))
            failed = failed | contrast_failed
        volumes = {scan.name: volume for scan, volume in zip(table.scan, table[fitting.HEART_ML], strict=True)}
        cohort = cohort_of([*table.scan], test_names, volumes, failed, settings.budget)
        configurations = [cls.CONFIGURATIONS[name] for name in settings.names or cls.CONFIGURATIONS]
        usable = tuple(config for config in configurations if contrast is not None or not config.contrast)
        return cls(settings, cohort, usable, table, contrast)

    def stamp(self) -> str:
        return f"{super().stamp()} {self._digest}"

    @cached_property
    def _digest(self) -> str:
        tables = [table for table in (self.features, self.contrast) if table is not None]
        features = [table.drop(columns=["scan", "patient", "calcium"]) for table in tables]
        values = b"".join(table.to_numpy(float).tobytes() + repr(tuple(table)).encode() for table in features)
        return hashlib.sha256(values).hexdigest()[:16]

    def fit(self, run: ExperimentRun, folder: Path) -> tuple[Predict, float]:
        began = time.perf_counter()
        cohort, config = self.cohort, run.configuration
        training = self.features.iloc[cohort.training(run.fold)]
        if config.contrast:
            others = np.concatenate([cohort.validation(run.fold), cohort.held_out])
            training = fitting.with_contrast(training, self.contrast, [cohort.patients[row] for row in others])
        names = fitting.features_in(training, config.features)
        data = (training[names].to_numpy(), fitting.labels_of(training, config.pseudo), training.patient.to_numpy())
        model = fitting.fit_classifier(config.classifier, *data, self.settings.budget.seed)

        def predict(rows: np.ndarray) -> np.ndarray:
            return with_calls(model.probabilities(self.features[names].to_numpy()[rows]), model.limit)

        return predict, time.perf_counter() - began

    def alike(self, configuration: RadiomicsConfiguration) -> Hashable:
        return configuration.classifier

    def training_seconds(self, configuration: RadiomicsConfiguration) -> float:
        return self.fit(ExperimentRun(configuration, 0), self.settings.output)[1]

    @property
    def truth(self) -> np.ndarray:
        return self.features.calcium.to_numpy()

    @property
    def reference(self) -> str:
        return factors_title(self.cohort.known_factors)

    columns_of = staticmethod(columns_of)

    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        return measures_of(table)

    def comparators(self) -> Mapping[str, Fit]:
        table, columns = self.features, self.cohort.known_factors
        rule = np.stack([table[PSEUDO_FEATURE], fitting.labels_of(table, pseudo=True)], 1)

        def by_factors(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            factors = self.cohort.factors[:, columns]
            model = make_pipeline(StandardScaler(), LogisticRegression())
            probabilities = cross_val_predict(model, factors[rows], self.truth[rows], method="predict_proba")[:, 1]
            limit = fitting.best_limit(probabilities, self.truth[rows])
            model.fit(factors[rows], self.truth[rows])
            return lambda held_out: with_calls(model.predict_proba(factors[held_out])[:, 1], limit)

        return {
            "130 HU in the heart (the pseudo-label)": lambda rows: lambda held_out: rule[held_out],
            "Always calcium": lambda rows: lambda held_out: np.ones((len(held_out), 2)),
            self.reference: by_factors,
        }


INTENDED_USE = (
    "Estimates whether a non-contrast chest CT shows any coronary calcium, by radiomic features of the "
    "heart and of dense candidates in it, as a whole-scan estimate beside a score of lesions. For research; not a "
    "medical device."
)

LABELS = ("truth", "pseudo")
LIMIT = "probability_limit"
"""Key of the limit in a card's calibration."""


@dataclass(frozen=True)
class RadiomicsTraining:
    """Settings of a radiomics model.

    Attributes:
        sources: Tables for the test, and cache.
        contrast_data: Table of contrast-enhanced scans to train on as well.
        labels: True scores, or pseudo-labels from 130 HU alone.
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


PRESETS = {"default": RadiomicsTraining()}


def train(options: RunOptions, settings: RadiomicsTraining, progress: Progress) -> Path:
    """Train a model, evaluate it and write it; returns its card's path. Raises CTError, OutputError."""
    scans, test_names, controls = settings.sources.read(options.only_table(), TOTAL, progress)
    contrast = read_cts(settings.contrast_data, TOTAL) if settings.contrast_data else ()
    check_noncoronary_controls(contrast, controls)
    if enhanced := [scan.name for scan in scans if scan.contrast]:
        raise TableError(f"{enhanced[0]} is contrast-enhanced. Give such scans as contrast_data in --settings.")
    with training_run(options, "radiomics", settings, {}, progress) as run:
        with progress.step("scans"):
            cache = settings.sources.cache or options.folder / "scans"

            def compute(part: tuple[TableScan, ...]) -> pd.DataFrame:
                table, failed = fitting.features_of(part, cache, options.workers, progress)
                warn_of_failures(failed, progress)
                return table

            features = compute(scans)
            contrast_features, control_features = (compute(part) if part else None for part in (contrast, controls))
        is_tested = np.isin([scan.name for scan in features.scan], test_names)
        test_table, unenhanced = features[is_tested], features[~is_tested]
        if test_table.empty:
            raise TableError("None of the scans kept apart for the test could be read. Look at the warnings.")
        with progress.step("training"):
            training = fitting.with_contrast(unenhanced, contrast_features, test_table.patient)
            names = fitting.features_in(training, settings.features)
            data = (training[names].to_numpy(), fitting.labels_of(training, settings.labels == "pseudo"))
            fitted = fitting.fit_classifier("logistic", *data, training.patient.to_numpy(), settings.seed)
            limit = fitting.best_limit(fitted.out_of_fold, data[1], settings.sensitivity or None)
            network, config = fitting.as_network(fitted, names, RadiomicsConfig())
        with progress.step("model"):
            sizes = [len(table) for table in (unenhanced, training, test_table)]
            counts = {"training": sizes[0], "contrast-enhanced training": sizes[1] - sizes[0], "test": sizes[2]}
            facts = {
                **{"labels": settings.labels, "features": settings.features, **fitted.settings},
                **{"features_tried": fitted.inputs, "features_kept": len(config.features)},
            }

            def evaluate(model: LoadedModel) -> tuple[dict[str, Any], dict[str, Any]]:
                test = _evaluate(model, test_table, control_features, limit, settings.seed)
                return {"test": {**test, "data": kind_of_data(scans)}}, {LIMIT: limit}

            about = (config, "custom", describe_data(scans, counts), settings.seed, facts, INTENDED_USE)
            return run.write_network(network, *about, evaluate)


def _evaluate(
    model: LoadedModel, table: pd.DataFrame, controls: pd.DataFrame | None, limit: float, seed: int
) -> dict[str, object]:
    """Test the model on held-out patients, in the format of `CACScoringLib.whole_scan.trust`."""
    rows = predicted_rows([*table.scan], columns_of(table.calcium.to_numpy(), _predict(model, table, limit)))
    comparison = ExperimentComparison([*table.patient], {}, np.random.default_rng(seed))
    test: dict[str, object] = {
        "patients": table.patient.nunique(),
        "with_calcium": int(table.calcium.sum()),
        **{m.title.lower(): comparison.result(m, "model").estimate.as_json() for m in measures_of(rows)},
    }
    return test if controls is None else {**test, **on_controls(_predict(model, controls, limit)[:, 1])}


def _predict(model: LoadedModel, table: pd.DataFrame, limit: float) -> np.ndarray:
    import torch

    values = torch.tensor(table[[*model.card.config["features"]]].to_numpy(), dtype=torch.float32)
    with torch.inference_mode():
        probabilities = torch.sigmoid(cast("torch.nn.Module", model.network)(values))[:, 0].double().numpy()
    return with_calls(probabilities, limit)
