"""Heart and territories of a scan by a trained network, on voxels of 3 mm.

The network sees 192 mm at a time. Along the scan it looks at patches in the middle of the body, whose width is that
of a large heart; then once more at a patch around the heart that it found, which is what it learned on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..core.ct import AIR_HU, CTScan, NoHeartError, ScanWarning
from ..core.labels import TERRITORIES
from ..models.inference import predict
from ..models.preprocessing import (
    TERRITORY_PATCH,
    TERRITORY_SPACING_MM,
    on_grid,
    territory_grid,
    territory_input,
)
from .chest import largest_part
from .territories import Territories, counts_along

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
_AORTA = tuple(TERRITORIES.index(name) for name in ("ascending aorta", "descending aorta"))


def find_territories(scan: CTScan, model: LoadedModel) -> Territories:
    """Find heart and territories. Raises NoHeartError if less than MIN_HEART_ML of heart is found."""
    grid = territory_grid(scan.image)
    hu = on_grid(scan.image, grid, AIR_HU)
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
    aorta = np.isin(label, _AORTA)
    parts, _ = ndimage.label(aorta | ((label > 0) & near))
    in_heart = np.bincount(parts[heart], minlength=2)[1:]
    kept = parts == 1 + in_heart.argmax() if in_heart.any() else np.zeros_like(heart)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        part = (parts[box] == number) & (label[box] == _AORTA[1])
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
