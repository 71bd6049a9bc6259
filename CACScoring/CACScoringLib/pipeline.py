"""The whole way from a CT to its scores; the only place that knows the order of the steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .anatomy.arteries import ArterySuggestion
from .anatomy.heart_region import HeartRegion
from .anatomy.heart_search import find_heart
from .anatomy.orientation import require_oriented
from .calcium_map.decomposition import Decomposition, DecompositionSettings, calcium_map, calibration_warnings, without
from .calcium_map.slices import SliceProbabilities, check_switched, overlaps, slice_probabilities, switched_note
from .core.ct import CTError, CTScan, MaskError, ScanWarning, mask_on_scan_grid
from .core.labels import SITES, Artery
from .core.progress import Progress
from .results import (
    MethodResult,
    Networks,
    NonCoronaryResult,
    ScoreResult,
    categories_of,
    with_intervals,
    with_masses,
)
from .scoring import risk
from .scoring.acquisition import BloodPool, examine, measure_blood, require_unenhanced
from .scoring.artefacts import metal_lesions, metal_warning, noise_warning, without_metal
from .scoring.automatic import CandidateEvidence, LeftOut, evaluated_candidates
from .scoring.familiarity import METAL, Familiarity, Known, facts_of
from .scoring.lesions import LesionSet, ScoringRules, find_lesions, rules_for_tube_voltage
from .scoring.map_lesions import evaluated_lesions, evidence_of, map_lesions, map_without_metal, without_improbable
from .scoring.mass_calibration import MassCalibration, scan_calibration
from .scoring.normalisation import Normalisation, normalisation_of
from .scoring.scores import score_arteries, score_lesions, score_non_coronary
from .scoring.sites import candidate_sites, suggested_arteries
from .scoring.uncertainty import ScanErrors


def steps(networks: Networks | None) -> tuple[str, ...]:
    """Name the steps of `score_scan`.

    Returns:
        The names, in order, as told to its progress.
    """
    return ("heart", "acquisition", *(("decomposition",) if networks else ()), "lesions", "scores")


@dataclass(frozen=True)
class ScoreSettings:
    """What the user may choose.

    candidates: leave nothing out of the candidates of the clinical rule, whatever the networks say of them.
    adapt_to_tube_voltage: use the thresholds published for the scan's kVp instead of those for 120 kVp.
    allow_contrast: score a contrast-enhanced scan all the same, with a warning.
    allow_reversed: score a scan whose anatomy contradicts its header's orientation all the same, with a warning.
    normalisation: whether the scan is brought to a soft kernel and slices of 3 mm before it is scored, of
    `normalisation.MODES`.
    sex ("F" or "M"), age_years: override what DICOM says; used for percentiles only.
    percentile_table: CSV of the user's reference population (see `risk.percentile_from_table`).
    decomposition: None for the settings stored with the models.
    slices: a reader's overrides of slices, counted from the feet: True, it is taken
    apart; False, the calcium map is empty there.
    calibration: of an insert in the scan, or of a digital patient; None for the rules' or the best that is known.
    mass_table: CSV of the user's mass calibrations (`mass_calibration.from_table`).
    """

    rules: ScoringRules = field(default_factory=ScoringRules)
    candidates: bool = False
    adapt_to_tube_voltage: bool = False
    allow_contrast: bool = False
    allow_reversed: bool = False
    normalisation: str = "auto"
    sex: str | None = None
    age_years: int | None = None
    percentile_table: Path | None = None
    decomposition: DecompositionSettings | None = None
    slices: dict[int, bool] = field(default_factory=dict)
    calibration: MassCalibration | None = None
    mass_table: Path | None = None


def score_scan(
    scan: CTScan,
    settings: ScoreSettings = ScoreSettings(),
    heart: sitk.Image | None = None,
    lesions: sitk.Image | None = None,
    networks: Networks | None = None,
    progress: Progress | None = None,
) -> ScoreResult:
    """Score a CT by the clinical rule, and with networks without a threshold too.

    Args:
        scan: The CT.
        settings: How it is done.
        heart: Mask of the heart, on any grid; found when None.
        lesions: A reader's label map (`Site` values); of the arteries only what it labels is scored, and a map
            without any is a reviewed score of 0. The calcium map stays automatic. Calcium elsewhere is that which it
            labels, or if it labels none, what lies in the territories of valves and great vessels. When None, the
            candidates at or above the threshold that count by the networks' evidence (`scoring.automatic`) are
            reported in the arteries of their territories. Without that evidence all candidates are; without
            territories they are unassigned.
        networks: The networks; None for the clinical rule alone.
        progress: Is told of the steps.

    Raises:
        NoHeartError: No heart was found.
        ContrastError: The scan was made with contrast.
        OrientationError: The anatomy contradicts the orientation in the file's header.
        MaskError: The heart mask or the lesion labels do not fit the scan.
        CTError: The settings or the input cannot be used otherwise.
    """
    progress = progress or Progress()
    if settings.slices and networks is None:
        raise CTError(
            "Slice overrides change the calcium map, which needs the networks. Install the networks, or leave "
            "the overrides out."
        )
    rules = settings.rules
    if settings.adapt_to_tube_voltage:
        rules = rules_for_tube_voltage(scan.acquisition.kvp, rules)

    reviewed, label_warnings = (None, []) if lesions is None else _reader_arteries(lesions, scan)
    with progress.step("heart"):
        original, normalisation = scan, normalisation_of(scan, settings.normalisation)
        scan = normalisation.of(original)
        finders = (networks.heart, networks.territories) if networks else (None, None)
        region = find_heart(scan, heart, *finders)
    with progress.step("acquisition"):
        calibration, rules = _calibrated(scan, region, settings, rules)
        blood = measure_blood(scan, region.mask)
        normalisation = _with_noise(normalisation, original, region)
        warnings = [*normalisation.warnings(), *examine(scan, blood)]
        warnings += require_unenhanced(scan, blood, settings.allow_contrast)
        # Enhanced vessels look like bone.
        enhanced = blood is not None and blood.enhanced
        warnings += () if enhanced else require_oriented(scan, region.mask, settings.allow_reversed)
    found_slices = parts = None
    if networks:
        with progress.step("decomposition"):
            chosen = settings.decomposition or DecompositionSettings.of(networks.slices, networks.decomposition)
            found_slices, parts = _decomposition(scan, region, networks, chosen, settings.slices)
            warnings += parts.warnings
            if settings.decomposition is None:
                found_by = None if heart is not None else networks.heart
                used = {"slices": networks.slices, "heart": found_by, "territories": networks.territories}
                warnings += calibration_warnings(networks.decomposition, used)
    with progress.step("lesions"):
        territory_labels = None if region.territories is None else region.territories.labels(scan.image)
        seen = _Seen(scan, region, territory_labels, rules, reviewed, blood)
        dense, has_metal, dense_warnings = _dense_lesions(seen)
        familiarity = _familiarity(seen, networks, has_metal)
        warnings += familiarity.warnings if familiarity else []
        evidence = None
        if networks and reviewed is None and not settings.candidates:
            evidence = CandidateEvidence.stored(networks.decomposition.card.calibration)
        clinical, clinical_warnings = _clinical(seen, dense.coronary, found_slices, parts, evidence)
        label_warnings += [*dense_warnings, *clinical_warnings]
        if settings.percentile_table is not None and reviewed is None:
            label_warnings.append(_NO_PERCENTILE)
        if found_slices and parts:
            in_map, map_rules, parts, map_warnings = _mapped(seen, found_slices, parts)
            label_warnings += _not_yet_given(map_warnings, label_warnings)
    with progress.step("scores"):
        methods = {"threshold": _scored(seen, clinical, rules)}
        if parts:
            methods["decomposition"] = _scored(seen, in_map, map_rules)
        if networks:
            facts = (seen.noise_hu, scan.acquisition.slice_thickness_mm, familiarity)
            errors = ScanErrors.stored(networks.decomposition.card, *facts)
            methods = {name: with_intervals(name, method, errors) for name, method in methods.items()}
        threshold = methods["threshold"]
        categories = categories_of(threshold, _percentile(threshold, scan, settings))
        non_coronary = _non_coronary(seen, dense)
        every = (*scan.warnings, *region.warnings, *warnings, *label_warnings)
        return with_masses(
            ScoreResult(
                original,
                region,
                blood,
                methods,
                categories,
                every,
                territory_labels,
                non_coronary,
                networks,
                found_slices,
                parts,
                settings.slices,
                familiarity=familiarity,
                normalisation=normalisation,
                scored=scan if normalisation.changes else None,
                mass_calibration=calibration,
            )
        )


def _calibrated(
    scan: CTScan, region: HeartRegion, settings: ScoreSettings, rules: ScoringRules
) -> tuple[MassCalibration, ScoringRules]:
    """The scan's mass calibration, and the rules with it where it is the scanner's own."""
    given = rules.calibration_mg_per_mm3_hu
    calibration = settings.calibration or scan_calibration(scan, region.mask, given, settings.mass_table)
    if calibration.of_scanner:
        rules = replace(rules, calibration_mg_per_mm3_hu=calibration.mg_per_cm3_per_hu / 1000)
    return calibration, rules


def _with_noise(normalisation: Normalisation, original: CTScan, region: HeartRegion) -> Normalisation:
    """What the noise was before."""
    blood = measure_blood(original, region.mask) if normalisation.changes else None
    return normalisation if blood is None else replace(normalisation, noise_hu=blood.noise_hu)


@dataclass(frozen=True)
class _Seen:
    """A scan, and what was found in it before its lesions. territory_labels: on the scan's grid. reviewed: a reader's
    labels, [k, j, i]; None where nobody has reviewed the lesions."""

    scan: CTScan
    region: HeartRegion
    territory_labels: sitk.Image | None
    rules: ScoringRules
    reviewed: np.ndarray | None
    blood: BloodPool | None

    @property
    def noise_hu(self) -> float | None:
        return None if self.blood is None else self.blood.noise_hu

    def sites(self, candidates: np.ndarray) -> np.ndarray:
        """Where each candidate voxel belongs, `candidate_sites`."""
        return candidate_sites(self.region, self.territory_labels, candidates)


@dataclass(frozen=True)
class _Chosen:
    """Lesions of the arteries that count. suggestions: of each while nobody has reviewed them. Other fields as of
    `MethodResult`."""

    status: str
    lesions: LesionSet
    suggestions: list[ArterySuggestion]
    left_out: LeftOut | None = None
    no_calcium: bool = False


def _familiarity(seen: _Seen, networks: Networks | None, has_metal: bool) -> Familiarity | None:
    """None where nothing is known to tell it by. has_metal: as of `_dense_lesions`."""
    known = Known.stored(networks.decomposition.card.calibration) if networks else None
    if known is None:
        return None
    found = known.familiarity(facts_of(seen.scan, seen.blood, seen.region.mask))
    return found.beyond_by(METAL) if has_metal else found


def _dense_lesions(seen: _Seen) -> tuple[LesionSet, bool, list[ScanWarning]]:
    """All lesions by the clinical rule, those outside the arteries too; whether candidates in an artery's place were
    metal, beside which streaks can count, whatever a reader labelled; and what lies outside the heart or is metal."""
    image = seen.scan.image
    found = find_lesions(image, seen.sites(seen.scan.hu >= seen.rules.threshold_hu), seen.rules)
    kept, warnings = without_metal(found, image)
    has_metal = len(kept.coronary.lesions) < len(found.coronary.lesions)
    if seen.reviewed is not None:
        kept = find_lesions(image, seen.reviewed, seen.rules)
        warnings += outside_warning(kept.coronary, seen.region.mask)
        warnings += metal_warning(kept, metal_lesions(kept, image))
    return kept, has_metal, warnings


def _clinical(
    seen: _Seen,
    found: LesionSet,
    slices: SliceProbabilities | None,
    parts: Decomposition | None,
    evidence: CandidateEvidence | None,
) -> tuple[_Chosen, list[ScanWarning]]:
    """What counts of the arteries' lesions by the clinical rule, and its doubts. Without territories, by whose arteries
    the score is told, or without evidence, all candidates do."""
    if seen.reviewed is not None:
        return _Chosen("reviewed", found, [], no_calcium=not _in_arteries(seen.reviewed).any()), []
    chosen = _Chosen("candidates", found, suggested_arteries(found, seen.scan, seen.region))
    if evidence is not None and seen.region.territories is not None and slices and parts:
        places = chosen.suggestions
        features = evidence_of(seen.scan, slices, parts, found, places, seen.noise_hu)
        chosen = _Chosen("automatic", *evaluated_candidates(found, features, places, evidence))
    return chosen, [*noise_warning(chosen.lesions, seen.blood), _not_reviewed(chosen, seen.region)]


def _mapped(
    seen: _Seen, slices: SliceProbabilities, parts: Decomposition
) -> tuple[_Chosen, ScoringRules, Decomposition, list[ScanWarning]]:
    """The lesions of the calcium map that count, their rules, the map that holds no others, and its doubts.

    Labels of lesions in the CT end at the threshold of the clinical rule, so they do not review the map.
    """
    scan = seen.scan
    dense = sitk.GetArrayViewFromImage(parts.calcium_map) >= parts.settings.floor_hu
    found, rules = map_lesions(scan, parts, seen.sites(dense), seen.rules)
    found, parts, metal = map_without_metal(scan, parts, found)
    evaluated = evaluated_lesions(scan, seen.region, slices, parts, found.coronary, seen.noise_hu)
    found, suggestions, parts, left_out = without_improbable(scan, parts, found, evaluated)
    return _Chosen("automatic", found.coronary, suggestions), rules, parts, [*metal, *left_out]


def _non_coronary(seen: _Seen, found: LesionSet) -> NonCoronaryResult | None:
    """Calcium outside the coronary arteries: as a reader labelled it, else where the territories say; None where
    neither is known. found: all lesions by the clinical rule.
    """
    reviewed, rules, image = seen.reviewed, seen.rules, seen.scan.image
    by_reader = reviewed is not None and bool((reviewed > max(Artery)).any())
    if seen.territory_labels is None and not by_reader:
        return None
    if reviewed is not None and not by_reader:
        sites = seen.sites((seen.scan.hu >= rules.threshold_hu) & (reviewed == 0))
        sites[sites <= max(Artery)] = 0
        found, _ = without_metal(find_lesions(image, sites, rules), image)
    elsewhere = found.non_coronary
    scores = score_non_coronary(elsewhere.lesions, image.GetSpacing(), rules)
    return NonCoronaryResult(by_reader, rules, elsewhere, scores)


def _decomposition(
    scan: CTScan,
    region: HeartRegion,
    networks: Networks,
    chosen: DecompositionSettings,
    by_reader: dict[int, bool],
) -> tuple[SliceProbabilities, Decomposition]:
    """Slices that `by_reader` switches on are decomposed whatever the network says; the map is empty in those it
    switches off."""
    check_switched(by_reader, region.mask)
    on = {k for k, switched_on in by_reader.items() if switched_on}
    off = sorted(set(by_reader) - on)
    found = slice_probabilities(scan, region.mask, networks.slices)
    overlap = overlaps(found.slices.grid, scan.image.GetSize()[2])
    probabilities = np.where(overlap[:, sorted(on)].any(1), np.float32(1), found.on_grid)
    # A slice of the grid that also lies in one that is not switched off is needed there.
    probabilities[~np.delete(overlap, off, axis=1).any(1)] = 0
    parts = calcium_map(scan, region.mask, found.slices, probabilities, networks.decomposition, chosen)
    warnings = found.warnings + parts.warnings
    if by_reader:
        left_out = np.zeros((overlap.shape[1], 1, 1), bool)
        left_out[off] = True
        parts = without(parts, left_out)
        warnings += (switched_note(by_reader),)
    return found, replace(parts, warnings=warnings)


def _scored(seen: _Seen, chosen: _Chosen, rules: ScoringRules) -> MethodResult:
    spacing = seen.scan.image.GetSpacing()
    return MethodResult(
        status=chosen.status,
        rules=rules,
        lesions=chosen.lesions,
        total=score_lesions(chosen.lesions.lesions, spacing, rules),
        arteries=score_arteries(chosen.lesions.lesions, spacing, rules),
        suggestions=tuple(chosen.suggestions),
        no_calcium=chosen.no_calcium,
        left_out=chosen.left_out,
    )


def _not_yet_given(warnings: list[ScanWarning], given: list[ScanWarning]) -> list[ScanWarning]:
    """Those whose code is not among the given: metal in the map mostly is a candidate by the clinical rule, too."""
    codes = {warning.code for warning in given}
    return [warning for warning in warnings if warning.code not in codes]


def _not_reviewed(chosen: _Chosen, region: HeartRegion) -> ScanWarning:
    if chosen.left_out is not None:
        count, others = len(chosen.lesions.lesions), len(chosen.left_out.lesions.lesions)
        if not count + others:
            message = "The clinical score is automatic: there are no candidates. Nobody has reviewed the scan."
            return ScanWarning("automatic", message)
        message = (
            f"The clinical score is automatic: of {count + others} candidates, {count} count, by the networks' "
            "evidence. Nobody has reviewed them. Review them in 3D Slicer or the browser; or correct their labels in "
            f"lesions.nii.gz, where those left out are labelled {int(Artery.UNASSIGNED)}, and score again with "
            "--lesions."
        )
        return ScanWarning("automatic", message)
    where = "inside the heart region: coronary and valve calcium, the aorta, and noise."
    if region.territories is not None:
        where = "in the territories of the coronary arteries, noise included, each in the artery of its territory."
    message = (
        f"These candidates have not been reviewed. They include everything dense {where} Review them in 3D "
        "Slicer or the browser; or correct their labels in lesions.nii.gz and score again with --lesions."
    )
    return ScanWarning("unreviewed", message)


_NO_PERCENTILE = ScanWarning(
    "percentile-unreviewed",
    "Percentiles are reported for reviewed scores only. Review the lesions and score again with --lesions.",
)


_NO_CALCIUM = ScanWarning(
    "reviewed-empty",
    "The lesion label map holds no artery, so this is a reviewed score of 0: no coronary calcium. If that is a "
    "mistake, score again with the right file.",
)


def _in_arteries(labels: np.ndarray) -> np.ndarray:
    return (labels > 0) & (labels <= max(Artery))


def _reader_arteries(lesions: sitk.Image, scan: CTScan) -> tuple[np.ndarray, list[ScanWarning]]:
    labels, resampled = mask_on_scan_grid(lesions, scan, "lesion label map", may_be_empty=True)
    arteries = sitk.GetArrayFromImage(labels)
    if unknown := set(np.unique(arteries).tolist()) - {0, *SITES}:
        meaning = ", ".join(f"{site.value} {site.full_name if site > max(Artery) else site.key}" for site in SITES)
        raise MaskError(f"The lesion label map contains the label {max(unknown)}; valid labels are {meaning}.")
    warnings = list(resampled)
    if not _in_arteries(arteries).any():
        warnings.append(_NO_CALCIUM)
    if (unassigned := arteries == Artery.UNASSIGNED).any():
        if (unassigned == _in_arteries(arteries)).all():
            raise MaskError(
                f"All {int(unassigned.sum())} voxels of the lesion label map are labelled {int(Artery.UNASSIGNED)} "
                "(unassigned), so they have not been reviewed. Assign the coronary lesions to their arteries and "
                "clear the rest; an empty label map means that there is no coronary calcium."
            )
        message = (
            f"{int(unassigned.sum())} voxels are labelled {int(Artery.UNASSIGNED)} (unassigned) and were left out."
        )
        warnings.append(ScanWarning("unassigned-left-out", message))
        arteries[unassigned] = 0
    return arteries, warnings


def outside_warning(found: LesionSet, heart: sitk.Image) -> list[ScanWarning]:
    """The doubt about labelled lesions that reach out of the heart, if any do. heart: mask on the scan's grid."""
    slices = sorted({k for lesion in found.lesions for k in lesion.slice_indices})
    values = sitk.GetArrayViewFromImage(heart)
    beyond: set[int] = set()
    for k in slices:  # one after the other: of a large scan all of them at once take long
        at = np.nonzero(found.id_map[k])
        beyond.update(found.id_map[k][at][values[k][at] == 0].tolist())
    if not beyond:
        return []
    message = (
        f"{len(beyond)} labelled lesion(s) extend beyond the heart region. The clinical rule scores them as labelled, "
        "but the calcium map covers the heart only. Give --heart MASK if the heart outline is wrong."
    )
    return [ScanWarning("label-outside-heart", message)]


def _percentile(threshold: MethodResult, scan: CTScan, settings: ScoreSettings) -> risk.Percentile | None:
    if settings.percentile_table is None or not threshold.reviewed:
        return None
    sex = settings.sex or scan.acquisition.patient_sex
    age = settings.age_years if settings.age_years is not None else scan.acquisition.patient_age_years
    if sex is None or age is None:
        raise CTError("Percentiles need sex and age_years in --settings, as the scan's header does not state them.")
    return risk.percentile_from_table(threshold.total.agatston, sex, age, settings.percentile_table)
