"""The whole way from a CT to its scores; the only place that knows the order of the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .anatomy.arteries import ArterySuggestion, suggest_arteries
from .anatomy.heart_region import HeartRegion, candidate_region
from .anatomy.heart_search import find_heart
from .calcium_map.decomposition import Decomposition, DecompositionSettings, calcium_map, calibration_warnings, without
from .calcium_map.slices import SliceProbabilities, check_switched, overlaps, slice_probabilities, switched_note
from .core.ct import CTError, CTScan, MaskError, ScanWarning, mask_on_scan_grid
from .core.labels import Artery
from .core.progress import Progress
from .results import MethodResult, Networks, ScoreResult, categories_of
from .scoring import risk
from .scoring.acquisition import examine, measure_blood, require_unenhanced
from .scoring.artefacts import metal_warning, noise_warning, without_metal
from .scoring.evidence import coronary_probabilities, lesion_features
from .scoring.lesions import LesionSet, ScoringRules, find_lesions, rules_for_tube_voltage
from .scoring.scores import score_arteries, score_lesions


def steps(networks: Networks | None) -> tuple[str, ...]:
    """Name the steps of `score_scan`.

    Returns:
        The names, in order, as told to its progress.
    """
    return ("heart", "acquisition", *(("decomposition",) if networks else ()), "lesions", "scores")


@dataclass(frozen=True)
class ScoreSettings:
    """What the user may choose.

    adapt_to_tube_voltage: use the thresholds published for the scan's kVp instead of those for 120 kVp.
    allow_contrast: score a contrast-enhanced scan all the same, with a warning.
    sex ("F" or "M"), age_years: override what DICOM says; used for percentiles only.
    percentile_table: CSV of the user's reference population (see `risk.percentile_from_table`).
    decomposition: None for the settings stored with the models.
    slices: a reader's overrides of slices, counted from the feet: True, it is taken
    apart; False, the calcium map is empty there.
    """

    rules: ScoringRules = field(default_factory=ScoringRules)
    adapt_to_tube_voltage: bool = False
    allow_contrast: bool = False
    sex: str | None = None
    age_years: int | None = None
    percentile_table: Path | None = None
    decomposition: DecompositionSettings | None = None
    slices: dict[int, bool] = field(default_factory=dict)


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
        lesions: A reader's label map (`Artery` values); only what it labels is scored, and an empty one is a reviewed
            score of 0. When None, everything at or above the threshold inside the heart region is reported as
            unassigned and unreviewed, and the lesions of the calcium map as the arteries that their place suggests,
            unreviewed as well.
        networks: The networks; None for the clinical rule alone.
        progress: Is told of the steps.

    Raises:
        NoHeartError: No heart was found.
        ContrastError: The scan was made with contrast.
        MaskError: The heart mask or the lesion labels do not fit the scan.
        CTError: The settings or the input cannot be used otherwise.
    """
    progress = progress or Progress()
    if settings.slices and networks is None:
        raise CTError(
            "Slice overrides change the calcium map, which needs the networks. Install the networks, or leave out "
            "--slice."
        )
    rules = settings.rules
    if settings.adapt_to_tube_voltage:
        rules = rules_for_tube_voltage(scan.acquisition.kvp, rules)

    reviewed, label_warnings = (None, []) if lesions is None else _reader_arteries(lesions, scan)
    with progress.step("heart"):
        region = find_heart(scan, heart, networks.heart if networks else None)
    with progress.step("acquisition"):
        blood = measure_blood(scan, region.mask)
        warnings = [*examine(scan, blood), *require_unenhanced(scan, blood, settings.allow_contrast)]
    found_slices = parts = None
    if networks:
        with progress.step("decomposition"):
            chosen = settings.decomposition or DecompositionSettings.of(networks.slices, networks.decomposition)
            found_slices, parts = _decomposition(scan, region, networks, chosen, reviewed, settings.slices)
            warnings += parts.warnings
            if reviewed is None and settings.decomposition is None:
                used = {"slices": networks.slices, "heart": None if heart is not None else networks.heart}
                warnings += calibration_warnings(networks.decomposition, used)
    with progress.step("lesions"):
        if reviewed is not None:
            arteries = reviewed
            found = find_lesions(scan.image, arteries, rules)
            label_warnings += outside_warning(found, region.mask)
            label_warnings += metal_warning(found, scan.image)
        else:
            arteries = candidate_region(region)
            found, label_warnings = without_metal(find_lesions(scan.image, arteries, rules), scan.image)
            label_warnings += [*noise_warning(found, blood), _UNREVIEWED]
            if settings.percentile_table is not None:
                message = (
                    "Percentiles are reported for reviewed scores only. Review the lesions and score again with "
                    "--lesions."
                )
                label_warnings.append(ScanWarning("percentile-unreviewed", message))
        suggestions = [] if lesions is not None else suggest_arteries(found, scan.image, region.mask)
        if found_slices is not None and parts is not None:
            noise_hu = None if blood is None else blood.noise_hu
            in_map, map_rules = map_lesions(scan, parts, arteries, rules)
            map_suggestions: list[ArterySuggestion] = []
            if reviewed is None:
                evaluated = evaluated_lesions(scan, region, found_slices, parts, in_map, noise_hu)
                in_map, map_suggestions, parts, map_warnings = without_improbable(scan, parts, in_map, evaluated)
                label_warnings += map_warnings
    with progress.step("scores"):
        spacing = scan.image.GetSpacing()
        methods = {"threshold": _scored(found, rules, spacing, reviewed, suggestions)}
        if parts:
            mapped = _scored(in_map, map_rules, spacing, reviewed, map_suggestions)
            # The scale makes up for what a map holds beside coronary calcium, which a reader's labels cut off.
            scale = parts.settings.agatston_scale if reviewed is None else None
            methods["decomposition"] = replace(mapped, agatston_scale=scale)
        threshold = methods["threshold"]
        categories = categories_of(threshold, _percentile(threshold, scan, settings))
    every = (*scan.warnings, *region.warnings, *warnings, *label_warnings)
    return ScoreResult(scan, region, blood, methods, categories, every, networks, found_slices, parts, settings.slices)


