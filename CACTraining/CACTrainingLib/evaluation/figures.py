"""Figures of a study: common style, palette for colour-blind readers, and drawings.

Every drawing takes an empty matplotlib figure first, so that `functools.partial` makes it the `draw` of a figure.
Colours are those of Okabe and Ito; markers differ too, so that no figure depends on colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.quality.calibration import Limits
from CACScoringLib.report.drawing import DARK, SEVERE_RING, drawn
from CACScoringLib.statistics.bootstrap import Estimate

from .parts import METHODS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from CACScoringLib.statistics.survival import StepFunction

    from .parts import Figure

METHOD_LOOKS = {
    "map": ("#0072b2", "o"),
    "reader": ("#d55e00", "s"),
    "automatic": ("#e69f00", "D"),
    "slices": ("#6b6b6b", "^"),
    "noise_free": ("#009e73", "v"),
}
"""Colour and marker of the methods of METHODS."""
OTHER_LOOKS = (*METHOD_LOOKS.values(), ("#56b4e9", "P"))
LINES = ("-", "--", "-.", ":")
CROWDED_CHARACTERS = 95
"""Total length of group names side by side above which they are rotated."""

LimitsOf = Callable[[np.ndarray, np.ndarray], Limits | None]
"""Function of truths and values [n] that returns limits of agreement, None for too few."""


def rendered(figure: Figure) -> dict[str, bytes]:
    """The figure's files by their ending: "png" and "svg"."""
    return drawn(figure.draw, figure.size_inches)


def bland_altman(
    drawing: Drawing,
    rows: pd.DataFrame,
    methods: Sequence[str],
    limits_of: LimitsOf,
    unit: str,
    linear_to: float,
    titles: tuple[str, str] = ("Mean of both scans", "Second minus first scan"),
    severe: Collection[str] = (),
) -> None:
    """Difference against mean of two scores, a panel per method on common axes, with limits that widen with the mean.

    Args:
        drawing: Empty matplotlib figure.
        rows: Long table; truth is the first score.
        methods: Methods, a panel each.
        limits_of: Function that returns a method's limits.
        unit: Unit of the scores in axis titles.
        linear_to: Absolute value above which axes are logarithmic.
        titles: Titles of the x and y axis.
        severe: Names of scans with a severe warning, which get a ring.
    """
    pairs = _pairs(rows, methods)
    highest = max([1e-9, *(scores.mean(1).max() for scores in pairs.values() if len(scores))])
    widest = max([1e-9, *(np.abs(np.diff(scores)).max() for scores in pairs.values() if len(scores))])
    means = np.geomspace(linear_to / 50, highest, 400)
    for axis, method, scores in _axes_of_methods(drawing, pairs, titles, unit):
        axis.axhline(0, color=DARK, linewidth=0.8)
        _dots(axis, scores.mean(1), scores[:, 1] - scores[:, 0], method, _is_severe(rows, method, severe))
        if (limits := limits_of(*scores.T)) is not None:
            for sign in (-1, 1):
                axis.plot(means, sign * limits.at(means), color=look_of(method)[0], linestyle="--")
        _scale(axis, linear_to, (0, 1.5 * highest), (-1.6 * widest, 1.6 * widest))


def against_truth(
    drawing: Drawing,
    rows: pd.DataFrame,
    methods: Sequence[str],
    unit: str,
    linear_to: float,
    titles: tuple[str, str],
    severe: Collection[str] = (),
) -> None:
    """Second against first scores, a panel per method, with the line of equality. Arguments as for `bland_altman`."""
    pairs = _pairs(rows, methods)
    highest = max([1e-9, *(scores.max() for scores in pairs.values() if len(scores))])
    line = np.array([0, *np.geomspace(linear_to / 100, highest, 200)])
    for axis, method, scores in _axes_of_methods(drawing, pairs, titles, unit):
        axis.plot(line, line, color=DARK, linewidth=0.8)
        _dots(axis, scores[:, 0], scores[:, 1], method, _is_severe(rows, method, severe))
        _scale(axis, linear_to, *[(-0.15 * linear_to, 1.6 * highest)] * 2)


def _pairs(rows: pd.DataFrame, methods: Sequence[str]) -> dict[str, np.ndarray]:
    return {method: rows.loc[rows.method == method, ["truth", "value"]].to_numpy(float) for method in methods}


def _is_severe(rows: pd.DataFrame, method: str, severe: Collection[str]) -> np.ndarray:
    return rows.loc[rows.method == method, "scan"].isin(list(severe)).to_numpy()


