"""Doubles of the layout manager and the main window; what a layout holds is decided by Slicer's own layout logic
(Slicer/Slicer Libs/MRML/Widgets/qMRMLLayoutManager.h, .cxx; Base/QTApp/qSlicerMainWindow.h; commontk/CTK
Libs/Widgets/ctkLayoutManager.cpp for the layout's XML)."""

from __future__ import annotations

from xml.etree import ElementTree

import slicer

from .observers import observe
from .plot_views import qMRMLPlotWidget
from .qmrml_doubles import qMRMLTableView, qMRMLWidget
from .qt_manner import double, qt_module
from .slice_views import qMRMLSliceWidget
from .three_d_views import qMRMLThreeDWidget

qt = qt_module()


@double
class qMRMLTableWidget(qMRMLWidget):
    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._view, self._node = qMRMLTableView(), None
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._view)

    def setMRMLTableViewNode(self, node) -> None:
        self._node = node
        observe(node, "ModifiedEvent", lambda *_: self._view.setMRMLTableNode(node.GetTableNode()))

    def mrmlTableViewNode(self):
        return self._node

    def mrmlAbstractViewNode(self):
        return self._node

    def tableView(self):
        return self._view


def _slice_widget(node, parent):
    widget = qMRMLSliceWidget(parent)
    application = slicer.app.applicationLogic()
    application.GetSliceLogics().AddItem(widget.sliceLogic())
    widget.setMRMLSliceNode(node)
    widget.setMRMLScene(slicer.mrmlScene)
    return widget


def _three_d_widget(node, parent):
    widget = qMRMLThreeDWidget(parent)
    slicer.app.applicationLogic().GetViewLogics().AddItem(widget.viewLogic())
    widget.setMRMLScene(slicer.mrmlScene)
    widget.setMRMLViewNode(node)
    return widget


def _table_widget(node, parent):
    widget = qMRMLTableWidget(parent)
    widget.setMRMLTableViewNode(node)
    return widget


def _plot_widget(node, parent):
    widget = qMRMLPlotWidget(parent)
    widget.setMRMLScene(slicer.mrmlScene)
    widget.setMRMLPlotViewNode(node)
    return widget


_MAKERS = {
    "vtkMRMLSliceNode": _slice_widget,
    "vtkMRMLViewNode": _three_d_widget,
    "vtkMRMLTableViewNode": _table_widget,
    "vtkMRMLPlotViewNode": _plot_widget,
}


