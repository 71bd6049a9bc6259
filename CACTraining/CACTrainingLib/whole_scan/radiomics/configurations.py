"""What the study of radiomics fits: each configuration once for each fold, however many tables show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ...experiments.configuration import ExperimentRun, TrainingBudget

RADIOMICS = {
    "both": "Radiomics of heart and candidates",
    "heart": "Radiomics of the heart",
    "candidates": "Radiomics of the candidates",
}
NETWORKS = {"own": "Features of CAC’s networks", "ct-fm": "Features of CT-FM", "radimagenet": "Features of RadImageNet"}
BASELINES = {"agatston": "The candidates’ Agatston score alone", "age-sex": "Age and sex alone"}
FEATURES = {**RADIOMICS, **NETWORKS, **BASELINES}
"""Sets of features by their key."""

CLASSIFIERS = {
    "logistic": "Logistic regression",
    "forest": "Random forest",
    "svm": "Support vector machine",
    "boosting": "Gradient boosting",
}

HELD_OUT = -1
"""In place of a fold's number: learned from all that are not held out, and tested on those that are."""


@dataclass(frozen=True)
class Configuration:
    """How to make a model. contrast: contrast-enhanced scans are learned from too. pseudo: learned from pseudo-labels
    instead of the truth, by which all are evaluated.
    """

    features: str = "both"
    classifier: str = "logistic"
    contrast: bool = False
    pseudo: bool = False


def run_key(run: ExperimentRun, budget: TrainingBudget, data: str) -> str:
    """All that a run's result depends on. data: what stands for scans and features."""
    settings = {"fold": run.fold, "folds": budget.folds, "seed": budget.seed, "data": data}
    return json.dumps(asdict(run.configuration) | settings, sort_keys=True)


def model_configurations(features: Sequence[str]) -> list[Configuration]:
    """Of the main table. features: sets at hand; a baseline takes one classifier."""
    return [
        Configuration(name, classifier)
        for name in FEATURES
        if name in features
        for classifier in (CLASSIFIERS if name not in BASELINES else ("logistic",))
    ]


def contrast_configurations() -> list[Configuration]:
    """Those that learn from contrast-enhanced scans too; each has its counterpart that does not in the main table."""
    return [Configuration("both", classifier, contrast=True) for classifier in CLASSIFIERS]


def label_configurations() -> list[Configuration]:
    """Those that learn from pseudo-labels; each has its counterpart that learns from the truth in the main table."""
    kinds = ("logistic", "boosting")  # one that draws a line and one that does not
    return [Configuration(name, classifier, pseudo=True) for name in ("both", "heart") for classifier in kinds]


def counterpart(configuration: Configuration) -> Configuration:
    """The same, learned from the truth and without contrast-enhanced scans."""
    return replace(configuration, contrast=False, pseudo=False)


def configurations_of(features: Sequence[str], contrast: bool) -> list[Configuration]:
    """All, the most important first. contrast: whether contrast-enhanced scans are given."""
    return [*model_configurations(features), *(contrast_configurations() if contrast else []), *label_configurations()]


def runs_of(configurations: Sequence[Configuration], folds: int) -> list[ExperimentRun]:
    """Every configuration's models: one for each fold, and one for those held out."""
    return [
        ExperimentRun(configuration, fold) for configuration in configurations for fold in (*range(folds), HELD_OUT)
    ]
