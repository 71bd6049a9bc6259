"""Kind of every dense voxel by the lesion network.

Patches cover all dense voxels, each of which is answered once. A patch has voxels of PATCH_STEP_MM, whatever those of
the scan are. It shows the CT in windows, what is dense, the territories and the scan's noise; not the calcium map,
whose silence would prove nothing. It answers for the dense voxels in its core, so that lesions of any size and any
number of specks take as many patches as they fill space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..anatomy.territories import Territories
from ..core.ct import AIR_HU, CTScan
from ..core.grid import bounding_box
from ..core.scan_grid import interval_means, linear_area, slab_area
from ..models.cards import LoadedModel
from ..models.inference import predict
from ..networks.configs import (
    LESION_IMAGES,
    LESION_KINDS,
    LESION_PATCH,
    LESION_TERRITORIES,
    TERRITORY_STRIDE,
)
from .sites import UNKNOWN_NOISE_HU

PATCH_STEP_MM = (2.0, 0.75, 0.75)
"""Spacing of a patch's voxels along k, j, i."""

CORE = (10, 28, 28)
"""Size of the part of a patch that it answers for, in its voxels along k, j, i."""

WINDOWS_HU = ((1500.0, 3000.0), (-150.0, 350.0), (-150.0, 1500.0))
"""Windows of the CT's channels, each scaled to 0 to 1; the first tells metal from the densest plaque."""

NOISE_SCALE_HU = 50.0
"""SD of noise that the network sees as 1."""

BATCH_SIZE = 16
"""Patches judged at once, 2 MB each."""


@dataclass(frozen=True)
class PatchSampler:
    """Samples patches around a voxel.

    Attributes:
        boxes: Part of the scan that the patch needs along k, j, i.
        weights: Weights [size, needed] along each axis that give the patch's voxels; 0 beyond the scan.
    """

    boxes: tuple[slice, ...]
    weights: tuple[np.ndarray, ...]

    @classmethod
    def around(
        cls, centre: np.ndarray, shape: tuple[int, ...], spacing_mm: np.ndarray, size: tuple[int, ...] = LESION_PATCH
    ) -> PatchSampler:
        """Make the sampler of a patch centred on a voxel (k, j, i) of a scan. spacing_mm: along k, j, i."""
        boxes, weights = [], []
        for axis, (count, voxel, voxels, width) in enumerate(
            zip(shape, centre.tolist(), size, (np.array(PATCH_STEP_MM) / spacing_mm).tolist(), strict=True)
        ):
            places = voxel + width * (np.arange(voxels) - (voxels - 1) / 2)
            axis_weights = interval_means(slab_area if axis == 0 else linear_area, count, places, width)
            (box,) = bounding_box(axis_weights.sum(axis=0))
            boxes.append(box)
            weights.append(axis_weights[:, box])
        return cls(tuple(boxes), tuple(weights))

    def sample(self, part: np.ndarray, outside: float = 0.0) -> np.ndarray:
        """Sample the part of a volume [k, j, i] in `boxes`: float32 [size]. outside: Value beyond the scan."""
        planes, rows, columns = self.weights
        excess = part.astype(np.float32) - np.float32(outside)
        return np.matmul(np.matmul(rows, np.tensordot(planes, excess, 1)), columns.T) + np.float32(outside)


@dataclass(frozen=True)
class LesionPatch:
    """Patch of a scan.

    Attributes:
        hu: CT in HU, float32 [k, j, i].
        dense: Share of each voxel that is dense, float32 [k, j, i].
        territories: Probability of each of TERRITORIES, float32 [11, k', j', i'], one for TERRITORY_STRIDE voxels.
    """

    hu: np.ndarray
    dense: np.ndarray
    territories: np.ndarray


