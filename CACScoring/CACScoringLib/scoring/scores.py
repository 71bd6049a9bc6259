"""Scores by both methods: Agatston score, volume, mass and pseudo-mass of lesions, and what their classes are.

The calcium map has no threshold, so sums over it are no Agatston scores. But the clinical score of a plaque follows
from its mass (`equivalent_agatston`), in a soft kernel, slices of 3 mm and 120 kVp: large ones score in proportion,
small ones lose to partial volume what stays below 130 HU. The curve is that of digital plaques, each imaged alone
without noise or motion in soft tissue (179 plaques of 0.2 to 45 mg and 170 to 950 mg/cm³). Of plaques of one mass the
dense ones score higher: from 4 to 16 mg, half or twice as much is common.

Classes are published for integers: scores are rounded (halves up), but a score above zero never counts as zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from ..calcium_map.decomposition import without
from ..core.ct import CTError, ScanWarning
from ..core.labels import MAIN_ARTERIES, AnySite, Artery, NonCoronary, SiteMap
from ..core.tables import TableError, read_table
from ..quality.artefacts import metal_lesions, metal_warning, noise_warning, without_metal
from ..quality.calibration import compare_with_calibration
from ..quality.mass_calibration import usual_calibration
from ..results import Categories, MethodResult, NonCoronaryResult
from .evidence import (
    Evidence,
    candidate_sites,
    coronary_lesions,
    suggested_arteries,
)
from .lesions import Lesion, LesionSet, SliceComponent, find_lesions
from .reader_labels import misplaced_warning, outside_warning
from .rules import ScoringRules

if TYPE_CHECKING:
    from ..results import ScanContext

AGATSTON_PER_MG = 4.2
HALF_MG, STEEPNESS = 7.0, 2.4
"""A plaque of this mass loses half of its score to partial volume, and how fast that changes with mass."""


@dataclass(frozen=True)
class Score:
    """Scores of one lesion, one artery or a whole scan.

    Attributes:
        agatston: Σ area (mm²) × weight over slice components × slice spacing / 3 mm.
        volume_mm3: Voxels × voxel volume.
        mass_mg: c × volume × mean HU (McCollough 2007, doi:10.1148/radiol.2432050808); None without calibration.
        pseudo_mass_hu_mm3: Σ HU × voxel volume (van Velzen: generative models for reproducible calcium scoring).
        lesions: Number of lesions.
        peak_hu: Highest voxel; None without a lesion.
        clinical_agatston: Score on the clinical scale: `agatston` of the clinical rule, or the equivalent of the
            lesions' masses for the calcium map, which has no threshold.
    """

    agatston: float = 0.0
    volume_mm3: float = 0.0
    mass_mg: float | None = None
    pseudo_mass_hu_mm3: float = 0.0
    lesions: int = 0
    peak_hu: float | None = None
    clinical_agatston: float = 0.0


def score_candidates(context: ScanContext) -> ScanContext:
    """Score what is dense, in the arteries and elsewhere: as a reader labelled it, or in the territories and without
    metal. Streaks beside metal can count, whatever a reader labelled."""
    region, image, reader, rules = context.heart, context.scored_scan.image, context.reader, context.rules
    context = replace(context, territories=None if region.territories is None else region.territories.labels(image))
    dense, candidates, doubts = _dense_lesions(context, image, rules)
    context = compare_with_calibration(context, len(candidates.coronary.lesions) < len(dense.coronary.lesions))
    if reader is None:
        context = _score_unreviewed(context.with_warnings(*doubts), candidates.coronary)
    else:
        candidates = find_lesions(image, reader.sites, rules)
        doubts = [*reader.warnings, *doubts, *outside_warning(candidates.coronary, region.mask)]
        doubts += misplaced_warning(reader.sites, context.scan, rules)
        doubts += metal_warning(candidates, metal_lesions(candidates, image))
        method = method_result("reviewed", candidates.coronary, rules, image.GetSpacing(), no_calcium=reader.no_calcium)
        context = context.with_warnings(*doubts).with_method("threshold", method)
        if context.territories is not None and not reader.has_elsewhere:
            candidates = _dense_lesions(context, image, rules, reader.sites)[1]
    by_reader = reader is not None and reader.has_elsewhere
    if context.territories is None and not by_reader:
        return context
    elsewhere = candidates.non_coronary
    scores = score_sites(elsewhere.lesions, image.GetSpacing(), rules, NonCoronary)
    return replace(context, non_coronary=NonCoronaryResult(by_reader, rules, elsewhere, scores))


def _dense_lesions(
    context: ScanContext, image: sitk.Image, rules: ScoringRules, labelled: np.ndarray | None = None
) -> tuple[LesionSet, LesionSet, list[ScanWarning]]:
    """The lesions of the CT, or of the calcium map, where the territories or the heart say.

    labelled: a reader's sites, uint8 [k, j, i]; then only what lies elsewhere, and beside these.

    Returns:
        All of them, those that are no metal, and a warning about the others.
    """
    scan = context.scored_scan.image
    dense = sitk.GetArrayViewFromImage(image) >= rules.threshold_hu
    if labelled is not None:
        dense &= labelled == 0
    sites = candidate_sites(context.heart, context.territories, dense)
    if labelled is not None:
        sites[sites <= max(Artery)] = 0
    found = find_lesions(image, sites, rules, peaks=scan)
    return found, *without_metal(found, scan)


def _score_unreviewed(context: ScanContext, lesions: LesionSet) -> ScanContext:
    """Score the coronary candidates that count by their evidence, or all where there is none, or no territories to name
    arteries by."""
    networks, region, spacing = context.networks, context.heart, context.scored_scan.image.GetSpacing()
    evidence = None
    if networks and not context.settings.candidates and region.territories is not None:
        evidence = Evidence.stored(networks.decomposition.card.calibration)
    if evidence is None:
        suggestions = tuple(suggested_arteries(lesions, context.scored_scan, region))
        method = method_result("candidates", lesions, context.rules, spacing, suggestions=suggestions)
    else:
        lesions, suggestions, left_out = coronary_lesions(context, lesions, evidence)
        method = method_result("automatic", lesions, context.rules, spacing, suggestions=suggestions, left_out=left_out)
    doubts = [*noise_warning(lesions, context.blood), unreviewed_warning(method, region.territories is not None)]
    if context.settings.percentile_table is not None:
        message = (
            "Percentiles are reported for reviewed scores only. Review the lesions and score again with --lesions."
        )
        doubts.append(ScanWarning("percentile-unreviewed", message))
    return context.with_method("threshold", method).with_warnings(*doubts)


def unreviewed_warning(method: MethodResult, has_territories: bool) -> ScanWarning:
    """The doubt about a clinical score that nobody has reviewed."""
    if method.left_out is not None:
        count, others = len(method.lesions.lesions), len(method.left_out.lesions.lesions)
        if not count + others:
            message = "The clinical score is automatic: there are no candidates. Nobody has reviewed the scan."
            return ScanWarning("automatic", message)
        message = (
            f"The clinical score is automatic: the networks' evidence counts {count} of {count + others} candidates. "
            "Nobody has reviewed them. Review them in 3D Slicer or the browser; or correct their labels in "
            f"lesions.nii.gz, where excluded ones are labelled {int(Artery.UNASSIGNED)}, and score again with "
            "--lesions."
        )
        return ScanWarning("automatic", message)
    where = "inside the heart region: coronary and valve calcium, the aorta, and noise."
    if has_territories:
        where = "in the territories of the coronary arteries, noise included, each in the artery of its territory."
    message = (
        f"These candidates have not been reviewed. They include everything dense {where} Review them in 3D "
        "Slicer or the browser; or correct their labels in lesions.nii.gz and score again with --lesions."
    )
    return ScanWarning("unreviewed", message)


def score_map(context: ScanContext) -> ScanContext:
    """Score the lesions of the calcium map that count, and leave no others in it.

    A reader's labels of lesions in the CT end at the threshold of the clinical rule, so they do not review the map.
    """
    scan, parts = context.scored_scan, context.decomposition
    if parts is None:
        return context
    rules = rules_of_map(context.rules, parts.settings.floor_hu, scan.acquisition.calcium_kvp)
    found, calcium, doubts = _dense_lesions(context, parts.calcium_map, rules)
    # Metal in the map mostly is a candidate by the clinical rule, too.
    codes = {warning.code for warning in context.warnings}
    doubts = [warning for warning in doubts if warning.code not in codes]
    evidence = Evidence(parts.settings.evidence_weights, None, parts.settings.most_not_coronary)
    lesions, suggestions, left_out = coronary_lesions(context, calcium.coronary, evidence)
    if len(lesions.lesions) < len(found.lesions):
        gone = np.zeros(found.id_map.shape, bool)
        gone.reshape(-1)[np.setdiff1d(found.flat, lesions.flat, assume_unique=True)] = True
        parts = without(parts, gone)
    if count := len(left_out.suggestions):
        counted = "1 lesion of the calcium map was" if count == 1 else f"{count} lesions of the calcium map were"
        message = f"{counted} left out, as probably noise or not coronary calcium."
        doubts.append(ScanWarning("map-left-out", message))
    method = method_result("automatic", lesions, rules, scan.image.GetSpacing(), suggestions=suggestions)
    return replace(context, decomposition=parts).with_method("decomposition", method).with_warnings(*doubts)


def method_result(
    status: str, lesions: LesionSet, rules: ScoringRules, spacing_mm: tuple[float, float, float], **more: Any
) -> MethodResult:
    """Score the lesions of a method. more: further fields of `MethodResult`."""
    total = score_lesions(lesions.lesions, spacing_mm, rules)
    return MethodResult(status, rules, lesions, total, score_sites(lesions.lesions, spacing_mm, rules), **more)


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
) -> SiteMap[AnySite, Score]:
    """Scores of every artery, or of every site beside them, those without calcium included."""
    lesions = list(lesions)
    return SiteMap({s: score_lesions((x for x in lesions if x.artery == s), spacing_mm, rules) for s in sites})


def equivalent_agatston(mass_mg: float | np.ndarray) -> float | np.ndarray:
    """Agatston score of one plaque, by its mass in mg of hydroxyapatite."""
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
    return replace(
        rules,
        name=f"Adjusted Agatston of the calcium map (van Velzen), otherwise: {rules.name}",
        threshold_hu=floor_hu,
        equivalent_mg_per_mm3_hu=rules.calibration_mg_per_mm3_hu or usual_calibration(kvp),
    )


ROUNDING = "Scores are rounded to the nearest integer for classes; a score above 0 counts as at least 1."

_CLASSES = ((0, "0"), (10, "1–10"), (100, "11–100"), (400, "101–400"))
RISK_CLASSES = (*(name for _, name in _CLASSES), "> 400")
_CAC_DRS = ((0, "A0"), (99, "A1"), (299, "A2"))


def classify(context: ScanContext) -> ScanContext:
    """Give the clinical score its published classes, and a reviewed one its percentile. Raises CTError."""
    settings, person, method = context.settings, context.scan.acquisition, context.methods["threshold"]
    percentile = None
    if settings.percentile_table is not None and method.reviewed:
        sex = settings.sex or person.patient_sex
        age = settings.age_years if settings.age_years is not None else person.patient_age_years
        if sex is None or age is None:
            raise CTError("Percentiles need sex and age_years in --settings, as the scan's header does not state them.")
        percentile = percentile_from_table(method.total.agatston, sex, age, settings.percentile_table)
    return replace(context, categories=categories_of(method, percentile))


def categories_of(threshold: MethodResult, percentile: Percentile | None = None) -> Categories | None:
    """The published classes of a score by the clinical rule; None of candidates that nothing evaluated, by other rules,
    and where they are withheld."""
    if threshold.status == "candidates" or threshold.withheld or not threshold.rules.is_clinical:
        return None
    agatston = threshold.total.agatston
    vessels = sum(threshold.arteries[a].agatston > 0 for a in MAIN_ARTERIES)
    classes = (risk_class(agatston), cac_drs(agatston, vessels), arterial_age_years(agatston))
    probabilities = threshold.category_probabilities, threshold.probabilities_withheld
    return Categories("threshold", threshold.status, *classes, percentile, *probabilities)


def whole_score(agatston: float) -> int:
    """The integer a class is read from (see the module's docstring). Raises ValueError for a negative score."""
    _check_score(agatston)
    return 0 if agatston == 0 else max(1, math.floor(agatston + 0.5))


def risk_class(agatston: float) -> str:
    """0, 1–10, 11–100, 101–400 or > 400."""
    return RISK_CLASSES[class_number(agatston)]


def class_number(agatston: float) -> int:
    """Place of a score's class among RISK_CLASSES, from 0. Raises ValueError for a negative score."""
    score = whole_score(agatston)
    return next((number for number, (highest, _) in enumerate(_CLASSES) if score <= highest), len(_CLASSES))


def cac_drs(agatston: float, vessels: int) -> str:
    """CAC-DRS for Agatston scores, as "A2/N3". vessels: how many of LM, LAD, LCX and RCA hold calcium.

    A0 0, A1 1–99, A2 100–299, A3 ≥ 300 (Hecht 2018, secondary source). Raises ValueError for impossible counts.
    """
    if not 0 <= vessels <= 4 or (vessels > 0 and agatston == 0):
        raise ValueError(f"{vessels} vessels with calcium do not fit a score of {agatston:g}")
    score = whole_score(agatston)
    level = next((name for highest, name in _CAC_DRS if score <= highest), "A3")
    return level if level == "A0" else f"{level}/N{vessels}"


def arterial_age_years(agatston: float) -> float:
    """39.1 + 7.25 ln(score + 1), McClelland 2009, doi:10.1016/j.amjcard.2008.08.031 (secondary source).

    Raises ValueError for a negative score.
    """
    _check_score(agatston)
    return 39.1 + 7.25 * math.log(agatston + 1)


@dataclass(frozen=True)
class Percentile:
    """Between which percentiles of a reference population a score lies; None where it is outside the table."""

    at_least: float | None
    below: float | None
    table: str

    def __str__(self) -> str:
        if self.at_least is None:
            return f"below percentile {self.below:g}"
        if self.below is None:
            return f"at or above percentile {self.at_least:g}"
        return f"from percentile {self.at_least:g} to below percentile {self.below:g}"


def percentile_from_table(agatston: float, sex: str, age_years: int, table: Path) -> Percentile:
    """Look a score up in the user's own table of percentiles by sex and age.

    Args:
        agatston: The Agatston score.
        sex: "F" or "M".
        age_years: Age in years.
        table: CSV with the columns sex (F or M), age_from, age_to (years, both included) and one column per percentile
            named p25, p50, …, holding the lowest Agatston score of that percentile.

    Raises:
        CTError: If the table cannot be read or has no single row for this person.
        ValueError: For a negative score.
    """
    _check_score(agatston)
    read = read_table(table, ("sex", "age_from", "age_to"))
    percents = {name: float(name[1:]) for name in read.columns if re.fullmatch(r"p\d+(\.\d+)?", name)}
    names = sorted((name for name, percent in percents.items() if 0 < percent < 100), key=percents.__getitem__)
    if not names:
        raise TableError(f"The table {table} has no column of a percentile. Name them p25, p50, …")
    matches = []
    for line in read.lines:
        line.need("sex")
        if line.text("sex").upper() == sex.upper():
            line.need("age_from", "age_to", *names)
            first, last, *limits = (line.number_in(name) or 0.0 for name in ("age_from", "age_to", *names))
            if first <= age_years <= last:
                matches.append(limits)
    if len(matches) != 1:
        raise CTError(
            f"The percentile table {table.name} has {len(matches)} rows for sex {sex}, age {age_years}; exactly one "
            "is needed."
        )
    limits = matches[0]
    if limits != sorted(limits):
        raise CTError(
            f"The percentiles of {table.name} for sex {sex}, age {age_years} do not increase. Correct the row."
        )
    reached = sum(agatston >= limit for limit in limits)
    ends = [None, *(percents[name] for name in names), None]
    return Percentile(ends[reached], ends[reached + 1], table.name)


def _check_score(agatston: float) -> None:
    if not (agatston >= 0 and math.isfinite(agatston)):
        raise ValueError(f"an Agatston score is a number from 0 up, not {agatston}")
