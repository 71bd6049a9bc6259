"""Acquisition of a scan, and doubts about its score: contrast, noise, tube voltage, pixels and slices.

DICOM tags are often absent (NIfTI has none) and sometimes wrong, so contrast and noise are measured in the heart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ..anatomy.heart_region import AROUND_LESIONS, HeartRegion
from ..core.acquisition import Acquisition, agent_named
from ..core.ct import CTScan, ScanWarning
from ..core.errors import ContrastError
from ..core.grid import GRID_MM
from ..core.remedies import UNUSUAL
from ..core.slices import (
    BODY_HU,
    MAX_DRIFT_HU,
    MIN_DRIFT_HU,
    TISSUE_SUM_HU,
    blank_slices,
    is_extruded,
    tissue_values,
)
from ..record.findings import BloodPool, Normalisation
from .normalisation import normalisation_warnings
from .orientation import require_oriented

STANDARD_KVP = 120.0
"""The 130 HU threshold and the weights were defined at this tube voltage."""

MAX_THICKNESS_MM = 5.0
MAX_SPACING_MM = 5.0
MAX_PIXEL_MM = 1.5
"""Thicker or wider than this, small lesions fall below the threshold or between the slices. The widest field of
a chest CT, 700 mm, has pixels of 1.4 mm."""

THRESHOLD_HU = 130.0
"""Agatston's threshold."""

NOISE_SDS = 3.0
"""Blood this many noise SDs below THRESHOLD_HU rarely reaches it (one voxel in 700). With unenhanced blood at 45 HU
this allows 28 HU of noise, above the 20 to 23 HU that McCollough 2007 prescribes (10.1148/radiol.2432050808, (2nd))."""

WARNING_BLOOD_HU = 90.0
"""Unenhanced blood has 30 to 60 HU, the tissue-like plastic of a thorax phantom up to 81."""

WINDOW_MM = 9.0
"""Side of the square windows in which blood and noise are measured: many voxels, and well inside a chamber."""

FAT_HU = -20.0
"""Windows with a lower median are mostly fat."""

DENSE_BONE_HU, MIN_BONE_SHARE, MIN_BODY_ML = 200.0, 0.005, 3000.0
"""HU and least share of bone on the working grid, per body of this volume and more in view. Patients: 3 to 8 %; where
calcium is suppressed, none."""


def examine(scan: CTScan, blood: BloodPool | None, threshold_hu: float = THRESHOLD_HU) -> tuple[ScanWarning, ...]:
    """Check what speaks against a reliable score: tube voltage, slices, contrast tag, bright blood, noise.

    Args:
        scan: The CT.
        blood: From `measure_blood`; None where it could not be measured, which is a warning of its own.
        threshold_hu: Of the rules that the scan is scored by.

    Returns:
        A warning for each finding.
    """
    agent = named_agent(scan.acquisition)
    named = [ScanWarning("contrast-tag", f"The scan's DICOM tag names a contrast agent ({agent}).")] if agent else []
    of_voltage = _voltage_doubts(scan.acquisition, threshold_hu)
    return (*of_voltage, *_voxel_doubts(scan), *named, *_blood_doubts(blood, threshold_hu))


def _voltage_doubts(acquisition: Acquisition, threshold_hu: float) -> Iterator[ScanWarning]:
    """Warnings about the X-ray spectrum."""
    kvp = acquisition.calcium_kvp
    if acquisition.has_tin_filter:
        yield ScanWarning(
            "tin-filter",
            "The scan was acquired with a tin filter, for which no thresholds are published. Those of 120 kVp "
            f"({THRESHOLD_HU:g} HU) apply; the score is probably lower than without the filter.",
        )
    elif kvp is None:
        yield ScanWarning("kvp-unknown", "The tube voltage is unknown, but the score is valid at 120 kVp only.")
    elif abs(kvp - STANDARD_KVP) > 0.5:
        message = f"The scan was acquired at {kvp:g} kVp, but thresholds and weights are defined at 120 kVp."
        if threshold_hu != THRESHOLD_HU:
            message = f"The scan was acquired at {kvp:g} kVp; the threshold is {threshold_hu:g} HU instead of 130 HU."
        yield ScanWarning("not-120-kvp", message)


