"""Training configurations that the study compares, with their settings and radiographs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CACScoringLib.core.ct import CTError

from ...evaluation.experiment import TrainingBudget
from ...statistics.patient_folds import CATEGORY_LIMITS
from ..cases import LABELS, SUPER_RESOLUTIONS, read_table

if TYPE_CHECKING:
    from ..dataset import RadiographSet
    from ..fitting import FitSettings


THRESHOLDS = tuple(map(int, CATEGORY_LIMITS))
THRESHOLD_TITLES = ("> 0", "≥ 100", "≥ 400")


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

    @property
    def title(self) -> str:
        return self.name


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


_loaded: dict[tuple[Any, ...], RadiographSet] = {}
"""Radiographs of the last run of this process, which the next run mostly shares."""


def radiographs_of(configuration: RadiographConfiguration, table: Path) -> RadiographSet:
    """Load the radiographs of a table as a configuration needs them. Raises CTError."""
    from ..dataset import SCALES, load_radiographs

    scales = SCALES if configuration.counterfactual else SCALES[:1]
    pictures = (configuration.views, configuration.enhancement, configuration.super_resolution, scales)
    key = (table, *pictures)
    if key not in _loaded:
        _loaded.clear()  # frees its memory first
        if configuration.super_resolution != "none" and any(
            f.suffix != ".npz" for r in read_table(table) for f in r.files.values()
        ):
            raise CTError("Only radiographs projected from digital patients have super-resolution.")
        _loaded[key] = load_radiographs(table, LABELS[0], *pictures)
    return _loaded[key]
