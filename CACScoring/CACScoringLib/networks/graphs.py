"""The networks that score a scan as OpenVINO graphs, made from their weights without PyTorch.

Processors run these faster than PyTorch does. They are the same functions as the modules in `van_velzen`
and `territories`, which are for training and for GPUs. Batch normalisation is put into the convolution before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np

from ..core.labels import TERRITORIES
from .configs import GeneratorConfig, HeartNetConfig, SliceClassifierConfig, TerritoryNetConfig, input_channels
from .openvino_runtime import ops, ov

BATCH_NORM_EPSILON = INSTANCE_NORM_EPSILON = 1e-5
"""PyTorch's."""

LEAKY_SLOPE = 0.01


class WeightsError(ValueError):
    """Weights are missing, left over or of another shape than the configuration says."""


class _Weights:
    """The weights of a network, each checked when it is taken."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self._left = dict(tensors)

    def take(self, name: str, *shape: int) -> np.ndarray:
        """One of them as float32. Raises WeightsError where it is missing or of another shape."""
        tensor = self._left.pop(name, None)
        if tensor is None or tensor.shape != shape:
            there = "missing" if tensor is None else f"of shape {tensor.shape}"
            raise WeightsError(f"{name} is {there} instead of {shape}")
        return np.asarray(tensor, np.float32)

    def check_all_are_taken(self) -> None:
        """Raise WeightsError where some are left."""
        left = [name for name in self._left if not name.endswith("num_batches_tracked")]
        if left:
            raise WeightsError(f"{left[0]} belongs to no layer")


def heart(config: HeartNetConfig, weights: _Weights) -> ov.Model:
    """The graph of `van_velzen.HeartNet`: [?, 1, 64, 64, 64] to [?, 2, 64, 64, 64]."""
    w = config.width
    x = y = ops.parameter([-1, 1, -1, -1, -1], np.float32)
    for n, (inputs, outputs, kernel, stride) in enumerate(((1, w, 7, 1), (w, 2 * w, 3, 2), (2 * w, 4 * w, 3, 2))):
        y = ops.relu(_normalised(weights, f"layers.{3 * n}", y, (outputs, inputs, *(kernel,) * 3), stride, "constant"))
    for n in range(config.residual_blocks):
        y = _residual(weights, f"layers.{9 + n}", y, (4 * w, 4 * w, 3, 3, 3), "constant")
    n = 9 + config.residual_blocks
    y = ops.relu(_transposed(weights, f"layers.{n}", y, (4 * w, 2 * w, 3, 3, 3)))
    y = ops.relu(_transposed(weights, f"layers.{n + 3}", y, (2 * w, w, 3, 3, 3)))
    y = _biased(weights, f"layers.{n + 6}", y, (2, w, 7, 7, 7), "constant")
    return ov.Model([ops.sigmoid(y)], [x])


def slices(config: SliceClassifierConfig, weights: _Weights) -> ov.Model:
    """The graph of `van_velzen.SliceClassifier`: [?, C, size, size] to [?, 2]."""
    w = config.width
    x = ops.parameter([-1, input_channels(config), -1, -1], np.float32)
    y = _encoded(weights, ("features.0", "features.3", "features.6"), x, input_channels(config), w)[-1]
    for n in range(config.residual_blocks):
        y = _residual(weights, f"features.{9 + n}", y, (4 * w, 4 * w, 3, 3), "reflect")
    pooled = ops.reduce_mean(y, [2, 3], False)
    if config.pooling == "average+max":
        pooled = ops.concat([pooled, ops.reduce_max(y, [2, 3], False)], 1)
    dense = weights.take("dense.weight", 2, 4 * w if config.pooling == "average" else 8 * w)
    z = ops.matmul(pooled, dense, False, True) + weights.take("dense.bias", 2)
    return ov.Model([ops.softmax(z, 1)], [x])


def generator(config: GeneratorConfig, weights: _Weights) -> ov.Model:
    """The graph of `van_velzen.Generator`: [?, C, j, i] to [?, 1, j, i]."""
    w = config.width
    x = ops.parameter([-1, input_channels(config), -1, -1], np.float32)
    full, half, y = _encoded(weights, ("first.0", "second.0", "third.0"), x, input_channels(config), w)
    for n in range(config.residual_blocks):
        y = _residual(weights, f"third.{3 + n}", y, (4 * w, 4 * w, 3, 3), "reflect")
    for name, size, beside in (("up_second", 2 * w, half), ("up_first", w, full)):
        if config.upsampling == "resize":
            y = _normalised(weights, f"{name}.1", _doubled(y), (size, 2 * size, 3, 3), 1, "reflect")
        else:
            y = _transposed(weights, f"{name}.0", y, (2 * size, size, 3, 3))
        y = ops.relu(y)
        y = y + beside if config.skips else y
    return ov.Model([ops.sigmoid(_biased(weights, "last", y, (1, w, 7, 7), "reflect"))], [x])


def territories(config: TerritoryNetConfig, weights: _Weights) -> ov.Model:
    """The graph of `territories.TerritoryNet`: [?, 2, 64, 64, 64] to [?, 12, 64, 64, 64]."""
    widths = [config.width * 2**level for level in range(4)]
    x = ops.parameter([-1, 2, -1, -1, -1], np.float32)
    levels = [_instance_normalised(weights, "first.0", x, (widths[0], 2))]
    for level, (finer, coarser) in enumerate(itertools.pairwise(widths)):
        y = _instance_normalised(weights, f"down.{level}.0", levels[-1], (coarser, finer), 2)
        levels.append(_instance_normalised(weights, f"down.{level}.3", y, (coarser, coarser)))
    y = levels.pop()
    for block in range(config.blocks):
        y = y + _instance_normalised(weights, f"lowest.{block}.0", y, (widths[3], widths[3]))
    for level in (2, 1, 0):
        finer, coarser = widths[level], widths[level + 1]
        kernel = weights.take(f"widen.{level}.weight", coarser, finer, 2, 2, 2)
        y = ops.convolution_backprop_data(y, kernel, [2] * 3)
        y = y + _per_channel(weights.take(f"widen.{level}.bias", finer), 3) + levels[level]
        y = _instance_normalised(weights, f"up.{level}.0", y, (finer, finer))
    outputs = 1 + len(TERRITORIES)
    y = ops.convolution(y, weights.take("last.weight", outputs, widths[0], 1, 1, 1), *_plain(3))
    y = y + _per_channel(weights.take("last.bias", outputs), 3)
    is_heart, labels = ops.variadic_split(y, 1, [1, outputs - 1]).outputs()
    return ov.Model([ops.concat([ops.sigmoid(is_heart), ops.softmax(labels, 1)], 1)], [x])


GRAPHS: dict[str, tuple[type, Callable[..., ov.Model]]] = {
    "heart": (HeartNetConfig, heart),
    "slices": (SliceClassifierConfig, slices),
    "decomposition": (GeneratorConfig, generator),
    "territories": (TerritoryNetConfig, territories),
}
"""Configuration and graph of each network that scores a scan."""


def graph_of(
    config: HeartNetConfig | SliceClassifierConfig | GeneratorConfig | TerritoryNetConfig,
    tensors: Mapping[str, np.ndarray],
) -> ov.Model:
    """The graph of a network.

    Args:
        config: Its configuration.
        tensors: Its weights by their names in the module's state.

    Raises:
        WeightsError: The weights do not fit the configuration.
    """
    build = next(build for kind, build in GRAPHS.values() if isinstance(config, kind))
    weights = _Weights(tensors)
    graph = build(config, weights)
    weights.check_all_are_taken()
    return graph


def _encoded(weights: _Weights, names: tuple[str, str, str], x: ov.Node, channels: int, w: int) -> list[ov.Node]:
    """Features at full, half and quarter size."""
    levels = [x]
    for name, inputs, outputs, kernel in zip(names, (channels, w, 2 * w), (w, 2 * w, 4 * w), (7, 3, 3), strict=True):
        stride = 1 if len(levels) == 1 else 2
        shape = (outputs, inputs, kernel, kernel)
        levels.append(ops.relu(_normalised(weights, name, levels[-1], shape, stride, "reflect")))
    return levels[1:]


def _residual(weights: _Weights, name: str, x: ov.Node, shape: tuple[int, ...], padding: str) -> ov.Node:
    y = ops.relu(_normalised(weights, f"{name}.layers.0", x, shape, 1, padding))
    return x + _normalised(weights, f"{name}.layers.3", y, shape, 1, padding)


def _normalised(weights: _Weights, name: str, x: ov.Node, shape: tuple[int, ...], stride: int, padding: str) -> ov.Node:
    """A convolution and the batch normalisation after it. shape: [outputs, inputs, kernel…]."""
    kernel = weights.take(f"{name}.weight", *shape)
    scale, shift = _batch_norm(weights, name, shape[0])
    y = _convolved(x, kernel * scale.reshape(-1, *(1,) * (len(shape) - 1)), stride, padding)
    return y + _per_channel(shift, len(shape) - 2)


def _transposed(weights: _Weights, name: str, x: ov.Node, shape: tuple[int, ...]) -> ov.Node:
    """A transposed convolution to twice the size and its batch normalisation. shape: [inputs, outputs, kernel…]."""
    sides = len(shape) - 2
    kernel = weights.take(f"{name}.weight", *shape)
    scale, shift = _batch_norm(weights, name, shape[1])
    kernel = kernel * scale.reshape(1, -1, *(1,) * sides)
    ones = [1] * sides
    y = ops.convolution_backprop_data(x, kernel, [2] * sides, None, ones, ones, ones, output_padding=ones)
    return y + _per_channel(shift, sides)


def _batch_norm(weights: _Weights, convolution: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Factor and summand of the batch normalisation after a convolution."""
    first, _, number = convolution.rpartition(".")
    name = f"{first}.{int(number) + 1}"
    factor, summand, mean, variance = (
        weights.take(f"{name}.{each}", channels) for each in ("weight", "bias", "running_mean", "running_var")
    )
    scale = factor / np.sqrt(variance + np.float32(BATCH_NORM_EPSILON))
    return scale, summand - mean * scale


