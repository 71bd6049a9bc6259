"""The territories of coronary arteries, valves and great vessels in and around the heart, by a network.

It sees 192 mm at a time, on voxels of 3 mm: first patches along the scan, in the middle of the body, whose width is
that of a large heart; then a patch around the heart that it found, which is what it learned on; at last patches around
the heart as seen there, averaged so that small changes of the scan change little.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..core.ct import AIR_HU, CTScan, ScanWarning
from ..core.errors import NoHeartError
from ..core.grid import Box, largest_part
from ..core.labels import MAIN_ARTERIES, TERRITORIES
from ..core.scan_grid import ScanGrid
from ..core.slice_checks import BODY_HU, LUNG_EDGE_HU
from ..models.inference import ProcessorNetwork, predict
from ..models.preprocessing import TERRITORY_PATCH, TERRITORY_SPACING_MM, territory_input

if TYPE_CHECKING:
    from ..models.cards import LoadedModel

OVERLAP = 0.25
"""Least share of a patch that the next one along the scan overlaps."""
BORDER = 4
"""Voxels at a patch's sides over which its weight rises to 1, as it shows little around them."""
MIN_HEART_ML = 50.0
AGAIN_MM = 24.0
"""Shift of the heart's centre above which the network runs once more, mm."""
RIM = 0.02
"""Share of the heart's voxels at each of its ends that does not move its middle."""
IN_HEART = 0.5
"""Probability from which a voxel is part of the heart."""

LOOKS = 3
PATCH_PLACES = 4
"""Distance of the places where the last patches begin, in voxels counted in space."""
NEAR_HEART_MM = 12.0
"""Valves and the trunk of the pulmonary artery lie no farther than this from the heart."""
ARTERY_BEYOND_MM = 3.0
"""Reach of the arteries' territories beyond the heart's tissue, as moving coronaries leave its outline."""
LONG_AORTA_ML = 15.0
"""Least volume of a descending aorta that is detached from heart and arch."""
BELOW_HEART_MM = 30.0
"""The aorta leaves the thorax about so far below the heart."""

OUTSIDE, _ASCENDING, _DESCENDING = (
    TERRITORIES.index(name) for name in ("outside", "ascending aorta", "descending aorta")
)
ARTERIES = slice(TERRITORIES.index(MAIN_ARTERIES[0].key), TERRITORIES.index(MAIN_ARTERIES[-1].key) + 1)


