"""Heart, aorta and noise of a real scan, measured before lesions are inserted, and doubts about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.anatomy.heart_region import AORTA_LABEL
from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.core.ct import ContrastError, CTScan, ScanWarning
from CACScoringLib.io.reading import stem
from CACScoringLib.quality.acquisition import examine, measure_blood, require_unenhanced
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions

from ..anatomy.coronaries import Vessel
from ..anatomy.hearts.shape import WALL_MM
from ..anatomy.hearts.territories import TERRITORIES
from ..scanner.scanner import Grid
from ..scanner.simulation import SMOOTHING_MM
from .insertion import InsertionError, grid_of, vessel_along
from .scan_heart import ScanHeart, fit_scan_heart

if TYPE_CHECKING:
    from CACScoringLib.models.cards import LoadedModel

AORTA_LABEL_MARGIN_MM = 1.5
"""By so much the heart region's label of the descending aorta is wider than the aorta."""

_NOISE_NEIGHBOURS = 5


@dataclass(frozen=True)
class Background:
    """A real scan and what is measured in it once for all insertions.

    name: of the patient, who must be the same in all folders. heart: bool [k, j, i]; heart_source: "given",
    "lungs" or a network's name. anatomy: the measured hearts fitted to it, None where only a given path is followed.
    aortas: ascending and descending, as far as they were found. noise_sd_hu: [k]; smoothed_noise_share: what a Gaussian
    of SMOOTHING_MM leaves of it, texture included. warnings: doubts about the scan.
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
    fitted: bool = True,
) -> Background:
    """Find heart, arteries and aorta, and measure the scan's noise.

    heart: mask on any grid, found when None. name: of the patient; the file's name when None. network: one for
    territories, whose labels draw the fitted hearts to root and valves, or one for the heart. fitted: whether arteries
    are needed.
    Raises ContrastError for a scan with contrast, NoHeartError, MaskError, InsertionError when the noise cannot be
    measured, the scan is oblique, or the measured hearts do not fit it.
    """
    grid = grid_of(scan)
    if not name and scan.source is None:
        raise InsertionError("The scan comes from no file; give the patient a name.")
    name = name or stem(scan.source)
    territories = network if network is not None and network.card.network == "territories" else None
    region = find_heart(scan, heart, None if territories else network, territories)
    warnings: list[ScanWarning] = [*scan.warnings, *region.warnings]
    blood = measure_blood(scan, region.mask)
    try:
        require_unenhanced(scan, blood)
    except ContrastError as error:
        # Where a scan is scored, contrast can be allowed.
        raise ContrastError("Lesions are inserted into scans without contrast only; this one has it.") from error
    warnings += examine(scan, blood)
    if blood is None:
        raise InsertionError("The noise in the heart cannot be measured. Give a mask of the whole heart.")
    mask = sitk.GetArrayFromImage(region.mask) > 0
    dense = len(find_lesions(scan.image, mask.astype(np.uint8), ScoringRules()).lesions)
    if dense:
        message = f"{dense} places in the heart reach 130 HU. If any is calcium, its truth is wrong: take another scan."
        warnings.append(ScanWarning("possible-calcium", message))
    labels = None if region.territories is None else region.territories.labels(scan.image)
    anatomy = None
    if fitted:
        # The network's own outline, which is not widened for arteries that move.
        own = heart is None and region.territories is not None
        anatomy = fit_scan_heart(scan, region.territories.heart_mask(scan.image) if own else region.mask, labels)
    noise, share = measure_noise(scan, region.mask, blood.noise_hu, blood.noise_hu)
    aortas = _aortas(scan, labels, region.excluded, grid)
    return Background(scan, name, grid, mask, region.source, anatomy, aortas, noise, share, tuple(warnings))


def _aortas(scan: CTScan, labels: sitk.Image | None, excluded: sitk.Image | None, grid: Grid) -> tuple[Vessel, ...]:
    """The ascending aorta from a network's labels, the descending one from what the heart region excludes."""
    found = []
    if labels is not None:
        # Labels reach beyond the wall, into fat and beside it: the aorta is the round middle.
        label = sitk.GetArrayViewFromImage(labels) == TERRITORIES["ascending aorta"]
        blood = ndimage.gaussian_filter(scan.hu.astype(np.float32), 1.2 / np.array(grid.spacing_mm[::-1])) > 0
        found.append(_aorta(_round_middle(label & blood, grid), "ascending aorta", WALL_MM["aorta"], grid))
    if excluded is not None:
        label = sitk.GetArrayViewFromImage(excluded) == AORTA_LABEL
        found.append(_aorta(label, "descending aorta", AORTA_LABEL_MARGIN_MM, grid))
    return tuple(vessel for vessel in found if vessel is not None)


