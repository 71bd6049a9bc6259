"""One training of the study, in a process of its own: which radiographs it learns from, and what it predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.core.ct import CTError

from ...experiments.configuration import ExperimentRun, TrainingBudget
from ...experiments.engine import running_folder
from ...experiments.jobs import Prepared
from ..table import LABELS, read_table
from .configurations import HELD_OUT, THRESHOLDS, Configuration, run_key

if TYPE_CHECKING:
    from ..dataset import RadiographSet
    from ..fitting import FitSettings


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
    """What does a run: trains, and returns what the study keeps of it. Each process works on one core."""
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
        from ..fitting import finds, fit, predictions_of, validation_split

        known = self._radiographs(self._data.table, run.configuration)
        folds, settings = np.array(self._data.folds), fit_settings(run.configuration, self._budget, self._data.device)
        learned = np.flatnonzero(folds != run.fold)
        split = validation_split(known, 0.2, self._budget.seed + 1 + run.fold, LABELS[0], learned)
        key = run_key(run, self._budget, known.sha256)
        with running_folder(self._data.folder, f"{run.configuration.name}-{run.fold}", key) as folder:
            network, calibration, outcome, _ = fit(known, *split, settings, folder)
        test, cases = known, np.flatnonzero(folds == run.fold)
        if run.fold == HELD_OUT:
            test = self._radiographs(self._data.external, run.configuration)
            cases = np.arange(len(test))
        image, both = predictions_of(network, test, cases, calibration, finds(settings))
        if not np.isfinite(image).all():
            raise CTError(
                f"The training of {run.configuration.name} gave no numbers. Choose fewer --steps, or another --seed."
            )
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
                raise CTError(
                    "Only radiographs projected from CTs with thick slices can be made with super-resolution."
                )
            self._held = (table, *pictures), load_radiographs(table, LABELS[0], *pictures)
        return self._held[1]
