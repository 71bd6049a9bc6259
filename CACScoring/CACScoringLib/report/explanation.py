"""Why a lesion counts or is left out: networks, place, noise, neighbours and effect, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core.labels import Artery
from ..record.scores import Lesion, MethodScore, Verdict
from ..scoring.categories import risk_class, whole_score
from ..scoring.doubt import total_otherwise
from .listing import at_most_99_percent as percent

MIN_KIND = 0.05
"""Probability from which a kind of lesion is named."""

NEAR_MM, MAX_NEAR, MAX_NEIGHBOURS = 20.0, 3, 300
"""Distance between the middles of neighbours; the number of those that are named, and of lesions that are searched."""


def explanation(
    lesion: Lesion, method: MethodScore, neighbours: Sequence[Lesion] = (), noise_hu: float | None = None
) -> list[str]:
    """Return why a lesion counts, as sentences.

    Args:
        lesion: The lesion, with its verdict if the networks gave one.
        method: Score that it belongs to.
        neighbours: Lesions that may lie near it, itself among them or not; not looked at if they are too many.
        noise_hu: Noise of the scan; None if unknown.
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
    noise = "" if noise_hu is None else f", noise {noise_hu:.0f} HU"
    sentences = [f"{standing}{reason}.", *([] if verdict is None else _by_networks(verdict, method)), f"{place}."]
    sentences.append(f"Peak {lesion.peak_hu:,.0f} HU{noise}.")
    searched = neighbours if len(neighbours) <= MAX_NEIGHBOURS else ()
    distances = [(math.dist(lesion.centroid_ras_mm, x.centroid_ras_mm), x) for x in searched if x.id != lesion.id]
    nearest = sorted((pair for pair in distances if pair[0] <= NEAR_MM), key=lambda pair: pair[0])[:MAX_NEAR]
    if nearest:
        sentences.append(f"Near it: {', '.join(f'{x.id} ({x.site.short_name}) at {mm:.0f} mm' for mm, x in nearest)}.")
    if verdict is not None and method.status == "automatic" and not method.is_map:
        total, alternative = method.total.agatston, total_otherwise(method, lesion, verdict)
        scores = [f"{whole_score(score):,} (class {risk_class(score)})" for score in (total, alternative)]
        sentences.append(f"Agatston {scores[0]}; {'without' if verdict.counts else 'with'} it {scores[1]}.")
    return sentences


def _by_networks(verdict: Verdict, method: MethodScore) -> list[str]:
    if method.status == "automatic":
        texts = [f"Coronary calcium with {percent(verdict.probability)} by the networks."]
    else:
        texts = [f"{percent(verdict.not_coronary_probability)} of the calcium at such a place is not coronary."]
    likely = sorted(verdict.kinds.items(), key=lambda kind: -kind[1])
    if kinds := [f"{name} {percent(share)}" for name, share in likely if share >= MIN_KIND]:
        texts.append(f"Lesion network, before calibration: {', '.join(kinds)}.")
    if verdict.artery != Artery.UNASSIGNED:
        texts.append(f"Its place suggests {verdict.arteries} ({percent(verdict.confidence)} if it is coronary).")
    return texts
