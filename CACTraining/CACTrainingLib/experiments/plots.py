"""Figures that several experiments show."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ..report.curves import Curve
from ..report.figures import Panel, panels_of_values
from ..report.parts import Figure
from ..statistics.resamples import Resamples
from ..statistics.roc import curve_within

BAND_RESAMPLES = 400
"""Of the patients, for a curve's band; the bands' ends are not read off to the third figure."""


def roc_curve(
    title: str, resamples: Resamples, rows: np.ndarray, folds: np.ndarray, truth: np.ndarray, scores: np.ndarray
) -> Curve:
    """ROC curve averaged over folds, with the band of 95 % of the first resamples.

    Args:
        title: of the curve.
        resamples: of the patients.
        rows: which scan each case is, as `resamples` has them, int [m].
        folds: int [m].
        truth: bool [m].
        scores: [m].
    """
    weights = resamples.weights[: BAND_RESAMPLES + 1][:, resamples.of_scan[rows]]
    drawn = curve_within(weights, folds, truth, scores)
    band = np.nanpercentile(drawn[1:], (2.5, 97.5), axis=0) if np.isfinite(drawn[1:]).any() else None
    return Curve(title, drawn[0], band)


def areas_figure(name: str, title: str, panels: Sequence[Panel], size_inches: tuple[float, float]) -> Figure:
    """Areas under the curve side by side.

    Args:
        name, title: of the figure.
        panels: one for each threshold or group.
        size_inches: width and height.
    """
    draw = partial(panels_of_values, panels=panels, y_title="Area under the curve", reference=0.5)
    return Figure(name, title, draw, "The line marks chance.", size_inches)
