"""Random variants of training samples, made in batches with PyTorch.

Slices as in van Velzen et al., section 3: noise reduced (Gaussian, σ 0.5 pixels) or amplified (the image plus that
filter's residual), random crops and rotations; and small changes of HU. Heart patches get far stronger changes, because
few anatomies represent all patients. All random numbers come from the caller's generator.

Matrices, sampling and filters are MONAI's. Its random transforms are not used, because they change one image at a time
and are slower: 1.7 times for noise and contrast, seven times for elastic deformation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from monai.networks.layers.convutils import gaussian_1d
from monai.networks.layers.simplelayers import separable_filtering
from monai.networks.layers.spatial_transforms import AffineTransform
from monai.transforms.utils import create_rotate, create_scale, create_translate
from torch.nn import functional

from CACScoringLib.models.preprocessing import HIGH_HU, LOW_HU, POSITION_SCALE

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
        placeless_share: Share of slices whose position channels are 0, so that a network does not learn only where
            plaque lies.
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
    placeless_share: float = 0.0
    zoom: float = 1.0


def augment_slices(
    hu: np.ndarray,
    extra: np.ndarray,
    settings: SliceAugmentation,
    generator: np.random.Generator,
    maps: np.ndarray | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Augment slices as network input, and their true maps in the same way.

    Args:
        hu: Slices and their neighbours, float32 [n, C, 224, 224].
        extra: Position channels, [n, E, 224, 224], which are only warped (E may be 0).
        maps: True maps and further channels to warp with them, [n, M, 224, 224], or None.

    Returns:
        Input float32 [n, C + E, crop, crop], scaled as by `preprocessing.slice_input`, and maps [n, M, crop, crop] or
        None.
    """
    n = len(hu)
    matrices = _slice_matrices(n, hu.shape[-1], settings, generator)
    warp = AffineTransform((settings.crop,) * 2, padding_mode="border", align_corners=False)
    x = warp(torch.from_numpy(hu), matrices)
    x = _vary_noise(x, settings.noise_share, generator)
    gain = torch.from_numpy(1 + generator.uniform(-settings.gain, settings.gain, (n, 1, 1, 1)).astype(np.float32))
    offset = torch.from_numpy(generator.uniform(-1, 1, (n, 1, 1, 1)).astype(np.float32) * settings.offset_hu)
    x = ((x * gain + offset - LOW_HU) / (HIGH_HU - LOW_HU)).clamp(0, 1)
    if extra.shape[1]:
        warped = warp(torch.from_numpy(extra), matrices)
        limit = settings.position_jitter
        scale, shift = (
            torch.from_numpy(generator.uniform(-limit, limit, (n, extra.shape[1], 1, 1)).astype(np.float32))
            for _ in range(2)
        )
        varied = warped * (1 + scale) + shift * POSITION_SCALE
        if settings.placeless_share:
            varied *= torch.from_numpy(generator.random((n, 1, 1, 1)) >= settings.placeless_share)
        x = torch.cat([x, varied], 1)
    if maps is None:
        return x, None
    warped = AffineTransform((settings.crop,) * 2, align_corners=False)(torch.from_numpy(maps), matrices)
    warped[:, :1] *= gain
    return x, warped.clamp(0, 1)


@dataclass(frozen=True)
class PatchAugmentation:
    """Largest changes of heart patches.

    With faded and stained patches, the few scans with contrast do not teach that hearts are bright.

    Attributes:
        turn_degrees: Rotation about the body's axis.
        tilt_degrees: Rotation about the other axes.
        scale: Scale, or its inverse.
        displacement_voxels: Smooth random displacement.
        gain: Relative change of values from 0 to 1 (1000 HU).
        offset: Shift of values.
        gamma: Exponent of values, or its inverse.
        noise: Standard deviation of noise in values.
        blurred_share: Share of patches blurred in-plane.
        thick_share: Share of patches with slices averaged over three.
        faded_share: Share of patches in which enhanced blood and bone approach soft tissue.
        stained_share: Share of patches in which soft tissue brightens in places.
        stain: Brightening of soft tissue.
        cut_share: Share of patches cut by the field of view.
    """

    turn_degrees: float = 20.0
    tilt_degrees: float = 12.0
    scale: float = 1.25
    displacement_voxels: float = 4.0
    gain: float = 0.1
    offset: float = 0.04
    gamma: float = 1.2
    noise: float = 0.05
    blurred_share: float = 0.3
    thick_share: float = 0.3
    faded_share: float = 0.4
    stained_share: float = 0.15
    stain: float = 0.4
    cut_share: float = 0.25


