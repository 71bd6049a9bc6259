"""Training task of networks for vessel scores: volumes, how they are varied, the loss, and the record of each epoch.

The loss is the mean squared error of normalised scores; where a network is shown where calcium lies, how badly it
predicts it there is added (`VesselNet.forward`). Kecoglu names augmentation with noise, blur and shifts as missing; it
is built here. Left and right are never exchanged, because arteries are identified by their places.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from scipy import ndimage
from torch import nn
from torch.nn import functional

from CACScoringLib.networks.vessels import VesselNet, VesselNetConfig
from CACScoringLib.whole_scan.vessels import normalised, to_agatston

from ...data.datasets import DataError
from ...training.loop import Task
from ...training.settings import LoopSettings
from ..prepared import load

IN_MEMORY_BYTES = 3_000_000_000
"""Volumes beyond that, in half precision, are read anew for every batch."""


@dataclass(frozen=True)
class VolumeAugmentation:
    """The most of each that is done to a volume; how much is drawn evenly. shift: pixels; shift_slices: slices.

    noise: standard deviation, in the input's unit; blur: standard deviation of a Gaussian in each slice, pixels, of
    every second volume. What is left out about the heart stays so.
    """

    shift: int = 5
    shift_slices: int = 2
    noise: float = 0.02
    blur: float = 0.7


@dataclass(frozen=True)
class VesselTraining:
    """loop: its validate_every counts epochs here, its steps are batches. batch_size: scans per step. learning_rate,
    weight_decay: of the AdamW optimiser. supervised: whether "voxel-sum" is also trained on where calcium lies, which
    is known of digital patients alone.
    """

    loop: LoopSettings
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    augmentation: VolumeAugmentation = field(default_factory=VolumeAugmentation)
    supervised: bool = False


@dataclass(frozen=True)
class Recorded:
    """Identity of a checkpoint. data: stands for the scans and their scores."""

    config: VesselNetConfig
    training: VesselTraining
    data: str


class Volumes:
    """Inputs by name, [slices, size, size], float32. files: of `prepared.prepare` with `fitting.vessel_work`."""

    def __init__(self, files: Mapping[str, Path], names: Sequence[str], config: VesselNetConfig) -> None:
        if missing := [name for name in names if name not in files]:
            raise DataError(f"{len(missing)} scans are not prepared, among them {missing[0]}. Prepare them first.")
        self.files, self.names = files, list(names)
        self.shape = (config.slices, config.size, config.size)
        fitting = IN_MEMORY_BYTES // (2 * math.prod(self.shape))
        self._kept = {name: self._read(name) for name in self.names[:fitting]}
        self._calcium: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        volume = self._kept.get(name)
        return (self._read(name) if volume is None else volume).astype(np.float32)

    def calcium(self, name: str, shift: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """True calcium in a volume that is shifted: how much it adds, float32, and its artery, int64; of
        the volume's shape. Raises DataError where that is not known."""
        if name not in self._calcium:
            self._calcium[name] = self._true_calcium(name)
        at, added, of = self._calcium[name]
        at = at + np.array(shift)[:, None]
        inside = ((at >= 0) & (at < np.array(self.shape)[:, None])).all(0)
        at = tuple(at[:, inside])
        amount, artery = np.zeros(self.shape, np.float32), np.zeros(self.shape, np.int64)
        amount[at], artery[at] = added[inside], of[inside]
        return amount, artery

    def _true_calcium(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        arrays = load(self.files[name])
        if "calcium" not in arrays:
            raise DataError(f"Where calcium of {name} lies is unknown. Train voxel-sum, or give digital patients.")
        return np.array(np.unravel_index(arrays["calcium_at"], self.shape)), arrays["calcium"], arrays["calcium_artery"]

    def _read(self, name: str) -> np.ndarray:
        volume = load(self.files[name])["input"]
        if volume.shape != self.shape:
            raise DataError(f"{name} was prepared as {volume.shape}; the network needs {self.shape}. Prepare it again.")
        return volume.astype(np.float16)


class VesselTask(Task):
    """See `Task`. agatston: of VESSELS, [4], by name. Validations are counted in epochs; the loop is `loop`."""

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
        self.settings = Recorded(network.config, settings, _digest(training, validation, agatston))
        self.how, self.training, self.validation = settings, training, validation
        self.modules: dict[str, nn.Module] = {"vessels": network}
        self.output, self.largest = network.config.output, float(network.largest)
        self.agatston = agatston
        self.per_epoch = math.ceil(len(training.names) / settings.batch_size)
        weights = [p for p in network.parameters() if p.ndim > 1]
        scalars = [p for p in network.parameters() if p.ndim <= 1]  # biases, normalisations, gains: not towards 0
        groups = [{"params": weights}, {"params": scalars, "weight_decay": 0.0}]
        self.optimizers = {
            "vessels": torch.optim.AdamW(groups, settings.learning_rate, weight_decay=settings.weight_decay)
        }
        self.drawn = self.done = 0

    @property
    def loop(self) -> LoopSettings:
        """The settings' loop, its validations counted in steps."""
        loop = self.how.loop
        return LoopSettings(**{**vars(loop), "validate_every": loop.validate_every * self.per_epoch})

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        epoch, number = divmod(self.drawn, self.per_epoch)
        self.drawn += 1
        order = np.random.default_rng([self.how.loop.seed, epoch]).permutation(len(self.training.names))
        size = self.how.batch_size
        rows = order[number * size : (number + 1) * size]
        if len(rows) == 1 and len(order) > 1:  # a batch of one has no spread to be normalised by
            rows = np.append(rows, order[0])
        names, how = [self.training.names[n] for n in rows], self.how.augmentation
        shifts = [draw_shift(how, generator) for _ in names]
        x = [augment(self.training[name], how, shift, generator) for name, shift in zip(names, shifts, strict=True)]
        batch = {"x": torch.from_numpy(np.stack(x)), "y": self._targets(names)}
        if self.how.supervised:
            calcium = [self.training.calcium(name, shift) for name, shift in zip(names, shifts, strict=True)]
            amount, artery = (torch.from_numpy(np.stack(part)) for part in zip(*calcium, strict=True))
            batch |= {"amount": amount, "artery": artery}
        return batch

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        if self.how.supervised:
            y, misplaced = self.modules["vessels"](batch["x"], (batch["amount"], batch["artery"]))
        else:
            y, misplaced = self.modules["vessels"](batch["x"]), 0.0
        loss = functional.mse_loss(y, batch["y"])
        self.descend("vessels", loss + misplaced, fabric)
        self.done = number + 1
        return {"loss": loss.detach()}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Losses of the validation. loss: as the output is normalised; mse: in shares of the largest score."""
        predicted = outputs(network, self.validation, self.validation.names, self.how.batch_size)
        truth = self._targets(self.validation.names).numpy()
        loss = float(np.mean((predicted - truth) ** 2))
        linear = [to_agatston(values, self.largest, self.output) for values in (predicted, truth)]
        return {"minus_loss": -loss, "loss": loss, "mse": mean_squared(*linear, self.largest)}

    def state(self) -> dict[str, object]:
        return {"done": self.done}

    def restore(self, state: dict[str, object]) -> None:
        self.done = self.drawn = int(state["done"])

    def _targets(self, names: Sequence[str]) -> torch.Tensor:
        scores = np.stack([np.asarray(self.agatston[name], float) for name in names])
        return torch.from_numpy(normalised(scores, self.largest, self.output).astype(np.float32))


def _digest(training: Volumes, validation: Volumes, agatston: Mapping[str, np.ndarray]) -> str:
    parts = [
        [(name, np.asarray(agatston[name], float).tolist()) for name in part.names] for part in (training, validation)
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def outputs(network: nn.Module, volumes: Volumes, names: Sequence[str], batch_size: int = 8) -> np.ndarray:
    """Outputs of a network for unaugmented volumes, [n, 4]."""
    device = next(network.parameters()).device
    results = []
    with torch.inference_mode():
        for start in range(0, len(names), batch_size):
            x = torch.from_numpy(np.stack([volumes[name] for name in names[start : start + batch_size]]))
            results.append(network(x.to(device)).float().cpu().numpy())
    return np.concatenate(results) if results else np.empty((0, 4), np.float32)


def mean_squared(first: np.ndarray, second: np.ndarray, largest: float) -> float:
    """Mean squared error of Agatston scores in shares of the largest: over patients and the four arteries."""
    return float(np.mean(((np.asarray(first) - np.asarray(second)) / largest) ** 2))


def draw_shift(augmentation: VolumeAugmentation, generator: np.random.Generator) -> tuple[int, int, int]:
    """Slices, rows and columns that a volume is shifted by."""
    most = (augmentation.shift_slices, augmentation.shift, augmentation.shift)
    return tuple(int(generator.integers(-n, n + 1)) for n in most)


def augment(
    volume: np.ndarray,
    augmentation: VolumeAugmentation,
    shift: Sequence[int],
    generator: np.random.Generator,
) -> np.ndarray:
    """A volume [slices, size, size] shifted, blurred and made noisier; float32. What moves in is the lowest value."""
    lowest = volume.min()
    moved = np.full_like(volume, lowest)
    targets = tuple(slice(max(0, s), max(0, n + min(0, s))) for s, n in zip(shift, volume.shape, strict=True))
    sources = tuple(slice(max(0, -s), max(0, n - max(0, s))) for s, n in zip(shift, volume.shape, strict=True))
    moved[targets] = volume[sources]
    empty = moved == lowest
    if augmentation.blur > 0 and generator.random() < 0.5:
        sigma = generator.uniform(0, augmentation.blur)
        moved = ndimage.gaussian_filter(moved, (0, sigma, sigma), mode="nearest")
    if augmentation.noise > 0:
        level = np.float32(generator.uniform(0, augmentation.noise))
        moved = moved + level * generator.standard_normal(moved.shape, np.float32)
    moved[empty] = lowest
    return moved
