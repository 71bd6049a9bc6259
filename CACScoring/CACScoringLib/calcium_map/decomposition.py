"""Slice classifier, and decomposition of a scan into a calcium map and a healthy image.

After van Velzen et al., section 3: no threshold on the scan; the generator's map is subtracted from the slice, and
voxels of the map that would leave less than −10 HU in the healthy image are noise and set to 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTScan, ScanWarning
from ..core.decoding import WHEN_SET
from ..core.errors import CTError
from ..core.grid import Box, Grid, bounding_box
from ..core.scan_grid import ScanGrid
from ..core.voxels import voxels_of
from ..models.inference import predict
from ..models.preprocessing import (
    HIGH_HU,
    LOW_HU,
    MAP_HU,
    SLICE_SIZE,
    HeartSlices,
    heart_slices,
    middle_square,
    slice_input,
)

if TYPE_CHECKING:
    from ..models.cards import LoadedModel, ModelCard
    from ..models.choice import Networks

AROUND_HEART_MM = 16
"""Margin around the heart's outline that the generator sees, for a map within the heart. Compared with whole slices,
every second one of three scans, no voxel differed by more than 1.5 HU, and sums by up to 0.13 %."""

SATURATED_MAP_HU = 100.0
"""Map above which a voxel certainly is calcium, so that HU beyond the window are missing in the map."""


@dataclass(frozen=True)
class DecompositionSettings:
    """Settings of the calcium map. Those in CALIBRATED are chosen on scans with known calcium (`cac calibrate`).

    Attributes:
        slice_threshold: Probability from which a slice is decomposed.
        min_healthy_hu: Voxels of a lower healthy image are cleared from the map, on the network's grid (published:
            −10); None to clear none, which keeps calcium in fat, and more noise.
        floor_hu: Lowest value of the map on the scan's grid; lower ones are set to 0. A sigmoid never reaches 0, so its
            haze would add up over the heart and join all lesions to one; not in the paper.
        within_heart: Set the map to 0 outside the heart mask.
        evidence_weights: Weights of the probability that a lesion of the map is coronary calcium (`sites`); None
            for its place alone.
        most_not_coronary: Probability of not being coronary above which a lesion is left out.
        without_completion: True to leave out what the map misses of lesions that count by the clinical rule
            (`sites.complete_map`), as in the paper.
        batch_size: Inputs at once on a GPU, at most.
    """

    slice_threshold: float = 0.5
    min_healthy_hu: float | None = -10.0
    floor_hu: float = 10.0
    within_heart: bool = True
    evidence_weights: dict[str, float] | None = None
    most_not_coronary: float = 1.0
    without_completion: bool | None = field(default=None, metadata=WHEN_SET)
    batch_size: int = 8

    @classmethod
    def of(cls, slices: ModelCard, decomposition: ModelCard) -> DecompositionSettings:
        """Settings stored on the cards of two models."""
        stored = {**slices.calibration, **decomposition.calibration}
        return cls(**{name: stored[name] for name in CALIBRATED if name in stored})


CALIBRATED = (
    "slice_threshold",
    "min_healthy_hu",
    "floor_hu",
    "evidence_weights",
    "most_not_coronary",
)
"""Settings that a model card may hold."""


@dataclass(frozen=True)
class Decomposition:
    """Calcium map of a scan.

    Attributes:
        hu: HU above healthy tissue, float32 [k, j, i] on the scan's grid; 0 without calcium.
        grid: Grid of the scan.
        decomposed: True for slices of the network's grid that were decomposed, bool [n].
        settings: Settings of the map.
        warnings: Warnings about the map.
        box: Box beyond which nothing was written, so that the map takes memory around the heart alone.
    """

    hu: np.ndarray
    grid: Grid
    decomposed: np.ndarray
    settings: DecompositionSettings
    warnings: tuple[ScanWarning, ...] = ()
    box: Box = ()

    def image(self) -> sitk.Image:
        """Return the map as an image."""
        return self.grid.image(self.hu)


@dataclass(frozen=True)
class SliceProbabilities:
    """Probability of calcium in each slice of the heart.

    Attributes:
        grid: Grid of the slices, 1.5 mm apart.
        on_grid: Probability of each of them, float32 [n].
        on_scan: Probability of each slice of the scan, float32 [K]; NaN without heart.
        warnings: Warnings of the network.
    """

    grid: ScanGrid
    on_grid: np.ndarray
    on_scan: np.ndarray
    warnings: tuple[ScanWarning, ...] = ()


@dataclass(frozen=True)
class DecomposedHeart:
    """Answers of the networks in a scan.

    Attributes:
        slices: Answers of the slice classifier.
        parts: Calcium map of the slices that show calcium.
        warnings: Warnings of both, and about their calibration.
    """

    slices: SliceProbabilities
    parts: Decomposition
    warnings: tuple[ScanWarning, ...]


def decompose_heart(
    scan: CTScan,
    heart_mask: np.ndarray,
    networks: Networks,
    settings: DecompositionSettings | None = None,
    by_reader: Mapping[int, bool] | None = None,
    coronary_slices: Sequence[int] = (),
) -> DecomposedHeart:
    """Decompose the slices of the heart that show calcium.

    Args:
        scan: The scan as scored.
        heart_mask: bool [k, j, i] on the scan's grid.
        networks: The networks; their heart is None if it was not used.
        settings: Settings; None for those stored with the models.
        by_reader: A reader's overrides: slices of the scan that are decomposed whatever the classifier answers (True),
            and slices whose map stays empty (False).
        coronary_slices: Slices of the scan with candidates that look like coronary calcium, which are decomposed
            whatever the classifier answers.

    Raises:
        CTError: The reader switched a slice that shows no heart.
    """
    by_reader = by_reader or {}
    _check_switched(by_reader, heart_mask)
    stored = DecompositionSettings.of(networks.slices.card, networks.decomposition.card)
    slices = heart_slices(scan, heart_mask)
    classified = classified_slices(slices, scan.image, networks.slices)
    overlap = overlaps(slices.grid, scan.image.GetSize()[2])
    on, off = (sorted(k for k in by_reader if by_reader[k] == is_on) for is_on in (True, False))
    probabilities = needed_probabilities(classified, overlap, by_reader, coronary_slices)
    parts = calcium_map(scan, heart_mask, slices, probabilities, networks.decomposition, settings or stored)
    warnings = classified.warnings + parts.warnings
    if by_reader:
        is_off = np.zeros((overlap.shape[1], 1, 1), bool)
        is_off[off] = True
        parts = clear_map(parts, is_off)
        switched = " and ".join(f"{_ranges(numbers)} {word}" for numbers, word in ((on, "on"), (off, "off")) if numbers)
        message = f"A reader overrode the slice classifier and switched slices {switched} (counted from the feet)."
        warnings += (ScanWarning("slices-by-reader", message),)
    if settings is None:
        warnings += tuple(calibration_warnings(networks.decomposition, companions(networks)))
    return DecomposedHeart(classified, parts, warnings)


def needed_probabilities(
    classified: SliceProbabilities, overlap: np.ndarray, by_reader: Mapping[int, bool], coronary_slices: Sequence[int]
) -> np.ndarray:
    """Return the probabilities by which slices are decomposed, float32 [n].

    They are the classifier's, 1 where a reader or a probable lesion asks for a slice, and 0 where a reader wants none.

    overlap: From `overlaps` of the classifier's grid. Other arguments as of `decompose_heart`.
    """
    on, off = (sorted(k for k in by_reader if by_reader[k] == is_on) for is_on in (True, False))
    is_certain = overlap[:, sorted({*on, *coronary_slices})].any(1)
    probabilities = np.where(is_certain, np.float32(1), classified.on_grid)
    # A slice of the grid that also lies in one that is not switched off is needed there.
    probabilities[~np.delete(overlap, off, axis=1).any(1)] = 0
    return probabilities


def slice_probabilities(scan: CTScan, heart_mask: np.ndarray, model: LoadedModel) -> SliceProbabilities:
    """Classify every slice of the heart mask.

    heart_mask: bool [k, j, i] on the scan's grid. Raises MaskError if it is empty or of another shape.
    """
    return classified_slices(heart_slices(scan, heart_mask), scan.image, model)


def classified_slices(slices: HeartSlices, image: sitk.Image, model: LoadedModel) -> SliceProbabilities:
    """Classify slices of a heart. image: The scan's, for its slices."""
    config = model.card.config
    box = middle_square(config["size"])
    inputs = slice_input(slices, np.arange(len(slices)), config["neighbours"], config["position"], box)
    outputs, warnings = predict(model.network, inputs, 16)
    return SliceProbabilities(slices.grid, outputs[:, 1], on_scan_slices(outputs[:, 1], slices.grid, image), warnings)


