"""Training task of the radiograph network: batches, augmentation and loss.

Where the calcium is known, each picture is exposed anew, of a body with its own calcium, other calcium on its arteries,
or none, so that nothing but calcium tells the classes apart; and the network learns where calcium is. Both need a label
that agrees with the calcium.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.categories import category_numbers
from CACScoringLib.core.errors import DataError
from CACScoringLib.core.options import option
from CACScoringLib.networks.configs import STANDARD_MM, RadiographNetConfig
from CACScoringLib.networks.radiograph import AMOUNTS_MM, CELL, RadiographNet, cut_out
from CACScoringLib.statistics.patient_folds import CATEGORY_LIMITS
from CACScoringLib.statistics.roc import above, area_name, areas

from ..data.scan_table import LABELS
from ..training.settings import LoopSettings
from ..training.task import Task, channels_last
from .dataset import NONE, PATIENTS, RadiographSet, check_label
from .exposure import COARSE, draw_exposure, expose

LOCATED_WEIGHT = 5.0
"""Weight of places with calcium against the others."""

VALIDATED = 3
"""Most drawings of calcium on the validation patients that a validation predicts besides their own."""

_WHITE = 65535.0


@dataclass(frozen=True)
class ViewAugmentation:
    """Augmentation of views.

    Attributes:
        shift_mm: Standard deviation of the shift.
        turn_degrees: Standard deviation of the rotation.
        zoom: Standard deviation of the scale's logarithm.
        gamma: Standard deviation of the exponent's logarithm.
    """

    shift_mm: float = 5.0
    turn_degrees: float = 4.0
    zoom: float = 0.06
    gamma: float = 0.15


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
        shares: Shares of the score's categories (`category_numbers`) in a batch.
        drawn_share: Share of pictures with calcium drawn anew or removed, in categories that have both kinds.
        scale_spread: Standard deviation of the logarithm of a factor on the calcium.
        first_scale: Further factor on it in the first step, which falls to 1 until `eased_until`.
        crowding: Highest share of a case's other drawings that are added to a picture in the first step; it falls to 0
            until `eased_until`.
        eased_until: Share of the training until which calcium is made easier to see.
        curriculum: Stages; none for no curriculum.
        augmentation: Augmentation of views.
        answer_weight: Weight of the loss of the answer.
        locate_weight: Weight of the loss that locates calcium, for "light" only.
        finder_steps: Training steps of the heart's finder.
        pretrained: SHA-256 of the initial weights.
        start: SHA-256 of the initial model.
    """

    loop: LoopSettings
    label: str = option("agatston", choices=LABELS)
    batch_size: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    shares: tuple[float, ...] = (0.4, 0.2, 0.2, 0.2)
    drawn_share: float = 0.8
    scale_spread: float = 0.5
    first_scale: float = 4.0
    crowding: float = 0.9
    eased_until: float = 0.5
    curriculum: tuple[Stage, ...] = ()
    augmentation: ViewAugmentation = field(default_factory=ViewAugmentation)
    answer_weight: float = 0.3
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
        pictures, scores = self.pictures.draw(generator, self.settings.batch_size, part)
        x, maps = augment(self.data, pictures, self.channels, self.config, self.settings.augmentation, generator)
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
            loss = self.settings.answer_weight * loss + self.settings.locate_weight * loss_located
        self.descend("radiograph", loss, fabric)
        return values

    def validate(self, network: nn.Module) -> dict[str, float]:
        net, data = cast(RadiographNet, network), self.data
        logits, scores = [predict_logits(net, data, self.validation)], [self.validation_scores]
        if self.pictures.redraws:  # other calcium on the same bodies makes the areas more certain
            for number in range(min((len(data.drawn[case]) for case in self.validation), default=0))[:VALIDATED]:
                logits.append(predict_logits(net, data, self.validation, number=number))
                scores.append(np.array([data.drawn[case][number].agatston for case in self.validation]))
        metrics = areas(np.concatenate(logits), np.concatenate(scores), self.config.thresholds)
        return {"auc": float(np.mean([metrics[name] for name in self.names])), **{k: metrics[k] for k in self.names}}

    @staticmethod
    def _location_loss(odds: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the evidence [B, V, amounts, rows, columns] against paths in mm [B, V, …], in
        units in which 1000 pixels of a view with even odds are log 2."""
        calcified = torch.stack([maps > amount for amount in AMOUNTS_MM], 2).float()
        weight = odds.new_tensor(LOCATED_WEIGHT)
        losses = functional.binary_cross_entropy_with_logits(odds, calcified, pos_weight=weight, reduction="none")
        return losses.sum((2, 3, 4)).mean() / 1000


Picture = tuple[int, dict[int, float]]
"""Case, and factors on its calcium by number, as of `RadiographSet.calcium_path`."""


class Pictures:
    """Training pictures by category of their scores, for drawing batches: cases, and numbers of their calcium."""

    def __init__(
        self, data: RadiographSet, label: np.ndarray, training: np.ndarray, settings: RadiographTraining
    ) -> None:
        pictures = [(case, PATIENTS, label[case]) for case in training]
        is_known = data.composed and settings.knows_calcium and bool(data.has_map[training].all())
        self.redraws = is_known and settings.drawn_share > 0
        if self.redraws:
            for case in training:
                pictures.append((case, NONE, 0.0))
                pictures += [(case, n, drawing.agatston) for n, drawing in enumerate(data.drawn[case])]
        cases, numbers, scores = zip(*pictures, strict=True)
        self.pictures, self.scores = np.column_stack([cases, numbers]), np.array(scores)
        self.is_own = self.pictures[:, 1] == PATIENTS
        self.category = category_numbers(self.scores)
        self.settings, self.data = settings, data
        if len(np.unique(self.category)) < 2:
            raise DataError("All training radiographs are of one category of the score. Give patients of others too.")

    def draw(self, generator: np.random.Generator, count: int, progress: float) -> tuple[list[Picture], np.ndarray]:
        """Draw a batch: cases, and numbers of their calcium with a factor on each; and scores [count].

        progress: of the training, 0 to 1.
        """
        least = next((stage.least for stage in self.settings.curriculum if progress < stage.until), 0.0)
        categories = [c for c in np.unique(self.category) if c == 0 or CATEGORY_LIMITS[c - 1] >= least]
        if len(categories) < 2:  # no patient is that severe
            categories = list(np.unique(self.category))
        shares = np.array([self.settings.shares[c] for c in categories])
        rows = np.empty(count, np.int64)
        for place, category in enumerate(generator.choice(categories, count, p=shares / shares.sum())):
            choice = np.nonzero(self.category == category)[0]
            is_own = self.is_own[choice]
            if is_own.any() and not is_own.all():
                choice = choice[is_own != (generator.random() < self.settings.drawn_share)]
            rows[place] = generator.choice(choice)
        pictures, scores = [], []
        ease = max(0.0, 1 - progress / self.settings.eased_until)
        share, first = ease * self.settings.crowding, ease * math.log(self.settings.first_scale)
        for row in rows:
            case, number = self.pictures[row].tolist()
            calcium = {number: 1.0}
            score = self.scores[row]
            if self.redraws:
                drawn = self.data.drawn[case]
                if number >= 0:
                    more = np.flatnonzero(generator.random(len(drawn)) < share * generator.random()).tolist()
                    calcium |= dict.fromkeys(more, 1.0)
                calcium = {n: math.exp(generator.normal(first, self.settings.scale_spread)) for n in calcium}
                score = sum(scale * (drawn[n].agatston if n >= 0 else self.scores[row]) for n, scale in calcium.items())
            pictures.append((case, calcium))
            scores.append(score)
        return pictures, np.array(scores)


def augment(
    data: RadiographSet,
    pictures: Sequence[Picture],
    channels: list[int],
    config: RadiographNetConfig,
    augmentation: ViewAugmentation,
    generator: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment pictures of `Pictures.draw`; return squares for the network [n, V, size, size], and their calcium's mean
    path in mm on each CELL."""
    squares, maps = [], []
    for case, calcium in pictures:
        for view in channels:
            parts = _parts(data, case, view, calcium)
            centre = data.centres[case, view] - data.corners[case, view]
            shift = np.clip(generator.normal(0, augmentation.shift_mm, 2), -10, 10) / STANDARD_MM
            angle = math.radians(generator.normal(0, augmentation.turn_degrees))
            zoom = math.exp(generator.normal(0, augmentation.zoom))
            along, across = zoom * math.cos(angle), zoom * math.sin(angle)
            turn = _tensor(np.array([[along, -across], [across, along]])).expand(1, len(parts), 2, 2)
            places = _tensor(centre + shift).expand(1, len(parts), 2)
            path, calcium_mm = cut_out(_tensor(parts)[None], places, config.size, turn)[0].numpy()
            if data.composed:
                coarse = _tensor(data.scatter[case, view])[None, None]
                coarse_places = (places[:, :1] + 0.5) / COARSE - 0.5
                scatter = cut_out(coarse, coarse_places, config.size, turn[:, :1] / COARSE)[0, 0].numpy()
                exposure = draw_exposure(data.photons[case, view], generator)
                path = data.brightness(expose(path + calcium_mm, scatter, exposure, generator), case, view)
            squares.append(path ** np.float32(math.exp(generator.normal(0, augmentation.gamma))))
            maps.append(calcium_mm)
    shape = (len(pictures), len(channels), config.size, config.size)
    paths = torch.from_numpy(np.stack(maps)).view(shape)
    return torch.from_numpy(np.stack(squares)).view(shape), functional.avg_pool2d(paths, CELL)


def _parts(data: RadiographSet, case: int, view: int, calcium: dict[int, float]) -> np.ndarray:
    """Return a square [2, rows, columns] of body or brightness, and of calcium."""
    path = np.zeros(data.squares.shape[2:], np.float32)
    if data.has_map[case]:
        path += sum(np.float32(scale) * data.calcium_path(case, view, number) for number, scale in calcium.items())
    return np.stack([data.path(case, view) if data.composed else data.picture(case, view), path])


def predict_logits(
    network: RadiographNet, data: RadiographSet, cases: np.ndarray, locate: bool = False, number: int = PATIENTS
) -> np.ndarray:
    """Predict logits [n, thresholds] of cases.

    locate: True to cut squares around the network's heart, as scoring does; False for the stored centres.
    number: That of their calcium, as of `RadiographSet.picture`.
    """
    config = network.config
    channels = data.channels(config.views)
    results = []
    with torch.inference_mode():
        for start in range(0, len(cases), 32):
            rows = cases[start : start + 32]
            centres = locate_hearts(network, data, rows) if locate else _tensor(data.centres[rows][:, channels])
            views = _tensor(np.array([[data.picture(row, view, number) for view in channels] for row in rows]))
            corners = _tensor(data.corners[rows][:, channels])
            squares = network.crop(views, centres - corners)
            results.append(network(squares.to(_device(network)), crops=True).float().cpu().numpy())
    return np.concatenate(results)


def locate_hearts(network: RadiographNet, data: RadiographSet, cases: np.ndarray) -> torch.Tensor:
    """Predict the hearts' centres [n, V, 2]; see `RadiographNet.locate`."""
    channels = data.channels(network.config.views)
    reduced = _tensor(data.reduced[cases][:, channels] / np.float32(_WHITE))
    with torch.inference_mode():
        centres = network.finder(reduced.flatten(0, 1)[:, None].to(_device(network)))
    return centres.cpu().view(len(cases), len(channels), 2)


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
