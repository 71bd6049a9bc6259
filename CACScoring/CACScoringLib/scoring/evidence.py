"""Evidence that a lesion is coronary calcium: its place, the calcium map and its slices.

What calcium at a place belongs to follows by Bayes' rule: an artery's territory is far likelier to hold calcium than as
much muscle. A lesion that spans arteries, or an artery and the aortic annulus, is split between them voxel by voxel.

Candidates of the clinical rule and lesions of the calcium map go the same way. A generator's map always holds some haze
around vessels and some of the aortic wall's and the valves' calcium, and a threshold everything dense. No single limit
separates either from coronary calcium, but mass, peaks, place and the slice classifier's opinion together do better.
The weights are those of a logistic regression on scans whose calcium is known (`cac calibrate`), and are stored with
the model of the map. Nothing is thrown away: lesions that do not count are returned with their probability and the
reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.spatial import cKDTree

from ..anatomy.heart_region import BONE_LABEL, HeartRegion
from ..anatomy.territories import Territories
from ..calcium_map.decomposition import DecomposedHeart
from ..core.ct import CTError, CTScan
from ..core.labels import MAIN_ARTERIES, TERRITORIES, Artery, NonCoronary, Site
from .arteries import ArterySuggestion, suggest_arteries
from .lesions import Lesion, LesionSet, connected_voxels

REASONS = {
    "log_mass": "little for coronary calcium",
    "log_map_excess": "faint or absent in the calcium map",
    "log_ct_excess": "hardly above blood and its noise",
    "slice_logit": "its slices hardly show coronary calcium",
    "place_logit": "not where coronary arteries run",
}
"""Reason to leave a lesion out, by the feature that it lacks most."""

FEATURES = tuple(REASONS)
"""Features of a lesion: natural logarithms of its pseudo-mass (HU·mm³), of the excess of the map's peak over noise in a
map (MAP_NOISE_SDS, HU), and of the excess of the CT's peak over blood and its noise (NOISE_SDS, HU); log-odds of
visible calcium in its likeliest slice, and of its place being coronary. No weight is negative: more calcium, or a
likelier place, never makes a lesion less probable.
"""

BLOOD_HU, NOISE_SDS, MAP_NOISE_SDS = 45.0, 3.0, 1.5
"""Unenhanced blood; standard deviations up to which a peak may be noise, above blood in the CT, and in the map, which
is less noisy."""

INTERCEPT = "intercept"
UNKNOWN_NOISE_HU = 15.0
_LEAST_PROBABILITY = 1e-3


@dataclass(frozen=True)
class Evidence:
    """Weights by which lesions are judged.

    Attributes:
        weights: Weights of FEATURES and INTERCEPT; None if the place alone decides.
        typical: Features of a typical candidate that is coronary calcium, from which reasons follow; None if no reasons
            are asked for.
        most_not_coronary: Probability of not being coronary above which a lesion is left out.
    """

    weights: dict[str, float] | None
    typical: dict[str, float] | None
    most_not_coronary: float

    @classmethod
    def stored(cls, calibration: Mapping[str, Any]) -> Evidence | None:
        """Read the evidence of candidates from a model's calibration.

        Returns:
            The evidence; None if the calibration holds none.

        Raises:
            CTError: It does not match this version.
        """
        content = calibration.get("candidates")
        if content is None:
            return None
        try:
            return cls(**content)
        except TypeError as error:
            message = f"The model's evidence of candidates cannot be read ({error}). Calibrate it again."
            raise CTError(message) from error

    def judge(self, suggestions: Sequence[ArterySuggestion], features: np.ndarray) -> list[ArterySuggestion]:
        """Return suggestions by place with the probability by all evidence, and the evidence where it gives reasons.

        Args:
            suggestions: Suggested artery of each lesion, by its place.
            features: FEATURES of each, [n, features].

        Raises:
            CTError: The weights are of other features.
        """
        if not self.weights or not suggestions:
            return list(suggestions)
        probabilities = 1 - coronary_probabilities(features, self.weights)
        rows = [{} if self.typical is None else dict(zip(FEATURES, row, strict=True)) for row in features.tolist()]
        return [
            replace(suggestion, not_coronary_probability=float(probability), evidence=row)
            for suggestion, probability, row in zip(suggestions, probabilities, rows, strict=True)
        ]

    def reasons(self, features: np.ndarray) -> list[str]:
        """Return what the evidence of each lesion lacks most, [n, features]; empty strings without typical features."""
        if not self.weights or self.typical is None:
            return [""] * len(features)
        weights, typical = (np.array([values[name] for name in FEATURES]) for values in (self.weights, self.typical))
        return [REASONS[FEATURES[int(n)]] for n in (weights * (typical - features)).argmax(1)]


@dataclass(frozen=True)
class LeftOut:
    """Lesions that probably are no coronary calcium.

    Attributes:
        lesions: The lesions, with the ids they had among all.
        suggestions: Their suggested arteries, in their order, with the probability that they are not coronary.
        reasons: Reasons in words, in their order; empty strings where none were asked for.
    """

    lesions: LesionSet
    suggestions: tuple[ArterySuggestion, ...]
    reasons: tuple[str, ...]

    def candidates(self) -> Iterator[tuple[Lesion, ArterySuggestion, str]]:
        """Iterate over the lesions, each with its suggestion and reason."""
        return zip(self.lesions.lesions, self.suggestions, self.reasons, strict=True)


@dataclass(frozen=True)
class LesionSelection:
    """Lesions divided by their evidence.

    Attributes:
        lesions: Lesions that count, each in its suggested artery.
        suggestions: Their suggested arteries, in their order, with the probability by all evidence.
        left_out: Lesions that do not count.
    """

    lesions: LesionSet
    suggestions: tuple[ArterySuggestion, ...]
    left_out: LeftOut


@dataclass(frozen=True)
class LesionJudge:
    """Networks' findings in a scan, from which its lesions are judged.

    Attributes:
        scan: The scan as scored.
        heart: Heart and territories.
        decomposed: Calcium map and slice probabilities.
        noise_hu: Noise of blood, SD; None if it could not be measured.
        candidate_evidence: Weights for candidates of the clinical rule; None to leave none of them out.
    """

    scan: CTScan
    heart: HeartRegion
    decomposed: DecomposedHeart
    noise_hu: float | None
    candidate_evidence: Evidence | None

    def select(self, lesions: LesionSet, evidence: Evidence) -> LesionSelection:
        """Select the lesions, by the clinical rule or of the calcium map, that count by their evidence."""
        suggestions = suggested_arteries(lesions, self.scan, self.heart)
        calcium_map, probabilities = self.decomposed.parts.calcium_map, self.decomposed.slices.on_scan
        features = lesion_features(lesions, suggestions, calcium_map, probabilities, self.noise_hu)
        return select_lesions(lesions, features, suggestions, evidence)


def select_lesions(
    candidates: LesionSet, features: np.ndarray, suggestions: Sequence[ArterySuggestion], evidence: Evidence
) -> LesionSelection:
    """Divide lesions into those that count, each in its probable artery, and those that do not.

    Args:
        candidates: Lesions of arteries, by the clinical rule or of the calcium map.
        features: FEATURES of each, [n, features]; not used where the place alone decides.
        suggestions: Suggested artery of each, by its place.
        evidence: Weights by which they are judged.

    Raises:
        CTError: The stored evidence does not match this version.
    """
    suggestions, reasons = evidence.judge(suggestions, features), evidence.reasons(features)
    is_counted = [suggestion.not_coronary_probability <= evidence.most_not_coronary for suggestion in suggestions]
    counted = {s.lesion_id: s for s, counts in zip(suggestions, is_counted, strict=True) if counts}
    excluded = [n for n, counts in enumerate(is_counted) if not counts]
    part = candidates.of(counted)
    lesions = tuple(replace(lesion, artery=counted[lesion.id].artery) for lesion in part.lesions)
    left_out = LeftOut(
        candidates.of(suggestions[n].lesion_id for n in excluded),
        tuple(suggestions[n] for n in excluded),
        tuple(reasons[n] for n in excluded),
    )
    return LesionSelection(LesionSet(lesions, part.id_map), tuple(counted.values()), left_out)


def lesion_features(
    lesions: LesionSet,
    suggestions: Sequence[ArterySuggestion],
    calcium_map: sitk.Image,
    slice_probabilities: np.ndarray,
    noise_hu: float | None,
) -> np.ndarray:
    """Measure FEATURES of each lesion, float64 [n, 5].

    Args:
        lesions: Lesions with peaks read from the CT.
        suggestions: Of the lesions' places, in their order.
        calcium_map: HU.
        slice_probabilities: Of visible calcium in each slice of the scan, [K], NaN outside the heart.
        noise_hu: SD of blood, None when it could not be measured.
    """
    values = sitk.GetArrayViewFromImage(calcium_map).reshape(-1)[lesions.flat]
    voxel_mm3 = math.prod(calcium_map.GetSpacing())
    ids = lesions.id_map.reshape(-1)[lesions.flat]
    peaks = np.zeros(int(ids.max(initial=0)) + 1)
    np.maximum.at(peaks, ids, values)
    noise = UNKNOWN_NOISE_HU if noise_hu is None else noise_hu
    background = BLOOD_HU + NOISE_SDS * noise
    rows = []
    for lesion, suggestion in zip(lesions.lesions, suggestions, strict=True):
        mass = sum(part.sum_hu for part in lesion.components) * voxel_mm3
        likeliest = np.nan_to_num(slice_probabilities[list(lesion.slice_indices)]).max()
        excesses = (mass, peaks[lesion.id] - MAP_NOISE_SDS * noise, lesion.peak_hu - background)
        logs = (math.log1p(max(excess, 0.0)) for excess in excesses)
        rows.append((*logs, _logit(likeliest), -_logit(suggestion.not_coronary_probability)))
    return np.array(rows, float).reshape(-1, len(FEATURES))


def coronary_probabilities(features: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """Compute the probability that each lesion is coronary calcium, [n].

    weights: of FEATURES and INTERCEPT. Raises CTError when they are of other features.
    """
    if set(weights) != {*FEATURES, INTERCEPT}:
        message = (
            f"The model's evidence weights ({', '.join(sorted(weights))}) do not match this version. Calibrate "
            "it again."
        )
        raise CTError(message)
    evidence = features @ np.array([weights[name] for name in FEATURES]) + weights[INTERCEPT]
    return 1 / (1 + np.exp(-np.clip(evidence, -50, 50)))


def _logit(probability: float) -> float:
    p = min(max(probability, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
    return math.log(p / (1 - p))


SITE_OF: dict[str, Site] = {
    **{artery.key: artery for artery in MAIN_ARTERIES},
    "aortic valve and root": NonCoronary.AORTIC_VALVE,
    "mitral annulus": NonCoronary.MITRAL_ANNULUS,
    "ascending aorta": NonCoronary.THORACIC_AORTA,
    "descending aorta": NonCoronary.THORACIC_AORTA,
    "pulmonary artery": NonCoronary.OTHER,
    "other": NonCoronary.OTHER,
    "outside": NonCoronary.OTHER,
}
"""Site of calcium by the territory that holds it."""

SLIVER_MM3 = 6.0
"""A smaller piece of a lesion is not split off it: territories are no more exact than some mm."""


def candidate_sites(region: HeartRegion, territory_labels: sitk.Image | None, candidates: np.ndarray) -> np.ndarray:
    """Return the site that calcium would belong to, uint8 [k, j, i] (`Site`), at candidates; 0 elsewhere.

    With territories, sites lie in heart and territories but not in bone, nor in the aorta where it is attached to bone;
    touching voxels of one site that fill less than SLIVER_MM3 go to the site that touches them. Without territories,
    the heart but bone and aorta is UNASSIGNED.

    Args:
        region: The heart.
        territory_labels: From `Territories.labels`, on the scan's grid; None where there are none.
        candidates: bool [k, j, i], where something is dense enough.
    """
    territories = region.territories
    if territories is None or territory_labels is None:
        return np.where(candidates, candidate_region(region), np.uint8(0))
    flat = np.flatnonzero(candidates)
    inside = _at(region.mask, flat) | _at(territory_labels, flat)
    bone = None if region.excluded is None else sitk.GetArrayViewFromImage(region.excluded) == BONE_LABEL
    if bone is not None:
        inside &= ~bone.reshape(-1)[flat]
    flat = flat[inside]
    likeliest = territories.at(flat, candidates.shape).argmax(1)
    values = np.array([SITE_OF[name] for name in TERRITORIES], np.uint8)[likeliest]
    values = _without_slivers(flat, values, region.mask)
    if bone is not None:
        is_aorta_off_bone = ~((values == NonCoronary.THORACIC_AORTA) & _touching(flat, values, bone))
        flat, values = flat[is_aorta_off_bone], values[is_aorta_off_bone]
    sites = np.zeros(candidates.shape, np.uint8)
    sites.reshape(-1)[flat] = values
    return sites


def candidate_region(region: HeartRegion) -> np.ndarray:
    """Return the region of unreviewed candidates: uint8 [k, j, i], UNASSIGNED there and 0 elsewhere."""
    inside = sitk.GetArrayViewFromImage(region.mask) != 0
    if region.excluded is not None:
        inside &= sitk.GetArrayViewFromImage(region.excluded) == 0
    return inside.astype(np.uint8) * np.uint8(Artery.UNASSIGNED)


def suggested_arteries(lesions: LesionSet, scan: CTScan, region: HeartRegion) -> list[ArterySuggestion]:
    """Suggest an artery for each lesion, in the lesions' order: by the territories, else by its place in the heart.

    Raises:
        AtlasError: The atlas cannot be read.
    """
    if region.territories is None:
        return suggest_arteries(lesions, scan.image, region.mask)
    return _by_territory(lesions, region.territories)


def _at(mask: sitk.Image, flat: np.ndarray) -> np.ndarray:
    return sitk.GetArrayViewFromImage(mask).reshape(-1)[flat] != 0


def _by_territory(lesions: LesionSet, territories: Territories) -> list[ArterySuggestion]:
    """Suggest arteries by the territories of each lesion's voxels; a lesion with an artery keeps it."""
    ids = lesions.id_map.reshape(-1)[lesions.flat]
    probability = territories.at(lesions.flat, lesions.id_map.shape)
    sizes = np.maximum(np.bincount(ids), 1)
    means = np.stack([np.bincount(ids, weights=column) for column in probability.T], axis=1) / sizes[:, None]
    result = []
    for lesion in lesions.lesions:
        probabilities = means[lesion.id]
        coronary = probabilities[1:5]
        best = lesion.artery if lesion.artery in MAIN_ARTERIES else MAIN_ARTERIES[int(coronary.argmax())]
        total = float(coronary.sum())
        calibrated = coronary ** (1 / territories.temperature)
        confidence = float(calibrated[best - Artery.LM] / max(calibrated.sum(), _LEAST_PROBABILITY))
        result.append(ArterySuggestion(lesion.id, Artery(best), confidence, 1 - total))
    return result


