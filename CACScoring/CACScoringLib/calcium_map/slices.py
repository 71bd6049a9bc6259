"""Which slices of the heart show calcium."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTError, CTScan, ScanWarning
from ..models.inference import predict
from ..models.preprocessing import Grid, HeartSlices, heart_slices, slice_input

if TYPE_CHECKING:
    from ..models.cards import LoadedModel


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
    from ..networks.van_velzen import SliceClassifierConfig  # imports torch

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


def overlaps(grid: Grid, count: int) -> np.ndarray:
    """Which slices of the networks' grid lie partly in which of the scan's: bool [grid, scan]."""
    centres = grid.first[2] + grid.step[2] * np.arange(grid.size[2])
    reach = (1 + grid.step[2]) / 2 - 1e-6  # slices that only touch do not overlap
    return np.abs(centres[:, None] - np.arange(count)) < reach


def check_switched(by_reader: dict[int, bool], heart: sitk.Image) -> None:
    """by_reader: by slice of the scan, whether a reader switched it on. Raises CTError when one shows no heart."""
    count = heart.GetSize()[2]
    in_heart = np.nonzero((sitk.GetArrayViewFromImage(heart) != 0).any((1, 2)))[0]
    for k in by_reader:
        if not 0 <= k < count:
            raise CTError(f"The scan has no slice {k}: counted from the feet, its slices are 0 to {count - 1}.")
        if k not in in_heart:
            raise CTError(
                f"Slice {k} shows no heart, so it cannot be switched on or off; slices {_ranges(in_heart)} show the "
                "heart."
            )


def switched_note(by_reader: dict[int, bool]) -> ScanWarning:
    """Tells in the result that the slices are not the network's choice alone."""
    switched = {word: [k for k, on in by_reader.items() if on == (word == "on")] for word in ("on", "off")}
    named = " and ".join(f"{_ranges(sorted(slices))} {word}" for word, slices in switched.items() if slices)
    message = f"A reader overrode the slice classifier and switched slices {named} (counted from the feet)."
    return ScanWarning("slices-by-reader", message)


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending whole numbers as a person writes them: 1, 3 to 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
