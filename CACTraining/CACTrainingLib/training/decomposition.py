"""Training of the generator that gives the calcium map: on true maps, or on slice labels alone.

`supervised` needs the truth of digital patients: cross-entropy on the logit with the true map as a soft target. (An L1
loss ends in an empty map: the median of a sparse map is 0.) Non-coronary calcium is in no true map, so it is an
explicit negative. `cyclegan` is van Velzen et al., section 3, equations 1 to 5 (`cyclegan.CycleTask`); it may go on
from a supervised generator. `labels` is the same without discriminators: the map itself tells each slice's label, and
finds spots drawn into slices without calcium (`weak_labels`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.options import add_options, settings_from, told
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel, ModelError, read_network
from CACScoringLib.models.preprocessing import HIGH_HU, LOW_HU
from CACScoringLib.networks.van_velzen import PRESETS, GeneratorConfig, SliceClassifierConfig, build

from ..data.augmentation import SliceAugmentation
from ..data.datasets import BalancedSampler, DataError, Sampling, SliceDataset
from . import runs
from .cyclegan import ClassifierDiscriminator, CycleTask, CycleTraining, new_generator
from .decomposition_metrics import SUPERVISED_REMEDIES, collapse, map_metrics, watched_slices
from .loop import Task
from .sample_pictures import decomposition_picture, pictured_slices
from .settings import BATCH_SIZE, LEARNING_RATE, LoopSettings, RunOptions, options_from
from .settings import add_arguments as add_training_arguments
from .slices import add_network_arguments, near_heart, varied

METHODS = ("supervised", "labels", "cyclegan")
EVALUATED_SLICES = 1000
INTENDED_USE = (
    "Gives the coronary calcium map of axial slices of non-contrast chest CT, as a step of calcium scoring with CAC. "
    "For research; not a medical device."
)


@dataclass(frozen=True)
class SupervisedTraining:
    """calcium_weight: of pixels with calcium in the true map, beside 1 for the others. bright_weight: of pixels above
    130 HU without it (other calcium, bone). outside_weight: of pixels farther than HEART_MARGIN_PIXELS from the heart,
    where scoring drops the map; multiplied with the others. first_bias: of the last layer, so that the map begins
    near 0. start: SHA-256 of the model whose weights it began with.
    """

    loop: LoopSettings
    batch_size: int = told(8, BATCH_SIZE)
    learning_rate: float = told(1e-3, LEARNING_RATE)
    calcium_weight: float = 11.0
    bright_weight: float = 4.0
    outside_weight: float = 1.0
    first_bias: float = told(-5.0)
    sampling: Sampling = field(default_factory=Sampling)
    augmentation: SliceAugmentation = field(
        default_factory=lambda: SliceAugmentation(crop=128, shift_pixels=28.0, gain=0.05, zoom=1.1)
    )
    validation_slices: int = 100
    start: str | None = None
    method: str = "supervised"


SUPERVISED = {
    "paper": SupervisedTraining(
        LoopSettings(100_000, validate_every=2000), batch_size=16, augmentation=SliceAugmentation()
    ),
    "compact": SupervisedTraining(
        LoopSettings(12000, validate_every=500),
        outside_weight=0.1,
        sampling=Sampling(twin_share=0.3, calcium_scale=2.5),
    ),
}

_LABELS = CycleTraining(
    LoopSettings(12000, validate_every=250, restarts=3),
    batch_size=12,
    learning_rate=1e-3,
    adversarial_weight=0.0,
    cycle_weight=0.0,
    identity_weight=0.0,
    label_weight=0.2,
    spot_weight=10.0,
    negative_weight=50.0,
    near_heart=True,
    first_bias=-5.0,
    sampling=Sampling(),
    augmentation=SliceAugmentation(crop=112, shift_pixels=20.0),
    method="labels",
)

LABELS = {"paper": replace(_LABELS, augmentation=SliceAugmentation()), "compact": _LABELS}

CYCLEGAN = {
    "paper": CycleTraining(LoopSettings(375_000, validate_every=2000, decay_from=1.0, average=0.0)),
    "compact": replace(
        _LABELS,
        adversarial_weight=0.1,
        cycle_weight=1.0,
        dither_hu=3.0,
        pool=40,
        warmup_steps=300,
        method="cyclegan",
    ),
}

_BRIGHT = (130.0 - LOW_HU) / (HIGH_HU - LOW_HU)
_CALCIUM = 0.01


class SupervisedTask(Task):
    """See `Task`. start: weights to begin with. Raises DataError when true maps are missing."""

    exported = "remove"
    better = "overlap"

    def __init__(
        self,
        config: GeneratorConfig,
        settings: SupervisedTraining,
        training: SliceDataset,
        validation: SliceDataset,
        start: nn.Module | None = None,
    ) -> None:
        for data, name in ((training, "train on"), (validation, "validate on")):
            if not (data.has_map & data.visible).any():
                message = (
                    f"No scan to {name} has both visible calcium and its calcium_map.nii.gz, which the supervised "
                    "method needs. Add digital patients (cac phantom), or choose --method labels."
                )
                raise DataError(message)
        torch.manual_seed(settings.loop.seed)
        network = (new_generator(config, settings.first_bias) if start is None else start).to(
            memory_format=torch.channels_last
        )
        self.config, self.settings = config, settings
        self.training, self.validation = training, validation
        self.modules = {"remove": network}
        self.optimizers = {"remove": torch.optim.Adam(network.parameters(), settings.learning_rate)}
        self.sampler = BalancedSampler(training, settings.sampling, known_maps=True)
        self.watched = watched_slices(validation, settings.validation_slices, settings.loop.seed)
        self.pictured = pictured_slices(validation, self.watched)

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        drawn = self.sampler.draw(generator, self.settings.batch_size)
        x, maps = varied(self.training, drawn, self.config, self.settings.augmentation, generator, with_maps=True)
        return {"x": x, "map": maps[:, :1], "near_heart": near_heart(maps[:, 1:])}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        x, true = batch["x"], batch["map"]
        logits = self.modules["remove"](x, logits=True).float()
        loss = (
            functional.binary_cross_entropy_with_logits(logits, true, reduction="none")
            * self.weights(x, true, batch["near_heart"])
        ).mean()
        optimizer = self.optimizers["remove"]
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}

    def weights(self, x: torch.Tensor, true: torch.Tensor, near_heart: torch.Tensor) -> torch.Tensor:
        """What each pixel counts."""
        calcium = true > _CALCIUM
        bright = (x[:, :1] >= _BRIGHT) & ~calcium
        weights = 1 + (self.settings.calcium_weight - 1) * calcium + (self.settings.bright_weight - 1) * bright
        return weights * torch.where(near_heart, 1.0, self.settings.outside_weight)

    def validate(self, network: nn.Module) -> dict[str, float]:
        return map_metrics(network, self.config, self.validation, self.watched)

    def warnings(self, metrics: dict[str, float], validations: int) -> list[ScanWarning]:
        return collapse(metrics, SUPERVISED_REMEDIES)

    def picture(self, network: nn.Module) -> np.ndarray:
        return decomposition_picture(network, self.config, self.validation, self.pictured)


def evaluate(
    model: LoadedModel, settings: SupervisedTraining | CycleTraining, data: SliceDataset
) -> tuple[dict[str, object], dict[str, float]]:
    """Metrics of the finished model, with the −10 HU rule and without; no calibration."""
    watched = watched_slices(data, EVALUATED_SLICES, settings.loop.seed)
    config = GeneratorConfig(**model.card.config)
    metrics: dict[str, object] = {
        "without_rule": map_metrics(model.network, config, data, watched),
        "with_rule": map_metrics(model.network, config, data, watched, rule=True),
        "visible_slices": len(watched.visible),
        "distractor_slices": len(watched.distractor),
        "clean_slices": len(watched.clean),
        "data": "validation patients of the training's own split, which also chose the best weights",
    }
    return metrics, {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cac train decomposition`."""
    add_training_arguments(parser, SupervisedTraining, PRESETS)
    add = parser.add_argument
    add("--method", choices=METHODS, default="supervised", help="on true maps; on slice labels alone; or as a CycleGAN")
    add("--start", type=Path, metavar="MODEL", help="card of a decomposition model whose weights to start from")
    add_network_arguments(parser)
    add_options(parser, LoopSettings, "restarts")
    add_options(parser, SliceAugmentation, "crop", "noise_share")
    add_options(parser, Sampling, "hard_share", "twin_share", "calcium_scale")
    gan = parser.add_argument_group("cyclegan")
    gan.add_argument(
        "--classifier", type=Path, metavar="MODEL", help="card of the classifier that discriminators start from"
    )
    add_options(gan, CycleTraining, *_OF_CYCLEGAN)