def generator_slices(grid: ScanGrid, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the slices of the networks' grid that the generator sees.

    Slices of 1.5 mm in one that is 3 mm thick or more show the same, so it sees the one nearest to its middle.

    Args:
        grid: Of the heart's slices.
        count: Slices of the scan.

    Returns:
        Their numbers, rising [m], and the weights [n, m] by which their maps make those of all slices of the grid.
    """
    if grid.step[2] > 0.5 + 1e-3:
        return np.arange(grid.size[2]), np.eye(grid.size[2], dtype=np.float32)
    weights = grid.shares_of_slices(count)
    shown_slices = np.nonzero(weights.any(0))[0]
    nearest = np.rint((shown_slices - grid.first[2]) / grid.step[2]).astype(int)
    return np.clip(nearest, 0, grid.size[2] - 1), weights[:, shown_slices]


def on_scan_slices(on_grid: np.ndarray, grid: ScanGrid, image: sitk.Image) -> np.ndarray:
    """Return values of the grid's slices, [n], for those of the scan, [K]: the highest of those centred in each.

    A thinner slice of the scan that holds no centre takes the nearest value. NaN beyond the grid's ends.
    """
    count = image.GetSize()[2]
    centres = grid.first[2] + grid.step[2] * np.arange(len(on_grid))  # in slices of the scan
    values = np.full(count, np.nan, np.float32)
    for k in range(count):
        inside = np.abs(centres - k) <= 0.5
        if inside.any():
            values[k] = on_grid[inside].max()
        elif np.abs(centres - k).min() <= grid.step[2] / 2:
            values[k] = on_grid[np.abs(centres - k).argmin()]
    return values


def overlaps(grid: ScanGrid, count: int) -> np.ndarray:
    """Overlap of slices of the networks' grid with those of the scan: bool [grid, scan]."""
    centres = grid.first[2] + grid.step[2] * np.arange(grid.size[2])
    reach = (1 + grid.step[2]) / 2 - 1e-6  # slices that only touch do not overlap
    return np.abs(centres[:, None] - np.arange(count)) < reach


def calcium_map(
    scan: CTScan,
    heart_mask: np.ndarray,
    slices: HeartSlices,
    probabilities: np.ndarray,
    model: LoadedModel,
    settings: DecompositionSettings = DecompositionSettings(),
) -> Decomposition:
    """Decompose the slices of the heart that show calcium.

    Args:
        scan: The CT.
        heart_mask: bool [k, j, i] on the scan's grid.
        slices: From `preprocessing.heart_slices` of the same mask.
        probabilities: [n], of calcium in each of them.
        model: The loaded model.
        settings: How it is done.
    """
    decomposed = probabilities >= settings.slice_threshold
    on_grid = np.zeros(slices.heart.shape, np.float32)
    warnings: tuple[ScanWarning, ...] = ()
    if decomposed.any():
        config = model.card.config
        square = _around_heart(slices.heart) if settings.within_heart else middle_square(SLICE_SIZE)
        numbers, weights = generator_slices(slices.grid, scan.image.GetSize()[2])
        weights = weights[decomposed]
        needed = weights.any(0)
        inputs = slice_input(slices, numbers[needed], config["neighbours"], config["position"], square)
        outputs, warnings = predict(model.network, inputs, settings.batch_size)
        maps = np.tensordot(weights[:, needed], outputs[:, 0], 1) * np.float32(MAP_HU)
        if settings.min_healthy_hu is not None:
            scaled = slice_input(slices, np.flatnonzero(decomposed), box=square)[:, 0]
            maps *= scaled * np.float32(MAP_HU) + np.float32(LOW_HU) - maps >= settings.min_healthy_hu
        on_grid[(decomposed, *square)] = maps
    box = bounding_box(heart_mask) if settings.within_heart else tuple(slice(0, n) for n in heart_mask.shape)
    part = slices.grid.paste(on_grid, heart_mask[box].shape[::-1], tuple(side.start for side in box[::-1]))
    part[part < settings.floor_hu] = 0
    if settings.within_heart:
        part *= heart_mask[box]
    hu = np.zeros(heart_mask.shape, np.float32)
    hu[box] = part
    warnings = (*warnings, *_saturation(scan.hu[box], part))
    return Decomposition(hu, Grid.of(scan.image), decomposed, settings, warnings, box)


def _around_heart(heart: np.ndarray) -> tuple[slice, slice]:
    """Return the box [j, i] around the heart of all slices [n, j, i], with its margin; sides as networks need."""
    from ..networks.configs import STRIDE

    sides = []
    for axes in ((0, 2), (0, 1)):
        places = np.nonzero(heart.any(axes))[0]
        low = max(0, int(places[0]) - AROUND_HEART_MM) // STRIDE * STRIDE
        high = min(SLICE_SIZE, math.ceil((places[-1] + 1 + AROUND_HEART_MM) / STRIDE) * STRIDE)
        sides.append(slice(low, high))
    return sides[0], sides[1]


def clear_map(parts: Decomposition, cleared: np.ndarray) -> Decomposition:
    """Set the map to 0 where `cleared` (bool [k, j, i], or one value a slice) is true."""
    hu, box = np.zeros(parts.hu.shape, np.float32), parts.box
    np.copyto(hu[box], parts.hu[box], where=~np.broadcast_to(cleared, hu.shape)[box])
    return replace(parts, hu=hu)


def healthy_image(scan_image: sitk.Image, calcium_map: sitk.Image) -> sitk.Image:
    """Return the scan less its calcium map, in the scan's pixel type; both on one grid, the scan's or a part of it."""
    healthy = sitk.GetArrayFromImage(scan_image)
    calcium = voxels_of(calcium_map)
    changed = calcium != 0
    lower = healthy[changed] - calcium[changed]
    healthy[changed] = lower if healthy.dtype.kind == "f" else np.rint(lower)
    return Grid.of(scan_image).image(healthy)


def _saturation(hu: np.ndarray, calcium: np.ndarray) -> tuple[ScanWarning, ...]:
    count = int((hu[calcium > SATURATED_MAP_HU] > HIGH_HU).sum())
    if not count:
        return ()
    message = (
        f"{count} voxels of calcium exceed {HIGH_HU:g} HU, the highest value that the decomposition represents, so "
        "their excess is missing from the calcium map and its pseudo-mass. Check whether they are metal."
    )
    return (ScanWarning("map-saturated", message),)


def companions(networks: Networks) -> dict[str, LoadedModel | None]:
    """Return the networks that a map's calibration depends on beside its own, by kind."""
    return {kind: getattr(networks, kind) for kind in ("slices", "territories", "lesions")}


CALIBRATION_CODES = {"map-not-calibrated", "map-calibrated-for-others"}
"""Codes of the warnings of `calibration_warnings`."""


def calibration_warnings(decomposition: LoadedModel, beside: Mapping[str, LoadedModel | None]) -> list[ScanWarning]:
    """Warn of a map that was calibrated for other networks, or never (`cac calibrate`).

    beside: The networks used beside it, by kind; None for one that is not used.
    """
    card = decomposition.card
    fitted = card.validation.get("whole_method", {}).get("models", {})
    used = {kind: model.card for kind, model in {"decomposition": decomposition, **beside}.items() if model}
    names = ", ".join(model.name for kind, model in used.items() if fitted.get(kind) != model.sha256)
    if card.lacks_calibration:
        message = (
            f"The model {card.name} is not calibrated, so every lesion of its calcium map counts, whether it is "
            "coronary calcium or not. Calibrate it on scans with known calcium."
        )
        return [ScanWarning("map-not-calibrated", message)]
    if names:
        message = (
            f"The calibration stored with {card.name} was fitted with networks other than the present {names}, so more "
            "lesions may be wrongly counted or excluded. Calibrate the models together."
        )
        return [ScanWarning("map-calibrated-for-others", message)]
    return []


def _check_switched(by_reader: Mapping[int, bool], heart: np.ndarray) -> None:
    count = len(heart)
    in_heart = np.nonzero(heart.any((1, 2)))[0].tolist()
    for k in by_reader:
        if not 0 <= k < count:
            raise CTError(f"The scan has no slice {k}: counted from the feet, its slices are 0 to {count - 1}.")
        if k not in in_heart:
            raise CTError(
                f"Slice {k} shows no heart, so it cannot be switched on or off; slices {_ranges(in_heart)} show the "
                "heart."
            )


def _ranges(numbers: Sequence[int]) -> str:
    """Write ascending integers as text: 1, 3 to 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
