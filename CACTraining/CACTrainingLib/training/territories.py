"""Training of the territory network on digital patients with anatomical hearts, painted as they are needed.

No scan is read. Each patient is made when it is first drawn (`data.territory_volumes`) and kept in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
from CACScoringLib.networks.territories import TerritoryNetConfig
from CACScoringLib.networks.van_velzen import build

from ..data.datasets import default_cache
from ..data.territory_patches import CALCIFYING, UNKNOWN, TerritoryAugmentation, random_patch
from ..data.territory_volumes import TerritoryVolume, territory_volume
from .distributed import in_turn
from .loop import Task
from .runs import start_from, training_run
from .settings import LoopSettings, RunOptions, read_presets
from .territory_metrics import agreement, summary, temperature

FIRST_NUMBERS = {"training": 100_000, "validation": 200_000, "test": 300_000}
"""Patients' numbers begin here, far from one another and from any cohort's."""

CLASS_WEIGHTS = (0.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.7)
"""Of TERRITORIES in the cross entropy: small ones would else be given up. What neighbours are confused with has the
same weight, or the network would give them what is in doubt."""

INTENDED_USE = (
    "Finds the heart and the territories of the coronary arteries, valves and great vessels on chest CT, as a step of "
    "calcium scoring with CAC. For research; not a medical device."
)


@dataclass(frozen=True)
class TerritoryTraining:
    """patients, validation_patients: digital patients, whose numbers begin at FIRST_NUMBERS. batch_size: patches per
    step. learning_rate: of the AdamW optimiser. start: SHA-256 of the model whose weights it began with, which the
    training records."""

    loop: LoopSettings = LoopSettings(30_000, validate_every=400, average=0.998)  # noqa: RUF009
    network: TerritoryNetConfig = field(default_factory=TerritoryNetConfig)
    patients: int = 600
    validation_patients: int = 40
    batch_size: int = 2
    learning_rate: float = 1e-3
    augmentation: TerritoryAugmentation = field(default_factory=TerritoryAugmentation)
    start: str | None = None


PRESETS = read_presets("territories", TerritoryTraining())


class TerritoryTask(Task):
    """See `Task`. cache: folder of the patients' volumes. start: weights to begin with."""

    exported = "territories"
    better = "score"

    def __init__(self, settings: TerritoryTraining, cache: Path, start: nn.Module | None = None) -> None:
        torch.manual_seed(settings.loop.seed)
        network = (build(settings.network) if start is None else start).to(memory_format=torch.channels_last_3d)
        self.settings, self.cache = settings, cache
        self.modules = {"territories": network}
        self.optimizers = {"territories": torch.optim.AdamW(network.parameters(), settings.learning_rate)}
        self.watched: list[TerritoryVolume] = []

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        first = FIRST_NUMBERS["training"]
        patches = []
        for _ in range(self.settings.batch_size):
            volume = territory_volume(first + int(generator.integers(self.settings.patients)), self.cache)
            patches.append(random_patch(volume, self.settings.augmentation, generator))
        return {name: torch.stack([getattr(patch, name) for patch in patches]) for name in vars(patches[0])}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        x = batch["x"].contiguous(memory_format=torch.channels_last_3d)
        logits = self.modules["territories"](x, logits=True)
        loss, parts = territory_loss(logits, batch["labels"], batch["heart"], batch["possible"])
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
        self.watched = [territory_volume(number, self.cache) for number in numbers]

    def validate(self, network: nn.Module) -> dict[str, float]:
        return summary([agreement(network, volume) for volume in self.watched])


def territory_loss(
    logits: torch.Tensor, labels: torch.Tensor, heart: torch.Tensor, possible: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Cross entropy and 1 − Dice of the territories, the same of the heart, and the cross entropy where calcium lies.

    What is UNKNOWN does not count. With the last term a place in doubt goes to the artery that calcifies there most
    often, and its probability is what it says.

    logits: [B, 12, k, j, i]. labels: int64 [B, k, j, i]. heart: float32 [B, k, j, i]. possible: float32
    [B, n, k, j, i], by CALCIFYING.
    """
    logits = logits.float()
    known = (labels != UNKNOWN).float()
    weights = torch.tensor(CLASS_WEIGHTS, device=logits.device)
    each = functional.cross_entropy(logits[:, 1:], labels, weights, ignore_index=UNKNOWN, reduction="none")
    true_labels = torch.where(labels == UNKNOWN, 0, labels)
    # A batch may lie outside the field of view altogether.
    entropy = each.sum() / ((weights[true_labels] * known).sum() + 1)
    surprise = -torch.log_softmax(logits[:, 1:], 1)[:, CALCIFYING]
    at_calcium = (known[:, None] * possible * surprise).sum() / len(labels)
    probability = torch.softmax(logits[:, 1:], 1) * known[:, None]
    true = functional.one_hot(true_labels, len(TERRITORIES)).movedim(-1, 1) * known[:, None]
    axes = (0, 2, 3, 4)
    both, total = (probability * true).sum(axes), probability.sum(axes) + true.sum(axes)
    present = true.sum(axes) > 0
    overlap = 1 - ((2 * both + 1) / (total + 1))[present].mean() if present.any() else entropy.new_zeros(())
    inside = functional.binary_cross_entropy_with_logits(logits[:, 0], heart, known)
    found = torch.sigmoid(logits[:, 0]) * known
    whole = 1 - (2 * (found * heart).sum() + 1) / (found.sum() + heart.sum() + 1)
    parts = {"entropy": entropy, "calcium": at_calcium, "overlap": overlap, "heart": whole}
    return entropy + at_calcium + overlap + inside + whole, {name: part.detach() for name, part in parts.items()}


def train(options: RunOptions, settings: TerritoryTraining, progress: Progress) -> Path:
    """Train a territory network, from the weights of another one if asked; returns its card's path.

    Raises CTError, OutputError.
    """
    most = FIRST_NUMBERS["validation"] - FIRST_NUMBERS["training"]
    if not 1 <= settings.patients <= most or settings.batch_size < 1:
        raise CTError(f"Give 1 to {most} patients, and at least 1 sample per step.")
    card, start = start_from(options.start, "territories")
    if card is not None:
        settings = replace(settings, network=TerritoryNetConfig(**card.config), start=card.sha256)
    with training_run(options, "territories", settings, PRESETS, progress) as run:
        task = TerritoryTask(settings, default_cache() / "territories", start)
        with run.progress.step("scans"):
            in_turn(run.fabric, task.prepare)
        outcome = run.train(task)
        counts = {"training": settings.patients, "validation": settings.validation_patients}
        firsts = {use: FIRST_NUMBERS[use] for use in counts}
        data = "; ".join(f"{use}: digital patients {firsts[use]} to {firsts[use] + n - 1}" for use, n in counts.items())

        def evaluate(model: LoadedModel) -> tuple[dict[str, object], dict[str, float]]:
            metrics = {name: round(value, 4) for name, value in task.validate(model.network).items()}
            return metrics, {"temperature": temperature(model.network, task.watched)}

        return run.write_model(settings, data, outcome, evaluate, INTENDED_USE)
