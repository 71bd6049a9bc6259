"""The curves of a training as Slicer plots: a chart of its loss and one of its validation, updated in place."""

# Slicer's naming.
# ruff: noqa: N802, N806

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLPlotChartNode
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

LAYOUT_ID = 20775
"""Above those that Slicer keeps for itself. Saved with a scene, so it must not change."""

LOSS, METRICS = "training", "validation"
"""Kinds of charts; a curve's name begins with the kind of its chart."""

RUN_ATTRIBUTE, KIND_ATTRIBUTE = "CAC.run", "CAC.curves"
"""Of chart nodes: the folder of the run, and the kind of the chart."""

SHOWN_METRICS = (
    *("dice", "auc", "sensitivity", "false_positive_rate", "accuracy"),
    *("overlap", "precision", "captured", "covered_clean"),
)
"""Metrics between 0 and 1 that tell how good a network is. Others, such as masses, have scales of their own."""

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Told apart by those who do not tell red from green, too (Okabe and Ito, 2008)."""

_LEGEND_ROOM = 1.25
"""The legend lies in the upper right corner, where the best part of a curve would be."""
_LEGEND_POINTS = 14
_MARGIN = 1.05
_MOST_MARKERS = 60

_STEP = "step"
_VIEWS = {LOSS: "CACTrainingLoss", METRICS: "CACTrainingMetrics"}

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""Steps and values by name: "training/loss", "validation/auc"."""


def updateCharts(run: str, name: str, curves: Curves) -> dict[str, vtkMRMLPlotChartNode]:
    """Bring the charts of a run up to its curves; returns them by kind, those that have something to show.

    run: the run's folder, by which its nodes are found again. name: of the run, for titles.
    """
    charts = {}
    for kind in (LOSS, METRICS):
        shown = _shown(curves, kind)
        if shown:
            charts[kind] = _chart(run, name, kind)
            _fill(charts[kind], shown)
    return charts


def chartsOf(run: str) -> dict[str, vtkMRMLPlotChartNode]:
    """The charts of a run that are in the scene, by kind."""
    charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    return {chart.GetAttribute(KIND_ATTRIBUTE): chart for chart in charts if chart.GetAttribute(RUN_ATTRIBUTE) == run}


def isShown() -> bool:
    """Whether the layout of curves is the one shown."""
    layoutNode = _layoutNode()
    return layoutNode is not None and layoutNode.GetViewArrangement() == LAYOUT_ID


def show(charts: Mapping[str, vtkMRMLPlotChartNode]) -> None:
    """Show charts in our layout. Does nothing without a main window."""
    layoutNode = _layoutNode()
    if layoutNode is None:
        return
    if not layoutNode.IsLayoutDescription(LAYOUT_ID):
        layoutNode.AddLayoutDescription(LAYOUT_ID, _layoutDescription())
    if not isShown():
        slicer.app.layoutManager().setLayout(LAYOUT_ID)
    for kind, view in _VIEWS.items():
        node = slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLPlotViewNode")
        chart = charts.get(kind)
        identifier = None if chart is None else chart.GetID()
        if node is not None and node.GetPlotChartNodeID() != identifier:
            node.SetPlotChartNodeID(identifier)


def _layoutNode():
    manager = slicer.app.layoutManager()
    return None if manager is None else manager.layoutLogic().GetLayoutNode()


def _layoutDescription() -> str:
    labels = {LOSS: _("Loss"), METRICS: _("Validation")}
    views = "".join(
        f"""<item><view class="vtkMRMLPlotViewNode" singletontag="{_VIEWS[kind]}">
      <property name="viewlabel" action="default">{label}</property>
    </view></item>"""
        for kind, label in labels.items()
    )
    return f'<layout type="vertical" split="true">{views}</layout>'


def _shown(curves: Curves, kind: str) -> dict[str, tuple[Sequence[int], Sequence[float]]]:
    """Those that belong to a chart, by their name in it. Of metrics that nobody chose, those that are proportions."""
    own = {name.partition("/")[2]: curve for name, curve in curves.items() if name.startswith(f"{kind}/") and curve[0]}
    if kind == LOSS:
        return own
    chosen = {name: own[name] for name in SHOWN_METRICS if name in own}
    return chosen or {name: curve for name, curve in own.items() if all(-1 <= value <= 1 for value in curve[1])}


