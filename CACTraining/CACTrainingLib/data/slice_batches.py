"""Batches of slices: drawn in balance, varied, and as the networks take them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from CACScoringLib.networks.van_velzen import GeneratorConfig, SliceClassifierConfig

from ..phantom.cohort.export import VISIBLE_CONTRAST_TO_NOISE
from .augmentation import SliceAugmentation, augment_slices
from .datasets import DataError, SliceDataset

HEART_MARGIN_PIXELS = 10
"""Hearts found in use differ from outlined ones by this much."""


@dataclass(frozen=True)
class Sampling:
    """Balance of batches.

    positive_share: of slices with visible calcium. position_tolerance: how far from a positive slice's relative
    position in the heart (0 lowest, 1 highest) its negative counterpart may lie. hard_share: of the negatives, those
    drawn where something else resembles calcium, or calcium is too faint to show. hidden_calcium: whether slices with
    calcium too faint to show count as negative, as in weakly labelled data; else they are left out of the negatives.

    Where the true calcium is known, it can be varied. twin_share: of the negatives, those that are a positive slice of
    the same batch with its calcium taken out, so that nothing else distinguishes them. calcium_scale: largest factor by
    which a positive slice's calcium is made denser or fainter, but never too faint to show.
    """

    positive_share: float = 0.5
    position_tolerance: float = 0.08
    hard_share: float = 0.5
    hidden_calcium: bool = True
    twin_share: float = 0.0
    calcium_scale: float = 1.0


@dataclass(frozen=True)
class SliceDraw:
    """Slices of a batch, those with visible calcium first.

    chosen: int [n], indices in a `SliceDataset`. calcium: float32 [n], what their coronary calcium is multiplied by.
    visible: bool [n], whether it then shows.
    """

    chosen: np.ndarray
    calcium: np.ndarray
    visible: np.ndarray


class BalancedSampler:
    """Draws slices in balance.

    known_maps: draw only from scans whose true calcium is known. labels_only: choose by nothing but labels and images.
    """

    def __init__(
        self, data: SliceDataset, sampling: Sampling, known_maps: bool = False, labels_only: bool = False
    ) -> None:
        usable = data.has_map if known_maps else np.ones(len(data), bool)
        negative = usable & ~data.visible & (sampling.hidden_calcium | ~data.calcium)
        self.data, self.sampling = data, sampling
        self.positive = np.nonzero(usable & data.visible)[0]
        self.negative = self._by_position(negative)
        self.hard = self._by_position(negative & (data.bright | (data.calcium & (not labels_only))))
        if not len(self.positive) or not len(self.negative):
            raise DataError(
                f"{len(self.positive)} slices with and {len(self.negative)} without calcium can be drawn; both are "
                "needed. Give more patients."
            )

    def draw(self, generator: np.random.Generator, count: int) -> SliceDraw:
        """Slices with visible calcium, and as many as make up the count without, at matching positions."""
        positives = generator.choice(self.positive, max(1, round(count * self.sampling.positive_share)))
        partners = np.resize(positives, count - len(positives))
        tolerance = self.sampling.position_tolerance
        places = self.data.position[partners] + generator.uniform(-tolerance, tolerance, len(partners))
        wanted = np.clip(places, 0, 1)
        counterfactual = (generator.random(len(partners)) < self.sampling.twin_share) & self.data.has_map[partners]
        hard = generator.random(len(partners)) < self.sampling.hard_share * (len(self.hard) > 0)
        pools = (self.negative, self.hard)
        others = [self._near(pools[h], place, generator) for h, place in zip(hard.astype(int), wanted, strict=True)]
        return SliceDraw(
            chosen=np.concatenate([positives, np.where(counterfactual, partners, np.array(others, np.intp))]),
            calcium=np.concatenate([self._factors(positives, generator), ~counterfactual]).astype(np.float32),
            visible=np.arange(count) < len(positives),
        )

    def _factors(self, positives: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Factors of the calcium of positive slices; 1 where it is not known."""
        limit = math.log(self.sampling.calcium_scale)
        factors = np.exp(generator.uniform(-limit, limit, len(positives)))
        contrast = self.data.contrast[positives]
        known = self.data.has_map[positives] & (contrast > VISIBLE_CONTRAST_TO_NOISE)
        return np.where(known, np.maximum(factors, VISIBLE_CONTRAST_TO_NOISE / np.where(known, contrast, 1.0)), 1.0)

    def _near(self, pool: np.ndarray, place: float, generator: np.random.Generator) -> int:
        places = self.data.position[pool]
        tolerance = self.sampling.position_tolerance
        low, high = np.searchsorted(places, (place - tolerance / 2, place + tolerance / 2))
        if low >= high:  # nothing there: the nearest
            low = min(low, len(pool) - 1)
            high = low + 1
        return int(pool[generator.integers(low, high)])

    def _by_position(self, which: np.ndarray) -> np.ndarray:
        chosen = np.nonzero(which)[0]
        return chosen[np.argsort(self.data.position[chosen], kind="stable")]


def vary_slices(
    data: SliceDataset,
    drawn: SliceDraw,
    config: SliceClassifierConfig | GeneratorConfig,
    augmentation: SliceAugmentation,
    generator: np.random.Generator,
    with_maps: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Slices as network input [n, C, crop, crop], augmented; if asked for, true map and heart [n, 2, crop, crop]."""
    hu = data.hu(drawn.chosen, config.neighbours, drawn.calcium)
    none = np.empty((len(hu), 0, *hu.shape[2:]), np.float32)
    extra = data.position_channels(drawn.chosen) if config.position else none
    maps = None
    if with_maps:
        calcium = data.true_map(drawn.chosen) * drawn.calcium[:, None, None, None]
        maps = np.concatenate([calcium, data.heart(drawn.chosen)[:, None]], 1, dtype=np.float32)
    x, maps = augment_slices(hu, extra, augmentation, generator, maps)
    return x.contiguous(memory_format=torch.channels_last), maps


def near_heart(heart: torch.Tensor) -> torch.Tensor:
    """Pixels in the heart, [n, 1, j, i], 0 to 1, or at most HEART_MARGIN_PIXELS from it: bool, alike."""
    return functional.max_pool2d(heart, 2 * HEART_MARGIN_PIXELS + 1, 1, HEART_MARGIN_PIXELS) > 0.5
