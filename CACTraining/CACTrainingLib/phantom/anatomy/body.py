"""Size and shape of one patient's trunk and heart, drawn from stated distributions.

Origin: midline, mid-depth of the thoracic cavity, height of the heart's middle in quiet breathing. Illustrative;
sizes are of adults, with the spread of a clinic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CACScoringLib.core.grid import triple

from . import tissues

FEMALE_SHARE = 0.6
"""Share of women. Most of the paper's radiotherapy planning pairs show women with breast cancer."""

WAVES = 6
"""Waves of each irregular thickness."""


@dataclass(frozen=True)
class Surroundings:
    """Surroundings of one patient's heart.

    Attributes:
        pericardium_mm: Usual thickness of the pericardium.
        paracardial_fat_mm: Usual thickness of the fat outside it.
        wall_mm: Inward movement of the ventricles' walls in systole.
        ring_mm: Movement of the valves' plane towards the apex in systole.
        cartilage: Calcification of the rib cartilage, 0 (none) to 1.
        waves_per_mm: Wave vectors [2 · WAVES, 3] in radians per mm of the two irregular thicknesses, whose relief is
            the sum of their sines, times √(2 / WAVES): mean 0, standard deviation 1.
        phases: Their phases [2 · WAVES].
        most_lumen: Largest density of a vessel relative to blood; above 1 where motion gives it bright rims.
    """

    pericardium_mm: float
    paracardial_fat_mm: float
    wall_mm: float
    ring_mm: float
    cartilage: float
    waves_per_mm: tuple[tuple[float, ...], ...]
    phases: tuple[float, ...]
    most_lumen: float = 1.0


@dataclass(frozen=True)
class Body:
    """Measures of a trunk and heart in mm, and tissue values in HU.

    Attributes:
        cavity_half_width_mm: Inside of the rib cage at the heart, from the midline to the side.
        cavity_half_depth_mm: Inside of the rib cage at the heart, half from front to back.
        fat_mm: Subcutaneous fat at the side.
        muscle_mm: Outer chest muscles.
        breast_mm: Radius, 0 for none.
        glandular: Share of gland in the breast.
        heart_semi_axes_mm: Semi-axes along the long axis, towards the right ventricle, and upwards.
        heart_centre_mm: Heart's centre in LPS.
        heart_axis: Unit vector from base to apex.
        heart_roll_degrees: Rotation about heart_axis.
        epicardial_fat_mm: Thickness on the heart's walls.
        groove_fat_mm: Thickness in the heart's grooves.
        emphysema: Severity, 0 (none) to 1.
        surroundings: Tissue around the heart as in real chests; None for plain ones.
    """

    sex: str
    cavity_half_width_mm: float
    cavity_half_depth_mm: float
    fat_mm: float
    muscle_mm: float
    breast_mm: float
    glandular: float
    spine_y_mm: float
    vertebra_mm: float
    vertebra_phase: float
    rib_phase: float
    heart_semi_axes_mm: tuple[float, float, float]
    heart_centre_mm: tuple[float, float, float]
    heart_axis: tuple[float, float, float]
    heart_roll_degrees: float
    epicardial_fat_mm: float
    groove_fat_mm: float
    aorta_radius_mm: float
    right_dome_mm: float
    left_dome_mm: float
    mediastinal_fat_mm: float
    blood_hu: float
    myocardium_hu: float
    fat_hu: float
    muscle_hu: float
    liver_hu: float
    lung_hu: float
    spongiosa_hu: float
    emphysema: float
    stomach_gas_mm: float
    surroundings: Surroundings | None = None


def draw_body(generator: np.random.Generator, sex: str | None = None) -> Body:
    """Draw a body. sex: "F" or "M"; None draws it with FEMALE_SHARE."""
    g = generator
    if sex is None:
        sex = "F" if g.random() < FEMALE_SHARE else "M"
    female = sex == "F"
    size = float(np.clip(g.normal(1.0, 0.05), 0.88, 1.13)) * (0.93 if female else 1.02)
    adiposity = float(np.clip(g.gamma(4.0, 0.25), 0.25, 2.4))
    heart = float(np.clip(g.normal(1.0, 0.05), 0.88, 1.14)) * (0.97 if female else 1.04)
    blood = float(np.clip(g.normal(tissues.BLOOD_HU, 4), 30, 52))
    axis = np.array([0.63, -0.53, -0.57]) + g.normal(0, 0.09, 3) + np.array([0.05, 0.0, 0.06]) * (adiposity - 1)
    return Body(
        sex=sex,
        cavity_half_width_mm=128 * size * float(g.normal(1, 0.03)),
        cavity_half_depth_mm=86 * size * float(g.normal(1, 0.05)),
        fat_mm=5 + 13 * adiposity,
        muscle_mm=float(np.clip(g.normal(11 if female else 16, 2.5), 6, 24)),
        breast_mm=float(np.clip(g.normal(62, 9) * (0.7 + 0.3 * adiposity), 40, 95)) if female else 0.0,
        glandular=float(g.beta(1.6, 3.0)),
        spine_y_mm=float(g.normal(62, 3)) * size,
        vertebra_mm=24.5 * size,
        vertebra_phase=float(g.random()),
        rib_phase=float(g.random()),
        heart_semi_axes_mm=(72 * heart, 57 * heart * float(g.normal(1, 0.03)), 53 * heart * float(g.normal(1, 0.03))),
        heart_centre_mm=(float(g.normal(19, 4)), float(g.normal(-24, 3)) * size, 0.0),
        heart_axis=triple(float(a) for a in axis / np.linalg.norm(axis)),
        heart_roll_degrees=float(g.normal(0, 7)),
        epicardial_fat_mm=float(np.clip(g.normal(0.5 + 1.8 * adiposity, 0.8), 0.8, 7)),
        groove_fat_mm=float(np.clip(g.normal(8.5 + 1.5 * adiposity, 1.5), 6.5, 16)),
        aorta_radius_mm=float(np.clip(g.normal(15.0, 1.6), 11.5, 20)) * (0.95 if female else 1.03),
        right_dome_mm=float(g.normal(-24, 6)),
        left_dome_mm=float(g.normal(-36, 6)),
        mediastinal_fat_mm=float(np.clip(6 * adiposity + g.normal(0, 2), 1, 18)),
        blood_hu=blood,
        myocardium_hu=blood + float(np.clip(g.normal(4, 2.5), -1, 10)),
        fat_hu=float(g.normal(tissues.FAT_HU - 3, 4)),
        muscle_hu=float(g.normal(tissues.MUSCLE_HU - 3 * (adiposity - 1), 4)),
        liver_hu=float(g.normal(tissues.LIVER_HU - 6 * max(0.0, adiposity - 1), 6)),
        lung_hu=float(g.normal(tissues.LUNG_HU, 15)),
        spongiosa_hu=float(np.clip(g.normal(tissues.SPONGIOSA_HU, 40), 70, 280)),
        emphysema=float(g.random() < 0.15) * float(g.uniform(0.3, 1.0)),
        stomach_gas_mm=float(g.uniform(8, 34)),
    )
