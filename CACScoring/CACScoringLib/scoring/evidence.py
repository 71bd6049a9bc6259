"""Evidence that a lesion is coronary calcium: its looks and place, the calcium map and its slices.

What calcium at a place belongs to follows by Bayes' rule: an artery's territory is far likelier to hold calcium than as
much muscle. A lesion that spans arteries, or an artery and the aortic annulus, is split between them voxel by voxel.

A threshold finds everything dense, and a generator's map always holds some haze around vessels and some of the aortic
wall's and the valves' calcium. A candidate of the clinical rule is judged by what it looks like to the lesion network
in the CT, by its mass, peak and place; the map has no say, for its silence proves nothing. A lesion of the map is
judged by its mass, peaks and place and by the slice classifier. The weights are those of logistic regressions on scans
whose calcium is known (`cac calibrate`), and are stored with the model of the map. Nothing is thrown away: lesions that
do not count are returned with their probability and the reason.
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
from ..models.cards import LoadedModel
from ..networks.configs import LESION_KINDS
from .arteries import ArterySuggestion, suggest_arteries
from .lesion_network import CORONARY_KINDS, lesion_kinds
from .lesions import Lesion, LesionSet, connected_voxels

REASONS = {
    "log_mass": "little for coronary calcium",
    "log_ct_excess": "hardly above blood and its noise",
    "place_logit": "not where coronary arteries run",
    "look_logit": "looks like {kind}",
}
"""Reason to leave a candidate out, by the feature that it lacks most."""

CANDIDATE_FEATURES = tuple(REASONS)
"""Features of a candidate of the clinical rule: natural logarithms of its pseudo-mass (HU·mm³) and of the excess of the
CT's peak over blood and its noise (NOISE_SDS, HU); log-odds of its place being coronary, and of its looks. No weight is
negative: more calcium, or a likelier place, never makes a lesion less probable.
"""

MAP_FEATURES = ("log_mass", "log_map_excess", "log_ct_excess", "slice_logit", "place_logit")
"""Features of a lesion of the calcium map: as above without looks, and besides the logarithm of the excess of the map's
peak over noise in a map (MAP_NOISE_SDS, HU), and the log-odds of visible calcium in its likeliest slice."""

BLOOD_HU, NOISE_SDS, MAP_NOISE_SDS = 45.0, 3.0, 1.5
"""Unenhanced blood; standard deviations up to which a peak may be noise, above blood in the CT, and in the map, which
is less noisy."""

OTHER_KINDS = {
    "aortic valve and root": "calcium of the aortic valve or root",
    "mitral annulus": "calcium of the mitral annulus",
    "aorta": "calcium of the aorta",
    "pericardium": "calcium of the pericardium or pleura",
    "other calcium": "calcium of a node or muscle",
    "lead": "a lead",
    "wire": "a wire",
    "clip": "a clip",
    "catheter": "a catheter",
    "prosthetic valve": "a prosthetic valve",
    "noise": "noise or bright tissue",
}
"""What a candidate that is left out may look like, of LESION_KINDS, in words."""

STENT_PROBABILITY = 0.9
"""Probability from which a candidate is named as a possible stent. Chosen on 30 digital patients, where it names stents
in 9 of 13 patients with stents, and calcium in 1 of 30."""

INTERCEPT = "intercept"
UNKNOWN_NOISE_HU = 15.0
_LEAST_PROBABILITY = 1e-3


@dataclass(frozen=True)
class Evidence:
    """Weights by which lesions are judged.

    Attributes:
        weights: Weights of CANDIDATE_FEATURES or MAP_FEATURES, and INTERCEPT; None if the place alone decides.
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

    def judge(
        self, suggestions: Sequence[ArterySuggestion], features: Mapping[str, np.ndarray]
    ) -> list[ArterySuggestion]:
        """Return suggestions by place with the probability by all evidence, and the evidence where it gives reasons.

        Args:
            suggestions: Suggested artery of each lesion, by its place.
            features: Value of each feature by name, [n].

        Raises:
            CTError: The weights are of other features.
        """
        if not self.weights or not suggestions:
            return list(suggestions)
        probabilities = 1 - coronary_probabilities(features, self.weights)
        columns = {} if self.typical is None else {name: values.tolist() for name, values in features.items()}
        return [
            replace(
                suggestion,
                not_coronary_probability=float(probabilities[n]),
                evidence={name: values[n] for name, values in columns.items()},
            )
            for n, suggestion in enumerate(suggestions)
        ]

    def reasons(self, features: Mapping[str, np.ndarray], kinds: Sequence[str] = ()) -> list[str]:
        """Return what the evidence of each lesion lacks most.

        Args:
            features: Value of each feature by name, [n].
            kinds: What each lesion looks like to the network, in words.

        Returns:
            Reasons, of which those of looks name the kind; empty strings without typical features.
        """
        count = len(next(iter(features.values())))
        if not self.weights or self.typical is None:
            return [""] * count
        names = list(self.typical)
        lacks = np.stack([self.weights[name] * (self.typical[name] - features[name]) for name in names])
        worst = [names[int(n)] for n in lacks.argmax(0)]
        return [REASONS[name].format(kind=kind) for name, kind in zip(worst, kinds or [""] * count, strict=True)]


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
        stents: IDs of lesions that count but look like a stent.
    """

    lesions: LesionSet
    suggestions: tuple[ArterySuggestion, ...]
    left_out: LeftOut
    stents: tuple[int, ...] = ()


@dataclass(frozen=True)
class LesionJudge:
    """Networks' findings in a scan, from which its lesions are judged.

    Attributes:
        scan: The scan as scored.
        heart: Heart and territories.
        decomposed: Calcium map and slice probabilities.
        noise_hu: Noise of blood, SD; None if it could not be measured.
        candidate_evidence: Weights for candidates of the clinical rule; None to leave none of them out.
        lesion_network: Network that names candidates; None if no candidates are judged.
    """

    scan: CTScan
    heart: HeartRegion
    decomposed: DecomposedHeart
    noise_hu: float | None
    candidate_evidence: Evidence | None
    lesion_network: LoadedModel | None

    def select_candidates(self, candidates: LesionSet) -> LesionSelection:
        """Select the candidates of the clinical rule that count. They need evidence, a lesion network and territories.

        Raises:
            CTError: The stored evidence does not match this version.
        """
        assert self.candidate_evidence is not None
        assert self.lesion_network is not None
        assert self.heart.territories is not None
        suggestions = suggested_arteries(candidates, self.scan, self.heart)
        kinds = lesion_kinds(candidates, self.scan, self.heart.territories, self.lesion_network)
        features = candidate_features(candidates, suggestions, self.scan, kinds, self.noise_hu)
        selection = select_lesions(candidates, features, suggestions, self.candidate_evidence, kinds)
        stents = kinds[:, LESION_KINDS.index("stent")] >= STENT_PROBABILITY
        ids = [lesion.id for lesion, is_stent in zip(candidates.lesions, stents, strict=True) if is_stent]
        counted = {lesion.id for lesion in selection.lesions.lesions}
        return replace(selection, stents=tuple(number for number in ids if number in counted))

    def select_of_map(self, lesions: LesionSet, evidence: Evidence) -> LesionSelection:
        """Select the lesions of the calcium map that count by their evidence.

        Raises:
            CTError: The stored evidence does not match this version.
        """
        suggestions = suggested_arteries(lesions, self.scan, self.heart)
        calcium_map, probabilities = self.decomposed.parts.calcium_map, self.decomposed.slices.on_scan
        features = map_features(lesions, suggestions, calcium_map, probabilities, self.noise_hu)
        return select_lesions(lesions, features, suggestions, evidence)


def select_lesions(
    candidates: LesionSet,
    features: Mapping[str, np.ndarray],
    suggestions: Sequence[ArterySuggestion],
    evidence: Evidence,
    kinds: np.ndarray | None = None,
) -> LesionSelection:
    """Divide lesions into those that count, each in its probable artery, and those that do not.

    Args:
        candidates: Lesions of arteries, by the clinical rule or of the calcium map.
        features: Value of each feature by name, [n]; not used where the place alone decides.
        suggestions: Suggested artery of each, by its place.
        evidence: Weights by which they are judged.
        kinds: Probability of each of LESION_KINDS, [n, kinds]; None where no network named them.

    Raises:
        CTError: The stored evidence does not match this version.
    """
    names: list[str] = []
    if kinds is not None:
        others = list(OTHER_KINDS)
        names = [OTHER_KINDS[others[n]] for n in kinds[:, [LESION_KINDS.index(kind) for kind in others]].argmax(1)]
    suggestions, reasons = evidence.judge(suggestions, features), evidence.reasons(features, names)
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


def candidate_features(
    candidates: LesionSet,
    suggestions: Sequence[ArterySuggestion],
    scan: CTScan,
    kinds: np.ndarray,
    noise_hu: float | None,
) -> dict[str, np.ndarray]:
    """Measure CANDIDATE_FEATURES of each candidate of the clinical rule.

    Args:
        candidates: The candidates.
        suggestions: Of the candidates' places, in their order.
        scan: The scan as scored.
        kinds: Probability of each of LESION_KINDS, [n, kinds].
        noise_hu: SD of blood, None when it could not be measured.

    Returns:
        Values by name, float64 [n].
    """
    coronary = kinds[:, CORONARY_KINDS].sum(axis=1).tolist()
    return _shared_features(candidates, suggestions, scan.image, noise_hu) | {
        "look_logit": np.array([_logit(probability) for probability in coronary], float)
    }


def map_features(
    lesions: LesionSet,
    suggestions: Sequence[ArterySuggestion],
    calcium_map: sitk.Image,
    slice_probabilities: np.ndarray,
    noise_hu: float | None,
) -> dict[str, np.ndarray]:
    """Measure MAP_FEATURES of each lesion of a calcium map.

    Args:
        lesions: Lesions with peaks read from the CT.
        suggestions: Of the lesions' places, in their order.
        calcium_map: HU.
        slice_probabilities: Of visible calcium in each slice of the scan, [K], NaN outside the heart.
        noise_hu: SD of blood, None when it could not be measured.

    Returns:
        Values by name, float64 [n].
    """
    values = sitk.GetArrayViewFromImage(calcium_map).reshape(-1)[lesions.flat]
    ids = lesions.id_map.reshape(-1)[lesions.flat]
    peaks = np.zeros(int(ids.max(initial=0)) + 1)
    np.maximum.at(peaks, ids, values)
    noise = UNKNOWN_NOISE_HU if noise_hu is None else noise_hu
    excesses = [peaks[lesion.id] - MAP_NOISE_SDS * noise for lesion in lesions.lesions]
    likeliest = [np.nan_to_num(slice_probabilities[list(x.slice_indices)]).max() for x in lesions.lesions]
    return _shared_features(lesions, suggestions, calcium_map, noise_hu) | {
        "log_map_excess": np.array([math.log1p(max(excess, 0.0)) for excess in excesses], float),
        "slice_logit": np.array([_logit(probability) for probability in likeliest], float),
    }


def _shared_features(
    lesions: LesionSet, suggestions: Sequence[ArterySuggestion], grid: sitk.Image, noise_hu: float | None
) -> dict[str, np.ndarray]:
    """Measure the features that candidates and lesions of the map share. grid: An image on the scan's grid."""
    voxel_mm3 = math.prod(grid.GetSpacing())
    background = BLOOD_HU + NOISE_SDS * (UNKNOWN_NOISE_HU if noise_hu is None else noise_hu)
    masses = [voxel_mm3 * sum(part.sum_hu for part in lesion.components) for lesion in lesions.lesions]
    return {
        "log_mass": np.array([math.log1p(max(mass, 0.0)) for mass in masses], float),
        "log_ct_excess": np.array([math.log1p(max(x.peak_hu - background, 0.0)) for x in lesions.lesions], float),
        "place_logit": np.array([-_logit(suggestion.not_coronary_probability) for suggestion in suggestions], float),
    }


def coronary_probabilities(features: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Compute the probability that each lesion is coronary calcium, [n].

    Args:
        features: Value of each feature by name, [n].
        weights: Weights of the same features, and INTERCEPT.

    Raises:
        CTError: The weights are of other features.
    """
    if set(weights) != {*features, INTERCEPT}:
        message = (
            f"The model's evidence weights ({', '.join(sorted(weights))}) do not match this version. Calibrate "
            "it again."
        )
        raise CTError(message)
    evidence = sum((weights[name] * values for name, values in features.items()), weights[INTERCEPT])
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
