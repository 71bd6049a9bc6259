"""Why a lesion counts or is left out: networks, place, noise, neighbours and effect, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..core.categories import whole_score
from ..core.labels import Artery
from ..record.score_record import ScoreRecord
from ..record.scores import Lesion, LesionVoxels, MethodScore, Verdict
from ..scoring.doubt import at_most_99_percent as percent
from ..scoring.doubt import total_otherwise
from ..scoring.scores import risk_class
from ..scoring.uncertainty import COUNTS_FROM

MIN_KIND = 0.05
"""Probability from which a kind of lesion is named."""

NEAR_MM, MAX_NEAR, MAX_NEIGHBOURS = 20.0, 3, 300
"""Distance between the surfaces of neighbours; the number of those that are named, and of lesions that are searched."""


def gaps_mm(voxels: LesionVoxels, spacing_mm: Sequence[float]) -> dict[int, dict[int, float]]:
    """Return the distances between the surfaces of lesions, up to NEAR_MM, by the IDs of both; none of too many.

    spacing_mm: Spacing along i, j, k.
    """
    from scipy.spatial import cKDTree  # loads slowly

    kji, mm = np.stack(np.unravel_index(voxels.flat, voxels.shape), axis=1), np.array(spacing_mm[::-1])
    ids = np.unique(voxels.ids).tolist()
    gaps: dict[int, dict[int, float]] = {lesion_id: {} for lesion_id in ids}
    if not 1 < len(ids) <= MAX_NEIGHBOURS:
        return gaps
    lesions = [kji[voxels.ids == lesion_id] for lesion_id in ids]
    low, high = (np.array([end(places, axis=0) for places in lesions]) for end in (np.min, np.max))
    steps = np.maximum(low[:, None] - high, low - high[:, None])  # between bounding boxes
    for first, second in np.argwhere(np.triu(_gaps(steps, mm) <= NEAR_MM, 1)).tolist():
        nearest = cKDTree(lesions[second] * mm).query(lesions[first] * mm)[1]
        gap = float(_gaps(np.abs(lesions[first] - lesions[second][nearest]), mm).min())
        if gap <= NEAR_MM:
            gaps[ids[first]][ids[second]] = gaps[ids[second]][ids[first]] = gap
    return gaps


def _gaps(steps: np.ndarray, mm: np.ndarray) -> np.ndarray:
    """Return the distances in mm between the faces of voxels that lie so many steps apart."""
    return np.linalg.norm(np.maximum(steps - 1, 0) * mm, axis=-1)


def explanation(
    lesion: Lesion,
    method: MethodScore,
    record: ScoreRecord,
    neighbours: Sequence[Lesion] = (),
    gaps: Mapping[int, Mapping[int, float]] = {},
) -> list[str]:
    """Return why a lesion counts, as sentences.

    Args:
        lesion: The lesion, with its verdict if the networks gave one.
        method: Score that it belongs to.
        record: Record of the run.
        neighbours: Lesions that may lie near it.
        gaps: Distances between lesions, as of `gaps_mm`.
    """
    verdict = lesion.verdict
    standing = "Not assigned" if lesion.site == Artery.UNASSIGNED else f"Counts for {lesion.site.full_name}"
    if verdict is not None and not verdict.counts:
        standing = "Left out of the score"
    reason = f": {verdict.reason}" if verdict is not None and verdict.reason else ""
    right, anterior, superior = lesion.centroid_ras_mm
    place = f"Slices {lesion.slice_range}, middle at R {right:.0f}, A {anterior:.0f}, S {superior:.0f} mm"
    measured = {} if method.features is None else {part.id: part.ostium_mm for part in method.features.lesions}
    if (ostium_mm := measured.get(lesion.id)) is not None:
        place += f", {ostium_mm:.0f} mm along the artery"
    noise = "" if record.noise_hu is None else f", noise {record.noise_hu:.0f} HU"
    evidence = [] if verdict is None else _by_networks(verdict, method)
    if lesion.networks_probability is not None:
        evidence = [f"Before the review: coronary calcium with {percent(lesion.networks_probability)} by the networks."]
    sentences = [f"{standing}{reason}.", *evidence, f"{place}."]
    sentences.append(f"Peak {lesion.peak_hu:,.0f} HU{noise}.")
    distances = gaps.get(lesion.id, {})
    names = {x.id: f"{x.id} ({x.site.short_name})" for x in neighbours if x.id in distances}
    nearest = sorted((distances[number], name) for number, name in names.items())[:MAX_NEAR]
    if nearest:
        texts = [f"{name} touches it" if not mm else f"{name} at {mm:.0f} mm" for mm, name in nearest]
        sentences.append(f"Near it: {', '.join(texts)}.")
    if verdict is not None and method.status == "automatic" and not method.is_map:
        total, alternative = method.total.agatston, total_otherwise(method, lesion, verdict)
        scores = [f"{whole_score(score):,} (class {risk_class(score)})" for score in (total, alternative)]
        sentences.append(f"Agatston {scores[0]}; {'without' if verdict.counts else 'with'} it {scores[1]}.")
    return sentences


def _by_networks(verdict: Verdict, method: MethodScore) -> list[str]:
    if method.status == "automatic":
        margin = "" if method.is_map else _margin(verdict.probability)
        texts = [f"Coronary calcium with {percent(verdict.probability)} by the networks{margin}."]
    else:
        texts = [f"{percent(verdict.not_coronary_probability)} of the calcium at such a place is not coronary."]
    likely = sorted(verdict.kinds.items(), key=lambda kind: -kind[1])
    if kinds := [f"{name} {percent(share)}" for name, share in likely if share >= MIN_KIND]:
        texts.append(f"Lesion network, before calibration: {', '.join(kinds)}.")
    if verdict.artery != Artery.UNASSIGNED:
        texts.append(f"Its place suggests {verdict.arteries} ({percent(verdict.confidence)} if it is coronary).")
    return texts


def _margin(probability: float) -> str:
    """Return the probability from which lesions count, and how far one is from it."""
    side = "above" if probability >= COUNTS_FROM else "below"
    return f", {100 * abs(probability - COUNTS_FROM):.0f} points {side} the limit of {100 * COUNTS_FROM:.0f}%"
