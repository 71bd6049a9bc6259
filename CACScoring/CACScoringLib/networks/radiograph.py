"""The network that recognises coronary calcium on chest radiographs: one or two views, one logit for each threshold.

`RadiographNet` finds the heart on each view, cuts out a square about its centre, and evaluates the squares of all views
together. Its input is the standardised square and the square's detail, the difference from the surroundings' mean:
calcium adds a hundredth of what the chest's shape does, which a small network would first have to learn to subtract.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from .voxel_sum import convolution

VIEWS = ("PA", "lateral")
BACKBONES = ("light", "resnet18", "densenet121")

REDUCTION = 4
"""Factor by which views are reduced to find the heart."""

DETAIL_MM = 13
"""Side in mm of the surroundings whose mean is subtracted; odd, above plaques, below the distance of ribs."""

DETAIL_GAIN = 12.0
"""Gain of the detail relative to the square's standard deviation."""

_EVIDENCE_GAIN = 30.0
"""Gain that brings the mean of a map with little calcium to the features' size."""

INPUTS = 2
"""Channels: the square, its detail."""


@dataclass(frozen=True)
class RadiographNetConfig:
    """Configuration of `RadiographNet`.

    Attributes:
        backbone: One of BACKBONES.
        views: Views of the input, in this order.
        thresholds: Lowest Agatston score of each logit; 0 stands for any calcium.
        size: Side of the square in pixels.
        field_mm: Side of the square on the detector.
        width: Channels of the first layer of "light".
        enhancement: Enhancement of the views by the caller, a name in `radiograph.view.ENHANCEMENTS`.
        dropout: Share of features dropped in training.
    """

    backbone: str = "light"
    views: tuple[str, ...] = ("PA",)
    thresholds: tuple[float, ...] = (0.0, 100.0, 400.0)
    size: int = 96
    field_mm: float = 160.0
    width: int = 12
    enhancement: str = "none"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        # A card's lists become tuples again, so that a configuration read back equals the one written.
        object.__setattr__(self, "views", tuple(self.views))
        object.__setattr__(self, "thresholds", tuple(float(t) for t in self.thresholds))
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone is {self.backbone!r}; it has to be one of {', '.join(BACKBONES)}.")
        if not self.views or len(set(self.views)) < len(self.views) or set(self.views) - set(VIEWS):
            raise ValueError(f"views are {self.views}; they have to be one or both of {', '.join(VIEWS)}.")
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds are {self.thresholds}; they have to rise.")
        if self.size < 32 or self.size % 8:
            raise ValueError(f"size is {self.size}; it has to be a multiple of 8, from 32 up.")


