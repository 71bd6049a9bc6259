"""Networks that tell the four arteries' scores from a stack of slices at once, without looking for lesions.

"cnn", "se-cnn" and "vit" are those of Kecoglu, "Machine Vision Based Scoring of Coronary Calcium": slices are channels.
"voxel-sum" is none of the paper: a small network shared by all slices tells for each place how dense it would be
without calcium, and how probably it is calcium of each artery; these shares of what is denser are summed, because
calcium adds up.

What the paper leaves open, and what is done here:
- Convolutions are padded to keep their input's size; those before a batch normalisation have no bias.
- The dense layers have a ReLU between them.
- Tokens of the vision transformer hold 4 × width numbers, as the convolutional network's features do; layers are
  normalised first (pre-norm), with GELU; its head is one layer after a normalisation.
- Scores are normalised by the largest of one artery in the training (`whole_scan.vessels.normalised`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

VESSELS = ("LM", "LAD", "LCX", "RCA")
"""What the outputs are of; the paper's left coronary artery is the left main."""

KINDS = ("cnn", "se-cnn", "vit", "voxel-sum")
FIELDS = ("scan", "heart")
POOLINGS = ("average", "average+max")
OUTPUTS = ("linear", "log")

AGATSTON_PER_HU_MM3 = 0.004
"""Where "voxel-sum" begins: score of 1 mm³ that is 1 HU denser than tissue. Training changes it."""

TISSUE_HU = 60.0
"""From where on "voxel-sum" begins to count. Training makes it another for each place."""

_TISSUE_STEP_HU = 10.0
"""By how much a feature of 1 raises it, so that training does not move it faster than the rest."""

_BLUNT_HU = 5.0
"""What is less dense than tissue by so much still counts a little, or training could not lower the bound."""

CELL, HALO = 8, 4
"""Side of what "voxel-sum" looks at, and what it sees around it, pixels: as far as its convolutions reach."""

_AT_ONCE = 1024
"""Cells whose features are held at once where nothing is learned: 0.1 GB or so."""

_SAMPLED, _VERY_BRIGHT_HU = 48, 90.0
"""Where calcium is shown, so many cells of a scan that have calcium, that have none but are very bright, and that are
neither, stand for all of their kind."""

_LITTLE = 0.05
"""Calcium that adds 100 HU to 5 pixels, in the input's unit, squared and summed."""

_FEW = 50.0
"""Pixels: with fewer that hold calcium, a scan's cross-entropy counts less."""

_SEEN_HU = 30.0
"""What calcium adds to a pixel from which on it is shown as its artery's."""

_NOTHING_FIRST = 4.0
"""Logit of anything else than calcium of an artery that "voxel-sum" begins with."""


