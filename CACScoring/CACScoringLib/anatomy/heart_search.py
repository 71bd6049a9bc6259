"""The heart that is scored: a given mask, the network's, or the region between the lungs; and which of them to trust.

Network and lungs watch each other. A network that was misled (an arm beside the chest, the liver) is found out by the
room that the lungs leave for a heart; and where the field of view cuts the lungs off, as in scans made for calcium
scoring, the network's heart must look like one by itself. The limits were chosen on whole and cropped scans that nobody
has read for calcium.

One network finds the heart and the territories of its arteries, valves and vessels. It sees 192 mm at a time, on voxels
of 3 mm: first patches along the scan, in the middle of the body, whose width is that of a large heart; then once more a
patch around the heart that it found, which is what it learned on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import AIR_HU, CTScan, NoHeartError, ScanWarning, mask_on_scan_grid
from ..core.grid import Box, Grid, ScanGrid, largest_part
from ..core.labels import TERRITORIES
from ..models.inference import predict
from ..models.preprocessing import TERRITORY_PATCH, TERRITORY_SPACING_MM, territory_input
from .chest import GRID_MM, TISSUE_HU, on_working_grid, widened, within
from .heart_network import heart_mask
from .heart_region import AORTA_LABEL, BONE_LABEL, HeartRegion, bone_beside, cut_warnings, heart_region

if TYPE_CHECKING:
    from ..models.cards import LoadedModel
    from ..results import ScanContext

HEART_MARGIN_MM = 3.0
"""By how much the heart of the territories' network is widened, because moving coronaries leave its outline."""

LEAST_AGREEMENT = 0.5
"""Dice of the network's heart and the region found from the lungs below which the region is taken: 0.80 and more on six
whole scans; between regions found in crops and the hearts of the whole scans 0.69 and more."""

HEART_ML = (150.0, 1700.0)
HEART_DEPTH_MM = 30.0
"""Volume with fat, and radius of the largest ball inside, of a network's heart that no lungs confirm: 674 to 1600 ml
and 37 to 45 mm in crops of 160 to 250 mm; 12 to 24 mm of what was taken for a heart in arms, necks and shoulders."""

LEAST_TERRITORIES_ML = {"LAD": 15.0, "LCX": 10.0, "RCA": 15.0, "aortic valve and root": 8.0}
"""Territories of a heart that no lungs confirm: 54, 37, 98 and 26 ml and more in six hearts of patients; 24, 38, 6 and
9 ml in a phantom of plastic."""

LUNG_BESIDE = 0.08
LUNG_REACH_MM = 12.0
"""Least share of air or lung within LUNG_REACH_MM of the heart, on its right and on its left: 0.10 and more in crops of
chests; 0.02 beside a liver, 0 on one side of an arm that the field of view cuts."""


def locate_heart(context: ScanContext) -> ScanContext:
    """Find the heart, and the territories of its arteries; errors as of `find_heart`."""
    networks = context.networks
    models = (networks.heart, networks.territories) if networks else (None, None)
    region = find_heart(context.scored_scan, context.heart_mask, *models)
    return replace(context, heart=region).with_warnings(*region.warnings)


def find_heart(
    scan: CTScan, given: sitk.Image | None, network: LoadedModel | None, territories: LoadedModel | None = None
) -> HeartRegion:
    """The heart: as given, a mask on any grid; else by a network, held to the region found from the lungs; or that
    region, where there is no network or it is misled.

    Args:
        scan: The CT.
        given: A mask of the heart.
        network: Model that finds hearts alone. Where there is none, the territories' network finds the heart too.
        territories: Model that finds heart and territories.

    Raises:
        NoHeartError: If neither lungs nor network show a plausible heart.
        MaskError: The mask does not fit the scan.
    """
    if given is not None:
        mask, warnings = mask_on_scan_grid(given, scan, "heart mask")
        region = HeartRegion(mask=mask > 0, excluded=None, source="given", warnings=warnings)
        return region if territories is None else _with_territories(scan, region, territories)
    model = network or territories
    if model is None:
        return heart_region(scan)
    with ThreadPoolExecutor(1) as thread:
        begun = thread.submit(heart_region, scan)
        if network is None:  # meanwhile
            region, fault = _attempt(lambda: _by_territories(scan, model))
        lungs, reason = _attempt(begun.result)
    if network is not None:
        region, fault = _attempt(lambda: _by_network(scan, network, territories, lungs and lungs.mask))
    if region is None:
        if lungs is None:
            raise NoHeartError(f"{reason} {fault}")
        return _from_lungs(lungs, f"The network {model.card.name} found no heart between the lungs.")
    return _without_lungs(scan, region, reason) if lungs is None else _beside_lungs(region, lungs)


