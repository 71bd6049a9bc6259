"""Lesions of the calcium map: found, given to arteries, and told from what is not coronary calcium."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from ..anatomy.arteries import ArterySuggestion
from ..anatomy.heart_region import HeartRegion
from ..calcium_map.decomposition import Decomposition, without
from ..calcium_map.slices import SliceProbabilities
from ..core.ct import CTScan, ScanWarning
from .artefacts import without_metal
from .equivalent import usual_calibration
from .evidence import coronary_probabilities, lesion_features
from .lesions import LesionSet, ScoringRules, find_lesions
from .sites import suggested_arteries


def map_lesions(
    scan: CTScan, parts: Decomposition, arteries: np.ndarray, rules: ScoringRules
) -> tuple[LesionSet, ScoringRules]:
    """Find the lesions of the calcium map.

    Weights are read from the CT, because their bounds are HU of tissue and not of what the calcium adds to it: so the
    score equals the conventional one where the map is what a 130 HU threshold segments. The clinical score follows
    from each lesion's mass, by the scan's calibration or the usual one of its tube voltage.

    Returns:
        The lesions, and the rules they are scored by.
    """
    rules = replace(
        rules,
        name=f"Adjusted Agatston of the calcium map (van Velzen), otherwise: {rules.name}",
        threshold_hu=parts.settings.floor_hu,
        equivalent_mg_per_mm3_hu=rules.calibration_mg_per_mm3_hu or usual_calibration(scan.acquisition.kvp),
    )
    return find_lesions(parts.calcium_map, arteries, rules, peaks=scan.image), rules


def map_without_metal(
    scan: CTScan, parts: Decomposition, found: LesionSet
) -> tuple[LesionSet, Decomposition, list[ScanWarning]]:
    """Leave out lesions of the map that are metal.

    Returns:
        The other lesions, the decomposition without those left out, and a warning that names them.
    """
    kept, warnings = without_metal(found, scan.image)
    if warnings:
        parts = without(parts, (found.id_map > 0) & (kept.id_map == 0))
    return kept, parts, warnings


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
    suggestions = suggested_arteries(found, scan, region)
    weights = parts.settings.evidence_weights
    if not weights or not suggestions:
        return suggestions
    features = evidence_of(scan, slices, parts, found, suggestions, noise_hu)
    coronary = coronary_probabilities(features, weights)
    return [replace(s, not_coronary_probability=float(1 - p)) for s, p in zip(suggestions, coronary, strict=True)]


def without_improbable(
    scan: CTScan, parts: Decomposition, found: LesionSet, evaluated: list[ArterySuggestion]
) -> tuple[LesionSet, list[ArterySuggestion], Decomposition, list[ScanWarning]]:
    """Leave out lesions of an unreviewed map that are probably not coronary calcium, or lie at another site.

    Args:
        scan: The CT.
        parts: Its decomposition.
        found: All lesions of the map.
        evaluated: Of those that lie in arteries, in their order.

    Returns:
        The other lesions in their probable arteries, their evaluations, the decomposition without those left out
        (`DecompositionSettings.most_not_coronary`), and a warning about the improbable ones.
    """
    limit = parts.settings.most_not_coronary
    own_of = {own.lesion_id: own for own in evaluated if own.not_coronary_probability <= limit}
    kept = found.of(own_of)
    notes = []
    if len(kept.lesions) < len(found.lesions):
        parts = without(parts, (found.id_map > 0) & (kept.id_map == 0))
    if count := len(evaluated) - len(own_of):
        counted, verb = ("1 lesion", "was") if count == 1 else (f"{count} lesions", "were")
        message = f"{counted} of the calcium map {verb} left out, as probably noise or not coronary calcium."
        notes.append(ScanWarning("map-left-out", message))
    lesions = tuple(replace(lesion, artery=own_of[lesion.id].artery) for lesion in kept.lesions)
    return LesionSet(lesions, kept.id_map), list(own_of.values()), parts, notes
