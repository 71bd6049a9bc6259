"""Acquisition of a scan, and doubts about its score: contrast, noise, tube voltage, pixels and slices.

DICOM tags are often absent (NIfTI has none) and sometimes wrong, so contrast and noise are measured in the heart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
from scipy import ndimage

from ..anatomy.heart_region import AROUND_LESIONS, HeartRegion
from ..core.acquisition import Acquisition, agent_named
from ..core.ct import CTScan, ScanWarning
from ..core.errors import ContrastError
from ..core.grid import GRID_MM, bounding_box
from ..core.slice_checks import (
    BODY_HU,
    MIN_DRIFT_HU,
    blank_slices,
    is_extruded,
    tissue_values,
)
from ..core.text import UNUSUAL
from ..core.warning_codes import run_check
from ..record.findings import BloodPool, Normalisation
from .normalisation import normalisation_warnings
from .orientation import require_oriented
from .spine import vertebrae

STANDARD_KVP = 120.0
"""The 130 HU threshold and the weights were defined at this tube voltage."""

THRESHOLD_HU = 130.0
"""Agatston's threshold."""

NOISE_SDS = 3.0
"""Blood this many noise SDs below THRESHOLD_HU rarely reaches it (one voxel in 700). With unenhanced blood at 45 HU
this allows 28 HU of noise, above the 20 to 23 HU that McCollough 2007 prescribes (10.1148/radiol.2432050808, (2nd))."""

WINDOW_MM = 9.0
"""Side of the square windows in which blood and noise are measured: many voxels, and well inside a chamber."""

FAT_HU = -20.0
"""Windows with a lower median are mostly fat."""

DENSE_BONE_HU, MIN_BODY_ML = 200.0, 3000.0
"""HU of bone on the working grid, and least volume of a body in view."""

SOFT_HU, NOISE_SLICES_MM, NOISE_WINDOW_MM = (-150.0, 250.0), 3.0, (6.0, 12.0, 12.0)
"""Soft tissue whose noise is compared, distance of the slices that are measured, and windows along k, j, i."""

MAX_NOISE_PIXEL_MM = 1.5
"""Largest pixels; of larger ones a window holds too few."""

ADULT_YEARS, MAX_CHILD_MM, MIN_CHILD_RATIO = 16, 20.0, 0.85
"""Age from which vertebrae have the size of adults'; if it is unknown, largest distance and width of children's
vertebrae, and least ratio of the two."""

USUAL_FAT_HU, USUAL_MUSCLE_HU = -102.0, 42.0
"""Usual commonest values of fat, and of muscle, blood and liver: medians of 22 scans."""


def examine(scan: CTScan, blood: BloodPool | None, threshold_hu: float = THRESHOLD_HU) -> tuple[ScanWarning, ...]:
    """Check what speaks against a reliable score: tube voltage, slices, contrast tag, bright blood, noise.

    Args:
        scan: The CT.
        blood: From `measure_blood`; None where it could not be measured, which is a warning of its own.
        threshold_hu: Of the rules that the scan is scored by.

    Returns:
        A warning for each finding.
    """
    return (
        *_voltage_warnings(scan.acquisition, threshold_hu),
        *_size_warnings(scan),
        *_blood_warnings(scan.acquisition, blood, threshold_hu),
    )


def _voltage_warnings(acquisition: Acquisition, threshold_hu: float) -> list[ScanWarning]:
    """Check filter and tube voltage, which the threshold is defined for."""
    if acquisition.has_tin_filter:
        message = (
            "The scan was acquired with a tin filter, for which no thresholds are published. Those of 120 kVp (130 HU) "
            "apply; the score is probably lower than without the filter."
        )
        return [ScanWarning("tin-filter", message)]
    warnings = []
    if mix := acquisition.energy_mix:
        message = (
            f"The images mix two tube voltages ({mix} in the series description), so their values are about those of "
            "120 kVp, whose thresholds apply."
        )
        warnings.append(ScanWarning("energies-mixed", message))
    kvp = acquisition.calcium_kvp
    if kvp is None:
        message = "The tube voltage is unknown, but the score is valid at 120 kVp only."
        return [*warnings, ScanWarning("kvp-unknown", message)]
    effect = "thresholds and weights are defined at 120 kVp"
    if threshold_hu != THRESHOLD_HU:
        effect = f"the threshold is {threshold_hu:g} HU instead of {THRESHOLD_HU:g} HU"
    return warnings + run_check("not-120-kvp", abs(kvp - STANDARD_KVP), kvp=kvp, effect=effect)


