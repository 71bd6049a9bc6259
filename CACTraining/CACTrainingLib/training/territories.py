"""Train the territory network on digital patients with anatomical hearts, and on outlined hearts of real scans.

Each patient is made when it is first drawn (`phantom.territory_volume`) and cached. Scans teach the heart alone,
because their territories are not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.losses.dice import DiceLoss
from monai.metrics.meandice import compute_dice
from monai.metrics.utils import do_metric_reduction
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import nn
from torch.nn import functional

from CACScoringLib.core.errors import CTError, DataError
from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.models.inference import Runner, predict
from CACScoringLib.networks.configs import TerritoryNetConfig, build
from CACScoringLib.statistics.masks import dice

from ..data.datasets import default_cache, find_scans, split_by_patient
from ..data.territory_patches import (
    CALCIFYING,
    HEART_ONLY,
    UNKNOWN,
    Patch,
    TerritoryAugmentation,
    augment_patches,
    border_places,
    draw_patches,
    outlined_volume,
    plain_patch,
)
from ..phantom import TerritoryVolume, territory_volume
from ..project.training_scan import TrainingScan
from .distributed import in_turn
from .runs import start_from, training_run
from .settings import LoopSettings, RunOptions, read_presets
from .task import Task, channels_last

FIRST_NUMBERS = {"training": 100_000, "validation": 200_000, "test": 300_000}
"""First patient number of each use, far from the others and from those of any cohort."""

CLASS_WEIGHTS = (0.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.7)
"""Weights of TERRITORIES in the cross entropy, higher for small ones, lest they be ignored. Territories that are
confused with their neighbours share a weight, lest doubtful voxels go to the heavier one."""

INTENDED_USE = (
    "Finds the heart and the territories of the coronary arteries, valves and great vessels on chest CT, as a step of "
    "calcium scoring with CAC. For research; not a medical device."
)


@dataclass(frozen=True)
class TerritoryTraining:
    """Settings of the territory network's training.

    Attributes:
        patients: Number of digital patients to train on, from FIRST_NUMBERS on.
        validation_patients: Number of digital patients to validate on, from FIRST_NUMBERS on.
        batch_size: Patches per step.
        learning_rate: Learning rate of the AdamW optimiser.
        outlined_share: Share of patches from scans with an outlined heart, if there are any.
        start: SHA-256 of the model with the initial weights, recorded by the training.
    """

    loop: LoopSettings = LoopSettings(30_000, validate_every=400, average=0.998)  # noqa: RUF009
    network: TerritoryNetConfig = field(default_factory=TerritoryNetConfig)
    patients: int = 600
    validation_patients: int = 40
    batch_size: int = 2
    learning_rate: float = 1e-3
    outlined_share: float = 0.5
    augmentation: TerritoryAugmentation = field(default_factory=TerritoryAugmentation)
    start: str | None = None


PRESETS = read_presets("territories", TerritoryTraining())


class TerritoryTask(Task[TerritoryTraining]):
    """Training of the territory network.

    Args:
        settings: Settings of the training.
        cache: Folder of the patients' volumes.
        start: Initial network.
        outlined: Scans with an outlined heart to train on, and to validate on.
    """

    exported = "territories"
    better = "score"

    def __init__(
        self,
        settings: TerritoryTraining,
        cache: Path,
        start: nn.Module | None = None,
        outlined: tuple[Sequence[TerritoryVolume], Sequence[TerritoryVolume]] = ((), ()),
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        network = channels_last(build(settings.network) if start is None else start)
        self.settings, self.cache = settings, cache
        self.modules = {"territories": network}
        self.optimizers = {"territories": torch.optim.AdamW(network.parameters(), settings.learning_rate)}
        self.outlined, self.watched_outlined = outlined
        self.watched: list[TerritoryVolume] = []
        self.borders: dict[int, list[np.ndarray]] = {}

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        drawn = [self._draw_volume(generator) for _ in range(self.settings.batch_size)]
        volumes, borders = zip(*drawn, strict=True)
        return draw_patches(volumes, self.settings.augmentation, generator, borders)

    def _draw_volume(self, generator: np.random.Generator) -> tuple[TerritoryVolume, list[np.ndarray]]:
        """Draw a scan with an outlined heart, or a digital patient with the places of its borders."""
        if self.outlined and generator.random() < self.settings.outlined_share:
            return self.outlined[int(generator.integers(len(self.outlined)))], []
        number = FIRST_NUMBERS["training"] + int(generator.integers(self.settings.patients))
        volume = territory_volume(number, self.cache)
        if number not in self.borders:
            self.borders[number] = border_places(volume.labels)
        return volume, self.borders[number]

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return augment_patches(batch)

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        x = batch["x"].contiguous(memory_format=torch.channels_last_3d)
        logits = self.modules["territories"](x, logits=True)
        loss, parts = territory_loss(logits, batch["labels"], batch["heart"], batch["possible"])
        self.descend("territories", loss, fabric, max_norm=5.0)
        return {"loss": loss.detach(), **parts}

    def prepare(self, progress: Progress) -> None:
        """Make the validation patients that are not cached yet."""
        first = FIRST_NUMBERS["validation"]
        numbers = range(first, first + self.settings.validation_patients)
        self.watched = []
        for number in numbers:
            progress.counted(len(self.watched), len(numbers))
            self.watched.append(territory_volume(number, self.cache))

    def validate(self, network: Runner | nn.Module) -> dict[str, float]:
        metrics = mean_measures([compare_with_truth(network, volume) for volume in self.watched])
        if self.watched_outlined:
            hearts = [heart_agreement(network, volume) for volume in self.watched_outlined]
            metrics["outlined_heart"] = float(np.mean(hearts))
            metrics["score"] = (metrics["score"] + metrics["outlined_heart"]) / 2
        return metrics


def territory_loss(
    logits: torch.Tensor, labels: torch.Tensor, heart: torch.Tensor, possible: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss and its parts: cross entropy and 1 − Dice of territories and heart, and cross entropy at calcium.

    The last part gives a doubtful place to the artery that calcifies there most often, with calibrated probabilities.
    UNKNOWN voxels do not count, and HEART_ONLY voxels count for the heart alone.

    Args:
        logits: Network output, [B, 12, k, j, i].
        labels: Territories, int64 [B, k, j, i].
        heart: Heart mask, float32 [B, k, j, i].
        possible: Share of a patient's calcium in each voxel by CALCIFYING, float32 [B, n, k, j, i].
    """
    logits = logits.float()
    is_in_view = (labels != UNKNOWN).float()
    labels = torch.where(labels == HEART_ONLY, UNKNOWN, labels)
    is_known = (labels != UNKNOWN).float()
    weights = torch.tensor(CLASS_WEIGHTS, device=logits.device)
    voxel_entropy = functional.cross_entropy(logits[:, 1:], labels, weights, ignore_index=UNKNOWN, reduction="none")
    true_labels = torch.where(labels == UNKNOWN, 0, labels)
    # Not DiceCELoss, which is not a number for a batch altogether outside the field of view; hence + 1.
    entropy = voxel_entropy.sum() / ((weights[true_labels] * is_known).sum() + 1)
    surprise = -torch.log_softmax(logits[:, 1:], 1)[:, CALCIFYING]
    at_calcium = (is_known[:, None] * possible * surprise).sum() / len(labels)
    overlaps = DiceLoss(
        softmax=True, to_onehot_y=True, ignore_index=UNKNOWN, reduction="none", batch=True, smooth_nr=1, smooth_dr=1
    )(logits[:, 1:], labels[:, None]).flatten()
    present = labels[labels != UNKNOWN].unique()
    overlap = overlaps[present].mean() if len(present) else entropy.new_zeros(())
    heart_entropy = functional.binary_cross_entropy_with_logits(logits[:, 0], heart, is_in_view)
    heart_probability = torch.sigmoid(logits[:, :1]) * is_in_view[:, None]
    heart_overlap = DiceLoss(batch=True, smooth_nr=1, smooth_dr=1)(heart_probability, heart[:, None])
    parts = {"entropy": entropy, "calcium": at_calcium, "overlap": overlap, "heart": heart_overlap}
    loss = entropy + at_calcium + overlap + heart_entropy + heart_overlap
    return loss, {name: part.detach() for name, part in parts.items()}


