"""The network that recognises coronary calcium on chest radiographs: one or two views, one logit for each threshold.

`RadiographNet` finds the heart on each view and cuts out a square about its centre. A fully convolutional network, the
same for all views, draws the log odds of calcium on every 2 mm of the square; the answer is linear in logarithms of
sums of their odds and probabilities, as the likelihood ratio of calcium at an unknown place is a sum over places. Its
input is the square and details of several sizes: calcium adds a hundredth of what the chest's shape does.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .configs import RadiographNetConfig
from .voxel_sum import convolution

REDUCTION = 8
"""Factor by which views are reduced to find the heart."""

CELL = 4
"""Pixels of the square on a side of a pixel of the evidence."""

_BANDS = ((1, 3, 50.0), (3, 7, 50.0), (7, 15, 24.0), (15, 37, 9.0))
"""Sides in mm of the squares whose means are subtracted in each band of `details`, and a gain that brings the chest in
it to about 1. Calcium stands out most between 3 and 7 mm, where a mm of its path is a third of the rest."""
_LARGEST = 4.0
"""Value towards which larger ones of a band are bent, lest edges of bones outweigh all else."""

_PLAIN_INPUTS = 4
"""Channels of `details` besides the bands."""

AMOUNTS_MM = (0.1, 0.4)
"""Mean path of calcium in mm of water from which a pixel of the evidence counts as calcified, by channel."""

_CERTAINTIES = (0.0, 2.0, 4.0)
"""Log odds above which a pixel counts in the sums."""

FEATURES = len(AMOUNTS_MM) * (len(_CERTAINTIES) + 2)
_ROWS = 9
"""Rows of the evidence over which two views may be displaced against each other."""


class RadiographNet(nn.Module):
    """Logits of calcium above thresholds from standard views of a chest; see the module.

    Published backbones have one for each view, whose pooled features a dense layer turns into the logits.
    """

    def __init__(self, config: RadiographNetConfig) -> None:
        super().__init__()
        self.config = config
        self.finder = HeartFinder()
        is_light, views = config.backbone == "light", len(config.views)
        self.inputs = _PLAIN_INPUTS + len(_BANDS) * config.details
        published = [] if is_light else [Published(config.backbone, self.inputs) for _ in config.views]
        self.backbones = nn.ModuleList([Light(config.width, self.inputs)] if is_light else published)
        self.dropout = nn.Dropout(0.0 if is_light else config.dropout)
        count = views * FEATURES + len(AMOUNTS_MM) * (views - 1) if is_light else sum(b.outputs for b in published)
        self.dense = nn.Linear(count, len(config.thresholds))
        if is_light:
            nn.init.constant_(self.dense.weight, 0.1 / views)
            nn.init.constant_(self.dense.bias, -1.0)

    def forward(
        self, x: torch.Tensor, crops: bool = False, evidence: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [B, thresholds].

        x: Enhanced standard views, [B, views, rows, columns] of STANDARD_MM in 0 to 1 (`radiograph.view`).
        crops: True if x holds squares of `crop`, [B, views, size, size].
        evidence: True to return also log odds of calcium of AMOUNTS_MM [B, views, amounts, size / 4, size / 4]; None
            for published backbones.
        """
        if x.ndim != 4 or x.shape[1] != len(self.config.views):
            raise ValueError(f"Input of shape {tuple(x.shape)} does not hold the views {', '.join(self.config.views)}.")
        squares = x if crops else self.crop(x, self.locate(x))
        odds = None
        if self.config.backbone == "light":
            lateral = torch.tensor([view == "lateral" for view in self.config.views], device=x.device)
            channels = self._inputs_of(squares.flatten(0, 1)[:, None], lateral.repeat(len(x)))
            channels = channels.contiguous(memory_format=torch.channels_last)
            odds = self.backbones[0](channels).float().unflatten(0, squares.shape[:2])
            pooled = pooled_evidence(odds)
        else:
            outputs = [b(self._inputs_of(squares[:, n : n + 1])) for n, b in enumerate(self.backbones)]
            pooled = torch.cat(outputs, 1)
        z = self.dense(self.dropout(pooled)).float()
        return (z, odds) if evidence else z

    def _inputs_of(self, square: torch.Tensor, lateral: torch.Tensor | None = None) -> torch.Tensor:
        return details(square, lateral)[:, -self.inputs :]

    def locate(self, views: torch.Tensor) -> torch.Tensor:
        """Return the middle of the heart's shadow on each view, (row, column) in pixels: [B, views, 2]."""
        return self.finder(functional.avg_pool2d(views, REDUCTION).flatten(0, 1)[:, None]).view(*views.shape[:2], 2)

    def crop(self, views: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        """Return squares about centres (row, column), moved to whole pixels: [B, views, size, size]."""
        return cut_out(views, centres.floor() + 0.5, self.config.size)


class HeartFinder(nn.Module):
    """Network that locates the heart on a reduced view [N, 1, rows, columns]: (row, column) in pixels of the full
    view, [N, 2].

    The result is the mean place by the softmax of a map of evidence, at a quarter of the reduced size; untrained, the
    middle of the view.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            *convolution(1, w, 5, 2),
            *convolution(w, 2 * w, 3, 2),
            *convolution(2 * w, 2 * w, 3, 1, dilation=2),
            *convolution(2 * w, 2 * w, 3, 1, dilation=4),
            *convolution(2 * w, 2 * w, 3, 1, dilation=4),
        )
        self.last = nn.Conv2d(2 * w, 1, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, sd = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True)
        evidence = self.last(self.layers((x - mean) / (sd + 1e-6))).float()
        share = torch.softmax(evidence.flatten(1), 1).view(evidence.shape[0], *evidence.shape[2:])
        places = []
        for axis, side in ((1, x.shape[2]), (2, x.shape[3])):
            cells = share.shape[axis]
            middles = (torch.arange(cells, device=x.device) + 0.5) * (side * REDUCTION / cells) - 0.5
            places.append((share.sum(3 - axis) * middles).sum(1))
        return torch.stack(places, 1)


class Light(nn.Module):
    """Small network for slow processors: log odds of calcium [B, amounts, size / 4, size / 4] from `details`."""

    def __init__(self, width: int, inputs: int) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(*convolution(inputs, 16, 5, 1), *convolution(16, w, 3, 2))
        self.near = nn.Sequential(*convolution(w, w, 3, 1), *convolution(w, w, 3, 1))
        self.far = nn.Sequential(
            *convolution(w, 2 * w, 3, 2),
            *convolution(2 * w, 2 * w, 3, 1),
            *convolution(2 * w, 2 * w, 3, 1, dilation=2),
            *convolution(2 * w, 2 * w, 3, 1, dilation=4),
        )
        self.join = nn.Conv2d(2 * w, w, 1)
        self.last = nn.Sequential(*convolution(w, w, 3, 1), nn.Conv2d(w, len(AMOUNTS_MM), 1))
        nn.init.constant_(self.last[-1].get_parameter("bias"), -5.0)  # no calcium before training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.near(self.stem(x))
        coarse = functional.interpolate(
            self.join(self.far(fine)), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        return self.last(fine + coarse)


def pooled_evidence(odds: torch.Tensor) -> torch.Tensor:
    """Return FEATURES of each view's log odds [B, V, amounts, rows, columns], and of the rows that two views share."""
    sums = [(odds - least).sigmoid().sum((3, 4)).add(1e-3).log() for least in _CERTAINTIES]
    ratios = [(scale * odds).logsumexp((3, 4)) / scale for scale in (1, 2)]
    pooled = torch.stack([*sums, *ratios], 3).flatten(1)
    if odds.shape[1] == 1:
        return pooled
    first, second = odds.logsumexp(4).unbind(1)  # [B, amounts, rows]
    first = functional.max_pool1d(first, _ROWS, 1, _ROWS // 2)
    return torch.cat([pooled, (first + second).logsumexp(2)], 1)


class Published(nn.Module):
    """Network of the literature from MONAI, in two dimensions, without its last layer; returns mean features
    [B, outputs] of `details`."""

    def __init__(self, name: str, inputs: int) -> None:
        super().__init__()
        try:
            from monai.networks.nets.densenet import DenseNet121
            from monai.networks.nets.resnet import resnet18
        except ImportError as error:
            raise RuntimeError(f"{name} needs MONAI. Install it (pip install monai), or take a light model.") from error
        if name == "resnet18":
            # MONAI's default stride of the first layer is that for small volumes; 2 is the published one.
            network = resnet18(
                spatial_dims=2, n_input_channels=inputs, conv1_t_stride=2, feed_forward=False, bias_downsample=False
            )
            parts = [network.conv1, network.bn1, nn.ReLU(inplace=True), network.maxpool]
            self.layers = nn.Sequential(*parts, network.layer1, network.layer2, network.layer3, network.layer4)
            self.outputs = 512
        else:
            features = DenseNet121(spatial_dims=2, in_channels=inputs, out_channels=1).get_submodule("features")
            self.layers = nn.Sequential(features, nn.ReLU(inplace=True))
            self.outputs = 1024

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean((2, 3))


def cut_out(views: torch.Tensor, centres: torch.Tensor, size: int, turn: torch.Tensor | None = None) -> torch.Tensor:
    """Return squares of size × size pixels about centres: [B, V, size, size]. A view's border continues beyond it.

    views: [B, V, rows, columns]. centres: (row, column) in pixels, [B, V, 2]. turn: matrices [B, V, 2, 2] that take
    (column, row) from the centre in the square to those in the view.
    """
    batch, count, rows, columns = views.shape
    steps = torch.arange(size, device=views.device) - (size - 1) / 2
    turn = torch.eye(2, device=views.device).expand(batch, count, 2, 2) if turn is None else turn
    along, down = (turn.reshape(-1, 2, 2, 1).float() * steps).unbind(2)  # [B V, (column, row), size]
    places = centres.reshape(-1, 2).flip(1).float()[..., None, None] + along[:, :, None] + down[..., None]
    sides = torch.tensor([columns, rows], device=views.device)
    grid = (2 * places.permute(0, 2, 3, 1) + 1) / sides - 1
    squares = functional.grid_sample(
        views.reshape(-1, 1, rows, columns).float(), grid, padding_mode="border", align_corners=False
    )
    return squares.view(batch, count, size, size)


def details(square: torch.Tensor, lateral: torch.Tensor | None = None) -> torch.Tensor:
    """Return channels of squares [B, 1, size, size] at half their size: details of each band, the square,
    standardised, place and view.

    lateral: bool [B].
    """
    mean, sd = square.mean((2, 3), keepdim=True), square.std((2, 3), keepdim=True)
    half = functional.avg_pool2d((square - mean) / (sd + 1e-6), 2)
    count, side = len(half), half.shape[2]

    def around(pixels: int) -> torch.Tensor:  # sums in double precision: differences of long sums
        before, after = pixels // 2 + 1, pixels // 2
        sums = functional.pad(half, [before, after] * 2, mode="replicate").double().cumsum(2)
        sums = (sums[:, :, pixels:] - sums[:, :, :-pixels]).cumsum(3)
        return ((sums[..., pixels:] - sums[..., :-pixels]) / pixels**2).float()

    bands = torch.cat([gain * (around(fine) - around(coarse)) for fine, coarse, gain in _BANDS], 1)
    place = torch.linspace(-1, 1, side, device=half.device)
    rows, columns = (place.view(shape).expand(count, 1, side, side) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))
    is_lateral = torch.zeros(count, device=half.device) if lateral is None else lateral.float()
    view = (2 * is_lateral - 1).view(-1, 1, 1, 1).expand(count, 1, side, side)
    return torch.cat([_LARGEST * torch.tanh(bands / _LARGEST), half, rows, columns, view], 1)
