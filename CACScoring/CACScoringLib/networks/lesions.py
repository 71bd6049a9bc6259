"""Network that names every voxel of a patch: an artery's calcium, other calcium, a device, or noise.

A small residual network on four grids; its features are led back to the patch's own, so that a speck and its
surroundings both count.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .configs import LESION_IMAGES, LESION_KINDS, LESION_TERRITORIES, TERRITORY_STRIDE, LesionNetConfig


class LesionNet(nn.Module):
    """Network that names what is dense.

    Input [B, 16, k, j, i] (`scoring.lesion_network.network_input`). Output [B, kinds, k, j, i]: probability of each of
    LESION_KINDS, of use where something is dense.
    """

    input_channels = LESION_IMAGES + LESION_TERRITORIES + 1

    def __init__(self, config: LesionNetConfig) -> None:
        super().__init__()
        w = config.width
        self.stem = _layer(LESION_IMAGES, w, (3, 5, 5), 2)
        self.fine = _Residual(w)
        self.down = _layer(w, 2 * w, 3, (1, 2, 2))
        self.joined = _layer(2 * w + LESION_TERRITORIES + 1, 2 * w, 3, 1)
        self.middle = _Residual(2 * w)
        self.lower = nn.Sequential(_layer(2 * w, 4 * w, 3, 2), _Residual(4 * w))
        self.lowest = nn.Sequential(_layer(4 * w, 6 * w, 3, 2), _Residual(6 * w))
        self.dropout = nn.Dropout3d(config.dropout)
        self.from_lowest = _layer(6 * w + 4 * w, 4 * w, 3, 1)
        self.from_lower = _layer(4 * w + 2 * w, 2 * w, 3, 1)
        self.from_middle = _layer(2 * w + w, w, 3, 1)
        self.from_fine = _layer(w + LESION_IMAGES, w, (1, 3, 3), 1)
        self.last = nn.Conv3d(w, len(LESION_KINDS), 1)

    def forward(self, x: torch.Tensor, voxels: torch.Tensor | None = None) -> torch.Tensor:
        """Return the probabilities, or the logits [n, kinds] of the voxels in a mask, bool [B, k, j, i]."""
        y = self._features(x)
        if voxels is None:
            return torch.softmax(self.last(y).float(), 1)
        return functional.linear(y.movedim(1, -1)[voxels], self.last.weight[..., 0, 0, 0], self.last.bias).float()

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        """Return features on the patch's grid, [B, width, k, j, i]."""
        context = functional.avg_pool3d(x[:, LESION_IMAGES:], TERRITORY_STRIDE)
        fine = self.fine(self.stem(x[:, :LESION_IMAGES]))
        middle = self.middle(self.joined(torch.cat([self.down(fine), context], 1)))
        lower = self.lower(middle)
        y = self.from_lowest(torch.cat([_enlarged(self.dropout(self.lowest(lower)), 2), lower], 1))
        y = self.from_lower(torch.cat([_enlarged(y, 2), middle], 1))
        y = self.from_middle(torch.cat([_enlarged(y, (1, 2, 2)), fine], 1))
        return self.from_fine(torch.cat([_enlarged(y, 2), x[:, :LESION_IMAGES]], 1))


def _enlarged(x: torch.Tensor, factor: int | tuple[int, int, int]) -> torch.Tensor:
    scale = (factor,) * 3 if isinstance(factor, int) else factor
    size = [n * f for n, f in zip(x.shape[2:], scale, strict=True)]
    return functional.interpolate(x, size, mode="trilinear", align_corners=False)


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
