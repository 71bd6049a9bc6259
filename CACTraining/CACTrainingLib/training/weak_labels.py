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


def loss_in_lesions(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy in the lesions of target maps [n, 1, j, i], on the scale of `map_loss`.

    Lesions are those of an automatic score, and other pixels may hold calcium that it missed; they do not count.
    """
    weights = SPOT_WEIGHT * (target > _SPOT)
    return (functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * weights).mean()


def draw_spots(count: int, neighbours: int, generator: np.random.Generator) -> dict[str, torch.Tensor]:
    """Draw the spots of slices without calcium, for `paint_spots`, and their shares in the neighbours, for `add_spots`.

    Each slice has one to MAX_SPOTS, each the sum of a few Gaussians along a line.
    """
    g, spots = generator, (count, MAX_SPOTS)
    parts = (*spots, MAX_SPOT_PARTS)
    has_spot = np.arange(MAX_SPOTS) < g.integers(1, MAX_SPOTS + 1, (count, 1))
    has_part = np.arange(MAX_SPOT_PARTS) < g.integers(1, MAX_SPOT_PARTS + 1, (*spots, 1))
    angle = g.uniform(0, math.pi, (*spots, 1))
    along, across = (g.normal(0, distance, parts) for distance in PART_DISTANCE_PIXELS)
    down = along * np.sin(angle) + across * np.cos(angle)
    right = along * np.cos(angle) - across * np.sin(angle)
    scale = -0.5 / g.uniform(*PART_SIGMA_PIXELS, parts) ** 2
    drawn = {
        "spot_place": g.random(spots),
        "spot_parts": np.stack([down, right, scale, g.uniform(0.3, 1, parts) * has_part], -1),
        "spot_peak": np.exp(g.uniform(math.log(SPOT_HU[0]), math.log(SPOT_HU[1]), spots)) / MAP_HU * has_spot,
        "spot_shares": np.insert(g.uniform(0, MAX_NEIGHBOUR_SHARE, (count, 2 * neighbours)), 0, 1, axis=1),
    }
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in drawn.items()}


def paint_spots(near_heart: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the HU of spots at places near the heart, float32 [n, 1, j, i], in units of 1000 HU.

    Args:
        near_heart: bool [n, 1, j, i].
        drawn: From `draw_spots`; each place is a share of the pixels near the heart.
    """
    rows, columns = near_heart.shape[2:]
    order = near_heart.flatten(1).cumsum(1)
    count = order[:, -1:]
    number = (drawn["spot_place"] * count).long() + 1
    pixel = torch.searchsorted(order, number).clamp_(max=rows * columns - 1)[..., None]
    down, right, scale, amplitude = drawn["spot_parts"].unbind(-1)
    j, i = (torch.arange(side, dtype=torch.float32, device=scale.device) for side in (rows, columns))
    scale = scale[..., None]
    profile_j = torch.exp(scale * (j - (pixel // columns + down)[..., None]) ** 2) * amplitude[..., None]
    profile_i = torch.exp(scale * (i - (pixel % columns + right)[..., None]) ** 2)
    spots = profile_j.transpose(-1, -2) @ profile_i
    peak = drawn["spot_peak"] * (count > 0) / spots.amax((-1, -2))
    return (spots * peak[..., None, None]).sum(1, keepdim=True)


def add_spots(x: torch.Tensor, spots: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Add spots to slices as network input [n, C, j, i]. shares: of the slice (1) and its neighbours, [n, channels]."""
    result, count = x.clone(), shares.shape[1]
    result[:, :count] = (x[:, :count] + spots * shares[..., None, None]).clamp(0, 1)
    return result
