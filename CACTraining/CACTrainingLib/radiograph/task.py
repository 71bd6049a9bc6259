"""Training task of the radiograph network: batches, augmentation and loss.

Two additions help a small network with few patients: pictures with scaled or removed calcium (the same chest on both
sides of a threshold), and a loss that locates the calcium in the features. Both need cases with known calcium, and a
label that agrees with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.errors import DataError
from CACScoringLib.core.options import option
from CACScoringLib.networks.radiograph import RadiographNet, RadiographNetConfig, cut_out

from ..data.scan_table import LABELS
from ..statistics.patient_folds import CATEGORY_LIMITS, category_of
from ..statistics.roc import above, area_name, areas
from ..training.loop import Task, channels_last
from ..training.settings import LoopSettings
from .dataset import RadiographSet, check_label

LOCATED_MM, LOCATED_WEIGHT = 0.3, 10.0
"""Path of calcium in mm from which it has to be located, and the weight of such places against the others."""

_MAP_MM = 0.02
_WHITE = 65535.0


@dataclass(frozen=True)
class ViewAugmentation:
    """Augmentation of views.

    Attributes:
        shift_mm: Standard deviation of the shift.
        turn_degrees: Standard deviation of the rotation.
        zoom: Standard deviation of the scale's logarithm.
        gamma: Standard deviation of the exponent's logarithm.
        noise: Highest standard deviation of noise, relative to that of the square.
    """

    shift_mm: float = 5.0
    turn_degrees: float = 4.0
    zoom: float = 0.06
    gamma: float = 0.15
    noise: float = 0.03


@dataclass(frozen=True)
class Stage:
    """Stage of a curriculum: until a share of the steps, batches hold scores of 0 and of at least `least`."""

    until: float
    least: float


SEVERE_FIRST = (Stage(0.15, 400.0), Stage(0.35, 100.0))
"""Curriculum from severe to mild calcium, then all."""


@dataclass(frozen=True)
class RadiographTraining:
    """Settings of a radiograph training.

    Attributes:
        loop: Settings of the training loop.
        label: Score used as label.
        batch_size: Pictures per step.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        shares: Shares of the score's categories (`category_of`) in a batch.
        scaled_share: Share of pictures with scaled calcium, in categories that have both kinds.
        curriculum: Stages; none for no curriculum.
        augmentation: Augmentation of views.
        locate_weight: Weight of the loss that locates calcium, for "light" only.
        finder_steps: Training steps of the heart's finder.
        pretrained: SHA-256 of the initial weights.
        start: SHA-256 of the initial model.
    """

    loop: LoopSettings
    label: str = option("agatston", choices=LABELS)
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    shares: tuple[float, ...] = (0.4, 0.2, 0.2, 0.2)
    scaled_share: float = 0.5
    curriculum: tuple[Stage, ...] = ()
    augmentation: ViewAugmentation = field(default_factory=ViewAugmentation)
    locate_weight: float = 1.0
    finder_steps: int = 300
    pretrained: str | None = None
    start: str | None = None

    @property
    def knows_calcium(self) -> bool:
        """True if the label agrees with the coronary calcium; an automatic score has non-coronary calcium too."""
        return self.label != "agatston_automatic"


class RadiographTask(Task[RadiographTraining]):
    """Task of a radiograph training. training, validation: indices of cases. Raises DataError for a single category."""

    exported = "radiograph"
    better = "auc"

    def __init__(
        self,
        config: RadiographNetConfig,
        settings: RadiographTraining,
        data: RadiographSet,
        training: np.ndarray,
        validation: np.ndarray,
        network: RadiographNet,
    ) -> None:
        self.config, self.settings, self.data = config, settings, data
        self.modules: dict[str, nn.Module] = {"radiograph": channels_last(network)}
        self.locates = settings.locate_weight > 0 and settings.knows_calcium and config.backbone == "light"
        self.locates &= bool(data.has_map[training].all())
        rate, decay = settings.learning_rate, settings.weight_decay
        self.optimizers = {"radiograph": torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)}
        self.channels = data.channels(config.views)
        label = check_label(data, settings.label)
        self.validation = validation
        self.validation_scores = label[validation]
        self.pictures = Pictures(data, label, training, settings)
        counts = above(self.validation_scores, config.thresholds).sum(0)
        self.names = [area_name(t) for t, n in zip(config.thresholds, counts, strict=True) if 0 < n < len(validation)]
        if not self.names:
            raise DataError("The validation radiographs lie all on one side of every threshold. Give more patients.")

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        part = self.batch_number / self.settings.loop.steps
        numbers, scores = self.pictures.draw(generator, self.settings.batch_size, part)
        x, maps = augment(self.data, numbers, self.channels, self.config, self.settings.augmentation, generator)
        batch = {"x": x, "above": torch.from_numpy(above(scores, self.config.thresholds))}
        if self.locates:
            batch["maps"] = maps
        return batch

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        logits, evidence = self.modules["radiograph"](batch["x"], crops=True, evidence=True)
        loss = functional.binary_cross_entropy_with_logits(logits, batch["above"])
        values = {"loss": loss.detach()}
        if self.locates:
            loss_located = self._location_loss(evidence, batch["maps"])
            values["located"] = loss_located.detach()
            loss = loss + self.settings.locate_weight * loss_located
        self.descend("radiograph", loss, fabric)
        return values

    def validate(self, network: nn.Module) -> dict[str, float]:
        logits = predict_logits(cast(RadiographNet, network), self.data, self.validation)
        metrics = areas(logits, self.validation_scores, self.config.thresholds)
        return {"auc": float(np.mean([metrics[name] for name in self.names])), **{k: metrics[k] for k in self.names}}

    def _location_loss(self, evidence: list[torch.Tensor], maps: torch.Tensor) -> torch.Tensor:
        losses = []
        for number, logits in enumerate(evidence):
            calcified = functional.adaptive_max_pool2d(maps[:, number : number + 1], logits.shape[2:]) > LOCATED_MM
            weight = logits.new_tensor(LOCATED_WEIGHT, dtype=torch.float32)
            losses.append(
                functional.binary_cross_entropy_with_logits(logits.float(), calcified.float(), pos_weight=weight)
            )
        return torch.stack(losses).mean()


class Pictures:
    """Training pictures by category of their scores, for drawing batches."""

    def __init__(
        self, data: RadiographSet, label: np.ndarray, training: np.ndarray, settings: RadiographTraining
    ) -> None:
        is_unscaled = data.scale == 1.0
        usable = np.isin(data.sample, training)
        if not (settings.knows_calcium and settings.scaled_share > 0):
            usable &= is_unscaled
        self.numbers = np.nonzero(usable)[0]
        # Scaling calcium scales the score.
        self.scores = label[data.sample[self.numbers]] * data.scale[self.numbers]
        self.is_original = is_unscaled[self.numbers]
        self.category = category_of(self.scores)
        self.settings = settings
        if len(np.unique(self.category)) < 2:
            raise DataError("All training radiographs are of one category of the score. Give patients of others too.")

    def draw(self, generator: np.random.Generator, count: int, progress: float) -> tuple[np.ndarray, np.ndarray]:
        """Draw indices of pictures for a batch, with their scores. progress: of the training, 0 to 1."""
        least = next((stage.least for stage in self.settings.curriculum if progress < stage.until), 0.0)
        categories = [c for c in np.unique(self.category) if c == 0 or CATEGORY_LIMITS[c - 1] >= least]
        if len(categories) < 2:  # no patient is that severe
            categories = list(np.unique(self.category))
        shares = np.array([self.settings.shares[c] for c in categories])
        rows = np.empty(count, np.int64)
        for place, category in enumerate(generator.choice(categories, count, p=shares / shares.sum())):
            choice = np.nonzero(self.category == category)[0]
            is_unscaled = self.is_original[choice]
            if is_unscaled.any() and not is_unscaled.all():
                choice = choice[is_unscaled != (generator.random() < self.settings.scaled_share)]
            rows[place] = generator.choice(choice)
        return self.numbers[rows], self.scores[rows]


def augment(
    data: RadiographSet,
    numbers: np.ndarray,
    channels: list[int],
    config: RadiographNetConfig,
    augmentation: ViewAugmentation,
    generator: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment pictures; return squares for the network [n, V, size, size], and maps of their calcium in mm, of half the
    size."""
    cases, shape = data.sample[numbers], (len(numbers), len(channels))
    gamma = _tensor(np.exp(generator.normal(0, augmentation.gamma, (*shape, 1, 1))))
    shift = generator.normal(0, augmentation.shift_mm, (*shape, 2))
    centres = _tensor((data.centres - data.corners)[cases][:, channels] + shift)
    angle = np.radians(generator.normal(0, augmentation.turn_degrees, shape))
    zoom = np.exp(generator.normal(0, augmentation.zoom, shape))
    along, across = zoom * np.cos(angle), zoom * np.sin(angle)
    turn = _tensor(np.stack([along, -across, across, along], -1).reshape(*shape, 2, 2))
    scale = (data.scale[numbers] * _MAP_MM).astype(np.float32)[:, None, None, None]
    maps = cut_out(_tensor(data.maps[cases][:, channels] * scale), centres, config.field_mm, config.size // 2, turn)
    views = _brightness(data.squares[numbers][:, channels])
    squares = cut_out(views, centres, config.field_mm, config.size, turn) ** gamma
    share = _tensor(generator.uniform(0, augmentation.noise, (*shape, 1, 1)))
    noise = torch.from_numpy(generator.standard_normal(squares.shape, np.float32))
    return squares + share * squares.std((2, 3), keepdim=True) * noise, maps


def predict_logits(network: RadiographNet, data: RadiographSet, cases: np.ndarray, locate: bool = False) -> np.ndarray:
    """Predict logits [n, thresholds] of cases with unscaled calcium.

    locate: True to cut squares around the network's heart, as scoring does; False for the stored centres.
    """
    config = network.config
    channels = data.channels(config.views)
    originals = data.original_pictures()
    results = []
    with torch.inference_mode():
        for start in range(0, len(cases), 32):
            rows = cases[start : start + 32]
            centres = locate_hearts(network, data, rows) if locate else _tensor(data.centres[rows][:, channels])
            views = _brightness(data.squares[originals[rows]][:, channels])
            corners = _tensor(data.corners[rows][:, channels])
            squares = cut_out(views, centres - corners, config.field_mm, config.size)
            results.append(network(squares.to(_device(network)), crops=True).float().cpu().numpy())
    return np.concatenate(results)


def locate_hearts(network: RadiographNet, data: RadiographSet, cases: np.ndarray) -> torch.Tensor:
    """Predict the hearts' centres [n, V, 2]; see `RadiographNet.locate`."""
    channels = data.channels(network.config.views)
    reduced = _brightness(data.reduced[cases][:, channels])
    with torch.inference_mode():
        centres = network.finder(reduced.flatten(0, 1)[:, None].to(_device(network)))
    return centres.cpu().view(len(cases), len(channels), 2)


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _brightness(stored: np.ndarray) -> torch.Tensor:
    """Return stored views with values from 0 to 1."""
    return torch.from_numpy(stored.astype(np.float32) / np.float32(_WHITE))


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