@dataclass(frozen=True)
class VesselNetConfig:
    """kind: one of KINDS. slices, size: of the input; see `whole_scan.vessels`. The defaults are the published values.

    field: "scan", as published, or "heart", a square of field_mm about the heart, in slices of slice_mm, what is
    further than around_mm from the heart left out, low_hu to high_hu scaled to 0 to 1.
    width: channels of the first layer. pooling: of "cnn" and "se-cnn"; "average" as published, or "average+max", which
    sees lesions of few pixels. bright_hu: "voxel-sum" looks where something is brighter: from 100 HU at a fiftieth of
    the heart, which is fast; from 60 HU at half of it, where faint calcium lies too. output: how scores are normalised;
    "linear", or "log", in which one patient with very much calcium does not rule the loss. reduction: r of
    squeeze-and-excite. patch, depth, heads, feed_forward: of "vit". dropout: share of features left out in training.
    """

    kind: str = "cnn"
    slices: int = 73
    size: int = 512
    field: str = "scan"
    field_mm: float = 160.0
    slice_mm: float = 3.0
    around_mm: float = 5.0
    low_hu: float = -100.0
    high_hu: float = 900.0
    width: int = 32
    pooling: str = "average"
    bright_hu: float = 100.0
    output: str = "linear"
    reduction: int = 16
    patch: int = 32
    depth: int = 3
    heads: int = 4
    feed_forward: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("kind", self.kind, KINDS),
            ("field", self.field, FIELDS),
            ("pooling", self.pooling, POOLINGS),
            ("output", self.output, OUTPUTS),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; it has to be one of {', '.join(choices)}.")
        multiple = {"vit": self.patch, "voxel-sum": CELL}.get(self.kind, 8)
        if self.slices < 1 or self.size < 8 or self.size % multiple:
            raise ValueError(f"{self.slices} slices of {self.size}²: size has to be a multiple of {multiple}.")
        if self.kind == "voxel-sum" and self.field != "heart":
            raise ValueError('"voxel-sum" needs the field "heart": in that of the scan there is no HU to sum.')
        if not (self.field_mm > 0 and self.slice_mm > 0 and self.around_mm >= 0 and self.low_hu < self.high_hu):
            raise ValueError("field_mm and slice_mm have to be above 0, and low_hu below high_hu.")

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel of the field "heart"."""
        return (self.field_mm / self.size) ** 2 * self.slice_mm


Calcium = tuple[torch.Tensor, torch.Tensor]
"""How much calcium adds to each voxel of an input, in its unit, and the number of its artery (of VESSELS; any where
there is none), long: [B, slices, size, size] both."""


class VesselNet(nn.Module):
    """Scores of VESSELS, normalised by `largest`: see the module and `VesselNetConfig`.

    largest: Agatston score that 1 stands for, a buffer; set in training (`set_largest`).
    """

    def __init__(self, config: VesselNetConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("largest", torch.tensor(1000.0))
        if config.kind == "voxel-sum":
            self.body: nn.Module = _VoxelSum(config)
        elif config.kind == "vit":
            self.body = _VisionTransformer(config)
        else:
            self.body = _Convolutional(config)
        self.squeeze = _SqueezeAndExcite(config) if config.kind == "se-cnn" else None

    def set_largest(self, agatston: float) -> None:
        """Say which score 1 stands for. Raises ValueError when it is not above 0."""
        if not agatston > 0:
            raise ValueError(f"Scores cannot be normalised by {agatston:g}.")
        self.largest.fill_(agatston)

    def multiply(self, factor: float) -> None:
        """Multiply all scores; "voxel-sum" only."""
        with torch.no_grad():
            self.body.gain += math.log(factor)

    def forward(self, x: torch.Tensor, calcium: Calcium | None = None) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Normalised scores [B, 4] of inputs [B, slices, size, size] (`whole_scan.vessels`).

        calcium: of "voxel-sum" only, in training: where it truly lies. Then scores are estimates from a sample of
        places, and the second of two results is the error there: 0 at best, about 1 where no calcium is
        recognised. Raises ValueError.
        """
        wanted = (self.config.slices, self.config.size, self.config.size)
        if x.ndim != 4 or tuple(x.shape[1:]) != wanted:
            raise ValueError(f"Input of shape {tuple(x.shape)}; [B, {', '.join(map(str, wanted))}] is needed.")
        if self.config.kind != "voxel-sum":
            if calcium is not None:
                raise ValueError(f'"{self.config.kind}" has no use for where calcium lies; "voxel-sum" has.')
            return self.body(x if self.squeeze is None else self.squeeze(x)).float()
        y, wrong = self.body(x, calcium)
        y = y / self.largest if self.config.output == "linear" else torch.log1p(y) / torch.log1p(self.largest)
        return y if calcium is None else (y, wrong)

    def slice_weights(self, x: torch.Tensor) -> torch.Tensor | None:
        """What squeeze-and-excite multiplies each slice with, 0 to 1, [B, slices]; None for the other kinds."""
        return None if self.squeeze is None else self.squeeze.weights(x)

    def maps(self, x: torch.Tensor) -> torch.Tensor | None:
        """Agatston score in each voxel of each artery, [B, 4, slices, size, size], whose sums are the scores;
        "voxel-sum" only, None for the other kinds."""
        return self.body.maps(x) if self.config.kind == "voxel-sum" else None


class Total(nn.Module):
    """The sum of a network's outputs, [B, 1]: what its saliency is of."""

    def __init__(self, network: VesselNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x).sum(1, keepdim=True)


