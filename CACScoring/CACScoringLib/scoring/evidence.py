"""How probably a lesion of the calcium map is coronary calcium: the evidence of its map, its slices and its place.

A generator's map always holds some haze around vessels and some of the aortic wall's and the valves' calcium. No single
limit tells it from coronary calcium, but mass, peak, place and the slice classifier's opinion together do better. Their
weights are those of a logistic regression on digital patients whose calcium is known (`cac calibrate`), and are stored
with the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.ct import CTError

if TYPE_CHECKING:
    from ..anatomy.arteries import ArterySuggestion
    from .lesions import LesionSet

FEATURES = ("log_mass", "log_map_excess", "log_ct_excess", "slice_logit", "place_logit")
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


def lesion_features(
    found: LesionSet,
    calcium_map: np.ndarray,
    voxel_mm3: float,
    slice_probabilities: np.ndarray,
    suggestions: Sequence[ArterySuggestion],
    noise_hu: float | None,
) -> np.ndarray:
    """FEATURES of each lesion, float64 [n, 5].

    Args:
        found: Lesions of the map, with peaks read from the CT.
        calcium_map: HU [k, j, i].
        voxel_mm3: Volume of a voxel, mm³.
        slice_probabilities: Of visible calcium in each slice of the scan, [K], NaN outside the heart.
        suggestions: Of the lesions' places, in their order.
        noise_hu: SD of blood, None when it could not be measured.
    """
    rows = []
    ids = found.id_map.reshape(-1)[found.flat]
    peaks = np.zeros(int(ids.max(initial=0)) + 1)
    np.maximum.at(peaks, ids, calcium_map.reshape(-1)[found.flat])
    noise = UNKNOWN_NOISE_HU if noise_hu is None else noise_hu
    background = BLOOD_HU + NOISE_SDS * noise
    for lesion, suggestion in zip(found.lesions, suggestions, strict=True):
        mass = sum(part.sum_hu for part in lesion.components) * voxel_mm3
        likeliest = np.nan_to_num(slice_probabilities[list(lesion.slice_indices)]).max()
        rows.append(
            (
                math.log1p(max(mass, 0.0)),
                math.log1p(max(peaks[lesion.id] - MAP_NOISE_SDS * noise, 0.0)),
                math.log1p(max(lesion.peak_hu - background, 0.0)),
                _logit(likeliest),
                -_logit(suggestion.not_coronary_probability),
            )
        )
    return np.array(rows, float).reshape(-1, len(FEATURES))


def coronary_probabilities(features: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """Probability that each lesion is coronary calcium, [n].

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