class RadiographNet(nn.Module):
    """Logits of calcium above thresholds from standard views of a chest; see the module.

    Every view has a backbone of its own; their pooled features are put together, and a dense layer gives the logits.
    """

    def __init__(self, config: RadiographNetConfig) -> None:
        super().__init__()
        self.config = config
        self.finder = HeartFinder()
        is_light = config.backbone == "light"
        backbones = [Light(config.width) if is_light else Published(config.backbone) for _ in config.views]
        self.backbones = nn.ModuleList(backbones)
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(sum(b.outputs for b in backbones), len(config.thresholds))

    def forward(
        self, x: torch.Tensor, crops: bool = False, evidence: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits [B, thresholds].

        x: Enhanced standard views, [B, views, rows, columns] of 1 mm in 0 to 1 (`radiograph.view`).
        crops: True if x holds squares of `crop`, [B, views, size, size].
        evidence: True to return, for a light network, also each view's map of calcium, logits
            [B, 1, size / 4, size / 4].
        """
        if x.ndim != 4 or x.shape[1] != len(self.config.views):
            raise ValueError(f"Input of shape {tuple(x.shape)} does not hold the views {', '.join(self.config.views)}.")
        squares = x if crops else self.crop(x, self.locate(x))
        outputs = [b(with_detail(squares[:, n : n + 1], self.config)) for n, b in enumerate(self.backbones)]
        z = self.dense(self.dropout(torch.cat([pooled for pooled, _ in outputs], 1))).float()
        return (z, [evidence_map for _, evidence_map in outputs]) if evidence else z

    def locate(self, views: torch.Tensor) -> torch.Tensor:
        """Return the middle of the heart's shadow on each view, (row, column) in pixels: [B, views, 2]."""
        return self.finder(functional.avg_pool2d(views, REDUCTION).flatten(0, 1)[:, None]).view(*views.shape[:2], 2)

    def crop(self, views: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        """Return squares of field_mm about centres (row, column) in pixels of 1 mm: [B, views, size, size]."""
        return cut_out(views, centres, self.config.field_mm, self.config.size)


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
    """Small network for few patients and slow processors: four convolutions, and a map of calcium.

    Returns the means and maxima of features and map, [B, outputs], and the map, [B, 1, rows / 4, columns / 4]. Maxima
    respond to a single small deposit, means to many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            *convolution(INPUTS, w, 5, 2),
            *convolution(w, 2 * w, 3, 1),
            *convolution(2 * w, 4 * w, 3, 2),
            *convolution(4 * w, 4 * w, 3, 1),
        )
        self.where = nn.Conv2d(4 * w, 1, 1)
        nn.init.constant_(self.where.get_parameter("bias"), -4.0)  # no calcium before training
        self.outputs = 8 * w + 2

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        f = self.layers(x)
        evidence = self.where(f)
        mean = _EVIDENCE_GAIN * torch.sigmoid(evidence).mean((2, 3))
        return torch.cat([f.mean((2, 3)), f.amax((2, 3)), mean, evidence.amax((2, 3))], 1), evidence


class Published(nn.Module):
    """Network of the literature from MONAI, in two dimensions, without its last layer; returns mean features
    [B, outputs]."""

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            from monai.networks.nets.densenet import DenseNet121
            from monai.networks.nets.resnet import resnet18
        except ImportError as error:
            raise RuntimeError(f"{name} needs MONAI. Install it (pip install monai), or take a light model.") from error
        if name == "resnet18":
            # MONAI's default stride of the first layer is that for small volumes; 2 is the published one.
            network = resnet18(
                spatial_dims=2, n_input_channels=INPUTS, conv1_t_stride=2, feed_forward=False, bias_downsample=False
            )
            parts = [network.conv1, network.bn1, nn.ReLU(inplace=True), network.maxpool]
            self.layers = nn.Sequential(*parts, network.layer1, network.layer2, network.layer3, network.layer4)
            self.outputs = 512
        else:
            features = DenseNet121(spatial_dims=2, in_channels=INPUTS, out_channels=1).get_submodule("features")
            self.layers = nn.Sequential(features, nn.ReLU(inplace=True))
            self.outputs = 1024

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.layers(x).mean((2, 3)), None


def cut_out(
    views: torch.Tensor, centres: torch.Tensor, field: float, size: int, turn: torch.Tensor | None = None
) -> torch.Tensor:
    """Return squares about centres, resampled to size × size pixels: [B, V, size, size]. A view's border continues
    beyond it.

    views: [B, V, rows, columns]. centres: (row, column) in pixels, [B, V, 2]. field: side, pixels. turn: matrices
    [B, V, 2, 2] that take (column, row) from the centre in the square to those in the view.
    """
    batch, count, rows, columns = views.shape
    unit = torch.tensor([2 / columns, 2 / rows], device=views.device)
    middle = (centres.reshape(-1, 2).flip(1).float() + 0.5) * unit - 1
    turn = torch.eye(2, device=views.device).expand(len(middle), 2, 2) if turn is None else turn.reshape(-1, 2, 2)
    affine = torch.cat([turn.float() * (field / 2) * unit[:, None], middle[:, :, None]], 2)
    # Twice as many points as pixels, then means of four, against aliasing.
    grid = functional.affine_grid(affine, [len(middle), 1, 2 * size, 2 * size], align_corners=False)
    fine = functional.grid_sample(
        views.reshape(-1, 1, rows, columns).float(), grid, padding_mode="border", align_corners=False
    )
    return functional.avg_pool2d(fine, 2).view(batch, count, size, size)


def with_detail(square: torch.Tensor, config: RadiographNetConfig) -> torch.Tensor:
    """Return a square [B, 1, size, size] standardised to mean 0 and standard deviation 1, and its detail: [B, 2, …]."""
    mean, sd = square.mean((2, 3), keepdim=True), square.std((2, 3), keepdim=True)
    z = (square - mean) / (sd + 1e-6)
    side = max(3, round(DETAIL_MM * config.size / config.field_mm) // 2 * 2 + 1)
    around = functional.avg_pool2d(functional.pad(z, [side // 2] * 4, mode="reflect"), side, 1)
    return torch.cat([z, DETAIL_GAIN * (z - around)], 1)
