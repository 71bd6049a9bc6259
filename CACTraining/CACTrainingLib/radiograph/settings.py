"""Settings of networks that detect coronary calcium on chest radiographs: of `cac train`, and of a study.

Training data are a table of radiographs: of digital patients (`radiograph.cohort`), or a user's with Agatston scores of
a CT. `radiograph.study` trains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from CACScoringLib.core.options import changed_settings, option
from CACScoringLib.networks.configs import BACKBONES, VIEWS, RadiographNetConfig
from CACScoringLib.radiograph.view import ENHANCEMENTS
from CACScoringLib.statistics.patient_folds import CATEGORY_LIMITS

from ..data.scan_table import LABELS
from ..evaluation.experiment import TrainingBudget
from ..evaluation.papers import texts_of
from ..training.settings import LoopSettings, RunOptions, read_presets
from .cases import SUPER_RESOLUTIONS
from .fitting import FitSettings
from .task import SEVERE_FIRST, RadiographTraining

INTENDED_USE = (
    "Estimates the probability of coronary calcium from chest radiographs, where no CT is available. Trained on {data}."
    " For research; not a medical device."
)
DIGITAL = "radiographs of digital patients; no real radiograph with known calcium"
USER_TABLE = "the radiographs of a user's own table"


@dataclass(frozen=True)
class RadiographTrainSettings:
    """Settings of a radiograph model.

    Attributes:
        training: Settings of the training.
        backbone: Backbone of the network.
        views: Views of the network, "PA", "lateral" or "both".
        size: Side of the square input in pixels.
        enhancement: Enhancement of the radiographs' contrast.
        curriculum: True to train on severe calcium first, then on moderate, then on all.
        super_resolution: Super-resolution of digital patients' slices before projection.
        pretrained: File of weights with torchvision's names, for resnet18 or densenet121.
        external: Table of other patients for a test of the finished model.
    """

    training: RadiographTraining
    backbone: str = option("light", choices=BACKBONES)
    views: str = option("PA", choices=(*VIEWS, "both"))
    size: int = RadiographNetConfig.size
    enhancement: str = option("none", choices=ENHANCEMENTS)
    curriculum: bool = False
    super_resolution: str = option("none", choices=SUPER_RESOLUTIONS)
    pretrained: Path | None = None
    external: Path | None = None

    def fit_settings(self, options: RunOptions) -> FitSettings:
        """Return the settings of the fit."""
        views = VIEWS if self.views == "both" else (self.views,)
        config = RadiographNetConfig(self.backbone, views=views, size=self.size, enhancement=self.enhancement)
        training = replace(self.training, curriculum=SEVERE_FIRST) if self.curriculum else self.training
        sources = (self.pretrained, options.start, self.super_resolution)
        return FitSettings(config, training, options.device, *sources)


_LOOP = LoopSettings(average=0.98, half_precision=False)
PRESETS = read_presets("radiograph", RadiographTrainSettings(RadiographTraining(_LOOP)))


THRESHOLDS = tuple(map(int, CATEGORY_LIMITS))


@dataclass(frozen=True)
class RadiographConfiguration:
    """Training configuration of a network; it is always tested on the true score.

    Attributes:
        name: Unique name, usable as a folder name.
        backbone: Backbone of the network.
        views: Views of the network.
        super_resolution: Way of `cases.SUPER_RESOLUTIONS`.
        enhancement: Enhancement of the contrast.
        label: Score of LABELS used as label.
        curriculum: True to train on severe calcium first.
        counterfactual: True to add radiographs of the same patients with other or no calcium, and to expose each
            picture anew; else each patient has one exposure, the same in every configuration.
        located: True to train on the location of calcium, for "light" only.
        pretrained: True to start from the weights of `RadiographStudySettings.pretrained`.
        details: True to add details of several sizes to the network's input.
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
    pretrained: bool = False
    details: bool = True

    @property
    def title(self) -> str:
        return self.name

    def fit_settings(self, budget: TrainingBudget, device: str, weights: Path | None = None) -> FitSettings:
        """Return the settings of a training: of as many pictures and validations as those of the light network.

        weights: initial ones.
        """
        config = RadiographNetConfig(
            self.backbone, views=self.views, thresholds=THRESHOLDS, enhancement=self.enhancement, details=self.details
        )
        preset, light = PRESETS[self.backbone].training, PRESETS["light"].training
        steps = max(1, pictures_of(budget) // preset.batch_size)
        validate_every = max(1, steps * light.loop.validate_every // light.loop.steps)
        loop = replace(light.loop, seed=budget.seed, steps=steps, validate_every=validate_every)
        training = replace(
            preset,
            loop=loop,
            label=self.label,
            drawn_share=preset.drawn_share if self.counterfactual else 0.0,
            curriculum=SEVERE_FIRST if self.curriculum else (),
            locate_weight=preset.locate_weight if self.located else 0.0,
        )
        return FitSettings(
            config,
            training,
            device,
            weights,
            super_resolution=self.super_resolution,
            one_exposure=not self.counterfactual,
        )


def pictures_of(budget: TrainingBudget) -> int:
    """Return the number of pictures of each training."""
    light = PRESETS["light"].training
    return light.batch_size * (light.loop.steps if budget.steps is None else budget.steps)


TEXTS = texts_of("radiograph")


def _arms() -> dict[str, RadiographConfiguration]:
    """Return the configurations by name, the most important first, as the study's texts declare them."""
    arms: dict[str, RadiographConfiguration] = {}
    for arm in TEXTS.arms:
        like = arms.get(str(arm.get("like")), RadiographConfiguration())
        changes = {name: value for name, value in arm.items() if name != "like"}
        arms[str(arm["name"])] = changed_settings(like, changes, "radiograph")
    return arms


CONFIGURATIONS = _arms()
BASE = CONFIGURATIONS["base"]
"""Configuration with which all others are compared."""
