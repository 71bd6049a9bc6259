"""The network "voxel-sum" of `vessels`, which sums what is denser than tissue, shared out among the arteries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from .vessels import VesselNetConfig

VESSELS = ("LM", "LAD", "LCX", "RCA")
"""What the outputs are of; the paper's left coronary artery is the left main."""

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

Calcium = tuple[torch.Tensor, torch.Tensor]
"""How much calcium adds to each voxel of an input, in its unit, and the number of its artery (of VESSELS; any where
there is none), long: [B, slices, size, size] both."""


class VoxelSum(nn.Module):
    """Sum of voxels denser than tissue, assigned to the arteries or to none.

    Looked at are only the cells of each slice that hold something bright, each with its surroundings, the slices above
    and below, and its place in the field; the others add nothing.
    """

    def __init__(self, config: VesselNetConfig) -> None:
        super().__init__()
        w = config.width
        window = config.high_hu - config.low_hu
        self.bright = (config.bright_hu - config.low_hu) / window
        self.near = nn.Sequential(
            *convolution(6, w, 3, 1), *convolution(w, 2 * w, 3, 1), *convolution(2 * w, 2 * w, 3, 1, dilation=2)
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
    """As `VoxelSum._amounts`, in truth."""
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

    amounts, shares: of `VoxelSum._amounts`. true: `_true_amounts`; seen: where there is enough, bool of its shape.
    """

    def of_each_scan(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        each = weights * values.float().sum((1, 2, 3))
        return each.new_zeros(items).index_add(0, item, each)

    once = torch.ones_like(standing_for)
    classes = torch.cat([seen, ~seen.any(1, keepdim=True)], 1)
    error = of_each_scan((amounts - true) ** 2, standing_for) / (of_each_scan(true**2, standing_for) + _LITTLE)
    entropy = of_each_scan(-shares * classes, once) / (of_each_scan(seen, once) + _FEW)
    return (error + entropy).mean()


def convolution(inputs: int, outputs: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