def _round_middle(label: np.ndarray, grid: Grid) -> np.ndarray:
    """In every slice the largest disc within a label."""
    found = np.zeros_like(label)
    row, column = np.ogrid[: label.shape[1], : label.shape[2]]
    for k in np.flatnonzero(label.any((1, 2))):
        depth = ndimage.distance_transform_edt(label[k])
        j, i = np.argwhere(depth > 0.95 * depth.max()).mean(axis=0)
        found[k] = (row - j) ** 2 + (column - i) ** 2 < depth.max() ** 2
    return found


def _aorta(label: np.ndarray, name: str, margin_mm: float, grid: Grid) -> Vessel | None:
    """The aorta along the slices that show it round, from its label, which is wider by a margin."""
    area = label.sum((1, 2))
    usual = np.median(area[area > 0.3 * area.max()]) if area.any() else 0
    numbers, count = ndimage.label((area > 0.5 * usual) & (area < 1.6 * usual))
    if not count:
        return None
    slices = np.flatnonzero(numbers == 1 + np.bincount(numbers)[1:].argmax())
    if len(slices) < 3:
        return None
    row, column = ((label * n).sum((1, 2))[slices] / area[slices] for n in np.ogrid[: label.shape[1], : label.shape[2]])
    centre = [grid.x_mm()[0] + column * grid.spacing_mm[0], grid.y_mm()[0] + row * grid.spacing_mm[1]]
    smooth = [ndimage.gaussian_filter1d(c, 6.0 / grid.spacing_mm[2], mode="nearest") for c in centre]
    radius = np.sqrt(np.median(area[slices]) * grid.spacing_mm[0] * grid.spacing_mm[1] / np.pi) - margin_mm
    path = np.stack([*smooth, grid.z_mm()[slices]], axis=1)
    return vessel_along(path, name, "aortic wall", float(radius), grid)


def measure_noise(scan: CTScan, heart: sitk.Image, usual_hu: float, smoothed_hu: float) -> tuple[np.ndarray, float]:
    """Noise SD of every slice [k] at the heart, and what share of it a Gaussian of SMOOTHING_MM in the slice leaves.

    usual_hu, smoothed_hu: noise and smoothed noise where none can be measured.
    """
    noise = np.full(scan.hu.shape[0], usual_hu)
    for k in np.flatnonzero(sitk.GetArrayViewFromImage(heart).any((1, 2))):
        one = slice(int(k), int(k) + 1)
        blood = measure_blood(CTScan(scan.image[:, :, one], scan.acquisition), heart[:, :, one])
        if blood is not None:
            noise[k] = blood.noise_hu
    noise = ndimage.median_filter(noise, _NOISE_NEIGHBOURS, mode="nearest")
    width = SMOOTHING_MM / scan.image.GetSpacing()[0]
    smooth = sitk.GetImageFromArray(ndimage.gaussian_filter(scan.hu.astype(np.float32), (0, width, width)))
    smooth.CopyInformation(scan.image)
    sharp, blood = (measure_blood(one, heart) for one in (scan, CTScan(smooth, scan.acquisition)))
    if sharp is None or blood is None:
        return noise, min(1.0, smoothed_hu / usual_hu)
    return noise, min(1.0, blood.noise_hu / sharp.noise_hu)