def _decomposition(
    scan: CTScan,
    region: HeartRegion,
    networks: Networks,
    chosen: DecompositionSettings,
    reviewed: np.ndarray | None,
    by_reader: dict[int, bool],
) -> tuple[SliceProbabilities, Decomposition]:
    """reviewed: a reader's labels, [k, j, i]; slices that hold any are decomposed whatever the network says, and so
    are those that `by_reader` switches on. In those it switches off the map is empty.
    """
    check_switched(by_reader, region.mask)
    on = {k for k, switched_on in by_reader.items() if switched_on}
    off = sorted(set(by_reader) - on)
    if reviewed is not None:
        on |= set(np.nonzero(reviewed.any((1, 2)))[0].tolist())
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
        parts = without(parts, scan, left_out)
        warnings += (switched_note(by_reader),)
    return found, replace(parts, warnings=warnings)


def map_lesions(
    scan: CTScan, parts: Decomposition, arteries: np.ndarray, rules: ScoringRules
) -> tuple[LesionSet, ScoringRules]:
    """Find the lesions of the calcium map.

    Weights are read from the CT, because their bounds are HU of tissue and not of what the calcium adds to it: so the
    score equals the conventional one where the map is what a 130 HU threshold segments.

    Returns:
        The lesions, and the rules they are scored by.
    """
    rules = replace(
        rules,
        name=f"Adjusted Agatston of the calcium map (van Velzen), otherwise: {rules.name}",
        threshold_hu=parts.settings.floor_hu,
    )
    return find_lesions(parts.calcium_map, arteries, rules, peaks=scan.image), rules


def evidence_of(
    scan: CTScan,
    slices: SliceProbabilities,
    parts: Decomposition,
    found: LesionSet,
    suggestions: list[ArterySuggestion],
    noise_hu: float | None,
) -> np.ndarray:
    """`evidence.FEATURES` of the map's lesions, [n, features]. suggestions: by their places."""
    values = sitk.GetArrayViewFromImage(parts.calcium_map)
    voxel_mm3 = math.prod(scan.image.GetSpacing())
    return lesion_features(found, values, voxel_mm3, slices.on_scan, suggestions, noise_hu)


def evaluated_lesions(
    scan: CTScan,
    region: HeartRegion,
    slices: SliceProbabilities,
    parts: Decomposition,
    found: LesionSet,
    noise_hu: float | None,
) -> list[ArterySuggestion]:
    """The artery that each of the map's lesions probably belongs to, and how probably it is not coronary calcium: by
    all evidence where the model holds its weights, else by the lesion's place alone."""
    suggestions = suggest_arteries(found, scan.image, region.mask)
    weights = parts.settings.evidence_weights
    if not weights or not suggestions:
        return suggestions
    features = evidence_of(scan, slices, parts, found, suggestions, noise_hu)
    coronary = coronary_probabilities(features, weights)
    return [replace(s, not_coronary_probability=float(1 - p)) for s, p in zip(suggestions, coronary, strict=True)]


