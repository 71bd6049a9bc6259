"""Doubles of Slicer's MRML widgets for nodes (Slicer/Slicer Libs/MRML/Widgets/qMRML<Name>.h, .cxx)."""

from __future__ import annotations

from .ctk_doubles import ctkSliderWidget, in_row
from .observers import forget, observe
from .qt_manner import double, gives, qt_module, stored

qt = qt_module()


@double
class qMRMLWidget(qt.QWidget):
    """A widget with a scene."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._scene = None

    mrmlScene = gives("_scene")

    def setMRMLScene(self, scene) -> None:
        self._scene = scene


@double
class qMRMLSliderWidget(ctkSliderWidget):
    quantity = stored("")

    def setMRMLScene(self, scene) -> None:
        """Do nothing, because units are not simulated."""


class SceneObserver(qt.QObject):
    """Emits `changed` when the scene's nodes change, except during a batch (closing, importing).

    Its observers end with the QObject, so that a deleted widget is not called.
    """

    changed = qt.Signal()

    def __init__(self, parent) -> None:
        super().__init__(parent)
        self._scene, self._tags, self._nodes = None, [], []
        self.destroyed.connect(lambda *_, tags=self._tags, nodes=self._nodes: (forget(tags), forget(nodes)))

    def watch(self, scene) -> None:
        forget(self._tags)
        forget(self._nodes)
        self._scene = scene
        if scene is None:
            return
        events = {
            scene.NodeAddedEvent: self._node_added_or_removed,
            scene.NodeRemovedEvent: self._node_added_or_removed,
            scene.EndBatchProcessEvent: lambda *_: self.changed.emit(),
        }
        self._tags.extend(observe(scene, event, callback) for event, callback in events.items())
        self._observe_names()

    def _observe_names(self) -> None:
        forget(self._nodes)
        for index in range(self._scene.GetNumberOfNodes()):
            node = self._scene.GetNthNode(index)
            if not node.GetHideFromEditors():
                self._nodes.append(observe(node, "ModifiedEvent", self._node_modified))

    def _node_modified(self, *_) -> None:
        if not self._scene.IsBatchProcessing():
            self.changed.emit()

    def _node_added_or_removed(self, *_) -> None:
        if not self._scene.IsBatchProcessing():
            self._observe_names()
            self.changed.emit()


@double
class qMRMLSortFilterProxyModel(qt.QObject):
    """Nodes that a selector hides."""

    def __init__(self, parent, changed) -> None:
        super().__init__(parent)
        self._hidden, self._changed = (), changed

    hiddenNodeIDs = property(gives("_hidden"))

    @hiddenNodeIDs.setter
    def hiddenNodeIDs(self, identifiers) -> None:
        self._hidden = tuple(identifiers)
        self._changed()


@double
class qMRMLNodeComboBox(qt.QWidget):
    """Combo box of a scene's nodes of some types, with an optional attribute per type.

    currentNodeChanged is also emitted when the current node is renamed. When the current node is removed, the one
    before it in the list becomes current.
    """

    currentNodeChanged = qt.Signal(object)

    addEnabled = stored(True)
    removeEnabled = stored(True)
    noneDisplay = stored("None")

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._combo, self._scene, self._nodes, self._current = qt.QComboBox(), None, [], None
        self._pending_id, self._types, self._attributes, self._current_name = "", (), {}, ""
        self._flags = {"noneEnabled": False, "showChildNodeTypes": True}
        in_row(self, self._combo)
        self.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Fixed)
        self._combo.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Expanding)
        self._filter = qMRMLSortFilterProxyModel(self, self._refresh)
        self._combo.currentIndexChanged.connect(self._index_changed)
        self._observer = SceneObserver(self)
        self._observer.changed.connect(self._refresh)
        self.setEnabled(False)

    def _flag(name: str):  # noqa: N805  used while the class is made
        def set_flag(self, on: bool) -> None:
            self._flags[name] = bool(on)
            self._refresh()

        return property(lambda self: self._flags[name], set_flag)

    noneEnabled = _flag("noneEnabled")
    showChildNodeTypes = _flag("showChildNodeTypes")

    nodeTypes = property(gives("_types"))

    @nodeTypes.setter
    def nodeTypes(self, types) -> None:
        if isinstance(types, str):
            raise AttributeError("nodeTypes takes a list of class names")
        self._types = tuple(filter(None, types))
        self._refresh()

    @property
    def currentNodeID(self) -> str:
        return "" if self._current is None else self._current.GetID()

    @currentNodeID.setter
    def currentNodeID(self, identifier: str) -> None:
        """Select a node; a hidden or missing node clears the selection. Without a scene, the ID is stored for later."""
        if self._scene is None:
            self._pending_id = identifier
            return
        offered_ids = [node.GetID() for node in self._nodes]
        offset = 1 if self.noneEnabled else 0
        self._combo.setCurrentIndex(offered_ids.index(identifier) + offset if identifier in offered_ids else offset - 1)

    mrmlScene = gives("_scene")

    def setMRMLScene(self, scene) -> None:
        if scene is not self._scene:
            self._scene = scene
            self._observer.watch(scene)
            self.setEnabled(scene is not None)
            pending_id, self._pending_id = self._pending_id, ""
            self._refresh()
            if pending_id:
                self.currentNodeID = pending_id

    def addAttribute(self, nodeType: str, name: str, value=None) -> None:
        self._attributes[nodeType] = name, value
        self._refresh()

    sortFilterProxyModel = gives("_filter")

    def nodeCount(self) -> int:
        return len(self._nodes)

    def nodeFromIndex(self, index: int):
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    currentNode = gives("_current")

    def setCurrentNode(self, node) -> None:
        self.currentNodeID = (node.GetID() or "") if node is not None else ""

    def _offers(self, node) -> bool:
        if node.GetHideFromEditors() or node.GetID() in self._filter.hiddenNodeIDs:
            return False
        kind = next((node_type for node_type in self._types if node.IsA(node_type)), None)
        if self._types and (kind is None or (not self.showChildNodeTypes and node.GetClassName() not in self._types)):
            return False
        name, value = self._attributes.get(kind, (None, None))
        if name is None:
            return True
        return node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name))

    def _refresh(self) -> None:
        scene = self._scene
        nodes = [] if scene is None else [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        self._nodes = [node for node in nodes if self._offers(node)]
        before, blocked = self._combo.currentIndex, self._combo.blockSignals(True)
        self._combo.clear()
        if self.noneEnabled:
            self._combo.addItem(self.noneDisplay)
        self._combo.addItems([node.GetName() or "" for node in self._nodes])
        offset = 1 if self.noneEnabled else 0
        if self._current in self._nodes:
            index = self._nodes.index(self._current) + offset
        elif self._current is not None:
            index = min(before - 1, len(self._nodes) + offset - 1)
        elif self.noneEnabled:
            index = 0
        else:
            # Qt's combo box selects the first item.
            index = 0 if self._nodes else -1
        self._combo.setCurrentIndex(index)
        self._combo.blockSignals(blocked)
        self._index_changed(index)

    def _index_changed(self, index: int) -> None:
        position = index - (1 if self.noneEnabled else 0)
        node = self._nodes[position] if 0 <= position < len(self._nodes) else None
        name = "" if node is None else node.GetName() or ""
        if node is not self._current or name != self._current_name:
            self._current, self._current_name = node, name
            self.currentNodeChanged.emit(node)
