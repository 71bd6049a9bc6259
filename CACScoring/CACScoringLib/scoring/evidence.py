"""Which lesions count as coronary calcium: the evidence of the calcium map, the slices and the place of each.

Candidates of the clinical rule and lesions of the calcium map go the same way. A generator's map always holds some haze
around vessels and some of the aortic wall's and the valves' calcium, and a threshold everything dense. No single limit
tells either from coronary calcium, but mass, peaks, place and the slice classifier's opinion together do better. The
weights are those of a logistic regression on scans whose calcium is known (`cac calibrate`), and are stored with the
model of the map. Nothing is thrown away: lesions that do not count are returned beside the others, each with its
probability and the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTError

if TYPE_CHECKING:
    from ..anatomy.arteries import ArterySuggestion
    from .lesions import LesionSet

REASONS = {
    "log_mass": "little for coronary calcium",
    "log_map_excess": "faint or absent in the calcium map",
    "log_ct_excess": "hardly above blood and its noise",
    "slice_logit": "its slices hardly show coronary calcium",
    "place_logit": "not where coronary arteries run",
}
"""Why a lesion is left out: what of its evidence lacks most."""

FEATURES = tuple(REASONS)
"""Of a lesion: natural logarithms of its pseudo-mass (HU·mm³), of the HU by which the map's highest exceeds what noise
leaves in a map (MAP_NOISE_SDS), and of those by which the CT's highest exceeds blood and its noise (NOISE_SDS);
log-odds of visible calcium in its likeliest slice, and of its place being coronary. None may count against a lesion:
more calcium, or a likelier place, never makes it less probable.
"""

BLOOD_HU, NOISE_SDS, MAP_NOISE_SDS = 45.0, 3.0, 1.5
"""Unenhanced blood, and up to how many standard deviations a peak may be noise: in the CT above the blood, and in the
map, which has less of it."""

INTERCEPT = "intercept"
UNKNOWN_NOISE_HU = 15.0
_LEAST_PROBABILITY = 1e-3


@dataclass(frozen=True)
class Evidence:
    """What lesions are evaluated by.

    weights: of FEATURES and INTERCEPT; None for the place alone. typical: features of a typical candidate that is
    coronary calcium, which give the reasons; None where no reasons are asked for. most_not_coronary: lesions that with
    a higher probability are none are left out.
    """

    weights: dict[str, float] | None
    typical: dict[str, float] | None
    most_not_coronary: float

    @classmethod
    def stored(cls, calibration: Mapping) -> Evidence | None:
        """Read that of candidates from a model's calibration; None where it holds none.

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


@dataclass(frozen=True)
class LeftOut:
    """Lesions that probably are no coronary calcium.

    lesions: with the ids they had among all. suggestions: of their arteries, in their order, with the probability that
    they are not coronary. reasons: in their order, in words; empty where none were asked for.
    """

    lesions: LesionSet
    suggestions: tuple[ArterySuggestion, ...]
    reasons: tuple[str, ...]


def select_lesions(
    found: LesionSet, features: np.ndarray, suggestions: Sequence[ArterySuggestion], evidence: Evidence
) -> tuple[LesionSet, tuple[ArterySuggestion, ...], LeftOut]:
    """Divide lesions into those that count, each in its probable artery, and those that do not.

    Args:
        found: Lesions of arteries, by the clinical rule or of the calcium map.
        features: FEATURES of each, [n, features]; not used where the place alone decides.
        suggestions: Of each, by its place.
        evidence: What they are evaluated by.

    Returns:
        The lesions that count, their suggestions with the probability by all evidence, and those left out.

    Raises:
        CTError: The stored evidence does not match this version.
    """
    reasons = [""] * len(suggestions)
    if evidence.weights and suggestions:
        coronary = coronary_probabilities(features, evidence.weights)
        suggestions = [
            replace(own, not_coronary_probability=float(1 - p)) for own, p in zip(suggestions, coronary, strict=True)
        ]
        if evidence.typical is not None:
            rows = [dict(zip(FEATURES, row.tolist(), strict=True)) for row in features]
            suggestions = [replace(own, evidence=row) for own, row in zip(suggestions, rows, strict=True)]
            weights, typical = (
                np.array([own[name] for name in FEATURES]) for own in (evidence.weights, evidence.typical)
            )
            reasons = [REASONS[FEATURES[int(n)]] for n in (weights * (typical - features)).argmax(1)]
    counts = [own.not_coronary_probability <= evidence.most_not_coronary for own in suggestions]
    counted = {own.lesion_id: own for own, counting in zip(suggestions, counts, strict=True) if counting}
    others = [n for n, counting in enumerate(counts) if not counting]
    part = found.of(counted)
    lesions = tuple(replace(lesion, artery=counted[lesion.id].artery) for lesion in part.lesions)
    left_out = LeftOut(
        found.of(suggestions[n].lesion_id for n in others),
        tuple(suggestions[n] for n in others),
        tuple(reasons[n] for n in others),
    )
    return replace(part, lesions=lesions), tuple(counted.values()), left_out


def lesion_features(
    found: LesionSet,
    suggestions: Sequence[ArterySuggestion],
    calcium_map: sitk.Image,
    slice_probabilities: np.ndarray,
    noise_hu: float | None,
) -> np.ndarray:
    """Measure FEATURES of each lesion, float64 [n, 5].

    Args:
        found: Lesions with peaks read from the CT.
        suggestions: Of the lesions' places, in their order.
        calcium_map: HU.
        slice_probabilities: Of visible calcium in each slice of the scan, [K], NaN outside the heart.
        noise_hu: SD of blood, None when it could not be measured.
    """
    values = sitk.GetArrayViewFromImage(calcium_map).reshape(-1)[found.flat]
    voxel_mm3 = math.prod(calcium_map.GetSpacing())
    ids = found.id_map.reshape(-1)[found.flat]
    peaks = np.zeros(int(ids.max(initial=0)) + 1)
    np.maximum.at(peaks, ids, values)
    noise = UNKNOWN_NOISE_HU if noise_hu is None else noise_hu
    background = BLOOD_HU + NOISE_SDS * noise
    rows = []
    for lesion, suggestion in zip(found.lesions, suggestions, strict=True):
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
