"""Networks that estimate the scores of the four arteries from a stack of slices, without finding lesions.

"cnn", "se-cnn" and "vit" are those of Kecoglu, "Machine Vision Based Scoring of Coronary Calcium": slices are channels.
"voxel-sum" is not from the paper: a small network shared by all slices predicts for each place the density without
calcium and the probability of calcium of each artery. The density above it is summed where calcium is likely, because
calcium adds up. If it sees the territory of each voxel, the artery is the territory's; else the density is shared out
by the probabilities.

What the paper leaves open, and what is done here:
- Convolutions are padded to keep their input's size; those before a batch normalisation have no bias.
- The dense layers have a ReLU between them.
- Tokens of the vision transformer hold 4 × width numbers, as the convolutional network's features do; layers are
  normalised first (pre-norm), with GELU; its head is one layer after a normalisation.
- Scores are normalised by the largest of one artery in the training (`whole_scan.vessels.normalised_scores`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from ..core.labels import ARTERIES
from .configs import VesselNetConfig
from .voxel_sum import Calcium, VoxelSum, convolution


class VesselNet(nn.Module):
    """Scores of ARTERIES, normalised by `largest`: see the module and `VesselNetConfig`.

    largest: Agatston score that 1 stands for, a buffer; set in training (`set_largest`).
    """

    largest: torch.Tensor

    def __init__(self, config: VesselNetConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("largest", torch.tensor(1000.0))
        if config.kind == "voxel-sum":
            self.body: VoxelSum | _VisionTransformer | _Convolutional = VoxelSum(config)
        elif config.kind == "vit":
            self.body = _VisionTransformer(config)
        else:
            self.body = _Convolutional(config)
        self.squeeze = _SqueezeAndExcite(config) if config.kind == "se-cnn" else None

    def set_largest(self, agatston: float) -> None:
        """Set the Agatston score that an output of 1 stands for. Raises ValueError when it is not above 0."""
        if not agatston > 0:
            raise ValueError(f"Scores cannot be normalised by {agatston:g}.")
        self.largest.fill_(agatston)

    def multiply(self, factor: float) -> None:
        """Multiply all scores; "voxel-sum" only."""
        if not isinstance(self.body, VoxelSum):
            raise ValueError(f'The scores of "{self.config.kind}" have no gain; those of "voxel-sum" have.')
        with torch.no_grad():
            self.body.gain.add_(math.log(factor))

    def forward(self, x: torch.Tensor, calcium: Calcium | None = None) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Normalised scores [B, 4] of inputs [B, planes, size, size] (`whole_scan.vessels`).

        calcium: True calcium, in the training of "voxel-sum" only. Scores are then estimated from a sample of places
            and returned with the error there: 0 at best, about 1 if no calcium is recognised.

        Raises ValueError.
        """
        shape = (self.config.planes, self.config.size, self.config.size)
        if x.ndim != 4 or tuple(x.shape[1:]) != shape:
            raise ValueError(f"Input of shape {tuple(x.shape)}; [B, {', '.join(map(str, shape))}] is needed.")
        if not isinstance(self.body, VoxelSum):
            if calcium is not None:
                raise ValueError(f'"{self.config.kind}" has no use for where calcium lies; "voxel-sum" has.')
            return self.body(x if self.squeeze is None else self.squeeze(x)).float()
        y, error = self.body(x, calcium)
        y = y / self.largest if self.config.output == "linear" else torch.log1p(y) / torch.log1p(self.largest)
        return y if calcium is None else (y, error)

    def slice_weights(self, x: torch.Tensor) -> torch.Tensor | None:
        """Squeeze-and-excite weight of each slice, 0 to 1, [B, slices]; None for the other kinds."""
        return None if self.squeeze is None else self.squeeze.weights(x)

    def maps(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return the Agatston score of each voxel and artery, [B, 4, slices, size, size], whose sums are the scores;
        None unless the kind is "voxel-sum"."""
        return self.body.maps(x) if isinstance(self.body, VoxelSum) else None

    def certainty(self, x: torch.Tensor) -> torch.Tensor:
        """Return how certain what is summed is to be coronary calcium, 0 to 1, [B]; 1 without any.

        With territories it is the share of lesions that count of all that may be calcium in the arteries' territories;
        for other "voxel-sum" the mean probability of what is summed; 1 for the kinds that sum nothing.
        """
        return self.body.certainty(x) if isinstance(self.body, VoxelSum) else x.new_ones(len(x))

    def undetermined(self, x: torch.Tensor) -> torch.Tensor:
        """Return the Agatston score of each artery of lesions that may be calcium and are in no score, [B, 4].

        0 for kinds other than "voxel-sum".
        """
        return self.body.undetermined(x) if isinstance(self.body, VoxelSum) else x.new_zeros(len(x), len(ARTERIES))


class Total(nn.Module):
    """Sum of a network's outputs, [B, 1], for its saliency."""

    def __init__(self, network: VesselNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x).sum(1, keepdim=True)


class _SqueezeAndExcite(nn.Module):
    """Squeeze-and-excite layer, equation 2 of the paper."""

    def __init__(self, config: VesselNetConfig) -> None:
        super().__init__()
        hidden = max(1, config.slices // config.reduction)
        self.layers = nn.Sequential(
            nn.Linear(config.slices, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, config.slices), nn.Sigmoid()
        )

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.mean((2, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights(x)[:, :, None, None]


class _Convolutional(nn.Module):
    """Convolutional network, section 4.1 of the paper."""

    def __init__(self, config: VesselNetConfig) -> None:
        super().__init__()
        w = config.width
        self.pooling = config.pooling
        self.layers = nn.Sequential(*_block(config.slices, w), *_block(w, 2 * w), *_block(2 * w, 4 * w))
        features = 4 * w * (2 if config.pooling == "average+max" else 1)
        self.dense = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(features, 4 * w),
            nn.ReLU(inplace=True),
            nn.Linear(4 * w, len(ARTERIES)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.layers(x)
        pooled = f.mean((2, 3))
        if self.pooling == "average+max":
            pooled = torch.cat([pooled, f.amax((2, 3))], 1)
        return self.dense(pooled)


class _VisionTransformer(nn.Module):
    """Vision transformer, section 4.3 of the paper."""

    def __init__(self, config: VesselNetConfig) -> None:
        super().__init__()
        dimension, count = 4 * config.width, (config.size // config.patch) ** 2
        self.patches = nn.Conv2d(config.slices, dimension, config.patch, config.patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dimension))
        self.position = nn.Parameter(0.02 * torch.randn(1, count + 1, dimension))
        layer = nn.TransformerEncoderLayer(
            dimension,
            config.heads,
            config.feed_forward,
            dropout=config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(dimension), nn.Linear(dimension, len(ARTERIES)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.position
        return self.head(self.encoder(tokens)[:, 0])


PAPER = VesselNetConfig()
COMPACT = VesselNetConfig(slices=48, size=128, field="heart", pooling="average+max", output="log", dropout=0.2)
PRESETS = {"paper": PAPER, "compact": COMPACT}
"""Presets by name; `preset` adapts them to a kind of network."""

VOXEL_SUM_WIDTH = 8


def preset(name: str, kind: str) -> VesselNetConfig:
    """A kind of network in the size of a preset. "voxel-sum" has the field "heart" whatever the preset; with "paper"
    its voxels are half as large along each axis as with "compact". Raises KeyError for another name, ValueError for
    another kind."""
    config = PRESETS[name]
    if kind != "voxel-sum":
        return replace(config, kind=kind)
    config = replace(config, kind=kind, field="heart", width=VOXEL_SUM_WIDTH)
    return config if name == "compact" else replace(config, slices=96, size=256, slice_mm=1.5)


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [*convolution(inputs, outputs, 3, 1), nn.MaxPool2d(2)]
