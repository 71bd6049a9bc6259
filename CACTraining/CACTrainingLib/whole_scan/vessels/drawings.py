"""Figures of vessel regression: loss curves with their spread, saliency over the CT, weights of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

TRAINING, VALIDATION = ("#0072b2", "-"), ("#d55e00", "--")
"""Colour (Okabe and Ito) and line, so that no figure depends on colour."""

MOST_LEVELS = 4
"""Errors above so many times that of always the mean are cut off: logarithms turned back begin anywhere."""


@dataclass(frozen=True)
class Losses:
    """Errors over the steps of one kind of network. middle, sd: training and validation, [p, 2]. level: of always
    predicting the mean.
    """

    title: str
    steps: np.ndarray
    middle: np.ndarray
    sd: np.ndarray
    level: float


@dataclass(frozen=True)
class SaliencyPicture:
    """One slice of a patient. grey, saliency (each 0 to 1), coronary (bool): [rows, columns]."""

    title: str
    grey: np.ndarray
    saliency: np.ndarray
    coronary: np.ndarray


@dataclass(frozen=True)
class SliceWeights:
    """Weights that a squeeze-and-excite network gives each slice, from feet to head; middle and sd over patients.

    height_mm: of each slice above the middle of what the network sees. All [slices].
    """

    title: str
    height_mm: np.ndarray
    middle: np.ndarray
    sd: np.ndarray


def loss_curves(drawing: Drawing, panels: Sequence[Losses]) -> None:
    """A panel for each kind, with a band of one standard deviation over the folds."""
    axes = drawing.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, panel in zip(axes, panels, strict=True):
        axis.axhline(panel.level, color="#1c2529", linewidth=0.8, label="Always the mean")
        for n, (title, (colour, line)) in enumerate((("Training", TRAINING), ("Validation", VALIDATION))):
            middle, sd = panel.middle[:, n], panel.sd[:, n]
            axis.plot(panel.steps, middle, color=colour, linestyle=line, label=title)
            axis.fill_between(panel.steps, np.maximum(0, middle - sd), middle + sd, color=colour, alpha=0.15, lw=0)
        axis.set_title(panel.title)
        axis.set_xlabel("Steps")
    highest = max(float((panel.middle + panel.sd)[len(panel.steps) // 20 :].max()) for panel in panels)
    level = max(panel.level for panel in panels)
    axes[0].set_ylim(0, min(1.1 * max(highest, level), MOST_LEVELS * level))
    axes[0].set_ylabel("Mean squared error, thousandths")
    handles, labels = axes[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=3)


def saliency_maps(drawing: Drawing, rows: Sequence[tuple[str, Sequence[SaliencyPicture]]]) -> None:
    """A row for each kind and a column for each patient: the CT, its saliency in colour, true calcium outlined."""
    count = max(len(looked) for _, looked in rows)
    axes = drawing.subplots(len(rows), count, squeeze=False)
    for line, (title, looked) in zip(axes, rows, strict=True):
        for n, axis in enumerate(line):
            axis.set_axis_off()
            if n >= len(looked):
                continue
            one = looked[n]
            axis.imshow(one.grey, cmap="gray", vmin=0, vmax=1)
            axis.imshow(one.saliency, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(1.5 * one.saliency, 0, 0.85))
            if one.coronary.any() and not one.coronary.all():
                axis.contour(one.coronary, levels=[0.5], colors="#56b4e9", linewidths=0.7)
            axis.set_title(f"{title}\n{one.title}" if n == 0 else f"\n{one.title}")


def slice_weights(drawing: Drawing, curves: Sequence[SliceWeights]) -> None:
    """A panel for each network, with a band of one standard deviation over the patients."""
    axes = drawing.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axis, curve in zip(axes, curves, strict=True):
        axis.plot(curve.height_mm, curve.middle, color=TRAINING[0], marker="o", markersize=2.5)
        axis.fill_between(
            curve.height_mm, curve.middle - curve.sd, curve.middle + curve.sd, color=TRAINING[0], alpha=0.15, lw=0
        )
        axis.set_title(curve.title)
        axis.set_xlabel("Height above the middle, mm")
        axis.set_ylim(0, 1.02)
    axes[0].set_ylabel("Weight of the slice")
