"""Losses that teach a calcium map from slice labels beside the discriminators: the labels themselves, and drawn spots.

Neither is part of van Velzen et al. A slice's label says that its map is somewhere above zero, or nowhere
(multiple-instance learning: the highest pixels stand for the slice). Calcium adds to what is beneath it, so spots of
known shape drawn into slices without calcium can be asked back to the pixel; no outline of a lesion is needed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from CACScoringLib.models.preprocessing import MAP_HU

HIGHEST_PIXELS = 6
"""Of a slice's map, these stand for its label: a lesion of a few square millimetres."""

VISIBLE_LOGIT = math.log(0.06 / 0.94)
"""Of a map at 60 HU, between what shows and what does not."""

ENOUGH_LOGIT = math.log(0.15 / 0.85)
"""Of a map at 150 HU. Where a slice shows calcium, its label asks for no more; how much it is, spots have taught."""

NOWHERE = -12.0

MOST_SPOTS, MOST_PARTS = 3, 4
SPOT_HU = (30.0, 500.0)
PART_SIGMA_PIXELS = (0.8, 1.8)
PART_DISTANCE_PIXELS = (2.5, 0.7)
"""Standard deviations along and across a spot; pixels are 1 mm, and arteries are long."""

MOST_IN_NEIGHBOUR = 0.8
SPOT_WEIGHT, BEYOND_WEIGHT = 11.0, 0.1
"""Of pixels of a spot, and of pixels away from the heart, where scoring drops the map; 1 for the others."""

_SPOT = 0.01


def label_loss(logits: torch.Tensor, near_heart: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of slice labels, predicted by the mean logit of the map's highest pixels near the heart.

    A slice with calcium teaches nothing to pixels above ENOUGH_LOGIT.

    logits: [n, 1, j, i]. near_heart: bool, alike. visible: bool [n].
    """
    inside = logits.masked_fill(~near_heart, NOWHERE).flatten(1)
    inside = torch.where(visible[:, None], inside.clamp(max=ENOUGH_LOGIT), inside)
    highest = inside.topk(HIGHEST_PIXELS, 1).values.mean(1) - VISIBLE_LOGIT
    return functional.binary_cross_entropy_with_logits(highest, visible.float())


def map_loss(logits: torch.Tensor, known: torch.Tensor, near_heart: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with a map that is known, [n, 1, j, i], 0 to 1; calcium counts more, places off the heart less."""
    weights = 1 + (SPOT_WEIGHT - 1) * (known > _SPOT)
    weights = weights * torch.where(near_heart, 1.0, BEYOND_WEIGHT)
    return (functional.binary_cross_entropy_with_logits(logits, known, reduction="none") * weights).mean()


def draw_spots(near_heart: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Spots at random places near the heart: what they add, float32 [n, 1, j, i], 1 for 1000 HU.

    near_heart: bool [n, 1, j, i]. Each slice has one to MOST_SPOTS, each the sum of a few Gaussians along a line.
    """
    n, _, rows, columns = near_heart.shape
    spots = np.zeros((n, rows, columns), np.float32)
    j, i = np.arange(rows)[:, None], np.arange(columns)
    for own, inside in zip(spots, near_heart[:, 0].numpy(), strict=True):
        places = np.argwhere(inside)
        for _ in range(int(generator.integers(1, MOST_SPOTS + 1)) * bool(len(places))):
            centre, angle = places[generator.integers(len(places))], generator.uniform(0, math.pi)
            spot = np.zeros_like(own)
            for _ in range(int(generator.integers(1, MOST_PARTS + 1))):
                along, across = generator.normal(0, PART_DISTANCE_PIXELS)
                y = centre[0] + along * math.sin(angle) + across * math.cos(angle)
                x = centre[1] + along * math.cos(angle) - across * math.sin(angle)
                scale = -0.5 / generator.uniform(*PART_SIGMA_PIXELS) ** 2
                profiles = np.exp(scale * (j - y) ** 2), np.exp(scale * (i - x) ** 2)
                spot += generator.uniform(0.3, 1) * profiles[0] * profiles[1]
            peak = math.exp(generator.uniform(*np.log(SPOT_HU))) / MAP_HU
            own += spot * np.float32(peak / spot.max())
    return torch.from_numpy(spots)[:, None]


def add_spots(x: torch.Tensor, spots: torch.Tensor, neighbours: int, generator: np.random.Generator) -> torch.Tensor:
    """Slices as network input [n, C, j, i] with spots in them, and a random part of each in the slices beside."""
    shares = generator.uniform(0, MOST_IN_NEIGHBOUR, (len(x), 2 * neighbours)).astype(np.float32)
    seen = np.concatenate([np.ones((len(x), 1), np.float32), shares], 1)
    added = x.clone()
    count = 1 + 2 * neighbours
    added[:, :count] = (x[:, :count] + spots * torch.from_numpy(seen)[..., None, None]).clamp(0, 1)
    return added