def _touching(flat: np.ndarray, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return True for labelled voxels of pieces of one label that touch a mask, bool [k, j, i] (26 neighbours)."""
    if not len(flat):
        return np.zeros(0, bool)
    place = np.stack(np.unravel_index(flat, mask.shape))
    last = np.array(mask.shape)[:, None] - 1
    touches = np.zeros(len(flat), bool)
    for offset in np.ndindex(3, 3, 3):
        touches |= mask[tuple(np.clip(place + np.array(offset)[:, None] - 1, 0, last))]
    piece = connected_voxels(flat, values, mask.shape)
    return np.bincount(piece, touches)[piece] > 0


def _without_slivers(flat: np.ndarray, values: np.ndarray, grid: sitk.Image) -> np.ndarray:
    """Replace the labels of small pieces by the label that touches them. grid: An image on the scan's grid."""
    if not len(flat):
        return values
    shape = grid.GetSize()[::-1]
    piece = connected_voxels(flat, values, shape)
    small = (np.bincount(piece) * math.prod(grid.GetSpacing()) < SLIVER_MM3)[piece]
    if not small.any() or small.all():
        return values
    places = np.stack(np.unravel_index(flat, shape), axis=1).astype(float)
    # The farthest of the 26 neighbours is √3 voxels away.
    distance, nearest = cKDTree(places[~small]).query(places[small], distance_upper_bound=1.8)
    touched = np.isfinite(distance)
    result = values.copy()
    result[np.flatnonzero(small)[touched]] = values[~small][nearest[touched]]
    return result
