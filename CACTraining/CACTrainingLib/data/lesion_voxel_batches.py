"""Batches for the voxel network: patches drawn by the kinds in them, turned, shifted, and seen by another scanner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms.utils import create_scale, create_translate

from CACScoringLib.core.ct import AIR_HU
from CACScoringLib.networks.configs import LESION_KINDS, LESION_PATCH, TERRITORY_STRIDE
from CACScoringLib.scoring.lesion_network import PATCH_STEP_MM
from CACScoringLib.scoring.lesion_voxels import CORE, METAL_HU, noise_value

from .lesion_batches import (
    RAREST,
    LesionAugmentation,
    by_other_scanner,
    random_matrix,
    stacked,
    warped,
)
from .lesion_rows import ARTERY_KINDS, ROW_SIZE
from .lesion_voxels import volume_of

LABEL_WEIGHTS = (2.2, 2.4, 2.2, 2.6, 2.5, 2.0, 1.0, 1.6, 0.7, 2.0, 0.8, 0.5, 0.7, 0.6, 1.5, 3.5, 9.0)
"""Relative chances of each label to be drawn: LESION_KINDS and NOT_CORONARY."""

NEIGHBOURS = [LESION_KINDS.index(kind) for kind in ("aortic valve and root", "mitral annulus")]
MIXED = 3.5
"""Kinds beside which arteries are hard to tell, and factor on the chances of patches that hold both."""

LEAST_SHARE = 0.08
"""Share of a patch's voxel that is dense from which it has a label."""

LARGENESS = 0.5
"""Power of a lesion's volume by which the weight of its voxels falls, so that large lesions do not drown small ones."""

LEAST_MM3 = 4.0
"""Volume of the smallest lesions, for their weight."""

BORDER_WEIGHT = 0.3
"""Weight of voxels outside a patch's core, for which another patch answers."""


@dataclass(frozen=True)
class VoxelAugmentation(LesionAugmentation):
    """Changes of a patch, and of the territories in it, which in real scans lie less exactly than in digital ones.

    Attributes:
        territory_shift_mm: SD of the territories' shift along k, j, i against the CT.
        unknown_share: Share of patches whose territories are unknown, all equally likely.
    """

    territory_shift_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)
    unknown_share: float = 0.08


@dataclass(frozen=True)
class VoxelBatch:
    """Patches with the labels of their voxels.

    Attributes:
        x: Input of the network, float32 [n, 16, k, j, i].
        labels: Label of each voxel as in `lesion_voxels.VOXEL_ROW`, 0 where nothing is dense, int64 [n, k, j, i].
        weights: Weight of each voxel in the loss, float32 [n, k, j, i].
    """

    x: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor


class VoxelData:
    """Patches of many scans, on disk. scans: Rows of each (`lesion_voxels.VOXEL_ROW`)."""

    def __init__(self, scans: Sequence[np.ndarray]) -> None:
        self._scans = scans = [rows for rows in scans if len(rows)]
        self._places = [(scan, row) for scan, rows in enumerate(scans) for row in range(len(rows))]
        self.volumes_mm3: np.ndarray = np.concatenate([rows["volumes_mm3"] for rows in scans])

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Read patches, VOXEL_ROW [n]."""
        places = (self._places[number] for number in numbers.tolist())
        return np.stack([self._scans[scan][row] for scan, row in places])

    def chances(self) -> np.ndarray:
        """Return the probability with which each patch is drawn, float [n]: by the kinds in it and their volume."""
        volumes = self.volumes_mm3
        interest = np.where(volumes > 0, 0.5 + np.log1p(volumes), 0.0)
        is_mixed = (volumes[:, :ARTERY_KINDS].sum(1) > 1) & (volumes[:, NEIGHBOURS].sum(1) > 1)
        counts = np.maximum((volumes > 0).sum(axis=0), RAREST)
        mean = interest.sum(axis=0) / np.maximum((volumes > 0).sum(axis=0), 1)
        chances = (interest / np.maximum(mean, 1e-6) * np.array(LABEL_WEIGHTS) / counts).sum(axis=1)
        chances *= np.where(is_mixed, MIXED, 1.0)
        return chances / chances.sum()


def plain_voxels(rows: np.ndarray) -> VoxelBatch:
    """Return patches as they are."""
    middle = create_translate(3, np.subtract(ROW_SIZE, LESION_PATCH) / 2)
    return _batch(rows, np.tile(middle, (len(rows), 1, 1)), None, None)


def varied_voxels(rows: np.ndarray, settings: VoxelAugmentation, generator: np.random.Generator) -> VoxelBatch:
    """Return patches, each turned, shifted and seen by another scanner."""
    matrices = np.stack([random_matrix(settings, generator) for _ in rows])
    return _batch(rows, matrices, settings, generator)


def _batch(
    rows: np.ndarray, matrices: np.ndarray, settings: VoxelAugmentation | None, generator: np.random.Generator | None
) -> VoxelBatch:
    images = np.stack([rows["hu"] - AIR_HU, rows["dense"]], axis=1)
    hu, dense = warped(images, matrices, LESION_PATCH).unbind(1)
    hu, dense = hu + AIR_HU, dense / 100
    codes = np.stack([rows["label"], rows["size"]], axis=1)
    labels, sizes = warped(codes, matrices, LESION_PATCH, "nearest").unbind(1)
    stride = np.array(TERRITORY_STRIDE)
    fine = create_translate(3, (stride - 1) / 2) @ create_scale(3, stride)
    shifts = np.zeros((len(rows), 3))
    if settings is not None and generator is not None:
        shifts = generator.normal(0, settings.territory_shift_mm, shifts.shape) / PATCH_STEP_MM
    shifted = np.stack([create_translate(3, shift) for shift in shifts]) @ matrices
    coarse = np.linalg.inv(fine) @ shifted @ fine
    territories = warped(rows["territories"], coarse, tuple(LESION_PATCH // stride)) / 100
    if settings is not None and generator is not None:
        for n in range(len(rows)):
            hu[n] = by_other_scanner(hu[n], settings, generator)
        exponent = np.exp(generator.uniform(-settings.doubt, settings.doubt, len(rows))).astype(np.float32)
        territories = territories.clamp(min=1e-3) ** torch.from_numpy(exponent).view(-1, 1, 1, 1, 1)
        territories[torch.from_numpy(generator.random(len(rows)) < settings.unknown_share)] = 1.0
        territories = territories / territories.sum(1, keepdim=True)
    noise = torch.tensor([noise_value(None if np.isnan(sd) else float(sd)) for sd in rows["noise_hu"]])
    channel = noise.float().view(-1, 1, 1, 1, 1).expand(-1, 1, *LESION_PATCH)
    is_labelled = (dense >= LEAST_SHARE) & (labels > 0)
    volumes = torch.from_numpy(volume_of(sizes.numpy())).clamp(min=LEAST_MM3)
    weights = dense * volumes**-LARGENESS * _core_weights()
    low, high = METAL_HU
    metal = ((hu - low) / (high - low)).clamp(0, 1)[:, None]
    x = torch.cat([metal, stacked(hu, dense, territories), channel], 1)
    return VoxelBatch(x, (labels * is_labelled).long(), weights * is_labelled)


def _core_weights() -> torch.Tensor:
    """Return 1 in a patch's core and BORDER_WEIGHT outside, float32 [k, j, i]."""
    weights = torch.full(LESION_PATCH, BORDER_WEIGHT)
    weights[tuple(slice((n - c) // 2, (n + c) // 2) for n, c in zip(LESION_PATCH, CORE, strict=True))] = 1.0
    return weights