_OF_CYCLEGAN = ("adversarial_weight", "cycle_weight", "identity_weight", "sparsity_weight", "negative_weight")
_OF_CYCLEGAN += ("label_weight", "spot_weight", "truth_weight", "dither_hu")
_OF_CYCLEGAN += ("first_bias", "least_slope", "choose_by", "warmup_steps")


def run(arguments: argparse.Namespace, progress: Progress) -> Path:
    """Train as the command line asks; returns the model card's path. Raises CTError, OutputError."""
    options = options_from(arguments)
    config = settings_from(arguments, PRESETS[options.preset]["decomposition"], ("neighbours", "position"))
    settings = {"supervised": SUPERVISED, "labels": LABELS, "cyclegan": CYCLEGAN}[arguments.method][options.preset]
    foreign = [name for name in _OF_CYCLEGAN if getattr(arguments, name) is not None and not hasattr(settings, name)]
    if foreign:
        named = ", ".join("--" + name.replace("_", "-") for name in sorted(foreign))
        raise DataError(f"{named} is not for --method supervised.")
    settings = settings_from(arguments, settings)
    return train_decomposition(options, config, settings, progress, arguments.start, arguments.classifier)


def train_decomposition(
    options: RunOptions,
    config: GeneratorConfig,
    settings: SupervisedTraining | CycleTraining,
    progress: Progress,
    start: Path | None = None,
    classifier: Path | None = None,
) -> Path:
    """Train a generator on folders of scans and write it; returns its card's path.

    start: card of a decomposition model to begin with; its configuration replaces `config`. classifier: card of the
    slice classifier that both discriminators begin as (CycleGAN only). Raises CTError, OutputError.
    """
    begun = None
    if start is not None:
        card, begun = read_network(start)
        if card.network != "decomposition":
            raise ModelError(f"{start} is a model for {card.network!r}; --start needs one for 'decomposition'.")
        config, settings = GeneratorConfig(**card.config), replace(settings, start=card.sha256)
    with runs.begun(options, "decomposition", settings.loop, progress) as training_run:
        with training_run.progress.step("scans"):
            data, training, validation = training_run.gather_slices(settings.loop.seed)
        with training_run.progress.step("training"):
            if isinstance(settings, SupervisedTraining):
                task: Task = SupervisedTask(config, settings, training, validation, begun)
            else:
                discriminators, settings = _discriminators(options.preset, settings, classifier)
                task = CycleTask(config, settings, training, validation, discriminators, begun)
            outcome = training_run.train(task, settings.loop)
        return training_run.write_model(
            config,
            settings,
            settings.loop.seed,
            data,
            outcome,
            lambda model: evaluate(model, settings, validation),
            INTENDED_USE,
        )


def _discriminators(
    preset: str, settings: CycleTraining, classifier: Path | None
) -> tuple[tuple[nn.Module, nn.Module], CycleTraining]:
    """What discriminates images with calcium, and without; and the settings with it."""
    torch.manual_seed(settings.loop.seed + 1)
    if classifier is None:
        config = PRESETS[preset]["discriminator"]
        opposite = replace(config, pooling={"average+max": "average+min"}.get(config.pooling, config.pooling))
        return (build(config), build(opposite)), replace(settings, discriminator="patch")
    card, _ = read_network(classifier)
    if card.network != "slices" or SliceClassifierConfig(**card.config).neighbours or card.config["position"]:
        message = (
            f"{classifier} cannot classify single slices: the discriminators need a model for 'slices' trained with "
            "--neighbours 0 and without --position, or a slice's neighbours would reveal the synthetic ones."
        )
        raise ModelError(message)
    pair = tuple(ClassifierDiscriminator(read_network(classifier)[1], calcium) for calcium in (True, False))
    return pair, replace(settings, discriminator=card.sha256)