def train(options: RunOptions, settings: TerritoryTraining, progress: Progress) -> Path:
    """Train a territory network, from the weights of another one if asked; return its card's path.

    Scans of `options.data` with an outlined heart teach the heart. Raises CTError, OutputError.
    """
    max_patients = FIRST_NUMBERS["validation"] - FIRST_NUMBERS["training"]
    if not 1 <= settings.patients <= max_patients or settings.batch_size < 1:
        raise CTError(f"Give 1 to {max_patients} patients, and at least 1 sample per step.")
    settings, card, start = start_from(options, settings, "territories")
    with training_run(options, "territories", settings, PRESETS, progress) as run:
        scans = run.prepare("heart", lambda: outlined_scans(options, settings.loop)) if options.data else None
        folders = (scans.training_folders, scans.validation_folders) if scans else ((), ())
        training, validation = ([outlined_volume(folder) for folder in part] for part in folders)
        task = TerritoryTask(settings, default_cache() / "territories", start, (training, validation))
        with run.progress.step("scans"):
            in_turn(run.fabric, lambda: task.prepare(run.progress))
        outcome = run.train(task)
        counts = {"training": settings.patients, "validation": settings.validation_patients}
        firsts = {use: FIRST_NUMBERS[use] for use in counts}
        data = "; ".join(f"{use}: digital patients {firsts[use]} to {firsts[use] + n - 1}" for use, n in counts.items())
        data += f"; outlined hearts, {scans.describe(options.annotator)}" if scans else ""

        def evaluate(model: LoadedModel) -> tuple[dict[str, object], dict[str, float]]:
            metrics = {name: round(value, 4) for name, value in task.validate(model.network).items()}
            return {**metrics}, {"temperature": temperature(model.network, task.watched)}

        return run.write_model(settings, data, outcome, evaluate, INTENDED_USE, card)


