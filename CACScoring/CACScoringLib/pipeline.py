"""The whole way from a CT to its scores; the only place that knows the order of the steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from . import risk
from .acquisition import BloodPool, examine, measure_blood, require_unenhanced
from .ct import CTError, CTScan, MaskError, ScanWarning, mask_on_scan_grid
from .heart import HeartRegion, heart_region
from .lesions import Artery, LesionSet, ScoringRules, find_lesions, rules_for_tube_voltage
from .progress import Progress
from .scores import Score, score_arteries, score_lesions

METAL_HU = 2000.0
"""Calcium does not get this dense in a CT of the chest; stents, leads, clips and wires do."""

MAIN_ARTERIES = (Artery.LM, Artery.LAD, Artery.LCX, Artery.RCA)

STEPS = ("heart", "acquisition", "lesions", "scores")
"""What `score_scan` does, in order, as told to its progress."""


@dataclass(frozen=True)
class ScoreSettings:
    """What the user may choose.

    adapt_to_tube_voltage: use the thresholds published for the scan's kVp instead of those for 120 kVp.
    allow_contrast: score a contrast-enhanced scan all the same, with a warning.
    sex ("F" or "M"), age_years: override what DICOM says; used for percentiles only.
    percentile_table: CSV of the user's reference population (see `risk.percentile_from_table`).
    """

    rules: ScoringRules = field(default_factory=ScoringRules)
    adapt_to_tube_voltage: bool = False
    allow_contrast: bool = False
    sex: str | None = None
    age_years: int | None = None
    percentile_table: Path | None = None


@dataclass(frozen=True)
class MethodResult:
    """Scores by one method.

    reviewed: whether a person assigned the lesions to arteries; unreviewed candidates may be anything dense.
    """

    reviewed: bool
    rules: ScoringRules
    lesions: LesionSet
    total: Score
    arteries: dict[Artery, Score]


@dataclass(frozen=True)
class Categories:
    """What the reviewed Agatston score means in published classes."""

    method: str
    risk_class: str
    cac_drs: str
    arterial_age_years: float
    percentile: risk.Percentile | None


@dataclass(frozen=True)
class ScoreResult:
    """All that `score` finds out about a scan.

    methods: by name; "threshold" is the clinical rule. categories: None while nothing was reviewed.
    true_mass_mg: by artery, known of digital patients only.
    """

    scan: CTScan
    heart: HeartRegion
    blood: BloodPool | None
    methods: dict[str, MethodResult]
    categories: Categories | None
    warnings: tuple[ScanWarning, ...]
    true_mass_mg: dict[Artery, float] | None = None


def score_scan(
    scan: CTScan,
    settings: ScoreSettings = ScoreSettings(),
    heart: sitk.Image | None = None,
    lesions: sitk.Image | None = None,
    progress: Progress | None = None,
) -> ScoreResult:
    """Score a CT by the clinical rule.

    heart: mask of the heart, on any grid; found from the lungs when None.
    lesions: a reader's label map (`Artery` values); only what it labels is scored. When None, everything at or
    above the threshold inside the heart region is reported as unassigned and unreviewed.

    Raises NoHeartError, ContrastError, MaskError and other CTErrors.
    """
    progress = progress or Progress()
    rules = settings.rules
    if settings.adapt_to_tube_voltage:
        rules = rules_for_tube_voltage(scan.acquisition.kvp, rules)

    with progress.step("heart"):
        region = _given_heart(heart, scan) if heart is not None else heart_region(scan)
    with progress.step("acquisition"):
        blood = measure_blood(scan, region.mask)
        doubts = [*examine(scan, blood), *require_unenhanced(scan, blood, settings.allow_contrast)]
    with progress.step("lesions"):
        if lesions is not None:
            arteries, label_doubts = _reader_arteries(lesions, scan)
            found = find_lesions(scan.image, arteries, rules)
            label_doubts += _outside_warning(found, region)
            label_doubts += _metal_warning(found, "They are scored as labelled: check that they are calcium.")
        else:
            arteries = _candidate_region(region)
            found, label_doubts = _without_metal(find_lesions(scan.image, arteries, rules))
            label_doubts.append(_UNREVIEWED)
    with progress.step("scores"):
        spacing = scan.image.GetSpacing()
        threshold = MethodResult(
            reviewed=lesions is not None,
            rules=rules,
            lesions=found,
            total=score_lesions(found.lesions, spacing, rules),
            arteries=score_arteries(found.lesions, spacing, rules),
        )
        categories = _categories("threshold", threshold, scan, settings) if threshold.reviewed else None
    warnings = (*scan.warnings, *region.warnings, *doubts, *label_doubts)
    return ScoreResult(scan, region, blood, {"threshold": threshold}, categories, warnings)


_UNREVIEWED = ScanWarning(
    "unreviewed",
    "Nobody has reviewed these candidates: everything dense inside the heart region is listed, be it coronary, "
    "valve, aorta or noise. Assign each to an artery in lesions.nii.gz and score again with it.",
)


def _given_heart(heart: sitk.Image, scan: CTScan) -> HeartRegion:
    mask, warnings = mask_on_scan_grid(heart, scan, "heart mask")
    return HeartRegion(mask=mask > 0, excluded=None, warnings=warnings, source="given")


def _candidate_region(region: HeartRegion) -> np.ndarray:
    """uint8 [k, j, i]: UNASSIGNED wherever an unreviewed candidate may lie."""
    inside = sitk.GetArrayViewFromImage(region.mask) != 0
    if region.excluded is not None:
        inside &= sitk.GetArrayViewFromImage(region.excluded) == 0
    return inside.astype(np.uint8) * np.uint8(Artery.UNASSIGNED)


def _reader_arteries(lesions: sitk.Image, scan: CTScan) -> tuple[np.ndarray, list[ScanWarning]]:
    labels, warnings = mask_on_scan_grid(lesions, scan, "lesion label map")
    arteries = sitk.GetArrayFromImage(labels)
    highest = int(arteries.max())
    if highest > max(Artery):
        meaning = ", ".join(f"{a.value} {a.key}" for a in Artery)
        raise MaskError(f"The lesion label map holds the label {highest}; labels are {meaning}.")
    doubts = list(warnings)
    if (unassigned := arteries == Artery.UNASSIGNED).any():
        message = f"{int(unassigned.sum())} voxels are labelled {int(Artery.UNASSIGNED)} (unassigned): left out."
        doubts.append(ScanWarning("unassigned-left-out", message))
        arteries[unassigned] = 0
    return arteries, doubts


def _outside_warning(found: LesionSet, region: HeartRegion) -> list[ScanWarning]:
    outside = np.unique(found.id_map[sitk.GetArrayViewFromImage(region.mask) == 0])
    count = int((outside > 0).sum())
    if not count:
        return []
    message = f"{count} labelled lesion(s) reach outside the heart region. They are scored as labelled."
    return [ScanWarning("label-outside-heart", message)]


def _metal_warning(found: LesionSet, consequence: str) -> list[ScanWarning]:
    metal = [lesion for lesion in found.lesions if lesion.peak_hu >= METAL_HU]
    if not metal:
        return []
    slices = ", ".join(str(lesion.slice_indices[0]) for lesion in metal[:5]) + (" …" if len(metal) > 5 else "")
    message = f"{len(metal)} lesion(s) reach {METAL_HU:g} HU or more, as metal does (slices {slices}). {consequence}"
    return [ScanWarning("metal", message)]


def _without_metal(found: LesionSet) -> tuple[LesionSet, list[ScanWarning]]:
    warnings = _metal_warning(found, "They are left out of the candidates, with what touches them.")
    metal = [lesion.id for lesion in found.lesions if lesion.peak_hu >= METAL_HU]
    if not metal:
        return found, warnings
    kept = tuple(lesion for lesion in found.lesions if lesion.id not in metal)
    id_map = np.where(np.isin(found.id_map, metal), np.uint16(0), found.id_map)
    return LesionSet(kept, id_map), warnings


def _categories(method: str, result: MethodResult, scan: CTScan, settings: ScoreSettings) -> Categories:
    agatston = result.total.agatston
    vessels = sum(result.arteries[a].agatston > 0 for a in MAIN_ARTERIES)
    percentile = None
    if settings.percentile_table is not None:
        sex = settings.sex or scan.acquisition.patient_sex
        age = settings.age_years if settings.age_years is not None else scan.acquisition.patient_age_years
        if sex is None or age is None:
            raise CTError("Percentiles need sex and age, which the scan does not tell. Give --sex and --age.")
        percentile = risk.percentile_from_table(agatston, sex, age, settings.percentile_table)
    return Categories(
        method,
        risk.risk_class(agatston),
        risk.cac_drs(agatston, vessels),
        risk.arterial_age_years(agatston),
        percentile,
    )
