"""What the study of radiomics fits: each model once, however many tables show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

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
"""In place of a fold's number: learned from all that are not held out, and judged by those that are."""


@dataclass(frozen=True)
class Cell:
    """A way to make a model. contrast: contrast-enhanced scans are learned from too. pseudo: learned from pseudo-labels
    instead of the truth, by which all are judged.
    """

    features: str = "both"
    classifier: str = "logistic"
    contrast: bool = False
    pseudo: bool = False


@dataclass(frozen=True)
class Job:
    """One model. fold: in which it is judged, or HELD_OUT."""

    cell: Cell
    fold: int

    def key(self, data: str, folds: int, seed: int) -> str:
        """All that its result depends on. data: what stands for scans and features."""
        settings = {"fold": self.fold, "folds": folds, "seed": seed, "data": data}
        return json.dumps(asdict(self.cell) | settings, sort_keys=True)


def model_cells(features: Sequence[str]) -> list[Cell]:
    """Of the main table. features: sets at hand; a baseline takes one classifier."""
    return [
        Cell(name, classifier)
        for name in FEATURES
        if name in features
        for classifier in (CLASSIFIERS if name not in BASELINES else ("logistic",))
    ]


def contrast_cells() -> list[Cell]:
    """Those that learn from contrast-enhanced scans too; each has its twin that does not in the main table."""
    return [Cell("both", classifier, contrast=True) for classifier in CLASSIFIERS]


def label_cells() -> list[Cell]:
    """Those that learn from pseudo-labels; each has its twin that learns from the truth in the main table."""
    kinds = ("logistic", "boosting")  # one that draws a line and one that does not
    return [Cell(name, classifier, pseudo=True) for name in ("both", "heart") for classifier in kinds]


def twin(cell: Cell) -> Cell:
    """The same, learned from the truth and without contrast-enhanced scans."""
    return replace(cell, contrast=False, pseudo=False)


def cells_of(features: Sequence[str], contrast: bool) -> list[Cell]:
    """All, the most important first. contrast: whether contrast-enhanced scans are given."""
    return [*model_cells(features), *(contrast_cells() if contrast else []), *label_cells()]


def jobs_of(cells: Sequence[Cell], folds: int) -> list[Job]:
    """Every cell's models: one for each fold, and one for those held out."""
    return [Job(cell, fold) for cell in cells for fold in (*range(folds), HELD_OUT)]
