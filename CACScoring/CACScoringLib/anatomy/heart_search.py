"""Choice of the heart that is scored: a mask of the user, the network's heart, or the region between the lungs.

The network's heart is taken if it looks like one: by its size, its arteries and the lung on both sides of it. Only
where it does not, or where there is no network, the heart is sought between the lungs. The limits were chosen on whole
and cropped scans that nobody has read for calcium.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTScan, ScanWarning, mask_on_scan_grid
from ..core.errors import NoHeartError
from ..core.grid import GRID_MM, bounding_box, depth_inside, widened, within
from ..core.labels import TERRITORIES
from ..core.slice_checks import LUNG_EDGE_HU
from ..models.preprocessing import TERRITORY_SPACING_MM
from .heart_region import AROUND_LESIONS, HeartRegion, bone_near, cut_warnings, large_bone, voxels
from .territories import ARTERIES, OUTSIDE, Territories, find_territories

if TYPE_CHECKING:
    from ..models.cards import LoadedModel
    from ..models.choice import Networks

HEART_MARGIN_MM = 3.0
"""Margin around the heart of the territories' network, because moving coronaries leave its outline, mm."""

LESION_MARGIN_MM = 10.0
"""Margin around a reader's lesions in a scan without a heart."""

MIN_AGREEMENT = 0.5
"""Dice of an implausible heart of the network and the region found from the lungs below which the region is taken: of
plausible hearts 0.76 and more on 17 scans."""

MIN_AGREEMENT_OF_MIRRORED = 0.7
"""Least Dice of a heart and a mask that was mirrored."""

MIN_AGREEMENT_OF_PERICARDIA = 0.85
"""Least Dice of a given pericardium and the network's. The network's own, in a digital patient and one real scan:
shifted by 12 mm 0.83 to 0.87, by 18 mm 0.74 to 0.78; grown or shrunk by 5 mm 0.87 to 0.89, by 8 mm 0.77 to 0.82."""

LESS_THAN_MIRRORED = 0.1
"""Dice by which the mirror image of a given mask agrees more with the heart where the mask was mirrored."""

HEART_ML = (150.0, 2000.0)
HEART_DEPTH_MM = 30.0
"""Volume with fat, and radius of the largest ball inside, of a heart: 511 to 1600 ml and 36 to 51 mm in 17 scans and
in crops of 160 to 250 mm, 1741 ml in a digital heart of 1370 ml; 12 to 29 mm of what was taken for a heart in arms,
necks, shoulders and reversed scans."""

MIN_TERRITORIES_ML = {"LAD": 15.0, "LCX": 10.0, "RCA": 15.0, "aortic valve and root": 8.0}
"""Territories of a heart: 31, 26, 73 and 34 ml and more in 17 scans of patients; 11, 18, 13 and 34 ml in a phantom of
plastic."""

LUNG_BESIDE = 0.08
LUNG_REACH_MM = 12.0
"""Least share of air or lung within LUNG_REACH_MM of the heart, on its right and on its left: 0.10 and more in crops of
chests; 0.02 beside a liver, 0 on one side of an arm that the field of view cuts."""


def locate_heart(
    scan: CTScan,
    mask: sitk.Image | None = None,
    networks: Networks | None = None,
    reader_sites: np.ndarray | None = None,
    pericardium: sitk.Image | None = None,
) -> HeartRegion:
    """Find the heart, and the territories of its arteries; arguments and errors as of `find_heart`.

    Without networks a scan without a heart, such as a phantom or a crop, is scored around a reader's lesions.

    Args:
        scan: The CT.
        mask: A mask of the heart, on any grid.
        networks: The networks, if any.
        reader_sites: A reader's sites, uint8 [k, j, i]; None without a reader.
        pericardium: Mask of all within the pericardium, on any grid; None for the outline of the networks.
    """
    try:
        heart = find_heart(scan, mask, networks.territories if networks else None)
    except NoHeartError as error:
        if networks is not None or reader_sites is None or not reader_sites.any():
            raise
        heart = _around_lesions(scan, reader_sites, str(error))
    return heart if pericardium is None else _with_pericardium(heart, pericardium, scan)


def _with_pericardium(heart: HeartRegion, pericardium: sitk.Image, scan: CTScan) -> HeartRegion:
    """Return the heart with a pericardium of the user, which has no source if it does not fit the heart."""
    labels, warnings = mask_on_scan_grid(pericardium, scan, "pericardium mask")
    outline = labels != 0
    expected, least = heart.mask, MIN_AGREEMENT
    if heart.pericardium is not None:
        expected, least = heart.pericardium, MIN_AGREEMENT_OF_PERICARDIA
    doubts = mask_warnings("pericardium mask", outline, expected, scan.voxel_volume_mm3, least)
    source, warnings = None if doubts else "given", (*heart.warnings, *warnings, *doubts)
    return replace(heart, pericardium=outline, pericardium_source=source, warnings=warnings)


