"""To which artery, valve or vessel each place in and around the heart belongs: probabilities by a trained network.

The network sees 192 mm at a time, on voxels of 3 mm. Along the scan it looks at patches in the middle of the body,
whose width is that of a large heart; then once more at a patch around the heart that it found, which is what it learned
on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import AIR_HU, CTScan, NoHeartError, ScanWarning
from ..core.grid import Grid, ScanGrid, largest_part
from ..core.labels import TERRITORIES
from ..models.inference import predict
from ..models.preprocessing import TERRITORY_PATCH, TERRITORY_SPACING_MM, territory_grid, territory_input

if TYPE_CHECKING:
    from ..models.cards import LoadedModel

OVERLAP = 0.25
"""Share of a patch that the next one along the scan has in common with it, at least."""
BORDER = 4
"""Voxels at a patch's sides over which its weight rises to 1: there it sees little around."""
TISSUE_HU = -300.0
MIN_HEART_ML = 50.0
AGAIN_MM = 24.0
"""If the heart's middle moved further than this by the last look, it is looked at once more."""
LOOKS = 3
NEAR_HEART_MM = 12.0
"""Arteries, valves and the trunk of the pulmonary artery lie no farther than this from the heart."""
LONG_AORTA_ML = 15.0
"""A descending aorta that does not hang together with the heart or the arch holds at least as much."""
BELOW_HEART_MM = 30.0
"""The aorta leaves the thorax about so far below the heart."""

_OUTSIDE, _OTHER, _ASCENDING, _DESCENDING = (
    TERRITORIES.index(name) for name in ("outside", "other", "ascending aorta", "descending aorta")
)


