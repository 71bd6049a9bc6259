"""Random variants of training samples, made in batches with PyTorch.

Slices as in van Velzen et al., section 3: noise reduced (Gaussian, σ 0.5 pixels) or amplified (the image plus that
filter's residual), random crops and rotations; and small changes of HU. `territory_patches` varies 3-D patches.

`draw_…` cuts what is needed from the scans and draws the changes of a batch in NumPy; `augment_…` applies them with
PyTorch to all samples together, on their device. MONAI is not used: its random transforms change one image at a time,
and its import takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation
from torch.nn import functional

from CACScoringLib.models.preprocessing import HIGH_HU, LOW_HU, POSITION_SCALE

Changes = dict[str, torch.Tensor]
"""Random changes of a batch by name; the first axis of most is the sample. Numbers of samples are int64 [m]."""

KNOTS = 4
"""Knots of a smooth field along each axis; between them it is linear."""

NOISE_SIGMA_PIXELS = 0.5


@dataclass(frozen=True)
class SliceAugmentation:
    """Largest changes of slices.

    Attributes:
        crop: Side in pixels of the square around the heart's centre.
        shift_pixels: Shift of the square's centre.
        rotation_degrees: Rotation.
        straight_share: Share of slices shifted by full pixels only and not rotated, as interpolation smooths noise.
        noise_share: Share of slices with reduced noise, and of those with amplified noise.
        gain: Relative change of all HU, calcium included.
        offset_hu: Shift of HU.
        position_jitter: Relative change, and shift, of the position in the heart's frame, because detected hearts
            differ from outlined ones.
        zoom: Factor of size, or its inverse, for slices that are not straight.
    """

    crop: int = 224
    shift_pixels: float = 8.0
    rotation_degrees: float = 17.0
    straight_share: float = 0.3
    noise_share: float = 0.25
    gain: float = 0.03
    offset_hu: float = 8.0
    position_jitter: float = 0.1
    zoom: float = 1.0


def draw_slice_changes(
    count: int, side: int, settings: SliceAugmentation, generator: np.random.Generator, places: int = 0
) -> Changes:
    """Draw the changes of slices for `augment_slices`. side: of a slice. places: Number of position channels."""
    matrices = _slice_matrices(count, side, settings, generator)
    chance = generator.random(count).astype(np.float32)
    is_noisy = (chance < settings.noise_share) | (chance > 1 - settings.noise_share)
    changes = {
        "matrices": matrices,
        "noisy": np.nonzero(is_noisy)[0],
        "noise": np.where(chance < settings.noise_share, -1, 1)[is_noisy],
        "gain": 1 + generator.uniform(-settings.gain, settings.gain, count),
        "offset": generator.uniform(-1, 1, count) * settings.offset_hu,
    }
    if places:
        limit = settings.position_jitter
        scale, shift = (generator.uniform(-limit, limit, (count, places)) for _ in range(2))
        changes |= {"place_scale": 1 + scale, "place_shift": shift * POSITION_SCALE}
    return as_tensors(changes)


def augment_slices(
    hu: torch.Tensor, extra: torch.Tensor | None, changes: Changes, crop: int, maps: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Augment slices as network input, and their true maps in the same way.

    Args:
        hu: Slices and their neighbours, float32 [n, C, 224, 224].
        extra: Position channels, float32 [n, E, 224, 224], which are only warped, or None.
        changes: Changes (`draw_slice_changes`).
        crop: Side of the square.
        maps: True maps and further channels to warp with them, float32 [n, M, 224, 224], or None.

    Returns:
        Input float32 [n, C + E, crop, crop], scaled as by `preprocessing.slice_input`, channels last, and maps
        [n, M, crop, crop] or None.
    """
    matrix = changes["matrices"][..., None, None]
    axis = torch.arange(crop, dtype=torch.float32, device=hu.device)
    # By coordinate, not in pairs: the sampler reads it faster.
    grid = (matrix[:, :, 0] * axis[:, None] + (matrix[:, :, 1] * axis + matrix[:, :, 2])).permute(0, 2, 3, 1)
    x = functional.grid_sample(hu, grid, padding_mode="border", align_corners=False)
    if len(noisy := changes["noisy"]):
        part = x[noisy]
        x[noisy] = part + per_sample(changes["noise"], 4) * (part - gaussian_blur(part, NOISE_SIGMA_PIXELS))
    gain = per_sample(changes["gain"], 4)
    x = x.mul_(gain).add_(per_sample(changes["offset"], 4) - LOW_HU).div_(HIGH_HU - LOW_HU).clamp_(0, 1)
    if extra is not None:
        warped = functional.grid_sample(extra, grid, padding_mode="border", align_corners=False)
        scale, shift = (changes[name][..., None, None] for name in ("place_scale", "place_shift"))
        x = torch.cat([x, warped.mul_(scale).add_(shift)], 1)
    x = x.contiguous(memory_format=torch.channels_last)
    if maps is None:
        return x, None
    warped = functional.grid_sample(maps, grid, align_corners=False)
    warped[:, :1] *= gain
    return x, warped.clamp_(0, 1)


