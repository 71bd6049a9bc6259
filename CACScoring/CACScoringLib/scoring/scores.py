"""Scores by both methods: Agatston score, volume, mass and pseudo-mass of lesions, and their sums.

The calcium map has no threshold, so sums over it are no Agatston scores. But the clinical score of a plaque follows
from its mass (`equivalent_agatston`), in a soft kernel, slices of 3 mm and 120 kVp: large ones score in proportion,
small ones lose to partial volume what stays below 130 HU. The curve is that of 891 lesions of 152 digital patients
(patients of the calibration; up to 290 mg), imaged without noise or motion, where a map without errors is divided into
lesions; it keeps the sum of all scores. Of lesions of one mass the dense ones score higher: from 4 to 16 mg half of all
lie between 0.66 and 1.39 of the curve, eight of ten between 0.35 and 1.95.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields, replace

import numpy as np

from ..core.labels import AnySite, Artery, NonCoronary, SiteMap
from ..record.rules import ScoringRules
from ..record.scores import (
    COUNTED,
    LEFT_OUT,
    OUTSIDE,
    Lesion,
    LesionSet,
    MethodScore,
    NonCoronaryScore,
    Score,
    SumScore,
)

NEGLIGIBLE = 0.5
"""Equivalent of a calcium map's lesions below which there is no calcium on the clinical scale."""

AGATSTON_PER_MG = 3.54
HALF_MG, STEEPNESS = 5.35, 2.06
"""A lesion of this mass loses half of its score to partial volume, and how fast that changes with mass."""


def score_of(lesions: Iterable[Lesion], has_masses: bool = False) -> SumScore:
    """Add up lesions.

    Sums do not depend on the order of the lesions. The errors of their masses are taken as independent. A calcium map's
    equivalent below NEGLIGIBLE is 0.

    Args:
        lesions: The lesions.
        has_masses: True if masses of lesions were measured; the sum is None where that of a lesion is None.
    """
    lesions = list(lesions)

    def total(name: str, power: int = 1) -> float | None:
        values = [getattr(lesion, name) for lesion in lesions]
        return None if None in values else math.fsum(value**power for value in values) ** (1 / power)

    mass_mg = total("integrated_mass_mg") if has_masses else None
    agatston = math.fsum(lesion.agatston for lesion in lesions)
    clinical = math.fsum(lesion.clinical_agatston for lesion in lesions)
    return SumScore(
        agatston=agatston,
        clinical_agatston=0.0 if clinical < NEGLIGIBLE and clinical < agatston else clinical,
        volume_mm3=math.fsum(lesion.volume_mm3 for lesion in lesions),
        mass_mg=mass_mg,
        pseudo_mass_hu_mm3=math.fsum(lesion.pseudo_mass_hu_mm3 for lesion in lesions),
        lesions=len(lesions),
        peak_hu=max((lesion.peak_hu for lesion in lesions), default=None),
        integrated_mass_mg=mass_mg,
        mass_standard_error_mg=total("mass_standard_error_mg", 2) if has_masses else None,
    )


def scores_by_site(
    lesions: Iterable[Lesion], sites: type[AnySite], has_masses: bool = False
) -> SiteMap[AnySite, SumScore]:
    """Return the score of every artery, or of every site beside them, those without calcium included."""
    lesions = list(lesions)
    return SiteMap({site: score_of((x for x in lesions if x.site == site), has_masses) for site in sites})


def method_score(
    status: str,
    rules: ScoringRules,
    table: LesionSet,
    no_calcium: bool = False,
    has_masses: bool = False,
    non_coronary: NonCoronaryScore | None = None,
) -> MethodScore:
    """Add up the lesions of a table that count.

    Those left out, which an automatic score lists, stand in their likeliest artery. Arguments as the fields of
    `MethodScore`, and has_masses as of `score_of`.
    """
    lesions = tuple(lesion for lesion in table.lesions if lesion.status == COUNTED)
    left_out = [lesion for lesion in table.lesions if lesion.status == LEFT_OUT and status == "automatic"]
    return MethodScore(
        status=status,
        rules=rules,
        total=score_of(lesions, has_masses),
        arteries=scores_by_site(lesions, Artery, has_masses),
        no_calcium=no_calcium,
        lesions=lesions,
        left_out=tuple(replace(x, site=x.verdict.artery) for x in left_out if x.verdict is not None),
        table=table,
        non_coronary=non_coronary,
    )


def non_coronary_score(reviewed: bool, lesions: LesionSet) -> NonCoronaryScore:
    """Score the non-coronary lesions of a set, which get no masses."""
    outside = tuple(lesion for lesion in lesions.lesions if lesion.status == OUTSIDE)
    scores = scores_by_site(outside, NonCoronary)
    sites = {
        site.key: Score(**{f.name: getattr(score, f.name) for f in fields(Score)}) for site, score in scores.items()
    }
    return NonCoronaryScore(reviewed=reviewed, lesion_list=outside, voxels=lesions.non_coronary.voxels, **sites)


def equivalent_agatston(mass_mg: float | np.ndarray) -> float | np.ndarray:
    """Agatston score of one lesion, by its mass in mg of hydroxyapatite."""
    mass = np.maximum(mass_mg, 0.0)
    powered = mass**STEEPNESS
    return AGATSTON_PER_MG * mass * powered / (powered + HALF_MG**STEEPNESS)


def rules_of_map(rules: ScoringRules, floor_hu: float, kvp: float | None) -> ScoringRules:
    """The rules by which lesions of the calcium map are scored, from those of the clinical score.

    Weights are read from the CT, because their bounds are HU of tissue and not of what the calcium adds to it: so the
    score equals the conventional one where the map is what a 130 HU threshold segments. The clinical score follows
    from each lesion's mass, by the scan's calibration or the usual one of its tube voltage.

    Args:
        rules: Of the clinical score.
        floor_hu: Lowest HU of the map.
        kvp: Tube voltage of the calcium (`Acquisition.calcium_kvp`); None where unknown.
    """
    from ..quality.mass_calibration import usual_calibration  # not loaded by the panel, which scores lesions only

    return replace(
        rules,
        name=f"Adjusted Agatston of the calcium map (van Velzen), otherwise: {rules.name}",
        threshold_hu=floor_hu,
        equivalent_mg_per_mm3_hu=rules.calibration_mg_per_mm3_hu or usual_calibration(kvp),
    )