def _voxel_doubts(scan: CTScan) -> Iterator[ScanWarning]:
    """Warnings about the size of voxels."""
    thickness_mm, spacing_mm = scan.acquisition.slice_thickness_mm, scan.slice_spacing_mm
    pixel_i_mm, pixel_j_mm = scan.image.GetSpacing()[:2]
    if thickness_mm is None:
        yield ScanWarning(
            "thickness-unknown",
            "The slice thickness is unknown (it does not follow from the slice spacing); thick slices can hide small "
            "lesions.",
        )
    elif thickness_mm > MAX_THICKNESS_MM:
        yield ScanWarning(
            "thick-slices",
            f"The slices are {thickness_mm:g} mm thick, more than {MAX_THICKNESS_MM:g} mm, so small lesions may be "
            "missed.",
        )
    if max(pixel_i_mm, pixel_j_mm) > MAX_PIXEL_MM + 0.01:
        yield ScanWarning(
            "coarse-pixels",
            f"The pixels measure {pixel_i_mm:g} × {pixel_j_mm:g} mm, more than {MAX_PIXEL_MM:g} mm, so small "
            "lesions may be missed.",
        )
    if spacing_mm > MAX_SPACING_MM + 0.01:
        yield ScanWarning(
            "wide-spacing",
            f"The slices are {spacing_mm:g} mm apart, more than {MAX_SPACING_MM:g} mm, so lesions between them may be "
            "missed.",
        )
    if thickness_mm is not None and spacing_mm > 1.02 * thickness_mm:
        yield ScanWarning(
            "slice-gaps",
            f"There are gaps of {spacing_mm - thickness_mm:.1f} mm between the slices, so lesions may be missed. Check "
            "whether every second slice is missing.",
        )


def require_unenhanced(scan: CTScan, blood: BloodPool | None, allow_contrast: bool = False) -> tuple[ScanWarning, ...]:
    """Refuse scans made with contrast, which calcium scores do not allow: enhanced blood passes the threshold.

    The DICOM tag alone refuses as well, because the image does not show whether the agent had yet arrived; the
    message gives the measured blood so that the user can decide.

    Args:
        scan: The CT.
        blood: As `measure_blood` gives it.
        allow_contrast: Warn instead.

    Returns:
        A warning where contrast is allowed and blood is enhanced.

    Raises:
        ContrastError: The scan was made with contrast.
    """
    agent = named_agent(scan.acquisition)
    if blood is not None and blood.enhanced:
        tag = f"; its DICOM tag names {agent}" if agent else ""
        finding = f"The blood in the heart measures {blood.bright_hu:.0f} HU (unenhanced: 30 to 60){tag}."
        if allow_contrast:
            message = (
                f"{finding} The scan was acquired with contrast, so blood is counted as calcium. Do not use the score."
            )
            return (ScanWarning("contrast-enhanced", message),)
        raise ContrastError(f"{finding} The scan was acquired with contrast. {_without_contrast()}")
    if agent and not allow_contrast:
        measured = "The blood could not be measured."
        if blood is not None:
            measured = (
                f"The blood measures {blood.bright_hu:.0f} HU, as expected without contrast; the agent may have been "
                "oral, or given after this series."
            )
        raise ContrastError(f"The scan's DICOM tag names a contrast agent ({agent}). {measured} {_without_contrast()}")
    return ()


def named_agent(acquisition: Acquisition) -> str | None:
    """The contrast agent of the DICOM tag; None when the tag is absent or says there was none."""
    return agent_named(acquisition.contrast_agent)