@dataclass(frozen=True)
class Territories:
    """Probabilities of heart and territories on voxels of about 3 mm.

    Attributes:
        grid: Their grid.
        heart: Probability of heart, float32 [k, j, i].
        probability: Probability of each of TERRITORIES, float32 [11, k, j, i]; voxels not viewed are outside.
        source: Name of the network.
        warnings: Warnings of the network.
    """

    grid: ScanGrid
    heart: np.ndarray
    probability: np.ndarray
    source: str
    warnings: tuple[ScanWarning, ...] = ()

    def labels(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the likeliest territory of each voxel of the scan, uint8 [k, j, i]; ties go to the lower label."""
        label = np.zeros(shape, np.uint8)
        # As it is in some voxel beside those of the scan where a territory is the likeliest.
        possible = self.probability >= np.maximum(self.probability[OUTSIDE], 1 / len(TERRITORIES))
        possible[OUTSIDE] = possible[1:].any(0)
        around: Box = (slice(0, 0),) * 3
        best = np.zeros(0, np.float32)
        for number in np.nonzero(possible.any((1, 2, 3)))[0]:
            cut, box = self._part(label.shape, possible[number])
            probability = self._pasted(self.probability[number], cut, box)
            if number == OUTSIDE:  # the first, around all others
                around, best = cut, probability
                continue
            highest = best[tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(cut, around, strict=True))]
            np.copyto(label[cut], np.uint8(number), where=probability > highest)
            np.maximum(highest, probability, out=highest)
        return label

    def heart_mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the largest connected part of the heart in a scan of this shape, bool [k, j, i]."""
        mask = np.zeros(shape, bool)
        heart = ndimage.binary_dilation(largest_part(self.heart >= IN_HEART))
        cut, box = self._part(mask.shape, heart)
        mask[cut] = self._pasted(np.where(heart, self.heart, np.float32(0)), cut, box) >= IN_HEART + 1e-3
        return mask

    def at(self, flat: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """Return the probabilities float32 [n, 11] at voxels of the scan, interpolated linearly.

        Args:
            flat: Indices into the scan's flat array.
            shape: Shape of its array [k, j, i].
        """
        places = np.stack(np.unravel_index(flat, shape)).astype(np.float32)
        first, step = (np.array(part[::-1], np.float32)[:, None] for part in (self.grid.first, self.grid.step))
        places = (places - first) / step
        sampled = [ndimage.map_coordinates(p, places, order=1, mode="nearest") for p in self.probability]
        return np.stack(sampled, axis=1)

    def _part(self, shape: tuple[int, ...], mask: np.ndarray) -> tuple[Box, Box]:
        """Return the box of a mask in a scan of this shape, and on the grid; all [k, j, i]."""
        places = [np.nonzero(counts_along(mask, axis))[0] for axis in range(3)]
        reach = [1 + math.ceil(1 / step) for step in self.grid.step[::-1]]  # of one voxel's mean
        counts = zip(places, reach, self.heart.shape, strict=True)
        box = tuple(slice(max(0, int(p[0]) - r), min(n, int(p[-1]) + r + 1)) for p, r, n in counts)
        cut = []
        for part, count, start, step in zip(box[::-1], shape[::-1], self.grid.first, self.grid.step, strict=True):
            low = max(0, math.floor(start + (part.start - 1) * step))
            cut.append(slice(low, min(count, math.ceil(start + (part.stop + 1) * step) + 1)))
        return tuple(cut[::-1]), box

    def _pasted(self, values: np.ndarray, cut: Box, box: Box) -> np.ndarray:
        """Return values of the grid in a box of the scan. cut, box: From `_part`."""
        size, start = zip(*((part.stop - part.start, part.start) for part in cut[::-1]), strict=True)
        return self.grid.crop(box).paste(values[box], size, start)


def counts_along(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of a mask in each plane across an axis; all 1 for an empty mask."""
    counts = mask.sum(tuple(n for n in range(3) if n != axis))
    return counts if counts.any() else counts + 1


def find_territories(scan: CTScan, model: LoadedModel, expected: np.ndarray | None = None) -> Territories:
    """Find heart and territories. Raises NoHeartError if less than MIN_HEART_ML of heart is found.

    expected: Mask of where the heart is, roughly, bool [k, j, i]; None to search for it along the scan.
    """
    grid = ScanGrid.over(scan.image, TERRITORY_SPACING_MM)
    hu = grid.resample(scan.hu, AIR_HU)
    weight = np.full(hu.shape, 1e-6, np.float32)
    output = np.zeros((1 + len(TERRITORIES), *hu.shape), np.float32)
    output[1] = 1e-6
    viewed: list[tuple[slice, ...]] = []
    warnings: list[ScanWarning] = []

    numbers = np.array(grid.numbers(scan.image)[::-1])

    def look(places: list[tuple[np.ndarray, float]]) -> None:
        """Run the network on patches at these first voxels (k, j, i), each with its weight."""
        lows = [low for low, _ in places]
        boxes = [_box(low, hu.shape) for low in lows]
        patches = np.full((len(boxes), *(TERRITORY_PATCH,) * 3), AIR_HU, np.float32)
        for patch, (inside, part) in zip(patches, boxes, strict=True):
            patch[part] = hu[inside]
        patches = np.stack([territory_input(patch) for patch in patches])
        outputs, doubts = predict(model.network, patches, 1)
        warnings.extend(doubts)
        for (inside, part), patch_output, (_, trust_of_place) in zip(boxes, outputs, places, strict=True):
            viewed.append(inside)
            trust = trust_of_place * _WEIGHT[part]
            output[(slice(None), *inside)] += trust * patch_output[(slice(None), *part)]
            weight[inside] += trust

    if expected is None:
        look([(low, 1.0) for low in _along(hu, int(numbers[0]))])
        middle = _heart_middle(output[0] / weight, model.card.name)
    else:
        middle = _middle(grid.resample(expected, 0.0) >= 0.5)
    for turn in range(1, LOOKS):
        look([(_start(middle), 100.0**turn)])
        before, middle = middle, _heart_middle(output[0] / weight, model.card.name)
        if np.abs(middle - before).max() * TERRITORY_SPACING_MM[0] <= AGAIN_MM:
            break
    look([(low, share * 100.0**LOOKS) for low, share in _starts_around(middle, numbers)])
    if isinstance(model.network, ProcessorNetwork):
        model.network.release()  # 200 MB, in a tenth of a second where another scan follows
    # All that was looked at, with a rim that is outside.
    low = np.min([[part.start for part in box] for box in viewed], axis=0)
    high = np.max([[part.stop for part in box] for box in viewed], axis=0)
    box = tuple(slice(max(0, int(a) - 1), min(n, int(b) + 1)) for a, b, n in zip(low, high, hu.shape, strict=True))
    grid, output = grid.crop(box), output[(slice(None), *box)] / weight[box]
    _clear(output[1:], largest_part(output[0] >= 0.5), hu[box])
    return Territories(grid, output[0], output[1:], model.card.name, tuple(dict.fromkeys(warnings)))


def _clear(probability: np.ndarray, heart: np.ndarray, hu: np.ndarray) -> None:
    """Clear, in place, arteries and valves beyond the heart, vessels detached from it, and the abdominal aorta.

    A long descending aorta may lie apart.
    """
    at_heart, near_heart = (
        ndimage.binary_dilation(part, iterations=round(reach_mm / TERRITORY_SPACING_MM[0]))
        for part, reach_mm in ((heart & (hu > LUNG_EDGE_HU), ARTERY_BEYOND_MM), (heart, NEAR_HEART_MM))
    )
    arteries = probability[ARTERIES]
    probability[OUTSIDE] += np.where(at_heart, np.float32(0), arteries.sum(axis=0))
    arteries *= at_heart
    label = probability.argmax(0)
    aorta = np.isin(label, (_ASCENDING, _DESCENDING))
    parts, _ = ndimage.label(aorta | ((label > 0) & near_heart))
    in_heart = np.bincount(parts[heart], minlength=2)[1:]
    belongs = parts == 1 + in_heart.argmax() if in_heart.any() else np.zeros_like(heart)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        part = (parts[box] == number) & (label[box] == _DESCENDING)
        if _volume_ml(part) >= LONG_AORTA_ML:
            belongs[box] |= part
    lowest = np.nonzero(counts_along(heart, 0))[0][0]
    belongs[: max(0, lowest - round(BELOW_HEART_MM / TERRITORY_SPACING_MM[0]))] = False
    excluded = ~belongs & (label > 0)
    probability[:, excluded] = 0
    probability[0, excluded] = 1


def _along(hu: np.ndarray, number: int) -> Iterator[np.ndarray]:
    """Iterate over the first voxels (k, j, i) of patches along the scan, in the middle of the body's tissue.

    number: Number of the grid's first slice in space, from which their places along k are counted.
    """
    tissue = hu > BODY_HU
    middle = [float(np.average(np.arange(hu.shape[n]), weights=counts_along(tissue, n))) for n in (1, 2)]
    if hu.shape[0] <= TERRITORY_PATCH:
        yield _start(np.array([hu.shape[0] / 2, *middle]))
        return
    stride = round(TERRITORY_PATCH * (1 - OVERLAP))
    for k in range(-(number % stride), hu.shape[0] - TERRITORY_PATCH + stride, stride):
        yield _start(np.array([k + TERRITORY_PATCH / 2, *middle]))


def _volume_ml(mask: np.ndarray) -> float:
    return float(mask.sum()) * math.prod(TERRITORY_SPACING_MM) / 1000


def _heart_middle(probability: np.ndarray, name: str) -> np.ndarray:
    """Middle of the box of the largest part that is heart, (k, j, i). Raises NoHeartError."""
    heart = largest_part(probability >= IN_HEART)
    volume_ml = _volume_ml(heart)
    if volume_ml < MIN_HEART_ML:
        message = (
            f"The network {name} found only {volume_ml:.0f} ml of heart, which is too little to score. Give a CT that "
            "shows the heart, or a heart mask."
        )
        raise NoHeartError(message)
    return _middle(heart)


def _middle(mask: np.ndarray) -> np.ndarray:
    """Middle (k, j, i) of a mask between the quantiles RIM and 1 − RIM of its voxels along each axis."""
    ends = []
    for axis in range(3):
        below = np.concatenate([[0], np.cumsum(counts_along(mask, axis))])
        ends.append(np.interp([RIM * below[-1], (1 - RIM) * below[-1]], below, np.arange(len(below)) - 0.5))
    return np.mean(ends, axis=1)


def _start(centre: np.ndarray) -> np.ndarray:
    """Return the first voxel of the patch around a centre, both (k, j, i)."""
    return np.rint(centre - TERRITORY_PATCH / 2).astype(int)


def _starts_around(centre: np.ndarray, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Iterate over the first voxels (k, j, i) of patches around a centre, and their shares, which add up to 1.

    Patches begin at multiples of PATCH_PLACES in space, and their shares change gradually with the centre, so that the
    result does not jump. numbers: Number of the grid's first voxel in space, along k, j, i.
    """
    low, fraction = np.divmod((centre - TERRITORY_PATCH / 2 + numbers) / PATCH_PLACES, 1)
    upper = np.clip(8 * fraction - 3.5, 0, 1)  # at most places one patch is enough along an axis
    for corner in itertools.product((0, 1), repeat=3):
        share = float(np.where(corner, upper, 1 - upper).prod())
        if share > 0:
            yield ((low + corner) * PATCH_PLACES - numbers).astype(int), share


def _box(low: np.ndarray, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """A patch's part of the volume, and of the patch."""
    first = np.clip(low, 0, shape)
    last = np.clip(low + TERRITORY_PATCH, 0, shape)
    inside = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return inside, tuple(slice(int(a - n), int(b - n)) for a, b, n in zip(first, last, low, strict=True))


_RAMP = np.minimum(np.arange(TERRITORY_PATCH), np.arange(TERRITORY_PATCH)[::-1]) + 1
_RAMP = np.minimum(1.0, _RAMP / (BORDER + 1)).astype(np.float32)
_WEIGHT = _RAMP[:, None, None] * _RAMP[:, None] * _RAMP
"""Weight of a patch's voxels, [k, j, i]."""