def _attempt(search: Callable[[], HeartRegion]) -> tuple[HeartRegion | None, str]:
    """What a search found, or None and why."""
    try:
        return search(), ""
    except NoHeartError as error:
        return None, str(error)


def _by_territories(scan: CTScan, model: LoadedModel) -> HeartRegion:
    """The heart with its territories; nothing is excluded yet. Raises NoHeartError."""
    found = find_territories(scan, model)
    mask = widened(found.heart_mask(scan.image), HEART_MARGIN_MM)
    return HeartRegion(mask, None, found.source, found.warnings, found)


def _by_network(
    scan: CTScan, network: LoadedModel, territories: LoadedModel | None, lungs: sitk.Image | None
) -> HeartRegion:
    """The heart by a network for hearts alone; nothing is excluded yet.

    lungs: the region found from the lungs; None where they show none. Raises NoHeartError.
    """
    mask, warnings = heart_mask(scan, network, region=lungs)
    region = HeartRegion(mask, None, network.card.name, warnings)
    return region if territories is None else _with_territories(scan, region, territories)


def _with_territories(scan: CTScan, region: HeartRegion, model: LoadedModel) -> HeartRegion:
    """The region with its territories, or with a warning where a network finds them elsewhere or not at all."""
    try:
        found = find_territories(scan, model)
    except NoHeartError:
        found = None
    if found is not None and _dice(found.heart_mask(scan.image), region.mask) >= LEAST_AGREEMENT:
        return replace(region, territories=found, warnings=(*region.warnings, *found.warnings))
    message = (
        f"The network {model.card.name} found no heart where the heart mask lies, so arteries are suggested from "
        "the position in the mask alone, and calcium of valves and great vessels is not separated from that of the "
        "arteries."
    )
    return replace(region, warnings=(*region.warnings, ScanWarning("no-territories", message)))


def _beside_lungs(region: HeartRegion, lungs: HeartRegion) -> HeartRegion:
    """The heart of networks, with what the lungs show that is none; or that of the lungs where both disagree."""
    agreement = _dice(region.mask, lungs.mask)
    if agreement < LEAST_AGREEMENT:
        reason = (
            f"The heart found by the network {region.source} and the heart region derived from the lungs overlap "
            f"by only {math.floor(100 * agreement)}% (Dice)."
        )
        return _from_lungs(lungs, reason)
    mask = sitk.And(region.mask, lungs.excluded != BONE_LABEL)
    cut = cut_warnings(sitk.GetArrayViewFromImage(mask) != 0)
    # The lungs' region is larger than the heart, and may reach an end of the scan where the heart does not.
    warnings = (*(warning for warning in lungs.warnings if warning.code != "heart-cut"), *region.warnings, *cut)
    territories = region.territories and region.territories.with_descending_aorta(lungs.excluded == AORTA_LABEL)
    return HeartRegion(mask, lungs.excluded, region.source, warnings, territories)


def _from_lungs(lungs: HeartRegion, reason: str) -> HeartRegion:
    message = (
        f"{reason} The region between the lungs was used instead, which is wider than the heart. Check the heart "
        "outline; give --heart MASK if it is wrong."
    )
    return replace(lungs, warnings=(*lungs.warnings, ScanWarning("heart-from-lungs", message)))


def _without_lungs(scan: CTScan, region: HeartRegion, reason: str) -> HeartRegion:
    """The heart of networks where the lungs show none, as long as it looks like one. reason: why they show none."""
    coarse = on_working_grid(scan.image)
    if implausibility := implausible(coarse, region.mask) or without_arteries(region.territories):
        raise NoHeartError(f"{reason} The heart of the network {region.source} is implausible: {implausibility}")
    message = (
        f"The heart could not be located from the lungs, so it was found by the network {region.source} alone, "
        "and bone was excluded by size and density alone. Check the heart outline."
    )
    cut = cut_warnings(sitk.GetArrayViewFromImage(region.mask) != 0)
    territories = region.territories
    organs = Grid.of(coarse).mask(region.mask)
    if territories is not None:
        inside = territories.probability.argmax(0) != _OUTSIDE
        organs |= Grid.of(coarse).mask(territories.grid.as_image(inside, scan.image))
    bone = bone_beside(scan.image, coarse, organs)
    warnings = (*region.warnings, ScanWarning("heart-without-lungs", message), *cut)
    return replace(region, mask=sitk.And(region.mask, bone == 0), excluded=bone, warnings=warnings)


