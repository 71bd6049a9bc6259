"""Lesions of the clinical rule that complete the calcium map, and evidence of its lesions where nothing is dense.

The weights of the evidence are those of a logistic regression on scans whose calcium is known (`cac calibrate`), and
are stored with the model of the map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..calcium_map.decomposition import Decomposition, clear_map
from ..core.ct import CTScan
from ..core.errors import CTError
from ..record.scores import LesionSet, Verdict
from .connection import IN_SLICE, connected_voxels
from .doubt import may_be_wrong
from .lesion_calibration import log_odds
from .lesion_network import UNKNOWN_NOISE_HU

MAP_FEATURES = ("place_logit", "log_ct_excess", "slice_logit")
"""Features of a lesion of the calcium map that holds no lesion of the clinical rule: the log-odds of its place being
coronary, the logarithm of the excess of the CT's peak over blood and its noise (NOISE_SDS, HU; up to MAX_LOG_EXCESS),
and the log-odds of visible calcium in its likeliest slice."""

BLOOD_HU, NOISE_SDS, MAX_LOG_EXCESS = 45.0, 3.0, 5.0
"""Unenhanced blood; standard deviations above it up to which a peak may be noise; natural logarithm of the excess from
which a higher one is no further evidence."""

MIN_SHARE = 0.1
"""Share of a dense piece's excess over blood below which the map is taken to miss the piece."""

INTERCEPT = "intercept"


def complete_map(
    parts: Decomposition, scan: CTScan, counted: LesionSet, by_reader: Mapping[int, bool]
) -> tuple[Decomposition, int]:
    """Add to the map what it misses of lesions that count without doubt by the clinical rule: their excess over blood.

    Each piece of a lesion in a slice is added or left alone as a whole, so that the map draws the outlines of all that
    it shows.

    Args:
        parts: The map.
        scan: The scan as scored.
        counted: Lesions that count by the clinical rule.
        by_reader: A reader's overrides of slices; nothing is added where the map is switched off.

    Returns:
        The map, and the number of pieces that were added.
    """
    certain = counted.part(verdict is not None and not may_be_wrong(verdict) for verdict in counted.verdicts)
    flat = certain.voxels.flat
    slices = flat // math.prod(parts.hu.shape[1:])
    flat = flat[~np.isin(slices, [k for k, is_on in by_reader.items() if not is_on])]
    excess = scan.hu.reshape(-1)[flat] - np.float32(BLOOD_HU)
    piece = connected_voxels(flat, np.zeros(len(flat), np.uint8), parts.hu.shape, IN_SLICE)
    map_sums, excess_sums = (np.bincount(piece, values) for values in (parts.hu.reshape(-1)[flat], excess))
    is_missed = map_sums < MIN_SHARE * excess_sums
    if not is_missed.any():
        return parts, 0
    is_added = is_missed[piece]
    completed = clear_map(parts, np.zeros((1, 1, 1), bool))  # a copy
    completed.hu.reshape(-1)[flat[is_added]] = excess[is_added]
    return completed, int(is_missed.sum())


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
    excesses = [math.log1p(max(peak_hu - background, 0.0)) for peak_hu in lesions.columns["peak_hu"]]
    slices = ([part.slice for part in components] for components in lesions.columns["components"])
    likeliest = [np.nan_to_num(slice_probabilities[numbers]).max() for numbers in slices]
    return {
        "place_logit": np.array([-log_odds(verdict.not_coronary_probability) for verdict in verdicts], float),
        "log_ct_excess": np.minimum(np.array(excesses, float), MAX_LOG_EXCESS),
        "slice_logit": np.array([log_odds(probability) for probability in likeliest], float),
    }


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
