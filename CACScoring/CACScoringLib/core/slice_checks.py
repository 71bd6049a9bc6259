"""Slices that are blank, repeated or foreign to their volume.

Noise makes every slice of a scanner varied and unique, and neighbouring slices alike. The limits hold for 22 scans of
18 people, also in fields of 150 to 220 mm and with air added, a phantom and digital patients, mostly with a third to
spare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from .warning_codes import CHECKS, Check

BLOCK = 4
"""Pixels of a row in a block."""

MIN_BLOCKS, MIN_SLICES, MIN_NOISE_HU = 250, 8, 2.0
"""Least blocks of tissue in a slice, slices, and noise from which slices are compared: not in drawings."""

SOFT_TISSUE_HU, LUNG_HU, MAX_UNEVEN_HU = (-200.0, 250.0), -700.0, 50.0
"""Range of soft tissue, top of lung and air, and largest difference of the neighbours between which offsets count."""

NOT_AIR_HU = -900.0
"""Least density of blocks that count where slices are compared."""

QUIET_SLICES = 10
"""Slices on each side with whose median noise a slice is compared."""

BACK = 0.4
"""Share of the body's depth, from behind, that spine and ribs hold still while the patient breathes."""

FAT_RANGE_HU, MUSCLE_RANGE_HU = (-160, -40), (-20, 110)
"""Ranges in which the commonest values of fat, and of muscle, blood and liver, lie."""

PURE_FAT_HU, PURE_PIXELS = -20.0, 2
"""Largest mean of fat and of the blocks so many pixels above and below it."""

PEAK_HU, MAX_VALLEY = 30, 0.85
"""Reach on both sides within which a value is the commonest, and largest share of its count that is left there: fat of
lean people is a foot of muscle without partial volume's valley."""

MIN_DRIFT_HU = 10.0
"""Change of fat, and of muscle, between quarters of a scan above which both count as drift."""

AIR_RANGE_HU, THIN_HU, LOWEST_HU, MIN_AIR = (-1036.0, -950.0), -700.0, -1200.0, 0.01
"""Range that air reaches in every scan, top of lung, bottom of noise in air, and least share of lung and air from which
they are judged. Air of patients: −1024 to −1000 HU, lung reaches below −1000."""

HIGH_AIR_HU, AIR_PEAK_HU, MIN_AIR_PEAK = -988.0, 30.0, 0.1
"""Lowest values of lung and air from which air is too dense, if so large a share of them lies in a peak of this width
there; lung without air around it has no such peak."""

BODY_HU = -300.0
"""Density above which a voxel is body, or the table, rather than air or lung."""

LUNG_EDGE_HU = -400
"""Halfway between lung and soft tissue."""

EXTRUDED = 100.0, 0.2
"""HU, and share of the body that differs by more in slices half the scan apart, from which it is no phantom of one
cross-section: 0.05 in such a phantom, 0.57 and more in six scans of patients."""

STEP_RANGE_HU, MIN_STEP_VALUES, MIN_STEP_VOXELS = (-150, 250), 8, 10_000
"""Range in which the steps of values are measured, with so many values and voxels at least."""

EVEN_HU = 0.01
"""Largest difference of steps that single precision and rounding leave."""


def blank_slices(values: np.ndarray) -> tuple[list[int], list[int]]:
    """Find slices of an array [k, j, i] whose voxels all have one value.

    Returns:
        The blank slices within the volume, and those at its ends.
    """
    is_blank = [plane.min() == plane.max() for plane in values]
    if all(is_blank):
        return [], list(range(len(values)))
    first, last = is_blank.index(False), len(values) - 1 - is_blank[::-1].index(False)
    blank = np.flatnonzero(is_blank).tolist()
    return [k for k in blank if first < k < last], [k for k in blank if not first < k < last]


def repeated_slices(values: np.ndarray) -> list[tuple[int, int]]:
    """Find slices of an array [k, j, i] that are copies of others; blank ones are left out.

    Returns:
        The original, which comes first, and the copy.
    """
    slices_of: dict[bytes, list[int]] = {}
    pairs = []
    for k, plane in enumerate(values):
        if plane.min() < plane.max():
            alike = slices_of.setdefault(plane[::8, ::8].tobytes(), [])
            pairs += [(original, k) for original in alike if np.array_equal(values[original], plane)][:1]
            alike.append(k)
    return pairs


