"""Train the heart network on 3-D patches of 1.5×1.5×3.0 mm voxels.

Follows van Velzen et al., sections 3 and 5: Dice loss, Adam with rate 0.001, batches of 10 patches of 64³ voxels
balanced for presence of the heart. Beyond the paper: strong spatial and intensity augmentation, because digital hearts
resemble each other; and scans with heart masks from a table, which are oversampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.losses.dice import DiceLoss
from torch import nn

from CACScoringLib.anatomy.heart_network import heart_mask
from CACScoringLib.anatomy.heart_region import heart_region
from CACScoringLib.core.ct import NoHeartError, ScanWarning
from CACScoringLib.core.grid import triple
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.models.inference import predict
from CACScoringLib.models.preprocessing import HEART_PATCH, heart_grid
from CACScoringLib.networks.configs import HeartNetConfig
from CACScoringLib.networks.van_velzen import build

from ..data.augmentation import UNCHANGED, PatchAugmentation, augment_patches, draw_patches
from ..data.datasets import HeartVolume, load_volume
from ..data.heart_scans import outlined_scans
from ..project.training_scan import TrainingScan
from ..statistics.masks import dice
from .loop import Task, channels_last
from .runs import start_from, training_run
from .settings import LoopSettings, RunOptions, read_presets

NO_HEART_DICE, HEART_EVERYWHERE, PATIENT_VALIDATIONS = 0.05, 0.5, 3
"""Dice below which, and heart share of patches without heart above which, the network has learned nothing after
PATIENT_VALIDATIONS validations."""

INTENDED_USE = (
    "Finds the heart on non-contrast chest CT, as a step of calcium scoring with CAC. "
    "For research; not a medical device."
)


@dataclass(frozen=True)
class HeartTraining:
    """Settings of the heart network's training.

    Attributes:
        pairs: CSV table of further scans with heart masks (patient, ct, heart, label, use).
        batch_size: Patches per step.
        learning_rate: Learning rate of the Adam optimiser.
        present_share: Share of patches around a point of the heart; the others hold none of it if the scan has room.
        listed_share: Share of patches from scans of the table, if there is one.
        validation_patches: Patches to validate on during training.
        evaluated_scans: Maximum number of whole scans to evaluate at the end.
        start: SHA-256 of the model with the initial weights, recorded by the training.
    """

    loop: LoopSettings = field(default_factory=LoopSettings)
    network: HeartNetConfig = field(default_factory=HeartNetConfig)
    pairs: Path | None = None
    batch_size: int = 10
    learning_rate: float = 1e-3
    present_share: float = 0.5
    listed_share: float = 0.5
    augmentation: PatchAugmentation = field(default_factory=PatchAugmentation)
    validation_patches: int = 32
    evaluated_scans: int = 30
    start: str | None = None


PRESETS = read_presets("heart", HeartTraining())


def dice_loss(logits: torch.Tensor, heart: torch.Tensor) -> torch.Tensor:
    """Return 1 − mean Dice of background and heart over the batch; a patch without heart has no Dice of its own.

    logits: [B, 2, k, j, i]. heart: [B, 1, k, j, i], 0 or 1.
    """
    loss = DiceLoss(sigmoid=True, batch=True, smooth_nr=1, smooth_dr=1)
    return loss(logits.float(), torch.cat([1 - heart, heart], 1))


class HeartTask(Task[HeartTraining]):
    """Training of the heart network.

    Args:
        settings: Settings of the training.
        training: Volumes to train on.
        validation: Volumes to validate on.
        listed: True for training volumes from the table, [n].
        start: Initial network.
    """

    exported = "heart"
    better = "dice"

    def __init__(
        self,
        settings: HeartTraining,
        training: Sequence[HeartVolume],
        validation: Sequence[HeartVolume],
        listed: Sequence[bool] = (),
        start: nn.Module | None = None,
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        network = channels_last(build(settings.network) if start is None else start)
        self.settings = settings
        self.training = list(training)
        self.modules = {"heart": network}
        self.optimizers = {"heart": torch.optim.Adam(network.parameters(), settings.learning_rate)}
        is_listed = np.array(listed or [False] * len(self.training), bool)
        self.pools = [pool for pool in (np.nonzero(~is_listed)[0], np.nonzero(is_listed)[0]) if len(pool)]
        self.watched = self._fixed_patches(list(validation))

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        scans = []
        # Rounded at random, so that a share that is no whole number of patches holds on average.
        with_heart = int(self.settings.batch_size * self.settings.present_share + generator.random())
        for number in range(self.settings.batch_size):
            listed = generator.random() < self.settings.listed_share
            scan = self.training[generator.choice(self.pools[-1] if listed else self.pools[0])]
            scans.append((scan.volume, scan.heart, patch_centre(scan, number < with_heart, generator)))
        return draw_patches(scans, HEART_PATCH, self.settings.augmentation, generator)

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, heart = augment_patches(batch)
        return {"x": x, "heart": heart}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        loss = dice_loss(self.modules["heart"](batch["x"], logits=True), batch["heart"])
        self.descend("heart", loss, fabric)
        return {"loss": loss.detach()}

    def validate(self, network: nn.Module) -> dict[str, float]:
        x, heart = self.watched
        predicted = predict(network, x, self.settings.batch_size)[0][:, 1:] >= 0.5
        present = heart.any((1, 2, 3, 4))
        metrics = {"dice": dice(predicted, heart) or 0.0}
        if not present.all():
            metrics["found_where_none"] = float(predicted[~present].mean())
        return metrics

    def warnings(self, metrics: dict[str, float], validations: int) -> list[ScanWarning]:
        if validations < PATIENT_VALIDATIONS:
            return []
        advice = "Lower learning_rate, or check the heart masks."
        if metrics["dice"] < NO_HEART_DICE:
            message = (
                f"The network finds no heart (Dice {metrics['dice']:.2f} after {validations} validations). {advice}"
            )
            return [ScanWarning("heart-not-found", message)]
        if metrics.get("found_where_none", 0.0) > HEART_EVERYWHERE:
            message = (
                f"The network finds a heart in {metrics['found_where_none']:.0%} of patches without heart. {advice}"
            )
            return [ScanWarning("heart-everywhere", message)]
        return []

    def _fixed_patches(self, scans: list[HeartVolume]) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng([self.settings.loop.seed, 6])
        heart_places = []
        for number in range(self.settings.validation_patches):
            scan = scans[number // 2 % len(scans)]
            centre = triple(round(c) for c in patch_centre(scan, number % 2 == 0, generator))
            heart_places.append((scan.volume, scan.heart, centre))
        parts = [augment_patches(draw_patches([place], HEART_PATCH, UNCHANGED, generator)) for place in heart_places]
        x, heart = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        return x, heart > 0


def patch_centre(scan: HeartVolume, present: bool, generator: np.random.Generator) -> tuple[float, float, float]:
    """Draw the centre (k, j, i) of a patch inside the heart's box, or away from it if the scan has room."""
    if present:
        return triple(float(generator.uniform(low, high)) for low, high in scan.box)
    reach = HEART_PATCH / 2
    centre = (0.0, 0.0, 0.0)
    for _ in range(20):
        centre = triple(float(generator.uniform(0, n)) for n in scan.volume.shape)
        if any(c + reach < low or c - reach > high for c, (low, high) in zip(centre, scan.box, strict=True)):
            break
    return centre


