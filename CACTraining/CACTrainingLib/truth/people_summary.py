"""Scores of people against their readings, as rows of `people.csv`: the figures in short, and the drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

NEAR, NEAR_SHARE, NEAR_FACTOR = 10.0, 0.2, 1.5
"""A total is right within NEAR or NEAR_SHARE of the reading, a map's within NEAR_FACTOR."""

SHORT = 1
"""Number of figures, from the first, that the front page shows: zeros of people who taught the networks are no test."""

Row = Mapping[str, str]
"""Row of `people.csv`; a scan that was refused has no automatic score."""


def figures_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the figures in short, each a question and its answer; those that no scan answers are left out."""
    scored = [row for row in rows if row["automatic"]]
    positive = [row for row in scored if float(row["reading"]) > 0]
    healthy = [row for row in scored if float(row["reading"]) == 0]
    above = sum(float(row["automatic"]) >= 1 for row in healthy)
    figures = [
        (
            f"total right (within {100 * NEAR_SHARE:g} % or {NEAR:g}, 0 below 1)",
            f"{sum(map(is_right, rows))} of {len(rows)} scans",
        ),
        ("scans without coronary calcium that score 1 or more", f"{above} of {len(healthy)}"),
    ]
    refused, alarmed = len(rows) - len(scored), sum(bool(row["false severe warnings"]) for row in scored)
    figures.append(("scans refused; with a false severe warning", f"{refused}; {alarmed} of {len(scored)}"))
    if shares := [float(row["right artery"]) for row in positive if row["right artery"]]:
        figures.append(("right artery, share of the score: median, worst", f"{median(shares):.2f}, {min(shares):.2f}"))
    intervals = {row["scan"]: _interval(row) for row in scored if " to " in row["interval"]}
    readings = {row["scan"]: float(row["reading"]) for row in scored}
    holds = sum(low <= readings[scan] <= high for scan, (low, high) in intervals.items())
    figures.append(
        ("90 % interval holds the reading", f"{holds} of {len(intervals)} ({len(scored) - len(intervals)} withheld)")
    )
    if ratios := [(1 + high) / (1 + low) for scan, (low, high) in intervals.items() if readings[scan] > 0]:
        figures.append(("its width with calcium, (1 + upper end) / (1 + lower end): median", f"{median(ratios):.1f}"))
    if positive:
        near = sum(1 / NEAR_FACTOR <= float(row["map"]) / float(row["reading"]) <= NEAR_FACTOR for row in positive)
        figures.append(
            (f"map within a factor of {NEAR_FACTOR:g} of the reading", f"{near} of {len(positive)} with calcium")
        )
    false, missed = (sum(float(row[name] or 0) for row in scored) for name in ("false", "missed"))
    total = sum(float(row["reading"]) for row in scored)
    figures.append(
        ("score counted outside the reading; score read but not counted", f"{false:.0f}; {missed:.0f} of {total:.0f}")
    )
    return figures


def _interval(row: Row) -> tuple[float, float]:
    low, high = map(float, row["interval"].split(" to "))
    return low, high


def is_right(row: Row) -> bool:
    """Return True if the total is right; a refused scan's is not."""
    if not row["automatic"]:
        return False
    reading, score = float(row["reading"]), float(row["automatic"])
    return score < 1 if reading == 0 else abs(score - reading) <= max(NEAR, NEAR_SHARE * reading)


def draw_people(drawing: Drawing, rows: Sequence[Row]) -> None:
    """Draw score and interval, and the map, of each scored scan against the reading, into an empty figure."""
    from matplotlib.ticker import NullLocator

    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    ends = [0, 3000]
    axes.plot(ends, ends, color="0.6", linewidth=1, label="equal")
    axes.fill_between(
        ends, [n / NEAR_FACTOR for n in ends], [n * NEAR_FACTOR for n in ends], color="0.92", label="within 1.5"
    )
    scored = [row for row in rows if row["automatic"]]
    positive = [row for row in scored if float(row["reading"])]
    healthy = [row for row in scored if not float(row["reading"])]
    readings, scores, mapped = ([float(row[name]) for row in positive] for name in ("reading", "automatic", "map"))
    for row, reading, score in zip(positive, readings, scores, strict=True):
        if " to " in row["interval"]:
            axes.plot([reading, reading], _interval(row), color="tab:blue", linewidth=1.2)
        if not is_right(row):
            axes.annotate(row["scan"], (reading, score), (-28, 4), textcoords="offset points", fontsize=8)
    axes.plot(readings, scores, "o", color="tab:blue", label="automatic, 90 % interval")
    axes.plot(readings, mapped, "x", color="tab:red", label="map")
    if healthy:
        axes.plot(0, max(float(row["automatic"]) for row in healthy), "o", color="tab:blue")
        axes.annotate(f"{len(healthy)} scans", (0, 0), (8, 8), textcoords="offset points", fontsize=8)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("symlog", linthresh=30)
        axis.set_ticks([0, 10, 30, 100, 300, 1000, 3000], ["0", "10", "30", "100", "300", "1000", "3000"])
        axis.set_minor_locator(NullLocator())
    axes.set(xlim=(-2, 3600), ylim=(-2, 6000), xlabel="reading (Agatston)", ylabel="score (Agatston)")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
