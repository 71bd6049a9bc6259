"""What must be known of a real scan before lesions are inserted: its heart, aorta and noise, and doubts about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.anatomy.heart_region import AORTA_LABEL, HeartRegion, heart_region
from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.core.ct import ContrastError, CTScan, ScanWarning, mask_on_scan_grid
from CACScoringLib.scoring.acquisition import examine, measure_blood, named_agent, require_unenhanced
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions

from ..anatomy.coronaries import Vessel
from ..scanner.scanner import Grid
from ..scanner.simulation import SMOOTHING_MM
from .insertion import InsertionError, grid_of, vessel_along

if TYPE_CHECKING:
    from CACScoringLib.models.cards import LoadedModel

AORTA_LABEL_MARGIN_MM = 1.5
"""By so much the heart region's label of the descending aorta is wider than the aorta."""

_NOISE_NEIGHBOURS = 5


@dataclass(frozen=True)
class Background:
    """A real scan and what is measured in it once for all insertions.

    name: of the patient, who must be the same in all folders. heart: bool [k, j, i]; heart_source: "given" or "lungs".
    room: bool [k, j, i], that part of the heart in which arteries may run.
    aorta: the descending one, None when it was not found. noise_sd_hu: [k]; smoothed_noise_share: what a Gaussian of
    SMOOTHING_MM leaves of it, texture included. warnings: doubts about the scan.
    """

    scan: CTScan
    name: str
    grid: Grid
    heart: np.ndarray
    heart_source: str
    room: np.ndarray
    aorta: Vessel | None
    noise_sd_hu: np.ndarray
    smoothed_noise_share: float
    warnings: tuple[ScanWarning, ...]


def prepare_background(
    scan: CTScan, heart: sitk.Image | None = None, name: str | None = None, network: LoadedModel | None = None
) -> Background:
    """Find the heart and measure the scan's noise.

    heart: mask, the heart region found from the lungs when None. name: of the patient; the file's name when None.
    network: the heart network, which leaves out of the room for arteries what is no heart in the lungs' region.
    Raises ContrastError for a scan with contrast, NoHeartError, MaskError, InsertionError when the noise cannot be
    measured or the scan is oblique.
    """
    grid = grid_of(scan)
    name = name or _stem(scan)
    warnings: list[ScanWarning] = list(scan.warnings)
    if heart is None:
        region = heart_region(scan)
    else:
        mask, resampled = mask_on_scan_grid(heart, scan, "heart mask")
        region = HeartRegion(mask != 0, None, "given", resampled)
    warnings += region.warnings
    blood = measure_blood(scan, region.mask)
    try:
        require_unenhanced(scan, blood)
    except ContrastError as error:
        # The message speaks of scoring, where contrast can be allowed.
        found = "the blood could not be measured" if blood is None else f"the blood measures {blood.bright_hu:.0f} HU"
        agent = named_agent(scan.acquisition)
        tag = f", and the DICOM tag names a contrast agent ({agent})" if agent else ""
        raise ContrastError(f"Lesions are inserted into scans without contrast only; here {found}{tag}.") from error
    warnings += examine(scan, blood)
    if blood is None:
        raise InsertionError(
            "The noise in the heart cannot be measured, so it is unknown what would be visible: the heart mask is too "
            "small. Give a mask of the whole heart."
        )
    mask = sitk.GetArrayFromImage(region.mask) > 0
    room = mask
    if heart is None and network is not None:
        room = mask & (sitk.GetArrayFromImage(find_heart(scan, None, network).mask) > 0)
    dense = len(find_lesions(scan.image, mask.astype(np.uint8), ScoringRules()).lesions)
    if dense:
        message = (
            f"{dense} places in the heart reach 130 HU. Look whether they are noise, bone or calcium: a scan with "
            "calcium of its own must not be used, because its truth would be wrong."
        )
        warnings.append(ScanWarning("maybe-not-clean", message))
    aorta = None if region.excluded is None else _descending_aorta(region.excluded, grid)
    share = _smoothed_noise_hu(scan, region.mask, blood.noise_hu) / blood.noise_hu
    noise = _noise_by_slice(scan, region.mask, blood.noise_hu)
    return Background(scan, name, grid, mask, region.source, room, aorta, noise, share, tuple(warnings))


def _descending_aorta(excluded: sitk.Image, grid: Grid) -> Vessel | None:
    """The descending aorta in the heart's slices from the region's label."""
    label = sitk.GetArrayViewFromImage(excluded) == AORTA_LABEL
    area = label.sum((1, 2))
    slices = np.flatnonzero(area)
    if len(slices) < 3:
        return None
    row, column = ((label * n).sum((1, 2))[slices] / area[slices] for n in np.ogrid[: label.shape[1], : label.shape[2]])
    centre = [grid.x_mm()[0] + column * grid.spacing_mm[0], grid.y_mm()[0] + row * grid.spacing_mm[1]]
    smooth = [ndimage.gaussian_filter1d(c, 6.0 / grid.spacing_mm[2], mode="nearest") for c in centre]
    radius = np.sqrt(np.median(area[slices]) * grid.spacing_mm[0] * grid.spacing_mm[1] / np.pi) - AORTA_LABEL_MARGIN_MM
    path = np.stack([*smooth, grid.z_mm()[slices]], axis=1)
    return vessel_along(path, "aortic wall", float(radius), grid)


def _noise_by_slice(scan: CTScan, heart: sitk.Image, usual_hu: float) -> np.ndarray:
    """Noise SD of every slice [k] at the heart, the median of its neighbours; the usual one where none is measured."""
    noise = np.full(scan.hu.shape[0], usual_hu)
    for k in np.flatnonzero(sitk.GetArrayViewFromImage(heart).any((1, 2))):
        one = slice(int(k), int(k) + 1)
        blood = measure_blood(CTScan(scan.image[:, :, one], scan.acquisition), heart[:, :, one])
        if blood is not None:
            noise[k] = blood.noise_hu
    return ndimage.median_filter(noise, _NOISE_NEIGHBOURS, mode="nearest")


def _smoothed_noise_hu(scan: CTScan, heart: sitk.Image, usual_hu: float) -> float:
    """Noise SD that a Gaussian of SMOOTHING_MM in the slice leaves."""
    width = SMOOTHING_MM / scan.image.GetSpacing()[0]
    smooth = sitk.GetImageFromArray(ndimage.gaussian_filter(scan.hu.astype(np.float32), (0, width, width)))
    smooth.CopyInformation(scan.image)
    blood = measure_blood(CTScan(smooth, scan.acquisition), heart)
    return usual_hu if blood is None else min(blood.noise_hu, usual_hu)


def _stem(scan: CTScan) -> str:
    if scan.source is None:
        raise InsertionError("The scan comes from no file; give the patient a name.")
    name = scan.source.name
    for ending in (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"):
        name = name.removesuffix(ending)
    return name