@dataclass(frozen=True)
class Territories:
    """Probabilities on voxels of about 3 mm.

    grid: where they lie. heart: float32 [k, j, i]. probability: float32 [11, k, j, i], of TERRITORIES; what was not
    looked at is outside. source: the network's name.
    """

    grid: ScanGrid
    heart: np.ndarray
    probability: np.ndarray
    source: str
    warnings: tuple[ScanWarning, ...] = ()

    def labels(self, image: sitk.Image) -> sitk.Image:
        """The likeliest territory of every voxel of the scan, uint8 on its grid; ties go to the lower label."""
        near, grid, box = self._part(image, self.probability[0] < 0.5)
        label = np.zeros(near.GetSize()[::-1], np.uint8)
        best = np.zeros(label.shape, np.float32)
        for number, probability in enumerate(self.probability):
            part = grid.paste(probability[box], near)
            better = part > best
            best[better], label[better] = part[better], number
        return Grid.of(image).paste(Grid.of(near).image(label))

    def heart_mask(self, image: sitk.Image, threshold: float = 0.5) -> sitk.Image:
        """The heart, uint8 0/1 on the scan's grid: the largest connected part."""
        heart = ndimage.binary_dilation(largest_part(self.heart >= threshold))
        near, grid, box = self._part(image, heart)
        kept = np.where(heart, self.heart, np.float32(0))[box]
        inside = grid.paste(kept, near) >= threshold + 1e-3
        return Grid.of(image).paste(Grid.of(near).image(inside))

    def at(self, flat: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """Probabilities float32 [n, 11] at voxels of the scan. flat: indices into its array, whose shape is [k, j, i].

        Linear between the grid's voxels; beyond the middles of the outermost their values go on.
        """
        places = np.stack(np.unravel_index(flat, shape)).astype(np.float32)
        first, step = (np.array(part[::-1], np.float32)[:, None] for part in (self.grid.first, self.grid.step))
        places = (places - first) / step
        found = [ndimage.map_coordinates(p, places, order=1, mode="nearest") for p in self.probability]
        return np.stack(found, axis=1)

    def with_descending_aorta(self, tube: sitk.Image) -> Territories:
        """With the descending aorta also where it was seen to run, as the network's may lie some mm too far back.

        Arteries, valves and other vessels keep their places.

        Args:
            tube: uint8 0/1 on the scan's grid.
        """
        share = self.grid.resample(tube, 0.0) * np.isin(self.probability.argmax(0), (_OUTSIDE, _OTHER))
        probability = self.probability * (1 - share)
        probability[_DESCENDING] += share
        return replace(self, probability=probability)

    def _part(self, image: sitk.Image, wanted: np.ndarray) -> tuple[sitk.Image, ScanGrid, tuple[slice, ...]]:
        """The part of the scan that holds what is wanted, the grid's part there, and its box [k, j, i]."""
        places = [np.nonzero(counts_along(wanted, axis))[0] for axis in range(3)]
        box = tuple(slice(max(0, int(p[0]) - 1), int(p[-1]) + 2) for p in places)
        cut, first = [], []
        for part, count, start, step in zip(box[::-1], image.GetSize(), self.grid.first, self.grid.step, strict=True):
            low = max(0, math.floor(start + (part.start - 1) * step))
            cut.append(slice(low, min(count, math.ceil(start + (part.stop + 1) * step) + 1)))
            first.append(start + part.start * step - low)
        size = tuple(self.heart[box].shape[::-1])
        return image[tuple(cut)], ScanGrid(tuple(first), self.grid.step, size), box


def counts_along(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of a mask in each plane across an axis; all 1 for an empty mask."""
    counts = mask.sum(tuple(n for n in range(3) if n != axis))
    return counts if counts.any() else counts + 1


def find_territories(scan: CTScan, model: LoadedModel) -> Territories:
    """Find heart and territories. Raises NoHeartError if less than MIN_HEART_ML of heart is found."""
    grid = territory_grid(scan.image)
    hu = grid.resample(scan.image, AIR_HU)
    weight = np.full(hu.shape, 1e-6, np.float32)
    output = np.zeros((1 + len(TERRITORIES), *hu.shape), np.float32)
    output[1] = 1e-6
    warnings: list[ScanWarning] = []

    def look(centres: list[np.ndarray], times: float) -> None:
        """Look at patches around these (k, j, i), and let them count so many times as much as what was seen before."""
        lows = [np.rint(c - TERRITORY_PATCH / 2).astype(int) for c in centres]
        boxes = [_box(low, hu.shape) for low in lows]
        patches = np.stack([territory_input(_filled(hu, box)) for box in boxes])
        found, doubtful = predict(model.network, patches, 1)
        warnings.extend(doubtful)
        for (inside, part), one in zip(boxes, found, strict=True):
            trust = times * _WEIGHT[part]
            output[(slice(None), *inside)] += trust * one[(slice(None), *part)]
            weight[inside] += trust

    look(_along(hu), 1.0)
    middle = _heart_middle(output[0] / weight, model.card.name)
    for turn in range(1, LOOKS):
        look([middle], 100.0**turn)
        before, middle = middle, _heart_middle(output[0] / weight, model.card.name)
        if np.abs(middle - before).max() * TERRITORY_SPACING_MM[0] <= AGAIN_MM:
            break
    output /= weight
    _clear(output[1:], largest_part(output[0] >= 0.5))
    return Territories(grid, output[0], output[1:], model.card.name, tuple(dict.fromkeys(warnings)))


def _clear(probability: np.ndarray, heart: np.ndarray) -> None:
    """Make outside, in place, what cannot belong to this heart: arteries and valves far from it, vessels that do not
    hang together with it, and the aorta of the abdomen. A descending aorta may lie apart, if it is a long one."""
    steps = round(NEAR_HEART_MM / TERRITORY_SPACING_MM[0])
    near = ndimage.binary_dilation(heart, iterations=steps)
    label = probability.argmax(0)
    aorta = np.isin(label, (_ASCENDING, _DESCENDING))
    parts, _ = ndimage.label(aorta | ((label > 0) & near))
    in_heart = np.bincount(parts[heart], minlength=2)[1:]
    kept = parts == 1 + in_heart.argmax() if in_heart.any() else np.zeros_like(heart)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        part = (parts[box] == number) & (label[box] == _DESCENDING)
        if part.sum() * math.prod(TERRITORY_SPACING_MM) / 1000 >= LONG_AORTA_ML:
            kept[box] |= part
    lowest = np.nonzero(counts_along(heart, 0))[0][0]
    kept[: max(0, lowest - round(BELOW_HEART_MM / TERRITORY_SPACING_MM[0]))] = False
    gone = ~kept & (label > 0)
    probability[:, gone] = 0
    probability[0, gone] = 1


def _along(hu: np.ndarray) -> list[np.ndarray]:
    """Centres of patches along the scan, in the middle of the body's tissue."""
    tissue = hu > TISSUE_HU
    middle = [float(np.average(np.arange(hu.shape[n]), weights=counts_along(tissue, n))) for n in (1, 2)]
    room = hu.shape[0] - TERRITORY_PATCH
    count = max(1, math.ceil(room / (TERRITORY_PATCH * (1 - OVERLAP))) + 1)
    ends = (TERRITORY_PATCH / 2, hu.shape[0] - TERRITORY_PATCH / 2) if room > 0 else (hu.shape[0] / 2,) * 2
    return [np.array([k, *middle]) for k in np.linspace(*ends, count)]


def _heart_middle(probability: np.ndarray, name: str) -> np.ndarray:
    """Middle of the box of the largest part that is heart, (k, j, i). Raises NoHeartError."""
    heart = largest_part(probability >= 0.5)
    volume_ml = float(heart.sum()) * math.prod(TERRITORY_SPACING_MM) / 1000
    if volume_ml < MIN_HEART_ML:
        message = (
            f"The network {name} found only {volume_ml:.0f} ml of heart, which is too little to score. Give a CT that "
            "shows the heart, or a heart mask."
        )
        raise NoHeartError(message)
    places = [np.nonzero(counts_along(heart, axis))[0] for axis in range(3)]
    return np.array([(p[0] + p[-1]) / 2 for p in places])


def _box(low: np.ndarray, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """A patch's part of the volume, and of the patch."""
    first = np.clip(low, 0, shape)
    last = np.clip(low + TERRITORY_PATCH, 0, shape)
    inside = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return inside, tuple(slice(int(a - n), int(b - n)) for a, b, n in zip(first, last, low, strict=True))


def _filled(hu: np.ndarray, box: tuple[tuple[slice, ...], tuple[slice, ...]]) -> np.ndarray:
    patch = np.full((TERRITORY_PATCH,) * 3, AIR_HU, np.float32)
    patch[box[1]] = hu[box[0]]
    return patch


def _patch_weight() -> np.ndarray:
    ramp = np.minimum(
        1.0, (np.minimum(np.arange(TERRITORY_PATCH), np.arange(TERRITORY_PATCH)[::-1]) + 1) / (BORDER + 1)
    ).astype(np.float32)
    return ramp[:, None, None] * ramp[:, None] * ramp


_WEIGHT = _patch_weight()