def evaluate(
    model: LoadedModel, settings: HeartTraining, scans: Sequence[TrainingScan], folders: Sequence[Path]
) -> tuple[dict[str, object], dict[str, float]]:
    """Return the Dice of whole validation scans on the network's grid, and an empty calibration.

    Masks are those of scoring without the margin.
    """
    values = []
    step = max(1, len(scans) // settings.evaluated_scans)
    for scan, folder in list(zip(scans, folders, strict=True))[::step][: settings.evaluated_scans]:
        ct = read_ct(scan.ct, scan.series)
        try:
            mask, _ = heart_mask(ct, model, heart_region(ct).mask, margin_mm=0)
        except NoHeartError:
            values.append(0.0)
            continue
        predicted = heart_grid(ct.image).resample(mask, 0.0) >= 0.5
        values.append(dice(predicted, load_volume(folder).heart > 0) or 0.0)
    low, middle, high = np.percentile(values, (25, 50, 75))
    metrics: dict[str, object] = {
        "dice_median": float(middle),
        "dice_quartiles": [float(low), float(high)],
        "dice_lowest": float(min(values)),
        "scans": len(values),
        "data": "validation patients of the training's own split, which also chose the best weights",
    }
    return metrics, {}


def train(options: RunOptions, settings: HeartTraining, progress: Progress) -> Path:
    """Train a heart network on folders of scans, a table (`heart_scans.read_pairs`), or both; return its card's path.

    Raises CTError, OutputError.
    """
    card, start = start_from(options, settings, "heart")
    if card is not None:
        settings = replace(settings, network=HeartNetConfig(**card.config), start=card.sha256)
    loop = settings.loop
    with training_run(options, "heart", settings, PRESETS, progress) as run:
        data = run.prepare(
            "heart",
            lambda: outlined_scans(options.data, options.annotator, settings.pairs, loop.validation_share, loop.seed),
        )
        training, validation = (
            [load_volume(folder) for folder in folders] for folders in (data.training_folders, data.validation_folders)
        )
        from_table = [scan.truth is None for scan in data.training]
        outcome = run.train(HeartTask(settings, training, validation, from_table, start))
        evaluation = partial(evaluate, settings=settings, scans=data.validation, folders=data.validation_folders)
        return run.write_model(settings, data.describe(options.annotator), outcome, evaluation, INTENDED_USE, card)
