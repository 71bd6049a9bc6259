"""Tables of what the bundled map's card states: coverage of intervals, calibration range, and repeatability limits."""

from __future__ import annotations

from typing import Any

from CACScoringLib.models.cards import bundled_folder, read_card
from CACScoringLib.quality.calibration import Repeatability

TITLES = {
    "field_of_view_mm": "field of view, mm",
    "pixel_mm": "pixel, mm",
    "slice_spacing_mm": "slice spacing, mm",
    "slice_thickness_mm": "slice thickness, mm",
    "kvp": "tube voltage, kV",
    "noise_hu": "noise, HU",
    "median_hu": "blood, HU",
    "heart_ml": "heart, mL",
    "heart_cut_percent": "heart cut off, %",
}
"""Titles of the quantities of the calibration range (`quality.calibration.CalibrationRange`)."""

SCORES = (100, 300)
"""Agatston scores whose repeatability limits are shown."""


def calibration_as_markdown(asked: str) -> str:
    """Return a table of the bundled map's calibration. asked: "intervals", "limits" or "range"."""
    card = read_card(bundled_folder() / "map-compact.json")
    if asked == "intervals":
        return _intervals(card.validation["whole_method"])
    if asked == "limits":
        return _limits(card.repeatability_as(Repeatability))
    ranges: dict[str, Any] = card.calibration["known"]["ranges"]
    rows = [f"| {TITLES[name]} | {_figure(low)} | {_figure(high)} |" for name, (low, high, _) in ranges.items()]
    return "\n".join(["| quantity | lowest | highest |", "|---|---|---|", *rows])


def _figure(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def _limits(study: Repeatability | None) -> str:
    kinds = {"threshold": "reviewed", "automatic": "automatic", "decomposition": "calcium map"}
    stored = {title: study.limits[kind]["agatston"]["total"] for kind, title in kinds.items() if kind in study.limits}
    rows = [f"| {score} | {' | '.join(f'{limits.at(score):.0f}' for limits in stored.values())} |" for score in SCORES]
    return "\n".join([f"| score | {' | '.join(stored)} |", f"|{'---|' * (1 + len(stored))}", *rows])


def _intervals(measured: dict[str, Any]) -> str:
    coverage = measured["coverage_of_intervals"]
    kinds = {"automatic": "clinical score", "decomposition": "calcium map"}
    rows = [
        f"| {category} | {' | '.join('{} of {}'.format(*coverage[kind][category]) for kind in kinds)} |"
        for category in coverage["automatic"]
    ]
    head = f"| true score, scans of {measured['patients']} patients | {' | '.join(kinds.values())} |"
    return "\n".join([head, "|---|---|---|", *rows])
