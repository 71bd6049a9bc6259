"""Training of the territory network on digital patients with anatomical hearts, painted as they are needed.

No scan is read. Each patient is made when it is first drawn (`data.territory_volumes`) and kept in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.models.inference import predict
from CACScoringLib.networks.territories import TerritoryNetConfig
from CACScoringLib.networks.van_velzen import build

from ..data.datasets import default_cache
from ..data.territory_patches import UNKNOWN, Patch, TerritoryAugmentation, plain_patch, random_patch
from ..data.territory_volumes import TerritoryVolume, territory_volume
from .distributed import in_turn
from .loop import Task
from .runs import training_run
from .settings import LoopSettings, RunOptions, read_presets

FIRST_NUMBERS = {"training": 100_000, "validation": 200_000, "test": 300_000}
"""Patients' numbers begin here, far from one another and from any cohort's."""

CLASS_WEIGHTS = (0.5, 6.0, 2.0, 2.0, 2.0, 2.0, 3.0, 1.0, 1.0, 1.0, 0.7)
"""Of TERRITORIES in the cross entropy: small ones would else be given up."""

INTENDED_USE = (
    "Finds the heart and the territories of the coronary arteries, valves and great vessels on chest CT, as a step of "
    "calcium scoring with CAC. For research; not a medical device."
)


@dataclass(frozen=True)
class TerritoryTraining:
    """patients, validation_patients: digital patients, whose numbers begin at FIRST_NUMBERS. batch_size: patches per
    step. learning_rate: of the AdamW optimiser."""

    loop: LoopSettings = LoopSettings(30_000, validate_every=400, average=0.998)  # noqa: RUF009
    network: TerritoryNetConfig = field(default_factory=TerritoryNetConfig)
    patients: int = 600
    validation_patients: int = 40
    batch_size: int = 2
    learning_rate: float = 1e-3
    augmentation: TerritoryAugmentation = field(default_factory=TerritoryAugmentation)


PRESETS = read_presets("territories", TerritoryTraining())


@dataclass(frozen=True)
class Agreement:
    """Of one patient. dice: by territory, None where it has none, and the heart's last. mass: calcium of each artery
    that the network gives to each territory, mg or HU [4, 11]."""

    dice: tuple[float | None, ...]
    mass: np.ndarray


class TerritoryTask(Task):
    """See `Task`. cache: folder of the patients' volumes."""

    exported = "territories"
    better = "score"

    def __init__(self, settings: TerritoryTraining, cache: Path) -> None:
        torch.manual_seed(settings.loop.seed)
        network = build(settings.network).to(memory_format=torch.channels_last_3d)
        self.settings, self.cache = settings, cache
        self.modules = {"territories": network}
        self.optimizers = {"territories": torch.optim.AdamW(network.parameters(), settings.learning_rate)}
        self._watched: list[TerritoryVolume] = []

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        first = FIRST_NUMBERS["training"]
        patches = []
        for _ in range(self.settings.batch_size):
            volume = territory_volume(first + int(generator.integers(self.settings.patients)), self.cache)
            patches.append(random_patch(volume, self.settings.augmentation, generator))
        return {name: torch.stack([getattr(patch, name) for patch in patches]) for name in ("x", "labels", "heart")}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        x = batch["x"].contiguous(memory_format=torch.channels_last_3d)
        loss, parts = territory_loss(self.modules["territories"](x, logits=True), batch["labels"], batch["heart"])
        optimizer = self.optimizers["territories"]
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        nn.utils.clip_grad_norm_(self.modules["territories"].parameters(), 5.0)
        optimizer.step()
        return {"loss": loss.detach(), **parts}

    def prepare(self) -> None:
        """Make the patients to validate on, where they are not there yet."""
        first = FIRST_NUMBERS["validation"]
        numbers = range(first, first + self.settings.validation_patients)
        self._watched = [territory_volume(number, self.cache) for number in numbers]

    def validate(self, network: nn.Module) -> dict[str, float]:
        return summary([agreement(network, volume) for volume in self._watched])


