"""Doubles of the plot widget and its view, drawn with VTK's own charts
(Slicer/Slicer Libs/MRML/Widgets/qMRML{PlotView,PlotWidget}.h, .cxx; commontk/CTK
Libs/Visualization/VTK/Widgets/ctkVTKChartView.h)."""

from __future__ import annotations

import slicer
import vtk

from .observers import forget, observe
from .qmrml_doubles import qMRMLWidget
from .qt_manner import double, gives, qt_module
from .render_view import PaintedView, picture_of

qt = qt_module()

_BACKGROUND = (255, 253, 246, 255)
_BAR = 300, 24
_PENS = (
    *(vtk.vtkPen.NO_PEN, vtk.vtkPen.SOLID_LINE, vtk.vtkPen.DASH_LINE),
    *(vtk.vtkPen.DOT_LINE, vtk.vtkPen.DASH_DOT_LINE, vtk.vtkPen.DASH_DOT_DOT_LINE),
)
"""VTK's pens, indexed by vtkMRMLPlotSeriesNode's line styles."""


@double
class qMRMLPlotView(PaintedView):
    """Chart of the view node's plot chart, drawn when the widget is painted, without mouse interaction."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._context, self._chart = vtk.vtkContextView(), vtk.vtkChartXY()
        self._window = self._context.GetRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._context.GetScene().AddItem(self._chart)
        self._chart.GetBackgroundBrush().SetColor(*_BACKGROUND)
        self._scene = self._node = self._chart_node = None
        self._of_view, self._of_chart, self._of_scene = [], [], []
        self._image, self._stale = None, True

    def _end(self) -> None:
        """Release the scene and the drawing surface while both exist."""
        self.setMRMLScene(None)
        self.setMRMLPlotViewNode(None)
        self._window.Finalize()

    chart = gives("_chart")

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

    def forceRender(self) -> None:
        self._window.SetSize(max(self.width, 2), max(self.height, 2))
        self._context.GetScene().SetDirty(True)
        self._window.Render()
        self._stale = False
        self._image = picture_of(self._window)

    def resizeEvent(self, event) -> None:
        self.scheduleRender()

    def _chart_changed(self) -> None:
        """Observe the view node's chart node, which is modified with its series and tables."""
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
        count = 0 if node is None else node.GetNumberOfPlotSeriesNodes()
        self._chart.ClearPlots()
        for series in (node.GetNthPlotSeriesNode(n) for n in range(count)):
            if series is not None and series.GetTableNode() is not None and series.GetYColumnName():
                plot = self._chart.AddPlot(vtk.vtkChart.LINE)
                plot.SetWidth(series.GetLineWidth())
                plot.SetColorF(*series.GetColor())
                plot.GetPen().SetLineType(_PENS[series.GetLineStyle()])
                plot.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
                plot.SetLabel(series.GetName())
        if node is not None:
            self._chart.SetTitle(node.GetTitle() or "")
            self._chart.SetShowLegend(node.GetLegendVisibility())
            self._chart.GetAxis(vtk.vtkAxis.BOTTOM).SetTitle(node.GetXAxisTitle() or "")
            self._chart.GetAxis(vtk.vtkAxis.LEFT).SetTitle(node.GetYAxisTitle() or "")
        self.scheduleRender()


@double
class qMRMLPlotWidget(qMRMLWidget):
    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._view = qMRMLPlotView(self)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        # Space of Slicer's tool bar; the view itself has no size hint.
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

    mrmlPlotViewNode = gives("_view._node")
    mrmlAbstractViewNode = gives("mrmlPlotViewNode()")
    plotView = gives("_view")
    viewWidget = gives("_view")
