"""Evidence that a lesion is coronary calcium: its looks and place, the calcium map and its slices.

A threshold finds everything dense, and a generator's map always holds some haze around vessels and some of the aortic
wall's and the valves' calcium. A candidate of the clinical rule is judged by what it looks like to the lesion network
in the CT, by its place, by how often noise in this scan makes as much, and by whether the map shows it; its size and
density have no other say. A lesion of the map counts as the candidates in it do; one without candidates is judged by
its place, its peak and the slice classifier. The weights are those of logistic regressions on scans whose calcium is
known (`cac calibrate`), and are stored with the model of the map. Lesions that do not count are returned with their
probability and the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..anatomy.heart_region import HeartRegion
from ..anatomy.territories import Territories
from ..calcium_map.decomposition import DecomposedHeart
from ..core.ct import CTError, CTScan
from ..models.cards import LoadedModel
from ..models.choice import Networks
from ..networks.configs import LESION_KINDS
from .arteries import ArterySuggestion
from .borders import sites_by_looks
from .lesion_network import CORONARY_KINDS, lesion_kinds
from .lesions import Lesion, LesionSet
from .noise_specks import NoiseSpecks
from .sites import suggested_arteries

REASONS = {
    "log_rarity": "no larger and denser than specks of noise in this scan",
    "place_logit": "not where coronary arteries run",
    "look_logit": "looks like {kind}",
    "in_map": "not in the calcium map",
}
"""Reason to leave a candidate out, by the feature that it lacks most."""

CANDIDATE_FEATURES = tuple(REASONS)
"""Features of a candidate of the clinical rule: its rarity among specks of noise (`noise_specks`), and the log-odds of
its place being coronary, and of its looks, and 1 if the map shows it, else 0. No weight is negative: more calcium, or a
likelier place, never makes a lesion less probable.
"""

MAP_FEATURES = ("place_logit", "log_ct_excess", "slice_logit")
"""Features of a lesion of the calcium map that holds no candidate: the log-odds of its place being coronary, the
logarithm of the excess of the CT's peak over blood and its noise (NOISE_SDS, HU; up to MAX_LOG_EXCESS), and the
log-odds of visible calcium in its likeliest slice."""

LOOKS_CORONARY = 0.5
"""Probability by its looks from which a candidate's slices are decomposed, whatever the slice classifier answers."""

BLOOD_HU, NOISE_SDS, MAX_LOG_EXCESS = 45.0, 3.0, 5.0
"""Unenhanced blood; standard deviations above it up to which a peak may be noise; natural logarithm of the excess from
which a higher one is no further evidence."""

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
"""Words for those of LESION_KINDS that a candidate may look like when it is left out."""

STENT_PROBABILITY = 0.75
"""Probability from which a candidate is named as a possible stent. In 40 digital patients with much plaque it names
stents in 6 of 8 with stents, and calcium in 4 of 26 others with calcium."""