class _SqueezeAndExcite(nn.Module):
    """Equation 2 of the paper."""

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
    """Section 4.1 of the paper."""

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
            nn.Linear(4 * w, len(VESSELS)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.layers(x)
        pooled = f.mean((2, 3))
        if self.pooling == "average+max":
            pooled = torch.cat([pooled, f.amax((2, 3))], 1)
        return self.dense(pooled)


class _VisionTransformer(nn.Module):
    """Section 4.3 of the paper."""

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
        self.head = nn.Sequential(nn.LayerNorm(dimension), nn.Linear(dimension, len(VESSELS)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.position
        return self.head(self.encoder(tokens)[:, 0])


class _VoxelSum(nn.Module):
    """What is denser than tissue, shared out among the arteries and anything else, and summed.

    Looked at are only the cells of each slice that hold something bright, each with its surroundings, the slices above
    and below, and its place in the field; the others add nothing.
    """

    def __init__(self, config: VesselNetConfig) -> None:
        super().__init__()
        w = config.width
        window = config.high_hu - config.low_hu
        self.bright = (config.bright_hu - config.low_hu) / window
        self.near = nn.Sequential(
            *_convolution(6, w, 3, 1), *_convolution(w, 2 * w, 3, 1), *_convolution(2 * w, 2 * w, 3, 1, dilation=2)
        )
        self.last = nn.Conv2d(4 * w, len(VESSELS) + 2, 1)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.zero_()
            self.last.bias[len(VESSELS)] = _NOTHING_FIRST
        self.tissue = (TISSUE_HU - config.low_hu) / window
        self.tissue_step, self.blunt = _TISSUE_STEP_HU / window, _BLUNT_HU / window
        self.seen, self.very_bright = _SEEN_HU / window, (_VERY_BRIGHT_HU - config.low_hu) / window
        self.gain = nn.Parameter(torch.zeros(()))
        self.agatston_per_unit = AGATSTON_PER_HU_MM3 * window * config.voxel_mm3

    def forward(self, x: torch.Tensor, calcium: Calcium | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Agatston scores [B, 4], and their error where calcium lies: 0 where `calcium` is not given."""
        cells = self._bright_cells(x)
        if not len(cells[0]):  # an empty batch has no mean to be normalised by
            return x.new_zeros(len(x), len(VESSELS)) * self.gain, x.new_zeros(())
        standing_for, true = x.new_ones(len(cells[0])), None
        if calcium is not None:
            true = _true_amounts(calcium, cells)
            held = true.flatten(1).any(1)
            kind = torch.where(held, 2, (functional.max_pool2d(x, CELL)[cells] > self.very_bright).long())
            chosen, standing_for = _sampled(cells[0], kind)
            cells, true = tuple(part[chosen] for part in cells), true[chosen]
        amounts, shares = self._amounts(x, cells)
        totals = (standing_for[:, None] * amounts.sum((2, 3))).float()
        sums = totals.new_zeros(len(x), len(VESSELS)).index_add(0, cells[0], totals) * self._agatston_of_unit()
        if true is None:
            return sums, x.new_zeros(())
        return sums, _wrong(amounts, shares, true, true > self.seen, standing_for, cells[0], len(x))

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        maps = x.new_zeros(len(x), len(VESSELS), *x.shape[1:], dtype=torch.float32)
        cells = self._bright_cells(x)
        if len(cells[0]):
            each = self._amounts(x, cells)[0] * self._agatston_of_unit()
            for b, k, j, i, cell in zip(*(n.tolist() for n in cells), each, strict=True):
                maps[b, :, k, CELL * j : CELL * (j + 1), CELL * i : CELL * (i + 1)] = cell
        return maps

    def _bright_cells(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Item, slice, row and column of each cell of CELL × CELL pixels that is looked at."""
        highest = functional.max_pool2d(x.detach().float(), CELL)
        return torch.nonzero(highest > self.bright, as_tuple=True)

    def _amounts(self, x: torch.Tensor, cells: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """How much calcium of each artery adds to each pixel of cells, in the input's unit, [n, 4, CELL, CELL], and the
        logarithms of the shares of the arteries and of anything else, [n, 5, CELL, CELL]."""
        if self.training or len(cells[0]) <= _AT_ONCE:
            return self._amounts_of(self._surroundings(x, cells))
        parts = zip(*(part.split(_AT_ONCE) for part in cells), strict=True)
        return tuple(
            map(torch.cat, zip(*(self._amounts_of(self._surroundings(x, part)) for part in parts), strict=True))
        )

    def _amounts_of(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_amounts`. seen: of `_surroundings`."""
        f = self.near(seen)
        around = f.mean((2, 3), keepdim=True)
        inner = slice(HALO, HALO + CELL)
        f = f[:, :, inner, inner]
        outputs = self.last(torch.cat([f, around.expand_as(f)], 1)).float()
        tissue = self.tissue + self.tissue_step * outputs[:, -1:]
        dense = self.blunt * functional.softplus((seen[:, 1:2, inner, inner].float() - tissue) / self.blunt)
        shares = torch.log_softmax(outputs[:, :-1], 1)
        return shares[:, :-1].exp() * dense, shares

    def _agatston_of_unit(self) -> torch.Tensor:
        return self.agatston_per_unit * torch.exp(self.gain)

    def _surroundings(self, x: torch.Tensor, cells: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The cells with HALO pixels around: the slice below, the slice, that above, and the place in the field, slice,
        row and column from −1 to 1. [n, 6, CELL + 2 HALO, CELL + 2 HALO]."""
        _, slices, rows, columns = x.shape
        item, k, j, i = cells
        span = torch.arange(-HALO, CELL + HALO, device=x.device)
        j, i = CELL * j[:, None] + span, CELL * i[:, None] + span
        padded = functional.pad(x, (HALO, HALO, HALO, HALO, 1, 1))
        index = (item[:, None, None, None], (k[:, None] + torch.arange(3, device=x.device))[:, :, None, None])
        planes = padded[(*index, (j + HALO)[:, None, :, None], (i + HALO)[:, None, None, :])]
        sides = planes.shape[2:]
        height = (2 * k / max(1, slices - 1) - 1)[:, None, None].expand(-1, *sides)
        row = (2 * j / (rows - 1) - 1)[:, :, None].expand(-1, *sides)
        column = (2 * i / (columns - 1) - 1)[:, None, :].expand(-1, *sides)
        return torch.cat([planes, torch.stack([height, row, column], 1).to(planes)], 1)


def _true_amounts(calcium: Calcium, cells: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """As `_VoxelSum._amounts`, in truth."""
    item, k, j, i = cells
    span = torch.arange(CELL, device=item.device)
    index = (item[:, None, None], k[:, None, None])
    index += ((CELL * j[:, None] + span)[:, :, None], (CELL * i[:, None] + span)[:, None, :])
    amount, artery = (part[index] for part in calcium)
    return amount[:, None] * functional.one_hot(artery, len(VESSELS)).movedim(-1, 1)


def _sampled(item: torch.Tensor, kind: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells that stand for all of a batch: their indices, and for how many each stands. item, kind: of each cell, [n];
    cells stand for those of their item and kind."""
    chosen, standing_for = [], []
    for one in torch.stack([item, kind]).unique(dim=1).T:
        own = torch.nonzero((item == one[0]) & (kind == one[1]))[:, 0]
        some = own[torch.randperm(len(own), device=own.device)[:_SAMPLED]]
        chosen.append(some)
        standing_for.append(torch.full_like(some, len(own) / len(some), dtype=torch.float32))
    return torch.cat(chosen), torch.cat(standing_for)


def _wrong(
    amounts: torch.Tensor,
    shares: torch.Tensor,
    true: torch.Tensor,
    seen: torch.Tensor,
    standing_for: torch.Tensor,
    item: torch.Tensor,
    items: int,
) -> torch.Tensor:
    """Mean over scans of the squared error of amounts, relative to what there is, and of the cross-entropy of shares in
    each pixel that holds some; little counts as _LITTLE, few pixels as _FEW. The first is what is wanted; without the
    second nothing is learned while no share is large. It is of the sample as it is, in which calcium is not as rare.

    amounts, shares: of `_VoxelSum._amounts`. true: `_true_amounts`; seen: where there is enough, bool of its shape.
    """

    def of_each_scan(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        each = weights * values.float().sum((1, 2, 3))
        return each.new_zeros(items).index_add(0, item, each)

    once = torch.ones_like(standing_for)
    classes = torch.cat([seen, ~seen.any(1, keepdim=True)], 1)
    error = of_each_scan((amounts - true) ** 2, standing_for) / (of_each_scan(true**2, standing_for) + _LITTLE)
    entropy = of_each_scan(-shares * classes, once) / (of_each_scan(seen, once) + _FEW)
    return (error + entropy).mean()


PAPER = VesselNetConfig()
COMPACT = VesselNetConfig(slices=48, size=128, field="heart", pooling="average+max", output="log", dropout=0.2)
PRESETS = {"paper": PAPER, "compact": COMPACT}
"""By name; `preset` gives one for each kind."""

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
    return [*_convolution(inputs, outputs, 3, 1), nn.MaxPool2d(2)]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
