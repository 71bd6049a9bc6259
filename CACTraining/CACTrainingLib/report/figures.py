"""The figures of a study: one look for all, colours that colour-blind readers can tell apart, and ready drawings.

Every drawing takes an empty matplotlib figure first, so that `functools.partial` makes it a `report.parts.Figure.draw`.
Colours are those of Okabe and Ito; markers differ as well, so that no figure depends on colour.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.scoring.uncertainty import Limits

from ..statistics.bootstrap import Estimate
from .parts import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from .parts import Figure

METHOD_COLOURS = {
    "map": "#0072b2",
    "reader": "#d55e00",
    "automatic": "#e69f00",
    "slices": "#6b6b6b",
    "noise_free": "#009e73",
}
MARKERS = {"map": "o", "reader": "s", "automatic": "D", "slices": "^", "noise_free": "v"}
_OTHERS = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "v"), ("#cc79a7", "P"), ("#e69f00", "D"), ("#56b4e9", "^"))

PNG_DPI = 200
CHARACTER_POINTS = 4.35
"""Mean width of a character of a tick's label."""

LOOK = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that figures are the same everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#56656c",
    "axes.labelcolor": "#1c2529",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e6eaec",
    "grid.linewidth": 0.6,
    "xtick.color": "#1c2529",
    "ytick.color": "#1c2529",
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # a name may hold a dollar sign
    "svg.hashsalt": "cac",  # the same study gives the same file
}


@dataclass(frozen=True)
class ScanPairs:
    """Two scans of the same patients by one method, and the limits of their difference.

    first, second: scores, [n]. limits: where there are enough pairs.
    """

    method: str
    first: Sequence[float]
    second: Sequence[float]
    limits: Limits | None = None


@dataclass(frozen=True)
class AgainstTruth:
    """What one method measures of scans whose true mass is known, [n] each.

    other_calcium: whether the scan holds calcium that is not coronary.
    """

    method: str
    true: Sequence[float]
    measured: Sequence[float]
    other_calcium: Sequence[bool]


@dataclass(frozen=True)
class Panel:
    """Values of several methods in the same groups. groups: their names along x.

    series: by method (a key of METHODS, or a name of its own), a value per group; None where there is none.
    """

    title: str
    groups: tuple[str, ...]
    series: Mapping[str, Sequence[Estimate | float | None]]


