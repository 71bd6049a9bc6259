"""What the scan is and what is wrong with it: the blood pool, noise, contrast, the body's width, how it was made.

DICOM tags are often absent (NIfTI has none) and sometimes wrong, so contrast and noise are measured in the heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import Acquisition, ContrastError, CTScan, MaskError, ScanWarning, same_grid

STANDARD_KVP = 120.0
"""The 130 HU threshold and the weights were defined at this tube voltage."""

MAX_THICKNESS_MM = 5.0
MAX_SPACING_MM = 5.0
"""Thicker or wider than this, small lesions fall below the threshold or between the slices."""

THRESHOLD_HU = 130.0
"""Agatston's threshold."""

NOISE_SDS = 3.0
"""Blood this many noise SDs below THRESHOLD_HU rarely reaches it (one voxel in 700). With unenhanced blood at 45 HU
this allows 28 HU of noise, above the 20 to 23 HU that McCollough 2007 prescribes (10.1148/radiol.2432050808, (2nd))."""

WARNING_BLOOD_HU = 90.0
"""Unenhanced blood has 30 to 60 HU, the tissue-like plastic of a thorax phantom up to 81."""

ENHANCED_BLOOD_HU = 110.0
"""No unenhanced blood comes within 20 HU, one usual noise SD, of THRESHOLD_HU; enhanced scans start at about 150."""

WINDOW_MM = 9.0
"""Side of the square windows in which blood and noise are measured: many voxels, and well inside a chamber."""

FAT_HU = -20.0
"""Windows with a lower median are mostly fat."""

NO_AGENT = frozenset({"", "0", "n", "no", "none", "no contrast", "without contrast", "not applied"})
"""What scanners write into ContrastBolusAgent when there was none."""


BODY_HU = -300.0
TABLE_OPENING_MM = 12.0


@dataclass(frozen=True)
class BloodPool:
    """Blood and noise, measured in homogeneous windows of the heart's upper half.

    median_hu: the usual value. bright_hu: the 90th percentile, which also rises when only some chambers are enhanced.
    noise_hu: SD within a window. windows: how many were measured.
    """

    median_hu: float
    bright_hu: float
    noise_hu: float
    windows: int

    @property
    def enhanced(self) -> bool:
        return self.bright_hu >= ENHANCED_BLOOD_HU


def examine(scan: CTScan, blood: BloodPool | None) -> tuple[ScanWarning, ...]:
    """Check what speaks against a reliable score: tube voltage, slices, contrast tag, bright blood, noise.

    Args:
        scan: The CT.
        blood: From `measure_blood`; None where it could not be measured, which is a warning of its own.

    Returns:
        A warning for each finding.
    """
    return _acquisition_warnings(scan.acquisition, scan.slice_spacing_mm) + _blood_warnings(blood)


