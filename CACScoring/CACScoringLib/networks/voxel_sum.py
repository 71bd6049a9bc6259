"""Network "voxel-sum" of `vessels`: sums density above tissue in bright places, shared out among the arteries."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from ..core.labels import ARTERIES, TERRITORIES
from .configs import TERRITORY_STEP, UNLIKELY, VOXEL_SUM_CELL, VesselNetConfig

AGATSTON_PER_HU_MM3 = 0.004
"""Initial Agatston score of 1 mm³ that is 1 HU denser than tissue; trained."""

FIRST_TISSUE_HU = 60.0
"""Initial density of tissue, above which voxels count; trained to depend on the place."""

_TISSUE_STEP_HU = 10.0
"""Rise of the tissue's density per unit of output, small lest training moves it faster than other weights."""

_BLUNT_HU = 5.0
"""Width of the soft bound at the tissue's density: voxels just below still count a little, or it could not fall."""

CELL, HALO = VOXEL_SUM_CELL, 4
"""Side of a cell, and width of the surroundings that its convolutions reach, in pixels."""

_CELLS_PER_BATCH = 1024
"""Cells evaluated at once outside training, about 0.1 GB of features."""

_CELLS_PER_KIND = 48
"""Cells per scan and kind that stand for all of their kind in training with known calcium. Kinds: with calcium, very
bright without calcium, neither."""

_VERY_BRIGHT_HU = 90.0

_ERROR_FLOOR = 0.05
"""Sum of squared amounts below which the relative error falls: calcium that adds 100 HU to 5 pixels."""

_ENTROPY_FLOOR = 50.0
"""Pixels with calcium below which a scan's cross-entropy counts less."""

_LABELLED_HU = 30.0
"""Rise by calcium above which a pixel is labelled with its artery in training."""

_OTHER_LOGIT = 4.0
"""Initial logit of everything but calcium of an artery."""

_TERRITORY_CHANNELS = slice(7, 7 + len(ARTERIES))
"""Channels of the arteries' territories in a cell's surroundings: after six others, and "outside" of TERRITORIES."""

Calcium = tuple[torch.Tensor, torch.Tensor]
"""Rise by calcium in each voxel of an input, in its unit, and index of the artery in ARTERIES (long; any value without
calcium), both [B, slices, size, size]."""


