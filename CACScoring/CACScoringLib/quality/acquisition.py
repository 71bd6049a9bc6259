"""Acquisition of a scan, and doubts about its score: contrast, noise, tube voltage, pixels and slices.

DICOM tags are often absent (NIfTI has none) and sometimes wrong, so contrast and noise are measured in the heart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from scipy import ndimage

from ..anatomy.heart_region import AROUND_LESIONS, HeartRegion
from ..core.acquisition import Acquisition, agent_named
from ..core.ct import CTScan, ScanWarning
from ..core.errors import ContrastError
from ..core.grid import GRID_MM, bounding_box
from ..core.slices import (
    BODY_HU,
    MIN_DRIFT_HU,
    blank_slices,
    is_extruded,
    tissue_values,
)
from ..core.text import UNUSUAL
from ..core.warning_codes import Check, checks, warnings_of
from ..record.findings import BloodPool, Normalisation
from .normalisation import NORMALISATION_CHECKS
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
"""Age from which vertebrae are as large as in checks.csv; if it is unknown, largest distance and width of children's
vertebrae, and least ratio of the two."""

Vertebrae = tuple[float | None, float | None, int | None]
"""Distance and width of vertebrae, mm, and the patient's age, years."""

Tissue = tuple[np.ndarray, np.ndarray | None]
"""A scan [k, j, i], and the values of fat and muscle in its quarters; None in a drawing."""

USUAL_FAT_HU, USUAL_MUSCLE_HU = -102.0, 42.0
"""Usual commonest values of fat, and of muscle, blood and liver: medians of 22 scans."""


@dataclass(frozen=True)
class _Measured:
    """A scan, its blood pool (None if it could not be measured), the threshold of its rules and the heart's mask."""

    scan: CTScan
    blood: BloodPool | None
    threshold_hu: float
    heart: np.ndarray | None = None

    @property
    def unenhanced(self) -> BloodPool | None:
        """Blood to judge: require_unenhanced judges enhanced blood, next to which noise is no matter."""
        return None if self.blood is None or self.blood.enhanced else self.blood


def examine(scan: CTScan, blood: BloodPool | None, threshold_hu: float = THRESHOLD_HU) -> tuple[ScanWarning, ...]:
    """Check what speaks against a reliable score: tube voltage, slices, contrast tag, bright blood, noise.

    Args:
        scan: The CT.
        blood: From `measure_blood`; None where it could not be measured, which is a warning of its own.
        threshold_hu: Of the rules that the scan is scored by.

    Returns:
        A warning for each finding.
    """
    return tuple(warnings_of(ACQUISITION_CHECKS, _Measured(scan, blood, threshold_hu)))


def _voltage(measured: _Measured) -> dict[str, Any]:
    acquisition, kvp = measured.scan.acquisition, measured.scan.acquisition.calcium_kvp
    effect = "thresholds and weights are defined at 120 kVp"
    if measured.threshold_hu != THRESHOLD_HU:
        effect = f"the threshold is {measured.threshold_hu:g} HU instead of {THRESHOLD_HU:g} HU"
    is_other = kvp is not None and not acquisition.has_tin_filter
    return {"value": abs(kvp - STANDARD_KVP) if is_other and kvp is not None else None, "kvp": kvp, "effect": effect}


def _gaps(measured: _Measured) -> dict[str, float | None]:
    thickness_mm, spacing_mm = measured.scan.acquisition.slice_thickness_mm, measured.scan.slice_spacing_mm
    if thickness_mm is None:
        return {"value": None}
    return {"value": spacing_mm / thickness_mm, "gap": spacing_mm - thickness_mm}


def _agent(measured: _Measured) -> dict[str, Any]:
    agent, blood = named_agent(measured.scan.acquisition), measured.unenhanced
    finding = "" if blood is None else f", but the blood measures {blood.bright_hu:.0f} HU, as without contrast"
    return {"value": int(agent is not None), "agent": agent, "finding": finding}


def _pixels(measured: _Measured) -> dict[str, float]:
    spacing_mm = measured.scan.image.GetSpacing()
    return {"value": max(spacing_mm[:2]), "across": spacing_mm[0], "down": spacing_mm[1]}


def _noise(measured: _Measured) -> dict[str, float | None]:
    blood = measured.unenhanced
    if blood is None:
        return {"value": None}
    reach_hu = blood.median_hu + NOISE_SDS * blood.noise_hu - measured.threshold_hu
    return {"value": reach_hu, "noise": blood.noise_hu, "blood": blood.median_hu, "threshold": measured.threshold_hu}


ACQUISITION_CHECKS = checks(
    "acquisition",
    tin=lambda measured: measured.scan.acquisition.has_tin_filter,
    no_voltage=lambda measured: measured.scan.acquisition.calcium_kvp is None,
    voltage=_voltage,
    no_thickness=lambda measured: measured.scan.acquisition.slice_thickness_mm is None,
    thickness=lambda measured: measured.scan.acquisition.slice_thickness_mm,
    pixels=_pixels,
    spacing=lambda measured: measured.scan.slice_spacing_mm,
    gaps=_gaps,
    agent=_agent,
    no_blood=lambda measured: measured.blood is None,
    blood=lambda measured: None if measured.unenhanced is None else measured.unenhanced.bright_hu,
    noise=_noise,
)


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
    blood = measure_blood(scored, heart.mask) if is_heart else None
    if blood and normalisation.changes and (before := measure_blood(scan, heart.mask)):
        normalisation = replace(normalisation, noise_hu=before.noise_hu)
    measured = _Measured(scored, blood, threshold_hu, heart.mask)
    checked: list[tuple[tuple[Check[Any], ...], Any]] = [(NORMALISATION_CHECKS, normalisation)]
    checked += [(ACQUISITION_CHECKS, measured), (HEART_CHECKS, measured)]
    doubts = require_unenhanced(scored, blood, allow_contrast)
    if is_heart:
        checked.append((BODY_CHECKS, measured))
    if is_heart and (blood is None or not blood.enhanced):  # enhanced vessels look like bone
        checked += [(TISSUE_CHECKS, (scan.hu, tissue_values(scan.hu))), (NOISE_CHECKS, replace(measured, scan=scan))]
        checked.append((SPINE_CHECKS, (*vertebrae(scan, heart.mask), scan.acquisition.patient_age_years)))
        doubts += require_oriented(scored, heart.mask, allow_reversed)
    warnings = [warning for table, subject in checked for warning in warnings_of(table, subject)]
    return ImageQuality(blood, normalisation, (*warnings, *doubts))