UNCHANGED = PatchAugmentation(**dict.fromkeys((field.name for field in fields(PatchAugmentation)), 0))
UNCHANGED = replace(UNCHANGED, scale=1, gamma=1)
"""No changes, for validation."""

TISSUE = 0.55
"""Value of soft tissue without contrast, 50 HU, in the heart network's window."""


def augment_patch(
    volume: np.ndarray,
    heart: np.ndarray,
    centre: tuple[float, float, float],
    size: int,
    settings: PatchAugmentation,
    generator: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an augmented patch of a scan and its heart, float32 [1, size, size, size] each.

    Outside the scan is air (0), as scoring pads it.

    Args:
        volume: Scan, 0 to 1, [k, j, i], may be memory-mapped.
        heart: Mask, 0 or 1, may be memory-mapped.
        centre: Centre of the patch (k, j, i) in voxels.
    """
    rotation = random_rotation(settings.turn_degrees, settings.tilt_degrees, generator)
    spacing = np.array([2.0, 1.0, 1.0])  # voxels are twice as long along k as in-plane
    matrix = rotation * random_scale(settings.scale, generator) * spacing / spacing[:, None]
    places = centred_places(size, matrix) + torch.tensor(centre)
    places = places + settings.displacement_voxels * smooth_field(3, size, generator).permute(1, 2, 3, 0)
    warped = sample_at([volume, heart], places)
    x = _vary_contrast(warped[:1], settings, generator)
    x, inside = _vary_intensity(x, settings, generator), (warped[1:] >= 0.5).float()
    if generator.random() < settings.cut_share:
        _cut_field_of_view(x, inside, generator)
    return x, inside


def _slice_matrices(n: int, side: int, settings: SliceAugmentation, generator: np.random.Generator) -> torch.Tensor:
    """Draw affine matrices from a square's pixels to a slice's, float32 [n, 3, 3]."""
    straight = generator.random(n) < settings.straight_share
    turns = np.radians(generator.uniform(-1, 1, n) * settings.rotation_degrees) * ~straight
    shifts = generator.uniform(-1, 1, (n, 2)) * settings.shift_pixels
    shifts[straight] = np.rint(shifts[straight])
    limit = math.log(settings.zoom)
    zooms = np.where(straight, 1.0, np.exp(generator.uniform(-limit, limit, n)))
    from_middle = create_translate(2, [(1 - settings.crop) / 2] * 2)
    matrices = [
        create_translate(2, shift + (side - 1) / 2) @ create_rotate(2, turn) @ create_scale(2, [zoom] * 2) @ from_middle
        for shift, turn, zoom in zip(shifts, turns, zooms, strict=True)
    ]
    return torch.from_numpy(np.stack(matrices).astype(np.float32))


def _vary_noise(x: torch.Tensor, share: float, generator: np.random.Generator) -> torch.Tensor:
    chance = torch.from_numpy(generator.random((len(x), 1, 1, 1)).astype(np.float32))
    smooth = gaussian_blur(x, NOISE_SIGMA_PIXELS)
    return torch.where(chance < share, smooth, torch.where(chance > 1 - share, 2 * x - smooth, x))


def gaussian_blur(x: torch.Tensor, sigma_pixels: float) -> torch.Tensor:
    """Filter slices [n, C, j, i] in-plane with a Gaussian."""
    profile = gaussian_1d(torch.tensor(sigma_pixels), approx="sampled", normalize=True)
    # All slices as channels of one: several times faster on a CPU than as a batch.
    return separable_filtering(x.flatten(0, 1)[None], [profile, profile], mode="reflect").view(x.shape)


def random_rotation(turn_degrees: float, tilt_degrees: float, generator: np.random.Generator) -> np.ndarray:
    """Draw a rotation [3, 3] of (k, j, i) with largest angles about the body's axis (turn) and the others (tilt)."""
    limits = np.radians([turn_degrees, tilt_degrees, tilt_degrees])
    return create_rotate(3, generator.uniform(-limits, limits))[:3, :3]


def random_scale(largest: float, generator: np.random.Generator) -> np.ndarray:
    """Draw scales [3]: a common factor up to `largest` or its inverse, times up to its cube root per axis."""
    limit = math.log(largest)
    overall = generator.uniform(-limit, limit)
    return np.exp(overall + generator.uniform(-limit, limit, 3) / 3)


def centred_places(size: int, matrix: np.ndarray) -> torch.Tensor:
    """Return offsets of a cube's voxels from its centre times a matrix, float32 [size, size, size, 3], (k, j, i)."""
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return offsets @ torch.from_numpy(matrix.T.astype(np.float32))


def smooth_field(channels: int, size: int, generator: np.random.Generator, knots: int = 4) -> torch.Tensor:
    """Draw smooth fields from −1 to 1, float32 [channels, size, size, size].

    Displacements are added to the affine places, so that a patch is interpolated once; with MONAI it would be twice.
    """
    values = torch.from_numpy(generator.uniform(-1, 1, (1, channels, knots, knots, knots)).astype(np.float32))
    return functional.interpolate(values, size=(size,) * 3, mode="trilinear", align_corners=True)[0]


def sample_at(arrays: list[np.ndarray], places: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Sample arrays of one shape [k, j, i] at places, 0 outside; copies only the box needed. float32 [n, k, j, i]."""
    shape, flat = np.array(arrays[0].shape), places.reshape(-1, 3)
    low = np.clip(np.floor(flat.amin(0).numpy()), 0, shape - 1).astype(int)
    high = np.clip(np.floor(flat.amax(0).numpy()) + 2, low + 1, shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    values = torch.from_numpy(np.stack([array[box].astype(np.float32) for array in arrays]))[None]
    inside = places - torch.from_numpy(low).float()
    grid = ((2 * inside + 1) / torch.from_numpy(high - low).float() - 1).flip(-1)[None]
    return functional.grid_sample(values, grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def cut_box(array: np.ndarray, low: np.ndarray, high: np.ndarray, fill: float = 0) -> np.ndarray:
    """Return a box of an array, float32, from index low to below high, with `fill` outside the array."""
    box = np.full(high - low, fill, np.float32)
    inside = tuple(slice(max(0, a), max(0, min(n, b))) for a, b, n in zip(low, high, array.shape, strict=True))
    part = array[inside]
    target = tuple(slice(s.start - a, s.start - a + n) for s, a, n in zip(inside, low, part.shape, strict=True))
    if part.size:
        box[target] = part
    return box


def _vary_intensity(x: torch.Tensor, settings: PatchAugmentation, generator: np.random.Generator) -> torch.Tensor:
    if generator.random() < settings.blurred_share:
        x = gaussian_blur(x, float(generator.uniform(0.4, 1.0)))
    if generator.random() < settings.thick_share:
        x = functional.avg_pool3d(functional.pad(x[None], (0, 0, 0, 0, 1, 1), mode="replicate"), (3, 1, 1), stride=1)[0]
    limit = math.log(settings.gamma)
    x = x.clamp(0, 1) ** math.exp(generator.uniform(-limit, limit))
    x = x * (1 + generator.uniform(-settings.gain, settings.gain)) + generator.uniform(-1, 1) * settings.offset
    level = generator.uniform(0, settings.noise)
    noise = torch.from_numpy(generator.standard_normal(x.shape, np.float32))
    return (x + level * noise).clamp(0, 1)


def _vary_contrast(x: torch.Tensor, settings: PatchAugmentation, generator: np.random.Generator) -> torch.Tensor:
    if generator.random() < settings.faded_share:
        x = torch.where(x > TISSUE, TISSUE + float(generator.uniform(0, 0.5)) * (x - TISSUE), x)
    if generator.random() < settings.stained_share:
        tissue = ((x - 0.45) / 0.05).clamp(0, 1)
        x = x + settings.stain * smooth_field(1, x.shape[-1], generator).clamp(min=0) * tissue
    return x


def _cut_field_of_view(x: torch.Tensor, heart: torch.Tensor, generator: np.random.Generator) -> None:
    """Replace up to half of the patch by air beyond a plane across a random axis, in place."""
    axis = 1 + int(generator.integers(3))
    size = x.shape[axis]
    lost = int(generator.integers(1, size // 2 + 1))
    start = int(generator.choice([0, size - lost]))
    for tensor in (x, heart):
        tensor.narrow(axis, start, lost).zero_()
