"""Train the slice classifier, which predicts the slices of the heart with visible coronary calcium.

Follows van Velzen et al., sections 3 and 5: cross-entropy, Adam with rate 0.001, batches of 20 slices balanced for
visible calcium. Beyond the paper (see the settings): negatives matched in position and partly drawn from slices that
resemble calcium; small changes of HU; averaged weights; limits measured on the validation slices, one for the published
method and one for scoring (`operating_points`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.warning_codes import run_check
from CACScoringLib.models.cards import LoadedModel, ModelCard
from CACScoringLib.models.inference import Runner, predict
from CACScoringLib.models.operating_points import OPERATING_POINTS, PUBLISHED, SCORING, SCORING_LIMIT
from CACScoringLib.models.preprocessing import MAP_HU
from CACScoringLib.networks.configs import STRIDE, SliceClassifierConfig, build
from CACScoringLib.networks.van_velzen import SliceClassifier
from CACScoringLib.statistics.roc import area, threshold_at

from ..data.augmentation import SliceAugmentation
from ..data.datasets import SliceDataset
from ..data.slice_batches import BalancedSampler, Sampling, SliceStore, draw_slices, vary_slices
from ..project.training_scan import KINDS
from .runs import start_from, training_run
from .settings import LoopSettings, RunOptions, read_presets
from .task import Task, channels_last

PUBLISHED_FALSE_POSITIVE_RATE = 0.06
PATIENT_VALIDATIONS = 5
"""Validations from which a network should have learned something."""

LOCATED_HU, LOCATED_WEIGHT = 20.0, 20.0
"""HU from the true map above which a place has to be located as calcium, and its weight relative to other places."""

INTENDED_USE = (
    "Finds axial slices of non-contrast chest CT that show coronary calcium, as a step of calcium scoring with CAC. "
    "For research; not a medical device."
)


@dataclass(frozen=True)
class SliceTraining:
    """Settings of the slice classifier's training. The network's size replaces the augmentation's crop.

    Attributes:
        batch_size: Slices per step.
        learning_rate: Learning rate of the Adam optimiser.
        locate_weight: Weight of a further loss that locates calcium from the features, on slices with a true map; 0
            leaves it out, as published. Slice labels alone take far longer to teach lesions of one or two pixels.
        patients: Digital patients drawn for this training, beside the data (`data.drawn_scans`).
        validation_slices: Maximum number of slices of each class during training; at the end all are evaluated.
        start: SHA-256 of the model with the initial weights, recorded by the training.
        false_positive_rate: Rate on the validation slices that the published method's limit keeps to.
        scoring_limit: Probability from which scoring decomposes a slice, unless the published method's limit is lower.
    """

    loop: LoopSettings = field(default_factory=LoopSettings)
    network: SliceClassifierConfig = field(default_factory=SliceClassifierConfig)
    batch_size: int = 20
    learning_rate: float = 1e-3
    sampling: Sampling = field(default_factory=Sampling)
    augmentation: SliceAugmentation = field(default_factory=SliceAugmentation)
    locate_weight: float = 0.0
    patients: int = 0
    validation_slices: int = 150
    start: str | None = None
    false_positive_rate: float = PUBLISHED_FALSE_POSITIVE_RATE
    scoring_limit: float = SCORING_LIMIT


PRESETS = read_presets("slices", SliceTraining())


class SliceTask(Task[SliceTraining]):
    """Training of the slice classifier.

    Args:
        start: Initial network.
        device: Device of the training.

    Raises:
        DataError: Slices of a class are missing.
    """

    exported = "classifier"
    better = "auc"

    def __init__(
        self,
        settings: SliceTraining,
        training: SliceDataset,
        validation: SliceDataset,
        start: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        network = channels_last(build(settings.network) if start is None else start)
        self.config = config = settings.network
        self.settings = settings = replace(settings, augmentation=replace(settings.augmentation, crop=config.size))
        self.training, self.validation = training, validation
        self.store = SliceStore(training, device)
        self.modules: dict[str, nn.Module] = {"classifier": network}
        if settings.locate_weight:
            locator = nn.Conv2d(4 * config.width, 1, 1)
            nn.init.constant_(locator.get_parameter("bias"), -5.0)  # calcium is nowhere at first
            self.modules["where"] = channels_last(locator)
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        self.optimizers = {"classifier": torch.optim.Adam(parameters, settings.learning_rate)}
        self.sampler = BalancedSampler(training, settings.sampling)
        self.sample = sample_slices(validation, settings.validation_slices, settings.loop.seed)

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        drawn = self.sampler.draw(generator, self.settings.batch_size)
        locate = bool(self.settings.locate_weight)
        batch = draw_slices(self.store, drawn, self.config, self.settings.augmentation, generator, with_maps=locate)
        batch["visible"] = torch.from_numpy(drawn.visible.astype(np.int64))
        batch["has_map"] = torch.from_numpy(self.training.has_map[drawn.indices])
        return batch

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, maps = vary_slices(self.store, batch, self.settings.augmentation.crop)
        augmented = {"x": x, "visible": batch["visible"]}
        if self.settings.locate_weight:
            augmented["where"] = (functional.max_pool2d(maps[:, :1], STRIDE) > LOCATED_HU / MAP_HU).float()
            augmented["has_map"] = batch["has_map"]
        return augmented

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        logits, features = self.modules["classifier"](batch["x"], logits=True, features=True)
        loss = functional.cross_entropy(logits.float(), batch["visible"])
        values = {"loss": loss.detach()}
        if "where" in batch:
            logits = self.modules["where"](features).float()
            slice_losses = functional.binary_cross_entropy_with_logits(
                logits, batch["where"], reduction="none", pos_weight=logits.new_tensor(LOCATED_WEIGHT)
            ).mean((1, 2, 3))
            location_loss = (slice_losses * batch["has_map"]).mean()
            values["located"] = location_loss.detach()
            loss = loss + self.settings.locate_weight * location_loss
        self.descend("classifier", loss, fabric)
        return values

    def validate(self, network: nn.Module) -> dict[str, float]:
        probabilities = calcium_probabilities(network, self.config, self.validation, self.sample)
        return slice_metrics(probabilities, self.validation, self.sample, self.settings.false_positive_rate)

    def warnings(self, metrics: dict[str, float], validations: int) -> list[ScanWarning]:
        auc = metrics["auc"] if validations >= PATIENT_VALIDATIONS else None
        return run_check("slices-not-separated", auc, validations=validations)


def as_classifier(
    card: ModelCard, network: nn.Module, config: SliceClassifierConfig
) -> tuple[SliceClassifierConfig, nn.Module]:
    """Return a classifier with the weights of a trained generator's encoder.

    Both have the same layers from the image to the features; a generator has learned from every pixel where calcium
    is, which slice labels alone teach slowly. The configuration is the model's; `config` supplies what a generator
    lacks.
    """
    shared = {name: card.config[name] for name in ("width", "residual_blocks", "neighbours", "position")}
    config = replace(config, **shared)
    classifier = SliceClassifier(config)
    parts = [network.get_submodule(name) for name in ("first", "second", "third")]
    encoder = nn.Sequential(*(layer for part in parts for layer in part.children()))
    classifier.features.load_state_dict(encoder.state_dict())
    return config, classifier


def evaluate(
    model: LoadedModel, settings: SliceTraining, data: SliceDataset
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the operating points measured on all validation slices and scans, and the limit for scoring."""
    config = SliceClassifierConfig(**model.card.config)
    probabilities = calcium_probabilities(model.network, config, data, np.arange(len(data)))
    published = threshold_at(probabilities[~data.visible], settings.false_positive_rate)
    limits = {PUBLISHED: published, SCORING: min(settings.scoring_limit, published)}
    metrics: dict[str, object] = {"auc": area(probabilities, data.visible)}
    metrics[OPERATING_POINTS] = {name: rates_of_scans(probabilities, data, limit) for name, limit in limits.items()}
    for number, kind in enumerate(KINDS):
        if scans := len(np.unique(data.scan[data.kind == number])):
            metrics[f"scans_{kind}"] = scans
    metrics |= {"slices": len(data), "slices_with_visible_calcium": int(data.visible.sum())}
    metrics["data"] = "validation patients of the training's own split; the published limit was chosen on these slices"
    return metrics, {"slice_threshold": limits[SCORING]}


