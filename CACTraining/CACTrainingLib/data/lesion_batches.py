"""Batches for the lesion network: lesions drawn by kind, turned, shifted, and seen by another scanner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.layers.simplelayers import separable_filtering
from monai.networks.layers.spatial_transforms import AffineTransform
from monai.transforms.utils import create_rotate, create_scale, create_translate

from CACScoringLib.core.ct import AIR_HU
from CACScoringLib.networks.configs import LESION_PATCH, TERRITORY_STRIDE
from CACScoringLib.scoring.lesion_network import PATCH_STEP_MM, WINDOWS_HU

from .lesion_rows import ARTERY_KINDS, ROW_SIZE

"""HU beyond a patch that was turned."""

KIND_WEIGHTS = (2.0, 2.0, 2.2, 2.2, 2.5, 1.2, 1.0, 1.6, 0.7, 2.0, 0.6, 0.3, 0.8, 0.4, 0.6, 4.0)
"""Relative chances of LESION_KINDS to be drawn."""

RAREST = 30
"""A kind with fewer lesions is drawn as if it had so many, lest few lesions repeat."""

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


class LesionData:
    """Lesions of many scans, on disk.

    Args:
        scans: Rows of each scan (`lesion_rows.ROW`).
        annotated: Rows of each real scan with annotations.
        clean: Rows of each real scan free of coronary calcium.
    """

    def __init__(
        self, scans: list[np.ndarray], annotated: Sequence[np.ndarray] = (), clean: Sequence[np.ndarray] = ()
    ) -> None:
        counts = [sum(map(len, part)) for part in (scans, annotated, clean)]
        self._scans = scans = [*scans, *annotated, *clean]
        self._places = [(scan, row) for scan, rows in enumerate(scans) for row in range(len(rows))]
        columns = {name: [rows[name] for rows in scans] for name in ("shares", "volume_mm3")}
        self.shares: np.ndarray = np.concatenate(columns["shares"])
        self.volume_mm3: np.ndarray = np.concatenate(columns["volume_mm3"])
        self.is_annotated, self.is_clean = (np.repeat(np.arange(3), counts) == part for part in (1, 2))

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Read the rows of lesions, ROW [n]."""
        places = (self._places[number] for number in numbers.tolist())
        return np.stack([self._scans[scan][row] for scan, row in places])

    def chances(self, annotated_share: float | None = None, clean_share: float = 0.0) -> np.ndarray:
        """Return the probability with which each lesion is drawn, float [n]: by kind, and larger ones more often.

        Args:
            annotated_share: Share of annotated lesions, as many coronary as not; None for none.
            clean_share: Share of what is dense in real scans free of coronary calcium, if there are any.
        """
        is_coronary = self.shares[:, :ARTERY_KINDS].sum(1) > 0.5
        kinds = np.where(self.is_annotated, len(KIND_WEIGHTS) + is_coronary, self.shares.argmax(1))
        kinds[self.is_clean] = len(KIND_WEIGHTS) + 2
        counts = np.maximum(np.bincount(kinds, minlength=len(KIND_WEIGHTS) + 3), RAREST)
        chances = np.array((*KIND_WEIGHTS, 1, 1, 1))[kinds] / counts[kinds]
        chances *= 1 + 0.5 * np.log1p(self.volume_mm3)
        annotated, clean = annotated_share or 0.0, clean_share if self.is_clean.any() else 0.0
        digital = ~(self.is_annotated | self.is_clean), 1 - annotated - clean
        for part, share in ((self.is_annotated, annotated), (self.is_clean, clean), digital):
            chances[part] *= share / max(chances[part].sum(), 1e-12)
        return chances / chances.sum()


def plain_input(rows: np.ndarray) -> torch.Tensor:
    """Return the network's input of rows as they are, float32 [n, 14, k, j, i]."""
    middle = create_translate(3, np.subtract(ROW_SIZE, LESION_PATCH) / 2)
    return stacked(*_sampled(rows, np.tile(middle, (len(rows), 1, 1))))


def varied_input(rows: np.ndarray, settings: LesionAugmentation, generator: np.random.Generator) -> torch.Tensor:
    """Return the network's input of rows, each turned, shifted and seen by another scanner."""
    g = generator
    hu, mask, territories = _sampled(rows, np.stack([random_matrix(settings, g) for _ in rows]))
    for n in range(len(rows)):
        hu[n] = by_other_scanner(hu[n], settings, g)
    exponent = torch.from_numpy(np.exp(g.uniform(-settings.doubt, settings.doubt, len(rows))).astype(np.float32))
    territories = territories.clamp(min=1e-3) ** exponent.view(-1, 1, 1, 1, 1)
    return stacked(hu, mask, territories / territories.sum(1, keepdim=True))


def random_matrix(settings: LesionAugmentation, g: np.random.Generator) -> np.ndarray:
    """Draw an affine matrix [4, 4] from a patch's voxels to a row's that turns, scales and shifts around the middle."""
    limits = np.radians(settings.turn_degrees)
    turn = create_rotate(3, g.uniform(-limits, limits))
    scale = settings.scale ** g.uniform(-1, 1)
    shift = create_translate(3, g.uniform(-1, 1, 3) * settings.shift_mm)
    step_mm = np.array(PATCH_STEP_MM)
    from_middle, to_middle = ((np.array(size) - 1) / 2 for size in (LESION_PATCH, ROW_SIZE))
    to_mm = create_scale(3, scale * step_mm) @ create_translate(3, -from_middle)
    return create_translate(3, to_middle) @ create_scale(3, 1 / step_mm) @ shift @ turn @ to_mm


def _sampled(rows: np.ndarray, matrices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cut patches of LESION_PATCH from rows by affine matrices [n, 4, 4]: HU, mask and territories."""
    images = np.stack([rows["hu"] - AIR_HU, rows["mask"]], axis=1)
    hu, mask = warped(images, matrices, LESION_PATCH).unbind(1)
    stride = np.array(TERRITORY_STRIDE)
    fine = create_translate(3, (stride - 1) / 2) @ create_scale(3, stride)
    territories = warped(rows["territories"], np.linalg.inv(fine) @ matrices @ fine, tuple(LESION_PATCH // stride))
    return hu + AIR_HU, mask / 100, territories / 100


def warped(images: np.ndarray, matrices: np.ndarray, size: tuple[int, ...], mode: str = "bilinear") -> torch.Tensor:
    """Sample images [n, C, k, j, i] by affine matrices, float32 [n, C, *size]. mode: "bilinear" or "nearest".

    The layer takes a batch; `RandAffined` takes one lesion, and no second grid for the territories.
    """
    layer = AffineTransform(size, mode=mode, padding_mode="border", align_corners=False)
    return layer(torch.from_numpy(images.astype(np.float32)), torch.from_numpy(matrices.astype(np.float32)))


def stacked(hu: torch.Tensor, mask: torch.Tensor, territories: torch.Tensor) -> torch.Tensor:
    """Return the channels of the network's input, as `lesion_network.network_input` has them."""
    windows = [((hu - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS_HU]
    for axis, stride in enumerate(TERRITORY_STRIDE, 2):
        territories = territories.repeat_interleave(stride, axis)
    return torch.cat([torch.stack([*windows, mask], 1), territories], 1)


def by_other_scanner(hu: torch.Tensor, settings: LesionAugmentation, g: np.random.Generator) -> torch.Tensor:
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
