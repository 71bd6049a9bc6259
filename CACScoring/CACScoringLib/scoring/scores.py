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
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ..core.labels import AnySite, Artery, NonCoronary, SiteMap
from ..record.rules import ScoringRules
from ..record.scores import (
    Lesion,
    LesionSet,
    LesionVoxels,
    MethodScore,
    NonCoronaryScore,
    Score,
    SliceComponent,
    SumScore,
)

NEGLIGIBLE = 0.5
"""Equivalent of a calcium map's lesions below which there is no calcium on the clinical scale."""

AGATSTON_PER_MG = 3.54
HALF_MG, STEEPNESS = 5.35, 2.06
"""A lesion of this mass loses half of its score to partial volume, and how fast that changes with mass."""


def lesion_score(
    components: Sequence[SliceComponent], sum_hu: float, voxel_mm3: float, rules: ScoringRules
) -> dict[str, Any]:
    """Return the scores of one lesion, the fields of `Score` but those of its mass.

    The Agatston score is Σ area × weight × slice spacing / 3 mm over components (Agatston 1990,
    doi:10.1016/0735-1097(90)90282-T); the slice *spacing* enters, not the slice thickness, so that overlapping slices
    do not count twice.

    Args:
        components: Its components.
        sum_hu: Sum of its voxels.
        voxel_mm3: Volume of a voxel.
        rules: Those it was found with.
    """
    agatston = clinical = math.fsum(c.agatston for c in components)
    if rules.equivalent_mg_per_mm3_hu is not None:
        clinical = float(equivalent_agatston(rules.equivalent_mg_per_mm3_hu * voxel_mm3 * sum_hu))
    return {
        "agatston": agatston,
        "clinical_agatston": clinical,
        "volume_mm3": sum(c.voxels for c in components) * voxel_mm3,
        "pseudo_mass_hu_mm3": sum_hu * voxel_mm3,
        "lesions": 1,
        "peak_hu": max(c.peak_hu for c in components),
    }


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
    lesions: Sequence[Lesion],
    voxels: LesionVoxels,
    left_out: Sequence[Lesion] = (),
    no_calcium: bool = False,
    has_masses: bool = False,
) -> MethodScore:
    """Score lesions; arguments as the fields of `MethodScore`, and has_masses as of `score_of`."""
    return MethodScore(
        status=status,
        rules=rules,
        total=score_of(lesions, has_masses),
        arteries=scores_by_site(lesions, Artery, has_masses),
        no_calcium=no_calcium,
        lesions=tuple(lesions),
        left_out=tuple(left_out),
        voxels=voxels,
    )


def with_lesions(method: MethodScore, lesions: Sequence[Lesion], has_masses: bool) -> MethodScore:
    """Return a score with its lesions measured again: sums follow, their intervals stay."""
    scores = scores_by_site(lesions, Artery, has_masses)
    return replace(
        method,
        lesions=tuple(lesions),
        total=with_intervals_of(method.total, score_of(lesions, has_masses)),
        arteries=SiteMap({site: with_intervals_of(method.arteries[site], score) for site, score in scores.items()}),
    )


def with_intervals_of(stated: SumScore, score: SumScore) -> SumScore:
    """Return a score with the intervals of another one."""
    return replace(score, interval_90=stated.interval_90, mass_interval_90=stated.mass_interval_90)


def non_coronary_score(reviewed: bool, lesions: LesionSet) -> NonCoronaryScore:
    """Score the non-coronary lesions of a set, which get no masses."""
    elsewhere = lesions.non_coronary
    scores = scores_by_site(elsewhere.lesions, NonCoronary)
    sites = {
        site.key: Score(**{f.name: getattr(score, f.name) for f in fields(Score)}) for site, score in scores.items()
    }
    return NonCoronaryScore(reviewed=reviewed, lesion_list=elsewhere.lesions, voxels=elsewhere.voxels, **sites)


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
