"""Evidence that a lesion is coronary calcium: its looks and place, the calcium map and its slices.

A threshold finds everything dense, and a generator's map always holds some haze around vessels and some of the aortic
wall's and the valves' calcium. A candidate of the clinical rule is judged by what it looks like to the lesion network
in the CT, by its place, by how often noise in this scan makes as much, and by whether the map shows it; its size and
density have no other say. A lesion of the map counts as the candidates in it do; one in which all that is dense lies
elsewhere does not count; and one where nothing is dense is judged by its place, its peak and the slice classifier. The
weights are those of logistic regressions on scans whose calcium is known (`cac calibrate`), and are stored with the
model of the map. Lesions that do not count are returned with their probability and the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.errors import CTError
from ..models.cards import calibration_entry
from ..record.scores import LesionSet, Verdict

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
"""Features of a lesion of the calcium map that holds no lesion of the clinical rule: the log-odds of its place being
coronary, the logarithm of the excess of the CT's peak over blood and its noise (NOISE_SDS, HU; up to MAX_LOG_EXCESS),
and the log-odds of visible calcium in its likeliest slice."""

BLOOD_HU, NOISE_SDS, MAX_LOG_EXCESS = 45.0, 3.0, 5.0
"""Unenhanced blood; standard deviations above it up to which a peak may be noise; natural logarithm of the excess from
which a higher one is no further evidence."""

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
            ModelError: It does not match this version.
        """
        return calibration_entry(calibration, "candidates", cls)

    def judge(self, verdicts: Sequence[Verdict], features: Mapping[str, np.ndarray]) -> list[Verdict]:
        """Return verdicts by place with the probability by all evidence, and the evidence where it gives reasons.

        Args:
            verdicts: Of each lesion, by its place.
            features: Value of each feature by name, [n].

        Raises:
            CTError: The weights are of other features.
        """
        if not self.weights or not verdicts:
            return list(verdicts)
        probabilities = 1 - coronary_probabilities(features, self.weights)
        columns = {} if self.typical is None else {name: values.tolist() for name, values in features.items()}
        return [
            replace(
                verdict,
                not_coronary_probability=float(probabilities[n]),
                evidence={name: values[n] for name, values in columns.items()},
            )
            for n, verdict in enumerate(verdicts)
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


def with_verdicts(
    lesions: LesionSet,
    verdicts: Sequence[Verdict],
    most_not_coronary: float | np.ndarray,
    reasons: Sequence[str] = (),
) -> LesionSet:
    """Return lesions with their verdicts, those that count each in its probable artery.

    Args:
        lesions: Lesions of arteries, by the clinical rule or of the calcium map.
        verdicts: Verdict of each.
        most_not_coronary: Probability of not being coronary above which lesions, or each of them [n], are left out.
        reasons: Reason to leave each out, [n]; empty where none is asked for.
    """
    not_coronary = np.array([verdict.not_coronary_probability for verdict in verdicts], float)
    counts = (not_coronary <= most_not_coronary).tolist()
    judged = []
    for n, (lesion, verdict) in enumerate(zip(lesions.lesions, verdicts, strict=True)):
        if counts[n]:
            judged.append(replace(lesion, site=verdict.artery, verdict=verdict))
        else:
            left_out = replace(verdict, counts=False, reason=reasons[n] if reasons else "")
            judged.append(replace(lesion, verdict=left_out))
    return lesions.part(judged)


def place_log_odds(verdicts: Sequence[Verdict]) -> np.ndarray:
    """Compute the log-odds that each place is coronary, float [n]. verdicts: By place."""
    return np.array([-log_odds(verdict.not_coronary_probability) for verdict in verdicts], float)


def map_features(
    lesions: LesionSet,
    verdicts: Sequence[Verdict],
    slice_probabilities: np.ndarray,
    noise_hu: float | None,
) -> dict[str, np.ndarray]:
    """Measure MAP_FEATURES of each lesion of a calcium map.

    Args:
        lesions: Lesions with peaks read from the CT.
        verdicts: Of the lesions' places, in their order.
        slice_probabilities: Of visible calcium in each slice of the scan, [K], NaN outside the heart.
        noise_hu: SD of blood, None when it could not be measured.

    Returns:
        Values by name, float64 [n].
    """
    background = BLOOD_HU + NOISE_SDS * (UNKNOWN_NOISE_HU if noise_hu is None else noise_hu)
    excesses = [math.log1p(max(lesion.peak_hu - background, 0.0)) for lesion in lesions.lesions]
    likeliest = [np.nan_to_num(slice_probabilities[list(x.slices)]).max() for x in lesions.lesions]
    return {
        "place_logit": place_log_odds(verdicts),
        "log_ct_excess": np.minimum(np.array(excesses, float), MAX_LOG_EXCESS),
        "slice_logit": np.array([log_odds(probability) for probability in likeliest], float),
    }


def shared_voxels(lesions: LesionSet, candidates: LesionSet) -> np.ndarray:
    """Count the voxels that each lesion shares with each candidate, int [n, candidates]."""
    first, second = lesions.voxels, candidates.voxels
    _, of_lesion, of_candidate = np.intersect1d(first.flat, second.flat, assume_unique=True, return_indices=True)
    shared = np.zeros([max(x.ids, default=0) + 1 for x in (lesions, candidates)], int)
    np.add.at(shared, (first.ids[of_lesion], second.ids[of_candidate]), 1)
    return shared[np.ix_(lesions.ids, candidates.ids)]


def lies_elsewhere(lesions: LesionSet, dense: LesionSet, candidates: LesionSet) -> np.ndarray:
    """Find lesions that hold others of the clinical rule (dense) than its candidates in the arteries, bool [n]."""
    elsewhere = dense.of(set(dense.ids) - set(candidates.ids))
    return shared_voxels(lesions, elsewhere).sum(axis=1) > 0


def probability_of_candidates(shared: np.ndarray, probabilities: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
    """Compute the probability that the candidates in each lesion are coronary calcium, by their mean log-odds.

    Args:
        shared: Voxels that each lesion shares with each candidate, [n, candidates].
        probabilities: Of each candidate, [candidates].
        elsewhere: True for lesions that hold calcium or metal outside the arteries, bool [n].

    Returns:
        float [n]; in a lesion without candidates 0 if it holds calcium or metal elsewhere, else NaN.
    """
    counts = shared.sum(axis=1)
    logits = shared @ np.array([log_odds(p) for p in probabilities], float) / np.maximum(counts, 1)
    return np.where(counts > 0, 1 / (1 + np.exp(-logits)), np.where(elsewhere, 0.0, np.nan))


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


def log_odds(probability: float) -> float:
    """Compute the log-odds of a probability, bounded."""
    p = min(max(probability, _MIN_PROBABILITY), 1 - _MIN_PROBABILITY)
    return math.log(p / (1 - p))
