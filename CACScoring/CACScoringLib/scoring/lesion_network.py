"""Patches of lesions, as the lesion network sees them in the CT, and its answers.

A patch is centred on the lesion and has voxels of PATCH_STEP_MM, whatever those of the scan are. It shows the CT in two
windows, the lesion's mask, and the territories' probabilities; not the calcium map, whose silence would prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..anatomy.territories import Territories
from ..core.ct import AIR_HU, CTScan
from ..core.grid import bounding_box, interval_means, linear_area, slab_area
from ..models.cards import LoadedModel
from ..models.inference import predict
from ..networks.configs import LESION_IMAGES, LESION_KINDS, LESION_PATCH, LESION_TERRITORIES, TERRITORY_STRIDE

PATCH_STEP_MM = (2.0, 0.75, 0.75)
"""Spacing of a patch's voxels along k, j, i."""

WINDOWS_HU = ((-150.0, 350.0), (-150.0, 1500.0))
"""Windows of the CT's two channels, each scaled to 0 to 1."""

BATCH_SIZE = 16
"""Patches that a GPU judges at once."""

MAX_HELD = 64
"""Patches held in memory at once, 2 MB each: a noisy scan has thousands."""

CORONARY_KINDS = [LESION_KINDS.index(kind) for kind in ("LM", "LAD", "LCX", "RCA", "stent")]
"""Indices of kinds that lie in a coronary artery. On slices of 3 mm a stent and a calcified artery look alike, so a
lesion that may be a stent counts, with a warning."""


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
    """Surroundings of one lesion.

    Attributes:
        hu: CT in HU, float32 [k, j, i].
        mask: Share of each voxel that the lesion fills, float32 [k, j, i].
        territories: Probability of each of TERRITORIES, float32 [11, k', j', i'], one for TERRITORY_STRIDE voxels.
    """

    hu: np.ndarray
    mask: np.ndarray
    territories: np.ndarray


def lesion_patches(
    id_map: np.ndarray,
    ids: Sequence[int],
    scan: CTScan,
    territories: Territories,
    size: tuple[int, ...] = LESION_PATCH,
) -> Iterator[LesionPatch]:
    """Iterate over the patches of lesions, in their order.

    Args:
        id_map: Lesion's id at its voxels, else 0, [k, j, i].
        ids: IDs of the lesions.
        scan: The scan as scored.
        territories: Territories of the scan.
        size: Voxels of a patch along k, j, i.
    """
    hu, spacing_mm = scan.hu, np.array(scan.image.GetSpacing()[::-1])
    flat = np.flatnonzero(id_map)
    id_of_voxel = id_map.reshape(-1)[flat]
    order = np.argsort(id_of_voxel, kind="stable")
    starts, stops = (np.searchsorted(id_of_voxel[order], ids, side=side) for side in ("left", "right"))
    for lesion_id, start, stop in zip(ids, starts, stops, strict=True):
        voxels = np.stack(np.unravel_index(flat[order[start:stop]], hu.shape), axis=1)
        centre = _central_voxel(voxels, spacing_mm)
        sampler = PatchSampler.around(centre, hu.shape, spacing_mm, size)
        mask = sampler.sample(id_map[sampler.boxes] == lesion_id)
        nearby = territories_around(territories, centre, spacing_mm, size)
        yield LesionPatch(sampler.sample(hu[sampler.boxes], AIR_HU), mask, nearby)


def _central_voxel(voxels: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Return the voxel that is nearest to the centroid of voxels [n, 3]; both along k, j, i."""
    offsets = (voxels - voxels.mean(axis=0)) * spacing_mm
    return voxels[int((offsets**2).sum(axis=1).argmin())]


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


def network_input(patch: LesionPatch) -> np.ndarray:
    """Return a patch as the network sees it, float32 [14, k, j, i]."""
    inputs = np.empty((LESION_IMAGES + LESION_TERRITORIES, *patch.hu.shape), np.float32)
    for channel, (low, high) in enumerate(WINDOWS_HU):
        np.clip((patch.hu - low) / (high - low), 0, 1, out=inputs[channel])
    inputs[LESION_IMAGES - 1] = patch.mask
    values = patch.territories
    for axis, stride in enumerate(TERRITORY_STRIDE, 1):
        values = values.repeat(stride, axis)
    inputs[LESION_IMAGES:] = values
    return inputs


def lesion_kinds(
    id_map: np.ndarray, ids: Sequence[int], scan: CTScan, territories: Territories, model: LoadedModel
) -> np.ndarray:
    """Ask the lesion network what each lesion is.

    Args:
        id_map: Lesion's id at its voxels, else 0, [k, j, i].
        ids: IDs of the lesions.
        scan: The scan as scored.
        territories: Territories of the scan.
        model: Lesion network.

    Returns:
        Probability of each of LESION_KINDS, float32 [n, kinds], in the order of the lesions.

    Raises:
        CTError: The device has too little memory.
    """
    kinds = [np.zeros((0, len(LESION_KINDS)), np.float32)]
    inputs = map(network_input, lesion_patches(id_map, ids, scan, territories))
    while held := list(islice(inputs, MAX_HELD)):
        kinds.append(predict(model.network, np.stack(held), BATCH_SIZE)[0])
    return np.concatenate(kinds)
