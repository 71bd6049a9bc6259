"""The heart by a trained network: overlapping 3-D patches near the region found from the lungs, results averaged.

The paper looks at the whole scan. A small network that was trained shortly takes parts of the chest wall and of the
abdomen for heart; near the region it is more exact than the region itself.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import CTScan, NoHeartError, ScanWarning
from ..core.grid import Grid, ScanGrid, largest_part
from ..core.voxels import voxels_of
from ..models.inference import predict
from ..models.preprocessing import HEART_PATCH, HEART_SPACING_MM, heart_input
from .chest import widened

if TYPE_CHECKING:
    from ..models.cards import LoadedModel

SEARCH_MARGIN_MM = 20.0
"""Margin around the lung-based heart region, which is generous, within which the network searches, mm."""

HEARTS_AGREE = 0.7
"""Least Dice of the network's heart, before it is held to the region's surroundings, and the region."""

MIN_HEART_ML = 50.0
"""A heart has 400 to 1000 ml with its fat; less than this is a misled network, or no heart in the field of view."""

OVERLAP = 0.25
"""Share of a patch that neighbouring patches have in common (the paper: overlapping, no number given)."""

THRESHOLD = 0.5
"""Probability from which a voxel belongs to the heart."""

BATCH_SIZE = 4
"""Patches run at once."""

REACH_MM = 15.0
"""Distance of the heart beyond the lung-based region, at most."""

MARGIN_MM = 3.0
"""Margin around the heart, because moving coronaries leave the pericardium's outline: the mask held 63 % of the calcium
of three digital patients without it and 78 % with it. Bone and descending aorta in it are excluded later
(`HeartRegion.excluded`)."""


def heart_mask(
    scan: CTScan, model: LoadedModel, region: sitk.Image | None = None, margin_mm: float = MARGIN_MM
) -> tuple[sitk.Image, tuple[ScanWarning, ...]]:
    """Find the heart: the largest connected part above the threshold, widened.

    Args:
        scan: The CT.
        model: The loaded model.
        region: Where the heart is expected, 0 outside, on the scan's grid (`heart_region.heart_region`). Only its
            surroundings are searched, and what lies too far off is left out. None: the whole scan.
        margin_mm: Margin around the heart.

    Returns:
        The heart, uint8 0/1 on the scan's grid, and warnings.

    Raises:
        NoHeartError: If less than MIN_HEART_ML is found.
    """
    grid = ScanGrid.over(scan.image, HEART_SPACING_MM)
    box = tuple(slice(0, n) for n in grid.size[::-1]) if region is None else _box_around(region, grid)
    probability, warnings = heart_probability(scan.image, model, box)
    heart = largest_part(probability[box] >= THRESHOLD)
    disagreements: tuple[ScanWarning, ...] = ()
    if region is not None and _volume_ml(heart) >= MIN_HEART_ML:
        expected = grid.crop(box).resample(region, 0.0) >= 0.5
        disagreements = _disagreement(heart, expected)
        is_distant = ndimage.distance_transform_edt(~expected, HEART_SPACING_MM[::-1]) > REACH_MM
        probability[box][is_distant] = 0
        heart = largest_part(probability[box] >= THRESHOLD)
    if (volume_ml := _volume_ml(heart)) < MIN_HEART_ML:
        where = "" if region is None else " between the lungs"
        message = (
            f"The network {model.card.name} found only {volume_ml:.0f} ml of heart{where}, which is too little to "
            "score. Give a CT that shows the heart, or a heart mask."
        )
        raise NoHeartError(message)
    # Probabilities are brought back rather than the mask, so that the outline is smooth on the scan's own grid.
    part = np.where(ndimage.binary_dilation(heart), probability[box], np.float32(0))
    # The mean at a heart's end between two slices is the threshold itself, give or take rounding.
    inside = grid.crop(box).paste(part, scan.image.GetSize()) >= THRESHOLD + 1e-3
    mask = Grid.of(scan.image).image(inside)
    return widened(mask, margin_mm), (*warnings, *disagreements)


def heart_probability(
    image: sitk.Image, model: LoadedModel, box: tuple[slice, ...] = (slice(None),) * 3
) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Compute the probability of heart.

    Args:
        image: The CT, HU.
        model: The loaded model.
        box: The part of the grid to look at, [k, j, i]; the probability is 0 outside.

    Returns:
        float32 [k, j, i] on `preprocessing.heart_grid`, and warnings about memory.
    """
    scan_input = heart_input(image)
    volume = scan_input[box]
    padded = np.pad(volume, [(0, max(0, HEART_PATCH - n)) for n in volume.shape])
    corners = list(itertools.product(*(_starts(n) for n in padded.shape)))
    places = [tuple(slice(start, start + HEART_PATCH) for start in corner) for corner in corners]
    patches = np.stack([padded[place] for place in places])[:, None]
    outputs, warnings = predict(model.network, patches, BATCH_SIZE)
    total, count = np.zeros(padded.shape, np.float32), np.zeros(padded.shape, np.float32)
    for place, output in zip(places, outputs, strict=True):
        total[place] += output[1]
        count[place] += 1
    total /= count
    probability = np.zeros_like(scan_input)
    probability[box] = total[tuple(slice(n) for n in volume.shape)]
    return probability, warnings


def _box_around(region: sitk.Image, grid: ScanGrid) -> tuple[slice, ...]:
    """Return the part of the grid, [k, j, i], with the region and SEARCH_MARGIN_MM around it; at least a patch."""
    box = []
    bounds = ndimage.find_objects((voxels_of(region) != 0).view(np.uint8))[0][::-1]
    axes = zip(bounds, grid.first, grid.step, grid.size, HEART_SPACING_MM, strict=True)
    for bound, first, step, size, spacing_mm in axes:
        margin = SEARCH_MARGIN_MM / spacing_mm
        low = math.floor((bound.start - first) / step - margin)
        high = math.ceil((bound.stop - 1 - first) / step + margin) + 1
        missing = max(0, HEART_PATCH - (high - low))
        low = max(0, min(low - missing // 2, size - HEART_PATCH))
        box.append(slice(low, min(size, max(high, low + HEART_PATCH))))
    return tuple(box[::-1])


def _volume_ml(heart: np.ndarray) -> float:
    return float(heart.sum()) * math.prod(HEART_SPACING_MM) / 1000


def _disagreement(heart: np.ndarray, expected: np.ndarray) -> tuple[ScanWarning, ...]:
    """Warn if the network's heart and the lung-based region overlap too little."""
    dice = 2 * float((heart & expected).sum()) / max(1, int(heart.sum() + expected.sum()))
    if dice >= HEARTS_AGREE:
        return ()
    percent = math.floor(100 * dice)  # rounded up it would contradict what is usual
    message = (
        f"The heart found by the network and the heart region derived from the lungs overlap by only {percent}% "
        f"(Dice); {HEARTS_AGREE:.0%} or more is usual. Check the heart outline."
    )
    return (ScanWarning("hearts-disagree", message),)


def _starts(length: int) -> list[int]:
    """Return the first voxels of patches along an axis, evenly spread, overlapping by OVERLAP at least."""
    room = length - HEART_PATCH
    count = math.ceil(room / (HEART_PATCH * (1 - OVERLAP))) + 1
    return [round(n) for n in np.linspace(0, room, count)]
