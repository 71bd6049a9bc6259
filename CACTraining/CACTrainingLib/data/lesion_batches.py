"""Batches for the lesion network: lesions drawn by kind, turned, shifted, and seen by another scanner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from CACScoringLib.networks.configs import LESION_KINDS, LESION_PATCH, TERRITORY_STRIDE
from CACScoringLib.scoring.lesion_network import PATCH_STEP_MM, WINDOWS_HU

from .lesion_rows import ROW_SIZE

AIR_HU = -1024.0
"""HU beyond a patch that was turned."""

KIND_WEIGHTS = (2.0, 2.0, 2.2, 2.2, 2.5, 1.2, 1.0, 0.8, 0.7, 1.1, 0.6, 0.3, 0.8, 0.4, 0.6, 4.0)
"""Relative chances of LESION_KINDS to be drawn."""

RAREST = 30
"""A kind with fewer lesions is drawn as if it had so many, lest few lesions repeat."""

_SMOOTH = torch.tensor([0.27, 0.46, 0.27])
"""Kernel of a scanner's noise along rows and columns."""


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
    """

    def __init__(self, scans: list[np.ndarray]) -> None:
        self._scans = scans
        self._places = [(scan, row) for scan, rows in enumerate(scans) for row in range(len(rows))]
        columns = {name: [rows[name] for rows in scans] for name in ("shares", "agatston")}
        self.shares: np.ndarray = np.concatenate(columns["shares"])
        self.agatston: np.ndarray = np.concatenate(columns["agatston"])

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Read the rows of lesions, ROW [n]."""
        places = (self._places[number] for number in numbers.tolist())
        return np.stack([self._scans[scan][row] for scan, row in places])

    def chances(self) -> np.ndarray:
        """Return the probability with which each lesion is drawn, float [n]: by kind, and larger ones more often."""
        kinds = self.shares.argmax(1)
        counts = np.maximum(np.bincount(kinds, minlength=len(LESION_KINDS)), RAREST)
        chances = np.array(KIND_WEIGHTS)[kinds] / counts[kinds]
        chances *= 1 + 0.5 * np.log1p(self.agatston)
        return chances / chances.sum()


def plain_input(rows: np.ndarray) -> torch.Tensor:
    """Return the network's input of rows as they are, float32 [n, 14, k, j, i]."""
    matrix = np.tile(np.diag(np.divide(LESION_PATCH[::-1], ROW_SIZE[::-1])), (len(rows), 1, 1))
    hu, mask, territories = _sampled(rows, np.concatenate([matrix, np.zeros((len(rows), 3, 1))], axis=2))
    return _stacked(hu, mask, territories)


def varied_input(rows: np.ndarray, settings: LesionAugmentation, generator: np.random.Generator) -> torch.Tensor:
    """Return the network's input of rows, each turned, shifted and seen by another scanner."""
    g = generator
    hu, mask, territories = _sampled(rows, np.stack([_random_matrix(settings, g) for _ in rows]))
    for n in range(len(rows)):
        hu[n] = _by_other_scanner(hu[n], settings, g)
    exponent = torch.from_numpy(np.exp(g.uniform(-settings.doubt, settings.doubt, len(rows))).astype(np.float32))
    territories = territories.clamp(min=1e-3) ** exponent.view(-1, 1, 1, 1, 1)
    return _stacked(hu, mask, territories / territories.sum(1, keepdim=True))


def _random_matrix(settings: LesionAugmentation, g: np.random.Generator) -> np.ndarray:
    """Draw an affine matrix [3, 4] of `affine_grid` that turns, scales and shifts a patch cut from a row."""
    turn = np.eye(3)
    for axis, limit in enumerate(settings.turn_degrees):
        angle = np.radians(g.uniform(-limit, limit))
        first, second = (n for n in range(3) if n != axis)
        step = np.eye(3)
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    scale = np.exp(g.uniform(-1, 1) * np.log(settings.scale))
    shift_mm = g.uniform(-1, 1, 3) * settings.shift_mm
    patch_mm, row_mm = (np.array(size) / 2 * PATCH_STEP_MM for size in (LESION_PATCH, ROW_SIZE))
    matrix = scale * turn * patch_mm[None] / row_mm[:, None]
    return np.concatenate([matrix[::-1, ::-1], (shift_mm / row_mm)[::-1, None]], axis=1)


def _sampled(rows: np.ndarray, matrices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cut patches of LESION_PATCH from rows by affine matrices [n, 3, 4]: HU, mask and territories."""
    theta, count = torch.from_numpy(matrices.astype(np.float32)), len(rows)
    images = np.stack([rows["hu"] - AIR_HU, rows["mask"]], axis=1).astype(np.float32)
    full = functional.affine_grid(theta, [count, 1, *LESION_PATCH], align_corners=False)
    coarse_size = [size // stride for size, stride in zip(LESION_PATCH, TERRITORY_STRIDE, strict=True)]
    coarse = functional.affine_grid(theta, [count, 1, *coarse_size], align_corners=False)
    hu, mask = functional.grid_sample(
        torch.from_numpy(images), full, padding_mode="border", align_corners=False
    ).unbind(1)
    shares = torch.from_numpy(rows["territories"].astype(np.float32) / 100)
    territories = functional.grid_sample(shares, coarse, padding_mode="border", align_corners=False)
    return hu + AIR_HU, mask / 100, territories


def _stacked(hu: torch.Tensor, mask: torch.Tensor, territories: torch.Tensor) -> torch.Tensor:
    """Return the channels of the network's input, as `lesion_network.network_input` has them."""
    windows = [((hu - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS_HU]
    for axis, stride in enumerate(TERRITORY_STRIDE, 2):
        territories = territories.repeat_interleave(stride, axis)
    return torch.cat([torch.stack([*windows, mask], 1), territories], 1)


def _by_other_scanner(hu: torch.Tensor, settings: LesionAugmentation, g: np.random.Generator) -> torch.Tensor:
    """Change slice thickness, kernel, noise and scale of a patch [k, j, i] at random."""
    if g.random() < settings.thicker_share:
        weights = torch.tensor([0.25, 0.5, 0.25]) if g.random() < 0.6 else torch.full((3,), 1 / 3)
        hu = _along_slices(hu, weights)
    if g.random() < settings.kernel_share:
        smooth = _in_plane(hu, torch.tensor([0.2, 0.6, 0.2]))
        hu = smooth if g.random() < 0.5 else hu + float(g.uniform(0.2, 0.8)) * (hu - smooth)
    if g.random() < settings.noise_share:
        noise = torch.from_numpy(g.standard_normal(tuple(hu.shape), np.float32))
        if g.random() < 0.6:
            noise = 1.8 * _in_plane(noise, _SMOOTH)  # 1.8: about as strong as before
        hu = hu + float(np.exp(g.uniform(*np.log(settings.noise_hu)))) * noise
    return hu * float(1 + g.uniform(-1, 1) * settings.gain) + float(g.uniform(-1, 1) * settings.offset_hu)


def _in_plane(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    weights = (kernel[:, None] * kernel).view(1, 1, 3, 3)
    return functional.conv2d(functional.pad(image[:, None], (1, 1, 1, 1), mode="replicate"), weights)[:, 0]


def _along_slices(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    padded = functional.pad(image[None, None], (0, 0, 0, 0, 1, 1), mode="replicate")
    return functional.conv3d(padded, kernel.view(1, 1, 3, 1, 1))[0, 0]