@double
class qSlicerLayoutManager(qt.QObject):
    """Fills a widget with the views of the current layout. Layouts' items may be views, or layouts of views."""

    layoutChanged = qt.Signal(int)

    def __init__(self, viewport) -> None:
        super().__init__(viewport)
        self._viewport, self._widgets, self._shown = viewport, {}, None
        column = qt.QVBoxLayout(viewport)
        column.setContentsMargins(0, 0, 0, 0)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(slicer.mrmlScene)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._node = self._logic.GetLayoutNode()
        observe(self._node, "ModifiedEvent", lambda *_: self._show())
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def end(self) -> None:
        """Let the views go before the scene does."""
        for widget in self._widgets.values():
            if hasattr(widget, "end"):
                widget.end()
        self._logic.SetMRMLScene(None)

    def viewport(self):
        return self._viewport

    def mrmlScene(self):
        return slicer.mrmlScene

    def layoutLogic(self):
        return self._logic

    @property
    def layout(self) -> int:
        return self._node.GetViewArrangement()

    @layout.setter
    def layout(self, number: int) -> None:
        self.setLayout(number)

    def setLayout(self, number: int) -> None:
        self._node.SetViewArrangement(number)
        self._show()

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(each.sliceViewName for each in self._of_class("vtkMRMLSliceNode"))

    def sliceWidget(self, name: str):
        return next((each for each in self._of_class("vtkMRMLSliceNode") if each.sliceViewName == name), None)

    @property
    def threeDViewCount(self) -> int:
        return len(self._of_class("vtkMRMLViewNode"))

    @property
    def tableViewCount(self) -> int:
        return len(self._of_class("vtkMRMLTableViewNode"))

    @property
    def plotViewCount(self) -> int:
        return len(self._of_class("vtkMRMLPlotViewNode"))

    def threeDWidget(self, which):
        widgets = self._of_class("vtkMRMLViewNode")
        if isinstance(which, int):
            return widgets[which] if which < len(widgets) else None
        return next((each for each in widgets if each.mrmlViewNode().GetLayoutName() == which), None)

    def tableWidget(self, index: int):
        return self._of_class("vtkMRMLTableViewNode")[index]

    def plotWidget(self, index: int):
        return self._of_class("vtkMRMLPlotViewNode")[index]

    def viewWidget(self, node):
        return self._widgets.get(node.GetID())

    def mrmlSliceLogics(self):
        return slicer.app.applicationLogic().GetSliceLogics()

    def mrmlViewLogics(self):
        return slicer.app.applicationLogic().GetViewLogics()

    def activeMRMLThreeDViewNode(self):
        widgets = self._of_class("vtkMRMLViewNode")
        return widgets[0].mrmlViewNode() if widgets else None

    def resetSliceViews(self) -> None:
        for widget in self._of_class("vtkMRMLSliceNode"):
            widget.sliceLogic().FitSliceToBackground()

    def resetThreeDViews(self) -> None:
        for widget in self._of_class("vtkMRMLViewNode"):
            widget.threeDView().resetFocalPoint()

    def setRenderPaused(self, paused: bool) -> None:
        """Views are drawn on demand."""

    def pauseRender(self) -> None:
        """Views are drawn on demand."""

    def resumeRender(self) -> None:
        """Views are drawn on demand."""

    def _of_class(self, kind: str) -> list:
        return [each for each in self._widgets.values() if each.mrmlAbstractViewNode().IsA(kind)]

    def _show(self) -> None:
        description = self._node.GetCurrentLayoutDescription()
        # It is empty for a moment while the scene is cleared.
        if not description or description == self._shown:
            return
        self._shown = description
        for widget in self._widgets.values():
            widget.setParent(self._viewport)
            widget.hide()
        column = self._viewport.layout()
        while column.count():
            old = column.takeAt(0).widget()
            if old not in self._widgets.values():
                old.deleteLater()
        built = self._built(ElementTree.fromstring(description))
        if built is not None:
            column.addWidget(built)
            built.show()
        self.layoutChanged.emit(self.layout)

    def _built(self, element):
        if element.tag == "view":
            return self._view(element)
        kind = element.get("type", "vertical")
        children = [(item, self._built(child)) for item in element.findall("item") for child in item]
        children = [(item, child) for item, child in children if child is not None]
        if kind == "tab":
            holder = qt.QTabWidget()
            for item, child in children:
                holder.addTab(child, item.get("name", ""))
            return holder
        holder = qt.QWidget()
        if kind == "grid":
            grid = qt.QGridLayout(holder)
            for item, child in children:
                place = [int(item.get(key, default)) for key, default in _GRID.items()]
                grid.addWidget(child, *place)
        else:
            grid = qt.QHBoxLayout(holder) if kind == "horizontal" else qt.QVBoxLayout(holder)
            for item, child in children:
                grid.addWidget(child, int(item.get("splitSize", 0)) or 1)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(1)
        for _, child in children:
            child.show()
        return holder

    def _view(self, element):
        kind, tag = element.get("class"), element.get("singletontag")
        node = slicer.mrmlScene.GetSingletonNode(tag, kind)
        if node is None or kind not in _MAKERS:
            return None
        if node.GetID() not in self._widgets:
            self._widgets[node.GetID()] = _MAKERS[kind](node, self._viewport)
        return self._widgets[node.GetID()]


_GRID = {"row": 0, "column": 0, "rowspan": 1, "colspan": 1}


@double
class qSlicerMainWindow(qt.QMainWindow):
    """The module panel on the left, the layout on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("Desktop host")
        self._scroll, viewport, splitter = qt.QScrollArea(), qt.QWidget(), qt.QSplitter()
        self._scroll.setWidgetResizable(True)
        self._scroll.setMinimumWidth(420)
        splitter.addWidget(self._scroll)
        splitter.addWidget(viewport)
        splitter.setStretchFactor(1, 1)
        self.setCentralWidget(splitter)
        self._layouts, self._panel, self._selected = qSlicerLayoutManager(viewport), None, None
        self.resize(1400, 900)

    @property
    def layouts(self):
        return self._layouts

    def moduleSelector(self):
        return self

    @property
    def selectedModule(self) -> str:
        return self._selected or ""

    def selectModule(self, name: str) -> None:
        """Leave the module that is open, and enter another."""
        if self._panel is not None:
            self._scroll.takeWidget()
            self._panel.exit()
        self._selected, self._panel = name, None
        if name:
            self._panel = slicer.app.moduleManager().module(name).widgetRepresentation()
            self._scroll.setWidget(self._panel)
            self._panel.show()
            self._panel.enter()
