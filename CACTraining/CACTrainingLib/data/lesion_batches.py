"""Batches for the lesion network: patches drawn by the kinds in them, turned, shifted, and seen by another scanner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from monai.networks.layers.simplelayers import separable_filtering
from monai.networks.layers.spatial_transforms import AffineTransform
from monai.transforms.utils import create_rotate, create_scale, create_translate

from CACScoringLib.networks.configs import LESION_KINDS, LESION_PATCH, TERRITORY_STRIDE
from CACScoringLib.scoring.lesion_network import CORE, PATCH_STEP_MM, LesionPatch, network_input

from .lesion_rows import ARTERY_KINDS, ROW_SIZE, volume_of

LABEL_WEIGHTS = (2.2, 2.4, 2.2, 2.6, 2.5, 2.0, 1.0, 1.6, 0.7, 2.0, 0.8, 0.5, 0.7, 0.6, 1.5, 3.5, 9.0)
"""Relative chances of each label to be drawn: LESION_KINDS and NOT_CORONARY."""

RAREST = 30
"""A label in fewer patches is drawn as if it were in so many, lest few patches repeat."""

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

_SMOOTH = torch.tensor([0.27, 0.46, 0.27])
"""Kernel of a scanner's noise along rows and columns."""

_SOFT = torch.tensor([0.2, 0.6, 0.2])
_NONE = torch.ones(1)


@dataclass(frozen=True)
class LesionAugmentation:
    """Changes of a patch.

    Attributes:
        turn_degrees: Largest turn about the axes k, j, i.
        scale: Largest factor of size.
        shift_mm: Largest shift along k, j, i.
        thicker_share: Share of patches with thicker slices.
        kernel_share: Share of patches that are blurred or sharpened.
        noise_share: Share of patches with noise.
        noise_hu: Lowest and highest SD of noise.
        gain: Largest relative change of HU.
        offset_hu: Largest change of HU.
        doubt: Largest logarithm of the exponent by which the territories' probabilities become more or less certain.
        territory_shift_mm: SD of the territories' shift along k, j, i against the CT; in real scans they lie less
            exactly than in digital ones.
        unknown_share: Share of patches whose territories are unknown, all equally likely.
    """

    turn_degrees: tuple[float, float, float] = (12.0, 8.0, 8.0)
    scale: float = 1.12
    shift_mm: tuple[float, float, float] = (1.6, 2.0, 2.0)
    thicker_share: float = 0.25
    kernel_share: float = 0.3
    noise_share: float = 0.5
    noise_hu: tuple[float, float] = (2.0, 30.0)
    gain: float = 0.05
    offset_hu: float = 10.0
    doubt: float = 0.5
    territory_shift_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)
    unknown_share: float = 0.08


class LesionBatch(NamedTuple):
    """Patches with the labels of their voxels.

    Attributes:
        x: Input of the network, float32 [n, 16, k, j, i].
        labels: Label of each voxel as in `lesion_rows.ROW`, 0 without any, int64 [n, k, j, i].
        weights: Weight of each voxel in the loss, float32 [n, k, j, i].
    """

    x: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor


