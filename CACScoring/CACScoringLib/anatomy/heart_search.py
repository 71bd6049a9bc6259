"""The heart that is scored: a given mask, the network's, or the region between the lungs; and which of them to trust.

Network and lungs watch each other. A network that was misled (an arm beside the chest, the liver) is found out by the
room that the lungs leave for a heart; and where the field of view cuts the lungs off, as in scans made for calcium
scoring, the network's heart must look like one by itself. The limits were chosen on whole and cropped scans that nobody
has read for calcium.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import CTScan, NoHeartError, ScanWarning, mask_on_scan_grid
from ..core.grid import Grid
from ..core.labels import TERRITORIES
from ..models.preprocessing import TERRITORY_SPACING_MM
from .chest import GRID_MM, TISSUE_HU, on_working_grid, widened, within
from .heart_network import heart_mask
from .heart_region import AORTA_LABEL, BONE_LABEL, HeartRegion, bone_beside, cut_warnings, heart_region
from .territories import Territories, find_territories

if TYPE_CHECKING:
    from ..models.cards import LoadedModel

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


@dataclass(frozen=True)
class _Found:
    """A heart by networks. source: the name of the one whose outline it is."""

    mask: sitk.Image
    source: str
    warnings: tuple[ScanWarning, ...]
    territories: Territories | None


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
    models = [model for model in (network, territories) if model is not None]
    if not models:
        return heart_region(scan)
    name = models[0].card.name
    try:
        lungs = heart_region(scan)
    except NoHeartError as error:
        return _without_lungs(scan, network, territories, error)
    try:
        found = _by_networks(scan, network, territories, lungs.mask)
    except NoHeartError:
        return _from_lungs(lungs, f"The network {name} found no heart between the lungs.")
    agreement = _dice(found.mask, lungs.mask)
    if agreement < LEAST_AGREEMENT:
        reason = (
            f"The heart found by the network {name} and the heart region derived from the lungs overlap "
            f"by only {math.floor(100 * agreement)}% (Dice)."
        )
        return _from_lungs(lungs, reason)
    mask = sitk.And(found.mask, lungs.excluded != BONE_LABEL)
    cut = cut_warnings(sitk.GetArrayViewFromImage(mask) != 0)
    # The lungs' region is larger than the heart, and may reach an end of the scan where the heart does not.
    warnings = (*(warning for warning in lungs.warnings if warning.code != "heart-cut"), *found.warnings, *cut)
    places = found.territories and found.territories.with_descending_aorta(lungs.excluded == AORTA_LABEL)
    return HeartRegion(mask, lungs.excluded, found.source, warnings, places)


def _by_networks(
    scan: CTScan, network: LoadedModel | None, territories: LoadedModel | None, lungs: sitk.Image | None
) -> _Found:
    """lungs: the region found from the lungs; None where they show none. Raises NoHeartError."""
    if network is not None:
        mask, warnings = heart_mask(scan, network, region=lungs)
        region = HeartRegion(mask, None, network.card.name, warnings)
        if territories is not None:
            region = _with_territories(scan, region, territories)
        return _Found(region.mask, region.source, region.warnings, region.territories)
    found = find_territories(scan, territories)
    mask = widened(found.heart_mask(scan.image), HEART_MARGIN_MM)
    return _Found(mask, found.source, found.warnings, found)


def _with_territories(scan: CTScan, region: HeartRegion, model: LoadedModel) -> HeartRegion:
    """The region with its territories, or with a warning where a network finds them elsewhere or not at all."""
    try:
        found = find_territories(scan, model)
    except NoHeartError:
        found = None
    if found is not None and _dice(found.heart_mask(scan.image), region.mask) >= LEAST_AGREEMENT:
        return replace(region, territories=found, warnings=(*region.warnings, *found.warnings))
    message = (
        f"The network {model.card.name} found no heart where the heart mask lies, so arteries are suggested by the "
        "place in the mask alone, and calcium of valves and great vessels is not told from that of the arteries."
    )
    return replace(region, warnings=(*region.warnings, ScanWarning("no-territories", message)))


def _from_lungs(lungs: HeartRegion, reason: str) -> HeartRegion:
    message = (
        f"{reason} The region between the lungs was used instead, which is wider than the heart. Check the heart "
        "outline; give --heart MASK if it is wrong."
    )
    warning = ScanWarning("heart-from-lungs", message)
    return HeartRegion(lungs.mask, lungs.excluded, lungs.source, (*lungs.warnings, warning))


def _without_lungs(
    scan: CTScan, network: LoadedModel | None, territories: LoadedModel | None, error: NoHeartError
) -> HeartRegion:
    """The network's heart where the lungs show none, as long as it looks like one. error: why the lungs show none."""
    try:
        found = _by_networks(scan, network, territories, None)
    except NoHeartError as further:
        raise NoHeartError(f"{error} {further}") from None
    if implausibility := implausible(scan, found.mask) or without_arteries(found.territories):
        raise NoHeartError(f"{error} The heart of the network {found.source} is implausible: {implausibility}")
    message = (
        f"The heart could not be located from the lungs, so it was found by the network {found.source} alone, "
        "and bone is told by its size and density alone. Check the heart outline."
    )
    further = (ScanWarning("heart-without-lungs", message), *cut_warnings(sitk.GetArrayViewFromImage(found.mask) != 0))
    organs = found.mask if found.territories is None else found.mask | (found.territories.labels(scan.image) > 0)
    bone = bone_beside(scan.image, organs)
    mask = sitk.And(found.mask, bone == 0)
    return HeartRegion(mask, bone, found.source, (*found.warnings, *further), found.territories)


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


def implausible(scan: CTScan, mask: sitk.Image) -> str:
    """Why a mask that no lungs confirm is no heart: a sentence, empty where nothing speaks against it.

    mask: uint8 0/1 on the scan's grid, not empty.
    """
    coarse = on_working_grid(scan.image)
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