def _biased(weights: _Weights, name: str, x: ov.Node, shape: tuple[int, ...], padding: str) -> ov.Node:
    """A convolution with a bias."""
    y = _convolved(x, weights.take(f"{name}.weight", *shape), 1, padding)
    return y + _per_channel(weights.take(f"{name}.bias", shape[0]), len(shape) - 2)


def _convolved(x: ov.Node, kernel: np.ndarray, stride: int, padding: str) -> ov.Node:
    sides = kernel.ndim - 2
    reach = [kernel.shape[-1] // 2] * sides
    if padding == "reflect":
        x = ops.pad(x, [0, 0, *reach], [0, 0, *reach], "reflect")
        reach = [0] * sides
    return ops.convolution(x, kernel, [stride] * sides, reach, reach, [1] * sides)


def _instance_normalised(
    weights: _Weights, name: str, x: ov.Node, channels: tuple[int, int], stride: int = 1
) -> ov.Node:
    """A 3×3×3 convolution, instance normalisation and leaky rectification. channels: outputs, inputs."""
    y = _convolved(x, weights.take(f"{name}.weight", *channels, 3, 3, 3), stride, "constant")
    first, _, number = name.rpartition(".")
    norm = f"{first}.{int(number) + 1}"
    y = ops.mvn(y, [2, 3, 4], True, INSTANCE_NORM_EPSILON, "inside_sqrt")
    factor, summand = (_per_channel(weights.take(f"{norm}.{each}", channels[0]), 3) for each in ("weight", "bias"))
    return ops.prelu(y * factor + summand, np.array([LEAKY_SLOPE], np.float32))


def _doubled(x: ov.Node) -> ov.Node:
    """Twice the size, by the nearest neighbour."""
    return ops.interpolate(
        x, np.array([2, 2], np.float32), "nearest", "scales", axes=[2, 3],
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip


def _plain(sides: int) -> tuple[list[int], ...]:
    """Stride, paddings and dilation of a convolution with a kernel of one voxel."""
    return [1] * sides, [0] * sides, [0] * sides, [1] * sides


def _per_channel(values: np.ndarray, sides: int) -> np.ndarray:
    return values.reshape(1, -1, *(1,) * sides)
