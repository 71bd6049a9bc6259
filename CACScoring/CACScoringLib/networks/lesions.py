"""Networks that name what is dense: an artery's calcium, other calcium, a device, or noise.

`LesionNet`, a small residual network, names a lesion: features are pooled over the whole patch and over the lesion
itself, so that a speck and its surroundings both count. `LesionVoxelNet` leads the same features back to the patch's
grid, and names each voxel.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .configs import LESION_IMAGES, LESION_KINDS, LESION_TERRITORIES, TERRITORY_STRIDE, LesionNetConfig


class _Encoder(nn.Module):
    """Features of a patch on four grids.

    Args:
        width: Channels of the finest.
        images: Channels of the patch's grid, which come first.
        context: Channels that join at TERRITORY_STRIDE.
    """

    def __init__(self, width: int, images: int, context: int) -> None:
        super().__init__()
        w, self.images = width, images
        self.stem = _layer(images, w, (3, 5, 5), 2)
        self.fine = _Residual(w)
        self.down = _layer(w, 2 * w, 3, (1, 2, 2))
        self.joined = _layer(2 * w + context, 2 * w, 3, 1)
        self.middle = _Residual(2 * w)
        self.lower = nn.Sequential(_layer(2 * w, 4 * w, 3, 2), _Residual(4 * w))
        self.lowest = nn.Sequential(_layer(4 * w, 6 * w, 3, 2), _Residual(6 * w))

    def features(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the context, and the features from the finest to the lowest grid."""
        context = functional.avg_pool3d(x[:, self.images :], TERRITORY_STRIDE)
        fine = self.fine(self.stem(x[:, : self.images]))
        middle = self.middle(self.joined(torch.cat([self.down(fine), context], 1)))
        lower = self.lower(middle)
        return context, fine, middle, lower, self.lowest(lower)


class LesionNet(_Encoder):
    """Network that names lesions.

    Input [B, 14, k, j, i] (`scoring.lesion_network.network_input`). Output [B, kinds]: probability of each of
    LESION_KINDS.
    """

    input_channels = LESION_IMAGES + LESION_TERRITORIES

    def __init__(self, config: LesionNetConfig) -> None:
        w = config.width
        super().__init__(w, LESION_IMAGES, LESION_TERRITORIES)
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(2 * w + 4 * w + 2 * 6 * w + LESION_TERRITORIES, 4 * w)
        self.last = nn.Linear(4 * w, len(LESION_KINDS))

    def forward(self, x: torch.Tensor, logits: bool = False) -> torch.Tensor:
        territories, _, middle, lower, lowest = self.features(x)
        mask = functional.avg_pool3d(x[:, LESION_IMAGES - 1 : LESION_IMAGES], TERRITORY_STRIDE)
        mask = mask / (mask.sum((2, 3, 4), keepdim=True) + 1e-6)
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


class LesionVoxelNet(_Encoder):
    """Network that names every voxel of a patch.

    Input [B, 16, k, j, i] (`scoring.lesion_voxels.voxel_input`). Output [B, kinds, k, j, i]: probability of each of
    LESION_KINDS, of use where something is dense.
    """

    input_channels = 1 + LESION_IMAGES + LESION_TERRITORIES + 1

    def __init__(self, config: LesionNetConfig) -> None:
        w = config.width
        super().__init__(w, 1 + LESION_IMAGES, LESION_TERRITORIES + 1)
        self.dropout = nn.Dropout3d(config.dropout)
        self.from_lowest = _layer(6 * w + 4 * w, 4 * w, 3, 1)
        self.from_lower = _layer(4 * w + 2 * w, 2 * w, 3, 1)
        self.from_middle = _layer(2 * w + w, w, 3, 1)
        self.from_fine = _layer(w + self.images, w, (1, 3, 3), 1)
        self.last = nn.Conv3d(w, len(LESION_KINDS), 1)

    def forward(self, x: torch.Tensor, voxels: torch.Tensor | None = None) -> torch.Tensor:
        """Return the probabilities, or the logits [n, kinds] of the voxels in a mask, bool [B, k, j, i]."""
        y = self._on_grid(x)
        if voxels is None:
            return torch.softmax(self.last(y).float(), 1)
        return functional.linear(y.movedim(1, -1)[voxels], self.last.weight[..., 0, 0, 0], self.last.bias).float()

    def _on_grid(self, x: torch.Tensor) -> torch.Tensor:
        """Return features on the patch's grid, [B, width, k, j, i]."""
        _, fine, middle, lower, lowest = self.features(x)
        y = self.from_lowest(torch.cat([_enlarged(self.dropout(lowest), 2), lower], 1))
        y = self.from_lower(torch.cat([_enlarged(y, 2), middle], 1))
        y = self.from_middle(torch.cat([_enlarged(y, (1, 2, 2)), fine], 1))
        return self.from_fine(torch.cat([_enlarged(y, 2), x[:, : self.images]], 1))

    def begin_from(self, network: LesionNet) -> None:
        """Take the encoder's weights of a lesion network; metal and noise, new to it, begin without any."""
        weights = network.state_dict()
        for name, sides in (("stem.0.weight", (1, 0)), ("joined.0.weight", (0, 1))):
            weights[name] = functional.pad(weights[name], (0, 0, 0, 0, 0, 0, *sides))
        layers = ("stem", "fine", "down", "joined", "middle", "lower", "lowest")
        encoder = {key: value for key, value in weights.items() if key.split(".")[0] in layers}
        self.load_state_dict(self.state_dict() | encoder)


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
