"""Configurations of the networks that score a scan and of those that train with them; read without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

POSITION_CHANNELS = 3

STRIDE = 4
"""Sides of the input of `van_velzen`'s networks must be multiples of this, because they halve them twice."""


@dataclass(frozen=True)
class HeartNetConfig:
    """width: channels of the first layer. residual_blocks: blocks at a quarter of the size."""

    width: int = 16
    residual_blocks: int = 9


@dataclass(frozen=True)
class SliceClassifierConfig:
    """pooling: "average" as published, or "average+max", which sees lesions of one or two pixels much earlier.

    neighbours: slices on either side given as further channels. position: give the place in the heart's frame too.
    size: side of the square around the heart's centre that it sees, pixels.
    """

    width: int = 64
    residual_blocks: int = 6
    pooling: str = "average"
    neighbours: int = 0
    position: bool = False
    size: int = 224

    def __post_init__(self) -> None:
        _check_choice("pooling", self.pooling, ("average", "average+max"))


@dataclass(frozen=True)
class GeneratorConfig:
    """upsampling: "transposed" as published, or "resize" (nearest neighbour, then convolution: no checkerboard).

    skips: add the features of the way down to those of the way up, which keeps small lesions sharp.
    neighbours, position: as in `SliceClassifierConfig`.
    """

    width: int = 64
    residual_blocks: int = 6
    upsampling: str = "transposed"
    skips: bool = False
    neighbours: int = 0
    position: bool = False

    def __post_init__(self) -> None:
        _check_choice("upsampling", self.upsampling, ("transposed", "resize"))


@dataclass(frozen=True)
class DiscriminatorConfig:
    """stem_stride: 2 as published; 1 adds a normalised full-resolution stem, so that single pixels are seen.

    pooling: patch logits are averaged as published ("average"). "average+max" adds the highest one, for telling
    images with calcium from synthetic ones; "average+min" the lowest, for images without calcium, where one patch that
    shows calcium gives the image away.
    """

    width: int = 64
    stem_stride: int = 2
    pooling: str = "average"

    def __post_init__(self) -> None:
        _check_choice("pooling", self.pooling, ("average", "average+max", "average+min"))
        _check_choice("stem_stride", self.stem_stride, (1, 2))


@dataclass(frozen=True)
class SliceSuperResolutionConfig:
    """factor: thin slices made of each thick one. neighbours: thick slices on either side that it sees.

    width: channels. layers: convolutions between the first and the last.
    """

    factor: int = 3
    neighbours: int = 2
    width: int = 16
    layers: int = 3


@dataclass(frozen=True)
class TerritoryNetConfig:
    """width: channels at full size; twice as many at each of the three levels below. blocks: at the lowest level."""

    width: int = 12
    blocks: int = 2


SCORING_CONFIGS: dict[str, type] = {
    "heart": HeartNetConfig,
    "territories": TerritoryNetConfig,
    "slices": SliceClassifierConfig,
    "decomposition": GeneratorConfig,
}
"""Configuration of each network that scores a scan; processors run them in OpenVINO."""


def input_channels(config: SliceClassifierConfig | GeneratorConfig) -> int:
    """Channels of a 2-D network's input: the slice, its neighbours, its position."""
    return 1 + 2 * config.neighbours + POSITION_CHANNELS * config.position


def _check_choice(name: str, value: object, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it has to be one of {', '.join(map(repr, choices))}.")
