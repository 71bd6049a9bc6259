"""Doubles of the layout manager and the main window; Slicer's own layout logic decides on a layout's views
(Slicer/Slicer Libs/MRML/Widgets/qMRMLLayoutManager.h, .cxx, qMRMLLayoutViewFactory.cxx; Base/QTApp/qSlicerMainWindow.h;
Base/QTGUI/qSlicerModuleSelectorToolBar.h; commontk/CTK Libs/Widgets/ctkLayoutManager.cpp for the layout's XML)."""

from __future__ import annotations

import random
from xml.etree import ElementTree

import slicer
import vtk

from .observers import forget, observe
from .plot_views import qMRMLPlotWidget
from .qt_manner import double, gives, qt_module
from .scene_views import qMRMLSliceWidget, qMRMLThreeDWidget

qt = qt_module()


def _slice_widget(node, parent):
    widget = qMRMLSliceWidget(parent)
    slicer.app.applicationLogic().GetSliceLogics().AddItem(widget.sliceLogic())
    widget.setMRMLSliceNode(node)
    widget.setMRMLScene(slicer.mrmlScene)
    return widget


def _three_d_widget(node, parent):
    widget = qMRMLThreeDWidget(parent)
    widget.setMRMLScene(slicer.mrmlScene)
    widget.setMRMLViewNode(node)
    slicer.app.applicationLogic().GetViewLogics().AddItem(widget._logic)
    return widget


def _plot_widget(node, parent):
    widget = qMRMLPlotWidget(parent)
    widget.setMRMLScene(slicer.mrmlScene)
    widget.setMRMLPlotViewNode(node)
    return widget


_MAKERS = {"vtkMRMLSliceNode": _slice_widget, "vtkMRMLViewNode": _three_d_widget, "vtkMRMLPlotViewNode": _plot_widget}