def find_heart(scan: CTScan, mask: sitk.Image | None, model: LoadedModel | None) -> HeartRegion:
    """Return the heart: a mask as it is, the network's heart if it is plausible, else what lies between the lungs.

    An implausible heart of the network, as that of a cut one, is taken if it agrees with the region of the lungs.

    Args:
        scan: The CT.
        mask: A mask of the heart, on any grid; None to search for the heart.
        model: Model that finds heart and territories; None to search from the lungs alone.

    Raises:
        NoHeartError: Neither lungs nor network show a plausible heart, or the network finds no arteries in a scan whose
            ends both cut the heart, as those of a phantom do.
        MaskError: The mask does not fit the scan.
    """
    if mask is not None:
        return _user_heart(scan, mask, model)
    heart, doubt = (None, "") if model is None else _by_network(scan, model)
    if heart is not None and not doubt:
        return heart
    from .between_lungs import heart_region  # where no network finds a plausible heart

    if model is None:
        return heart_region(scan)
    try:
        lungs = heart_region(scan)
    except NoHeartError as error:
        raise NoHeartError(f"{error}\n{doubt}") from error
    if heart is None or dice(heart.mask, lungs.mask) < MIN_AGREEMENT:
        heart, doubt = _by_network(scan, model, lungs.mask)
    if heart is not None and (not doubt or dice(heart.mask, lungs.mask) >= MIN_AGREEMENT):
        if _is_cut_at_both_ends(heart.mask) and without_arteries(heart.territories):
            raise NoHeartError(f"{doubt} Give a heart mask.\nBoth ends of the scan cut it, as they cut a phantom.")
        return heart
    if heart is None and _is_cut_at_both_ends(lungs.mask):
        raise NoHeartError(f"{doubt}\nBoth ends of the scan cut the region between the lungs, as they cut a phantom.")
    return _between_lungs(scan, lungs, doubt)


def _is_cut_at_both_ends(mask: np.ndarray) -> bool:
    return bool(mask[0].any() and mask[-1].any())


def _by_network(scan: CTScan, model: LoadedModel, expected: np.ndarray | None = None) -> tuple[HeartRegion | None, str]:
    """Return the network's heart, if any, and why it is implausible: a sentence, empty if it is plausible."""
    try:
        territories = find_territories(scan, model, expected)
    except NoHeartError as error:
        return None, str(error)
    pericardium = territories.heart_mask(scan.hu.shape)
    if not pericardium.any():
        return None, f"The network {territories.source} found a heart only beyond the scan's edges. Give a heart mask."
    mask = widened(pericardium, scan.image.GetSpacing(), HEART_MARGIN_MM)
    heart = scan.coarse_grid.mask(mask, scan.grid)
    labels = territories.probability.argmax(0)
    inside, is_coronary = (
        scan.coarse_grid.mask(part, territories.grid.in_space(scan.image))
        for part in (labels != OUTSIDE, (labels >= ARTERIES.start) & (labels < ARTERIES.stop))
    )
    organs = heart | inside
    bone = bone_near(scan, organs, large_bone(scan.coarse_hu, organs))
    warnings = (*territories.warnings, *cut_warnings(heart, is_coronary))
    name = territories.source
    box = bounding_box(mask)  # memory beyond is never touched
    mask[box] &= ~bone[box]
    region = HeartRegion(mask, bone, name, warnings, territories, pericardium, name)
    doubt = implausible(scan, heart) or without_arteries(territories)
    return region, f"The heart of the network {name} is implausible: {doubt}" if doubt else ""


def _user_heart(scan: CTScan, mask: sitk.Image, model: LoadedModel | None) -> HeartRegion:
    """Return a heart of the user with the network's territories, or a warning if these lie elsewhere or are unknown."""
    labels, notes = mask_on_scan_grid(mask, scan, "heart mask")
    heart, region, expected = labels != 0, None, None
    if model is not None:
        region, _ = _by_network(scan, model)
        expected = None if region is None else region.pericardium
    else:
        from .between_lungs import heart_region

        with contextlib.suppress(NoHeartError):
            expected = heart_region(scan).mask
    warnings = (*notes, *mask_warnings("heart mask", heart, expected, scan.voxel_volume_mm3))
    if region is not None and expected is not None and dice(expected, heart) >= MIN_AGREEMENT:
        assert region.territories is not None
        warnings = (*warnings, *region.territories.warnings)
        return HeartRegion(heart, None, "given", warnings, region.territories)
    if model is not None:
        message = (
            f"The network {model.card.name} found no heart where the heart mask lies, so lesions are not assigned to "
            "arteries, and calcium of valves and great vessels is not separated from that of the arteries."
        )
        warnings = (*warnings, ScanWarning("no-territories", message))
    return HeartRegion(heart, None, "given", warnings)


