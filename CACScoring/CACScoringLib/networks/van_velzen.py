"""The networks of van Velzen et al., "Generative models for reproducible coronary calcium scoring", table 2.

`SliceClassifier` classifies slices with calcium, and `Generator` gives the calcium map of a slice. `PatchDiscriminator`
is needed in training only. The defaults of their configurations are the paper's values. `territories.TerritoryNet`
replaces the paper's network for the heart.

`forward(x)` ends with the last activation of table 2; `forward(x, logits=True)` omits it, for losses.

Choices where table 2 is silent:
- No convolution before a batch normalisation has a bias (the normalisation's shift replaces it); last layers have one.
- A residual block is two 3×3 convolutions, each batch-normalised, the first with ReLU; the sum is not rectified, as in
  the CycleGAN that the paper builds on ("2 convolution layer pairs" is read as two convolution-normalisation pairs).
- Transposed convolutions are padded with zeros, because reflection is not defined for them; they double the size.
- Every layer but the last has batch normalisation and ReLU, also the one before the last.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .configs import (
    STRIDE,
    DiscriminatorConfig,
    GeneratorConfig,
    SliceClassifierConfig,
    SliceSuperResolutionConfig,
    input_channels,
)


class SliceClassifier(nn.Module):
    """Network that detects calcium in a slice: table 2, middle.

    Input [B, C, j, i] (`preprocessing.slice_input`), published size 224×224. Output [B, 2]: no calcium, calcium.
    With `features`, also returns those before pooling, [B, 4 width, j / 4, i / 4].
    """

    def __init__(self, config: SliceClassifierConfig) -> None:
        super().__init__()
        w = config.width
        self.pooling = config.pooling
        self.features = nn.Sequential(
            *_convolution(input_channels(config), w, 7, 1),
            *_convolution(w, 2 * w, 3, 2),
            *_convolution(2 * w, 4 * w, 3, 2),
            *(_Residual(lambda: _convolution(4 * w, 4 * w, 3, 1)) for _ in range(config.residual_blocks)),
        )
        self.dense = nn.Linear(4 * w if config.pooling == "average" else 8 * w, 2)

    def forward(
        self, x: torch.Tensor, logits: bool = False, features: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        _check_size(x)
        f = self.features(x)
        pooled = f.mean((2, 3))
        if self.pooling == "average+max":
            pooled = torch.cat([pooled, f.amax((2, 3))], 1)
        z = self.dense(pooled).float()
        z = z if logits else torch.softmax(z, 1)
        return (z, f) if features else z


class Generator(nn.Module):
    """Network that computes the calcium map of a slice, to be subtracted or added: table 2, right.

    Input [B, C, j, i] (`preprocessing.slice_input`), published size 224×224. Output [B, 1, j, i], 0 to 1 for 0 to
    1000 HU. Table 2 writes the last layer as 7×7×7, which a two-dimensional network cannot hold: it is 7×7.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        w = config.width
        self.skips = config.skips
        up = _resized if config.upsampling == "resize" else _transposed
        self.first = nn.Sequential(*_convolution(input_channels(config), w, 7, 1))
        self.second = nn.Sequential(*_convolution(w, 2 * w, 3, 2))
        self.third = nn.Sequential(
            *_convolution(2 * w, 4 * w, 3, 2),
            *(_Residual(lambda: _convolution(4 * w, 4 * w, 3, 1)) for _ in range(config.residual_blocks)),
        )
        self.up_second = nn.Sequential(*up(4 * w, 2 * w))
        self.up_first = nn.Sequential(*up(2 * w, w))
        self.last = nn.Conv2d(w, 1, 7, padding=3, padding_mode="reflect")

    def forward(self, x: torch.Tensor, logits: bool = False) -> torch.Tensor:
        _check_size(x)
        full = self.first(x)
        half = self.second(full)
        up = self.up_second(self.third(half))
        up = self.up_first(up + half if self.skips else up)
        z = self.last(up + full if self.skips else up)
        return z if logits else torch.sigmoid(z)


class PatchDiscriminator(nn.Module):
    """Network that tells real images from synthetic ones: the 70×70 PatchGAN of Isola et al. 2017, cited by the paper.

    Input [B, 1, j, i]. Output [B], the logit that the image is real; with `by_patch` [B, patches], that of each patch.
    As the paper says, the patches' responses are averaged; they are averaged before the sigmoid. Padding is with zeros
    and the first layer is not normalised, as in Isola. With stem_stride 1 a full-resolution 5×5 layer comes first and
    is normalised.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        w = config.width
        self.pooling = config.pooling
        if config.stem_stride == 1:
            stem = [*_patch_layer(1, w, 5, 1, 2), *_patch_layer(w, 2 * w, 4, 2, 1)]
            body = [*_patch_layer(2 * w, 4 * w, 4, 2, 1), *_patch_layer(4 * w, 4 * w, 4, 2, 1)]
            channels = 4 * w
        else:
            stem = [nn.Conv2d(1, w, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), *_patch_layer(w, 2 * w, 4, 2, 1)]
            body = [*_patch_layer(2 * w, 4 * w, 4, 2, 1), *_patch_layer(4 * w, 8 * w, 4, 1, 1)]
            channels = 8 * w
        self.patches = nn.Sequential(*stem, *body, nn.Conv2d(channels, 1, 4, 1, 1))

    def forward(self, x: torch.Tensor, by_patch: bool = False) -> torch.Tensor:
        z = self.patches(x).flatten(1).float()
        if by_patch:
            return z
        extreme = {"average": 0.0, "average+max": z.amax(1), "average+min": z.amin(1)}[self.pooling]
        return z.mean(1) + extreme


class SliceSuperResolution(nn.Module):
    """Residual between interpolated thick slices and thin ones; not part of the paper.

    Input [B, 2 neighbours + 1, j, i]: a thick slice amid its neighbours, from below. Output [B, factor, j, i], in the
    same unit: to be added to the interpolated thin slices that lie within the thick one. At first it is 0.
    """

    def __init__(self, config: SliceSuperResolutionConfig) -> None:
        super().__init__()
        w = config.width
        self.middle = config.neighbours
        layers: list[nn.Module] = []
        for inputs in [2 * config.neighbours + 1, *[w] * config.layers]:
            layers += [nn.Conv2d(inputs, w, 3, padding=1), nn.ReLU(inplace=True)]
        last = nn.Conv2d(w, config.factor, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Thin slices differ from thick ones by how these differ from each other, little beside their own values.
        middle = x[:, self.middle : self.middle + 1]
        neighbours = torch.cat([x[:, : self.middle], x[:, self.middle + 1 :]], 1)
        return self.layers(torch.cat([middle, neighbours - middle], 1))


class _Residual(nn.Module):
    def __init__(self, layer: Callable[[], list[nn.Module]]) -> None:
        super().__init__()
        convolution, norm, activation = layer()
        second_convolution, second_norm, _ = layer()
        self.layers = nn.Sequential(convolution, norm, activation, second_convolution, second_norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    padding = kernel // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, padding_mode="reflect", bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _transposed(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _resized(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), *_convolution(inputs, outputs, 3, 1)]


def _patch_layer(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]


def _check_size(x: torch.Tensor) -> None:
    if any(side % STRIDE for side in x.shape[2:]):
        sides = "×".join(map(str, x.shape[2:]))
        raise ValueError(f"The input's sides, {sides}, have to be multiples of {STRIDE}. Pad or crop it.")
