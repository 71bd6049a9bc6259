"""The lesion network, which names what a lesion is: an artery's calcium, other calcium, a device, or noise.

A small residual network. Features are pooled over the whole patch and over the lesion itself, so that a speck and its
surroundings both count.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .configs import LESION_IMAGES, LESION_KINDS, LESION_TERRITORIES, TERRITORY_STRIDE, LesionNetConfig


class LesionNet(nn.Module):
    """Network that names lesions.

    Input [B, 14, k, j, i] (`scoring.lesion_network.network_input`). Output [B, kinds]: probability of each of
    LESION_KINDS.
    """

    input_channels = LESION_IMAGES + LESION_TERRITORIES

    def __init__(self, config: LesionNetConfig) -> None:
        super().__init__()
        w = config.width
        self.stem = _layer(LESION_IMAGES, w, (3, 5, 5), 2)
        self.fine = _Residual(w)
        self.down = _layer(w, 2 * w, 3, (1, 2, 2))
        self.joined = _layer(2 * w + LESION_TERRITORIES, 2 * w, 3, 1)
        self.middle = _Residual(2 * w)
        self.lower = nn.Sequential(_layer(2 * w, 4 * w, 3, 2), _Residual(4 * w))
        self.lowest = nn.Sequential(_layer(4 * w, 6 * w, 3, 2), _Residual(6 * w))
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(2 * w + 4 * w + 2 * 6 * w + LESION_TERRITORIES, 4 * w)
        self.last = nn.Linear(4 * w, len(LESION_KINDS))

    def forward(self, x: torch.Tensor, logits: bool = False) -> torch.Tensor:
        images = x[:, :LESION_IMAGES]
        territories = functional.avg_pool3d(x[:, LESION_IMAGES:], TERRITORY_STRIDE)
        mask = functional.avg_pool3d(x[:, LESION_IMAGES - 1 : LESION_IMAGES], TERRITORY_STRIDE)
        mask = mask / (mask.sum((2, 3, 4), keepdim=True) + 1e-6)
        middle = self.middle(self.joined(torch.cat([self.down(self.fine(self.stem(images))), territories], 1)))
        lower = self.lower(middle)
        lowest = self.lowest(lower)
        pooled = [
            (middle * mask).sum((2, 3, 4)),
            lower.mean((2, 3, 4)),
            lowest.mean((2, 3, 4)),
            lowest.amax((2, 3, 4)),
            (territories * mask).sum((2, 3, 4)),
        ]
        hidden = functional.relu(self.dense(self.dropout(torch.cat(pooled, 1))))
        z = self.last(self.dropout(hidden)).float()
        return z if logits else torch.softmax(z, 1)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _layer(channels, channels, 3, 1)
        self.second = nn.Sequential(nn.Conv3d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm3d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + self.second(self.first(x)))


_Sides = int | tuple[int, int, int]


def _layer(inputs: int, outputs: int, kernel: _Sides, stride: _Sides) -> nn.Sequential:
    k, j, i = (kernel, kernel, kernel) if isinstance(kernel, int) else kernel
    convolution = nn.Conv3d(inputs, outputs, (k, j, i), stride, (k // 2, j // 2, i // 2), bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
