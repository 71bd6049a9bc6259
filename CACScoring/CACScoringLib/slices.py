"""Which slices of the heart show calcium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .ct import CTScan, ScanWarning
from .inference import predict
from .preprocessing import HeartSlices, heart_slices, slice_input

if TYPE_CHECKING:
    from .models import LoadedModel


@dataclass(frozen=True)
class SliceProbabilities:
    """How probably each slice of the heart shows calcium.

    slices: the slices themselves, 1.5 mm apart. on_grid: float32 [n], for each of them.
    on_scan: float32 [K], for each slice of the scan; NaN where it shows no heart.
    """

    slices: HeartSlices
    on_grid: np.ndarray
    on_scan: np.ndarray
    warnings: tuple[ScanWarning, ...] = ()


def slice_probabilities(
    scan: CTScan, heart_mask: sitk.Image, model: LoadedModel, batch_size: int = 16
) -> SliceProbabilities:
    """The classifier's answer for every slice of the heart mask.

    heart_mask: 0 outside, on the scan's grid. Raises MaskError when it is empty or on another grid.
    """
    from .networks import SliceClassifierConfig  # imports torch

    slices = heart_slices(scan.image, heart_mask)
    config = SliceClassifierConfig(**model.card.config)
    inputs = slice_input(slices, np.arange(len(slices)), config.neighbours, config.position, config.size)
    outputs, warnings = predict(model.network, inputs, batch_size)
    return SliceProbabilities(slices, outputs[:, 1], on_scan_slices(outputs[:, 1], slices, scan.image), warnings)


def on_scan_slices(on_grid: np.ndarray, slices: HeartSlices, image: sitk.Image) -> np.ndarray:
    """Values of the grid's slices, [n], for those of the scan, [K]: the highest of the grid's slices centred in it.

    Where the scan's slices are thinner than the grid's and hold no centre, the nearest one counts. NaN beyond the
    grid's ends.
    """
    count = image.GetSize()[2]
    grid = slices.grid
    centres = grid.first[2] + grid.step[2] * np.arange(len(slices))  # in slices of the scan
    values = np.full(count, np.nan, np.float32)
    for k in range(count):
        inside = np.abs(centres - k) <= 0.5
        if inside.any():
            values[k] = on_grid[inside].max()
        elif np.abs(centres - k).min() <= grid.step[2] / 2:
            values[k] = on_grid[np.abs(centres - k).argmin()]
    return values