def train(options: RunOptions, settings: SliceTraining, progress: Progress) -> Path:
    """Train a slice classifier on folders of scans and write it; return its card's path.

    It may start from another classifier, or from a generator's encoder (`as_classifier`). Raises CTError, OutputError.
    """
    settings, card, start = start_from(options, settings, "slices", "decomposition")
    if card is not None and start is not None and card.network == "decomposition":
        config, start = as_classifier(card, start, settings.network)
        settings = replace(settings, network=config)
    with training_run(options, "slices", settings, PRESETS, progress) as run:
        data, training, validation = run.gather_slices()
        task = SliceTask(settings, training, validation, start, run.fabric.device)
        outcome = run.train(task)
        evaluation = partial(evaluate, settings=settings, data=validation)
        return run.write_model(task.settings, data.describe(options.annotator), outcome, evaluation, INTENDED_USE, card)


def sample_slices(data: SliceDataset, max_count: int, seed: int) -> np.ndarray:
    """Draw a fixed sample of at most `max_count` slices with, and as many without visible calcium."""
    generator = np.random.default_rng([seed, 7])
    groups = np.nonzero(data.visible)[0], np.nonzero(~data.visible)[0]
    samples = (generator.choice(group, min(max_count, len(group)), replace=False) for group in groups)
    return np.concatenate([np.sort(sample) for sample in samples])


