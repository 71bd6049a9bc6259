"""Train the generator of the calcium map on true maps, or on slice labels alone.

- `supervised` needs digital patients: cross-entropy on the logit with the true map as a soft target. (An L1 loss gives
  an empty map, because the median of a sparse map is 0.) Non-coronary calcium is in no true map, and so an explicit
  negative.
- `cyclegan` is van Velzen et al., section 3, equations 1 to 5 (`cyclegan.CycleTask`); it can start from a supervised
  generator.
- `labels` is the same without discriminators: the map predicts each slice's label, and locates spots drawn into slices
  without calcium (`weak_labels`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import DataError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.models.preprocessing import HIGH_HU, LOW_HU
from CACScoringLib.networks.configs import GeneratorConfig

from ..data.augmentation import SliceAugmentation
from ..data.datasets import SliceDataset
from ..data.slice_batches import BalancedSampler, Sampling, SliceStore, draw_slices, near_heart, vary_slices
from .cyclegan import CycleTask, CycleTraining
from .decomposition_metrics import collapse, map_metrics, sample_slices
from .generators import new_generator
from .published_evaluation import write_as_published
from .runs import start_from, training_run
from .sample_pictures import decomposition_picture, slices_to_picture
from .settings import LoopSettings, RunOptions, read_presets, settings_as_json
from .task import Task, channels_last

EVALUATED_SLICES = 1000
INTENDED_USE = (
    "Gives the coronary calcium map of axial slices of non-contrast chest CT, as a step of calcium scoring with CAC. "
    "For research; not a medical device."
)


@dataclass(frozen=True)
class SupervisedTraining:
    """Settings of the supervised training.

    Attributes:
        batch_size: Slices per step.
        learning_rate: Learning rate of the Adam optimiser.
        calcium_weight: Weight of pixels with calcium in the true map, relative to other pixels.
        bright_weight: Weight of pixels above 130 HU without coronary calcium (other calcium, bone).
        outside_weight: Factor for pixels farther than HEART_MARGIN_PIXELS from the heart, where scoring drops the map.
        first_bias: Bias of the last layer at the start, so that the map begins near 0.
        patients: Digital patients drawn for this training, beside the data (`data.drawn_scans`).
        validation_slices: Maximum number of slices of each group to validate on.
        start: SHA-256 of the model with the initial weights, recorded by the training.
    """

    loop: LoopSettings = field(default_factory=LoopSettings)
    network: GeneratorConfig = field(default_factory=GeneratorConfig)
    batch_size: int = 8
    learning_rate: float = 1e-3
    calcium_weight: float = 11.0
    bright_weight: float = 4.0
    outside_weight: float = 1.0
    first_bias: float = -5.0
    sampling: Sampling = field(default_factory=Sampling)
    augmentation: SliceAugmentation = field(
        default_factory=lambda: SliceAugmentation(crop=128, shift_pixels=28.0, gain=0.05, zoom=1.1)
    )
    patients: int = 0
    validation_slices: int = 100
    start: str | None = None
    method: str = "supervised"


PRESETS = read_presets("decomposition", SupervisedTraining(), CycleTraining())
"""Settings by name; a name without a method is supervised."""

_BRIGHT = (130.0 - LOW_HU) / (HIGH_HU - LOW_HU)
_CALCIUM = 0.01


class SupervisedTask(Task[SupervisedTraining]):
    """Training of a generator on true maps.

    Args:
        start: Initial network.
        device: Device of the training.

    Raises:
        DataError: True maps are missing.
    """

    exported = "remove"
    better = "overlap"

    def __init__(
        self,
        settings: SupervisedTraining,
        training: SliceDataset,
        validation: SliceDataset,
        start: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        for data, name in ((training, "train on"), (validation, "validate on")):
            if not (data.has_map & data.visible).any():
                message = (
                    f"No scan to {name} has both visible calcium and its calcium_map.nii.gz, which the supervised "
                    "method needs. Add digital patients (cac phantom), or choose the preset compact-labels."
                )
                raise DataError(message)
        torch.manual_seed(settings.loop.seed)
        network = channels_last(new_generator(settings.network, settings.first_bias) if start is None else start)
        self.config, self.settings = settings.network, settings
        self.training, self.validation = training, validation
        self.store = SliceStore(training, device)
        self.modules = {"remove": network}
        self.optimizers = {"remove": torch.optim.Adam(network.parameters(), settings.learning_rate)}
        self.sampler = BalancedSampler(training, settings.sampling, known_maps=True)
        self.sample = sample_slices(validation, settings.validation_slices, settings.loop.seed)
        self.pictures = slices_to_picture(validation, self.sample)

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        drawn = self.sampler.draw(generator, self.settings.batch_size)
        return draw_slices(self.store, drawn, self.config, self.settings.augmentation, generator, with_maps=True)

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, maps = vary_slices(self.store, batch, self.settings.augmentation.crop)
        return {"x": x, "map": maps[:, :1], "near_heart": near_heart(maps[:, 1:])}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        x, true = batch["x"], batch["map"]
        logits = self.modules["remove"](x, logits=True).float()
        loss = (
            functional.binary_cross_entropy_with_logits(logits, true, reduction="none")
            * self.weights(x, true, batch["near_heart"])
        ).mean()
        self.descend("remove", loss, fabric)
        return {"loss": loss.detach()}

    def weights(self, x: torch.Tensor, true: torch.Tensor, near_heart: torch.Tensor) -> torch.Tensor:
        """Return the weight of each pixel in the loss, [n, 1, j, i]."""
        calcium = true > _CALCIUM
        bright = (x[:, :1] >= _BRIGHT) & ~calcium
        weights = 1 + (self.settings.calcium_weight - 1) * calcium + (self.settings.bright_weight - 1) * bright
        return weights * torch.where(near_heart, 1.0, self.settings.outside_weight)

    def validate(self, network: nn.Module) -> dict[str, float]:
        return map_metrics(network, self.config, self.validation, self.sample)

    def warnings(self, metrics: dict[str, float], validations: int) -> list[ScanWarning]:
        return collapse(metrics)

    def picture(self, network: nn.Module) -> np.ndarray:
        return decomposition_picture(network, self.config, self.validation, self.pictures)


def evaluate(
    model: LoadedModel, options: RunOptions, settings: SupervisedTraining | CycleTraining, data: SliceDataset
) -> tuple[dict[str, object], dict[str, float]]:
    """Return metrics of the finished model, with and without the −10 HU rule, and an empty calibration.

    A CycleGAN is also evaluated as published, in a table beside the card (`published_evaluation`).
    """
    known_maps = settings.sampling.real_share is None
    sample = sample_slices(data, EVALUATED_SLICES, settings.loop.seed, known_maps)
    config = GeneratorConfig(**model.card.config)
    metrics: dict[str, object] = {
        "without_rule": map_metrics(model.network, config, data, sample),
        "with_rule": map_metrics(model.network, config, data, sample, rule=True),
        "visible_slices": len(sample.visible),
        "distractor_slices": len(sample.distractor),
        "clean_slices": len(sample.clean),
        "data": "validation patients of the training's own split, which also chose the best weights",
    }
    if isinstance(settings, CycleTraining) and settings.adversarial_weight:
        about = {
            "preset": options.preset,
            "settings": json.dumps(settings_as_json(settings)),
            "seed": settings.loop.seed,
        }
        table = options.output.with_name(f"{options.name}.published.csv")
        metrics["as_published"] = write_as_published(table, model, data, options.device, about)
    return metrics, {}


def train(options: RunOptions, settings: SupervisedTraining | CycleTraining, progress: Progress) -> Path:
    """Train a generator on folders of scans and write it; return its card's path. Raises CTError, OutputError."""
    settings, card, start = start_from(options, settings, "decomposition")
    with training_run(options, "decomposition", settings, PRESETS, progress) as run:
        data, training, validation = run.gather_slices()
        if isinstance(settings, SupervisedTraining):
            task: Task[object] = SupervisedTask(settings, training, validation, start, run.fabric.device)
        else:
            task = CycleTask(settings, training, validation, start, run.fabric.device)
        outcome = run.train(task)
        evaluation = partial(evaluate, options=options, settings=settings, data=validation)
        return run.write_model(settings, data.describe(options.annotator), outcome, evaluation, INTENDED_USE, card)
