"""Train the voxel network, which names every dense voxel, on patches whose voxels have known sources.

It begins with the features of a lesion network. The patches are those of `data.lesion_voxels`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.models.inference import Runner, predict
from CACScoringLib.networks.configs import LESION_KINDS, LesionNetConfig
from CACScoringLib.networks.lesions import LesionVoxelNet
from CACScoringLib.scoring.lesion_network import CORONARY_KINDS

from ..data.lesion_rows import ARTERY_KINDS
from ..data.lesion_voxel_batches import VoxelAugmentation, VoxelData, plain_voxels, varied_voxels
from ..data.lesion_voxels import NOT_CORONARY
from .lesions import CORONARY_WEIGHT, SMOOTHING
from .loop import Task, channels_last
from .settings import LoopSettings

DEVICES = [LESION_KINDS.index(k) for k in ("stent", "lead", "wire", "clip", "catheter", "prosthetic valve")]
ROOT, MITRAL = (LESION_KINDS.index(kind) for kind in ("aortic valve and root", "mitral annulus"))
NON_CORONARY = [n for n in range(len(LESION_KINDS)) if n not in CORONARY_KINDS]
"""Indices of LESION_KINDS."""


@dataclass(frozen=True)
class VoxelTraining:
    """Settings of the voxel network's training.

    Attributes:
        batch_size: Patches per step.
        learning_rate: Learning rate of the AdamW optimiser; that of the features is a fraction of it.
        feature_rate: Learning rate of the features as a share of the decoder's.
    """

    loop: LoopSettings = LoopSettings(6_000, validate_every=100, average=0.99, half_precision=False)  # noqa: RUF009
    network: LesionNetConfig = field(default_factory=LesionNetConfig)
    batch_size: int = 16
    learning_rate: float = 1.5e-3
    feature_rate: float = 0.4
    augmentation: VoxelAugmentation = field(default_factory=VoxelAugmentation)


class VoxelTask(Task[VoxelTraining]):
    """Training of the voxel network.

    Args:
        settings: Settings of the training.
        training: Patches to learn from.
        validation: Patches of other patients.
        network: Initial network.
    """

    exported = "voxels"
    better = "log likelihood"

    def __init__(
        self, settings: VoxelTraining, training: VoxelData, validation: VoxelData, network: LesionVoxelNet
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        network = channels_last(network)
        self.settings, self.validation = settings, validation
        self.modules = {"voxels": network}
        decoder = [p for name, p in network.named_parameters() if name.startswith(("from_", "last"))]
        features = [p for name, p in network.named_parameters() if not name.startswith(("from_", "last"))]
        rate = settings.learning_rate
        groups = [{"params": decoder, "lr": rate}, {"params": features, "lr": rate * settings.feature_rate}]
        self.optimizers = {"voxels": torch.optim.AdamW(groups, rate, weight_decay=1e-3)}
        self.learn_from(training)

    def learn_from(self, training: VoxelData) -> None:
        """Draw further batches from these patches."""
        self.training, self._chances = training, training.chances()

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        numbers = generator.choice(len(self.training), self.settings.batch_size, p=self._chances)
        batch = varied_voxels(self.training.rows(numbers), self.settings.augmentation, generator)
        return {"x": batch.x, "labels": batch.labels, "weights": batch.weights}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        x = batch["x"].contiguous(memory_format=torch.channels_last_3d)
        is_labelled = batch["labels"] > 0
        logits = self.modules["voxels"](x, voxels=is_labelled)
        loss = voxel_loss(logits, batch["labels"][is_labelled] - 1, batch["weights"][is_labelled])
        self.descend("voxels", loss, fabric, max_norm=5.0)
        return {"loss": loss.detach()}

    def validate(self, network: Runner | nn.Module) -> dict[str, float]:
        return voxel_metrics(network, self.validation)


def voxel_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted cross entropy of kinds, of voxels where they are known, and that of coronary or not.

    Args:
        logits: Network output at dense voxels, [n, kinds].
        labels: Index of each voxel's kind, or NOT_CORONARY, [n].
        weights: Weight of each voxel, [n].
    """
    weights = weights / weights.sum().clamp(min=1e-6)
    log_kinds = functional.log_softmax(logits, 1)
    is_known = labels != NOT_CORONARY
    kinds = labels.clamp(max=NOT_CORONARY - 1)
    entropies = functional.nll_loss(log_kinds, kinds, reduction="none")
    entropies = (1 - SMOOTHING) * entropies - SMOOTHING * log_kinds.mean(1)
    # Stents lie in arteries: for "coronary or not" they count on neither side.
    coronary, elsewhere = log_kinds[:, :ARTERY_KINDS].logsumexp(1), log_kinds[:, NON_CORONARY].logsumexp(1)
    is_artery, is_elsewhere = labels < ARTERY_KINDS, torch.isin(labels, torch.tensor([*NON_CORONARY, NOT_CORONARY]))
    of_place = -(coronary * is_artery + elsewhere * is_elsewhere)
    return (weights * (torch.where(is_known, entropies, of_place) + CORONARY_WEIGHT * of_place)).sum()


def voxel_metrics(network: Runner | nn.Module, data: VoxelData, batch_size: int = 16) -> dict[str, float]:
    """Compare a network's answers with the truth, voxel by voxel, weighted as in the loss.

    Returns:
        Mean log likelihood; of arteries' calcium the share taken for calcium of arteries or stents, for its own artery
        and for a device; of root, mitral annulus, noise and real scans without calcium the share taken for coronary.
    """
    kinds, labels, weights = [], [], []
    for first in range(0, len(data), batch_size):
        batch = plain_voxels(data.rows(np.arange(first, min(first + batch_size, len(data)))))
        answers = np.moveaxis(predict(network, batch.x.numpy(), batch_size)[0], 1, -1)
        is_labelled = (batch.labels > 0).numpy()
        kinds.append(answers[is_labelled])
        labels.append(batch.labels.numpy()[is_labelled] - 1)
        weights.append(batch.weights.numpy()[is_labelled])
    return measures(np.concatenate(kinds), np.concatenate(labels), np.concatenate(weights))


def measures(kinds: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Compute `voxel_metrics` of probabilities [n, kinds], labels [n] and weights [n] of voxels."""
    coronary = kinds[:, CORONARY_KINDS].sum(axis=1)
    likeliest = kinds.argmax(axis=1)
    likelihood = np.where(
        labels == NOT_CORONARY,
        1 - coronary,
        np.take_along_axis(kinds, np.minimum(labels, NOT_CORONARY - 1)[:, None], 1)[:, 0],
    )
    values = {"log likelihood": float(np.average(np.log(np.maximum(likelihood, 1e-4)), weights=weights))}

    def share(name: str, of_voxels: np.ndarray, is_so: np.ndarray) -> None:
        if weights[of_voxels].sum() > 0:
            values[name] = float(np.average(is_so[of_voxels], weights=weights[of_voxels]))

    for number, kind in enumerate(LESION_KINDS[:ARTERY_KINDS]):
        share(f"{kind} found", labels == number, coronary > 0.5)
        share(f"{kind} named", labels == number, likeliest == number)
    share("calcium as device", labels < ARTERY_KINDS, np.isin(likeliest, DEVICES))
    for number, name in ((ROOT, "root"), (MITRAL, "mitral"), (LESION_KINDS.index("noise"), "noise")):
        share(f"{name} as coronary", labels == number, coronary > 0.5)
    share("real as coronary", labels == NOT_CORONARY, coronary > 0.5)
    return values
