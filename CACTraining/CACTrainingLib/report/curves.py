"""Figures of radiograph models: ROC curves with bands, reliability, survival. One look with `report.figures`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..statistics.bootstrap import Estimate
from ..statistics.roc import ROC_POINTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LOOKS = (("#0072b2", "-", "o"), ("#d55e00", "--", "s"), ("#009e73", "-.", "D"), ("#cc79a7", ":", "^"))
"""Colour (Okabe and Ito), line and marker, so that no figure depends on colour."""


@dataclass(frozen=True)
class Curve:
    """A ROC curve. sensitivity: at ROC_POINTS. band: its lowest and highest, [2, points]; None: no band."""

    title: str
    sensitivity: np.ndarray
    band: np.ndarray | None


@dataclass(frozen=True)
class Bins:
    """Reliability of one predictor: patients in groups of rising predicted probability. probabilities: their mean;
    proportions: truly above."""

    title: str
    probabilities: Sequence[float]
    proportions: Sequence[Estimate]


@dataclass(frozen=True)
class Survival:
    """Proportion without event over time, a step function that begins at 1. low, high: its 95 % band. n: patients."""

    title: str
    years: np.ndarray
    proportion: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int


def roc_bands(drawing: Drawing, panels: Sequence[tuple[str, Sequence[Curve]]]) -> None:
    """A panel for each threshold, and in it a curve for each predictor."""
    axes = drawing.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, curves) in zip(axes, panels, strict=True):
        axis.plot([0, 1], [0, 1], color="#1c2529", linewidth=0.8)
        for curve, (colour, line, _) in zip(curves, LOOKS, strict=False):
            # The curves' own first point is 0, 0; several false positive rates of 0 make it rise at once.
            x, y = np.insert(ROC_POINTS, 0, 0.0), np.insert(curve.sensitivity, 0, 0.0)
            axis.plot(x, y, color=colour, linestyle=line, label=curve.title)
            if curve.band is not None:
                axis.fill_between(ROC_POINTS, *curve.band, color=colour, alpha=0.13, linewidth=0)
        axis.set_title(title)
        axis.set_xlabel("False positive rate")
        axis.set_aspect("equal")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.01)
    axes[0].set_ylabel("Sensitivity")
    _legend(drawing, axes[0])


def reliability(drawing: Drawing, panels: Sequence[tuple[str, Sequence[Bins]]]) -> None:
    """A panel for each threshold: what proportion is truly above, against the predicted probability; the line is
    equality."""
    axes = drawing.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, groups) in zip(axes, panels, strict=True):
        axis.plot([0, 1], [0, 1], color="#1c2529", linewidth=0.8)
        highest = 0.05
        for group, (colour, _, marker) in zip(groups, LOOKS, strict=False):
            low = [one.value - one.low for one in group.proportions]
            high = [one.high - one.value for one in group.proportions]
            values = [one.value for one in group.proportions]
            bars = np.nan_to_num(np.maximum(np.array([low, high]), 0))
            look = {"color": colour, "marker": marker, "linewidth": 0.9, "elinewidth": 0.8}
            axis.errorbar(group.probabilities, values, bars, label=group.title, **look)
            highest = max(
                [highest, *group.probabilities, *(v for one in group.proportions for v in (one.value, one.high))]
            )
        edge = min(1.02, 1.05 * highest)
        axis.set_xlim(0, edge)
        axis.set_ylim(0, edge)
        axis.set_aspect("equal")
        axis.set_title(title)
        axis.set_xlabel("Predicted probability")
    axes[0].set_ylabel("Observed proportion above")
    _legend(drawing, axes[0])


def survival_curves(drawing: Drawing, panels: Sequence[tuple[str, Sequence[Survival]]]) -> None:
    """A panel for each way to sort patients, and in it a curve with its band for each category."""
    axes = drawing.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    lowest = min(float(np.fmin(c.low, c.proportion).min()) for _, curves in panels for c in curves)
    for axis, (title, curves) in zip(axes, panels, strict=True):
        for curve, (colour, line, _) in zip(curves, LOOKS, strict=False):
            axis.step(curve.years, curve.proportion, where="post", color=colour, linestyle=line, label=_counted(curve))
            axis.fill_between(curve.years, curve.low, curve.high, step="post", color=colour, alpha=0.13, linewidth=0)
        axis.set_title(title)
        axis.set_xlabel("Years")
        axis.set_ylim(max(0.0, lowest - 0.45 * (1.01 - lowest)), 1.01)  # room for the legend
        axis.set_xlim(left=0)
        axis.legend(loc="lower left")
    axes[0].set_ylabel("Proportion without event")


def _counted(curve: Survival) -> str:
    return f"{curve.title} (n = {curve.n:,})"


def _legend(drawing: Drawing, axis) -> None:
    handles, labels = axis.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(labels))
