"""Models for radiographs that are untrained, or have known outputs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from CACScoringLib.models.cards import LoadedModel, ModelCard, Training, describe
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.configs import RadiographNetConfig, build
from CACScoringLib.networks.radiograph import cut_out
from CACScoringLib.radiograph.score import FACTORS, factors_key, image_key

SMALL = RadiographNetConfig(size=32, width=4)


def calibration(
    thresholds: tuple[float, ...] = (0.0, 100.0, 400.0), factors: bool = True, offsets: tuple[float, ...] | None = None
) -> dict:
    """Make a calibration that keeps logits, plus an offset for each threshold; a year of age adds 0.02."""
    models = {}
    for number, threshold in enumerate(thresholds):
        image = {"offset": 0.0 if offsets is None else offsets[number], "logit": 1.0}
        models[image_key(threshold)] = image
        models[factors_key(threshold)] = image | dict(zip(FACTORS, (0.02, 0.0, 0.0), strict=True)) if factors else None
    return models


def card_for(
    config: RadiographNetConfig, name: str = "by-hand", fit: dict | None = None, validation: dict | None = None
) -> ModelCard:
    return describe(
        name,
        config,
        "custom",
        Training("40 digital patients", 0, {}, "0" * 40),
        {"auc_above_0": 0.75, "auc_above_0_95": [0.6, 0.9], "auc_from_100": 0.8, "n": 20, **(validation or {})},
        calibration(config.thresholds) if fit is None else fit,
        "Apache-2.0",
        "Tests only.",
    )


def save_untrained(folder: Path, name: str = "radiograph-untrained", config: RadiographNetConfig = SMALL) -> Path:
    """Write an untrained model, and return its card's path."""
    torch.manual_seed(1)
    return save_model(build(config), card_for(config, name), folder)


class SpotBrightness(nn.Module):
    """Network whose logits are gains times the mean brightness of discs, SPOT_MM wide, at `spots` (row, column) in mm
    from the heart's centre at `centres`; its evidence is in BRIGHT_CELL."""

    SPOT_MM = 12.0
    BRIGHT_CELL = (5, 9)

    def __init__(self, config: RadiographNetConfig, centres, spots, gains) -> None:
        super().__init__()
        self.config = config
        self.centres = torch.tensor(centres, dtype=torch.float32)[None]
        self.gains = nn.Parameter(torch.tensor(gains, dtype=torch.float32))
        millimetres = ((torch.arange(config.size) + 0.5) / config.size - 0.5) * config.field_mm
        discs = [
            ((millimetres[:, None] - y) ** 2 + (millimetres - x) ** 2 < (self.SPOT_MM / 2) ** 2).float()
            for y, x in spots
        ]
        self.discs = torch.stack([disc / disc.sum() for disc in discs])

    def locate(self, views: torch.Tensor) -> torch.Tensor:
        return self.centres.expand(len(views), -1, -1)

    def crop(self, views: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        return cut_out(views, centres.floor() + 0.5, self.config.size)

    def forward(self, x: torch.Tensor, crops: bool = False, evidence: bool = False):
        squares = x if crops else self.crop(x, self.locate(x))
        logits = self.gains * (squares.mean(1)[:, None] * self.discs).sum((2, 3))
        odds = torch.full((*squares.shape[:2], 2, self.config.size // 4, self.config.size // 4), -20.0)
        row, column = self.BRIGHT_CELL
        odds[..., row, column] = 20.0
        return (logits, odds) if evidence else logits


def spot_model(
    centres=((532.0, 470.0),), spots=((0, 0), (-20, 0), (0, 25)), gains=(1.0, 1.0, 1.0), views=("PA",), fit=None
) -> LoadedModel:
    config = RadiographNetConfig(views=views, size=160)
    network = SpotBrightness(config, centres, spots, gains)
    return LoadedModel(card_for(config, fit=fit), network.eval())
