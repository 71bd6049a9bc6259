"""The radiomics model that scoring uses: a logistic regression on named features, stored as other networks are.

Its output are log-odds that a scan shows coronary calcium. Each feature contributes its standardised value times its
weight, which a report can list.
"""

from __future__ import annotations

import torch
from torch import nn

from .configs import RadiomicsConfig

MIN_SD = 1e-9

FAR_SD = 5.0
"""Limit of standardised features, lest a single outlying feature decides."""


class RadiomicsNet(nn.Module):
    """Log-odds of calcium [B, 1] from features as measured, [B, f] in the order of `RadiomicsConfig.features`.

    Its state is each feature's mean, sd, lowest and highest value in training, in the feature's unit, its weight, and
    the bias [1]: of one dimension, which a stored model keeps in full precision.
    """

    mean: torch.Tensor
    sd: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor

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
        return ((x - self.mean) / self.sd.clamp(min=MIN_SD)).clamp(-FAR_SD, FAR_SD)

    def contributions(self, x: torch.Tensor) -> torch.Tensor:
        """Each feature's share of the log-odds, [B, f]."""
        return self.standardised(x) * self.weight