def calcium_probabilities(
    network: Runner | nn.Module,
    config: SliceClassifierConfig,
    data: SliceDataset,
    slices: np.ndarray,
) -> np.ndarray:
    """Predict the probability of visible calcium, float32 [len(slices)], from slices exactly as in scoring."""
    results = []
    for start in range(0, len(slices), 128):
        x = data.network_input(slices[start : start + 128], config.neighbours, config.position, config.size)
        results.append(predict(network, x, 16)[0][:, 1])
    return np.concatenate(results)


def slice_metrics(
    probabilities: np.ndarray, data: SliceDataset, slices: np.ndarray, max_false_positive_rate: float
) -> dict[str, float]:
    """Return the area under the ROC curve, and the rates at the lowest limit that keeps to the false-positive rate."""
    visible = data.visible[slices]
    threshold = threshold_at(probabilities[~visible], max_false_positive_rate)
    return {"auc": area(probabilities, visible), **rates_at(probabilities, data, slices, threshold)}


def rates_at(probabilities: np.ndarray, data: SliceDataset, slices: np.ndarray, threshold: float) -> dict[str, float]:
    """Return a limit, and accuracy, sensitivity and false-positive rates of slices at it.

    Accuracy holds for the proportion of positives among all slices of the data, not among the evaluated ones.
    """
    visible, called = data.visible[slices], probabilities >= threshold
    sensitivity, false = float(called[visible].mean()), float(called[~visible].mean())
    share = float(data.visible.mean())
    rates = {
        "threshold": threshold,
        "sensitivity": sensitivity,
        "false_positive_rate": false,
        "accuracy": share * sensitivity + (1 - share) * (1 - false),
    }
    for number, kind in enumerate(KINDS):
        kind_called = called[~visible & (data.kind[slices] == number)]
        if len(kind_called):
            rates[f"false_positive_rate_{kind}_scans"] = float(kind_called.mean())
    return rates


def rates_of_scans(probabilities: np.ndarray, data: SliceDataset, threshold: float) -> dict[str, float]:
    """Return `rates_at` a limit for all slices of the data, and the share of scans of each kind with a called slice."""
    rates = rates_at(probabilities, data, np.arange(len(data)), threshold)
    called = probabilities >= threshold
    for number, kind in enumerate(KINDS):
        scans = np.unique(data.scan[data.kind == number])
        if len(scans):
            rates[f"scans_called_positive_{kind}"] = float(np.mean([called[data.scan == scan].any() for scan in scans]))
    return rates
