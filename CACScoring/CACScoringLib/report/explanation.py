"""Why a lesion counts or is left out: networks, place, noise, neighbours and effect, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..core.labels import Artery
from ..record.scores import Lesion, MethodScore, Verdict
from ..scoring.categories import risk_class, whole_score
from ..scoring.doubt import total_otherwise
from .listing import at_most_99_percent, slices_text

MIN_KIND = 0.05
"""Probability from which a kind of lesion is named."""

NEAR_MM, MAX_NEAR = 20.0, 3
"""Distance between the middles of neighbours, and the number of those that are named."""


def explanation(
    lesion: Lesion,
    verdict: Verdict | None,
    method: MethodScore,
    neighbours: Iterable[Lesion] = (),
    noise_hu: float | None = None,
) -> list[str]:
    """Return why a lesion counts, as sentences.

    Args:
        lesion: The lesion.
        verdict: The networks' answer about it; None if they gave none.
        method: Score that it belongs to.
        neighbours: Lesions that may lie near it, itself among them or not.
        noise_hu: Noise of the scan; None if unknown.
    """
    out = verdict is not None and not verdict.counts
    reason = f": {verdict.reason}" if verdict is not None and verdict.reason else ""
    standing = f"Left out of the score{reason}." if out else f"Counts for {lesion.site.full_name}{reason}."
    return list(
        filter(
            None,
            (
                standing,
                *([] if verdict is None else _by_networks(verdict, method)),
                _place(lesion, method),
                f"Peak {lesion.peak_hu:,.0f} HU" + (f", noise {noise_hu:.0f} HU." if noise_hu is not None else "."),
                _near(lesion, neighbours),
                _effect(lesion, verdict, method),
            ),
        )
    )


def _by_networks(verdict: Verdict, method: MethodScore) -> list[str]:
    texts = []
    if method.status == "automatic":
        texts.append(f"Coronary calcium with {at_most_99_percent(verdict.probability)} by the networks.")
    else:
        share = at_most_99_percent(verdict.not_coronary_probability)
        texts.append(f"{share} of the calcium at such a place is not coronary.")
    likely = sorted(verdict.kinds.items(), key=lambda kind: -kind[1])
    kinds = [f"{name} {at_most_99_percent(share)}" for name, share in likely if share >= MIN_KIND]
    texts.append(f"Lesion network, before calibration: {', '.join(kinds)}." if kinds else "")
    if verdict.artery != Artery.UNASSIGNED:
        sure = at_most_99_percent(verdict.confidence)
        texts.append(f"Its place suggests {verdict.arteries} ({sure} if it is coronary).")
    return texts


def _place(lesion: Lesion, method: MethodScore) -> str:
    right, anterior, superior = lesion.centroid_ras_mm
    text = f"Slices {slices_text(lesion)}, middle at R {right:.0f}, A {anterior:.0f}, S {superior:.0f} mm"
    measured = () if method.features is None else method.features.lesions
    ostium = next((part.ostium_mm for part in measured if part.id == lesion.id), None)
    return f"{text}, {ostium:.0f} mm along the artery." if ostium is not None else f"{text}."


def _near(lesion: Lesion, neighbours: Iterable[Lesion]) -> str:
    distances = [(math.dist(lesion.centroid_ras_mm, x.centroid_ras_mm), x) for x in neighbours if x.id != lesion.id]
    near = sorted((pair for pair in distances if pair[0] <= NEAR_MM), key=lambda pair: pair[0])[:MAX_NEAR]
    return f"Near it: {', '.join(f'{x.id} ({x.site.short_name}) at {mm:.0f} mm' for mm, x in near)}." if near else ""


def _effect(lesion: Lesion, verdict: Verdict | None, method: MethodScore) -> str:
    if verdict is None or method.is_map or method.status != "automatic":
        return ""
    total, other = method.total.agatston, total_otherwise(method, lesion, verdict)
    word = "without" if verdict.counts else "with"
    return (
        f"Agatston {whole_score(total):,} (class {risk_class(total)}); {word} it {whole_score(other):,} "
        f"({risk_class(other)})."
    )
