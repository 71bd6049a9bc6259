"""Scores of a scan by each method: lesions that count or are left out, their sums, and what completes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np

from ..anatomy.courses import artery_courses
from ..anatomy.heart_region import HeartRegion
from ..calcium_map.decomposition import DecomposedHeart, Decomposition, clear_map
from ..core.ct import CTScan, ScanWarning
from ..core.labels import MAIN_ARTERIES, Artery, NonCoronary, SiteMap
from ..record.findings import BloodPool, Categories, MassCalibration, Percentile
from ..record.rules import ScoringRules
from ..record.scores import Lesion, LesionSet, LesionVoxels, MethodScore, NonCoronaryScore, Score, SumScore
from .artefacts import dense_warning, noise_warnings
from .doubt import decisive_warning, stent_warning
from .features import features_of
from .judge import JudgedLesions, device_warning, judge_map
from .lesions import find_lesions
from .mass import MAX_MEASURED, with_masses
from .reader_labels import ReaderLabels, outside_warning
from .scores import ROUNDING, arterial_age_years, cac_drs, risk_class, rules_of_map, score_of, scores_by_site
from .sites import candidate_sites, verdicts_by_place


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


ClinicalScore = tuple[MethodScore, NonCoronaryScore | None, list[ScanWarning]]
"""Scores of the coronary arteries and of other sites, None if neither networks nor a reader separated these; and
warnings about them."""


def score_judged(judged: JudgedLesions, rules: ScoringRules, blood: BloodPool | None) -> ClinicalScore:
    """Score lesions by the clinical rule and their verdicts.

    Args:
        judged: Everything dense.
        rules: Rules of the clinical score.
        blood: Blood and noise; None if not measured.
    """
    method = method_score("automatic", rules, judged.counted, judged.lesions.voxels, judged.left_out)
    elsewhere = judged.non_coronary
    doubts = [*dense_warning(method.lesion_set), *noise_warnings(method.lesion_set, elsewhere, blood)]
    doubts += [*stent_warning(method), *decisive_warning(method, elsewhere.lesions)]
    warnings = [*device_warning(judged), *doubts, unreviewed_warning(method, True, True)]
    return method, non_coronary_score(False, elsewhere), warnings


def score_candidates(scan: CTScan, heart: HeartRegion, rules: ScoringRules, blood: BloodPool | None) -> ClinicalScore:
    """Score everything dense where arteries run by the clinical rule, whatever it is.

    Args:
        scan: The scan as scored.
        heart: Heart and territories.
        rules: Rules of the clinical score.
        blood: Blood and noise; None if not measured.
    """
    dense = find_lesions(scan.image, candidate_sites(heart, scan.hu >= rules.threshold_hu, scan.grid), rules)
    coronary, has_territories = dense.coronary, heart.territories is not None
    lesions = coronary.lesions
    if has_territories:
        verdicts = verdicts_by_place(coronary, heart.territories)
        lesions = tuple(replace(x, verdict=verdict) for x, verdict in zip(lesions, verdicts, strict=True))
    method = method_score("candidates", rules, lesions, coronary.voxels)
    elsewhere = non_coronary_score(False, dense) if has_territories else None
    doubts = [*dense_warning(coronary), *noise_warnings(coronary, dense.non_coronary, blood)]
    return method, elsewhere, [*doubts, unreviewed_warning(method, False, has_territories)]


def unreviewed_warning(method: MethodScore, has_verdicts: bool, has_territories: bool) -> ScanWarning:
    """The doubt about a clinical score that nobody has reviewed."""
    if has_verdicts:
        count, excluded = len(method.lesions), len(method.left_out)
        if not count + excluded:
            message = "The clinical score is automatic: there are no candidates. Nobody has reviewed the scan."
            return ScanWarning("automatic", message)
        message = (
            f"The clinical score is automatic: the lesion network counts {count} of {count + excluded} candidates. "
            "Nobody has reviewed them. Review them in 3D Slicer or the browser; or correct their labels in "
            f"lesions.nii.gz, where excluded ones are labelled {int(Artery.UNASSIGNED)}, and score again with "
            "these labels."
        )
        return ScanWarning("automatic", message)
    where = "inside the heart region: coronary and valve calcium, the aorta, and noise."
    if has_territories:
        where = "in the territories of the coronary arteries, noise included, each in the artery of its territory."
    message = (
        f"These candidates have not been reviewed. They include everything dense {where} Review them in 3D "
        "Slicer or the browser; or correct their labels in lesions.nii.gz and score again with these labels."
    )
    return ScanWarning("unreviewed", message)


def score_reading(
    reader: ReaderLabels,
    scan: CTScan,
    heart: HeartRegion,
    rules: ScoringRules,
    status: str,
    judged: JudgedLesions | None,
) -> ClinicalScore:
    """Score the lesions that a reader labelled, and calcium elsewhere as labelled or by the networks.

    Args:
        reader: The reader's labels.
        scan: The scan as scored.
        heart: Heart and territories.
        rules: Rules of the clinical score.
        status: Key of `STATUSES`: "reviewed" if a person vouches for the labels.
        judged: Everything dense, with verdicts; None where nothing was judged.
    """
    labelled = find_lesions(scan.image, reader.sites, rules)
    is_reviewed, coronary = status == "reviewed", labelled.coronary
    no_calcium = is_reviewed and reader.no_calcium
    method = method_score(status, rules, coronary.lesions, coronary.voxels, no_calcium=no_calcium)
    elsewhere = None
    if reader.has_elsewhere:
        elsewhere = non_coronary_score(is_reviewed, labelled)
    elif heart.territories is not None:
        is_unlabelled = (scan.hu >= rules.threshold_hu) & (reader.sites == 0)
        if judged is not None:
            sites = np.where(is_unlabelled, judged.non_coronary.site_map(), np.uint8(0))
        else:
            sites = candidate_sites(heart, is_unlabelled, scan.grid)
        elsewhere = non_coronary_score(False, find_lesions(scan.image, sites, rules))
    devices = [] if judged is None else device_warning(judged)
    warnings = [*reader.warnings, *devices, *outside_warning(coronary, heart.mask), *dense_warning(labelled)]
    return method, elsewhere, warnings


def score_map(
    decomposed: DecomposedHeart,
    scan: CTScan,
    heart: HeartRegion,
    clinical_rules: ScoringRules,
    noise_hu: float | None,
    judged: JudgedLesions | None,
) -> tuple[MethodScore, Decomposition, list[ScanWarning]]:
    """Score the lesions of the calcium map that count, and clear the others from the map.

    A reader's labels of lesions in the CT end at the threshold of the clinical rule, so they do not review the map.

    Args:
        decomposed: Calcium map before any lesion is left out, and slice probabilities.
        scan: The scan as scored.
        heart: Heart and territories.
        clinical_rules: Rules of the clinical score.
        noise_hu: Noise of blood, SD; None if it could not be measured.
        judged: Everything dense, with verdicts; None where nothing was judged.

    Returns:
        The scores, the map of the lesions that count alone, and warnings about the scores.
    """
    parts = decomposed.parts
    rules = rules_of_map(clinical_rules, parts.settings.floor_hu, scan.acquisition.calcium_kvp)
    dense = None if judged is None else judged.lesions
    lesions = judge_map(parts.image(), scan, heart, rules, decomposed, noise_hu, dense)
    counted = [lesion for lesion in lesions.lesions if lesion.verdict is None or lesion.verdict.counts]
    voxels = lesions.part(counted).voxels
    excluded = np.setdiff1d(lesions.every.flat, voxels.flat, assume_unique=True)
    cleared = np.zeros(parts.hu.shape, bool)
    cleared.reshape(-1)[excluded] = True
    warnings = []
    if count := len(lesions.lesions) - len(counted):
        subject = "1 lesion of the calcium map was" if count == 1 else f"{count} lesions of the calcium map were"
        message = f"{subject} left out, as probably noise or not coronary calcium."
        warnings.append(ScanWarning("map-left-out", message))
    return method_score("automatic", rules, counted, voxels), clear_map(parts, cleared), warnings


def with_measurements(
    methods: Mapping[str, MethodScore],
    scan: CTScan,
    calibration: MassCalibration | None,
    elsewhere: NonCoronaryScore | None,
    territories: np.ndarray | None,
) -> dict[str, MethodScore]:
    """Measure masses without a threshold and features of the lesions that count.

    Args:
        methods: Scores by method; lesions that have a mass keep it.
        scan: The scan as scored.
        calibration: Mass calibration; None in results of earlier versions, which get no masses.
        elsewhere: Calcium outside the arteries; None if unknown.
        territories: Labels of TERRITORIES, uint8 [k, j, i] on the scan's grid; None if unknown.
    """
    calcium = None if elsewhere is None else elsewhere.lesion_set.id_map > 0
    courses = artery_courses(territories, scan.image.GetSpacing())
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
