"""Training configurations that the study compares, and one training in its own process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from CACScoringLib.core.ct import CTError

from ...evaluation.experiment import ExperimentRun, TrainingBudget, running_folder
from ...evaluation.jobs import Prepared
from ...statistics.patient_folds import CATEGORIES
from ..cases import LABELS, SUPER_RESOLUTIONS, read_table

if TYPE_CHECKING:
    from ..dataset import RadiographSet
    from ..fitting import FitSettings


THRESHOLDS = tuple(map(int, CATEGORIES))
THRESHOLD_TITLES = ("> 0", "≥ 100", "≥ 400")

HELD_OUT = -1
"""Fold number of the training on all patients, tested on the external cohort."""


@dataclass(frozen=True)
class RadiographConfiguration:
    """Training configuration of a network; it is always tested on the true score.

    Attributes:
        name: Unique name, usable as a folder name.
        backbone: Backbone of the network.
        views: Views of the network.
        super_resolution: Way of `cases.SUPER_RESOLUTIONS`.
        enhancement: Enhancement of the contrast.
        label: Score of `cases.LABELS` used as label.
        curriculum: True to train on severe calcium first.
        counterfactual: True to add radiographs of the same patients with scaled or removed calcium.
        located: True to train on the location of calcium, for "light" only.
    """

    name: str = "base"
    backbone: str = "light"
    views: tuple[str, ...] = ("PA",)
    super_resolution: str = "none"
    enhancement: str = "none"
    label: str = LABELS[0]
    curriculum: bool = False
    counterfactual: bool = True
    located: bool = True


BASE = RadiographConfiguration()
"""Configuration with which all others are compared."""

CONFIGURATIONS = (
    BASE,
    replace(BASE, name="lateral", views=("lateral",)),
    replace(BASE, name="two-views", views=("PA", "lateral")),
    replace(BASE, name="resnet18", backbone="resnet18", located=False),
    replace(BASE, name="densenet121", backbone="densenet121", located=False),
    replace(BASE, name="not-located", located=False),
    replace(BASE, name="no-pairs", counterfactual=False),
    # As in the papers: pictures and scores only.
    *(
        replace(BASE, name=name, label=label, curriculum=curriculum, counterfactual=False, located=False)
        for label, kind in zip(LABELS, ("plain", "reader-labels", "automatic-labels"), strict=True)
        for name, curriculum in ((kind, False), (f"{kind}-curriculum", True))
    ),
    *(
        replace(BASE, name=f"{slices}-{contrast}", super_resolution=slices, enhancement=contrast)
        for slices in SUPER_RESOLUTIONS
        for contrast in ("none", "clahe", "equalised", "unsharp")
        if (slices, contrast) != ("none", "none")
    ),
)
"""Configurations, the most important first."""


def run_key(run: ExperimentRun, budget: TrainingBudget, data: str) -> str:
    """Return the key of a run's result. data: hash of the tables."""
    folds = 0 if run.fold == HELD_OUT else budget.folds
    settings = {"fold": run.fold, "folds": folds, "steps": budget.steps, "seed": budget.seed, "data": data}
    return json.dumps(asdict(run.configuration) | settings, sort_keys=True)


@dataclass(frozen=True)
class RadiographData:
    """Data of the study's trainings.

    Attributes:
        table: Table of radiographs.
        folds: Fold in which each row is tested.
        external: Table of the external cohort, or None.
        folder: Folder of running trainings.
        device: Device of the networks.
    """

    table: Path
    folds: tuple[int, ...]
    external: Path | None
    folder: Path
    device: str


def trainer(data: RadiographData, budget: TrainingBudget) -> Prepared:
    """Return a function that trains a run and returns its predictions. Each process uses one core."""
    import torch

    torch.set_num_threads(1)
    return _Trainer(data, budget)


def fit_settings(configuration: RadiographConfiguration, budget: TrainingBudget, device: str) -> FitSettings:
    """Return the training settings of a configuration. Steps are in proportion to the presets'."""
    from CACScoringLib.networks.radiograph import RadiographNetConfig

    from ..fitting import FitSettings
    from ..task import SEVERE_FIRST
    from ..train import PRESETS

    config = RadiographNetConfig(
        backbone=configuration.backbone,
        views=configuration.views,
        thresholds=THRESHOLDS,
        enhancement=configuration.enhancement,
    )
    preset = PRESETS[configuration.backbone].training
    proportion = 1.0 if budget.steps is None else budget.steps / PRESETS["light"].training.loop.steps
    loop = replace(preset.loop, seed=budget.seed, steps=max(1, round(proportion * preset.loop.steps)))
    training = replace(
        preset,
        loop=loop,
        label=configuration.label,
        scaled_share=preset.scaled_share if configuration.counterfactual else 0.0,
        curriculum=SEVERE_FIRST if configuration.curriculum else (),
        locate_weight=preset.locate_weight if configuration.located else 0.0,
    )
    return FitSettings(config, training, device)


class _Trainer:
    """Trainer of runs. Caches the radiographs of the last run, which the next run mostly shares."""

    def __init__(self, data: RadiographData, budget: TrainingBudget) -> None:
        self._data, self._budget = data, budget
        self._cached: tuple[tuple[Any, ...], RadiographSet] | None = None

    def __call__(self, run: ExperimentRun) -> dict[str, Any]:
        from ..fitting import fit, knows_hearts, predictions_of, validation_split

        data = self._radiographs(self._data.table, run.configuration)
        folds, settings = np.array(self._data.folds), fit_settings(run.configuration, self._budget, self._data.device)
        training_cases = np.flatnonzero(folds != run.fold)
        split = validation_split(data, 0.2, self._budget.seed + 1 + run.fold, LABELS[0], training_cases)
        key = run_key(run, self._budget, data.sha256)
        with running_folder(self._data.folder, f"{run.configuration.name}-{run.fold}", key) as folder:
            network, calibration, outcome, _ = fit(data, *split, settings, folder)
        test, cases = data, np.flatnonzero(folds == run.fold)
        if run.fold == HELD_OUT and self._data.external is not None:
            test = self._radiographs(self._data.external, run.configuration)
            cases = np.arange(len(test))
        image, fused = predictions_of(network, test, cases, calibration, knows_hearts(settings))
        if not np.isfinite(image).all():
            raise CTError(f"{run.configuration.name} gave no numbers. Choose fewer --steps, or another --seed.")
        return {
            "names": [test.names[n] for n in cases],
            "image": image.tolist(),
            "both": fused.tolist() if np.isfinite(fused).all() else None,
            "seconds": float(outcome.seconds),
        }

    def _radiographs(self, table: Path, configuration: RadiographConfiguration) -> RadiographSet:
        from ..dataset import SCALES, load_radiographs

        scales = SCALES if configuration.counterfactual else SCALES[:1]
        pictures = (configuration.views, configuration.enhancement, configuration.super_resolution, scales)
        if self._cached is None or self._cached[0] != (table, *pictures):
            self._cached = None  # frees its memory first
            if configuration.super_resolution != "none" and any(
                f.suffix != ".npz" for r in read_table(table) for f in r.files.values()
            ):
                raise CTError("Only radiographs projected from digital patients have super-resolution.")
            self._cached = (table, *pictures), load_radiographs(table, LABELS[0], *pictures)
        return self._cached[1]