def _bone_share(measured: _Measured) -> float | None:
    hu = measured.scan.coarse_hu
    body_ml = np.count_nonzero(hu > BODY_HU) * GRID_MM**3 / 1000
    bone_ml = np.count_nonzero(hu > DENSE_BONE_HU) * GRID_MM**3 / 1000
    return bone_ml / body_ml if body_ml >= MIN_BODY_ML else None


def _different_sides(measured: _Measured) -> dict[str, Any]:
    """Return the least ratio of two sides of a voxel: scanners' pixels are square, in whatever plane."""
    sides = sorted(measured.scan.image.GetSpacing())
    ratio = min(after / before for before, after in pairwise(sides))
    return {"value": ratio, "sides": " × ".join(f"{side:.3g}" for side in measured.scan.image.GetSpacing())}


def _blank_beside(measured: _Measured) -> int:
    heart = np.flatnonzero(measured.heart.any((1, 2))) if measured.heart is not None else np.zeros(0)
    return heart.size and sum(heart[0] - 1 <= k <= heart[-1] + 1 for k in blank_slices(measured.scan.hu)[1])


HEART_CHECKS = checks("heart", blank=_blank_beside)
BODY_CHECKS = checks("body", bone=_bone_share, sides=_different_sides)


def _shift(tissue: Tissue) -> dict[str, Any]:
    """Return the shift that fat and muscle share."""
    hu, values = tissue
    if values is None or np.isnan(values).all(0).any():
        return {"value": None}
    fat, muscle = np.nanmedian(values, axis=0)
    offsets = fat - USUAL_FAT_HU, muscle - USUAL_MUSCLE_HU
    # Fat alone is off in lean people, in whom it is thin and mixes with muscle.
    shared = min(offsets, key=abs) if offsets[0] * offsets[1] > 0 else 0.0
    cause = f"the values are shifted by about {sum(offsets) / 2:+.0f} HU, or the images are no usual CT"
    if is_phantom := shared and is_extruded(hu):
        cause = "all slices show one cross-section, as of a phantom, whose plastics are no tissue"
    return {
        "value": shared,
        "fat": fat,
        "muscle": muscle,
        "cause": cause,
        "severe": None if not is_phantom else False,
    }


def _drift(tissue: Tissue) -> dict[str, float | None]:
    """Return the largest change between two quarters that fat and muscle share."""
    _, values = tissue
    if values is None:
        return {"value": None}
    findings: list[dict[str, float | None]] = [{"value": 0.0}]
    for first, last in combinations(range(len(values)), 2):
        fat, muscle = changes = values[last] - values[first]
        if (changes * np.sign(changes.sum())).min() > MIN_DRIFT_HU:
            places = {"first": first + 1, "last": last + 1}
            findings.append({"value": abs(changes.sum()), "fat": fat, "muscle": muscle, **places})
    return max(findings, key=lambda finding: finding["value"] or 0.0)


TISSUE_CHECKS = checks("tissue", shift=_shift, drift=_drift)


def _noise_ratio(measured: _Measured) -> float | None:
    """Return the ratio of the strongest to the median noise of soft tissue in windows within the heart."""
    heart, scan = measured.heart, measured.scan
    assert heart is not None
    mm, box = scan.image.GetSpacing(), bounding_box(heart)
    if max(mm[:2]) > MAX_NOISE_PIXEL_MM:
        return None
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
    return float(np.percentile(noise, 99.5)) / usual if usual else None


NOISE_CHECKS = checks("noise", ratio=_noise_ratio)


def _vertebral(quantity: Callable[[float | None, float | None], float | None]) -> Callable[[Vertebrae], dict[str, Any]]:
    """Return a quantity of the distance and width of vertebrae, which warns of no child's severely."""

    def measure(vertebrae: Vertebrae) -> dict[str, Any]:
        pitch_mm, width_mm, age_years = vertebrae
        is_small = max(pitch_mm or np.inf, width_mm or np.inf) < MAX_CHILD_MM
        has_shape = is_small and (pitch_mm or 0.0) > MIN_CHILD_RATIO * (width_mm or 0.0)
        is_child = has_shape if age_years is None else age_years < ADULT_YEARS
        return {"value": quantity(pitch_mm, width_mm), "severe": False if is_child else None}

    return measure


SPINE_CHECKS = checks(
    "spine",
    pitch=_vertebral(lambda pitch_mm, _: pitch_mm),
    width=_vertebral(lambda _, width_mm: width_mm),
    ratio=_vertebral(lambda pitch_mm, width_mm: pitch_mm / width_mm if pitch_mm and width_mm else None),
)
