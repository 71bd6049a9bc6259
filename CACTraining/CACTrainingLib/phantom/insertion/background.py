"""Preparation of a real scan for insertions: heart, aorta, noise and warnings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.core.ct import CTScan, ScanWarning
from CACScoringLib.core.errors import ContrastError, InsertionError
from CACScoringLib.core.grid import Grid
from CACScoringLib.io.reading import stem
from CACScoringLib.quality.examination import examine, measure_blood, require_unenhanced
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.lesions import find_lesions

from ..anatomy.coronaries import Vessel
from ..anatomy.hearts.shape import WALL_MM
from ..anatomy.hearts.territories import TERRITORIES
from ..scanner.simulation import SMOOTHING_MM
from .insertion import grid_of, vessel_along
from .scan_heart import ScanHeart, fit_scan_heart

if TYPE_CHECKING:
    from CACScoringLib.models.cards import LoadedModel

AORTA = ("ascending aorta", "descending aorta")
"""Territories of the aorta."""

_NOISE_NEIGHBOURS = 5


@dataclass(frozen=True)
class Background:
    """Real scan with measurements shared by all its insertions.

    Attributes:
        scan: CT without contrast.
        name: Name of the patient, the same in all folders.
        grid: Grid of the scan.
        heart: Heart mask, bool [k, j, i].
        heart_source: "given", "lungs" or a network's name.
        anatomy: Measured hearts fitted to the scan; None if plaques follow a given path only.
        aortas: Ascending and descending aorta, if detected.
        noise_sd_hu: Standard deviation of the noise [k].
        smoothed_noise_share: Share of the noise, texture included, left by a Gaussian of SMOOTHING_MM.
        warnings: Doubts about the scan.
    """

    scan: CTScan
    name: str
    grid: Grid
    heart: np.ndarray
    heart_source: str
    anatomy: ScanHeart | None
    aortas: tuple[Vessel, ...]
    noise_sd_hu: np.ndarray
    smoothed_noise_share: float
    warnings: tuple[ScanWarning, ...]


def prepare_background(
    scan: CTScan,
    heart: sitk.Image | None = None,
    name: str | None = None,
    network: LoadedModel | None = None,
    needs_arteries: bool = True,
) -> Background:
    """Find heart, arteries and aorta, and measure the scan's noise.

    Args:
        heart: Mask on any grid; None to find the heart.
        name: Name of the patient; None for the file's name.
        network: Network for heart and territories, whose labels place root and valves of the fitted hearts.
        needs_arteries: False to skip fitting the measured hearts.

    Raises:
        ContrastError: The scan has contrast.
        NoHeartError: There is no heart.
        MaskError: The mask does not fit the scan.
        InsertionError: The noise cannot be measured, the scan is oblique, or the measured hearts do not fit it.
    """
    grid = grid_of(scan)
    if not name:
        if scan.source is None:
            raise InsertionError("The scan comes from no file; give the patient a name.")
        name = stem(scan.source)
    region = find_heart(scan, heart, network)
    warnings: list[ScanWarning] = [*scan.warnings, *region.warnings]
    blood = measure_blood(scan, region.mask)
    try:
        require_unenhanced(scan, blood)
    except ContrastError as error:
        # Scoring can allow contrast, insertion cannot.
        raise ContrastError("Lesions are inserted into scans without contrast only; this one has it.") from error
    warnings += examine(scan, blood)
    if blood is None:
        raise InsertionError("The noise in the heart cannot be measured. Give a mask of the whole heart.")
    mask = region.mask
    dense = find_lesions(scan, mask.astype(np.uint8), ScoringRules()).lesions
    if count := len(dense):
        message = f"{count} places in the heart reach 130 HU. If any is calcium, its truth is wrong: take another scan."
        warnings.append(ScanWarning("possible-calcium", message))
    labels = region.territory_labels
    anatomy = None
    if needs_arteries:
        # The network's outline, without the heart mask's margin for moving arteries.
        by_network = region.territories if heart is None else None
        outline = region.mask if by_network is None else by_network.heart_mask(scan.hu.shape)
        anatomy = fit_scan_heart(scan, outline, None if labels is None else scan.grid.image(labels))
    noise, share = measure_noise(scan, region.mask, blood.noise_hu, blood.noise_hu)
    aortas = _aortas(scan, labels, grid)
    return Background(scan, name, grid, mask, region.source, anatomy, aortas, noise, share, tuple(warnings))


def _aortas(scan: CTScan, labels: np.ndarray | None, grid: Grid) -> tuple[Vessel, ...]:
    """Return the ascending and the descending aorta from a network's labels."""
    if labels is None:
        return ()
    # Labels extend beyond the wall; the aorta is their round middle.
    blood = ndimage.gaussian_filter(scan.hu.astype(np.float32), 1.2 / np.array(grid.spacing_mm[::-1])) > 0
    middles = {name: _round_middle((labels == TERRITORIES[name]) & blood, grid) for name in AORTA}
    aortas = (_aorta(middle, name, WALL_MM["aorta"], grid) for name, middle in middles.items())
    return tuple(vessel for vessel in aortas if vessel is not None)


