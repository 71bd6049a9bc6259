"""The configurations that the study compares, and one training of it, in a process of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.core.ct import CTError

from ...experiments.engine import ExperimentRun, TrainingBudget, running_folder
from ...experiments.jobs import Prepared
from ...statistics.patient_folds import CATEGORIES
from ..cases import LABELS, SUPER_RESOLUTIONS, read_table

if TYPE_CHECKING:
    from ..dataset import RadiographSet
    from ..fitting import FitSettings


THRESHOLDS = tuple(map(int, CATEGORIES))
THRESHOLD_TITLES = ("> 0", "≥ 100", "≥ 400")

HELD_OUT = -1
"""In place of a fold: trained on all patients, and tested on the external cohort."""


@dataclass(frozen=True)
class Configuration:
    """Training configuration of a network; it is always tested on the true score.

    name: unlike any other configuration's; fit for a folder and the command line. label: score that it learns from,
    one of `cases.LABELS`. curriculum: severe calcium first. counterfactual: with radiographs of the same patients whose
    calcium is scaled or taken out. located: trained on where the calcium is, as only the light network can be.
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


BASE = Configuration()
"""What all others are compared with."""

CONFIGURATIONS = (
    BASE,
    replace(BASE, name="lateral", views=("lateral",)),
    replace(BASE, name="two-views", views=("PA", "lateral")),
    replace(BASE, name="resnet18", backbone="resnet18", located=False),
    replace(BASE, name="densenet121", backbone="densenet121", located=False),
    replace(BASE, name="not-located", located=False),
    replace(BASE, name="no-pairs", counterfactual=False),
    # As the papers train: from pictures and scores only.
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
"""The most important first."""


def run_key(run: ExperimentRun, budget: TrainingBudget, data: str) -> str:
    """All that a run's result depends on. data: what stands for the tables' content."""
    folds = 0 if run.fold == HELD_OUT else budget.folds
    settings = {"fold": run.fold, "folds": folds, "steps": budget.steps, "seed": budget.seed, "data": data}
    return json.dumps(asdict(run.configuration) | settings, sort_keys=True)


@dataclass(frozen=True)
class Data:
    """table: of radiographs. folds: in which each row is tested. external: table of the other cohort. folder: for what
    trainings leave while they run. device: of the networks.
    """

    table: Path
    folds: tuple[int, ...]
    external: Path | None
    folder: Path
    device: str


def trainer(data: Data, budget: TrainingBudget) -> Prepared:
    """Trainer of a run, which returns what the study keeps of it. Each process works on one core."""
    import torch

    torch.set_num_threads(1)
    return _Trainer(data, budget)


def fit_settings(configuration: Configuration, budget: TrainingBudget, device: str) -> FitSettings:
    """A configuration as the settings of its training. Steps are in proportion to the presets'."""
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
    """Holds the radiographs of the last run, because those of the next are mostly the same."""

    def __init__(self, data: Data, budget: TrainingBudget) -> None:
        self._data, self._budget = data, budget
        self._held: tuple[tuple, RadiographSet] | None = None

    def __call__(self, run: ExperimentRun) -> dict:
        from ..fitting import fit, knows_hearts, predictions_of, validation_split

        learned_data = self._radiographs(self._data.table, run.configuration)
        folds, settings = np.array(self._data.folds), fit_settings(run.configuration, self._budget, self._data.device)
        learned = np.flatnonzero(folds != run.fold)
        split = validation_split(learned_data, 0.2, self._budget.seed + 1 + run.fold, LABELS[0], learned)
        key = run_key(run, self._budget, learned_data.sha256)
        with running_folder(self._data.folder, f"{run.configuration.name}-{run.fold}", key) as folder:
            network, calibration, outcome, _ = fit(learned_data, *split, settings, folder)
        test, cases = learned_data, np.flatnonzero(folds == run.fold)
        if run.fold == HELD_OUT:
            test = self._radiographs(self._data.external, run.configuration)
            cases = np.arange(len(test))
        image, both = predictions_of(network, test, cases, calibration, knows_hearts(settings))
        if not np.isfinite(image).all():
            raise CTError(f"{run.configuration.name} gave no numbers. Choose fewer --steps, or another --seed.")
        return {
            "names": [test.names[n] for n in cases],
            "image": image.tolist(),
            "both": both.tolist() if np.isfinite(both).all() else None,
            "seconds": float(outcome.seconds),
        }

    def _radiographs(self, table: Path, configuration: Configuration) -> RadiographSet:
        from ..dataset import SCALES, load_radiographs

        scales = SCALES if configuration.counterfactual else SCALES[:1]
        pictures = (configuration.views, configuration.enhancement, configuration.super_resolution, scales)
        if self._held is None or self._held[0] != (table, *pictures):
            self._held = None  # so that there is never room needed for both
            if configuration.super_resolution != "none" and any(
                f.suffix != ".npz" for r in read_table(table) for f in r.files.values()
            ):
                raise CTError("Only radiographs projected from digital patients have super-resolution.")
            self._held = (table, *pictures), load_radiographs(table, LABELS[0], *pictures)
        return self._held[1]
