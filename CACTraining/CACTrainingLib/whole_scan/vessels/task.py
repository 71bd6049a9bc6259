"""Training task of networks for vessel scores: volumes, augmentation, loss, and validation by epochs.

The loss is the mean squared error of normalised scores; supervised networks add the error of the calcium's location
(`VesselNet.forward`). Augmentation by noise, blur and shifts, which Kecoglu names as missing, is added here. Left and
right are never exchanged, because arteries are identified by their places.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from scipy import ndimage
from torch import nn
from torch.nn import functional

from CACScoringLib.core.errors import DataError
from CACScoringLib.networks.configs import VesselNetConfig
from CACScoringLib.networks.vessels import VesselNet
from CACScoringLib.whole_scan.vessels import normalised_scores, to_agatston

from ...data.augmentation import cut_box
from ...training.settings import LoopSettings
from ...training.task import Task
from ..sources import load

IN_MEMORY_BYTES = 3_000_000_000
"""Limit of volumes in memory, in half precision; further ones are read for every batch."""


@dataclass(frozen=True)
class VolumeAugmentation:
    """Largest changes of a volume, drawn uniformly. Masked surroundings of the heart stay masked.

    Attributes:
        shift: Shift in pixels.
        shift_slices: Shift in slices.
        noise: Standard deviation in the input's unit.
        blur: Standard deviation in pixels of a Gaussian in each slice, for every second volume.
    """

    shift: int = 5
    shift_slices: int = 2
    noise: float = 0.02
    blur: float = 0.7


@dataclass(frozen=True)
class VesselTraining:
    """Settings of a training of vessel scores.

    Attributes:
        loop: Settings of the loop; steps are batches, validate_every counts epochs.
        batch_size: Scans per step.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        augmentation: Augmentation of volumes.
        supervised: True to train "voxel-sum" on the location of calcium too, known for digital patients and inserted
            plaque only.
        start: SHA-256 of the model with the initial weights, recorded by the training.
        start_share: Share of the initial weights in the means of these and the trained ones that become the model.
    """

    loop: LoopSettings
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    augmentation: VolumeAugmentation = field(default_factory=VolumeAugmentation)
    supervised: bool = False
    start: str | None = None
    start_share: float = 0.0


@dataclass(frozen=True)
class CheckpointFacts:
    """Facts to which a checkpoint belongs. data: digest of the scans and their scores."""

    config: VesselNetConfig
    training: VesselTraining
    data: str


class Volumes:
    """Inputs by name, float32 [slices, size, size]. files: of `prepared.prepare` with `fitting.vessel_work`."""

    def __init__(self, files: Mapping[str, Path], names: Sequence[str], config: VesselNetConfig) -> None:
        if missing := [name for name in names if name not in files]:
            raise DataError(f"{len(missing)} scans are not prepared, among them {missing[0]}. Prepare them first.")
        self.files, self.names = files, list(names)
        self.shape = (config.planes, config.size, config.size)
        self.slices = config.slices
        n_cached = IN_MEMORY_BYTES // (2 * math.prod(self.shape))
        self._cache = {name: self._read(name) for name in self.names[:n_cached]}
        self._calcium: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        volume = self._cache.get(name)
        return (self._read(name) if volume is None else volume).astype(np.float32)

    def calcium(self, name: str, shift: Sequence[int], exists: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the true calcium of a shifted volume, [slices, size, size]: amount, float32, and artery, int64.

        exists: False for a scan that is known to have none. Raises DataError if it is unknown.
        """
        shape = (self.slices, *self.shape[1:])
        amount, artery = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
        if not exists:
            return amount, artery
        if name not in self._calcium:
            self._calcium[name] = self._true_calcium(name)
        at, amounts, arteries = self._calcium[name]
        at = at + np.array(shift)[:, None]
        inside = ((at >= 0) & (at < np.array(shape)[:, None])).all(0)
        place = tuple(at[:, inside])
        amount[place], artery[place] = amounts[inside], arteries[inside]
        return amount, artery

    def _true_calcium(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        arrays = load(self.files[name])
        if "calcium" not in arrays:
            raise DataError(f"Where calcium of {name} lies is unknown. Train voxel-sum, or give digital patients.")
        shape = (self.slices, *self.shape[1:])
        return np.array(np.unravel_index(arrays["calcium_at"], shape)), arrays["calcium"], arrays["calcium_artery"]

    def _read(self, name: str) -> np.ndarray:
        volume = load(self.files[name])["input"]
        if volume.shape != self.shape:
            raise DataError(f"{name} was prepared as {volume.shape}; the network needs {self.shape}. Prepare it again.")
        return volume.astype(np.float16)


class VesselTask(Task[CheckpointFacts]):
    """Task of a training of vessel scores. agatston: scores [4] by name. `loop` counts validations in steps."""

    exported = "vessels"
    better = "minus_loss"

    def __init__(
        self,
        settings: VesselTraining,
        network: VesselNet,
        training: Volumes,
        validation: Volumes,
        agatston: Mapping[str, np.ndarray],
    ) -> None:
        self.settings = CheckpointFacts(network.config, settings, _digest(training, validation, agatston))
        self.options, self.training, self.validation = settings, training, validation
        self.modules: dict[str, nn.Module] = {"vessels": network}
        self.output, self.largest = network.config.output, float(network.largest)
        self.agatston = agatston
        self.per_epoch = math.ceil(len(training.names) / settings.batch_size)
        weights = [p for p in network.parameters() if p.ndim > 1]
        scalars = [p for p in network.parameters() if p.ndim <= 1]  # biases, normalisations, gains: not towards 0
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": scalars, "weight_decay": 0.0}]
        self.optimizers = {
            "vessels": torch.optim.AdamW(groups, settings.learning_rate, weight_decay=settings.weight_decay)
        }

    @property
    def loop(self) -> LoopSettings:
        """Settings of the loop with validations counted in steps."""
        loop = self.options.loop
        return replace(loop, validate_every=loop.validate_every * self.per_epoch)

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        epoch, number = divmod(self.batch_number, self.per_epoch)
        order = np.random.default_rng([self.options.loop.seed, epoch]).permutation(len(self.training.names))
        size = self.options.batch_size
        rows = order[number * size : (number + 1) * size]
        if len(rows) == 1 and len(order) > 1:  # a batch of one has no variance for normalisation
            rows = np.append(rows, order[0])
        names, variation = [self.training.names[n] for n in rows], self.options.augmentation
        most = (variation.shift_slices, variation.shift, variation.shift)
        shifts = [[int(generator.integers(-n, n + 1)) for n in most] for _ in names]
        moved = list(zip(names, shifts, strict=True))
        slices = self.training.slices
        volumes = [augment(self.training[name], slices, variation, shift, generator) for name, shift in moved]
        batch = {"x": torch.from_numpy(np.stack(volumes)), "y": self._targets(names)}
        if self.options.supervised:
            calcium = [self.training.calcium(name, shift, bool(self.agatston[name].any())) for name, shift in moved]
            amount, artery = (torch.from_numpy(np.stack(part)) for part in zip(*calcium, strict=True))
            batch |= {"amount": amount, "artery": artery}
        return batch

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        if self.options.supervised:
            y, misplaced = self.modules["vessels"](batch["x"], (batch["amount"], batch["artery"]))
        else:
            y, misplaced = self.modules["vessels"](batch["x"]), 0.0
        loss = functional.mse_loss(y, batch["y"])
        self.descend("vessels", loss + misplaced, fabric)
        return {"loss": loss.detach()}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return validation losses. loss: of normalised outputs; mse: in shares of the largest score."""
        predicted = outputs(network, self.validation, self.validation.names, self.options.batch_size)
        truth = self._targets(self.validation.names).numpy()
        loss = float(np.mean((predicted - truth) ** 2))
        linear, true = (to_agatston(values, self.largest, self.output) for values in (predicted, truth))
        return {"minus_loss": -loss, "loss": loss, "mse": mean_squared(linear, true, self.largest)}

    def _targets(self, names: Sequence[str]) -> torch.Tensor:
        scores = np.stack([np.asarray(self.agatston[name], float) for name in names])
        return torch.from_numpy(normalised_scores(scores, self.largest, self.output).astype(np.float32))


def _digest(training: Volumes, validation: Volumes, agatston: Mapping[str, np.ndarray]) -> str:
    parts = [
        [(name, np.asarray(agatston[name], float).tolist()) for name in part.names] for part in (training, validation)
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def outputs(network: nn.Module, volumes: Volumes, names: Sequence[str], batch_size: int = 8) -> np.ndarray:
    """Return a network's outputs for unaugmented volumes [n, 4]."""
    device = next(network.parameters()).device
    results = []
    with torch.inference_mode():
        for start in range(0, len(names), batch_size):
            x = torch.from_numpy(np.stack([volumes[name] for name in names[start : start + batch_size]]))
            results.append(network(x.to(device)).float().cpu().numpy())
    return np.concatenate(results) if results else np.empty((0, 4), np.float32)


def scores_of(network: VesselNet, volumes: Volumes, names: Sequence[str], batch_size: int = 8) -> np.ndarray:
    """Predict Agatston scores [n, 4] from unaugmented volumes."""
    return to_agatston(outputs(network, volumes, names, batch_size), float(network.largest), network.config.output)


def mean_squared(first: np.ndarray, second: np.ndarray, largest: float) -> float:
    """Return the mean squared error of Agatston scores in shares of the largest, over patients and arteries."""
    return float(np.mean(((np.asarray(first) - np.asarray(second)) / largest) ** 2))


def augment(
    planes: np.ndarray,
    slices: int,
    augmentation: VolumeAugmentation,
    shift: Sequence[int],
    generator: np.random.Generator,
) -> np.ndarray:
    """Shift, blur and add noise to the slices of an input [planes, size, size], float32; shift its other planes alike.

    The lowest value fills the borders. The in-plane filter is SciPy's: MONAI's reflects at the border, and networks
    were trained with the nearest value.
    """
    first, *territories = (
        cut_box(part, -np.array(shift), part.shape - np.array(shift), part.min())
        for part in np.split(planes, len(planes) // slices)
    )
    lowest = first.min()
    empty = first == lowest
    if augmentation.blur > 0 and generator.random() < 0.5:
        sigma = generator.uniform(0, augmentation.blur)
        first = ndimage.gaussian_filter(first, (0, sigma, sigma), mode="nearest")
    if augmentation.noise > 0:
        level = np.float32(generator.uniform(0, augmentation.noise))
        first = first + level * generator.standard_normal(first.shape, np.float32)
    first[empty] = lowest
    return np.concatenate([first, *territories])
