"""Balanced and augmented batches of slices as network input."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from CACScoringLib.core.errors import DataError
from CACScoringLib.models.preprocessing import MAP_HU, SLICE_SIZE
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig

from ..phantom import VISIBLE_CONTRAST_TO_NOISE
from .augmentation import Changes, SliceAugmentation, augment_slices, draw_slice_changes
from .datasets import SliceDataset

HEART_MARGIN_PIXELS = 10
"""Difference in pixels between detected and outlined hearts."""


@dataclass(frozen=True)
class Sampling:
    """Balance of batches.

    Attributes:
        positive_share: Share of slices with visible calcium.
        position_tolerance: Largest difference of a negative slice from its positive counterpart in relative position in
            the heart (0 lowest, 1 highest).
        hard_share: Share of negatives in which other structures resemble calcium, or calcium is too faint to show.
        twin_share: Share of negatives made from a positive slice of the same batch by removing its calcium, if known.
        calcium_scale: Largest factor, or its inverse, on a positive slice's calcium, if known; it stays visible.
        real_share: Share of slices from scans without a known true map, where both kinds are there; None for any.
    """

    positive_share: float = 0.5
    position_tolerance: float = 0.08
    hard_share: float = 0.5
    twin_share: float = 0.0
    calcium_scale: float = 1.0
    real_share: float | None = None


@dataclass(frozen=True)
class SliceDraw:
    """Slices of a batch, those with visible calcium first.

    Attributes:
        indices: Indices in a `SliceDataset`, int [n].
        calcium: Factors on the coronary calcium, float32 [n].
        visible: True if the calcium is visible then, bool [n].
    """

    indices: np.ndarray
    calcium: np.ndarray
    visible: np.ndarray


class BalancedSampler:
    """Balanced sampler of slices.

    Args:
        known_maps: True to draw from scans with known true calcium only.
        labels_only: True to use labels and images only.
    """

    def __init__(
        self, data: SliceDataset, sampling: Sampling, known_maps: bool = False, labels_only: bool = False
    ) -> None:
        usable = data.has_map if known_maps else np.ones(len(data), bool)
        negative = usable & ~data.visible
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
        """Draw slices with visible calcium, and the rest of the count without, at matching positions."""
        positives = generator.choice(
            self.positive, max(1, round(count * self.sampling.positive_share)), p=self._chances()
        )
        partners = np.resize(positives, count - len(positives))
        tolerance = self.sampling.position_tolerance
        positions = self.data.position[partners] + generator.uniform(-tolerance, tolerance, len(partners))
        targets = np.clip(positions, 0, 1)
        counterfactual = (generator.random(len(partners)) < self.sampling.twin_share) & self.data.has_map[partners]
        hard = generator.random(len(partners)) < self.sampling.hard_share * (len(self.hard) > 0)
        negatives = [
            self._draw_near(self._of_origin(self.hard if h else self.negative, generator), place, generator)
            for h, place in zip(hard, targets, strict=True)
        ]
        return SliceDraw(
            indices=np.concatenate([positives, np.where(counterfactual, partners, np.array(negatives, np.intp))]),
            calcium=np.concatenate([self._factors(positives, generator), ~counterfactual]).astype(np.float32),
            visible=np.arange(count) < len(positives),
        )

    def _chances(self) -> np.ndarray | None:
        """Return the chance of each positive slice; None if all are equal."""
        share, is_real = self.sampling.real_share, ~self.data.has_map[self.positive]
        if share is None or is_real.all() or not is_real.any():
            return None
        return np.where(is_real, share / max(1, is_real.sum()), (1 - share) / max(1, (~is_real).sum()))

    def _of_origin(self, pool: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return the slices of a pool from real or from digital scans, drawn by `real_share`; all without it."""
        if self.sampling.real_share is None:
            return pool
        part = pool[self.data.has_map[pool] != (generator.random() < self.sampling.real_share)]
        return part if len(part) else pool

    def _factors(self, positives: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw factors on the calcium of positive slices; 1 if the true calcium is unknown."""
        limit = math.log(self.sampling.calcium_scale)
        factors = np.exp(generator.uniform(-limit, limit, len(positives)))
        contrast = self.data.contrast[positives]
        scalable = self.data.has_map[positives] & (contrast > VISIBLE_CONTRAST_TO_NOISE)
        return np.where(
            scalable, np.maximum(factors, VISIBLE_CONTRAST_TO_NOISE / np.where(scalable, contrast, 1.0)), 1.0
        )

    def _draw_near(self, pool: np.ndarray, place: float, generator: np.random.Generator) -> int:
        places = self.data.position[pool]
        tolerance = self.sampling.position_tolerance
        low, high = np.searchsorted(places, (place - tolerance / 2, place + tolerance / 2))
        if low >= high:  # none in the interval: take the nearest
            low = min(low, len(pool) - 1)
            high = low + 1
        return int(pool[generator.integers(low, high)])

    def _by_position(self, is_member: np.ndarray) -> np.ndarray:
        indices = np.nonzero(is_member)[0]
        return indices[np.argsort(self.data.position[indices], kind="stable")]


class SliceStore:
    """Slices of a dataset for batches: on a graphics card where they fit there, else memory-mapped.

    A processor reads the memory-mapped arrays, which are in its memory anyway once they were read.

    Args:
        device: Device of the training.
    """

    def __init__(self, data: SliceDataset, device: torch.device | str = "cpu") -> None:
        self.data = data
        self._on_card: dict[str, torch.Tensor] = {}
        size = sum(array.nbytes for arrays in data.arrays.values() for array in arrays)
        # The other half is for the training.
        if torch.device(device).type == "cuda" and 2 * size <= torch.cuda.mem_get_info(device)[0]:
            self.load(device)

    def load(self, device: torch.device | str) -> None:
        """Copy all slices to a device, in one tensor of each kind; a row −1 is empty."""
        for kind, arrays in self.data.arrays.items():
            empty = np.zeros((1, *arrays[0].shape[1:]), arrays[0].dtype)
            parts = [torch.from_numpy(np.array(array)).to(device) for array in (*arrays, empty)]
            self._on_card[kind] = torch.cat(parts)

    def fetch(self, kind: str, rows: np.ndarray) -> torch.Tensor:
        """Read rows of a kind (`SliceDataset.read`), or return the rows where the slices lie on the card."""
        return torch.from_numpy(rows if self._on_card else self.data.read(kind, rows))

    def values(self, kind: str, fetched: torch.Tensor) -> torch.Tensor:
        """Return the slices that were fetched, float32."""
        return (self._on_card[kind][fetched] if self._on_card else fetched).float()


def draw_slices(
    store: SliceStore,
    drawn: SliceDraw,
    config: SliceClassifierConfig | GeneratorConfig,
    augmentation: SliceAugmentation,
    generator: np.random.Generator,
    with_maps: bool = False,
) -> Changes:
    """Fetch the slices of a batch, and draw their changes, for `vary_slices`. with_maps: True for map and heart too."""
    data, factors = store.data, drawn.calcium
    hu, maps, heart = data.rows(drawn.indices, config.neighbours)
    is_scaled = (maps >= 0) & (factors != 1)[:, None]
    batch = {
        "hu": store.fetch("hu", hu),
        "scaled": store.fetch("maps", maps[is_scaled]),
        "scaled_at": torch.from_numpy(np.flatnonzero(is_scaled)),
        "scaled_by": torch.from_numpy(np.repeat(factors - 1, is_scaled.sum(1)) * np.float32(MAP_HU)),
    }
    if with_maps:
        batch |= {"maps": store.fetch("maps", maps[:, 0]), "heart": store.fetch("heart", heart)}
        batch["calcium"] = torch.from_numpy(factors)
    if config.position:
        batch["places"] = torch.from_numpy(data.position_profiles(drawn.indices))
    places = 3 * config.position
    return batch | draw_slice_changes(len(hu), SLICE_SIZE, augmentation, generator, places)


def vary_slices(store: SliceStore, batch: Changes, crop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment slices as network input [n, C, crop, crop], and true map and heart [n, 2, crop, crop].

    batch: From `draw_slices`; without maps in it there is neither map nor heart, [n, 0, crop, crop].
    """
    extra = None
    if "places" in batch:
        i, j, k = batch["places"].unbind(1)
        extra = torch.stack(torch.broadcast_tensors(i[:, None, :], j[:, :, None], k[:, None, :]), 1)
    maps = None
    if "maps" in batch:
        calcium = store.values("maps", batch["maps"]) * batch["calcium"][:, None, None]
        maps = torch.stack([calcium, store.values("heart", batch["heart"])], 1)
    x, augmented_maps = augment_slices(scaled_hu(store, batch), extra, batch, crop, maps)
    return x, x[:, :0] if augmented_maps is None else augmented_maps


def scaled_hu(store: SliceStore, batch: Changes) -> torch.Tensor:
    """Return slices and their neighbours with scaled calcium, HU float32 [n, C, 224, 224]."""
    hu = store.values("hu", batch["hu"])
    if len(batch["scaled_at"]):
        maps = store.values("maps", batch["scaled"]) * batch["scaled_by"][:, None, None]
        hu.flatten(0, 1).index_add_(0, batch["scaled_at"], maps)
    return hu


def near_heart(heart: torch.Tensor) -> torch.Tensor:
    """Return True for pixels within HEART_MARGIN_PIXELS of the heart [n, 1, j, i] (0 to 1), bool of the same shape."""
    side, margin = 2 * HEART_MARGIN_PIXELS + 1, HEART_MARGIN_PIXELS
    # Rows and columns one after the other: 21 times fewer comparisons.
    along_rows = functional.max_pool2d(heart, (1, side), 1, (0, margin))
    return functional.max_pool2d(along_rows, (side, 1), 1, (margin, 0)) > 0.5