def rendered(figure: Figure) -> dict[str, bytes]:
    """The figure's files by their ending: "png" and "svg"."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    files = {}
    with matplotlib.rc_context(LOOK):
        drawing = Drawing(figsize=figure.size_inches, layout="constrained")
        FigureCanvasAgg(drawing)
        figure.draw(drawing)
        for ending, made_by in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            stream = io.BytesIO()
            drawing.savefig(stream, format=ending, dpi=PNG_DPI, facecolor="white", metadata=made_by)
            files[ending] = stream.getvalue()
    return files


def title_of(method: str) -> str:
    """What to call a method in a figure: its title in tables; a name that is none of METHODS stays as it is."""
    return METHODS.get(method, method)


def bland_altman(
    drawing: Drawing,
    panels: Sequence[ScanPairs],
    unit: str,
    linear_to: float,
    titles: tuple[str, str] = ("Mean of both scans", "Second minus first scan"),
) -> None:
    """Difference against mean of two scans, a panel per method on common axes, with limits that widen with the mean.

    unit: of the scores, for the axes. linear_to: from there on axes are logarithmic, in both directions. titles: of the
    axes.
    """
    pairs = [np.stack([panel.first, panel.second], axis=1).astype(float) for panel in panels]
    highest = max([1e-9, *(own.mean(1).max() for own in pairs if len(own))])
    widest = max([1e-9, *(np.abs(np.diff(own)).max() for own in pairs if len(own))])
    axes = _row_of_axes(drawing, [panel.method for panel in panels], [len(own) for own in pairs], titles, unit)
    for axis, panel, own in zip(axes, panels, pairs, strict=True):
        colour, marker = _look_of(panel.method)
        axis.axhline(0, color="#1c2529", linewidth=0.8)
        _dots(axis, own.mean(1), own[:, 1] - own[:, 0], colour, marker)
        if panel.limits:
            means = np.geomspace(linear_to / 50, highest, 400)
            for sign in (-1, 1):
                axis.plot(means, sign * panel.limits.at(means), color=colour, linestyle="--")
        _scale(axis, linear_to, (0, 1.5 * highest), (-1.6 * widest, 1.6 * widest))


def against_truth(
    drawing: Drawing,
    panels: Sequence[AgainstTruth],
    unit: str,
    linear_to: float,
    titles: tuple[str, str] = ("True mass", "Measured mass"),
) -> None:
    """Measured against true mass, a panel per method; open marks are scans with calcium that is not coronary.

    The line is equality. linear_to: from there on axes are logarithmic. titles: of the axes.
    """
    highest = max([1e-9, *(float(np.max([p.true, p.measured])) for p in panels if len(p.true))])
    line = np.array([0, *np.geomspace(linear_to / 100, highest, 200)])
    axes = _row_of_axes(drawing, [p.method for p in panels], [len(p.true) for p in panels], titles, unit)
    for axis, panel in zip(axes, panels, strict=True):
        colour, marker = _look_of(panel.method)
        other = np.asarray(panel.other_calcium, bool)
        true, measured = np.asarray(panel.true, float), np.asarray(panel.measured, float)
        axis.plot(line, line, color="#1c2529", linewidth=0.8)
        _dots(axis, true[~other], measured[~other], colour, marker)
        _dots(axis, true[other], measured[other], colour, marker, filled=False)
        _scale(axis, linear_to, *[(-0.15 * linear_to, 1.6 * highest)] * 2)


def panels_of_values(
    drawing: Drawing,
    panels: Sequence[Panel],
    y_title: str,
    limits: tuple[float, float] | None = None,
    connected: bool = False,
    reference: float | None = None,
) -> None:
    """Values with their intervals, side by side in each group, in one panel or a grid of panels with one legend.

    limits: lowest and highest value of the y axis. connected: with a line from group to group. reference: a value to
    draw a line at.
    """
    columns = min(3, len(panels)) if len(panels) != 4 else 2
    rows = math.ceil(len(panels) / columns)
    grid = drawing.subplots(rows, columns, squeeze=False, sharey=True)
    methods = list(dict.fromkeys(method for panel in panels for method in panel.series))
    offsets = np.linspace(-0.5, 0.5, len(methods) + 2)[1:-1] * min(0.75, 0.22 * len(methods))
    for axis, panel in zip(grid.flat, panels, strict=False):
        if reference is not None:
            axis.axhline(reference, color="#1c2529", linewidth=0.8)
        for offset, method in zip(offsets, methods, strict=True):
            if method in panel.series:
                _series(axis, panel.series[method], offset, methods, method, connected)
        axis.set_title(panel.title)
        _name_groups(axis, panel.groups, columns)
    for axis in list(grid.flat)[len(panels) :]:
        axis.remove()
    for axis in grid[:, 0]:
        axis.set_ylabel(y_title)
    if limits is not None:
        room = 0.03 * (limits[1] - limits[0])  # for marks that lie on them
        grid[0, 0].set_ylim(limits[0] - room, limits[1] + room)
    if len(methods) > 1:
        handles = [_legend_mark(method, methods) for method in methods]
        drawing.legend(handles=handles, loc="outside lower center", ncols=_legend_columns(methods))


def forest(
    drawing: Drawing, rows: Sequence[tuple[str, Estimate]], x_title: str, reference: float | None = None
) -> None:
    """Estimates under each other with their intervals, the first at the top. reference: a value to draw a line at."""
    axis = drawing.subplots()
    if reference is not None:
        axis.axvline(reference, color="#1c2529", linewidth=0.8)
    for y, (_, estimate) in enumerate(rows):
        _whisker(axis, y, estimate, METHOD_COLOURS["map"], "o", upright=False)
    axis.set_yticks(range(len(rows)), [label for label, _ in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(x_title)


def _row_of_axes(
    drawing: Drawing, methods: Sequence[str], counts: Sequence[int], titles: tuple[str, str], unit: str
) -> list[Axes]:
    axes = list(drawing.subplots(1, len(methods), squeeze=False, sharex=True, sharey=True)[0])
    for axis, method, count in zip(axes, methods, counts, strict=True):
        axis.set_title(f"{title_of(method)}\nn = {count}")
        axis.set_xlabel(f"{titles[0]}, {unit}")
    axes[0].set_ylabel(f"{titles[1]}, {unit}")
    return axes


def _scale(axis: Axes, linear_to: float, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Set axes that are logarithmic from a value on, and their ends."""
    powers = 10.0 ** np.arange(math.ceil(math.log10(linear_to)), 8)  # below, they would run into the zero
    axis.set_xscale("symlog", linthresh=linear_to, linscale=0.5)
    axis.set_yscale("symlog", linthresh=linear_to, linscale=0.5)
    for one in (axis.xaxis, axis.yaxis):
        one.set_ticks([*-powers[::-1], 0, *powers])
        one.set_major_formatter(lambda value, _: f"{value:,.0f}".replace("-", "−") if abs(value) >= 1 else f"{value:g}")
    axis.set_xlim(*x)
    axis.set_ylim(*y)