def measure_blood(scan: CTScan, heart_mask: np.ndarray) -> BloodPool | None:
    """Measure blood and noise in the upper half of the heart, with no liver in a generous mask and little muscle.

    Every slice is tiled with windows of WINDOW_MM. Used are those a window away from the mask's edge, with a median
    above fat, and no more varied than noise: so neither calcium nor chamber walls are in the measure.
    heart_mask: bool [k, j, i] on the scan's grid. Returns None when it has room for no such window.
    """
    slices = np.nonzero(heart_mask.any((1, 2)))[0]
    if not slices.size:
        return None
    upper = slice((slices[0] + slices[-1] + 1) // 2, slices[-1] + 1)
    windows = _windows_inside(scan, heart_mask[upper], upper)
    medians = np.median(windows, axis=1)
    # The median deviation, unlike the SD, is hardly moved by a vessel wall or calcium in the window.
    spread = 1.4826 * np.median(np.abs(windows - medians[:, None]), axis=1)
    deviation = windows.std(axis=1)
    tissue = medians > FAT_HU
    if not tissue.any():
        return None
    homogeneous = tissue & (deviation <= 1.5 * np.median(spread[tissue]))
    used = homogeneous if homogeneous.any() else tissue
    return BloodPool(
        median_hu=float(np.median(medians[used])),
        bright_hu=float(np.percentile(medians[used], 90)),
        noise_hu=float(np.median(deviation[used])),
        windows=int(used.sum()),
    )


def _windows_inside(scan: CTScan, mask: np.ndarray, slices: slice) -> np.ndarray:
    """Return the voxels [window, voxel], float32, of the windows in these slices of the mask that lie off its edge."""
    spacing_i, spacing_j, _ = scan.image.GetSpacing()
    height, width = max(3, round(WINDOW_MM / spacing_j)), max(3, round(WINDOW_MM / spacing_i))
    count_k, rows, columns = mask.shape
    tiles = count_k, rows // height, height, columns // width, width
    cut = (slice(None), slice(tiles[1] * height), slice(tiles[3] * width))
    is_full = mask[cut].reshape(tiles).all((2, 4))
    inside = ndimage.binary_erosion(is_full, np.ones((1, 3, 3)))
    is_measured = inside if inside.any() else is_full
    return (
        scan.hu[slices][cut].reshape(tiles).swapaxes(2, 3)[is_measured].reshape(-1, height * width).astype(np.float32)
    )


def _blood_doubts(blood: BloodPool | None, threshold_hu: float) -> Iterator[ScanWarning]:
    """Warnings about blood and noise."""
    if blood is None:
        message = "The blood in the heart could not be measured, so contrast and noise were not checked."
        yield ScanWarning("blood-unmeasured", message)
        return
    if blood.enhanced:
        return  # require_unenhanced judges it, and next to enhanced blood noise is no matter
    if blood.bright_hu >= WARNING_BLOOD_HU:
        yield ScanWarning(
            "blood-bright",
            f"The blood in the heart measures {blood.bright_hu:.0f} HU, more than unenhanced blood (30 to 60 HU).",
        )
    if blood.median_hu + NOISE_SDS * blood.noise_hu >= threshold_hu:
        yield ScanWarning(
            "noise",
            f"The noise is {blood.noise_hu:.0f} HU, so blood ({blood.median_hu:.0f} HU) reaches {threshold_hu:g} HU by "
            "chance: small lesions may be noise. A softer kernel or thicker slices reduce it.",
        )


def _without_contrast() -> str:
    return f"Score an unenhanced scan, or allow contrast ({UNUSUAL}) to score this one anyway."


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
    if is_heart:
        warnings += _suppressed_calcium(scored)
    warnings += (*_blank_beside(scored, heart.mask), *require_unenhanced(scored, blood, allow_contrast))
    if is_heart and (blood is None or not blood.enhanced):  # enhanced vessels look like bone
        warnings += [*tissue_doubts(scan.hu), *require_oriented(scored, heart.mask, allow_reversed)]
    return ImageQuality(blood, normalisation, tuple(warnings))


def _suppressed_calcium(scan: CTScan) -> Iterator[ScanWarning]:
    """Warn of a body without dense bone: calcium was suppressed in the images, or bone removed."""
    hu = scan.coarse_hu
    body_ml = np.count_nonzero(hu > BODY_HU) * GRID_MM**3 / 1000
    bone = np.count_nonzero(hu > DENSE_BONE_HU) * GRID_MM**3 / 1000 / max(1.0, body_ml)
    if body_ml >= MIN_BODY_ML and bone < MIN_BONE_SHARE:
        yield ScanWarning(
            "calcium-suppressed",
            f"{bone:.1%} of the body measures {DENSE_BONE_HU:g} HU or more, in patients 3 to 8 %: bone was removed or "
            "calcium suppressed in these images, such as virtual non-calcium ones.",
        )


def tissue_doubts(hu: np.ndarray) -> Iterator[ScanWarning]:
    """Warn of an unenhanced axial scan, [k, j, i], whose fat and muscle lie off their known values, or drift."""
    values = tissue_values(hu)
    if values is None or np.isnan(values).all(0).any():
        return
    fat, muscle = np.nanmedian(values, axis=0)
    low, high = TISSUE_SUM_HU
    if not low <= fat + muscle <= high:
        offset = (fat + muscle - (low + high) / 2) / 2
        cause = f"the values are shifted by about {offset:+.0f} HU, or the images are no usual CT."
        if is_phantom := is_extruded(hu):
            cause = "all slices show one cross-section, as of a phantom, whose plastics are no tissue."
        message = f"Fat measures {fat:.0f} HU and muscle {muscle:.0f} HU, in patients about −100 and 45 HU: {cause}"
        yield ScanWarning("tissue-off", message, severe=not is_phantom)
    changes = values[-1] - values[0]
    drift = 0.0 if np.isnan(changes).any() else changes.sum()
    if abs(drift) > MAX_DRIFT_HU and (changes * np.sign(drift)).min() > MIN_DRIFT_HU:
        yield ScanWarning(
            "tissue-drift",
            f"Fat changes by {changes[0]:+.0f} HU and muscle by {changes[1]:+.0f} HU from the lowest to the highest "
            "quarter of the scan: the values drift from slice to slice.",
        )


def _blank_beside(scan: CTScan, heart_mask: np.ndarray) -> tuple[ScanWarning, ...]:
    """Warn where the heart reaches blank slices at an end of the scan."""
    heart = np.flatnonzero(heart_mask.any((1, 2)))
    if not heart.size or not any(heart[0] - 1 <= k <= heart[-1] + 1 for k in blank_slices(scan.hu)[1]):
        return ()
    message = "The heart region reaches blank slices, so part of the heart is missing, and its calcium is not counted."
    return (ScanWarning("heart-cut", message),)
