"""Figures of a cohort: the distribution of its scores, and the calcium map against the clinical rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..core.categories import LIMITS, whole_scores
from ..report.drawing import DARK, SEVERE_RING, drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

BINS_PER_DECADE = 5
LINEAR_TO = 10.0
"""Score above which the axes of the scatter plot are logarithmic."""

_RULE, _SEVERE = "#0072b2", "#d55e00"
_TICKS = (0, 1, 10, 100, 1000, 10_000)


@dataclass(frozen=True)
class CohortScore:
    """Scores of a scan.

    Attributes:
        clinical: Agatston score by the clinical rule.
        of_map: Agatston equivalent of the calcium map; None without one.
        is_severe: True if the scan has a severe warning.
    """

    clinical: float
    of_map: float | None
    is_severe: bool


@dataclass(frozen=True)
class CohortFigure:
    """A figure of the page.

    Attributes:
        name: Name of its files.
        title: Title.
        caption: What it shows, and what its lines and marks mean.
        files: Its files by their ending.
    """

    name: str
    title: str
    caption: str
    files: dict[str, bytes]


def figures_of(scores: Sequence[CohortScore]) -> list[CohortFigure]:
    """Draw the figures of a cohort; none without scores, and no scatter plot without calcium maps."""
    if not scores:
        return []
    severe = sum(score.is_severe for score in scores)
    marked = f"{severe} of {len(scores)} scans have a severe warning: look at these before you use their scores."
    figures = [
        CohortFigure(
            "cohort-scores",
            "Scores by the clinical rule",
            "Number of scans by their Agatston score; the axis is logarithmic in 1 + score. Dashed lines: limits of "
            f"the categories 0, 1–99, 100–399 and 400+. Orange, hatched: scans with a severe warning. {marked}",
            drawn(partial(_histogram, scores=scores), (7, 2.6)),
        )
    ]
    both = [score for score in scores if score.of_map is not None]
    if both:
        figures.append(
            CohortFigure(
                "cohort-methods",
                "The calcium map against the clinical rule",
                f"A point per scan with both scores (n = {len(both)}); axes are logarithmic beyond {LINEAR_TO:g}. "
                "Line: both scores are equal; above it the calcium map has more. Red rings: scans with a severe "
                f"warning. {marked}",
                drawn(partial(_scatter, scores=both), (4, 3.6)),
            )
        )
    return figures


def _histogram(drawing: Drawing, scores: Sequence[CohortScore]) -> None:
    axis = drawing.subplots()
    axis.set_axisbelow(True)
    values, is_severe = (np.array(part) for part in zip(*((s.clinical, s.is_severe) for s in scores), strict=True))
    places = np.log10(1 + whole_scores(values))
    last = max(float(places.max()), np.log10(1 + LIMITS[-1])) + 1 / BINS_PER_DECADE
    edges = np.arange(0, last + 1 / BINS_PER_DECADE, 1 / BINS_PER_DECADE)
    axis.hist(
        [places[~is_severe], places[is_severe]],
        edges.tolist(),
        stacked=True,
        color=[_RULE, _SEVERE],
        hatch=["", "////"],
        edgecolor="white",
        label=["no severe warning", "severe warning"],
    )
    for limit in LIMITS:
        axis.axvline(np.log10(1 + limit), color=DARK, linewidth=0.8, linestyle="--")
    ticks = [tick for tick in _TICKS if np.log10(1 + tick) <= edges[-1]]
    axis.set_xticks([float(np.log10(1 + tick)) for tick in ticks], [f"{tick:,}" for tick in ticks])
    axis.set_xlim(edges[0], edges[-1])
    axis.locator_params(axis="y", integer=True)
    axis.set_xlabel("Agatston score")
    axis.set_ylabel("Scans")
    axis.legend()


def _scatter(drawing: Drawing, scores: Sequence[CohortScore]) -> None:
    axis = drawing.subplots()
    axis.set_axisbelow(True)
    points = np.array([(score.clinical, score.of_map, score.is_severe) for score in scores], float)
    severe = points[points[:, 2] > 0]
    highest = 1.6 * max(LINEAR_TO, points[:, :2].max())
    line = np.array([0, *np.geomspace(LINEAR_TO / 100, highest, 200)])
    axis.plot(line, line, color=DARK, linewidth=0.8)
    axis.scatter(points[:, 0], points[:, 1], s=12, color=_RULE, linewidths=0.7, alpha=0.65)
    axis.scatter(severe[:, 0], severe[:, 1], **SEVERE_RING)
    axis.set_xscale("symlog", linthresh=LINEAR_TO, linscale=0.5)
    axis.set_yscale("symlog", linthresh=LINEAR_TO, linscale=0.5)
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks([tick for tick in _TICKS if tick != 1 and tick <= highest])
        side.set_major_formatter("{x:,.0f}")
    axis.minorticks_off()
    axis.set_xlim(-0.15 * LINEAR_TO, highest)
    axis.set_ylim(-0.15 * LINEAR_TO, highest)
    axis.set_xlabel("Agatston score, clinical rule")
    axis.set_ylabel("Agatston equivalent, calcium map")
