"""Agatston score, volume, mass and pseudo-mass: numbers from lesions.

The calcium map has no threshold, so sums over it are no Agatston scores. But the clinical score of a plaque follows
from its mass (`equivalent_agatston`), in a soft kernel, slices of 3 mm and 120 kVp: large ones score in proportion,
small ones lose to partial volume what stays below 130 HU. The curve is that of digital plaques, each imaged alone
without noise or motion in soft tissue (179 plaques of 0.2 to 45 mg and 170 to 950 mg/cm³). Of plaques of one mass the
dense ones score higher: from 4 to 16 mg, half or twice as much is common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ..core.labels import Artery, NonCoronary
from .lesions import Lesion, ScoringRules, SliceComponent
from .mass import calcium_hu_per_mg_cm3

AnySite = TypeVar("AnySite", Artery, NonCoronary)

AGATSTON_PER_MG = 4.2
HALF_MG, STEEPNESS = 7.0, 2.4
"""A plaque of this mass loses half of its score to partial volume, and how fast that changes with mass."""


@dataclass(frozen=True)
class Score:
    """Scores of one lesion, one artery or a whole scan.

    agatston: Σ area (mm²) × weight over slice components × slice spacing / 3 mm. clinical_agatston: the same by the
    clinical rule; of a calcium map, which has no threshold, the equivalent of its lesions' masses (`rules_of_map`).
    volume_mm3: voxels × voxel volume.
    mass_mg: c × volume × mean HU (McCollough 2007, doi:10.1148/radiol.2432050808); None without calibration.
    pseudo_mass_hu_mm3: Σ HU × voxel volume (van Velzen: generative models for reproducible calcium scoring).
    lesions: how many. peak_hu: highest voxel, None without a lesion.
    """

    agatston: float = 0.0
    volume_mm3: float = 0.0
    mass_mg: float | None = None
    pseudo_mass_hu_mm3: float = 0.0
    lesions: int = 0
    peak_hu: float | None = None
    clinical_agatston: float = 0.0


def component_agatston(component: SliceComponent, slice_spacing_mm: float, rules: ScoringRules) -> float:
    """Contribution of one slice component to the Agatston score (Agatston 1990, doi:10.1016/0735-1097(90)90282-T)."""
    return component.area_mm2 * component.weight * slice_spacing_mm / rules.reference_spacing_mm


def score_lesions(lesions: Iterable[Lesion], spacing_mm: tuple[float, float, float], rules: ScoringRules) -> Score:
    """Add up lesions.

    Args:
        lesions: The lesions.
        spacing_mm: Voxel spacing (i, j, k) of the image the lesions were found in; the slice *spacing* enters, not the
            slice thickness, so that overlapping slices do not count twice.
        rules: Those the lesions were found with.
    """
    lesions = list(lesions)
    voxel_volume = math.prod(spacing_mm)
    components = [c for lesion in lesions for c in lesion.components]
    pseudo_mass = sum(c.sum_hu for c in components) * voxel_volume
    calibration, equivalent = rules.calibration_mg_per_mm3_hu, rules.equivalent_mg_per_mm3_hu
    agatston = clinical = float(sum(component_agatston(c, spacing_mm[2], rules) for c in components))
    if equivalent is not None:
        masses = [equivalent * voxel_volume * sum(c.sum_hu for c in lesion.components) for lesion in lesions]
        clinical = float(sum(map(equivalent_agatston, masses)))
    return Score(
        agatston=agatston,
        clinical_agatston=clinical,
        volume_mm3=float(sum(c.voxels for c in components) * voxel_volume),
        mass_mg=None if calibration is None else float(calibration * pseudo_mass),
        pseudo_mass_hu_mm3=float(pseudo_mass),
        lesions=len(lesions),
        peak_hu=max((lesion.peak_hu for lesion in lesions), default=None),
    )


def score_sites(
    lesions: Iterable[Lesion],
    spacing_mm: tuple[float, float, float],
    rules: ScoringRules,
    sites: type[AnySite] = Artery,  # type: ignore[assignment]
) -> dict[AnySite, Score]:
    """Scores of every artery, or of every site beside them, those without calcium included."""
    lesions = list(lesions)
    return {s: score_lesions((x for x in lesions if x.artery == s), spacing_mm, rules) for s in sites}


def equivalent_agatston(mass_mg: float | np.ndarray) -> float | np.ndarray:
    """Agatston score of one plaque, by its mass in mg of hydroxyapatite."""
    mass = np.maximum(mass_mg, 0.0)
    powered = mass**STEEPNESS
    return AGATSTON_PER_MG * mass * powered / (powered + HALF_MG**STEEPNESS)


def usual_calibration(kvp: float | None) -> float:
    """Mass calibration in mg/(mm³·HU) of a scan without one of its own: by its tube voltage, 120 kVp where that is
    unknown or beyond what is known."""
    known = kvp is not None and 70.0 <= kvp <= 140.0
    return 1 / (1000 * calcium_hu_per_mg_cm3(kvp if known and kvp is not None else 120.0))


def rules_of_map(rules: ScoringRules, floor_hu: float, kvp: float | None) -> ScoringRules:
    """The rules by which lesions of the calcium map are scored, from those of the clinical score.

    Weights are read from the CT, because their bounds are HU of tissue and not of what the calcium adds to it: so the
    score equals the conventional one where the map is what a 130 HU threshold segments. The clinical score follows
    from each lesion's mass, by the scan's calibration or the usual one of its tube voltage.

    Args:
        rules: Of the clinical score.
        floor_hu: Lowest HU of the map.
        kvp: Tube voltage; None where unknown.
    """
    return replace(
        rules,
        name=f"Adjusted Agatston of the calcium map (van Velzen), otherwise: {rules.name}",
        threshold_hu=floor_hu,
        equivalent_mg_per_mm3_hu=rules.calibration_mg_per_mm3_hu or usual_calibration(kvp),
    )