INTERCEPT = "intercept"
UNKNOWN_NOISE_HU = 15.0
_MIN_PROBABILITY = 1e-3


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

    def reasons(self, features: Mapping[str, np.ndarray], looks: Sequence[str] = ()) -> list[str]:
        """Return what the evidence of each lesion lacks most.

        Args:
            features: Value of each feature by name, [n].
            looks: Words for what each looks like; empty where no network saw them.

        Returns:
            Reasons, of which those of looks name the kind; empty strings without typical features.
        """
        count = len(next(iter(features.values())))
        if not self.weights or self.typical is None:
            return [""] * count
        names = list(self.typical)
        lacks = np.stack([self.weights[name] * (self.typical[name] - features[name]) for name in names])
        worst = [names[int(n)] for n in lacks.argmax(0)]
        return [REASONS[name].format(kind=kind) for name, kind in zip(worst, looks or [""] * count, strict=True)]


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
        judged: All of them.
        probabilities: Of being coronary calcium, of each of `judged`, [n].
        most_not_coronary: Probability of not being coronary above which they, or each of them [n], are left out.
        stents: IDs of lesions that count but look like a stent.
    """

    lesions: LesionSet
    suggestions: tuple[ArterySuggestion, ...]
    left_out: LeftOut
    judged: LesionSet
    probabilities: np.ndarray
    most_not_coronary: float | np.ndarray
    stents: tuple[int, ...] = ()


@dataclass(frozen=True)
class CandidateJudge:
    """Judge of the candidates of the clinical rule.

    Attributes:
        scan: The scan as scored.
        heart: Heart and territories.
        territories: The heart's territories.
        evidence: Weights of CANDIDATE_FEATURES.
        network: Lesion network.
    """

    scan: CTScan
    heart: HeartRegion
    territories: Territories
    evidence: Evidence
    network: LoadedModel

    @classmethod
    def of(cls, networks: Networks | None, scan: CTScan, heart: HeartRegion) -> CandidateJudge | None:
        """Return the judge; None where evidence, lesion network or territories are missing.

        Raises:
            CTError: The stored evidence does not match this version.
        """
        if networks is None or networks.lesions is None or heart.territories is None:
            return None
        evidence = Evidence.stored(networks.decomposition.card.calibration)
        if evidence is None:
            return None
        return cls(scan, heart, heart.territories, evidence, networks.lesions)

    def sites_by_looks(self, sites: np.ndarray) -> np.ndarray:
        """Give parts outside the arteries that look coronary to the likeliest artery (`borders.sites_by_looks`)."""
        return sites_by_looks(sites, self.scan, self.territories, self.network)

    def kinds(self, lesions: LesionSet) -> np.ndarray:
        """Ask the lesion network what the candidates among all lesions of the clinical rule look like.

        Returns:
            Probability of each of LESION_KINDS, float32 [n, kinds].

        Raises:
            DeviceError: The device has too little memory.
        """
        candidates = lesions.coronary
        return lesion_kinds(candidates.id_map, candidates.ids, self.scan, self.territories, self.network)

    def select(self, lesions: LesionSet, kinds: np.ndarray, map_hu: np.ndarray) -> LesionSelection:
        """Select the candidates that count by their evidence.

        Args:
            lesions: All lesions of the clinical rule, of which those in the arteries are candidates.
            kinds: From `kinds`.
            map_hu: Calcium map before any lesion is left out, HU [k, j, i].

        Raises:
            CTError: The stored evidence does not match this version.
        """
        candidates, specks = lesions.coronary, NoiseSpecks.of(lesions, self.territories)
        suggestions = suggested_arteries(candidates, self.scan, self.heart)
        features = candidate_features(candidates, suggestions, kinds, specks, map_hu)
        suggestions = self.evidence.judge(suggestions, features)
        reasons = self.evidence.reasons(features, looks_of(kinds))
        selection = select_lesions(candidates, suggestions, self.evidence.most_not_coronary, reasons)
        is_stent = kinds[:, LESION_KINDS.index("stent")] >= STENT_PROBABILITY
        stents = {lesion.id for lesion, looks in zip(candidates.lesions, is_stent, strict=True) if looks}
        return replace(selection, stents=tuple(x.id for x in selection.lesions.lesions if x.id in stents))


@dataclass(frozen=True)
class MapJudge:
    """Judge of the lesions of the calcium map.

    Attributes:
        scan: The scan as scored.
        heart: Heart and territories.
        decomposed: Calcium map and slice probabilities.
        noise_hu: Noise of blood, SD; None if it could not be measured.
        candidates: Candidates of the clinical rule as judged; None if they were not.
    """

    scan: CTScan
    heart: HeartRegion
    decomposed: DecomposedHeart
    noise_hu: float | None
    candidates: LesionSelection | None

    def select(self, lesions: LesionSet) -> LesionSelection:
        """Select the lesions that count by their candidates, or by the evidence stored with the map.

        Args:
            lesions: All lesions of the map, of which those in the arteries may count.

        Raises:
            CTError: The stored evidence does not match this version.
        """
        settings = self.decomposed.parts.settings
        coronary, most_not_coronary = lesions.coronary, settings.most_not_coronary
        suggestions = suggested_arteries(coronary, self.scan, self.heart)
        features = map_features(coronary, suggestions, self.decomposed.slices.on_scan, self.noise_hu)
        suggestions = Evidence(settings.evidence_weights, None, most_not_coronary).judge(suggestions, features)
        if self.candidates is None:
            return select_lesions(coronary, suggestions, most_not_coronary)
        shared = shared_voxels(coronary, self.candidates.judged)
        of_candidates = probability_of_candidates(shared, self.candidates.probabilities)
        holds_candidates = ~np.isnan(of_candidates)
        for n in np.flatnonzero(holds_candidates).tolist():
            suggestions[n] = replace(suggestions[n], not_coronary_probability=float(1 - of_candidates[n]))
        limits = np.where(holds_candidates, self.candidates.most_not_coronary, most_not_coronary)
        return select_lesions(coronary, suggestions, limits)


def slices_of_coronary_looks(candidates: LesionSet, kinds: np.ndarray) -> tuple[int, ...]:
    """Find the slices of candidates that look like coronary calcium (LOOKS_CORONARY).

    Args:
        candidates: Candidates of the clinical rule.
        kinds: Probability of each of LESION_KINDS, [n, kinds].

    Returns:
        The slices, rising.
    """
    looks_coronary = kinds[:, CORONARY_KINDS].sum(axis=1) >= LOOKS_CORONARY
    coronary = (lesion for lesion, looks in zip(candidates.lesions, looks_coronary, strict=True) if looks)
    return tuple(sorted({k for lesion in coronary for k in lesion.slice_indices}))


def looks_of(kinds: np.ndarray) -> list[str]:
    """Return what candidates look like if they are no coronary calcium, in words.

    Args:
        kinds: Probability of each of LESION_KINDS, [n, kinds].
    """
    columns = [LESION_KINDS.index(kind) for kind in OTHER_KINDS]
    words = list(OTHER_KINDS.values())
    return [words[n] for n in kinds[:, columns].argmax(1)]


def select_lesions(
    candidates: LesionSet,
    suggestions: Sequence[ArterySuggestion],
    most_not_coronary: float | np.ndarray,
    reasons: Sequence[str] = (),
) -> LesionSelection:
    """Divide lesions into those that count, each in its probable artery, and those that do not.

    Args:
        candidates: Lesions of arteries, by the clinical rule or of the calcium map.
        suggestions: Suggested artery of each, with its probability.
        most_not_coronary: Probability of not being coronary above which lesions, or each of them [n], are left out.
        reasons: Reason to leave each out, [n]; empty where none is asked for.
    """
    not_coronary = np.array([suggestion.not_coronary_probability for suggestion in suggestions], float)
    is_counted = (not_coronary <= most_not_coronary).tolist()
    counted = {s.lesion_id: s for s, counts in zip(suggestions, is_counted, strict=True) if counts}
    excluded = [n for n, counts in enumerate(is_counted) if not counts]
    lesions = [replace(x, artery=counted[x.id].artery) for x in candidates.lesions if x.id in counted]
    left_out = LeftOut(
        candidates.of(suggestions[n].lesion_id for n in excluded),
        tuple(suggestions[n] for n in excluded),
        tuple(reasons[n] if reasons else "" for n in excluded),
    )
    counted_lesions, of_counted = candidates.part(lesions), tuple(counted.values())
    return LesionSelection(counted_lesions, of_counted, left_out, candidates, 1 - not_coronary, most_not_coronary)


def candidate_features(
    candidates: LesionSet,
    suggestions: Sequence[ArterySuggestion],
    kinds: np.ndarray,
    specks: NoiseSpecks,
    map_hu: np.ndarray,
) -> dict[str, np.ndarray]:
    """Measure CANDIDATE_FEATURES of each candidate of the clinical rule.

    Args:
        candidates: The candidates.
        suggestions: Of the candidates' places, in their order.
        kinds: Probability of each of LESION_KINDS, [n, kinds].
        specks: Specks of noise in the scan.
        map_hu: Calcium map, HU [k, j, i].

    Returns:
        Values by name, float64 [n].
    """
    looks = kinds[:, CORONARY_KINDS].sum(axis=1).tolist()
    return {
        "log_rarity": specks.rarity(candidates),
        "place_logit": _place_logits(suggestions),
        "look_logit": np.array([_logit(probability) for probability in looks], float),
        "in_map": np.isin(candidates.ids, candidates.voxel_ids[map_hu.reshape(-1)[candidates.flat] > 0]).astype(float),
    }


def _place_logits(suggestions: Sequence[ArterySuggestion]) -> np.ndarray:
    return np.array([-_logit(suggestion.not_coronary_probability) for suggestion in suggestions], float)


def map_features(
    lesions: LesionSet,
    suggestions: Sequence[ArterySuggestion],
    slice_probabilities: np.ndarray,
    noise_hu: float | None,
) -> dict[str, np.ndarray]:
    """Measure MAP_FEATURES of each lesion of a calcium map.

    Args:
        lesions: Lesions with peaks read from the CT.
        suggestions: Of the lesions' places, in their order.
        slice_probabilities: Of visible calcium in each slice of the scan, [K], NaN outside the heart.
        noise_hu: SD of blood, None when it could not be measured.

    Returns:
        Values by name, float64 [n].
    """
    background = BLOOD_HU + NOISE_SDS * (UNKNOWN_NOISE_HU if noise_hu is None else noise_hu)
    excesses = [math.log1p(max(lesion.peak_hu - background, 0.0)) for lesion in lesions.lesions]
    likeliest = [np.nan_to_num(slice_probabilities[list(x.slice_indices)]).max() for x in lesions.lesions]
    return {
        "place_logit": _place_logits(suggestions),
        "log_ct_excess": np.minimum(np.array(excesses, float), MAX_LOG_EXCESS),
        "slice_logit": np.array([_logit(probability) for probability in likeliest], float),
    }


def shared_voxels(lesions: LesionSet, candidates: LesionSet) -> np.ndarray:
    """Count the voxels that each lesion shares with each candidate, int [n, candidates]."""
    _, of_lesion, of_candidate = np.intersect1d(lesions.flat, candidates.flat, assume_unique=True, return_indices=True)
    shared = np.zeros((len(lesions.lesions), len(candidates.lesions)), int)
    rows, columns = ({number: n for n, number in enumerate(lesion_set.ids)} for lesion_set in (lesions, candidates))
    ids = zip(lesions.voxel_ids[of_lesion].tolist(), candidates.voxel_ids[of_candidate].tolist(), strict=True)
    for lesion, candidate in ids:
        shared[rows[lesion], columns[candidate]] += 1
    return shared


def probability_of_candidates(shared: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Compute the probability that the candidates in each lesion are coronary calcium, by their mean log-odds.

    Args:
        shared: Voxels that each lesion shares with each candidate, [n, candidates].
        probabilities: Of each candidate, [candidates].

    Returns:
        float [n]; NaN in a lesion without candidates.
    """
    counts = shared.sum(axis=1)
    logits = shared @ np.array([_logit(p) for p in probabilities], float) / np.maximum(counts, 1)
    return np.where(counts > 0, 1 / (1 + np.exp(-logits)), np.nan)


def coronary_probabilities(features: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Compute the probability that each lesion is coronary calcium, [n].

    Args:
        features: Value of each feature by name, [n].
        weights: Weights of these features, or of some of them, and INTERCEPT.

    Raises:
        CTError: The weights are of other features.
    """
    if INTERCEPT not in weights or not set(weights) <= {*features, INTERCEPT}:
        message = (
            f"The model's evidence weights ({', '.join(sorted(weights))}) do not match this version. Calibrate "
            "it again."
        )
        raise CTError(message)
    evidence = sum((weights.get(name, 0.0) * values for name, values in features.items()), weights[INTERCEPT])
    return 1 / (1 + np.exp(-np.clip(evidence, -50, 50)))


def _logit(probability: float) -> float:
    p = min(max(probability, _MIN_PROBABILITY), 1 - _MIN_PROBABILITY)
    return math.log(p / (1 - p))
