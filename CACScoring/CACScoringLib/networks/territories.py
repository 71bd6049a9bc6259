"""The network that outlines the heart, and names the artery, valve or vessel to which each place around it belongs.

A small U-Net on voxels of 3 mm. Its features are normalised per sample, because scans differ in brightness, noise and
in how much air and lung their field of view holds; on the way up they are added to those of the way down.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from ..core.labels import TERRITORIES
from .configs import TerritoryNetConfig

INPUTS = 2
STRIDE = 8
"""Sides of the input must be multiples of this."""


class TerritoryNet(nn.Module):
    """Heart and territories.

    Input [B, 2, k, j, i] (`preprocessing.territory_input`), patch 64×64×64. Output [B, 12, k, j, i]: the
    probability of heart, then those of TERRITORIES, which add up to 1.
    """

    def __init__(self, config: TerritoryNetConfig) -> None:
        super().__init__()
        w = config.width
        widths = (w, 2 * w, 4 * w, 8 * w)
        self.first = _layer(INPUTS, w)
        self.down = nn.ModuleList(
            nn.Sequential(*_layer(a, b, stride=2), *_layer(b, b)) for a, b in itertools.pairwise(widths)
        )
        self.lowest = nn.ModuleList(nn.Sequential(*_layer(8 * w, 8 * w)) for _ in range(config.blocks))
        self.widen = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(_layer(a, a) for a in widths[:-1])
        self.last = nn.Conv3d(w, 1 + len(TERRITORIES), 1)

    def forward(self, x: torch.Tensor, logits: bool = False) -> torch.Tensor:
        if any(n % STRIDE for n in x.shape[2:]):
            raise ValueError(f"Sides of {tuple(x.shape[2:])} are not multiples of {STRIDE}. Pad them.")
        *levels, y = self.features(x)
        for widen, up, skip in zip(reversed(self.widen), reversed(self.up), reversed(levels), strict=True):
            y = up(widen(y) + skip)
        z = self.last(y).float()
        return z if logits else torch.cat([torch.sigmoid(z[:, :1]), torch.softmax(z[:, 1:], 1)], 1)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features on the way down, at full size first, at 1/STRIDE of it last [B, 8 width, k, j, i]."""
        levels = [self.first(x)]
        for layer in self.down:
            levels.append(layer(levels[-1]))
        for block in self.lowest:
            levels[-1] = levels[-1] + block(levels[-1])
        return levels


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01, inplace=True))