def outlined_scans(options: RunOptions, loop: LoopSettings) -> tuple[list[TrainingScan], list[TrainingScan]]:
    """Return training and validation scans with an outlined heart. Raises DataError if no scan has one.

    A heart found from the lungs would teach its errors.
    """
    scans = find_scans(options.data, options.annotator)
    outlined = [scan for scan in scans if scan.heart_known]
    if not outlined:
        raise DataError(f"None of the {len(scans)} scans has an outlined heart. Outline some, or give other scans.")
    return split_by_patient(outlined, loop.validation_share, loop.seed)


def compare_with_truth(network: Runner | nn.Module, volume: TerritoryVolume) -> tuple[tuple[float, ...], np.ndarray]:
    """Compare a network with the truth, on the unaugmented patch around a patient's heart.

    Returns:
        Dice of each territory, NaN if the patient lacks it, and of the heart; and the possible calcium of each artery
        (as distributed over patients) by predicted territory, [4, 11].
    """
    patch, low = plain_patch(volume)
    output = predict(network, patch.x[None].numpy(), 1)[0][0]
    return _dice(output, patch), calcium_by_territory(output[1:], low, volume)


def heart_agreement(network: Runner | nn.Module, volume: TerritoryVolume) -> float:
    """Return the Dice of the heart in a scan with an outlined heart, on the patch around it."""
    patch, _ = plain_patch(volume)
    return _heart_dice(predict(network, patch.x[None].numpy(), 1)[0][0], patch)