def _size_warnings(scan: CTScan) -> list[ScanWarning]:
    """Check thickness and distance of slices, and pixels."""
    thickness_mm, spacing_mm = scan.acquisition.slice_thickness_mm, scan.slice_spacing_mm
    across_mm, down_mm = scan.image.GetSpacing()[:2]
    warnings = run_check("thick-slices", thickness_mm)
    if thickness_mm is None:
        message = (
            "The slice thickness is unknown (it does not follow from the slice spacing); thick slices can hide small "
            "lesions."
        )
        warnings = [ScanWarning("thickness-unknown", message)]
    warnings += run_check("coarse-pixels", max(across_mm, down_mm), across=across_mm, down=down_mm)
    warnings += run_check("wide-spacing", spacing_mm)
    if thickness_mm is not None:
        warnings += run_check("slice-gaps spacing", spacing_mm / thickness_mm, gap=spacing_mm - thickness_mm)
    return warnings


def _blood_warnings(acquisition: Acquisition, blood: BloodPool | None, threshold_hu: float) -> list[ScanWarning]:
    """Check for a contrast agent and noise; `require_unenhanced` judges enhanced blood."""
    warnings = []
    usual = None if blood is None or blood.enhanced else blood
    if agent := named_agent(acquisition):
        finding = f", but the blood measures {usual.bright_hu:.0f} HU, as without contrast" if usual else ""
        message = f"The scan's DICOM tag names a contrast agent ({agent}){finding}."
        warnings.append(ScanWarning("contrast-tag", message))
    if blood is None:
        message = "The blood in the heart could not be measured, so contrast and noise were not checked."
        warnings.append(ScanWarning("blood-unmeasured", message))
    elif not blood.enhanced:
        warnings += run_check("blood-bright", blood.bright_hu)
        if blood.median_hu + NOISE_SDS * blood.noise_hu >= threshold_hu:
            message = (
                f"The noise is {blood.noise_hu:.0f} HU, so blood ({blood.median_hu:.0f} HU) reaches {threshold_hu:g} "
                "HU by chance: small lesions may be noise. A softer kernel or thicker slices reduce it."
            )
            warnings.append(ScanWarning("noise", message))
    return warnings


