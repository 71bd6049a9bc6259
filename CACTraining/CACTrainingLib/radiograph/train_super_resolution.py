"""Training of the network that makes thin slices of thick ones, on digital hearts scanned in both.

Nothing but the patients' numbers is needed: their scans are made first, into the training's folder, and stay there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.models.inference import predict
from CACScoringLib.networks.van_velzen import SliceSuperResolutionConfig, build

from ..phantom.anatomy.patient import STRATA, stratified_patients
from ..training.loop import Task
from ..training.runs import training_run
from ..training.settings import LoopSettings, RunOptions
from .super_resolution import (
    CALCIUM_HU,
    FACTOR,
    HU_SCALE,
    SlicePair,
    interpolated,
    learned,
    network_input,
    quality,
    read_pair,
    write_pairs,
)

LOOP = LoopSettings(16_000, validate_every=2000, half_precision=False)
PAIRS = "pairs"
APART = 10_000
"""Patients to validate and to test on are numbered so much higher, and twice so much."""

INTENDED_USE = (
    "Makes thin slices of the 3 mm slices of a digital heart's CT before it is projected to a radiograph. For research "
    "on radiographs; not for reading or scoring a CT; not a medical device."
)


@dataclass(frozen=True)
class SuperResolutionTraining:
    """first_number: of the patients; training takes `patients` of them in the shares of `patient.STRATA`.

    patch: side of the squares it learns from, pixels. calcium_share: of the squares about a calcified voxel.
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

    def numbers(self) -> tuple[list[int], list[int], list[int]]:
        """Patients to train, to validate and to test on."""
        counts = self.patients, self.validation_patients, self.test_patients
        return tuple(stratified_patients(self.first_number + APART * n, m) for n, m in enumerate(counts))


PRESETS = {"default": SuperResolutionTraining()}


class SuperResolutionTask(Task):
    """See `Task`."""

    exported = "sharpener"
    better = "reduction"

    def __init__(
        self,
        settings: SuperResolutionTraining,
        training: Sequence[SlicePair],
        validation: Sequence[SlicePair],
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        config = settings.network
        network = build(config).to(memory_format=torch.channels_last)
        self.config, self.settings, self.validation = config, settings, validation
        self.modules: dict[str, nn.Module] = {"sharpener": network}
        self.optimizers = {"sharpener": torch.optim.Adam(network.parameters(), settings.learning_rate)}
        self._inputs = [network_input(pair.thick, config) for pair in training]
        self._lacking = [lacking(pair, config.factor) for pair in training]
        self._calcified = [
            np.argwhere(_by_thick(pair.calcium, config.factor).max(1) >= CALCIUM_HU) for pair in training
        ]
        self._with_calcium = [n for n, places in enumerate(self._calcified) if len(places)]
        self._plain = [interpolated(pair.thick, config.factor) for pair in validation]
        self._plain_rms = _mean_quality(self._plain, validation)

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        patches = [self._patch(generator) for _ in range(self.settings.batch_size)]
        return {name: torch.from_numpy(np.stack([patch[name] for patch in patches])) for name in ("x", "y")}

    def _patch(self, g: np.random.Generator) -> dict[str, np.ndarray]:
        """Input and output of a square somewhere, or about calcium, mirrored in any direction."""
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
        x, y = self._inputs[n][patch], self._lacking[n][patch]
        # Turned over along the table, too: the first axis of both rises with the height.
        turns = tuple(axis for axis in range(3) if g.random() < 0.5)
        return {"x": np.flip(x, turns).copy(), "y": np.flip(y, turns).astype(np.float32)}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        loss = functional.mse_loss(self.modules["sharpener"](batch["x"]), batch["y"])
        self.descend("sharpener", loss, fabric)
        return {"loss": loss.detach()}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """reduction: of the interpolation's error in the heart, as a share of it."""
        thin = []
        for pair, plain in zip(self.validation, self._plain, strict=True):
            added = predict(network, network_input(pair.thick, self.config), 8)[0]
            thin.append(plain + HU_SCALE * added.reshape(plain.shape))
        means = _mean_quality(thin, self.validation)
        shares = {f"reduction_{k[4:]}": 1 - v / self._plain_rms[k] for k, v in means.items() if k.startswith("rms")}
        return {"reduction": shares.pop("reduction_heart"), **shares, **means}


def lacking(pair: SlicePair, factor: int) -> np.ndarray:
    """Target of the network, float16 [k, factor, j, i]."""
    return _by_thick((pair.thin - interpolated(pair.thick, factor)) / np.float32(HU_SCALE), factor).astype(np.float16)


def _by_thick(thin: np.ndarray, factor: int) -> np.ndarray:
    """Thin slices [factor k, j, i] as [k, factor, j, i]."""
    return thin.reshape(-1, factor, *thin.shape[1:])


def _mean_quality(slices: Sequence[np.ndarray], pairs: Sequence[SlicePair]) -> dict[str, float]:
    """The mean of what all patients have, by name."""
    qualities = [quality(thin, pair) for thin, pair in zip(slices, pairs, strict=True)]
    names = dict.fromkeys(name for one in qualities for name in one)
    return {name: fmean(one[name] for one in qualities if name in one) for name in names}


def evaluate(model: LoadedModel, pairs: Sequence[SlicePair]) -> dict[str, object]:
    """Quality of the network's and of interpolated slices, on patients that nothing was learned from."""
    factor = model.card.config["factor"]
    return {
        "patients": len(pairs),
        "data": "digital patients apart from training and validation",
        "interpolated": _mean_quality([interpolated(pair.thick, factor) for pair in pairs], pairs),
        "learned": _mean_quality([learned(pair.thick, model) for pair in pairs], pairs),
    }


def train(options: RunOptions, settings: SuperResolutionTraining, progress: Progress) -> Path:
    """Make the scans, train, and write the model; returns its card's path. Raises CTError, OutputError."""
    if settings.patients < len(STRATA) or settings.first_number < 0 or options.workers < 1:
        raise CTError(f"Give at least {len(STRATA)} patients, a first number from 0 up, and at least one worker.")
    with training_run(options, "super-resolution", settings, {}, progress) as run:

        def scanned(numbers: Sequence[int]) -> list[SlicePair]:
            files = write_pairs(numbers, options.folder / PAIRS, options.workers, progress.counted)
            return [read_pair(file) for file in files]

        uses = dict(zip(("training", "validation", "test"), settings.numbers(), strict=True))
        with run.progress.step("scans"):
            training, validation = scanned(uses["training"]), scanned(uses["validation"])
        outcome = run.train(SuperResolutionTask(settings, training, validation))
        patients = "; ".join(f"{name}: {', '.join(map(str, use))}" for name, use in uses.items())
        data = f"Digital patients, scanned in 3 mm with noise and in 1 mm without, gated. {patients}"
        return run.write_model(
            settings, data, outcome, lambda model: (evaluate(model, scanned(uses["test"])), {}), INTENDED_USE
        )