def mask_warnings(
    name: str, mask: np.ndarray, heart: np.ndarray | None, voxel_mm3: float, least: float = MIN_AGREEMENT
) -> tuple[ScanWarning, ...]:
    """Compare a given mask with the heart found in the scan.

    Args:
        name: What to call the mask in messages.
        mask: Given mask on the scan's grid, bool [k, j, i].
        heart: Heart found, likewise; None if there is none.
        voxel_mm3: Volume of a voxel.
        least: Dice below which the mask does not belong to it.

    Returns:
        A severe warning where the mask does not belong to the scan.
    """
    if heart is None:
        volume_ml = np.count_nonzero(mask) * voxel_mm3 / 1000
        doubt = f"has {volume_ml:.0f} ml; hearts have up to {HEART_ML[1]:.0f} ml" if volume_ml > HEART_ML[1] else ""
    else:
        agreement, doubt = dice(mask, heart), ""
        if agreement < least:
            doubt = f"overlaps the heart found in the scan by only {math.floor(100 * agreement)}% (Dice)"
        for axis, direction in enumerate(("upside down", "front to back", "left to right")):
            mirrored_agreement = dice(np.flip(mask, axis), heart)
            if mirrored_agreement > max(agreement + LESS_THAN_MIRRORED, MIN_AGREEMENT_OF_MIRRORED):
                doubt = f"fits the heart found in the scan better when it is mirrored {direction}"
    if not doubt:
        return ()
    message = f"The {name} {doubt}. Check that it was drawn in this scan and saved with its geometry, or leave it out."
    return (ScanWarning("mask-doubtful", message),)


def _around_lesions(scan: CTScan, sites: np.ndarray, reason: str) -> HeartRegion:
    """Return the region around a reader's lesions. reason: Why no heart was found."""
    mask = widened(sites != 0, scan.image.GetSpacing(), LESION_MARGIN_MM)
    message = f"{reason} Only the labelled lesions were scored, and checks that need a heart were left out."
    return HeartRegion(mask, None, AROUND_LESIONS, (ScanWarning("heart-not-found", message),))


def _between_lungs(scan: CTScan, lungs: HeartRegion, reason: str) -> HeartRegion:
    """Return the region of the lungs if it is plausible. reason: Why that of the network is not taken."""
    if doubt := implausible(scan, scan.coarse_grid.mask(lungs.mask, scan.grid)):
        raise NoHeartError(f"{reason}\nThe region between the lungs is implausible: {doubt}")
    message = (
        f"{reason} The region between the lungs was used instead, which is wider than the heart. Check the heart "
        "outline; give a heart mask if it is wrong."
    )
    return replace(lungs, warnings=(*lungs.warnings, ScanWarning("heart-from-lungs", message)))


def without_arteries(territories: Territories | None) -> str:
    """State why territories that no lungs confirm are no heart's: a sentence, empty if they are plausible."""
    if territories is None:
        return ""
    labels = np.bincount(territories.probability.argmax(0).ravel(), minlength=len(TERRITORIES))
    volumes_ml = labels * math.prod(TERRITORY_SPACING_MM) / 1000
    for name, least_ml in MIN_TERRITORIES_ML.items():
        if (volume_ml := volumes_ml[TERRITORIES.index(name)]) < least_ml:
            return f"its territory {name} holds {volume_ml:.0f} ml; {least_ml:.0f} ml or more is usual."
    return ""


def implausible(scan: CTScan, heart: np.ndarray) -> str:
    """State why a mask that no lungs confirm is no heart: a sentence, empty if it is plausible.

    Args:
        scan: The scan.
        heart: Mask on its working grid, bool [k, j, i], not empty.
    """
    volume_ml = heart.sum() * GRID_MM**3 / 1000
    if not HEART_ML[0] <= volume_ml <= HEART_ML[1]:
        return f"its volume is {volume_ml:.0f} ml; {HEART_ML[0]:.0f} to {HEART_ML[1]:.0f} ml with fat is usual."
    depth_mm = GRID_MM * float(depth_inside(heart, voxels(HEART_DEPTH_MM)).max())
    if depth_mm < HEART_DEPTH_MM:
        radius_mm = math.floor(10 * depth_mm) / 10  # never rounded up to what is usual
        return f"the largest sphere inside it has a radius of {radius_mm:g} mm; {HEART_DEPTH_MM:g} mm or more is usual."
    shell = within(heart, LUNG_REACH_MM / GRID_MM) & ~heart
    lung = scan.coarse_hu < LUNG_EDGE_HU
    middle = np.argwhere(heart)[:, 2].mean()
    columns = np.arange(heart.shape[2])
    for side, side_columns in (("right", columns < middle - 20 / GRID_MM), ("left", columns > middle + 20 / GRID_MM)):
        rim = shell & side_columns
        share = lung[rim].mean() if rim.any() else 0.0
        if share < LUNG_BESIDE:
            return f"there is no lung beside it on the {side}."
    return ""


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Dice coefficient of masks."""
    return 2 * int(np.count_nonzero(a & b)) / max(1, int(np.count_nonzero(a) + np.count_nonzero(b)))
