"""The heart by a trained network: overlapping 3-D patches of the whole scan, their results averaged."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .ct import CTScan, NoHeartError, ScanWarning
from .inference import predict
from .preprocessing import HEART_PATCH, HEART_SPACING_MM, from_grid, heart_grid, heart_input

if TYPE_CHECKING:
    from .models import LoadedModel

MIN_HEART_ML = 50.0
"""A heart has 400 to 1000 ml with its fat; less than this is a misled network, or no heart in the field of view."""


@dataclass(frozen=True)
class HeartNetworkSettings:
    """overlap: share of a patch that neighbouring patches have in common (the paper: overlapping, no number given).

    threshold: probability from which a voxel belongs to the heart. batch_size: patches run at once.
    """

    overlap: float = 0.25
    threshold: float = 0.5
    batch_size: int = 4


def heart_mask(
    scan: CTScan, model: LoadedModel, settings: HeartNetworkSettings = HeartNetworkSettings()
) -> tuple[sitk.Image, tuple[ScanWarning, ...]]:
    """The heart: uint8 0/1 on the scan's grid, the largest connected part above the threshold; and doubts.

    Raises NoHeartError when less than MIN_HEART_ML is found.
    """
    probability, warnings = heart_probability(scan.image, model, settings)
    labels, _ = ndimage.label(probability >= settings.threshold)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    volume_ml = float(sizes[largest]) * math.prod(HEART_SPACING_MM) / 1000
    if volume_ml < MIN_HEART_ML:
        message = (
            f"The network {model.card.name} found {volume_ml:.0f} ml of heart, too little to score. Give a CT that "
            "shows the heart, or a heart mask."
        )
        raise NoHeartError(message)
    # Probabilities are brought back rather than the mask, so that the outline is smooth on the scan's own grid.
    part = np.where(ndimage.binary_dilation(labels == largest), probability, np.float32(0))
    mask = from_grid(part, heart_grid(scan.image), scan.image) >= settings.threshold
    return mask, warnings


def heart_probability(
    image: sitk.Image, model: LoadedModel, settings: HeartNetworkSettings = HeartNetworkSettings()
) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Probability of heart, float32 [k, j, i] on `preprocessing.heart_grid`; and warnings about memory."""
    volume = heart_input(image)
    padded = np.pad(volume, [(0, max(0, HEART_PATCH - n)) for n in volume.shape])
    corners = list(itertools.product(*(_starts(n, settings.overlap) for n in padded.shape)))
    boxes = [tuple(slice(start, start + HEART_PATCH) for start in corner) for corner in corners]
    patches = np.stack([padded[box] for box in boxes])[:, None]
    outputs, warnings = predict(model.network, patches, settings.batch_size)
    total, count = np.zeros(padded.shape, np.float32), np.zeros(padded.shape, np.float32)
    for box, output in zip(boxes, outputs, strict=True):
        total[box] += output[1]
        count[box] += 1
    total /= count
    return total[tuple(slice(n) for n in volume.shape)], warnings


def _starts(length: int, overlap: float) -> list[int]:
    """Where patches start along an axis: evenly spread from end to end, overlapping at least as asked."""
    room = length - HEART_PATCH
    count = math.ceil(room / (HEART_PATCH * (1 - overlap))) + 1
    return [round(n) for n in np.linspace(0, room, count)]
