"""The heart that is scored: a given mask, the network's, or the region between the lungs; and which of them to trust.

Network and lungs watch each other. A network that was misled (an arm beside the chest, the liver) is found out by the
room that the lungs leave for a heart; and where the field of view cuts the lungs off, as in scans made for calcium
scoring, the network's heart must look like one by itself. The limits were chosen on whole and cropped scans that nobody
has read for calcium.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import CTScan, NoHeartError, ScanWarning, mask_on_scan_grid
from .chest import GRID_MM, TISSUE_HU, on_working_grid, resampled, within
from .heart_network import heart_mask
from .heart_region import HeartRegion, cut_warnings, heart_region

if TYPE_CHECKING:
    from ..models.cards import LoadedModel

LEAST_AGREEMENT = 0.5
"""Dice of the network's heart and the region found from the lungs below which the region is taken: 0.80 and more on six
whole scans; between regions found in crops and the hearts of the whole scans 0.69 and more."""

HEART_ML = (150.0, 1700.0)
HEART_DEPTH_MM = 30.0
"""Volume with fat, and radius of the largest ball inside, of a network's heart that no lungs confirm: 674 to 1600 ml
and 37 to 45 mm in crops of 160 to 250 mm; 12 to 24 mm of what was taken for a heart in arms, necks and shoulders."""

LUNG_BESIDE = 0.08
LUNG_REACH_MM = 12.0
"""Least share of air or lung within LUNG_REACH_MM of the heart, on its right and on its left: 0.10 and more in crops of
chests; 0.02 beside a liver, 0 on one side of an arm that the field of view cuts."""


def find_heart(scan: CTScan, given: sitk.Image | None, network: LoadedModel | None) -> HeartRegion:
    """The heart: as given, a mask on any grid; else by the network, held to the region found from the lungs; or that
    region, where there is no network or it is misled.

    Raises:
        NoHeartError: If neither lungs nor network show a plausible heart.
        MaskError: The mask does not fit the scan.
    """
    if given is not None:
        mask, warnings = mask_on_scan_grid(given, scan, "heart mask")
        return HeartRegion(mask=mask > 0, excluded=None, source="given", warnings=warnings)
    if network is None:
        return heart_region(scan)
    try:
        lungs = heart_region(scan)
    except NoHeartError as error:
        return _without_lungs(scan, network, error)
    try:
        mask, warnings = heart_mask(scan, network, region=lungs.mask)
    except NoHeartError:
        return _from_lungs(lungs, f"The network {network.card.name} found no heart between the lungs.")
    agreement = _dice(mask, lungs.mask)
    if agreement < LEAST_AGREEMENT:
        reason = (
            f"The heart found by the network {network.card.name} and the heart region derived from the lungs overlap "
            f"by only {math.floor(100 * agreement)}% (Dice)."
        )
        return _from_lungs(lungs, reason)
    return HeartRegion(mask, lungs.excluded, network.card.name, (*lungs.warnings, *warnings))


def _from_lungs(lungs: HeartRegion, reason: str) -> HeartRegion:
    message = (
        f"{reason} The region between the lungs was used instead, which is wider than the heart. Check the heart "
        "outline; give --heart MASK if it is wrong."
    )
    warning = ScanWarning("heart-from-lungs", message)
    return HeartRegion(lungs.mask, lungs.excluded, lungs.source, (*lungs.warnings, warning))


def _without_lungs(scan: CTScan, network: LoadedModel, error: NoHeartError) -> HeartRegion:
    """The network's heart where the lungs show none, as long as it looks like one. error: why the lungs show none."""
    try:
        mask, warnings = heart_mask(scan, network)
    except NoHeartError as further:
        raise NoHeartError(f"{error} {further}") from None
    if implausibility := implausible(scan, mask):
        raise NoHeartError(f"{error} The heart of the network {network.card.name} is implausible: {implausibility}")
    message = (
        f"The heart could not be located from the lungs, so it was found by the network {network.card.name} alone, "
        "and bone and the descending aorta are not excluded. Check the heart outline."
    )
    found = [
        ScanWarning("heart-without-lungs", message),
        *cut_warnings(sitk.GetArrayViewFromImage(mask) != 0),
    ]
    return HeartRegion(mask, None, network.card.name, (*warnings, *found))


def implausible(scan: CTScan, mask: sitk.Image) -> str:
    """Why a mask that no lungs confirm is no heart: a sentence, empty where nothing speaks against it.

    mask: uint8 0/1 on the scan's grid, not empty.
    """
    coarse = on_working_grid(scan.image)
    grid = coarse.GetSize(), coarse.GetOrigin(), coarse.GetSpacing(), coarse.GetDirection()
    heart = sitk.GetArrayFromImage(resampled(mask * np.uint8(200), *grid)) >= 100
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
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(first, second)
    return overlap.GetDiceCoefficient()
