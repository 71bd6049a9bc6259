"""Agatston score, volume, mass and pseudo-mass: numbers from lesions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import SimpleITK as sitk

from ..core.ct import CTError, MaskError
from ..core.labels import Artery, NonCoronary
from .equivalent import equivalent_agatston
from .lesions import Lesion, ScoringRules, SliceComponent


@dataclass(frozen=True)
class Score:
    """Scores of one lesion, one artery or a whole scan.

    agatston: Σ area (mm²) × weight over slice components × slice spacing / 3 mm. clinical_agatston: the same by the
    clinical rule; of a calcium map, which has no threshold, the equivalent of its lesions' masses (`equivalent`).
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


def score_arteries(
    lesions: Iterable[Lesion], spacing_mm: tuple[float, float, float], rules: ScoringRules
) -> dict[Artery, Score]:
    """Scores of every artery, those without calcium included."""
    lesions = list(lesions)
    return {a: score_lesions((x for x in lesions if x.artery == a), spacing_mm, rules) for a in Artery}


def score_non_coronary(
    lesions: Iterable[Lesion], spacing_mm: tuple[float, float, float], rules: ScoringRules
) -> dict[NonCoronary, Score]:
    """Scores of every site beside the arteries, those without calcium included."""
    lesions = list(lesions)
    return {s: score_lesions((x for x in lesions if x.artery == s), spacing_mm, rules) for s in NonCoronary}


def calibration_from_insert(
    image: sitk.Image, insert: sitk.Image, density_mg_per_cm3: float, water_hu: float = 0.0
) -> float:
    """Mass calibration c from a phantom insert of known hydroxyapatite density.

    c = ρ / (HU_insert − HU_water), with ρ in mg/mm³.

    Args:
        image: CT in HU.
        insert: Mask on its grid, well inside the insert.
        density_mg_per_cm3: Density of the insert, mg/cm³.
        water_hu: HU of water.

    Raises:
        MaskError: If the mask does not fit or is empty.
        CTError: If the density is not above zero or the insert is not denser than water.
    """
    if not density_mg_per_cm3 > 0:
        raise CTError(f"The calibration insert's density must be above zero, but is {density_mg_per_cm3:g} mg/cm³.")
    if insert.GetSize() != image.GetSize():
        raise MaskError(f"The calibration insert's mask has size {insert.GetSize()}, the CT {image.GetSize()}.")
    values = sitk.GetArrayViewFromImage(image)[sitk.GetArrayViewFromImage(insert) != 0]
    if not values.size:
        raise MaskError("The calibration insert's mask is empty.")
    if not values.mean() > water_hu:
        raise CTError(f"The calibration insert measures {values.mean():.0f} HU, not above water ({water_hu:g} HU).")
    return density_mg_per_cm3 / 1000 / float(values.mean() - water_hu)
