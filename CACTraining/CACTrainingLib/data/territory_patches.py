"""Patches of digital patients for the territory network, as different scanners would show them.

`draw_patches` cuts voxels and draws changes, `augment_patches` applies them to all patches on their device, as in
`augmentation`. HU are varied before windowing, so that effects of the scanner (noise, kernel, slices, field of view)
are in HU and mm. MONAI simulates none of slices, streaks and field of view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from CACScoringLib.core.ct import AIR_HU
from CACScoringLib.core.grid import triple
from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.models.preprocessing import (
    TERRITORY_PATCH,
    TERRITORY_SPACING_MM,
    TERRITORY_WINDOWS_HU,
    territory_input,
)

from ..phantom import HIGHEST_HU, POSSIBLE, TerritoryVolume, add_dense, dense_voxels
from .augmentation import (
    Changes,
    affine_knots,
    as_tensors,
    blur_kernels,
    box_of_places,
    cut_box,
    cut_boxes,
    filter_planes,
    gathered,
    inside_all,
    per_sample,
    random_rotation,
    random_scale,
    seeded,
    smooth_field,
)

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
"""Labels of TERRITORIES that hold the calcium of `phantom.POSSIBLE`."""
UNKNOWN = 255
"""Label of voxels outside the field of view."""
HEART_ONLY = 254
"""Label of voxels of a scan with an outlined heart, whose territories are not known."""
_POINTS = ("dense", "specks", "possible")


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
        labels: Territories, UNKNOWN and HEART_ONLY included, int64 [k, j, i].
        heart: Mask, float32 [k, j, i], 0 or 1.
    """

    x: torch.Tensor
    labels: torch.Tensor
    heart: torch.Tensor


def outlined_volume(folder: Path) -> TerritoryVolume:
    """Load a scan with an outlined heart, which `datasets.prepare` wrote: all its labels are HEART_ONLY."""
    hu, heart = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hu", "heart"))
    nothing = (np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.uint8))
    labels = np.full(heart.shape, HEART_ONLY, np.uint8)
    return TerritoryVolume(hu, labels, heart, plaques=nothing, deposits=nothing, possible=nothing)


def plain_patch(volume: TerritoryVolume) -> tuple[Patch, tuple[int, int, int]]:
    """Return the unchanged patch around the heart, with its first voxel (k, j, i) in the volume."""
    k, j, i = heart_centre(volume)
    low = (round(k - SIZE / 2), round(j - SIZE / 2), round(i - SIZE / 2))
    arrays = [(add_dense(volume), AIR_HU), (volume.labels, UNKNOWN), (volume.heart, 0)]
    hu, labels, heart = (cut_box(array, np.array(low), np.array(low) + SIZE, fill) for array, fill in arrays)
    x, whole_labels = territory_input(hu), labels.astype(np.int64)
    return Patch(torch.from_numpy(x), torch.from_numpy(whole_labels), torch.from_numpy(heart)), low


def draw_patches(
    volumes: Sequence[TerritoryVolume],
    settings: TerritoryAugmentation,
    generator: np.random.Generator,
    borders: Sequence[list[np.ndarray]] | None = None,
) -> Changes:
    """Cut a patch from each patient, and draw its changes, for `augment_patches`.

    borders: `border_places` of the patients, where known, which take longer than all else.
    """
    drawn = [
        _draw_patch(volume, border_places(volume.labels) if borders is None else borders[n], settings, generator)
        for n, volume in enumerate(volumes)
    ]
    knots = [places for places, *_ in drawn]
    boxes, grid = cut_boxes([[volume.hu, volume.labels, volume.heart] for volume in volumes], knots, AIR_HU)
    shape = boxes.shape[2:]
    points: dict[str, list[np.ndarray]] = {f"{kind}_{part}": [] for kind in _POINTS for part in ("at", "value")}
    for n, (volume, (places, dense, specks, _)) in enumerate(zip(volumes, drawn, strict=True)):
        low = box_of_places(places, volume.hu.shape)[0]
        index, share, label = volume.possible
        parts = {"dense": dense, "specks": specks, "possible": (index, share)}
        channels = np.searchsorted(CALCIFYING, label) + n * len(CALCIFYING)
        for kind, (voxels, values) in parts.items():
            place = np.stack(np.unravel_index(voxels, volume.hu.shape)) - low[:, None]
            inside = ((place >= 0) & (place < np.reshape(shape, (3, 1)))).all(0)
            cube = np.ravel_multi_index(place[:, inside], shape)
            points[f"{kind}_at"].append(cube + (channels[inside] if kind == "possible" else n) * int(np.prod(shape)))
            points[f"{kind}_value"].append(values[inside].astype(np.float32))
    batch = {"boxes": boxes, "knots": grid, **gathered([changes for *_, changes in drawn])}
    batch |= {name: np.concatenate(parts) for name, parts in points.items()}
    if "blur" in batch:
        batch["blur"] = blur_kernels(batch["blur"])
    return {**as_tensors(batch), "seed": torch.tensor(int(generator.integers(2**62)))}


