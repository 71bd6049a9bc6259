"""What others published of automatic scores, to stand beside what is found here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """With a reference: ICC of the total, κ of categories. key: of the `Reference` that it is of, where one is read."""

    title: str
    icc: float | None
    kappa: float | None
    key: str | None = None


AGREEMENT = (
    Agreement("DL-CACS 2025, COCA not gated (n 199)", 0.948, 0.71, "coca-nongated"),
    Agreement("DL-CACS 2025, COCA gated (n 425)", 0.990, 0.97, "coca-gated"),
    Agreement("DL-CACS 2025, not gated, same scan (n 652)", 0.994, 0.96),
    Agreement("DL-CACS 2025, not gated against gated scan", 0.968, 0.88),
    Agreement("commercial, 2.5 mm, against gated scan (n 567)", 0.955, 0.776),
    Agreement("commercial, 1 mm, against gated scan (n 567)", 0.937, 0.809),
    Agreement("readers, not gated against gated (PMC9529893)", None, 0.75),
    Agreement("two readers, same scan (PMC9529893)", None, 0.85),
)

DETECTION = {1: (0.721, 0.880, 0.796), 100: (0.589, 0.971, 0.710), 400: (0.615, 0.976, 0.696)}
"""Sensitivity, specificity and F1 by the least score: AI-CAC on COCA's scans that are not gated, by another user."""
DETECTION_TITLE = "AI-CAC, COCA not gated"

VESSEL_ICC = {"LM": 0.863, "LAD": 0.964, "LCX": 0.962, "RCA": 0.980}
"""doi:10.3389/fonc.2022.989250"""
VESSEL_TITLE = "10.3389/fonc.2022.989250"

SECONDS = (
    ("scoring alone (de Vos 2019)", 0.3),
    ("automatic with review (PMC7033052)", 36.0),
    ("semi-automatic by a reader (PMC7033052)", 59.0),
)


def agreement_for(key: str) -> list[Agreement]:
    """All of AGREEMENT, what is of this reference first."""
    return sorted(AGREEMENT, key=lambda one: one.key != key)
