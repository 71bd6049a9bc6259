"""Patches of digital patients for the territory network, as different scanners would show them.

All random numbers come from the caller's generator. HU are varied before windowing, so that effects of the scanner
(noise, kernel, slices, field of view) are in HU and mm. MONAI simulates none of slices, streaks and field of view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from CACScoringLib.core.ct import AIR_HU
from CACScoringLib.core.grid import triple
from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.models.preprocessing import TERRITORY_PATCH, TERRITORY_SPACING_MM, territory_input

from .augmentation import centred_places, cut_box, gaussian_blur, random_rotation, random_scale, sample_at, smooth_field
from .territory_volumes import POSSIBLE, TerritoryVolume, add_dense

SIZE, STEP_MM = TERRITORY_PATCH, TERRITORY_SPACING_MM[0]
BORDERS = (
    ("LM", "LAD"),
    ("LM", "LCX"),
    ("LAD", "LCX"),
    ("LAD", "pulmonary artery"),
    ("LM", "aortic valve and root"),
    ("RCA", "aortic valve and root"),
    ("LCX", "mitral annulus"),
)
"""Pairs of neighbouring territories that are easily confused."""
_BORDER = np.zeros((len(TERRITORIES),) * 2, np.uint8)
for _n, _pair in enumerate(BORDERS, 1):
    _first, _second = map(TERRITORIES.index, _pair)
    _BORDER[_first, _second] = _BORDER[_second, _first] = _n
CALCIFYING = sorted({TERRITORIES.index(territory) for territory, _ in POSSIBLE.values()})
"""Labels of TERRITORIES that hold the calcium of `territory_volumes.POSSIBLE`."""
UNKNOWN = 255
"""Label of voxels outside the field of view."""


@dataclass(frozen=True)
class TerritoryAugmentation:
    """Largest changes of a patch, and shares of patches with a change.

    Attributes:
        off_centre_mm: Distance of the patch's centre from the heart's, along each axis.
        elsewhere_share: Share of patches anywhere in the scan.
        turn_degrees: Rotation about the body's axis.
        tilt_degrees: Rotation about each of the other axes.
        scale: Factor of size; its inverse is the smallest.
        displacement_mm: Smooth random displacement.
        offset_hu: Offset of all HU.
        gain: Change of contrast of all HU, relative to air.
        noise_hu: Standard deviation on 3 mm voxels, where 70 HU on a scanner's voxels are 10 or less.
        shade_hu: Smooth random shading, as from beam hardening and scatter.
        streak_hu: Noise that is constant along the rows, as from shoulders and arms.
        tissue_hu: Smooth random change of soft tissue.
        thickest_mm: Slice thickness.
        blur_mm: Standard deviation of a blur within slices.
        sharpening: Strength of edge enhancement.
        specks: Number of dense spots at random places, so that calcium carries no information on the territory.
        border_share: Share of specks on either side of BORDERS.
        dedicated_share: Share of patches with the field of view of a calcium scan (160 to 260 mm, the heart's slices).
        cut_share: Share of the other patches whose scan begins or ends within the heart.
    """

    off_centre_mm: float = 45.0
    elsewhere_share: float = 0.12
    turn_degrees: float = 22.0
    tilt_degrees: float = 12.0
    scale: float = 1.2
    displacement_mm: float = 9.0
    offset_hu: float = 15.0
    gain: float = 0.06
    noise_hu: float = 14.0
    shade_hu: float = 18.0
    streak_hu: float = 12.0
    tissue_hu: float = 25.0
    thickest_mm: float = 6.0
    blur_mm: float = 2.4
    sharpening: float = 0.5
    specks: int = 12
    border_share: float = 0.5
    dedicated_share: float = 0.35
    cut_share: float = 0.15


@dataclass(frozen=True)
class Patch:
    """Patch of a patient.

    Attributes:
        x: Network input, float32 [2, k, j, i].
        labels: Territories, UNKNOWN included, int64 [k, j, i].
        heart: Mask, float32 [k, j, i], 0 or 1.
        possible: Share of calcium in each voxel by CALCIFYING over many patients, float32 [n, k, j, i].
    """

    x: torch.Tensor
    labels: torch.Tensor
    heart: torch.Tensor
    possible: torch.Tensor


def plain_patch(volume: TerritoryVolume) -> tuple[Patch, tuple[int, int, int]]:
    """Return the unchanged patch around the heart, with its first voxel (k, j, i) in the volume."""
    k, j, i = heart_centre(volume)
    low = (round(k - SIZE / 2), round(j - SIZE / 2), round(i - SIZE / 2))
    arrays = [(add_dense(volume), AIR_HU), (volume.labels, UNKNOWN), (volume.heart, 0)]
    arrays += [(share, 0) for share in possible(volume)]
    hu, labels, heart, *shares = (cut_box(array, np.array(low), np.array(low) + SIZE, fill) for array, fill in arrays)
    return _as_patch(hu, labels, heart, np.stack(shares)), low


def random_patch(volume: TerritoryVolume, settings: TerritoryAugmentation, generator: np.random.Generator) -> Patch:
    """Draw an augmented patch of a patient."""
    g = generator
    gains = (float(g.choice([0.0, 1.0, 1.0, 2.0])), float(g.choice([0.0, 1.0, 1.0, 2.0])))
    hu = _add_specks(add_dense(volume, *gains), volume, settings, g)
    middle = np.array(heart_centre(volume))
    if g.random() < settings.elsewhere_share:
        centre = g.uniform(0, volume.hu.shape)
    else:
        centre = middle + g.uniform(-1, 1, 3) * settings.off_centre_mm / STEP_MM
    places = _draw_places(centre, settings, g)
    sampled = sample_at([hu - AIR_HU, volume.heart, *possible(volume)], places)
    x = _vary_scanner(sampled[0] + AIR_HU, settings, g)
    patch = x.numpy(), sample_at([volume.labels], places, "nearest")[0].numpy(), sampled[1].numpy() >= 0.5
    return _as_patch(*_limit_field_of_view(*patch, middle - centre, settings, g), sampled[2:].numpy())


def heart_centre(volume: TerritoryVolume) -> tuple[float, float, float]:
    """Return the middle of the heart's box, (k, j, i)."""
    centre = []
    for axes in ((1, 2), (0, 2), (0, 1)):
        places = np.nonzero(volume.heart.any(axes))[0]
        centre.append(float(places[0] + places[-1]) / 2)
    return triple(centre)


def border_places(labels: np.ndarray) -> list[np.ndarray]:
    """Return flat indices of the voxels on both sides of each of the BORDERS in labels [k, j, i]."""
    axis_places, axis_kinds = [], []
    index = np.arange(labels.size).reshape(labels.shape)
    for axis in range(3):
        low, high = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        at = np.moveaxis(index, axis, 0)
        kind = _BORDER[low, high]
        is_border = kind > 0
        axis_places += [at[:-1][is_border], at[1:][is_border]]
        axis_kinds += [kind[is_border]] * 2
    places, kinds = np.concatenate(axis_places), np.concatenate(axis_kinds)
    return [places[kinds == n] for n in np.unique(kinds)]


def possible(volume: TerritoryVolume) -> np.ndarray:
    """Return the share of all calcium in each voxel by territory of CALCIFYING, float32 [n, k, j, i]."""
    index, share, label = volume.possible
    shares = np.zeros((len(CALCIFYING), volume.hu.size), np.float32)
    np.add.at(shares, (np.searchsorted(CALCIFYING, label), index), share)
    return shares.reshape(-1, *volume.hu.shape)


def _as_patch(hu: np.ndarray, labels: np.ndarray, heart: np.ndarray, possible: np.ndarray) -> Patch:
    return Patch(
        torch.from_numpy(territory_input(hu)),
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(heart.astype(np.float32)),
        torch.from_numpy(possible),
    )


def _add_specks(
    hu: np.ndarray, volume: TerritoryVolume, settings: TerritoryAugmentation, g: np.random.Generator
) -> np.ndarray:
    anywhere, borders = np.flatnonzero(volume.labels), border_places(volume.labels)
    for _ in range(int(g.integers(settings.specks + 1))):
        at_border = borders and g.random() < settings.border_share
        places = borders[g.integers(len(borders))] if at_border else anywhere
        at = np.array(np.unravel_index(places[g.integers(len(places))], hu.shape))
        size = g.uniform(0.25, 1.6, 3)
        low, high = np.maximum(at - 4, 0), np.minimum(at + 5, hu.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        offset = np.ogrid[box]
        square = sum(((o - a) / s) ** 2 for o, a, s in zip(offset, at, size, strict=True))
        hu[box] += (math.exp(g.uniform(math.log(40), math.log(1500))) * np.exp(-0.5 * square)).astype(np.float32)
    return hu


def _draw_places(centre: np.ndarray, settings: TerritoryAugmentation, g: np.random.Generator) -> torch.Tensor:
    """Draw the places of a patch's voxels in the volume, in voxels (k, j, i)."""
    matrix = random_rotation(settings.turn_degrees, settings.tilt_degrees, g) * random_scale(settings.scale, g)
    places = centred_places(SIZE, matrix)
    reach = g.uniform(0, settings.displacement_mm) / STEP_MM
    return places + torch.from_numpy(centre).float() + reach * smooth_field(3, SIZE, g, 5).permute(1, 2, 3, 0)


def _vary_scanner(hu: torch.Tensor, settings: TerritoryAugmentation, g: np.random.Generator) -> torch.Tensor:
    tissue = ((hu + 20) / 40).clamp(0, 1)
    hu = hu + float(g.uniform(0, settings.tissue_hu)) * smooth_field(1, SIZE, g)[0] * tissue
    if g.random() < 0.5:
        hu = _thicken(hu, float(g.uniform(2.0, settings.thickest_mm)), float(g.uniform(0.5, 1.0)), g)
    kind = g.random()
    if kind < 0.35:
        hu = gaussian_blur(hu[None], float(g.uniform(0.5, settings.blur_mm)) / STEP_MM)[0]
    elif kind < 0.65:
        hu = hu + float(g.uniform(0, settings.sharpening)) * (hu - gaussian_blur(hu[None], 0.7)[0])
    hu = hu + float(g.uniform(0, settings.shade_hu)) * smooth_field(1, SIZE, g, 3)[0]
    noise = torch.from_numpy(g.standard_normal(hu.shape, np.float32))
    hu = hu + float(settings.noise_hu * g.random() ** 2) * noise
    if g.random() < 0.3:
        rows = torch.from_numpy(g.standard_normal((SIZE, SIZE, 1), np.float32))
        hu = hu + float(g.uniform(0, settings.streak_hu)) * rows
    gain, offset = 1 + g.uniform(-1, 1) * settings.gain, g.uniform(-1, 1) * settings.offset_hu
    return (hu - AIR_HU) * float(gain) + float(AIR_HU + offset)


def _thicken(hu: torch.Tensor, thickness_mm: float, spacing_share: float, g: np.random.Generator) -> torch.Tensor:
    """Average to slices of a thickness and spacing (a share of it), and resample to the former slices."""
    spacing = thickness_mm * spacing_share / STEP_MM
    voxels = np.arange(SIZE)
    middles = np.arange(g.uniform(-spacing, 0), SIZE + spacing, spacing)

    def overlaps(width: float) -> np.ndarray:
        """Return the overlap of slices of a width with voxels [slice, voxel]."""
        high = np.minimum(voxels + 0.5, middles[:, None] + width / 2)
        return np.maximum(high - np.maximum(voxels - 0.5, middles[:, None] - width / 2), 0)

    slices = overlaps(thickness_mm / STEP_MM) + 1e-6 * np.exp(-np.abs(voxels - middles[:, None]))
    slices /= slices.sum(1, keepdims=True)
    back = overlaps(spacing).T
    back /= back.sum(1, keepdims=True)
    operator = torch.from_numpy((back @ slices).astype(np.float32))
    return (operator @ hu.reshape(SIZE, -1)).reshape(hu.shape)


def _limit_field_of_view(
    hu: np.ndarray,
    labels: np.ndarray,
    heart: np.ndarray,
    middle: np.ndarray,
    settings: TerritoryAugmentation,
    g: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Set air outside a random field of view. middle: heart's middle from the patch's centre, before its rotation."""
    reach = np.full((3, 2), 1e6)
    dedicated = g.random() < settings.dedicated_share
    side = g.uniform(160, 260) if dedicated else g.uniform(280, 500)
    reach[1:] = side / 2 + np.array([-1, 1]) * g.uniform(-20, 20, (2, 1))
    reach[0] = g.uniform(55, 110, 2) if dedicated else 1e6
    if not dedicated and g.random() < settings.cut_share:
        reach[0, int(g.integers(2))] = g.uniform(-20, 60)
    place = np.arange(SIZE) - (SIZE - 1) / 2
    for axis, (low, high) in enumerate(reach / STEP_MM):
        outside = (place < middle[axis] - low) | (place > middle[axis] + high)
        part = [slice(None)] * 3
        part[axis] = outside
        hu[tuple(part)], labels[tuple(part)], heart[tuple(part)] = AIR_HU, UNKNOWN, False
    return hu, labels, heart