def augment_patches(batch: Changes) -> Changes:
    """Return augmented patches: the fields of `Patch` by name, with a first axis of patients, and "possible".

    possible: Share of calcium in each voxel by CALCIFYING over many patients, float32 [patients, n, k, j, i].
    """
    hu, volume_labels, heart = batch["boxes"].float().unbind(1)
    values = torch.zeros((len(hu), 2 + len(CALCIFYING), *hu.shape[1:]), device=hu.device)
    values[:, 0] = _with_points(_with_points(hu, batch, "dense").clamp_(max=HIGHEST_HU), batch, "specks")
    values[:, 0] -= AIR_HU
    values[:, 1] = heart
    values[:, 2:] = _with_points(torch.zeros_like(values[:, 2:]), batch, "possible")
    grid = smooth_field(batch["knots"], SIZE).permute(0, 2, 3, 4, 1)
    sampled = functional.grid_sample(values, grid, align_corners=False)
    labels = functional.grid_sample(volume_labels[:, None], grid, mode="nearest", align_corners=False)[:, 0]
    # Beyond a digital patient is air; what lies beyond a scan is not known.
    has_heart_only = (volume_labels == HEART_ONLY).flatten(1).any(1)
    labels = torch.where(per_sample(has_heart_only, 4) & (labels == 0), UNKNOWN, labels)
    inside = inside_all(batch["inside"])
    x = torch.where(inside, _vary_scanner(sampled[:, 0] + AIR_HU, batch), AIR_HU)
    windows = [((x - low) / (high - low)).clamp_(0, 1) for low, high in TERRITORY_WINDOWS_HU]
    return {
        "x": torch.stack(windows, 1),
        "labels": torch.where(inside, labels.long(), UNKNOWN),
        "heart": ((sampled[:, 1] >= 0.5) & inside).float(),
        "possible": sampled[:, 2:],
    }


def _with_points(values: torch.Tensor, batch: Changes, kind: str) -> torch.Tensor:
    """Add values at flat places to a tensor."""
    return values.flatten().index_add_(0, batch[f"{kind}_at"], batch[f"{kind}_value"]).view(values.shape)


def _draw_patch(
    volume: TerritoryVolume, borders: list[np.ndarray], settings: TerritoryAugmentation, g: np.random.Generator
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], dict[str, Any]]:
    """Draw the places of a patch's knots, its dense voxels, its specks, and its changes."""
    gains = (float(g.choice([0.0, 1.0, 1.0, 2.0])), float(g.choice([0.0, 1.0, 1.0, 2.0])))
    voxels, values = dense_voxels(volume, *gains)
    specks = _draw_specks(volume, borders, settings, g)
    middle = np.array(heart_centre(volume))
    if g.random() < settings.elsewhere_share:
        centre = g.uniform(0, volume.hu.shape)
    else:
        centre = middle + g.uniform(-1, 1, 3) * settings.off_centre_mm / STEP_MM
    matrix = random_rotation(settings.turn_degrees, settings.tilt_degrees, g) * random_scale(settings.scale, g)
    reach = g.uniform(0, settings.displacement_mm) / STEP_MM
    knots = affine_knots(SIZE, matrix, centre, 5) + reach * g.uniform(-1, 1, (3, 5, 5, 5))
    changes = _draw_scanner(settings, g)
    return knots, (voxels, values), specks, {**changes, "inside": _field_of_view(middle - centre, settings, g)}


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