def without_arteries(territories: Territories | None) -> str:
    """Why territories that no lungs confirm are no heart's: a sentence, empty where nothing speaks against them."""
    if territories is None:
        return ""
    labels = np.bincount(territories.probability.argmax(0).ravel(), minlength=len(TERRITORIES))
    volumes_ml = labels * math.prod(TERRITORY_SPACING_MM) / 1000
    for name, least_ml in LEAST_TERRITORIES_ML.items():
        if (volume_ml := volumes_ml[TERRITORIES.index(name)]) < least_ml:
            return f"its territory {name} holds {volume_ml:.0f} ml; {least_ml:.0f} ml or more is usual."
    return ""


def implausible(coarse: sitk.Image, mask: sitk.Image) -> str:
    """State why a mask that no lungs confirm is no heart: a sentence, empty where nothing speaks against it.

    Args:
        coarse: The scan on the working grid.
        mask: uint8 0/1 on the scan's own grid, not empty.
    """
    heart = Grid.of(coarse).mask(mask)
    volume_ml = heart.sum() * GRID_MM**3 / 1000
    if not HEART_ML[0] <= volume_ml <= HEART_ML[1]:
        return f"its volume is {volume_ml:.0f} ml; {HEART_ML[0]:.0f} to {HEART_ML[1]:.0f} ml with fat is usual."
    depth_mm = GRID_MM * float(ndimage.distance_transform_edt(np.pad(heart, 1)).max())
    if depth_mm < HEART_DEPTH_MM:
        return f"the largest sphere inside it has a radius of {depth_mm:.0f} mm; {HEART_DEPTH_MM:.0f} or more is usual."
    shell = within(heart, LUNG_REACH_MM / GRID_MM) & ~heart
    lung = sitk.GetArrayViewFromImage(coarse) < TISSUE_HU
    middle = np.argwhere(heart)[:, 2].mean()
    columns = np.arange(heart.shape[2])
    for side, beside in (("right", columns < middle - 20 / GRID_MM), ("left", columns > middle + 20 / GRID_MM)):
        rim = shell & beside
        share = lung[rim].mean() if rim.any() else 0.0
        if share < LUNG_BESIDE:
            return f"there is no lung beside it on the {side}."
    return ""


def _dice(first: sitk.Image, second: sitk.Image) -> float:
    a, b = (sitk.GetArrayViewFromImage(mask) != 0 for mask in (first, second))
    return 2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b))


OVERLAP = 0.25
"""Share of a patch that the next one along the scan has in common with it, at least."""
BORDER = 4
"""Voxels at a patch's sides over which its weight rises to 1: there it sees little around."""
BODY_HU = -300.0
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
    looked at is outside. source: the network's name. temperature: by which it overstates how sure it is of an artery.
    """

    grid: ScanGrid
    heart: np.ndarray
    probability: np.ndarray
    source: str
    warnings: tuple[ScanWarning, ...] = ()
    temperature: float = 1.0

    def labels(self, image: sitk.Image) -> sitk.Image:
        """The likeliest territory of every voxel of the scan, uint8 on its grid; ties go to the lower label."""
        label = np.zeros(image.GetSize()[::-1], np.uint8)
        best = np.zeros(label.shape, np.float32)
        possible = self.probability >= 1 / len(TERRITORIES)  # as it is where a territory is the likeliest
        possible[_OUTSIDE] = possible[1:].any(0)
        for number in np.nonzero(possible.any((1, 2, 3)))[0]:
            cut, grid, box = self._part(label.shape, possible[number])
            probability = grid.paste(self.probability[number][box], _lengths(cut))
            np.copyto(label[cut], np.uint8(number), where=probability > best[cut])
            np.maximum(best[cut], probability, out=best[cut])
        return Grid.of(image).image(label)

    def heart_mask(self, image: sitk.Image, threshold: float = 0.5) -> sitk.Image:
        """The heart, uint8 0/1 on the scan's grid: the largest connected part."""
        mask = np.zeros(image.GetSize()[::-1], np.uint8)
        heart = ndimage.binary_dilation(largest_part(self.heart >= threshold))
        cut, grid, box = self._part(mask.shape, heart)
        kept = np.where(heart, self.heart, np.float32(0))[box]
        mask[cut] = grid.paste(kept, _lengths(cut)) >= threshold + 1e-3
        return Grid.of(image).image(mask)

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

    def _part(self, shape: tuple[int, ...], wanted: np.ndarray) -> tuple[Box, ScanGrid, Box]:
        """Box of what is wanted in a scan of this shape, the grid's part there, and its box; all [k, j, i]."""
        places = [np.nonzero(counts_along(wanted, axis))[0] for axis in range(3)]
        reach = [1 + math.ceil(1 / step) for step in self.grid.step[::-1]]  # of one voxel's mean
        box = tuple(slice(max(0, int(p[0]) - r), int(p[-1]) + r + 1) for p, r in zip(places, reach, strict=True))
        cut, first = [], []
        for part, count, start, step in zip(box[::-1], shape[::-1], self.grid.first, self.grid.step, strict=True):
            low = max(0, math.floor(start + (part.start - 1) * step))
            cut.append(slice(low, min(count, math.ceil(start + (part.stop + 1) * step) + 1)))
            first.append(start + part.start * step - low)
        return tuple(cut[::-1]), ScanGrid(tuple(first), self.grid.step, self.heart[box].shape[::-1]), box