class Views:
    """Widgets of all view nodes of the scene, including views that the layout does not show.

    Slicer sorts them by the nodes' addresses, so their order changes from run to run. Here the order is random, with
    views that are not shown first, so that code which expects the first view to be shown always fails.
    """

    def __init__(self, viewport) -> None:
        self._viewport, self._widgets, self._lots, self._observed = viewport, {}, {}, {}

    def add(self, node):
        """Return the widget of a view node, made if needed; None for an unknown kind of view."""
        make = _MAKERS.get(node.GetClassName())
        if node not in self._widgets and make is not None and node.GetParentLayoutNode() is None:
            widget = self._widgets[node] = make(node, self._viewport)
            # The layout shows it.
            widget.setVisible(False)
            self._lots[node] = random.random()
            self._observed[node] = [observe(node, "ModifiedEvent", lambda *_: self._modified(node))]
        return self._widgets.get(node)

    def add_all(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLAbstractViewNode"):
            self.add(node)

    def remove(self, node) -> None:
        if node in self._widgets:
            forget(self._observed.pop(node))
            widget = self._widgets.pop(node)
            for kind in ("Slice", "View"):
                self.logics(kind).RemoveItem(getattr(widget, "_logic", None))
            widget._end()
            widget.hide()
            widget.deleteLater()

    @staticmethod
    def logics(kind: str):
        return getattr(slicer.app.applicationLogic(), f"Get{kind}Logics")()

    def of(self, kind: str) -> list:
        """Return the widgets whose nodes have a class."""
        nodes = [node for node in self._widgets if node.IsA(kind)]
        nodes.sort(key=lambda node: (node.IsMappedInLayout(), self._lots[node]))
        return [self._widgets[node] for node in nodes]

    def at(self, kind: str, key):
        """Return a widget by its number or its node's name, or None."""
        widgets = self.of(kind)
        if isinstance(key, int):
            return widgets[key] if 0 <= key < len(widgets) else None
        return next((widget for widget in widgets if widget.mrmlAbstractViewNode().GetName() == key), None)

    def of_node(self, node):
        return self._widgets.get(node)

    def nodes(self) -> list:
        return list(self._widgets)

    def end(self) -> None:
        for widget in self._widgets.values():
            widget._end()

    def _modified(self, node) -> None:
        self._widgets[node].setVisible(node.IsViewVisibleInLayout())


@double
class qSlicerLayoutManager(qt.QObject):
    """Fills a widget with the views of the current layout, again whenever the layout node is modified.

    The views take their new sizes when Qt's events are processed, as in Slicer.
    """

    layoutChanged = qt.Signal(int)

    def __init__(self, viewport) -> None:
        super().__init__(viewport)
        self._viewport, self._views, self._frames, self._of_node = viewport, Views(viewport), [], []
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(slicer.mrmlScene)
        # Set before the observers, because the logic has to update its nodes first when the scene changes.
        self._logic.SetMRMLScene(slicer.mrmlScene)
        scene = slicer.mrmlScene
        for event, function in {
            scene.NodeAddedEvent: self._node_added,
            scene.NodeRemovedEvent: self._node_removed,
            scene.StartCloseEvent: lambda *_: self._clear(),
            scene.EndCloseEvent: lambda *_: scene.IsBatchProcessing() or self._from_scene(),
            scene.EndBatchProcessEvent: lambda *_: self._from_scene(),
        }.items():
            observe(scene, event, function)
        self._from_scene()
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def _end(self) -> None:
        """End the views before the scene."""
        self._views.end()
        self._logic.SetMRMLScene(None)

    viewport = gives("_viewport")

    def mrmlScene(self):
        return slicer.mrmlScene

    layoutLogic = gives("_logic")
    layout = property(gives("_logic.GetLayoutNode().GetViewArrangement()"))

    @layout.setter
    def layout(self, number: int) -> None:
        self.setLayout(number)

    def setLayout(self, number: int) -> None:
        node = self._logic.GetLayoutNode()
        if number != self.layout:
            is_known = node.IsLayoutDescription(number)
            node.RemoveAllMaximizedViewNodes()
            node.SetViewArrangement(number if is_known else node.SlicerLayoutConventionalView)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(widget.mrmlSliceNode().GetName() for widget in self._views.of("vtkMRMLSliceNode"))

    def sliceWidget(self, name: str):
        return self._views.at("vtkMRMLSliceNode", name)

    @property
    def threeDViewCount(self) -> int:
        return len(self._views.of("vtkMRMLViewNode"))

    @property
    def plotViewCount(self) -> int:
        return len(self._views.of("vtkMRMLPlotViewNode"))

    def threeDWidget(self, key):
        return self._views.at("vtkMRMLViewNode", key)

    def plotWidget(self, index: int):
        return self._views.at("vtkMRMLPlotViewNode", index)

    def mrmlSliceLogics(self):
        return self._views.logics("Slice")

    def viewWidget(self, node):
        return self._views.of_node(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_added(self, caller, event, node) -> None:
        if not slicer.mrmlScene.IsBatchProcessing() and node.IsA("vtkMRMLAbstractViewNode"):
            self._views.add(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_removed(self, caller, event, node) -> None:
        self._views.remove(node)

    def _from_scene(self) -> None:
        self._views.add_all()
        forget(self._of_node)
        self._of_node.append(observe(self._logic.GetLayoutNode(), "ModifiedEvent", lambda *_: self._show()))
        self._show()

    def _show(self) -> None:
        if slicer.mrmlScene.IsBatchProcessing():
            return
        node, viewport = self._logic.GetLayoutNode(), self._viewport
        updated = viewport.updatesEnabled
        viewport.setUpdatesEnabled(False)
        self._clear()
        for view in self._views.nodes():
            view.SetMappedInLayout(False)
        description = node.GetCurrentLayoutDescription()
        if description:
            item = self._item(ElementTree.fromstring(description))
            if isinstance(item, qt.QWidget):
                row = qt.QHBoxLayout()
                row.setContentsMargins(0, 0, 0, 0)
                row.addWidget(item)
                item = row
            viewport.setLayout(item)
        viewport.setUpdatesEnabled(updated)
        self.layoutChanged.emit(node.GetViewArrangement())

    def _clear(self) -> None:
        """Remove the views from the current layout and delete it."""
        layout = self._viewport.layout()
        if layout is None:
            return
        layout.setEnabled(False)
        for frame in self._frames:
            # Visible views would be resized with every removal.
            frame.setVisible(False)
        for node in self._views.nodes():
            widget = self._views.of_node(node)
            widget.setVisible(False)
            widget.setParent(self._viewport)
        outer = [frame for frame in self._frames if frame.parent() is self._viewport]
        self._frames.clear()
        for frame in outer:
            frame.delete()
        layout.delete()

    def _item(self, element):
        """Return a widget or a layout without a parent; None for an unknown kind of view."""
        if element.tag == "view":
            return self._view(element)
        kind = element.get("type", "horizontal")
        if element.get("split") == "true":
            holder = qt.QSplitter(qt.Qt.Vertical if kind == "vertical" else qt.Qt.Horizontal)
        else:
            holder = {"vertical": qt.QVBoxLayout, "horizontal": qt.QHBoxLayout}[kind]()
            holder.setContentsMargins(0, 0, 0, 0)
            holder.setSpacing(1)
        if isinstance(holder, qt.QWidget):
            self._frames.append(holder)
        for item in element:
            child = self._item(item[0])
            if child is not None:
                self._put(holder, child)
        return holder

    def _put(self, holder, child) -> None:
        """Add a child to a layout, or as a page to a splitter."""
        if isinstance(holder, qt.QLayout):
            (holder.addWidget if isinstance(child, qt.QWidget) else holder.addLayout)(child)
            return
        if not isinstance(child, qt.QWidget):
            page = qt.QWidget()
            self._frames.append(page)
            page.setLayout(child)
            child = page
        holder.addWidget(child)

    def _view(self, element):
        node = slicer.mrmlScene.GetSingletonNode(element.get("singletontag"), element.get("class"))
        widget = None if node is None else self._views.add(node)
        if widget is not None:
            node.SetMappedInLayout(True)
            widget.setVisible(bool(node.GetVisibility()))
            widget.windowTitle = node.GetName()
        return widget


@double
class qSlicerModuleSelectorToolBar(qt.QToolBar):
    """Tool bar that selects the module whose panel is shown."""

    moduleSelected = qt.Signal(str)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._selected = ""

    selectedModule = property(gives("_selected"))

    @selectedModule.setter
    def selectedModule(self, name: str) -> None:
        self.selectModule(name)

    def selectModule(self, name: str) -> None:
        if name and slicer.app.moduleManager().module(name) is None:
            raise RuntimeError(f"There is no module {name}")
        self._selected = name
        self.moduleSelected.emit(name)


@double
class qSlicerMainWindow(qt.QMainWindow):
    """Main window with the module panel on the left and the layout on the right."""

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
        self._layouts, self._panel = qSlicerLayoutManager(viewport), None
        self.statusBar().show()
        # The tool bar has no buttons and is not shown.
        self._selector = qSlicerModuleSelectorToolBar(self)
        self._selector.hide()
        self._selector.moduleSelected.connect(self._show_module)
        self.resize(1400, 900)

    moduleSelector = gives("_selector")

    def _show_module(self, name: str) -> None:
        """Leave the current module and enter another."""
        if self._panel is not None:
            self._scroll.takeWidget()
            self._panel.exit()
        self._panel = None
        if name:
            self._panel = slicer.app.moduleManager().module(name).widgetRepresentation()
            self._scroll.setWidget(self._panel)
            self._panel.show()
            self._panel.enter()
