"""Doubles of the plot widget and its view, drawn with VTK's own charts
(Slicer/Slicer Libs/MRML/Widgets/qMRML{PlotView,PlotWidget}.h, .cxx; commontk/CTK
Libs/Visualization/VTK/Widgets/ctkVTKChartView.h)."""

from __future__ import annotations

import slicer
import vtk

from .observers import forget, observe
from .qmrml_doubles import qMRMLWidget
from .qt_manner import double, qt_module
from .render_view import picture_of

qt = qt_module()

_BACKGROUND = (255, 253, 246, 255)
_BAR = 300, 24
_PENS = (
    *(vtk.vtkPen.NO_PEN, vtk.vtkPen.SOLID_LINE, vtk.vtkPen.DASH_LINE),
    *(vtk.vtkPen.DOT_LINE, vtk.vtkPen.DASH_DOT_LINE, vtk.vtkPen.DASH_DOT_DOT_LINE),
)
"""By vtkMRMLPlotSeriesNode's line styles."""


@double
class qMRMLPlotView(qt.QWidget):
    """A chart of the view node's plot chart. It is drawn when it is painted; a mouse does nothing to it."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._context, self._chart = vtk.vtkContextView(), vtk.vtkChartXY()
        self._window = self._context.GetRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._context.GetScene().AddItem(self._chart)
        self._chart.GetBackgroundBrush().SetColor(*_BACKGROUND)
        self._scene = self._node = self._chart_node = None
        self._plots: dict[str, object] = {}
        self._of_view, self._of_chart, self._of_scene = [], [], []
        self._image, self._stale = None, True

    def _end(self) -> None:
        """Let go of the scene and of the drawing surface, while both are there."""
        self.setMRMLScene(None)
        self.setMRMLPlotViewNode(None)
        self._window.Finalize()

    def chart(self):
        return self._chart

    def scene(self):
        return self._context.GetScene()

    def renderWindow(self):
        return self._window

    def addPlot(self, plot) -> None:
        self._chart.AddPlot(plot)

    def removePlot(self, plot) -> None:
        self._chart.RemovePlotInstance(plot)

    def setMRMLScene(self, scene) -> None:
        if scene is self._scene:
            return
        self._scene = scene
        forget(self._of_scene)
        if scene is not None:
            self._of_scene.append(observe(scene, scene.EndBatchProcessEvent, lambda *_: self._chart_changed()))
        self._chart_changed()

    def setMRMLPlotViewNode(self, node) -> None:
        self._node = node
        forget(self._of_view)
        if node is not None:
            for event in ("ModifiedEvent", slicer.vtkMRMLPlotViewNode.PlotChartNodeChangedEvent):
                self._of_view.append(observe(node, event, lambda *_: self._chart_changed()))
        self._chart_changed()

    def _draw(self) -> None:
        self._window.SetSize(max(self.width, 2), max(self.height, 2))
        self._context.GetScene().SetDirty(True)
        self._window.Render()
        self._stale = False
        self._image = picture_of(self._window)

    def paintEvent(self, event) -> None:
        if self._stale or self._image is None:
            self._draw()
        painter = qt.QPainter(self)
        painter.drawImage(0, 0, self._image)
        painter.end()

    def resizeEvent(self, event) -> None:
        self._redraw()

    def _redraw(self) -> None:
        self._stale = True
        self.update()

    def _chart_changed(self) -> None:
        """Hear of the chart node that the view node names; its series and tables tell it when they change."""
        identifier = None if self._scene is None or self._node is None else self._node.GetPlotChartNodeID()
        chart = self._scene.GetNodeByID(identifier) if identifier else None
        if chart is not self._chart_node:
            forget(self._of_chart)
            self._chart_node = chart
            if chart is not None:
                self._of_chart.append(observe(chart, "ModifiedEvent", lambda *_: self._from_mrml()))
        self._from_mrml()

    def _from_mrml(self) -> None:
        node = self._chart_node
        wanted = {} if node is None else {each.GetID(): each for each in _series_of(node) if _can_be_drawn(each)}
        for identifier in set(self._plots) - set(wanted):
            self.removePlot(self._plots.pop(identifier))
        for identifier, series in wanted.items():
            kind = _KINDS[series.GetPlotType()]
            plot = self._plots.get(identifier)
            if not isinstance(plot, kind):
                if plot is not None:
                    self.removePlot(plot)
                plot = self._plots[identifier] = kind()
                self.addPlot(plot)
            _draw_as(plot, series)
        if node is not None:
            self._dress(node)
        self._redraw()

    def _dress(self, node) -> None:
        chart = self._chart
        font = chart.GetTitleProperties().GetFontFamilyFromString(node.GetFontType() or "Arial")
        chart.SetTitle((node.GetTitle() or "") if node.GetTitleVisibility() else "")
        chart.SetShowLegend(node.GetLegendVisibility())
        _font(chart.GetTitleProperties(), font, node.GetTitleFontSize())
        _font(chart.GetLegend().GetLabelProperties(), font, node.GetLegendFontSize())
        x = node.GetXAxisTitle(), node.GetXAxisTitleVisibility(), node.GetXAxisRangeAuto(), node.GetXAxisRange()
        y = node.GetYAxisTitle(), node.GetYAxisTitleVisibility(), node.GetYAxisRangeAuto(), node.GetYAxisRange()
        axes = vtk.vtkAxis
        for place, (title, visible, auto, limits) in (
            *((place, x) for place in (axes.BOTTOM, axes.TOP)),
            *((place, y) for place in (axes.LEFT, axes.RIGHT)),
        ):
            axis = chart.GetAxis(place)
            axis.SetTitle((title or "") if visible else "")
            axis.SetBehavior(axes.AUTO if auto else axes.FIXED)
            if not auto:
                axis.SetUnscaledRange(*limits)
            axis.SetGridVisible(node.GetGridVisibility())
            _font(axis.GetTitleProperties(), font, node.GetAxisTitleFontSize())
            _font(axis.GetLabelProperties(), font, node.GetAxisLabelFontSize())


_KINDS = {
    slicer.vtkMRMLPlotSeriesNode.PlotTypeLine: vtk.vtkPlotLine,
    slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter: vtk.vtkPlotLine,
    slicer.vtkMRMLPlotSeriesNode.PlotTypeBar: vtk.vtkPlotBar,
    slicer.vtkMRMLPlotSeriesNode.PlotTypeScatterBar: vtk.vtkPlotBar,
}


def _series_of(node) -> list:
    found = [node.GetNthPlotSeriesNode(n) for n in range(node.GetNumberOfPlotSeriesNodes())]
    return [series for series in found if series is not None]


def _can_be_drawn(series) -> bool:
    """Whether its columns are there and hold numbers."""
    node = series.GetTableNode()
    if node is None or node.GetTable() is None or not series.GetYColumnName():
        return False
    names = [series.GetYColumnName(), *([series.GetXColumnName()] if series.IsXColumnRequired() else [])]
    columns = [node.GetTable().GetColumnByName(name) for name in names]
    return all(column is not None and column.GetDataType() not in (vtk.VTK_STRING, vtk.VTK_BIT) for column in columns)


def _draw_as(plot, series) -> None:
    plot.SetWidth(series.GetLineWidth())
    plot.SetColorF(*series.GetColor())
    plot.SetOpacity(series.GetOpacity())
    solid = series.GetPlotType() == slicer.vtkMRMLPlotSeriesNode.PlotTypeBar
    plot.GetPen().SetLineType(vtk.vtkPen.SOLID_LINE if solid else _PENS[series.GetLineStyle()])
    if isinstance(plot, vtk.vtkPlotLine):
        plot.SetMarkerSize(series.GetMarkerSize())
        # Both number none, cross, plus, square, circle and diamond alike.
        plot.SetMarkerStyle(series.GetMarkerStyle())
    table, y = series.GetTableNode().GetTable(), series.GetYColumnName()
    indexed = not series.IsXColumnRequired()
    plot.SetUseIndexForXSeries(indexed)
    plot.SetInputData(table, y if indexed else series.GetXColumnName(), y)
    plot.SetLabel(series.GetName() or y)


def _font(text, family: int, size: int) -> None:
    text.SetFontFamily(family)
    text.SetFontSize(size)


@double
class qMRMLPlotWidget(qMRMLWidget):
    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._view = qMRMLPlotView(self)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        # Where Slicer has a bar: the view itself asks for no size.
        column.addItem(qt.QSpacerItem(*_BAR, qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed))
        self._view.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Expanding)
        column.addWidget(self._view)

    def _end(self) -> None:
        self._view._end()

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._view.setMRMLScene(scene)

    def setMRMLPlotViewNode(self, node) -> None:
        self._view.setMRMLPlotViewNode(node)

    def mrmlPlotViewNode(self):
        return self._view._node

    def mrmlAbstractViewNode(self):
        return self.mrmlPlotViewNode()

    def plotView(self):
        return self._view

    def viewWidget(self):
        return self._view
