"""Examination of a scan before it is scored: blood, noise, contrast, acquisition, orientation, and blank slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from ..anatomy.heart_region import AROUND_LESIONS, HeartRegion
from ..core.ct import CTScan, ScanWarning
from ..core.slices import blank_slices
from ..core.voxels import voxels_of
from ..record.findings import BloodPool, Normalisation
from .acquisition import THRESHOLD_HU, examine, measure_blood, require_unenhanced
from .normalisation import normalisation_warnings
from .orientation import require_oriented


@dataclass(frozen=True)
class ImageQuality:
    """Measured quality of a scan.

    Attributes:
        blood: Blood and noise in the scan as scored; None if they could not be measured.
        normalisation: Normalisation, with the noise before it.
        warnings: Doubts about the scan's quality and orientation.
    """

    blood: BloodPool | None
    normalisation: Normalisation
    warnings: tuple[ScanWarning, ...]

    @property
    def noise_hu(self) -> float | None:
        """Noise (SD) of blood; None if it could not be measured."""
        return None if self.blood is None else self.blood.noise_hu


def examine_quality(
    scan: CTScan,
    scored: CTScan,
    heart: HeartRegion,
    normalisation: Normalisation,
    threshold_hu: float = THRESHOLD_HU,
    allow_contrast: bool = False,
    allow_reversed: bool = False,
) -> ImageQuality:
    """Measure blood and noise, and check what speaks against a reliable score.

    Args:
        scan: The scan as read.
        scored: The scan as scored.
        heart: The heart.
        normalisation: Normalisation that turns the one scan into the other.
        threshold_hu: Threshold of the clinical rule.
        allow_contrast: Warn of contrast instead of refusing it.
        allow_reversed: Warn of a contradictory orientation instead of refusing it.

    Raises:
        ContrastError: The scan was made with contrast.
        OrientationError: The anatomy contradicts the orientation in the file's header.
    """
    is_heart = heart.source != AROUND_LESIONS
    blood = measure_blood(scored, heart.mask) if is_heart else None
    if blood and normalisation.changes and (before := measure_blood(scan, heart.mask)):
        normalisation = replace(normalisation, noise_hu=before.noise_hu)
    warnings = [*normalisation_warnings(normalisation), *examine(scored, blood, threshold_hu)]
    warnings += (*_blank_beside(scored, heart.mask), *require_unenhanced(scored, blood, allow_contrast))
    if is_heart and (blood is None or not blood.enhanced):  # enhanced vessels look like bone
        warnings += require_oriented(scored, heart.mask, allow_reversed)
    return ImageQuality(blood, normalisation, tuple(warnings))


def _blank_beside(scan: CTScan, heart_mask: sitk.Image) -> tuple[ScanWarning, ...]:
    """Warn where the heart reaches blank slices at an end of the scan."""
    heart = np.flatnonzero(voxels_of(heart_mask).any((1, 2)))
    if not heart.size or not any(heart[0] - 1 <= k <= heart[-1] + 1 for k in blank_slices(scan.hu)[1]):
        return ()
    message = "The heart region reaches blank slices, so part of the heart is missing, and its calcium is not counted."
    return (ScanWarning("heart-cut", message),)