class VoxelSum(nn.Module):
    """Sum of voxels denser than tissue, assigned to the arteries or to none.

    Evaluates the bright cells of each slice, each with its surroundings, the slices above and below, and its place in
    the field. Other cells add nothing.

    With territories, a trained network gives each voxel one probability of coronary calcium. Voxels above UNLIKELY that
    touch are a lesion. It counts as a whole if its mean probability, weighted by density above tissue, is above
    `least_probability`; else it is undetermined. The artery is that of the territory.
    """

    def __init__(self, config: VesselNetConfig) -> None:
        super().__init__()
        w, self.slices, self.least = config.width, config.slices, config.least_probability
        self.by_territory = config.territories
        window = config.high_hu - config.low_hu
        self.bright = (config.bright_hu - config.low_hu) / window
        self.near = nn.Sequential(
            *convolution(6 + len(TERRITORIES) * config.territories, w, 3, 1),
            *convolution(w, 2 * w, 3, 1),
            *convolution(2 * w, 2 * w, 3, 1, dilation=2),
        )
        self.last = nn.Conv2d(4 * w, len(ARTERIES) + 2, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            self.last.get_parameter("bias")[len(ARTERIES)] = _OTHER_LOGIT
        self.tissue = (FIRST_TISSUE_HU - config.low_hu) / window
        self.tissue_step, self.blunt = _TISSUE_STEP_HU / window, _BLUNT_HU / window
        self.labelled, self.very_bright = _LABELLED_HU / window, (_VERY_BRIGHT_HU - config.low_hu) / window
        self.gain = nn.Parameter(torch.zeros(()))
        self.agatston_per_unit = AGATSTON_PER_HU_MM3 * window * config.voxel_mm3

    def forward(self, x: torch.Tensor, calcium: Calcium | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return Agatston scores [B, 4] and their error against `calcium`, 0 without it.

        With territories each voxel counts by itself in training; later lesions count as wholes, and there is no error.
        """
        if self.by_territory and not self.training:
            return self.maps(x).sum((2, 3, 4)), x.new_zeros(())
        cells = self._bright_cells(x)
        if not len(cells[0]):  # an empty batch has no mean to be normalised by
            return x.new_zeros(len(x), len(ARTERIES)) * self.gain, x.new_zeros(())
        weights, true = x.new_ones(len(cells[0])), None
        if calcium is not None:
            true = _true_amounts(calcium, cells)
            has_calcium = true.flatten(1).any(1)
            kind = torch.where(has_calcium, 2, (functional.max_pool2d(x, CELL)[cells] > self.very_bright).long())
            sample, weights = _sample_cells(cells[0], kind)
            cells, true = tuple(part[sample] for part in cells), true[sample]
        amounts, shares = self._amounts(x, cells)
        totals = (weights[:, None] * amounts.sum((2, 3))).float()
        sums = totals.new_zeros(len(x), len(ARTERIES)).index_add(0, cells[0], totals) * self._agatston_of_unit()
        if true is None:
            return sums, x.new_zeros(())
        return sums, _error(amounts, shares, true, true > self.labelled, weights, cells[0], len(x))

    def certainty(self, x: torch.Tensor) -> torch.Tensor:
        if self.by_territory:
            counted, undetermined = (part.sum((1, 2, 3, 4)) for part in self._decided(x))
            weights = torch.stack([counted, counted + undetermined])
        else:
            cells, weights = self._bright_cells(x), x.new_zeros(2, len(x))
            if len(cells[0]):
                amounts, shares = self._amounts(x, cells)
                for n, values in enumerate((amounts * (1 - shares[:, -1:].exp()), amounts)):
                    weights[n].index_add_(0, cells[0], values.sum((1, 2, 3)))
        return torch.where(weights[0] > 0, weights[0] / weights[1], 1.0)

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        return self._decided(x)[0]

    def undetermined(self, x: torch.Tensor) -> torch.Tensor:
        return self._decided(x)[1].sum((2, 3, 4))

    def _decided(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the Agatston scores of what counts and of what is undetermined, [B, 4, slices, size, size] each."""
        maps = x.new_zeros(len(x), len(ARTERIES), self.slices, *x.shape[2:], dtype=torch.float32)
        probability = torch.zeros_like(maps[:, 0])
        cells = self._bright_cells(x)
        if len(cells[0]):
            amounts, shares = self._amounts(x, cells)
            scores, coronary = amounts * self._agatston_of_unit(), 1 - shares[:, -1].exp()
            for b, k, j, i, score, share in zip(*(n.tolist() for n in cells), scores, coronary, strict=True):
                place = slice(CELL * j, CELL * (j + 1)), slice(CELL * i, CELL * (i + 1))
                maps[(b, slice(None), k, *place)], probability[(b, k, *place)] = score, share
        if not self.by_territory:
            return maps, torch.zeros_like(maps)
        counts = torch.stack([_likely(*item, self.least) for item in zip(maps.sum(1), probability, strict=True)])
        return maps * counts[:, None], maps * ~counts[:, None]

    def _bright_cells(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return item, slice, row and column of each cell with a bright pixel."""
        highest = functional.max_pool2d(x[:, : self.slices].detach().float(), CELL)
        return torch.nonzero(highest > self.bright, as_tuple=True)

    def _amounts(self, x: torch.Tensor, cells: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rise by calcium of each artery in each pixel of cells, in the input's unit, [n, 4, CELL, CELL].

        The second result are the logarithms of the shares of the arteries and of everything else, [n, 5, CELL, CELL].

        Args:
            x: Input.
            cells: From `_bright_cells`.
        """
        if self.training or len(cells[0]) <= _CELLS_PER_BATCH:
            return self._amounts_of_batch(x, cells)
        batches = zip(*(part.split(_CELLS_PER_BATCH) for part in cells), strict=True)
        amounts, shares = zip(*(self._amounts_of_batch(x, batch) for batch in batches), strict=True)
        return torch.cat(amounts), torch.cat(shares)

    def _amounts_of_batch(self, x: torch.Tensor, cells: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        surroundings = self._surroundings(x, cells)
        f = self.near(surroundings)
        around = f.mean((2, 3), keepdim=True)
        inner = slice(HALO, HALO + CELL)
        f = f[:, :, inner, inner]
        outputs = self.last(torch.cat([f, around.expand_as(f)], 1)).float()
        tissue = self.tissue + self.tissue_step * outputs[:, -1:]
        dense = self.blunt * functional.softplus((surroundings[:, 1:2, inner, inner].float() - tissue) / self.blunt)
        shares = torch.log_softmax(outputs[:, :-1], 1)
        if self.training:  # while it learns, all shares are small
            return shares[:, :-1].exp() * dense, shares
        coronary = 1 - shares[:, -1:].exp()
        if self.by_territory:
            of_artery = surroundings[:, _TERRITORY_CHANNELS, inner, inner].float()
            return of_artery * dense * (coronary > UNLIKELY), shares
        return shares[:, :-1].exp() * dense * (coronary > self.least), shares

    def _agatston_of_unit(self) -> torch.Tensor:
        return self.agatston_per_unit * torch.exp(self.gain)

    def _surroundings(self, x: torch.Tensor, cells: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return cells with HALO pixels around, [n, channels, CELL + 2 HALO, CELL + 2 HALO]: the slice below, the
        slice, the slice above, the place in the field (slice, row and column from −1 to 1), and each territory."""
        slices, (rows, columns) = self.slices, x.shape[2:]
        item, k, j, i = cells
        span = torch.arange(-HALO, CELL + HALO, device=x.device)
        j, i = CELL * j[:, None] + span, CELL * i[:, None] + span
        padded = functional.pad(x[:, :slices], (HALO, HALO, HALO, HALO, 1, 1))
        index = (item[:, None, None, None], (k[:, None] + torch.arange(3, device=x.device))[:, :, None, None])
        planes = padded[(*index, (j + HALO)[:, None, :, None], (i + HALO)[:, None, None, :])]
        sides = planes.shape[2:]
        height = (2 * k / max(1, slices - 1) - 1)[:, None, None].expand(-1, *sides)
        row = (2 * j / (rows - 1) - 1)[:, :, None].expand(-1, *sides)
        column = (2 * i / (columns - 1) - 1)[:, None, :].expand(-1, *sides)
        parts = [planes, torch.stack([height, row, column], 1).to(planes)]
        if x.shape[1] > slices:
            numbers = functional.pad(x[:, slices:], (HALO,) * 4) / TERRITORY_STEP
            places = (item[:, None, None], k[:, None, None], j[:, :, None] + HALO, i[:, None, :] + HALO)
            territory = numbers[places].round().long()
            parts.append(functional.one_hot(territory, len(TERRITORIES)).movedim(-1, 1).to(planes))
        return torch.cat(parts, 1)


def _likely(amounts: torch.Tensor, probability: torch.Tensor, least: float) -> torch.Tensor:
    """Return True in lesions with a mean probability above `least`, weighted by amounts; all [slices, size, size]."""
    weights, likely = amounts.cpu().numpy(), (amounts * probability).cpu().numpy()
    labels, count = ndimage.label(weights > 0, np.ones((3, 3, 3)))
    sums = [ndimage.sum_labels(part, labels, np.arange(1, count + 1)) for part in (likely, weights)]
    counts = np.concatenate([[False], sums[0] > least * sums[1]])
    return torch.from_numpy(counts[labels]).to(amounts.device)


def _true_amounts(calcium: Calcium, cells: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the true rise by calcium of each artery in each pixel of cells, [n, 4, CELL, CELL]."""
    item, k, j, i = cells
    span = torch.arange(CELL, device=item.device)
    rows, columns = (CELL * j[:, None] + span)[:, :, None], (CELL * i[:, None] + span)[:, None, :]
    index = (item[:, None, None], k[:, None, None], rows, columns)
    amount, artery = (part[index] for part in calcium)
    return amount[:, None] * functional.one_hot(artery, len(ARTERIES)).movedim(-1, 1)


def _sample_cells(items: torch.Tensor, kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a sample of cells: at most _CELLS_PER_KIND of each item and kind.

    items, kinds: of the cells, [n]. Returns the indices of the sample, and the number of cells for which each stands.
    """
    samples, weights = [], []
    for item, kind in torch.stack([items, kinds]).unique(dim=1).T:
        cells = torch.nonzero((items == item) & (kinds == kind))[:, 0]
        sample = cells[torch.randperm(len(cells), device=cells.device)[:_CELLS_PER_KIND]]
        samples.append(sample)
        weights.append(torch.full_like(sample, len(cells) / len(sample), dtype=torch.float32))
    return torch.cat(samples), torch.cat(weights)


def _error(
    amounts: torch.Tensor,
    shares: torch.Tensor,
    true: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    scans: torch.Tensor,
    scan_count: int,
) -> torch.Tensor:
    """Return the mean over scans of the relative squared error of amounts plus the cross-entropy of shares.

    The cross-entropy is what teaches the network while all shares are small. It is not weighted, so that calcium, more
    frequent in the sample than in the scan, keeps its influence.

    Args:
        amounts: From `VoxelSum._amounts`.
        shares: Logarithms, from `VoxelSum._amounts`.
        true: From `_true_amounts`.
        labels: True where a pixel holds enough calcium of an artery, shaped like `true`.
        weights: Number of cells for which each cell stands, [n].
        scans: Scan of each cell, [n].
        scan_count: Number of scans.
    """

    def sum_by_scan(cell_sums: torch.Tensor) -> torch.Tensor:
        return cell_sums.new_zeros(scan_count).index_add(0, scans, cell_sums)

    def cell_sums(values: torch.Tensor) -> torch.Tensor:
        return values.float().sum((1, 2, 3))

    classes = torch.cat([labels, ~labels.any(1, keepdim=True)], 1)
    true_squares = sum_by_scan(weights * cell_sums(true**2))
    error = sum_by_scan(weights * cell_sums((amounts - true) ** 2)) / (true_squares + _ERROR_FLOOR)
    entropy = sum_by_scan(cell_sums(-shares * classes)) / (sum_by_scan(cell_sums(labels)) + _ENTROPY_FLOOR)
    return (error + entropy).mean()


def convolution(inputs: int, outputs: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