def require_unenhanced(scan: CTScan, blood: BloodPool | None, allow_contrast: bool = False) -> tuple[ScanWarning, ...]:
    """Refuse scans made with contrast, which calcium scores do not allow: enhanced blood passes the threshold.

    The DICOM tag alone refuses as well, because it cannot be told from here whether the agent had yet arrived; the
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
        raise ContrastError(f"{finding} The scan was acquired with contrast. {_HOW_TO_ALLOW}")
    if agent and not allow_contrast:
        if blood is None:
            measured = "The blood could not be measured."
        else:
            measured = (
                f"The blood measures {blood.bright_hu:.0f} HU, as expected without contrast; the agent may have been "
                "oral, or given after this series."
            )
        raise ContrastError(f"The scan's DICOM tag names a contrast agent ({agent}). {measured} {_HOW_TO_ALLOW}")
    return ()


def named_agent(acquisition: Acquisition) -> str | None:
    """The contrast agent of the DICOM tag; None when the tag is absent or says there was none."""
    agent = (acquisition.contrast_agent or "").strip()
    return None if agent.lower() in NO_AGENT else agent


def measure_blood(scan: CTScan, heart_mask: sitk.Image) -> BloodPool | None:
    """Blood and noise in the upper half of the heart, where there is no liver in a generous mask and little muscle.

    Every slice is tiled with windows of WINDOW_MM. Used are those a window away from the mask's edge, with a median
    above fat, and no more varied than noise: so neither calcium nor chamber walls are in the measure.
    Returns None when the mask has room for no such window.

    Raises MaskError when the mask is on another grid than the scan.
    """
    if not same_grid(heart_mask, scan.image):
        raise MaskError("The heart mask is not on the scan's grid. Bring it there with mask_on_scan_grid first.")
    mask = sitk.GetArrayViewFromImage(heart_mask) != 0
    slices = np.nonzero(mask.any((1, 2)))[0]
    if not slices.size:
        return None
    upper = slice((slices[0] + slices[-1] + 1) // 2, slices[-1] + 1)
    windows = _windows_inside(scan, mask[upper], upper)
    if not len(windows):
        return None
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
    """The voxels [window, voxel], float32, of all windows in these slices of the mask that lie off its edge."""
    spacing_i, spacing_j, _ = scan.image.GetSpacing()
    height, width = max(3, round(WINDOW_MM / spacing_j)), max(3, round(WINDOW_MM / spacing_i))
    count_k, rows, columns = mask.shape
    tiles = count_k, rows // height, height, columns // width, width
    cut = (slice(None), slice(tiles[1] * height), slice(tiles[3] * width))
    whole = mask[cut].reshape(tiles).all((2, 4))
    inside = ndimage.binary_erosion(whole, np.ones((1, 3, 3)))
    chosen = inside if inside.any() else whole
    return scan.hu[slices][cut].reshape(tiles).swapaxes(2, 3)[chosen].reshape(-1, height * width).astype(np.float32)


def _acquisition_warnings(acquisition: Acquisition, spacing_mm: float) -> tuple[ScanWarning, ...]:
    warnings = []
    kvp, thickness_mm = acquisition.kvp, acquisition.slice_thickness_mm
    if kvp is None:
        message = "The tube voltage is unknown, but the score is valid at 120 kVp only."
        warnings.append(ScanWarning("kvp-unknown", message))
    elif abs(kvp - STANDARD_KVP) > 0.5:
        message = f"The scan was acquired at {kvp:g} kVp, but thresholds and weights are defined at 120 kVp."
        warnings.append(ScanWarning("not-120-kvp", message))
    if thickness_mm is None:
        message = (
            "The slice thickness is unknown (it does not follow from the slice spacing); thick slices can hide "
            "small lesions."
        )
        warnings.append(ScanWarning("thickness-unknown", message))
    elif thickness_mm > MAX_THICKNESS_MM:
        message = (
            f"The slices are {thickness_mm:g} mm thick, more than {MAX_THICKNESS_MM:g} mm, so small lesions may "
            "be missed."
        )
        warnings.append(ScanWarning("thick-slices", message))
    if spacing_mm > MAX_SPACING_MM + 0.01:
        message = (
            f"The slices are {spacing_mm:g} mm apart, more than {MAX_SPACING_MM:g} mm, so lesions between them may "
            "be missed."
        )
        warnings.append(ScanWarning("wide-spacing", message))
    if thickness_mm is not None and spacing_mm > 1.02 * thickness_mm:
        gap_mm = spacing_mm - thickness_mm
        message = (
            f"There are gaps of {gap_mm:.1f} mm between the slices, so lesions may be missed. Check whether every "
            "second slice is missing."
        )
        warnings.append(ScanWarning("slice-gaps", message))
    agent = named_agent(acquisition)
    if agent:
        warnings.append(ScanWarning("contrast-tag", f"The scan's DICOM tag names a contrast agent ({agent})."))
    return tuple(warnings)


def _blood_warnings(blood: BloodPool | None) -> tuple[ScanWarning, ...]:
    if blood is None:
        message = "The blood in the heart could not be measured, so contrast and noise were not checked."
        return (ScanWarning("blood-unmeasured", message),)
    if blood.enhanced:
        return ()  # require_unenhanced judges it, and next to enhanced blood noise is no matter
    warnings = []
    if blood.bright_hu >= WARNING_BLOOD_HU:
        message = f"The blood in the heart measures {blood.bright_hu:.0f} HU, more than unenhanced blood (30 to 60 HU)."
        warnings.append(ScanWarning("blood-bright", message))
    if blood.median_hu + NOISE_SDS * blood.noise_hu >= THRESHOLD_HU:
        message = (
            f"The noise is {blood.noise_hu:.0f} HU, so blood ({blood.median_hu:.0f} HU) reaches {THRESHOLD_HU:g} HU by "
            "chance: small lesions may be noise. A softer kernel or thicker slices reduce it."
        )
        warnings.append(ScanWarning("noise", message))
    return tuple(warnings)


def lateral_width_cm(scan: CTScan, heart_mask: sitk.Image) -> float | None:
    """Width of the body from left to right in the heart's middle slice, arms included where they touch it.

    None where the field of view cuts the body off: at the image's sides, or at the edge of a circle that is padded
    outside.
    """
    slices = np.flatnonzero(sitk.GetArrayViewFromImage(heart_mask).any((1, 2)))
    if not slices.size:
        return None
    k = int(slices[slices.size // 2])
    spacing_i, spacing_j, _ = scan.image.GetSpacing()
    hu = scan.hu[k]
    radius = (max(1, round(TABLE_OPENING_MM / 2 / spacing_j)), max(1, round(TABLE_OPENING_MM / 2 / spacing_i)))
    tissue = sitk.BinaryMorphologicalOpening(sitk.GetImageFromArray((hu > BODY_HU).astype(np.uint8)), radius[::-1])
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(tissue), sortByObjectSize=True)
    body = sitk.GetArrayViewFromImage(parts) == 1
    columns = np.flatnonzero(body.any(0))
    if not columns.size:
        return None
    if columns[0] == 0 or columns[-1] == body.shape[1] - 1 or _cut_by_circle(hu, body):
        return None
    return float((columns[-1] - columns[0] + 1) * spacing_i / 10)


def _cut_by_circle(hu: np.ndarray, body: np.ndarray) -> bool:
    """Whether a body [j, i] reaches the edge of the circle inside which a padded image was reconstructed."""
    corners = hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    if np.ptp(corners) > 0 or corners[0] > -900:
        return False
    j, i = np.nonzero(body)
    middle_j, middle_i = (n / 2 - 0.5 for n in hu.shape)
    reach = np.hypot((j - middle_j) / (hu.shape[0] / 2), (i - middle_i) / (hu.shape[1] / 2))
    return bool(reach.max() > 0.98)


_HOW_TO_ALLOW = "Score an unenhanced scan, or allow contrast (--allow-unusual) to score this one anyway."
