"""Loaded models around networks with a predictable output, and scans in memory to run them on."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn
from torch.nn.functional import max_pool3d

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import ARTERIES, TERRITORIES
from CACScoringLib.models.cards import (
    REAL_PATIENTS,
    SAMPLE,
    LoadedModel,
    Training,
    describe,
    find_model,
    read_network,
)
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.configs import (
    LESION_IMAGES,
    LESION_KINDS,
    Config,
    DiscriminatorConfig,
    GeneratorConfig,
    SliceClassifierConfig,
    build,
)
from CACScoringLib.scoring.lesion_network import WINDOWS_HU

COMPACT: dict[str, Config] = {
    "slices": SliceClassifierConfig(
        width=12, residual_blocks=4, pooling="average+max", neighbours=1, position=True, size=160
    ),
    "decomposition": GeneratorConfig(
        width=12, residual_blocks=4, upsampling="resize", skips=True, neighbours=1, position=True
    ),
    "discriminator": DiscriminatorConfig(width=12, stem_stride=1, pooling="average+max"),
}
"""Configurations in the size of the bundled models."""


class AboveBlood(nn.Module):
    """Map what exceeds blood of 40 HU by more than `margin_hu`, a margin for noise."""

    def __init__(self, margin_hu: float = 40.0):
        super().__init__()
        self.limit = (40 + 50 + margin_hu) / 1000

    def forward(self, x):
        return (x[:, :1] - self.limit).clamp(min=0)


class AllSlices(nn.Module):
    """Classify every slice as positive, or every slice as negative."""

    def __init__(self, shows: bool = True):
        super().__init__()
        self.shows = shows

    def forward(self, x):
        return torch.tensor([[1.0 - self.shows, float(self.shows)]]).expand(len(x), 2)


class LooksAsBright(nn.Module):
    """Say with a probability that grows with the peak nearby that a voxel is calcium, and else noise.

    Calcium is of the artery whose territory it lies in, or of none. What is denser than 1650 HU is a clip.
    """

    def forward(self, x):
        low, high = WINDOWS_HU[-1]
        dense = x[:, LESION_IMAGES - 2] * (x[:, LESION_IMAGES - 1] > 0.5)
        peaks = low + (high - low) * max_pool3d(dense, (3, 9, 9), 1, (1, 4, 4))
        odds = (torch.log1p((peaks - 65).clamp(min=0)) - math.log(200)) * 4
        territories, is_clip = x[:, LESION_IMAGES:], x[:, 0] > 0.1
        answers = torch.zeros(len(x), len(LESION_KINDS), *x.shape[2:])
        for artery in ARTERIES:
            answers[:, LESION_KINDS.index(artery)] = torch.sigmoid(odds) * territories[:, TERRITORIES.index(artery)]
        answers[:, LESION_KINDS.index("other calcium")] = torch.sigmoid(odds) - answers.sum(1)
        answers[:, LESION_KINDS.index("noise")] = torch.sigmoid(-odds)
        answers *= ~is_clip[:, None]
        answers[:, LESION_KINDS.index("clip")] = is_clip.float()
        return answers


class LooksLike(nn.Module):
    """Say of every voxel with a probability that it is calcium of an artery, and else of a kind."""

    def __init__(self, artery: str, probability: float, kind: str):
        super().__init__()
        self.probabilities = {artery: probability, kind: 1 - probability}

    def forward(self, x):
        answers = torch.zeros(len(x), len(LESION_KINDS), *x.shape[2:])
        for kind, probability in self.probabilities.items():
            answers[:, LESION_KINDS.index(kind)] = probability
        return answers


def loaded(network: nn.Module, config: Config) -> LoadedModel:
    card = describe("hand", config, "custom", Training("none", 0, {}, ""), {}, {}, "Apache-2.0", "Tests only.")
    return LoadedModel(card, network)


def untrained(network: str, name: str, folder: Path) -> Path:
    """Write an untrained model; return its card's path."""
    config = COMPACT[network]
    card = describe(name, config, "compact", Training("none", 0, {}, ""), {}, {}, "Apache-2.0", "Tests only.")
    return save_model(build(config), card, folder)


def usable(name: str, folder: Path, factor: float = 1.0, data: str | None = None) -> Path:
    """Write the bundled slice classifier by another name; return the card's path.

    factor: Factor on its weights; the card then states no trial, as after a training. data: Its training data for the
    card, if it is to name others.
    """
    card, network = read_network(find_model("slices").path)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= factor
    training = card.training if data is None else replace(card.training, data=data)
    validation = {key: value for key, value in card.validation.items() if key != SAMPLE or factor == 1}
    return save_model(network, replace(card, name=name, training=training, validation=validation), folder)


def labelled_model(folder: Path) -> Path:
    """Write the bundled slice classifier with a card that names labelled patients; return the card's path."""
    return usable("mine", folder, data=f"training: 2 scans, of them 2 {REAL_PATIENTS} Ann")


def scan_of(hu: np.ndarray, spacing_mm: tuple[float, float, float], heart: np.ndarray) -> tuple[CTScan, sitk.Image]:
    """Return a scan and its heart mask, given arrays [k, j, i] and a spacing (i, j, k)."""
    grid = Grid(hu.shape[::-1], spacing_mm, (-30.0, 12.0, 699.0))  # where voxels of 1.5 and 3 mm begin
    return CTScan(grid.image(hu), Acquisition("memory")), grid.image(heart.astype(np.uint8))
