"""Scores of a scan by each method: sums of its lesions, and what completes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
import SimpleITK as sitk

from ..anatomy.courses import artery_courses
from ..core.ct import CTScan
from ..core.labels import MAIN_ARTERIES, Artery, NonCoronary, SiteMap
from ..record.findings import Categories, MassCalibration, Percentile
from ..record.rules import ScoringRules
from ..record.scores import Lesion, LesionSet, LesionVoxels, MethodScore, NonCoronaryScore, Score, SumScore
from .features import features_of
from .mass import MAX_MEASURED, with_masses
from .scores import ROUNDING, arterial_age_years, cac_drs, risk_class, score_of, scores_by_site


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


def with_measurements(
    methods: Mapping[str, MethodScore],
    scan: CTScan,
    calibration: MassCalibration | None,
    elsewhere: NonCoronaryScore | None,
    territories: sitk.Image | None,
) -> dict[str, MethodScore]:
    """Measure masses without a threshold and features of the lesions that count.

    Args:
        methods: Scores by method; lesions that have a mass keep it.
        scan: The scan as scored.
        calibration: Mass calibration; None in results of earlier versions, which get no masses.
        elsewhere: Calcium outside the arteries; None if unknown.
        territories: Labels of TERRITORIES on the scan's grid; None if unknown.
    """
    calcium = None if elsewhere is None else elsewhere.lesion_set.id_map > 0
    courses = artery_courses(territories)
    measured = {name: _with_masses(method, scan, calibration, calcium) for name, method in methods.items()}
    return {name: replace(method, features=features_of(method, scan, courses)) for name, method in measured.items()}


def _with_masses(
    method: MethodScore, scan: CTScan, calibration: MassCalibration | None, elsewhere: np.ndarray | None
) -> MethodScore:
    """Measure the masses of lesions. elsewhere: Calcium outside the arteries, bool [k, j, i]; None if unknown."""
    lesions = with_masses(method.lesion_set, scan, calibration, elsewhere, method.is_map)
    has_masses = calibration is not None and len(lesions) <= MAX_MEASURED
    total, arteries = score_of(lesions, has_masses), scores_by_site(lesions, Artery, has_masses)
    return replace(
        method,
        lesions=lesions,
        total=with_intervals_of(method.total, total),
        arteries=SiteMap({site: with_intervals_of(method.arteries[site], score) for site, score in arteries.items()}),
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


def categories_of(clinical: MethodScore, percentile: Percentile | None = None) -> Categories | None:
    """Return the published classes of a clinical score.

    Returns:
        The classes; None for unevaluated candidates, scores by other rules, and where they are withheld.
    """
    if clinical.status == "candidates" or clinical.withheld or not clinical.rules.is_clinical:
        return None
    agatston = clinical.total.agatston
    vessels = sum(clinical.arteries[artery].agatston > 0 for artery in MAIN_ARTERIES)
    return Categories(
        "threshold",
        clinical.status,
        risk_class(agatston),
        cac_drs(agatston, vessels),
        arterial_age_years(agatston),
        percentile,
        clinical.category_probabilities,
        clinical.probabilities_withheld,
        ROUNDING,
    )
