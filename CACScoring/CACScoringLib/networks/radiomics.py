"""The radiomics model that scoring uses: a logistic regression on named features, stored as other networks are.

It gives log-odds that a scan shows coronary calcium. Each feature's share of them is its standardised value times its
weight, so that a report can name what spoke for calcium and what against.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

LEAST_SD = 1e-9

FAR_SD = 5.0
"""Standardised features are limited to it, so that one strange feature does not decide alone."""


@dataclass(frozen=True)
class RadiomicsConfig:
    """features: names, in the order of the network's input; see `radiomics.radiomic_features`, which computes more.

    heart_mm: sides of the voxels on which the heart's features are computed. bin_width_hu: of intensities, in all
    features of histograms and textures. low_hu, high_hu: what the heart's features are limited to; lung and metal at
    its border would otherwise fill them.
    """

    features: tuple[str, ...] = ()
    heart_mm: float = 2.5
    bin_width_hu: float = 25.0
    low_hu: float = -200.0
    high_hu: float = 1000.0

    def __post_init__(self) -> None:
        # A card's list becomes a tuple again, so that a configuration read back equals the one written.
        object.__setattr__(self, "features", tuple(self.features))
        if len(set(self.features)) < len(self.features):
            raise ValueError("A feature is named twice among the features.")
        if not self.heart_mm > 0 or not self.bin_width_hu > 0 or not self.low_hu < self.high_hu:
            raise ValueError("heart_mm and bin_width_hu have to be above 0, and low_hu below high_hu.")


class RadiomicsNet(nn.Module):
    """Log-odds of calcium [B, 1] from features as measured, [B, f] in the order of `RadiomicsConfig.features`.

    mean, sd, lowest, highest: of each feature in training, [f], in its own unit. weight [f], bias [1]. They have one
    dimension, so that a stored model keeps them in full precision.
    """

    def __init__(self, config: RadiomicsConfig) -> None:
        super().__init__()
        count = len(config.features)
        for name, value in (("mean", 0.0), ("sd", 1.0), ("lowest", -1.0), ("highest", 1.0)):
            self.register_buffer(name, torch.full((count,), value))
        self.weight = nn.Parameter(torch.zeros(count))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.contributions(x).sum(1, keepdim=True) + self.bias

    def standardised(self, x: torch.Tensor) -> torch.Tensor:
        """Features less their mean, by their standard deviation in training, limited to FAR_SD: [B, f]."""
        if x.ndim != 2 or x.shape[1] != len(self.weight):
            raise ValueError(f"Input of shape {tuple(x.shape)} does not hold {len(self.weight)} features.")
        return ((x - self.mean) / self.sd.clamp(min=LEAST_SD)).clamp(-FAR_SD, FAR_SD)

    def contributions(self, x: torch.Tensor) -> torch.Tensor:
        """Each feature's share of the log-odds, [B, f]."""
        return self.standardised(x) * self.weight
