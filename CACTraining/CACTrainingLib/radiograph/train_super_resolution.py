"""Training of the network that makes thin slices of thick ones, on digital hearts scanned in both.

The scans are made first from the patients' numbers, and stay in the training's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.models.inference import predict
from CACScoringLib.models.preprocessing import RESIDUAL_HU, interpolated_slices, thick_slice_input
from CACScoringLib.networks.configs import SliceSuperResolutionConfig, build

from ..phantom import STRATA, stratified_patients
from ..training.runs import training_run
from ..training.settings import LoopSettings, RunOptions
from ..training.task import Task, channels_last
from .super_resolution import (
    CALCIUM_HU,
    FACTOR,
    SlicePair,
    quality,
    sharpen,
    slice_pairs,
)

LOOP = LoopSettings(16_000, validate_every=2000, half_precision=False)
PAIRS = "pairs"
APART = 10_000
"""Offset of the numbers of validation patients, and half of that of test patients."""

INTENDED_USE = (
    "Makes thin slices of the 3 mm slices of a digital heart's CT before it is projected to a radiograph. For research "
    "on radiographs; not for reading or scoring a CT; not a medical device."
)


@dataclass(frozen=True)
class SuperResolutionTraining:
    """Settings of a super-resolution training.

    Attributes:
        loop: Settings of the training loop.
        network: Configuration of the network.
        first_number: Lowest patient number.
        patients: Training patients, in the shares of `patient.STRATA`.
        validation_patients: Validation patients.
        test_patients: Test patients.
        batch_size: Squares per step.
        patch: Side of the squares in pixels.
        learning_rate: Learning rate of Adam.
        calcium_share: Share of squares around a calcified voxel.
    """

    loop: LoopSettings = LOOP
    network: SliceSuperResolutionConfig = field(default_factory=lambda: SliceSuperResolutionConfig(FACTOR))
    first_number: int = 1_400_000
    patients: int = 10
    validation_patients: int = 4
    test_patients: int = 6
    batch_size: int = 8
    patch: int = 32
    learning_rate: float = 2e-3
    calcium_share: float = 0.5

    def numbers(self) -> dict[str, list[int]]:
        """Return the patients for training, validation and test."""
        counts = {"training": self.patients, "validation": self.validation_patients, "test": self.test_patients}
        return {use: stratified_patients(self.first_number + APART * n, counts[use]) for n, use in enumerate(counts)}


PRESETS = {"default": SuperResolutionTraining()}


class SuperResolutionTask(Task[SuperResolutionTraining]):
    """Task of a super-resolution training."""

    exported = "sharpener"
    better = "reduction"

    def __init__(
        self, settings: SuperResolutionTraining, training: Sequence[SlicePair], validation: Sequence[SlicePair]
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        config = settings.network
        network = channels_last(build(config))
        self.config, self.settings, self.validation = config, settings, validation
        self.modules: dict[str, nn.Module] = {"sharpener": network}
        self.optimizers = {"sharpener": torch.optim.Adam(network.parameters(), settings.learning_rate)}
        self._inputs = [thick_slice_input(pair.thick, config.neighbours) for pair in training]
        self._targets = [residual_slices(pair, config.factor) for pair in training]
        by_thick = [_by_thick(pair.calcium, config.factor) for pair in training]
        self._calcified = [np.argwhere(calcium.max(1) >= CALCIUM_HU) for calcium in by_thick]
        self._with_calcium = [n for n, places in enumerate(self._calcified) if len(places)]
        self._plain = [interpolated_slices(pair.thick, config.factor) for pair in validation]
        self._plain_rms = _mean_quality(self._plain, validation)

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        patches = [self._patch(generator) for _ in range(self.settings.batch_size)]
        return {name: torch.from_numpy(np.stack([patch[name] for patch in patches])) for name in ("x", "y")}

    def _patch(self, g: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw input and target of a square anywhere or around calcium, randomly mirrored."""
        about_calcium = self._with_calcium and g.random() < self.settings.calcium_share
        n = int(g.choice(self._with_calcium)) if about_calcium else int(g.integers(len(self._inputs)))
        slices, _, *sides = self._inputs[n].shape
        if about_calcium:
            k, *centre = self._calcified[n][g.integers(len(self._calcified[n]))]
        else:
            k, *centre = g.integers(slices), *g.integers(sides)
        side = min(self.settings.patch, *sides)
        low = [c + g.integers(-side // 4, side // 4 + 1) - side // 2 for c in centre]
        low = [int(np.clip(begin, 0, length - side)) for begin, length in zip(low, sides, strict=True)]
        patch = (k, slice(None), *(slice(begin, begin + side) for begin in low))
        x, y = self._inputs[n][patch], self._targets[n][patch]
        # Mirroring along the table, too: the first axis of both rises with the height.
        turns = tuple(axis for axis in range(3) if g.random() < 0.5)
        return {"x": np.flip(x, turns).copy(), "y": np.flip(y, turns).astype(np.float32)}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        loss = functional.mse_loss(self.modules["sharpener"](batch["x"]), batch["y"])
        self.descend("sharpener", loss, fabric)
        return {"loss": loss.detach()}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return metrics; reduction is the share of the interpolation's error in the heart that the network removes."""
        thin = []
        for pair, plain in zip(self.validation, self._plain, strict=True):
            residual = predict(network, thick_slice_input(pair.thick, self.config.neighbours), 8)[0]
            thin.append(plain + RESIDUAL_HU * residual.reshape(plain.shape))
        means = _mean_quality(thin, self.validation)
        shares = {f"reduction_{k[4:]}": 1 - v / self._plain_rms[k] for k, v in means.items() if k.startswith("rms")}
        return {"reduction": shares.pop("reduction_heart"), **shares, **means}


def residual_slices(pair: SlicePair, factor: int) -> np.ndarray:
    """Return the network's target, float16 [k, factor, j, i]."""
    return _by_thick((pair.thin - interpolated_slices(pair.thick, factor)) / np.float32(RESIDUAL_HU), factor).astype(
        np.float16
    )


def _by_thick(thin: np.ndarray, factor: int) -> np.ndarray:
    """Group thin slices [factor k, j, i] as [k, factor, j, i]."""
    return thin.reshape(-1, factor, *thin.shape[1:])


def _mean_quality(slices: Sequence[np.ndarray], pairs: Sequence[SlicePair]) -> dict[str, float]:
    """Return the mean over patients of each measure."""
    qualities = [quality(thin, pair) for thin, pair in zip(slices, pairs, strict=True)]
    names = dict.fromkeys(name for values in qualities for name in values)
    return {name: fmean(values[name] for values in qualities if name in values) for name in names}


def evaluate(model: LoadedModel, pairs: Sequence[SlicePair]) -> dict[str, object]:
    """Compare the network's and interpolated slices on test patients."""
    factor = model.card.config["factor"]
    return {
        "patients": len(pairs),
        "data": "digital patients apart from training and validation",
        "interpolated": _mean_quality([interpolated_slices(pair.thick, factor) for pair in pairs], pairs),
        "learned": _mean_quality([sharpen(pair.thick, model) for pair in pairs], pairs),
    }


def train(options: RunOptions, settings: SuperResolutionTraining, progress: Progress) -> Path:
    """Make the scans, train, and write the model; returns its card's path. Raises CTError, OutputError."""
    if settings.patients < len(STRATA) or settings.first_number < 0 or options.workers < 1:
        raise CTError(f"Give at least {len(STRATA)} patients, a first number from 0 up, and at least one worker.")
    with training_run(options, "super-resolution", settings, {}, progress) as run:
        uses = settings.numbers()
        make_pairs = partial(
            slice_pairs, folder=options.folder / PAIRS, workers=options.workers, progress=progress.counted
        )
        with run.progress.step("scans"):
            training, validation = make_pairs(uses["training"]), make_pairs(uses["validation"])
        outcome = run.train(SuperResolutionTask(settings, training, validation))
        patients = "; ".join(f"{name}: {', '.join(map(str, use))}" for name, use in uses.items())
        data = f"Digital patients, scanned in 3 mm with noise and in 1 mm without, gated. {patients}"
        return run.write_model(
            settings, data, outcome, lambda model: (evaluate(model, make_pairs(uses["test"])), {}), INTENDED_USE
        )
