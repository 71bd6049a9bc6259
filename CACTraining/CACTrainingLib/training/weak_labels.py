"""Teach a calcium map from slice labels by losses beside the discriminators': slice labels, drawn spots, lesions.

None is part of van Velzen et al. The map has to predict its slice's label (multiple-instance learning: the highest
pixels represent the slice). Calcium adds to the HU beneath it, so spots of known shape, drawn into slices without
calcium, have a known map to the pixel, and no lesion has to be outlined. Confident lesions of an automatic score may be
targets where a person saw calcium in the slice.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from CACScoringLib.models.preprocessing import MAP_HU

HIGHEST_PIXELS = 6
"""Pixels of a slice's map that represent the slice: the area of a lesion of a few square millimetres."""

VISIBLE_LOGIT = math.log(0.06 / 0.94)
"""Logit of a map at 60 HU, the limit of visibility."""

ENOUGH_LOGIT = math.log(0.15 / 0.85)
"""Logit of a map at 150 HU, above which a slice's label adds no loss; amounts are learned from the spots."""

NOWHERE = -12.0

MAX_SPOTS, MAX_SPOT_PARTS = 3, 4
SPOT_HU = (30.0, 500.0)
PART_SIGMA_PIXELS = (0.8, 1.8)
PART_DISTANCE_PIXELS = (2.5, 0.7)
"""Standard deviations along and across a spot, in pixels of 1 mm; spots are elongated as arteries are."""

MAX_NEIGHBOUR_SHARE = 0.8
SPOT_WEIGHT, OUTSIDE_WEIGHT = 11.0, 0.1
"""Weights of pixels in a spot, and away from the heart, where scoring drops the map; others have weight 1."""

_SPOT = 0.01


def label_loss(logits: torch.Tensor, near_heart: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of slice labels, predicted by the map's highest pixels near the heart.

    A slice with calcium teaches nothing to pixels above ENOUGH_LOGIT.

    Args:
        logits: Logits of the map, [n, 1, j, i].
        near_heart: True near the heart, [n, 1, j, i].
        visible: True for slices with visible calcium, [n].
    """
    inside = logits.masked_fill(~near_heart, NOWHERE).flatten(1)
    inside = torch.where(visible[:, None], inside.clamp(max=ENOUGH_LOGIT), inside)
    highest = inside.topk(HIGHEST_PIXELS, 1).values.mean(1) - VISIBLE_LOGIT
    return functional.binary_cross_entropy_with_logits(highest, visible.float())


def map_loss(logits: torch.Tensor, target: torch.Tensor, near_heart: torch.Tensor) -> torch.Tensor:
    """Return the weighted cross-entropy with a target map [n, 1, j, i] from 0 to 1 (see SPOT_WEIGHT)."""
    weights = 1 + (SPOT_WEIGHT - 1) * (target > _SPOT)
    weights = weights * torch.where(near_heart, 1.0, OUTSIDE_WEIGHT)
    return (functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * weights).mean()


def lesion_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy in the lesions of target maps [n, 1, j, i], on the scale of `map_loss`.

    Lesions are those of an automatic score, and other pixels may hold calcium that it missed; they do not count.
    """
    weights = SPOT_WEIGHT * (target > _SPOT)
    return (functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * weights).mean()


def draw_spots(near_heart: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Draw the HU of spots at random places near the heart, float32 [n, 1, j, i], in units of 1000 HU.

    Each slice has one to MAX_SPOTS, each the sum of a few Gaussians along a line. near_heart: bool [n, 1, j, i].
    """
    n, _, rows, columns = near_heart.shape
    spots = np.zeros((n, rows, columns), np.float32)
    j, i = np.arange(rows)[:, None], np.arange(columns)
    for canvas, allowed in zip(spots, near_heart[:, 0].numpy(), strict=True):
        places = np.argwhere(allowed)
        for _ in range(int(generator.integers(1, MAX_SPOTS + 1)) * bool(len(places))):
            centre, angle = places[generator.integers(len(places))], generator.uniform(0, math.pi)
            spot = np.zeros_like(canvas)
            for _ in range(int(generator.integers(1, MAX_SPOT_PARTS + 1))):
                along, across = generator.normal(0, PART_DISTANCE_PIXELS)
                y = centre[0] + along * math.sin(angle) + across * math.cos(angle)
                x = centre[1] + along * math.cos(angle) - across * math.sin(angle)
                scale = -0.5 / generator.uniform(*PART_SIGMA_PIXELS) ** 2
                profiles = np.exp(scale * (j - y) ** 2), np.exp(scale * (i - x) ** 2)
                spot += generator.uniform(0.3, 1) * profiles[0] * profiles[1]
            peak = math.exp(generator.uniform(*np.log(SPOT_HU))) / MAP_HU
            canvas += spot * np.float32(peak / spot.max())
    return torch.from_numpy(spots)[:, None]


def add_spots(x: torch.Tensor, spots: torch.Tensor, neighbours: int, generator: np.random.Generator) -> torch.Tensor:
    """Add spots to slices as network input [n, C, j, i], and a random part of each to the neighbouring slices."""
    shares = generator.uniform(0, MAX_NEIGHBOUR_SHARE, (len(x), 2 * neighbours)).astype(np.float32)
    fractions = np.concatenate([np.ones((len(x), 1), np.float32), shares], 1)
    result = x.clone()
    count = 1 + 2 * neighbours
    result[:, :count] = (x[:, :count] + spots * torch.from_numpy(fractions)[..., None, None]).clamp(0, 1)
    return result