def calcium_by_territory(probability: np.ndarray, low: tuple[int, int, int], volume: TerritoryVolume) -> np.ndarray:
    """Sum the possible calcium of each artery by the most probable territory except "outside", [4, 11].

    probability: Territory probabilities [11, k, j, i] in a box of the volume. low: First voxel of the box; calcium
    outside the box does not count.
    """
    probabilities, value, artery = _at_calcium(probability, low, volume)
    mass = np.zeros((4, len(TERRITORIES)))
    np.add.at(mass, (artery - 1, 1 + probabilities[:, 1:].argmax(1)), value)
    return mass


def temperature(network: Runner | nn.Module, volumes: list[TerritoryVolume]) -> float:
    """Fit the temperature that calibrates a network's probabilities of the artery of calcium.

    Guo 2017, On Calibration of Modern Neural Networks, applied to the arteries' probabilities alone.
    """
    logarithms, arteries, weights = [], [], []
    for volume in volumes:
        patch, low = plain_patch(volume)
        probabilities, value, artery = _at_calcium(predict(network, patch.x[None].numpy(), 1)[0][0][1:], low, volume)
        logarithms.append(np.log(np.maximum(probabilities[:, 1:5], 1e-6)))
        arteries.append(artery - 1)
        weights.append(value)
    logits, label, weight = map(np.concatenate, (logarithms, arteries, weights))
    if not len(label):
        return 1.0

    def surprise(divisor: float) -> float:
        surprises = logsumexp(logits / divisor, axis=1) - logits[np.arange(len(label)), label] / divisor
        return float(np.average(surprises, weights=weight))

    return round(float(minimize_scalar(surprise, bounds=(0.5, 5.0), method="bounded").x), 2)


def _at_calcium(
    probability: np.ndarray, low: tuple[int, int, int], volume: TerritoryVolume
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities [n, 11], amount [n] and artery [n] of the possible coronary calcium within a box."""
    index, value, artery = (part[volume.possible[2] <= 4] for part in volume.possible)
    place = np.stack(np.unravel_index(index, volume.hu.shape)) - np.array(low)[:, None]
    inside = ((place >= 0) & (place < np.array(probability.shape[1:])[:, None])).all(0)
    return probability[(slice(None), *place[:, inside])].T, value[inside], artery[inside].astype(int)


def mean_measures(agreements: Sequence[tuple[tuple[float, ...], np.ndarray]]) -> dict[str, float]:
    """Return means over patients, and the share of coronary calcium that is assigned to its artery.

    agreements: Of each patient, as `compare_with_truth` returns it.
    """
    dices, masses = zip(*agreements, strict=True)
    means = do_metric_reduction(torch.tensor(dices, dtype=torch.float64), "mean_batch")[0].tolist()
    mass = np.sum(masses, axis=0)
    right = [float(mass[n, n + 1]) for n in range(4)]
    total = float(mass.sum())
    metrics = {f"mass_{TERRITORIES[n + 1]}": right[n] / float(mass[n].sum()) for n in range(4) if mass[n].any()}
    metrics["mass"] = sum(right) / total if total else 0.0
    metrics |= {f"dice_{name}": mean for name, mean in zip(TERRITORIES[1:], means[:-1], strict=True)}
    metrics["dice"], metrics["heart"] = float(np.mean(means[:-1])), means[-1]
    return {"score": (metrics["mass"] + metrics["dice"] + metrics["heart"]) / 3, **metrics}


def _dice(output: np.ndarray, patch: Patch) -> tuple[float, ...]:
    territories = compute_dice(
        torch.from_numpy(output[1:].argmax(0))[None, None],
        patch.labels[None, None],
        include_background=False,
        num_classes=len(TERRITORIES),
        ignore_index=UNKNOWN,
    )
    return (*territories[0].tolist(), _heart_dice(output, patch))


def _heart_dice(output: np.ndarray, patch: Patch) -> float:
    inside = (output[0] >= 0.5) & (patch.labels.numpy() != UNKNOWN)
    return dice(inside, patch.heart.numpy() > 0) or 0.0