def require_unenhanced(scan: CTScan, blood: BloodPool | None, allow_contrast: bool = False) -> tuple[ScanWarning, ...]:
    """Refuse scans made with contrast, which calcium scores do not allow: enhanced blood passes the threshold.

    The blood decides. A DICOM tag that names an agent refuses only where the blood could not be measured; elsewhere it
    is a warning (`examine`), because the agent may have been oral, or given after this series.

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
    if agent and blood is None and not allow_contrast:
        finding = f"The scan's DICOM tag names a contrast agent ({agent}), and the blood could not be measured."
        raise ContrastError(f"{finding} {_without_contrast()}")
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
    """Return the voxels [window, voxel], float32, of the windows in these slices of the mask that lie off its edge.

    Windows begin at the mask's first row and column, so that air around the scan moves none.
    """
    spacing_i, spacing_j, _ = scan.image.GetSpacing()
    height, width = max(3, round(WINDOW_MM / spacing_j)), max(3, round(WINDOW_MM / spacing_i))
    _, first_row, first_column = (side.start for side in bounding_box(mask))
    count_k, rows, columns = mask[:, first_row:, first_column:].shape
    tiles = count_k, rows // height, height, columns // width, width
    cut = (
        slice(None),
        slice(first_row, first_row + tiles[1] * height),
        slice(first_column, first_column + tiles[3] * width),
    )
    is_full = mask[cut].reshape(tiles).all((2, 4))
    inside = ndimage.binary_erosion(is_full, np.ones((1, 3, 3)))
    is_measured = inside if inside.any() else is_full
    return (
        scan.hu[slices][cut].reshape(tiles).swapaxes(2, 3)[is_measured].reshape(-1, height * width).astype(np.float32)
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
    # A mask that misses the heart may lie on bone, which measures as enhanced blood does.
    has_blood = is_heart and "mask-doubtful" not in {warning.code for warning in heart.warnings}
    blood = measure_blood(scored, heart.mask) if has_blood else None
    if blood and normalisation.changes and (before := measure_blood(scan, heart.mask)):
        normalisation = replace(normalisation, noise_hu=before.noise_hu)
    doubts = require_unenhanced(scored, blood, allow_contrast)
    warnings = [*normalisation_warnings(normalisation), *examine(scored, blood, threshold_hu)]
    if _is_beside_blank(scored, heart.mask):
        message = (
            "The heart region reaches blank slices, so part of the heart is missing, and its calcium is not counted."
        )
        warnings.append(ScanWarning("heart-cut", message))
    if is_heart:
        warnings += body_warnings(scored)
    if is_heart and (blood is None or not blood.enhanced):  # enhanced vessels look like bone
        warnings += tissue_warnings(scan.hu, tissue_values(scan.hu))
        warnings += uneven_noise_warnings(scan, heart.mask)
        warnings += spine_warnings(*vertebrae(scan, heart.mask), scan.acquisition.patient_age_years)
        doubts += require_oriented(scored, heart.mask, allow_reversed)
    return ImageQuality(blood, normalisation, (*warnings, *doubts))


def body_warnings(scan: CTScan) -> list[ScanWarning]:
    """Check the share of bone in the body, and that two sides of a voxel are equal, as of all scanners' pixels."""
    sides_mm = scan.image.GetSpacing()
    ratio = min(after / before for before, after in pairwise(sorted(sides_mm)))
    text = " × ".join(f"{side:.3g}" for side in sides_mm)
    return [
        *run_check("calcium-suppressed", _bone_share(scan)),
        *run_check("geometry-implausible sides", ratio, sides=text),
    ]


def _bone_share(scan: CTScan) -> float | None:
    body_ml = np.count_nonzero(scan.coarse_hu > BODY_HU) * GRID_MM**3 / 1000
    bone_ml = np.count_nonzero(scan.coarse_hu > DENSE_BONE_HU) * GRID_MM**3 / 1000
    return bone_ml / body_ml if body_ml >= MIN_BODY_ML else None


def _is_beside_blank(scan: CTScan, heart: np.ndarray) -> bool:
    places = np.flatnonzero(heart.any((1, 2)))
    return places.size > 0 and any(places[0] - 1 <= k <= places[-1] + 1 for k in blank_slices(scan.hu)[1])


def tissue_warnings(hu: np.ndarray, values: np.ndarray | None) -> list[ScanWarning]:
    """Check the values of fat and muscle.

    Args:
        hu: A scan, [k, j, i].
        values: Its `tissue_values`; None in a drawing.
    """
    if values is None:
        return []
    warnings = []
    if not np.isnan(values).all(0).any():
        fat, muscle = np.nanmedian(values, axis=0)
        offsets = fat - USUAL_FAT_HU, muscle - USUAL_MUSCLE_HU
        # Fat alone is off in lean people, in whom it is thin and mixes with muscle.
        shared = min(offsets, key=abs) if offsets[0] * offsets[1] > 0 else 0.0
        cause = f"the values are shifted by about {sum(offsets) / 2:+.0f} HU, or the images are no usual CT"
        is_phantom = bool(shared) and is_extruded(hu)
        if is_phantom:
            cause = "all slices show one cross-section, as of a phantom, whose plastics are no tissue"
        warnings = run_check("tissue-off", shared, fat=fat, muscle=muscle, cause=cause)
        if is_phantom:
            warnings = [replace(warning, severe=False) for warning in warnings]
    return warnings + run_check("tissue-drift", **_drift(values))