def panels_of_values(
    drawing: Drawing,
    groups: Sequence[str],
    panels: Mapping[str, Mapping[str, Sequence[Estimate | float | None]]],
    y_title: str,
    limits: tuple[float, float] | None = None,
) -> None:
    """Values with their intervals, side by side in each group, in one panel or a grid of panels with one legend.

    Args:
        drawing: Empty matplotlib figure.
        groups: Group names along x.
        panels: Value of each group, or None, by panel and method (a key of METHODS or another name).
        y_title: Title of the y axis.
        limits: Lowest and highest value of the y axis.
    """
    columns = min(3, len(panels)) if len(panels) != 4 else 2
    grid = drawing.subplots(math.ceil(len(panels) / columns), columns, squeeze=False, sharey=True)
    methods = list(dict.fromkeys(method for series in panels.values() for method in series))
    offsets = np.linspace(-0.5, 0.5, len(methods) + 2)[1:-1] * min(0.75, 0.22 * len(methods))
    handles = {}
    for axis, (title, series) in zip(grid.flat, panels.items(), strict=False):
        for offset, method in zip(offsets, methods, strict=True):
            colour, marker = look_of(method, methods)
            points = [(n + offset, *_with_ends(v)) for n, v in enumerate(series.get(method, ())) if v is not None]
            x, values, low, high = np.array(points, float).reshape(-1, 4).T
            style = {"linestyle": "none", "label": METHODS.get(method, method)}
            handles[method] = axis.plot(x, values, marker=marker, color=colour, **style)[0]
            axis.vlines(x, low, high, colors=colour, linewidth=1.2)
        axis.set_title(title)
        _name_groups(axis, groups, columns)
    for axis in list(grid.flat)[len(panels) :]:
        axis.remove()
    for axis in grid[:, 0]:
        axis.set_ylabel(y_title)
    if limits is not None:
        room = 0.03 * (limits[1] - limits[0])  # for marks that lie on them
        grid[0, 0].set_ylim(limits[0] - room, limits[1] + room)
    if len(methods) > 1:
        ncols = min(3, len(methods)) if len(methods) != 4 else 2
        drawing.legend(handles=list(handles.values()), loc="outside lower center", ncols=ncols)


def survival_curves(drawing: Drawing, panels: Sequence[tuple[str, Mapping[str, StepFunction]]]) -> None:
    """Proportion without event of each group with its confidence band, a panel per grouping of the patients."""
    axes = drawing.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    lowest = min(float(np.fmin(c.low, c.proportion).min()) for _, curves in panels for c in curves.values())
    for axis, (title, curves) in zip(axes, panels, strict=True):
        for (name, curve), (colour, _), line in zip(curves.items(), OTHER_LOOKS, LINES, strict=False):
            label = f"{name} (n = {curve.n:,})"
            axis.step(curve.times, curve.proportion, where="post", color=colour, linestyle=line, label=label)
            axis.fill_between(curve.times, curve.low, curve.high, step="post", color=colour, alpha=0.13, linewidth=0)
        axis.set_title(title)
        axis.set_xlabel("Years")
        axis.set_ylim(max(0.0, lowest - 0.45 * (1.01 - lowest)), 1.01)  # room for the legend
        axis.set_xlim(left=0)
        axis.legend(loc="lower left")
    axes[0].set_ylabel("Proportion without event")


def look_of(method: str, methods: Sequence[str] = ()) -> tuple[str, str]:
    """Colour and marker of a method. A name outside METHODS gets those of its place among the figure's methods."""
    place = list(methods).index(method) if method in methods else 0
    return METHOD_LOOKS.get(method, OTHER_LOOKS[place % len(OTHER_LOOKS)])


def _axes_of_methods(
    drawing: Drawing, pairs: Mapping[str, np.ndarray], titles: tuple[str, str], unit: str
) -> Iterator[tuple[Axes, str, np.ndarray]]:
    axes = drawing.subplots(1, len(pairs), squeeze=False, sharex=True, sharey=True)[0]
    axes[0].set_ylabel(f"{titles[1]}, {unit}")
    for axis, (method, scores) in zip(axes, pairs.items(), strict=True):
        axis.set_title(f"{METHODS.get(method, method)}\nn = {len(scores)}")
        axis.set_xlabel(f"{titles[0]}, {unit}")
        yield axis, method, scores


def _scale(axis: Axes, linear_to: float, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Make both axes logarithmic from a value on, and set their ends."""
    powers = 10.0 ** np.arange(math.ceil(math.log10(linear_to)), 8)  # below, they would run into the zero
    axis.set_xscale("symlog", linthresh=linear_to, linscale=0.5)
    axis.set_yscale("symlog", linthresh=linear_to, linscale=0.5)
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks([*-powers[::-1], 0, *powers])
        side.set_major_formatter(lambda x, _: f"{x:,.0f}".replace("-", "−") if abs(x) >= 1 else f"{x:g}")
    axis.set_xlim(*x)
    axis.set_ylim(*y)


def _name_groups(axis: Axes, groups: Sequence[str], columns: int) -> None:
    """Label the groups along x, rotated if crowded; columns is the number of panels side by side."""
    axis.set_xticks(range(len(groups)), groups)
    if sum(len(group) + 1.5 for group in groups) * columns > CROWDED_CHARACTERS:
        axis.tick_params(axis="x", rotation=35)
        for label in axis.get_xticklabels():
            label.set(horizontalalignment="right", rotation_mode="anchor")
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.grid(axis="x", visible=False)


def _dots(axis: Axes, x: np.ndarray, y: np.ndarray, method: str, is_severe: np.ndarray) -> None:
    colour, marker = look_of(method)
    axis.scatter(x, y, s=12, marker=marker, color=colour, linewidths=0.7, alpha=0.65)
    axis.scatter(x[is_severe], y[is_severe], **SEVERE_RING)


def _with_ends(value: Estimate | float) -> tuple[float, float, float]:
    """Value and its interval, NaN where there is none."""
    return (value.value, value.low, value.high) if isinstance(value, Estimate) else (value, math.nan, math.nan)