def as_tensors(values: Mapping[str, ArrayLike]) -> Changes:
    """Return arrays or lists as tensors; numbers become float32."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return {
        name: torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)
        for name, array in arrays.items()
    }


def gathered(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Gather the changes of samples by name; `NAME_at` holds the numbers of the samples that have the change."""
    batch: dict[str, Any] = {}
    for name in dict.fromkeys(name for sample in samples for name in sample):
        numbers = [n for n, sample in enumerate(samples) if name in sample]
        batch[name] = np.stack([samples[n][name] for n in numbers])
        batch[f"{name}_at"] = np.array(numbers)
    return batch


def seeded(seed: torch.Tensor, device: torch.device) -> torch.Generator:
    """Return a generator of PyTorch on a device; its numbers differ between kinds of devices."""
    return torch.Generator(device).manual_seed(int(seed))


def inside_all(inside: torch.Tensor) -> torch.Tensor:
    """Return a cube of voxels that are True along each axis: bool [n, k, j, i]. inside: bool [n, 3, size]."""
    k, j, i = inside.unbind(1)
    return k[:, :, None, None] & j[:, None, :, None] & i[:, None, None, :]


def per_sample(values: torch.Tensor, axes: int) -> torch.Tensor:
    """Return a value a sample with further axes, for arithmetic with tensors of so many axes."""
    return values.view(-1, *(1,) * (axes - 1))


def _slice_matrices(n: int, side: int, settings: SliceAugmentation, generator: np.random.Generator) -> np.ndarray:
    """Draw affine matrices from a square's pixels (j, i) to places (x, y) in a slice, −1 to 1: float [n, 2, 3]."""
    straight = generator.random(n) < settings.straight_share
    turns = np.radians(generator.uniform(-1, 1, n) * settings.rotation_degrees) * ~straight
    shifts = generator.uniform(-1, 1, (n, 2)) * settings.shift_pixels
    shifts[straight] = np.rint(shifts[straight])
    limit = math.log(settings.zoom)
    zooms = np.where(straight, 1.0, np.exp(generator.uniform(-limit, limit, n)))
    cosines, sines = zooms * np.cos(turns), zooms * np.sin(turns)
    turned = np.stack([np.stack([cosines, -sines], 1), np.stack([sines, cosines], 1)], 1)
    middle = np.full(2, (settings.crop - 1) / 2)
    first = shifts + (side - 1) / 2 - turned @ middle
    matrices = np.concatenate([turned, first[..., None]], 2) * (2 / side)
    matrices[..., 2] += 1 / side - 1
    return matrices[:, ::-1]


def gaussian_blur(x: torch.Tensor, sigma_pixels: float) -> torch.Tensor:
    """Filter slices [n, C, j, i] in-plane with a Gaussian."""
    return filter_planes(x, blur_kernels([sigma_pixels]).to(x.device).expand(len(x), -1))


def blur_kernels(sigmas_pixels: Sequence[float]) -> torch.Tensor:
    """Return a Gaussian for each standard deviation, float32 [n, taps]."""
    sigmas = torch.tensor([float(sigma) for sigma in sigmas_pixels])[:, None]
    reach = (4 * sigmas + 0.5).floor()
    offsets = torch.arange(-int(reach.max()), int(reach.max()) + 1)
    kernels = torch.exp(-0.5 * (offsets / sigmas) ** 2) * (offsets.abs() <= reach)
    return kernels / kernels.sum(1, keepdim=True)