def _name_groups(axis: Axes, groups: Sequence[str], columns: int) -> None:
    """columns: how many panels share the figure's width."""
    needed = sum(map(len, groups)) * CHARACTER_POINTS + 6 * len(groups)
    crowded = needed > 0.9 * (72 * axis.figure.get_figwidth() - 60) / columns
    axis.set_xticks(range(len(groups)), groups)
    if crowded:
        axis.tick_params(axis="x", rotation=35)
        for label in axis.get_xticklabels():
            label.set(horizontalalignment="right", rotation_mode="anchor")
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.grid(axis="x", visible=False)


def _look_of(method: str, others: Sequence[str] = ()) -> tuple[str, str]:
    """Colour and marker. others: all methods of the figure; a name that is none of METHODS gets one by its place."""
    if method in METHOD_COLOURS:
        return METHOD_COLOURS[method], MARKERS[method]
    return _OTHERS[list(others).index(method) % len(_OTHERS)] if method in others else _OTHERS[0]


def _dots(axis: Axes, x: np.ndarray, y: np.ndarray, colour: str, marker: str, filled: bool = True) -> None:
    face = colour if filled else "none"
    axis.scatter(x, y, s=12, marker=marker, facecolors=face, edgecolors=colour, linewidths=0.7, alpha=0.65)


def _series(
    axis: Axes,
    values: Sequence[Estimate | float | None],
    offset: float,
    methods: Sequence[str],
    method: str,
    connected: bool,
) -> None:
    colour, marker = _look_of(method, methods)
    places = [n + offset for n, value in enumerate(values) if value is not None]
    known = [value for value in values if value is not None]
    if connected:
        middles = [value.value if isinstance(value, Estimate) else value for value in known]
        axis.plot(places, middles, color=colour, linewidth=1, alpha=0.7)
    for place, value in zip(places, known, strict=True):
        _whisker(axis, place, value, colour, marker)


def _whisker(axis: Axes, place: float, value: Estimate | float, colour: str, marker: str, upright: bool = True) -> None:
    if isinstance(value, Estimate):
        middle, ends = value.value, (value.low, value.high)
    else:
        middle, ends = float(value), (math.nan, math.nan)
    if not math.isfinite(middle):
        return
    if all(map(math.isfinite, ends)):
        at = ((place, place), ends) if upright else (ends, (place, place))
        axis.plot(*at, color=colour, linewidth=1.2, solid_capstyle="butt")
    axis.plot(*((place, middle) if upright else (middle, place)), marker=marker, color=colour, linestyle="none")


def _legend_columns(methods: Sequence[str]) -> int:
    if len(methods) > 4 or sum(len(title_of(method)) + 6 for method in methods) > 105:
        return 2 if len(methods) == 4 else 3
    return len(methods)


def _legend_mark(method: str, methods: Sequence[str]) -> object:
    from matplotlib.lines import Line2D

    colour, marker = _look_of(method, methods)
    return Line2D([], [], color=colour, marker=marker, linestyle="none", label=title_of(method))