def _round_middle(label: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the largest disc within a label in every slice."""
    discs = np.zeros_like(label)
    row, column = np.ogrid[: label.shape[1], : label.shape[2]]
    for k in np.flatnonzero(label.any((1, 2))):
        depth = ndimage.distance_transform_edt(label[k])
        j, i = np.argwhere(depth > 0.95 * depth.max()).mean(axis=0)
        discs[k] = (row - j) ** 2 + (column - i) ** 2 < depth.max() ** 2
    return discs


def _aorta(label: np.ndarray, name: str, margin_mm: float, grid: Grid) -> Vessel | None:
    """Return the aorta along the slices with a round cross-section. margin_mm: excess of the label's radius."""
    area = label.sum((1, 2))
    usual = np.median(area[area > 0.3 * area.max()]) if area.any() else 0
    numbers, count = ndimage.label((area > 0.5 * usual) & (area < 1.6 * usual))
    if not count:
        return None
    slices = np.flatnonzero(numbers == 1 + np.bincount(numbers)[1:].argmax())
    if len(slices) < 3:
        return None
    row, column = ((label * n).sum((1, 2))[slices] / area[slices] for n in np.ogrid[: label.shape[1], : label.shape[2]])
    x, y, z = grid.axes_mm()
    centre = [x[0] + column * grid.spacing_mm[0], y[0] + row * grid.spacing_mm[1]]
    smooth = [ndimage.gaussian_filter1d(c, 6.0 / grid.spacing_mm[2], mode="nearest") for c in centre]
    radius = np.sqrt(np.median(area[slices]) * grid.spacing_mm[0] * grid.spacing_mm[1] / np.pi) - margin_mm
    path = np.stack([*smooth, z[slices]], axis=1)
    return vessel_along(path, name, "aortic wall", float(radius), grid)


def measure_noise(scan: CTScan, heart: np.ndarray, usual_hu: float, smoothed_hu: float) -> tuple[np.ndarray, float]:
    """Measure noise SD at the heart in every slice [k], and its share left by a Gaussian of SMOOTHING_MM in the slice.

    usual_hu, smoothed_hu: fallbacks for noise and smoothed noise.
    """
    noise = np.full(scan.hu.shape[0], usual_hu)
    for k in np.flatnonzero(heart.any((1, 2))):
        slab = slice(int(k), int(k) + 1)
        blood = measure_blood(CTScan(scan.image[:, :, slab], scan.acquisition), heart[slab])
        if blood is not None:
            noise[k] = blood.noise_hu
    noise = ndimage.median_filter(noise, _NOISE_NEIGHBOURS, mode="nearest")
    width = SMOOTHING_MM / scan.image.GetSpacing()[0]
    smooth = Grid.of(scan.image).image(ndimage.gaussian_filter(scan.hu.astype(np.float32), (0, width, width)))
    sharp, blood = (measure_blood(volume, heart) for volume in (scan, CTScan(smooth, scan.acquisition)))
    if sharp is None or blood is None:
        return noise, min(1.0, smoothed_hu / usual_hu)
    return noise, min(1.0, blood.noise_hu / sharp.noise_hu)
