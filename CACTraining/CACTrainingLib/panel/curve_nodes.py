"""Curves of a training as Slicer plots: a chart of the loss and one of the validation, updated in place."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import slicer
from slicer import vtkMRMLPlotChartNode
from slicer.i18n import tr as _

from CACScoringLib.panel import views

LAYOUT_ID = 20775
"""Id of the layout, above Slicer's reserved ones. Saved with scenes, so it must not change."""

LOSS, METRICS = "training", "validation"
"""Kinds of charts; a curve's name begins with the kind of its chart."""

RUN_ATTRIBUTE, KIND_ATTRIBUTE = "CAC.run", "CAC.curves"
"""Attributes of chart nodes: folder of the run, kind of the chart."""

SHOWN_METRICS = (
    *("dice", "auc", "sensitivity", "false_positive_rate", "accuracy"),
    *("overlap", "precision", "captured", "covered_clean"),
)
"""Validation metrics between 0 and 1. Other metrics, such as masses, have other scales."""

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Palette for colour-blind readers (Okabe and Ito, 2008)."""

_LEGEND_ROOM = 1.25
"""Factor between the x axis and the curves, which leaves room for the legend at the upper right."""
_LEGEND_POINTS = 14
_MARGIN = 1.05
_VIEWS = {LOSS: "CACTrainingLoss", METRICS: "CACTrainingMetrics"}

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""Steps and values by name: "training/loss", "validation/auc"."""


def updateCharts(run: str, name: str, curves: Curves) -> dict[str, vtkMRMLPlotChartNode]:
    """Update the charts of a run; return its charts by kind, without empty ones.

    Args:
        run: Folder of the run, by which its charts are found again.
        name: Name of the run, for titles.
        curves: Curves of the run.
    """
    charts = chartsOf(run)
    for kind, title in ((LOSS, _("{name}: loss")), (METRICS, _("{name}: validation"))):
        if selected := _curvesOfChart(curves, kind):
            charts[kind] = chart = _plot(charts.get(kind), kind, selected)
            chart.SetAttribute(RUN_ATTRIBUTE, run)
            chart.SetTitle(title.format(name=name))
    return charts


def chartsOf(run: str) -> dict[str, vtkMRMLPlotChartNode]:
    """Find the charts of a run in the scene, by kind."""
    charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    return {chart.GetAttribute(KIND_ATTRIBUTE): chart for chart in charts if chart.GetAttribute(RUN_ATTRIBUTE) == run}


def showsCurves() -> bool:
    """True if the layout of curves is active."""
    return views.shownLayout() == LAYOUT_ID


def show(charts: Mapping[str, vtkMRMLPlotChartNode]) -> None:
    """Show charts in the layout of curves. Does nothing without a main window."""
    if views.shownLayout() is None:
        return
    views.registerLayouts({LAYOUT_ID: _layoutDescription()})
    if not showsCurves():
        slicer.app.layoutManager().setLayout(LAYOUT_ID)
    for kind, view in _VIEWS.items():
        node = slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLPlotViewNode")
        chart = charts.get(kind)
        identifier = None if chart is None else chart.GetID()
        if node is not None and node.GetPlotChartNodeID() != identifier:
            node.SetPlotChartNodeID(identifier)


def _layoutDescription() -> str:
    view = (
        '<item><view class="vtkMRMLPlotViewNode" singletontag="{}">'
        '<property name="viewlabel" action="default">{}</property></view></item>'
    )
    items = view.format(_VIEWS[LOSS], _("Loss")) + view.format(_VIEWS[METRICS], _("Validation"))
    return f'<layout type="vertical" split="true">{items}</layout>'


def _curvesOfChart(curves: Curves, kind: str) -> Curves:
    """Select the curves of a chart, by their name in it: SHOWN_METRICS, or else all metrics that are proportions."""
    part = {name.partition("/")[2]: curve for name, curve in curves.items() if name.startswith(f"{kind}/") and curve[0]}
    if kind == LOSS:
        return part
    metrics = {name: part[name] for name in SHOWN_METRICS if name in part}
    return metrics or {name: curve for name, curve in part.items() if all(-1 <= value <= 1 for value in curve[1])}


def _plot(chart: vtkMRMLPlotChartNode | None, kind: str, curves: Curves) -> vtkMRMLPlotChartNode:
    """Plot curves in a chart, a new one for None. Charts are not saved with the scene, where they would be outdated."""
    columns = _columns(curves)
    nodes = {} if chart is None else {"chart": chart, "series": _seriesOf(chart)}
    tables = [series.GetTableNode() for series in nodes.get("series", ())]
    if tables and tables[0] is not None:
        nodes["table"] = tables[0]
    with slicer.util.NodeModify(nodes["table"]) if "table" in nodes else nullcontext():
        chart = slicer.util.plot(list(columns.values()), 0, list(columns), show=False, nodes=nodes)
    for number, series in enumerate(nodes["series"]):
        series.SetName(series.GetYColumnName())
        colour = _COLOURS[number % len(_COLOURS)]
        series.SetColor(*(int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)))
    for node in (chart, nodes["table"], *nodes["series"]):
        node.SetSaveWithScene(False)
    chart.SetAttribute(KIND_ATTRIBUTE, kind)
    chart.SetLegendFontSize(_LEGEND_POINTS)
    # VTK fits the axes to the curves only when a plot is added.
    steps, *values = columns.values()
    highest = max(float(np.nanmax(column)) for column in values)
    chart.SetXAxisRangeAuto(False)
    chart.SetYAxisRangeAuto(False)
    chart.SetXAxisRange(0.0, max(1.0, float(steps[-1])) * _LEGEND_ROOM)
    chart.SetYAxisRange(min(0.0, *(float(np.nanmin(column)) for column in values)), highest * _MARGIN or 1.0)
    chart.SetXAxisTitle(_("Step"))
    return chart


def _seriesOf(chart: vtkMRMLPlotChartNode) -> list[Any]:
    nodes = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    return [series for series in nodes if series is not None]


def _columns(curves: Curves) -> dict[str, np.ndarray]:
    """Column of all steps, and a column for each curve with NaN at steps without a value."""
    steps = sorted({step for steps_of_curve, _values in curves.values() for step in steps_of_curve})
    columns = {"step": np.array(steps, float)}
    for name, (steps_of_curve, values) in curves.items():
        column = columns[name.replace("_", " ")] = np.full(len(steps), math.nan)
        column[np.searchsorted(steps, steps_of_curve)] = values
    # VTK cannot draw a line of one point.
    return {name: np.repeat(values, 2) if len(steps) == 1 else values for name, values in columns.items()}