class LesionData:
    """Patches of many scans, on disk.

    Args:
        groups: Rows of each scan (`lesion_rows.ROW`), by name of a group of scans.

    Attributes:
        group: Name of each patch's group, [n].
        volumes_mm3: Volume of each label in each patch's core, [n, labels].
    """

    def __init__(self, groups: Mapping[str, Sequence[np.ndarray]]) -> None:
        self._scans = [rows for scans in groups.values() for rows in scans]
        self._places = [(scan, row) for scan, rows in enumerate(self._scans) for row in range(len(rows))]
        self.volumes_mm3: np.ndarray = np.concatenate([rows["volumes_mm3"] for rows in self._scans])
        self.group = np.repeat(list(groups), [sum(map(len, scans)) for scans in groups.values()])

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Read patches, ROW [n]."""
        places = (self._places[number] for number in numbers.tolist())
        return np.stack([self._scans[scan][row] for scan, row in places])

    def chances(self, shares: Mapping[str, float] | None = None) -> np.ndarray:
        """Return the probability with which each patch is drawn, float [n]: by the kinds in it and their volume.

        shares: Share of some groups in what is drawn, if they have patches; others share the remainder.
        """
        volumes = self.volumes_mm3
        interest = np.where(volumes > 0, 0.5 + np.log1p(volumes), 0.0)
        is_mixed = (volumes[:, :ARTERY_KINDS].sum(1) > 1) & (volumes[:, NEIGHBOURS].sum(1) > 1)
        counts = np.maximum((volumes > 0).sum(axis=0), RAREST)
        mean = interest.sum(axis=0) / np.maximum((volumes > 0).sum(axis=0), 1)
        chances = (interest / np.maximum(mean, 1e-6) * np.array(LABEL_WEIGHTS) / counts).sum(axis=1)
        chances *= np.where(is_mixed, MIXED, 1.0)
        shares = {name: share for name, share in (shares or {}).items() if name in self.group}
        remaining = ~np.isin(self.group, list(shares))
        parts = [(self.group == name, share) for name, share in shares.items()]
        for part, share in (*parts, (remaining, 1 - sum(shares.values()))):
            chances[part] *= share / max(chances[part].sum(), 1e-12)
        return chances / chances.sum()


def plain_batch(rows: np.ndarray) -> LesionBatch:
    """Return patches as they are."""
    middle = np.tile(create_translate(3, np.subtract(ROW_SIZE, LESION_PATCH) / 2), (len(rows), 1, 1))
    return _batch(rows, middle, _hu(rows, middle), _territories(rows, middle))


def varied_batch(rows: np.ndarray, settings: LesionAugmentation, generator: np.random.Generator) -> LesionBatch:
    """Return patches, each turned, shifted and seen by another scanner."""
    g = generator
    matrices = np.stack([_random_matrix(settings, g) for _ in rows])
    shifts = g.normal(0, settings.territory_shift_mm, (len(rows), 3)) / PATCH_STEP_MM
    territories = _territories(rows, np.stack([create_translate(3, shift) for shift in shifts]) @ matrices)
    hu = torch.stack([_by_other_scanner(patch, settings, g) for patch in _hu(rows, matrices)])
    exponent = np.exp(g.uniform(-settings.doubt, settings.doubt, len(rows))).astype(np.float32)
    territories = territories.clamp(min=1e-3) ** torch.from_numpy(exponent).view(-1, 1, 1, 1, 1)
    territories[torch.from_numpy(g.random(len(rows)) < settings.unknown_share)] = 1.0
    return _batch(rows, matrices, hu, territories / territories.sum(1, keepdim=True))


def _hu(rows: np.ndarray, matrices: np.ndarray) -> torch.Tensor:
    """Cut the CT of patches from rows by affine matrices [n, 4, 4]: HU, [n, k, j, i]."""
    return _warped(rows["hu"][:, None], matrices, LESION_PATCH)[:, 0]


def _territories(rows: np.ndarray, matrices: np.ndarray) -> torch.Tensor:
    stride = np.array(TERRITORY_STRIDE)
    fine = create_translate(3, (stride - 1) / 2) @ create_scale(3, stride)
    return _warped(rows["territories"], np.linalg.inv(fine) @ matrices @ fine, tuple(LESION_PATCH // stride)) / 100


def _batch(rows: np.ndarray, matrices: np.ndarray, hu: torch.Tensor, territories: torch.Tensor) -> LesionBatch:
    dense = _warped(rows["dense"][:, None], matrices, LESION_PATCH)[:, 0] / 100
    codes = np.stack([rows["label"], rows["size"]], axis=1)
    labels, sizes = _warped(codes, matrices, LESION_PATCH, "nearest").unbind(1)
    is_labelled = (dense >= LEAST_SHARE) & (labels > 0)
    volumes = torch.from_numpy(volume_of(sizes.numpy())).clamp(min=LEAST_MM3)
    weights = dense * volumes**-LARGENESS * _core_weights()
    noise_hu = [None if np.isnan(sd) else float(sd) for sd in rows["noise_hu"]]
    patches = map(LesionPatch, hu.numpy(), dense.numpy(), territories.numpy())
    x = np.stack([network_input(patch, sd) for patch, sd in zip(patches, noise_hu, strict=True)])
    return LesionBatch(torch.from_numpy(x), (labels * is_labelled).long(), weights * is_labelled)


def _core_weights() -> torch.Tensor:
    """Return 1 in a patch's core and BORDER_WEIGHT outside, float32 [k, j, i]."""
    weights = torch.full(LESION_PATCH, BORDER_WEIGHT)
    weights[tuple(slice((n - c) // 2, (n + c) // 2) for n, c in zip(LESION_PATCH, CORE, strict=True))] = 1.0
    return weights


def _random_matrix(settings: LesionAugmentation, g: np.random.Generator) -> np.ndarray:
    """Draw an affine matrix [4, 4] from a patch's voxels to a row's that turns, scales and shifts around the middle."""
    limits = np.radians(settings.turn_degrees)
    turn = create_rotate(3, g.uniform(-limits, limits))
    scale = settings.scale ** g.uniform(-1, 1)
    shift = create_translate(3, g.uniform(-1, 1, 3) * settings.shift_mm)
    step_mm = np.array(PATCH_STEP_MM)
    from_middle, to_middle = ((np.array(size) - 1) / 2 for size in (LESION_PATCH, ROW_SIZE))
    to_mm = create_scale(3, scale * step_mm) @ create_translate(3, -from_middle)
    return create_translate(3, to_middle) @ create_scale(3, 1 / step_mm) @ shift @ turn @ to_mm


def _warped(images: np.ndarray, matrices: np.ndarray, size: tuple[int, ...], mode: str = "bilinear") -> torch.Tensor:
    """Sample images [n, C, k, j, i] by affine matrices, float32 [n, C, *size]. mode: "bilinear" or "nearest".

    The layer takes a batch; `RandAffined` takes one patch, and no second grid for the territories.
    """
    layer = AffineTransform(size, mode=mode, padding_mode="border", align_corners=False)
    return layer(torch.from_numpy(images.astype(np.float32)), torch.from_numpy(matrices.astype(np.float32)))


def _by_other_scanner(hu: torch.Tensor, settings: LesionAugmentation, g: np.random.Generator) -> torch.Tensor:
    """Change slice thickness, kernel, noise and scale of a patch [k, j, i] at random.

    Not by MONAI, whose noise is white, and whose transforms take 1.6 times as long.
    """
    if g.random() < settings.thicker_share:
        weights = torch.tensor([0.25, 0.5, 0.25]) if g.random() < 0.6 else torch.full((3,), 1 / 3)
        hu = _filtered(hu, weights, _NONE, _NONE)
    if g.random() < settings.kernel_share:
        smooth = _filtered(hu, _NONE, _SOFT, _SOFT)
        hu = smooth if g.random() < 0.5 else hu + float(g.uniform(0.2, 0.8)) * (hu - smooth)
    if g.random() < settings.noise_share:
        noise = torch.from_numpy(g.standard_normal(tuple(hu.shape), np.float32))
        if g.random() < 0.6:
            noise = 1.8 * _filtered(noise, _NONE, _SMOOTH, _SMOOTH)  # 1.8: about as strong as before
        hu = hu + float(np.exp(g.uniform(*np.log(settings.noise_hu)))) * noise
    return hu * float(1 + g.uniform(-1, 1) * settings.gain) + float(g.uniform(-1, 1) * settings.offset_hu)


def _filtered(hu: torch.Tensor, *kernels: torch.Tensor) -> torch.Tensor:
    """Filter a patch [k, j, i] with a kernel along each axis."""
    return separable_filtering(hu[None, None], list(kernels), mode="replicate")[0, 0]