def filter_planes(x: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Filter planes [n, C, j, i] along rows and columns, with the kernel of each sample [n, taps]."""
    n, planes, *shape = x.shape
    weights = kernels.repeat_interleave(planes, 0)
    # All planes as channels of one: several times faster on a CPU than as a batch.
    padded = functional.pad(x.reshape(1, n * planes, *shape), (kernels.shape[1] // 2,) * 4, mode="reflect")
    along_rows = functional.conv2d(padded, weights[:, None, None, :], groups=n * planes)
    return functional.conv2d(along_rows, weights[:, None, :, None], groups=n * planes).view(x.shape)


def random_rotation(turn_degrees: float, tilt_degrees: float, generator: np.random.Generator) -> np.ndarray:
    """Draw a rotation [3, 3] of (k, j, i) with largest angles about the body's axis (turn) and the others (tilt)."""
    limits = np.radians([turn_degrees, tilt_degrees, tilt_degrees])
    return Rotation.from_euler("XYZ", generator.uniform(-limits, limits)).as_matrix()


def random_scale(largest: float, generator: np.random.Generator) -> np.ndarray:
    """Draw scales [3]: a common factor up to `largest` or its inverse, times up to its cube root per axis."""
    limit = math.log(largest)
    overall = generator.uniform(-limit, limit)
    return np.exp(overall + generator.uniform(-limit, limit, 3) / 3)


def affine_knots(size: int, matrix: np.ndarray, centre: Sequence[float] | np.ndarray, count: int = KNOTS) -> np.ndarray:
    """Return a centre plus a matrix times a cube's offsets at its knots: float64 [3, count, count, count], (k, j, i).

    Affine places are linear between knots, so `smooth_field` gives them exactly, a displacement at the knots included.
    """
    axis = np.linspace(-0.5, 0.5, count) * (size - 1)
    offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    return np.einsum("ab,bkji->akji", matrix, offsets) + np.reshape(centre, (3, 1, 1, 1))


def smooth_field(knots: torch.Tensor, size: int) -> torch.Tensor:
    """Interpolate values at knots [n, C, m, m, m] linearly to cubes, float32 [n, C, size, size, size]."""
    count = knots.shape[-1]
    identity = torch.eye(count, device=knots.device)[None]
    weights = functional.interpolate(identity, size, mode="linear", align_corners=True)[0].T.contiguous()
    rows = weights @ (knots @ weights.T)
    return (weights @ rows.flatten(3)).unflatten(3, (size, size))


def box_of_places(knots: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first index, and that after the last, of the voxels of an array around places [3, …] (k, j, i)."""
    places = knots.reshape(3, -1)
    low = np.clip(np.floor(places.min(1)), 0, np.array(shape) - 1).astype(int)
    high = np.clip(np.floor(places.max(1)) + 2, low + 1, shape).astype(int)
    return low, high


def sampler_knots(knots: Sequence[np.ndarray], lows: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """Return knots [3, m, m, m] (k, j, i) as the sampler's places (x, y, z) in boxes of a shape: [n, 3, m, m, m]."""
    inside = np.stack(knots) - np.stack(lows)[:, :, None, None, None]
    return ((2 * inside + 1) / np.reshape(shape, (3, 1, 1, 1)) - 1)[:, ::-1]


def cut_boxes(
    scans: Sequence[Sequence[np.ndarray]], knots: Sequence[np.ndarray], fill: float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the voxels around knots from the arrays of scans, those of one scan of one shape [k, j, i].

    Returns [n, C, k, j, i] of the first array's type, and the knots in it (`sampler_knots`). Beyond a box is 0, in the
    first channel `fill`.
    """
    boxes = [box_of_places(places, arrays[0].shape) for arrays, places in zip(scans, knots, strict=True)]
    shape = np.max([high - low for low, high in boxes], axis=0)
    values = np.zeros((len(scans), len(scans[0]), *shape), scans[0][0].dtype)
    values[:, 0] = fill
    for target, arrays, (low, high) in zip(values, scans, boxes, strict=True):
        inside = tuple(slice(n) for n in high - low)
        for channel, array in zip(target, arrays, strict=True):
            channel[inside] = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return values, sampler_knots(knots, [low for low, _ in boxes], shape)


def cut_box(array: np.ndarray, low: np.ndarray, high: np.ndarray, fill: float = 0) -> np.ndarray:
    """Return a box of an array, float32, from index low to below high, with `fill` outside the array."""
    box = np.full(high - low, fill, np.float32)
    inside = tuple(slice(max(0, a), max(0, min(n, b))) for a, b, n in zip(low, high, array.shape, strict=True))
    part = array[inside]
    target = tuple(slice(s.start - a, s.start - a + n) for s, a, n in zip(inside, low, part.shape, strict=True))
    if part.size:
        box[target] = part
    return box