def territories_around(
    territories: Territories, centre: np.ndarray, spacing_mm: np.ndarray, size: tuple[int, ...]
) -> np.ndarray:
    """Return the territories' probabilities around a voxel (k, j, i), float32 [11, *size / TERRITORY_STRIDE]."""
    from scipy import ndimage

    grid = territories.grid
    axes = []
    for axis, (voxels, stride, step_mm) in enumerate(zip(size, TERRITORY_STRIDE, PATCH_STEP_MM, strict=True)):
        offsets_mm = step_mm * ((np.arange(voxels // stride) + 0.5) * stride - voxels / 2)
        axes.append((centre[axis] + offsets_mm / spacing_mm[axis] - grid.first[2 - axis]) / grid.step[2 - axis])
    box = []
    for places, count in zip(axes, territories.heart.shape, strict=True):
        first = min(max(int(np.floor(places.min())) - 1, 0), count - 1)
        box.append(slice(first, max(min(int(np.ceil(places.max())) + 2, count), first + 1)))
    places = np.stack(np.meshgrid(*(p - part.start for p, part in zip(axes, box, strict=True)), indexing="ij"))
    nearby = territories.probability[(slice(None), *box)]
    return np.stack([ndimage.map_coordinates(p, places, order=1, mode="nearest") for p in nearby])


def network_input(patch: LesionPatch, noise_hu: float | None) -> np.ndarray:
    """Return a patch as the network sees it, float32 [16, k, j, i].

    noise_hu: SD of the scan's noise; None if it could not be measured.
    """
    inputs = np.empty((LESION_IMAGES + LESION_TERRITORIES + 1, *patch.hu.shape), np.float32)
    for channel, (low, high) in enumerate(WINDOWS_HU):
        np.clip((patch.hu - low) / (high - low), 0, 1, out=inputs[channel])
    inputs[LESION_IMAGES - 1] = patch.dense
    values = patch.territories
    for axis, stride in enumerate(TERRITORY_STRIDE, 1):
        values = values.repeat(stride, axis)
    inputs[LESION_IMAGES:-1] = values
    inputs[-1] = min((UNKNOWN_NOISE_HU if noise_hu is None else noise_hu) / NOISE_SCALE_HU, 1.5)
    return inputs


@dataclass(frozen=True)
class Covering:
    """Patches that cover voxels.

    Attributes:
        centres: Central voxel of each patch, int [patches, 3], along k, j, i.
        patch: Patch that answers for each voxel, the one in which it lies most centrally, int [n].
    """

    centres: np.ndarray
    patch: np.ndarray


def covering(places: np.ndarray, spacing_mm: np.ndarray) -> Covering:
    """Cover voxels by the cores of patches, each centred on one of them.

    Args:
        places: The voxels, int [n, 3], along k, j, i.
        spacing_mm: Of the scan, along k, j, i.
    """
    half = np.array(CORE) / 2 * np.array(PATCH_STEP_MM) / spacing_mm
    places_in_cores = places / half
    uncovered = np.arange(len(places))
    centres: list[np.ndarray] = []
    patch, nearest = np.zeros(len(places), int), np.full(len(places), np.inf)
    while len(uncovered):
        around = uncovered[np.abs(places_in_cores[uncovered] - places_in_cores[uncovered[0]]).max(axis=1) <= 1]
        offsets = places_in_cores[around] - places_in_cores[around].mean(axis=0)
        centre = around[int((offsets**2).sum(axis=1).argmin())]
        distance = np.abs(places_in_cores - places_in_cores[centre]).max(axis=1)
        is_nearer = distance < nearest
        nearest[is_nearer], patch[is_nearer] = distance[is_nearer], len(centres)
        centres.append(places[centre])
        uncovered = uncovered[distance[uncovered] > 1]
    return Covering(np.array(centres, int).reshape(-1, 3), patch)


def voxel_kinds(
    flat: np.ndarray,
    scan: CTScan,
    territories: Territories,
    noise_hu: float | None,
    model: LoadedModel,
    is_asked: np.ndarray | bool = True,
) -> np.ndarray:
    """Ask the lesion network what each dense voxel is.

    Args:
        flat: Indices of the dense voxels, rising.
        scan: The scan as scored.
        territories: Territories of the scan.
        noise_hu: SD of the scan's noise; None if it could not be measured.
        model: Lesion network.
        is_asked: False for voxels whose answer is not needed, bool [n], as of specks that cannot be lesions: a noisy
            scan has hundreds.

    Returns:
        Probability of each of LESION_KINDS, float32 [n, kinds]; 0 in patches without a voxel that is asked about.

    Raises:
        CTError: The device has too little memory.
    """
    spacing_mm = np.array(scan.image.GetSpacing()[::-1])
    places = np.stack(np.unravel_index(flat, scan.hu.shape), axis=1)
    cover = covering(places, spacing_mm)
    dense = np.zeros(scan.hu.shape, bool)
    dense.reshape(-1)[flat] = True
    kinds = np.zeros((len(flat), len(LESION_KINDS)), np.float32)
    needed = np.unique(cover.patch[np.broadcast_to(is_asked, len(flat))])
    for first in range(0, len(needed), BATCH_SIZE):
        numbers = needed[first : first + BATCH_SIZE]
        patches = [_patch(cover.centres[number], dense, scan, territories) for number in numbers]
        answers, _ = predict(model.network, np.stack([network_input(patch, noise_hu) for patch in patches]), BATCH_SIZE)
        for number, answer in zip(numbers, answers, strict=True):
            of_patch = cover.patch == number
            kinds[of_patch] = _at_voxels(answer, places[of_patch], cover.centres[number], spacing_mm)
    return kinds


def _patch(centre: np.ndarray, dense: np.ndarray, scan: CTScan, territories: Territories) -> LesionPatch:
    """Return the patch around a voxel. dense: bool [k, j, i]."""
    spacing_mm = np.array(scan.image.GetSpacing()[::-1])
    sampler = PatchSampler.around(centre, scan.hu.shape, spacing_mm)
    hu, share = sampler.sample(scan.hu[sampler.boxes], AIR_HU), sampler.sample(dense[sampler.boxes])
    return LesionPatch(hu, share, territories_around(territories, centre, spacing_mm, LESION_PATCH))


def _at_voxels(answer: np.ndarray, places: np.ndarray, centre: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Interpolate a patch's probabilities [kinds, k, j, i] at voxels [n, 3] of the scan; rows add up to 1."""
    from scipy import ndimage

    middle = (np.array(answer.shape[1:]) - 1) / 2
    at = ((places - centre) * spacing_mm / np.array(PATCH_STEP_MM) + middle).T
    values = np.stack([ndimage.map_coordinates(kind, at, order=1, mode="nearest") for kind in answer], axis=1)
    return values / np.maximum(values.sum(axis=1, keepdims=True), 1e-6)
