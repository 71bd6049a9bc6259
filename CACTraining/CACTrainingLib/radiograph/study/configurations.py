"""What the study of radiographs trains: each configuration once, however many tables show it, by their importance.

A table is one or more configurations, and all but one thing is the same in them. Each is trained anew for each fold of
the patients, and the folds are the same for all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import ClassVar

import numpy as np

from ...experiments.configuration import ExperimentRun, TrainingBudget
from ...experiments.errors import StudyError
from ...statistics.patient_folds import CATEGORIES, category_of, parts_by_patient

THRESHOLDS = tuple(map(int, CATEGORIES))
THRESHOLD_TITLES = ("> 0", "≥ 100", "≥ 400")
BACKBONES = {"light": "Light", "resnet18": "ResNet18", "densenet121": "DenseNet121"}
SUPER_RESOLUTIONS = {
    "none": "As projected",
    "interpolated": "Thin slices, interpolated",
    "learned": "Thin slices, learned",
}
ENHANCEMENTS = {
    "none": "None",
    "clahe": "CLAHE",
    "equalised": "Histogram equalised",
    "unsharp": "Unsharp mask",
}
LABELS = {"truth": "True mass", "reader": "Reader's score", "automatic": "Score without a reader"}


@dataclass(frozen=True)
class Configuration:
    """How to train. external: on all patients, and tested on another cohort; else by cross-validation.

    labels: a key of LABELS: what it learns from; it is tested by the truth always. curriculum: severe calcium first.
    counterfactual: with radiographs of the same patients whose calcium is scaled or taken out. located: asked, in
    training, where the calcium is; only the light network can be.
    """

    backbone: str = "light"
    views: tuple[str, ...] = ("PA",)
    super_resolution: str = "none"
    enhancement: str = "none"
    labels: str = "truth"
    curriculum: bool = False
    counterfactual: bool = True
    located: bool = True
    external: bool = False

    @property
    def name(self) -> str:
        """Short, and unlike any other configuration's; fit for a folder."""
        parts = [self.backbone, "+".join(self.views)]
        parts += [getattr(self, f.name) for f in fields(self)[2:5] if getattr(self, f.name) != f.default]
        flags = (("curriculum", self.curriculum), ("no-twins", not self.counterfactual))
        flags += (("not-located", not self.located), ("external", self.external))
        return "-".join([*parts, *(name for name, there in flags if there)])


BASE = Configuration()
"""What all else is compared with."""
UNAIDED = replace(BASE, counterfactual=False, located=False)
"""As the papers train: from pictures and scores only."""

TABLES: dict[str, tuple[Configuration, ...]] = {
    "thresholds": (BASE,),
    "fusion": tuple(replace(BASE, views=views) for views in (("PA",), ("lateral",), ("PA", "lateral"))),
    "capacity": (BASE, *(replace(BASE, backbone=backbone, located=False) for backbone in BACKBONES)),
    "counterfactual_pairs": tuple(
        replace(BASE, counterfactual=pairs, located=located) for pairs in (True, False) for located in (True, False)
    ),
    "curriculum": tuple(
        replace(UNAIDED, labels=labels, curriculum=curriculum) for labels in LABELS for curriculum in (False, True)
    ),
    "super_resolution": tuple(
        replace(BASE, super_resolution=super_resolution, enhancement=enhancement)
        for super_resolution in SUPER_RESOLUTIONS
        for enhancement in ENHANCEMENTS
    ),
    "external": (replace(BASE, external=True),),
}
"""The configurations of each table, the most important table first."""


@dataclass(frozen=True)
class RadiographBudget(TrainingBudget):
    """steps: of a light network's training, of the others in proportion to their presets. A configuration of several
    tables gets the most folds of them. Of the folds one tests, one is chosen by, and the rest are learned from.
    """

    TABLES: ClassVar[Sequence[str]] = tuple(TABLES)
    LEAST_FOLDS: ClassVar[int] = 3

    def folds_of(self, configuration: Configuration, tables: Sequence[str]) -> int:
        """How many folds of a configuration are trained for these tables."""
        if configuration.external:
            return 1
        if configuration == BASE:
            return self.folds
        return max(self.only.get(table, self.folds) for table in tables if configuration in TABLES[table])


def run_key(run: ExperimentRun, budget: RadiographBudget, data: str) -> str:
    """All that a run's result depends on. data: what stands for the table's content."""
    kept = asdict(run.configuration)
    # As they were called when the first studies were kept.
    kept["twins"], kept["sharpening"] = kept.pop("counterfactual"), kept.pop("super_resolution")
    folds = 0 if run.configuration.external else budget.folds
    settings = {"fold": run.fold, "folds": folds, "steps": budget.steps, "seed": budget.seed, "data": data}
    return json.dumps(kept | settings, sort_keys=True)


def configurations_of(tables: Sequence[str]) -> list[Configuration]:
    """Each once, the base first."""
    return list(dict.fromkeys([BASE, *(one for table in tables for one in TABLES[table])]))


def runs_of(tables: Sequence[str], budget: RadiographBudget) -> list[ExperimentRun]:
    """All trainings, in the order in which they are worth most if the rest is never done."""
    return [
        ExperimentRun(one, fold) for one in configurations_of(tables) for fold in range(budget.folds_of(one, tables))
    ]


def folds_of_patients(patients: Sequence, agatston: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Which fold each radiograph is tested in, int [n]: no patient in two, and each category's share the same in all.

    Raises StudyError with fewer patients than folds.
    """
    if len(set(patients)) < folds:
        raise StudyError(f"{len(set(patients))} patients cannot be split into {folds} folds. Give fewer --folds.")
    return parts_by_patient(patients, category_of(agatston), folds, seed)
