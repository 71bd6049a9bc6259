"""Sites of dense voxels by the territories, the artery that a territory suggests, and evidence in the calcium map.

What calcium at a place belongs to follows by Bayes' rule: an artery's territory is far likelier to hold calcium than as
much muscle. A lesion that spans arteries, or an artery and the aortic annulus, is split between them voxel by voxel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..anatomy.heart_region import HeartRegion
from ..calcium_map.decomposition import Decomposition, clear_map
from ..core.ct import CTScan
from ..core.errors import CTError
from ..core.grid import Grid
from ..core.labels import MAIN_ARTERIES, SITE_OF, TERRITORIES, Artery, NonCoronary
from ..facts.dense import DenseVoxels
from ..record.scores import LesionSet, Verdict
from .parts import touching, without_slivers
from .uncertainty import log_odds

SECOND_ARTERY = 0.3
"""Probability above which an artery is named beside a likelier one, if that one's is above it too."""


def dense_voxels(region: HeartRegion, is_dense: np.ndarray, grid: Grid) -> DenseVoxels:
    """Find the dense voxels in heart and territories, and the sites that they would belong to by their place.

    With territories, they lie in heart and territories but not in bone, nor in the aorta where it is attached to bone;
    touching voxels of one site that fill less than SLIVER_MM3 go to the site that touches them. Without territories,
    they lie in the heart but not in bone, and are UNASSIGNED.

    Args:
        region: The heart.
        is_dense: bool [k, j, i].
        grid: Grid of the scan.
    """
    territories, territory_labels = region.territories, region.territory_labels
    if territories is None or territory_labels is None:
        flat = np.flatnonzero(is_dense & (candidate_region(region) > 0))
        sites = np.full(len(flat), Artery.UNASSIGNED, np.uint8)
        return DenseVoxels(flat, sites, np.zeros((len(flat), 0), np.float32))
    flat = np.flatnonzero(is_dense)
    inside = region.mask.reshape(-1)[flat] | (territory_labels.reshape(-1)[flat] != 0)
    bone = region.bone
    if bone is not None:
        inside &= ~bone.reshape(-1)[flat]
    flat = flat[inside]
    places = territories.at(flat, is_dense.shape)
    sites = np.array([SITE_OF[name] for name in TERRITORIES], np.uint8)[places.argmax(1)]
    voxels = DenseVoxels(flat, without_slivers(flat, sites, grid), places)
    if bone is None:
        return voxels
    is_bone = (voxels.sites == NonCoronary.THORACIC_AORTA) & touching(flat, voxels.sites, bone)
    return voxels.where(~is_bone)


def candidate_sites(region: HeartRegion, candidates: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the sites of `dense_voxels`, uint8 [k, j, i]; 0 elsewhere."""
    voxels = dense_voxels(region, candidates, grid)
    sites = np.zeros(candidates.shape, np.uint8)
    sites.reshape(-1)[voxels.flat] = voxels.sites
    return sites


def candidate_region(region: HeartRegion) -> np.ndarray:
    """Return the region of unreviewed candidates: uint8 [k, j, i], UNASSIGNED there and 0 elsewhere."""
    inside = region.mask if region.bone is None else region.mask & ~region.bone
    return inside.astype(np.uint8) * np.uint8(Artery.UNASSIGNED)


def verdicts_by_place(lesions: LesionSet, voxels: DenseVoxels, temperature: float = 1.0) -> list[Verdict]:
    """Return what the territories of its voxels make of each lesion, in the lesions' order.

    A lesion with an artery keeps it. Without territories nothing is known, and the place is no evidence.

    Args:
        lesions: The lesions.
        voxels: Their voxels, and perhaps others.
        temperature: Factor of the territories' overconfidence in an artery.
    """
    if not voxels.places.shape[1]:
        unknown = Verdict(artery=Artery.UNASSIGNED, confidence=0.0, not_coronary_probability=0.5)
        return [unknown] * len(lesions.ids)
    flat, ids = lesions.voxels.flat, lesions.voxels.ids
    probability = voxels.places[np.searchsorted(voxels.flat, flat)]
    sizes = np.maximum(np.bincount(ids), 1)
    means = np.stack([np.bincount(ids, weights=column) for column in probability.T], axis=1) / sizes[:, None]
    result = []
    for number, site in zip(lesions.ids, lesions.columns["site"], strict=True):
        coronary = means[number][1:5]
        artery = Artery(site) if site in MAIN_ARTERIES else MAIN_ARTERIES[int(coronary.argmax())]
        calibrated = coronary ** (1 / temperature)
        calibrated = calibrated / max(calibrated.sum(), 1e-3)
        confidence, second = float(calibrated[artery - Artery.LM]), second_artery(calibrated, artery)
        elsewhere = 1 - float(coronary.sum())
        result.append(Verdict(artery=artery, confidence=confidence, not_coronary_probability=elsewhere, second=second))
    return result


def second_artery(probabilities: np.ndarray, artery: Artery) -> Artery | None:
    """Return the artery beside a suggested one if both are likely (SECOND_ARTERY).

    probabilities: Of each of MAIN_ARTERIES, [4].
    """
    likely = [MAIN_ARTERIES[n] for n in np.argsort(-probabilities) if probabilities[n] > SECOND_ARTERY]
    return next((name for name in likely if name != artery), None) if artery in likely else None


MAP_FEATURES = ("place_logit", "log_ct_excess", "slice_logit")
"""Features of a lesion of the calcium map that holds no lesion of the clinical rule: the log-odds of its place being
coronary, the logarithm of the excess of the CT's peak over blood and its noise (NOISE_SDS, HU; up to MAX_LOG_EXCESS),
and the log-odds of visible calcium in its likeliest slice."""

UNKNOWN_NOISE_HU = 15.0
"""SD that stands for noise that could not be measured."""

BLOOD_HU, NOISE_SDS, MAX_LOG_EXCESS = 45.0, 3.0, 5.0
"""Unenhanced blood; standard deviations above it up to which a peak may be noise; natural logarithm of the excess from
which a higher one is no further evidence."""

MIN_SHARE = 0.5
"""Share of a lesion's excess over blood below which the map is said to miss it."""

INTERCEPT = "intercept"


def complete_map(
    parts: Decomposition, scan: CTScan, counted: LesionSet, by_reader: Mapping[int, bool]
) -> tuple[Decomposition, int]:
    """Raise the map to the excess over blood in all that counts by the clinical rule.

    The generator learned from drawn plaque alone. Of some real plaque it shows half; slices differ.

    Args:
        parts: The map.
        scan: The scan as scored.
        counted: Lesions that count by the clinical rule.
        by_reader: A reader's overrides of slices; nothing is added where the map is switched off.

    Returns:
        The map, and the number of lesions of which the network showed less than MIN_SHARE.
    """
    flat, ids = counted.voxels.flat, counted.voxels.ids
    is_on = ~np.isin(flat // math.prod(parts.hu.shape[1:]), [k for k, is_on in by_reader.items() if not is_on])
    flat, ids = flat[is_on], ids[is_on]
    if not len(flat):
        return parts, 0
    map_hu, excess = parts.hu.reshape(-1)[flat], scan.hu.reshape(-1)[flat] - np.float32(BLOOD_HU)
    is_missed = np.bincount(ids, map_hu) < MIN_SHARE * np.bincount(ids, excess)
    completed = replace(clear_map(parts, np.zeros((1, 1, 1), bool)), box=())  # a copy, which lesions may leave
    completed.hu.reshape(-1)[flat] = np.maximum(map_hu, excess)
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
