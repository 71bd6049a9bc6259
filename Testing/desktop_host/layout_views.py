"""Views of a layout manager (Slicer/Slicer Libs/MRML/Widgets/qMRMLLayoutViewFactory.cxx, qMRMLLayoutManager.cxx: view
factories)."""

from __future__ import annotations

import random

import slicer

from .observers import forget, observe
from .plot_views import qMRMLPlotWidget
from .qt_manner import qt_module
from .slice_views import qMRMLSliceWidget
from .three_d_views import qMRMLThreeDWidget

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