def without_improbable(
    scan: CTScan, parts: Decomposition, found: LesionSet, evaluated: list[ArterySuggestion]
) -> tuple[LesionSet, list[ArterySuggestion], Decomposition, list[ScanWarning]]:
    """Leave out lesions of an unreviewed map that are probably not coronary calcium.

    Returns:
        The other lesions in their probable arteries, their evaluations, the decomposition without those left out
        (`DecompositionSettings.most_not_coronary`), and a warning about them.
    """
    limit = parts.settings.most_not_coronary
    pairs = list(zip(found.lesions, evaluated, strict=True))
    kept = [(lesion, own) for lesion, own in pairs if own.not_coronary_probability <= limit]
    id_map, notes = found.id_map, []
    if count := len(pairs) - len(kept):
        left_out = np.isin(id_map, [own.lesion_id for _, own in pairs if own.not_coronary_probability > limit])
        id_map = np.where(left_out, id_map.dtype.type(0), id_map)
        parts = without(parts, scan, left_out)
        message = (
            f"{count} lesions of the calcium map were left out because they are probably noise or not coronary calcium."
        )
        notes.append(ScanWarning("map-left-out", message))
    lesions = tuple(replace(lesion, artery=own.artery) for lesion, own in kept)
    return LesionSet(lesions, id_map), [own for _, own in kept], parts, notes


def _scored(
    lesions: LesionSet,
    rules: ScoringRules,
    spacing_mm: tuple[float, float, float],
    reviewed: np.ndarray | None,
    suggestions: list[ArterySuggestion],
) -> MethodResult:
    """reviewed: a reader's labels, [k, j, i]; None while nobody has reviewed the lesions."""
    return MethodResult(
        reviewed=reviewed is not None,
        rules=rules,
        lesions=lesions,
        total=score_lesions(lesions.lesions, spacing_mm, rules),
        arteries=score_arteries(lesions.lesions, spacing_mm, rules),
        suggestions=tuple(suggestions),
        no_calcium=reviewed is not None and not reviewed.any(),
    )


_UNREVIEWED = ScanWarning(
    "unreviewed",
    "These candidates have not been reviewed. They include everything dense inside the heart region: coronary and "
    "valve calcium, the aorta, and noise. Assign the coronary lesions to their arteries in lesions.nii.gz and score "
    "again with --lesions.",
)


_NO_CALCIUM = ScanWarning(
    "reviewed-empty",
    "The lesion label map is empty, so this is a reviewed score of 0: no coronary calcium. If the file is empty by "
    "mistake, score again with the right one.",
)


def _reader_arteries(lesions: sitk.Image, scan: CTScan) -> tuple[np.ndarray, list[ScanWarning]]:
    labels, resampled = mask_on_scan_grid(lesions, scan, "lesion label map", may_be_empty=True)
    arteries = sitk.GetArrayFromImage(labels)
    highest = int(arteries.max())
    if highest > max(Artery):
        meaning = ", ".join(f"{a.value} {a.key}" for a in Artery)
        raise MaskError(f"The lesion label map contains the label {highest}; valid labels are {meaning}.")
    warnings = list(resampled)
    if not highest:
        warnings.append(_NO_CALCIUM)
    if (unassigned := arteries == Artery.UNASSIGNED).any():
        if (unassigned == (arteries > 0)).all():
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
    ids, outside = found.id_map[slices], sitk.GetArrayViewFromImage(heart)[slices] == 0
    count = len(np.unique(ids[outside & (ids > 0)]))
    if not count:
        return []
    message = (
        f"{count} labelled lesion(s) extend beyond the heart region. The clinical rule scores them as labelled, but "
        "the calcium map covers the heart only. Give --heart MASK if the heart outline is wrong."
    )
    return [ScanWarning("label-outside-heart", message)]


def _percentile(threshold: MethodResult, scan: CTScan, settings: ScoreSettings) -> risk.Percentile | None:
    if settings.percentile_table is None or not threshold.reviewed:
        return None
    sex = settings.sex or scan.acquisition.patient_sex
    age = settings.age_years if settings.age_years is not None else scan.acquisition.patient_age_years
    if sex is None or age is None:
        raise CTError("Percentiles need sex and age, which the scan's header does not state. Give --sex and --age.")
    return risk.percentile_from_table(threshold.total.agatston, sex, age, settings.percentile_table)