def _lengths(box: Box) -> tuple[int, ...]:
    """Size (i, j, k) of a box [k, j, i]."""
    return tuple(part.stop - part.start for part in box[::-1])


def counts_along(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of a mask in each plane across an axis; all 1 for an empty mask."""
    counts = mask.sum(tuple(n for n in range(3) if n != axis))
    return counts if counts.any() else counts + 1


def find_territories(scan: CTScan, model: LoadedModel) -> Territories:
    """Find heart and territories. Raises NoHeartError if less than MIN_HEART_ML of heart is found."""
    grid = ScanGrid.over(scan.image, TERRITORY_SPACING_MM)
    hu = grid.resample(scan.image, AIR_HU)
    weight = np.full(hu.shape, 1e-6, np.float32)
    output = np.zeros((1 + len(TERRITORIES), *hu.shape), np.float32)
    output[1] = 1e-6
    seen: list[tuple[slice, ...]] = []
    warnings: list[ScanWarning] = []

    def look(centres: list[np.ndarray], times: float) -> None:
        """Look at patches around these (k, j, i), and let them count so many times as much as what was seen before."""
        lows = [np.rint(c - TERRITORY_PATCH / 2).astype(int) for c in centres]
        boxes = [_box(low, hu.shape) for low in lows]
        patches = np.full((len(boxes), *(TERRITORY_PATCH,) * 3), AIR_HU, np.float32)
        for patch, (inside, part) in zip(patches, boxes, strict=True):
            patch[part] = hu[inside]
        patches = np.stack([territory_input(patch) for patch in patches])
        found, doubtful = predict(model.network, patches, 1)
        warnings.extend(doubtful)
        for (inside, part), one in zip(boxes, found, strict=True):
            seen.append(inside)
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
    # All that was looked at, with a rim that is outside.
    low = np.min([[part.start for part in box] for box in seen], axis=0)
    high = np.max([[part.stop for part in box] for box in seen], axis=0)
    box = tuple(slice(max(0, int(a) - 1), min(n, int(b) + 1)) for a, b, n in zip(low, high, hu.shape, strict=True))
    grid, output = grid.crop(box), output[(slice(None), *box)] / weight[box]
    _clear(output[1:], largest_part(output[0] >= 0.5))
    temperature = float(model.card.calibration.get("temperature", 1.0))
    return Territories(grid, output[0], output[1:], model.card.name, tuple(dict.fromkeys(warnings)), temperature)


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
    tissue = hu > BODY_HU
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


_RAMP = np.minimum(np.arange(TERRITORY_PATCH), np.arange(TERRITORY_PATCH)[::-1]) + 1
_RAMP = np.minimum(1.0, _RAMP / (BORDER + 1)).astype(np.float32)
_WEIGHT = _RAMP[:, None, None] * _RAMP[:, None] * _RAMP
"""Of a patch's voxels, [k, j, i]."""