def foreign_slices(hu: np.ndarray, code: str = "slices-foreign") -> dict[int, str]:
    """Find slices of an axial scan [k, j, i] that do not fit between their neighbours.

    code: Warning of the checks.

    Returns:
        The reason, a clause that follows the slice's number, by slice.
    """
    reasons: dict[int, str] = {}
    for check, values in slice_measures(hu, code):
        outside = np.flatnonzero((values < check.low) | (values > check.high)).tolist()
        # A foreign slice makes its neighbours look foreign too.
        places = [k for k in outside if not reasons.keys() & set(range(k - 2, k + 3))]
        reasons |= {k: check.message.format(values[k], below=k - 1) for k in places}
    return dict(sorted(reasons.items()))


def slice_measures(hu: np.ndarray, code: str) -> Iterator[tuple[Check, np.ndarray]]:
    """Yield a warning's checks of slices with the quantity of each slice, [k]; none for a drawing or a small volume."""
    blocks = _Blocks.of(hu)
    if blocks is None:
        return
    # Coarse values are equal by chance.
    is_fine = step_of_values(hu) < 2 * MIN_NOISE_HU
    for check in CHECKS.values():
        if check.code == code and check.word in _MEASURES and (is_fine or check.word not in _OF_NOISE):
            yield check, _MEASURES[check.word](blocks)