def _chart(run: str, name: str, kind: str) -> vtkMRMLPlotChartNode:
    if (found := chartsOf(run).get(kind)) is not None:
        return found
    chart = _newNode("vtkMRMLPlotChartNode", f"{name} {kind}")
    chart.SetAttribute(RUN_ATTRIBUTE, run)
    chart.SetAttribute(KIND_ATTRIBUTE, kind)
    titles = {LOSS: _("{name}: loss"), METRICS: _("{name}: validation")}
    chart.SetTitle(titles[kind].format(name=name))
    chart.SetLegendFontSize(_LEGEND_POINTS)
    chart.SetXAxisRangeAuto(False)
    chart.SetYAxisRangeAuto(False)
    chart.SetXAxisTitle(_("Step"))
    chart.SetYAxisTitle({LOSS: _("Loss"), METRICS: _("Metric")}[kind])
    return chart


def _fill(chart: vtkMRMLPlotChartNode, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    # A user may have removed some of the nodes.
    series = {own.GetName(): own for own in _seriesOf(chart)}
    tables = [own.GetTableNode() for own in series.values() if own.GetTableNode() is not None]
    tableNode = tables[0] if tables else _newNode("vtkMRMLTableNode", chart.GetName())
    labels = {_label(name): curve for name, curve in curves.items()}
    columns = _columns(labels)
    # Before the series, which draw columns of it; in one exchange, so that none is missing for a moment.
    if not _holds(tableNode.GetTable(), columns):
        tableNode.SetAndObserveTable(_table(columns))
        _setRanges(chart, columns)
    for number, label in enumerate(labels):
        if label not in series:
            series[label] = _newSeries(label, number)
            chart.AddAndObservePlotSeriesNodeID(series[label].GetID())
    dense = len(columns[_STEP]) > _MOST_MARKERS
    for own in series.values():
        own.SetMarkerStyle(own.MarkerStyleNone if dense else own.MarkerStyleCircle)
        if own.GetTableNodeID() != tableNode.GetID():
            own.SetAndObserveTableNodeID(tableNode.GetID())


def _seriesOf(chart: vtkMRMLPlotChartNode) -> list:
    found = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    return [series for series in found if series is not None]


def _setRanges(chart: vtkMRMLPlotChartNode, columns: Mapping[str, np.ndarray]) -> None:
    """Axes as long as the curves: VTK makes them so by itself only when a plot is added."""
    steps, *values = columns.values()
    lowest = min(0.0, *(float(np.nanmin(each)) for each in values))
    highest = max(float(np.nanmax(each)) for each in values)
    if chart.GetAttribute(KIND_ATTRIBUTE) == METRICS:
        highest = max(1.0, highest)
    chart.SetXAxisRange(0.0, max(1.0, float(steps[-1])) * _LEGEND_ROOM)
    chart.SetYAxisRange(lowest, (highest * _MARGIN) or 1.0)


def _newSeries(label: str, number: int):
    series = _newNode("vtkMRMLPlotSeriesNode", label)
    series.SetXColumnName(_STEP)
    series.SetYColumnName(label)
    series.SetPlotType(series.PlotTypeScatter)
    colour = _COLOURS[number % len(_COLOURS)]
    series.SetColor(*(int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)))
    return series


def _label(name: str) -> str:
    return name.replace("_", " ")


def _columns(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> dict[str, np.ndarray]:
    """A column of all steps, and one for each curve that is no number where it has none."""
    steps = sorted({step for own, _values in curves.values() for step in own})
    row = {step: n for n, step in enumerate(steps)}
    columns = {_STEP: np.array(steps, float)}
    for label, (own, values) in curves.items():
        columns[label] = np.full(len(steps), math.nan)
        columns[label][[row[step] for step in own]] = values
    if len(steps) == 1:
        # A line of one point is an error in VTK.
        return {label: np.repeat(values, 2) for label, values in columns.items()}
    return columns


def _table(columns: Mapping[str, np.ndarray]) -> vtk.vtkTable:
    table = vtk.vtkTable()
    for label, values in columns.items():
        column = numpy_to_vtk(values, deep=True)
        column.SetName(label)
        table.AddColumn(column)
    return table


def _holds(table: vtk.vtkTable | None, columns: Mapping[str, np.ndarray]) -> bool:
    if table is None or table.GetNumberOfColumns() != len(columns):
        return False
    held = [table.GetColumnByName(label) for label in columns]
    return None not in held and all(
        np.array_equal(vtk_to_numpy(old), new, equal_nan=True) for old, new in zip(held, columns.values(), strict=True)
    )


def _newNode(kind: str, name: str):
    """Not saved with the scene: what it shows is in the run's folder, and would be stale."""
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    node.SetSaveWithScene(False)
    return node