def territory_loss(
    logits: torch.Tensor, labels: torch.Tensor, heart: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Cross entropy and 1 − Dice of the territories, and the same of the heart; what is UNKNOWN does not count.

    logits: [B, 12, k, j, i]. labels: int64 [B, k, j, i]. heart: float32 [B, k, j, i].
    """
    logits = logits.float()
    known = (labels != UNKNOWN).float()
    weights = torch.tensor(CLASS_WEIGHTS, device=logits.device)
    each = functional.cross_entropy(logits[:, 1:], labels, weights, ignore_index=UNKNOWN, reduction="none")
    true_labels = torch.where(labels == UNKNOWN, 0, labels)
    # A batch may lie outside the field of view altogether.
    entropy = each.sum() / ((weights[true_labels] * known).sum() + 1)
    probability = torch.softmax(logits[:, 1:], 1) * known[:, None]
    true = functional.one_hot(true_labels, len(TERRITORIES)).movedim(-1, 1) * known[:, None]
    axes = (0, 2, 3, 4)
    both, total = (probability * true).sum(axes), probability.sum(axes) + true.sum(axes)
    present = true.sum(axes) > 0
    overlap = 1 - ((2 * both + 1) / (total + 1))[present].mean() if present.any() else entropy.new_zeros(())
    inside = functional.binary_cross_entropy_with_logits(logits[:, 0], heart, known)
    found = torch.sigmoid(logits[:, 0]) * known
    whole = 1 - (2 * (found * heart).sum() + 1) / (found.sum() + heart.sum() + 1)
    parts = {"entropy": entropy, "overlap": overlap, "heart": whole}
    return entropy + overlap + inside + whole, {name: part.detach() for name, part in parts.items()}


def agreement(network: nn.Module, volume: TerritoryVolume) -> Agreement:
    """How a network does on the plain patch around a patient's heart."""
    patch, low = plain_patch(volume)
    output = predict(network, patch.x[None].numpy(), 1)[0][0]
    return Agreement(_dice(output, patch), calcium_given(output[1:], low, volume))


def calcium_given(probability: np.ndarray, low: tuple[int, int, int], volume: TerritoryVolume) -> np.ndarray:
    """Calcium of each artery by the territory with the highest probability there: [4, 11].

    probability: [11, k, j, i] of a box of the volume; low: its first voxel. What lies outside the box is left out;
    calcium is given to the best of the territories, "outside" left aside.
    """
    index, value, artery = volume.plaques
    place = np.stack(np.unravel_index(index, volume.hu.shape)) - np.array(low)[:, None]
    inside = ((place >= 0) & (place < np.array(probability.shape[1:])[:, None])).all(0)
    found = 1 + probability[1:][(slice(None), *place[:, inside])].argmax(0)
    mass = np.zeros((4, len(TERRITORIES)))
    np.add.at(mass, (artery[inside].astype(int) - 1, found), value[inside])
    return mass


def summary(agreements: list[Agreement]) -> dict[str, float]:
    """Means over patients, and the share of coronary calcium that is given to its artery."""
    columns = list(zip(*(each.dice for each in agreements), strict=True))
    means = [float(np.mean([v for v in column if v is not None] or [0.0])) for column in columns]
    mass = np.sum([each.mass for each in agreements], axis=0)
    right = [float(mass[n, n + 1]) for n in range(4)]
    total = float(mass.sum())
    metrics = {f"mass_{TERRITORIES[n + 1]}": right[n] / float(mass[n].sum()) for n in range(4) if mass[n].any()}
    metrics["mass"] = sum(right) / total if total else 0.0
    metrics |= {f"dice_{name}": mean for name, mean in zip(TERRITORIES[1:], means[:-1], strict=True)}
    metrics["dice"], metrics["heart"] = float(np.mean(means[:-1])), means[-1]
    return {"score": (metrics["mass"] + metrics["dice"] + metrics["heart"]) / 3, **metrics}


def _dice(output: np.ndarray, patch: Patch) -> tuple[float | None, ...]:
    labels, heart = patch.labels.numpy(), patch.heart.numpy() > 0
    known = labels != UNKNOWN
    found = output[1:].argmax(0)
    values = []
    for label in range(1, len(TERRITORIES)):
        true = labels == label
        here = (found == label) & known
        values.append(2 * float((here & true).sum()) / float(here.sum() + true.sum()) if true.any() else None)
    inside = (output[0] >= 0.5) & known
    return (*values, 2 * float((inside & heart).sum()) / max(1, float(inside.sum() + heart.sum())))


def train(options: RunOptions, settings: TerritoryTraining, progress: Progress) -> Path:
    """Train a territory network; returns its card's path. Raises CTError, OutputError."""
    most = FIRST_NUMBERS["validation"] - FIRST_NUMBERS["training"]
    if not 1 <= settings.patients <= most or settings.batch_size < 1:
        raise CTError(f"Give 1 to {most} patients, and at least 1 sample per step.")
    with training_run(options, "territories", settings, PRESETS, progress) as run:
        task = TerritoryTask(settings, default_cache() / "territories")
        with run.progress.step("scans"):
            in_turn(run.fabric, task.prepare)
        outcome = run.train(task)
        counts = {"training": settings.patients, "validation": settings.validation_patients}
        firsts = {use: FIRST_NUMBERS[use] for use in counts}
        data = "; ".join(f"{use}: digital patients {firsts[use]} to {firsts[use] + n - 1}" for use, n in counts.items())

        def evaluate(model: LoadedModel) -> tuple[dict[str, object], dict[str, float]]:
            return {name: round(value, 4) for name, value in task.validate(model.network).items()}, {}

        return run.write_model(settings, data, outcome, evaluate, INTENDED_USE)