def _drift(values: np.ndarray) -> dict[str, float]:
    """Return the largest change between two quarters that fat and muscle share: facts of the check of drift."""
    findings: list[dict[str, float]] = [{"value": 0.0}]
    for first, last in combinations(range(len(values)), 2):
        fat, muscle = changes = values[last] - values[first]
        if (changes * np.sign(changes.sum())).min() > MIN_DRIFT_HU:
            places = {"first": first + 1, "last": last + 1}
            findings.append({"value": abs(changes.sum()), "fat_change": fat, "muscle_change": muscle, **places})
    return max(findings, key=lambda finding: finding["value"])


def uneven_noise_warnings(scan: CTScan, heart: np.ndarray) -> list[ScanWarning]:
    """Compare the strongest with the median noise of soft tissue in windows within the heart.

    heart: Mask on the scan's grid, bool [k, j, i].
    """
    mm, box = scan.image.GetSpacing(), bounding_box(heart)
    if max(mm[:2]) > MAX_NOISE_PIXEL_MM:
        return []
    step = max(1, round(NOISE_SLICES_MM / mm[2]))
    box = (slice(box[0].start, box[0].stop, step), *box[1:])
    hu = scan.hu[box].astype(np.float32)
    is_soft = (ndimage.grey_erosion(hu, (1, 3, 3)) > SOFT_HU[0]) & (ndimage.grey_dilation(hu, (1, 3, 3)) < SOFT_HU[1])
    is_soft &= heart[box]
    fine = np.stack([ndimage.laplace(plane) for plane in hu])
    window = [
        max(1, round(size / side)) for size, side in zip(NOISE_WINDOW_MM, (step * mm[2], *mm[1::-1]), strict=True)
    ]
    share = ndimage.uniform_filter(is_soft.astype(np.float32), window)
    power = ndimage.uniform_filter(np.where(is_soft, fine**2, 0), window)
    noise = np.sqrt(np.maximum(power[share > 0.5], 0) / share[share > 0.5])
    usual = float(np.median(noise)) if noise.size else 0.0
    return run_check("noise-uneven", float(np.percentile(noise, 99.5)) / usual if usual else None)


def spine_warnings(pitch_mm: float | None, width_mm: float | None, age_years: int | None) -> list[ScanWarning]:
    """Check the distance and width of vertebrae.

    A severe warning needs both in an adult; one alone may be measured wrongly.
    """
    is_small = max(pitch_mm or np.inf, width_mm or np.inf) < MAX_CHILD_MM
    has_shape = is_small and (pitch_mm or 0.0) > MIN_CHILD_RATIO * (width_mm or 0.0)
    is_child = has_shape if age_years is None else age_years < ADULT_YEARS
    warnings = _vertebra_warnings(pitch_mm, width_mm, is_certain=True)
    if is_child or len(warnings) < 2:
        warnings = _vertebra_warnings(pitch_mm, width_mm, is_certain=False)
    return warnings or run_check("spacings-unusual", pitch_mm / width_mm if pitch_mm and width_mm else None)


def _vertebra_warnings(pitch_mm: float | None, width_mm: float | None, is_certain: bool) -> list[ScanWarning]:
    if is_certain:
        of_pitch, of_width = "is wrong, and so is the score", "is wrong, and so are areas and scores"
    else:
        of_pitch, of_width = "may be wrong, and so may the score", "may be wrong, and so may areas and scores"
    warnings = run_check("geometry-implausible pitch", pitch_mm, verdict=of_pitch)
    warnings += run_check("geometry-implausible width", width_mm, verdict=of_width)
    return [replace(warning, severe=is_certain) for warning in warnings]