@dataclass(frozen=True)
class _Blocks:
    """Blocks of a few pixels of a row in each slice, spread over it.

    Attributes:
        hu: The volume, [k, j, i].
        pixels: HU, [pixel, k, j, i].
        mean: Mean HU of blocks, [k, j, i].
        tissue: True for soft tissue, [k, j, i].
        stride: Distances of blocks in pixels, down and across.
    """

    hu: np.ndarray
    pixels: np.ndarray
    mean: np.ndarray
    tissue: np.ndarray
    stride: tuple[int, int]

    @classmethod
    def of(cls, hu: np.ndarray) -> _Blocks | None:
        """Take the blocks of a volume within the body; None for a drawing, or a volume that is too small."""
        is_body = hu.max(axis=0) > BODY_HU
        if len(hu) < MIN_SLICES or not is_body.any():
            return None
        places = (np.flatnonzero(is_body.any(axis)) for axis in (1, 0))
        hu = hu[(slice(None), *(slice(place[0], place[-1] + 1) for place in places))]  # without air that a file adds
        _, rows, columns = hu.shape
        stride = max(1, rows // 48), max(BLOCK, columns // 48)
        width = columns // stride[1] * stride[1]
        if not width:
            return None
        pixels = np.stack([hu[:, :: stride[0], n : width : stride[1]] for n in range(BLOCK)]).astype(np.float32)
        mean = pixels.mean(0)
        tissue = (mean > SOFT_TISSUE_HU[0]) & (mean < SOFT_TISSUE_HU[1])
        noise = _medians(np.abs(pixels[1] - pixels[0]), tissue)
        if not np.isfinite(noise).sum() >= MIN_SLICES or not np.nanmedian(noise) >= MIN_NOISE_HU:
            return None
        return cls(hu, pixels, mean, tissue, stride)

    def beside_maximum(self) -> np.ndarray:
        """Return the largest mean of each block and of those PURE_PIXELS beside it in the slice, [k, j, i]."""
        largest = self.mean
        for down, across in ((-PURE_PIXELS, 0), (PURE_PIXELS, 0), (0, -BLOCK), (0, BLOCK)):
            rows, columns = (
                np.clip(np.arange(count) * step + shift, 0, size - width)
                for count, step, shift, size, width in zip(
                    self.mean.shape[1:], self.stride, (down, across), self.hu.shape[1:], (1, BLOCK), strict=True
                )
            )
            pixels = (self.hu[:, rows[:, None], columns + n].astype(np.float32) for n in range(BLOCK))
            largest = np.maximum(largest, sum(pixels) / BLOCK)
        return largest

    def difference(self, gap: int, first_row: int = 0) -> np.ndarray:
        """Return the mean difference of slices so far apart, without air, from a row of blocks on."""
        first, second = self.mean[:-gap, first_row:], self.mean[gap:, first_row:]
        body = np.maximum(first, second) > NOT_AIR_HU
        return np.maximum(1e-3, np.abs(second - first).sum((1, 2), where=body) / np.maximum(1, body.sum((1, 2))))


def _ordered(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of each slice within a mask in rising order, before infinite ones [k, n]; and their numbers."""
    ordered = np.sort(
        np.where(mask, values, np.float32(np.inf)).reshape(len(values), math.prod(mask.shape[1:])), axis=1
    )
    return ordered, np.count_nonzero(mask, axis=(1, 2))


def _medians(values: np.ndarray, mask: np.ndarray, least: int = MIN_BLOCKS) -> np.ndarray:
    """Return the median of each slice within a mask; NaN where it has fewer blocks."""
    ordered, counts = _ordered(values, mask)
    if not ordered.size:  # slices smaller than a block
        return np.full(len(ordered), np.nan)
    middles = np.stack([np.maximum(counts - 1, 0) // 2, np.minimum(counts // 2, ordered.shape[1] - 1)], axis=1)
    return np.where(counts >= least, np.take_along_axis(ordered, middles, 1).mean(1), np.nan)


def _common_offsets(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the least of the medians in the quadrants of each slice within a mask, which anatomy and streaks change
    differently; 0 if their signs differ or blocks are too few."""
    rows, columns = (np.broadcast_to(n, mask.shape) for n in np.ogrid[tuple(map(slice, mask.shape))][1:])
    is_lower, is_left = (places > _medians(places, mask)[:, None, None] for places in (rows, columns))
    quadrants = (mask & (is_lower == n // 2) & (is_left == n % 2) for n in range(4))
    medians = np.stack([_medians(values, quadrant, 1) for quadrant in quadrants])
    signs = np.nan_to_num(np.sign(medians)).sum(0)
    is_common = (np.abs(signs) == np.isfinite(medians).sum(0)) & (np.count_nonzero(mask, axis=(1, 2)) >= MIN_BLOCKS)
    return np.where(is_common, np.sign(signs) * np.fmin.reduce(np.abs(medians)), 0.0)


def _novelty(blocks: _Blocks) -> np.ndarray:
    values, tissue = blocks.pixels[0], blocks.tissue
    return _per_usual(_medians(np.abs(np.diff(values, axis=0)), tissue[:-1] & tissue[1:]), (1, 0))


def _novelty_of_mean(blocks: _Blocks) -> np.ndarray:
    values, tissue = blocks.pixels[0], blocks.tissue
    novelty = _medians(np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2), tissue[:-2] & tissue[2:])
    return _per_usual(novelty, (1, 1), 75)  # every second slice may be a mean


def _per_usual(values: np.ndarray, padding: tuple[int, int], percent: float = 50) -> np.ndarray:
    """Divide values by a percentile of those known, and add slices before and after for which there is none."""
    usual = np.percentile(values[np.isfinite(values)], percent) if np.isfinite(values).any() else np.nan
    return np.pad(values / usual, padding, constant_values=np.nan)


def _offsets(blocks: _Blocks, in_air: bool) -> np.ndarray:
    mean = blocks.mean
    neighbours = (mean[:-2] + mean[2:]) / 2
    even = np.abs(mean[2:] - mean[:-2]) < MAX_UNEVEN_HU
    places = neighbours < LUNG_HU if in_air else blocks.tissue[:-2] & blocks.tissue[2:]
    hu = np.pad(_common_offsets(mean[1:-1] - neighbours, places & even), 1)
    return np.where(np.abs(hu) >= np.maximum(np.abs(np.roll(hu, 1)), np.abs(np.roll(hu, -1))), hu, 0.0)


def _misfit(blocks: _Blocks) -> np.ndarray:
    next_to = blocks.difference(1)
    return _per_usual(np.minimum(next_to[:-1], next_to[1:]) / blocks.difference(2), (1, 1))


def _disorder(blocks: _Blocks) -> np.ndarray:
    next_to, two_apart = blocks.difference(1), blocks.difference(2)
    disorder = _per_usual((next_to[:-2] + next_to[2:]) / (two_apart[:-1] + two_apart[1:]), (1, 2))
    return np.fmax(disorder, np.roll(disorder, 1))


def _quiet(blocks: _Blocks) -> np.ndarray:
    return _per_nearby(quiet_halves(np.abs(blocks.pixels[1] - blocks.pixels[0]), blocks.tissue))


def _quiet_to_next(blocks: _Blocks) -> np.ndarray:
    tissue = blocks.tissue
    return _per_nearby(quiet_halves(np.abs(np.diff(blocks.pixels[0], axis=0)), tissue[:-1] & tissue[1:]))


def _per_nearby(noise: np.ndarray) -> np.ndarray:
    nearby = [noise[max(0, k - QUIET_SLICES) : k + QUIET_SLICES + 1] for k in range(len(noise))]
    return np.array(
        [
            value / np.nanmedian(values) if np.isfinite(value) else np.nan
            for value, values in zip(noise, nearby, strict=True)
        ]
    )


def quiet_halves(differences: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean of the smaller half of each slice's differences within a mask; NaN with too few blocks."""
    ordered, counts = _ordered(differences, mask)
    halves = counts // 2
    sums = ordered.sum(1, dtype=float, where=np.arange(ordered.shape[1]) < halves[:, None])
    return np.where(2 * halves >= MIN_BLOCKS, sums / np.maximum(halves, 1), np.nan)


def _steps(blocks: _Blocks) -> np.ndarray:
    steps = _common_offsets(np.diff(blocks.mean, axis=0), blocks.tissue[:-1] & blocks.tissue[1:])
    sizes = np.pad(np.abs(steps), 1)
    is_single = sizes[1:-1] > 2 * np.maximum(sizes[:-2], sizes[2:])  # a body's end changes over several slices
    return np.pad(np.where(is_single, steps, 0.0), (1, 0))


def _gaps(blocks: _Blocks) -> np.ndarray:
    return np.minimum(_jumps(blocks), _jumps(blocks, round((1 - BACK) * blocks.mean.shape[1])))


def _jumps(blocks: _Blocks, first_row: int = 0) -> np.ndarray:
    next_to = blocks.difference(1, first_row)
    gaps = np.zeros(len(next_to) + 1)
    for k in range(1, len(next_to) - 1):
        nearby = np.r_[next_to[max(0, k - 3) : k], next_to[k + 1 : k + 4]]
        gaps[k + 1] = next_to[k] / max(np.median(nearby), 0.8 * next_to[k - 1], 0.8 * next_to[k + 1])
    return gaps


_MEASURES: dict[str, Callable[[_Blocks], np.ndarray]] = {
    "novelty": _novelty,
    "novelty_of_mean": _novelty_of_mean,
    "quiet": _quiet,
    "quiet_to_next": _quiet_to_next,
    "misfit": _misfit,
    "tissue_offset": partial(_offsets, in_air=False),
    "air_offset": partial(_offsets, in_air=True),
    "disorder": _disorder,
    "steps": _steps,
    "gaps": _gaps,
    "jumps": _jumps,
}
"""Quantities of each slice, [k], NaN where unknown, by the words of their checks. A slice counts by the first that
finds it or a neighbour."""

_OF_NOISE = ("novelty", "novelty_of_mean", "quiet", "quiet_to_next")
"""Quantities that need values in steps finer than noise."""


def tissue_values(hu: np.ndarray) -> np.ndarray | None:
    """Return the commonest values of fat and of muscle, HU, in each quarter of an axial scan, from the lowest.

    Returns:
        [quarter, (fat, muscle)]; NaN where there is too little of either. None for a drawing or a small volume.
    """
    blocks = _Blocks.of(hu)
    if blocks is None:
        return None
    # Thin fat mixes with the tissue beside it.
    fat = np.where(blocks.beside_maximum() < PURE_FAT_HU, blocks.mean, np.nan)
    quarters = zip(np.array_split(fat, 4), np.array_split(blocks.mean, 4), strict=True)
    return np.array([[_peak(fat, *FAT_RANGE_HU), _peak(tissue, *MUSCLE_RANGE_HU)] for fat, tissue in quarters])


def is_extruded(hu: np.ndarray) -> bool:
    """True for an axial scan [k, j, i] of a phantom with one cross-section: slices far apart hold the same."""
    blocks = _Blocks.of(hu)
    if blocks is None:
        return False
    half = len(hu) // 2
    first, second = blocks.mean[:half], blocks.mean[-half:]
    changed = np.abs(second - first) > EXTRUDED[0]
    body = np.maximum(first, second) > BODY_HU
    return bool(np.median(changed.sum((1, 2), where=body) / np.maximum(1, body.sum((1, 2)))) < EXTRUDED[1])


def _peak(values: np.ndarray, low: int, high: int) -> float:
    """Return the commonest value within a range; NaN with too few values, or if it rises towards another tissue's."""
    from scipy import ndimage

    counts, edges = np.histogram(values, np.arange(low - PEAK_HU, high + PEAK_HU + 1, 2))
    counts = ndimage.gaussian_filter1d(counts.astype(float), 4)
    reach = PEAK_HU // 2
    inside = range(reach, len(counts) - reach)
    if counts[reach:-reach].sum() < MIN_BLOCKS:
        return np.nan
    surroundings = [
        (counts[n - reach : n + reach + 1], max(counts[n - reach : n].min(), counts[n + 1 : n + reach + 1].min()))
        for n in inside
    ]
    heights = [
        counts[n] if counts[n] == part.max() and valley < MAX_VALLEY * counts[n] else 0.0
        for n, (part, valley) in zip(inside, surroundings, strict=True)
    ]
    return float(edges[reach + int(np.argmax(heights))] + 1) if any(heights) else np.nan


def step_of_values(hu: np.ndarray) -> float:
    """Return the mean step between values of soft tissue; 1 HU for whole numbers, 0 if it cannot be measured."""
    gaps = _gaps_of_values(np.rint, hu)
    # Values of a drawing are few or uneven.
    return float(gaps.mean()) if gaps.size and np.ptp(gaps) <= 1 else 0.0


def even_step(hu: np.ndarray) -> float:
    """Return the one step between fractional values of soft tissue; 0 if they have several."""
    gaps = _gaps_of_values(lambda values: np.round(values.astype(float), 3), hu)
    return float(gaps.mean()) if gaps.size and np.ptp(gaps) <= EVEN_HU else 0.0


def _gaps_of_values(rounded: Callable[[np.ndarray], np.ndarray], hu: np.ndarray) -> np.ndarray:
    """Return the distances between neighbouring values of soft tissue after rounding; none without enough voxels."""
    strides = tuple(slice(None, None, max(1, size // 64)) for size in hu.shape)
    values = rounded(hu[strides])
    values = values[(values >= STEP_RANGE_HU[0]) & (values < STEP_RANGE_HU[1])]
    present = np.unique(values)
    return np.diff(present) if values.size >= MIN_STEP_VOXELS and present.size >= MIN_STEP_VALUES else np.zeros(0)


def air_offset(hu: np.ndarray) -> float:
    """Return the distance of air from −1000 HU where it is impossible in HU; else 0. hu: Values as stored."""
    strides = tuple(slice(None, None, max(1, size // 64)) for size in hu.shape)
    values = hu[strides]
    if values.size < MIN_STEP_VOXELS:
        return 0.0
    thin = values[(values > LOWEST_HU) & (values < THIN_HU)]
    if thin.size < MIN_AIR * values.size:
        return 0.0
    air = thin[thin < AIR_RANGE_HU[1]]
    lowest = float(np.percentile(thin, 0.1))
    is_peak = np.count_nonzero(thin < lowest + AIR_PEAK_HU) > MIN_AIR_PEAK * thin.size
    if not air.size or (lowest > HIGH_AIR_HU and is_peak):
        return lowest + 1000
    median = float(np.median(air[air < -980])) if (air < -980).any() else 0.0
    return median + 1000 if median < AIR_RANGE_HU[0] else 0.0