def _draw_specks(
    volume: TerritoryVolume, borders: list[np.ndarray], settings: TerritoryAugmentation, g: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw dense spots: flat voxels, and the HU that they add."""
    shape = volume.hu.shape
    anywhere = np.flatnonzero(volume.labels)
    voxels, values = [np.zeros(0, np.int64)], [np.zeros(0)]
    for _ in range(int(g.integers(settings.specks + 1))):
        at_border = borders and g.random() < settings.border_share
        places = borders[g.integers(len(borders))] if at_border else anywhere
        at = np.array(np.unravel_index(places[g.integers(len(places))], shape))
        size = g.uniform(0.25, 1.6, 3)
        low, high = np.maximum(at - 4, 0), np.minimum(at + 5, shape)
        offset = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        square = sum(((o - a) / s) ** 2 for o, a, s in zip(offset, at, size, strict=True))
        values.append((math.exp(g.uniform(math.log(40), math.log(1500))) * np.exp(-0.5 * square)).ravel())
        voxels.append(np.ravel_multi_index(np.broadcast_arrays(*offset), shape).ravel())
    return np.concatenate(voxels), np.concatenate(values)


def _draw_scanner(settings: TerritoryAugmentation, g: np.random.Generator) -> dict[str, Any]:
    """Draw the effects of a scanner; those that a patch does not have are left out."""
    changes: dict[str, Any] = {"tissue": g.uniform(0, settings.tissue_hu) * g.uniform(-1, 1, (1, 4, 4, 4))}
    if g.random() < 0.5:
        changes["thick"] = _thickening(float(g.uniform(2.0, settings.thickest_mm)), float(g.uniform(0.5, 1.0)), g)
    kind = g.random()
    if kind < 0.35:
        changes |= {"blur": float(g.uniform(0.5, settings.blur_mm)) / STEP_MM, "detail": -1.0}
    elif kind < 0.65:
        changes |= {"blur": 0.7, "detail": g.uniform(0, settings.sharpening)}
    changes["shade"] = g.uniform(0, settings.shade_hu) * g.uniform(-1, 1, (1, 3, 3, 3))
    changes["noise"] = settings.noise_hu * g.random() ** 2
    changes["streaks"] = g.uniform(0, settings.streak_hu) if g.random() < 0.3 else 0.0
    changes["gain"] = 1 + g.uniform(-1, 1) * settings.gain
    changes["offset"] = AIR_HU + g.uniform(-1, 1) * settings.offset_hu
    return changes


def _vary_scanner(hu: torch.Tensor, batch: Changes) -> torch.Tensor:
    """Show patches as other scanners would. hu: [n, k, j, i]."""
    tissue = ((hu + 20) / 40).clamp_(0, 1)
    hu = hu + smooth_field(batch["tissue"], SIZE)[:, 0] * tissue
    if "thick" in batch:
        part = hu[batch["thick_at"]]
        hu[batch["thick_at"]] = (batch["thick"] @ part.flatten(2)).view(part.shape)
    if "blur" in batch:
        part = hu[batch["blur_at"]]
        hu[batch["blur_at"]] = part + per_sample(batch["detail"], 4) * (part - filter_planes(part, batch["blur"]))
    noise, streaks, gain, offset = (per_sample(batch[name], 4) for name in ("noise", "streaks", "gain", "offset"))
    generator = seeded(batch["seed"], hu.device)
    hu += smooth_field(batch["shade"], SIZE)[:, 0]
    hu += torch.randn(hu.shape, generator=generator, device=hu.device).mul_(noise)
    hu += torch.randn((*hu.shape[:3], 1), generator=generator, device=hu.device) * streaks
    return (hu - AIR_HU).mul_(gain).add_(offset)


def _thickening(thickness_mm: float, spacing_share: float, g: np.random.Generator) -> np.ndarray:
    """Return the matrix [SIZE, SIZE] that averages slices to a thickness and spacing (a share of it), and resamples."""
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
    return back @ slices


def _field_of_view(middle: np.ndarray, settings: TerritoryAugmentation, g: np.random.Generator) -> np.ndarray:
    """Draw a field of view: along each axis, True for voxels inside, bool [3, SIZE].

    middle: heart's middle from the patch's centre, before its rotation.
    """
    reach = np.full((3, 2), 1e6)
    dedicated = g.random() < settings.dedicated_share
    side = g.uniform(160, 260) if dedicated else g.uniform(280, 500)
    reach[1:] = side / 2 + np.array([-1, 1]) * g.uniform(-20, 20, (2, 1))
    reach[0] = g.uniform(55, 110, 2) if dedicated else 1e6
    if not dedicated and g.random() < settings.cut_share:
        reach[0, int(g.integers(2))] = g.uniform(-20, 60)
    low, high = (reach / STEP_MM).T
    place = np.arange(SIZE) - (SIZE - 1) / 2
    return (place >= (middle - low)[:, None]) & (place <= (middle + high)[:, None])
