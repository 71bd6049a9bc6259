"""Doubles of the widgets that list segments (Slicer/Slicer Libs/MRML/Widgets/qMRMLSegmentSelectorWidget.h, .cxx;
Modules/Loadable/Segmentations/Widgets/qMRMLSegmentsTableView.h)."""

from __future__ import annotations

from .observers import forget, observe
from .qmrml_doubles import qMRMLNodeComboBox, qMRMLWidget
from .qt_manner import double, qt_module, stored

qt = qt_module()


class SegmentObserver(qt.QObject):
    """Tells when a segmentation's segments come, go, or are renamed."""

    changed = qt.Signal()

    def __init__(self, parent) -> None:
        super().__init__(parent)
        self._tags = []
        self.destroyed.connect(lambda *_, tags=self._tags: forget(tags))

    def watch(self, node) -> None:
        forget(self._tags)
        if node is not None:
            events = ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SegmentsOrderModified")
            for event in events:
                number = getattr(node.GetSegmentation(), event)
                self._tags.append(observe(node, number, lambda *_: self.changed.emit()))
            self._tags.append(observe(node, "ModifiedEvent", lambda *_: self.changed.emit()))


@double
class qMRMLSegmentSelectorWidget(qMRMLWidget):
    """Chooses a segmentation, and a segment in it."""

    currentNodeChanged = qt.Signal(object)
    currentSegmentChanged = qt.Signal(str)
    editEnabled = stored(False)
    horizontalLayout = stored(False)
    selectNodeUponCreation = stored(True)
    multiSelection = stored(False)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._none, self._segment = False, ""
        self._nodes, self._segments = qMRMLNodeComboBox(), qt.QComboBox()
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes.addEnabled = self._nodes.removeEnabled = False
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._nodes)
        row.addWidget(self._segments)
        self._observer = SegmentObserver(self)
        self._observer.changed.connect(self._fill)
        self._nodes.currentNodeChanged.connect(self._node_chosen)
        self._segments.currentIndexChanged.connect(self._segment_chosen)

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._nodes.setMRMLScene(scene)

    @property
    def noneEnabled(self) -> bool:
        return self._none

    @noneEnabled.setter
    def noneEnabled(self, on: bool) -> None:
        self._none = self._nodes.noneEnabled = bool(on)
        self._fill()

    @property
    def segmentationNodeSelectorVisible(self) -> bool:
        return not self._nodes.isHidden()

    @segmentationNodeSelectorVisible.setter
    def segmentationNodeSelectorVisible(self, on: bool) -> None:
        self._nodes.setVisible(on)

    def currentNode(self):
        return self._nodes.currentNode()

    def currentNodeID(self) -> str:
        return self._nodes.currentNodeID

    def currentSegmentID(self) -> str:
        return self._segment

    def segmentIDs(self) -> tuple[str, ...]:
        node = self.currentNode()
        return () if node is None else tuple(node.GetSegmentation().GetSegmentIDs())

    def setCurrentNode(self, node) -> None:
        self._nodes.setCurrentNode(node)

    def setCurrentNodeID(self, identifier: str) -> None:
        self._nodes.setCurrentNodeID(identifier)

    def setCurrentSegmentID(self, segment: str) -> None:
        index = self._segments.findData(segment)
        if index >= 0:
            self._segments.setCurrentIndex(index)

    def _node_chosen(self, node) -> None:
        self._observer.watch(node)
        self.currentNodeChanged.emit(node)
        self._fill()

    def _fill(self) -> None:
        node, kept = self.currentNode(), self._segment
        blocked = self._segments.blockSignals(True)
        self._segments.clear()
        if node is not None and self._none and self.segmentIDs():
            self._segments.addItem("None", "")
        for segment in self.segmentIDs():
            self._segments.addItem(node.GetSegmentation().GetSegment(segment).GetName(), segment)
        # Without a segment that was chosen before, the first one is.
        position = self._segments.findData(kept)
        self._segments.setCurrentIndex(position if kept in self.segmentIDs() or self._none else 0)
        self._segments.setEnabled(bool(self.segmentIDs()))
        self._segments.blockSignals(blocked)
        self._segment_chosen(self._segments.currentIndex)

    def _segment_chosen(self, index: int) -> None:
        chosen = self._segments.itemData(index) or ""
        if chosen != self._segment:
            self._segment = chosen
            self.currentSegmentChanged.emit(chosen)


@double
class qMRMLSegmentsTableView(qMRMLWidget):
    """The segments of a segmentation: whether each is shown, its colour and name."""

    selectionChanged = qt.Signal(object, object)
    segmentAboutToBeModified = qt.Signal(str)
    headerVisible = stored(True)
    visibilityColumnVisible = stored(True)
    colorColumnVisible = stored(True)
    opacityColumnVisible = stored(True)
    statusColumnVisible = stored(False)
    layerColumnVisible = stored(False)
    readOnly = stored(False)
    filterBarVisible = stored(False)
    jumpToSelectedSegmentEnabled = stored(False)
    selectionMode = stored(1)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._node, self._table, self._shown = None, qt.QTableWidget(0, 3), []
        self._table.setHorizontalHeaderLabels(["", "", "Name"])
        self._table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self._table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.verticalHeader().setVisible(False)
        self._table.setColumnWidth(0, 26)
        self._table.setColumnWidth(1, 26)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._table)
        self._observer = SegmentObserver(self)
        self._observer.changed.connect(self._fill)
        selection = self._table.selectionModel()
        selection.selectionChanged.connect(lambda on, off: self.selectionChanged.emit(on, off))

    @property
    def segmentCount(self) -> int:
        return len(self._shown)

    def segmentationNode(self):
        return self._node

    def tableWidget(self):
        return self._table

    def setSegmentationNode(self, node) -> None:
        self._node = node
        self._observer.watch(node)
        self._fill()

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        return tuple(self._shown[index.row()] for index in self._table.selectionModel().selectedRows())

    def setSelectedSegmentIDs(self, segments) -> None:
        if tuple(segments) == self.selectedSegmentIDs():
            return
        # In one step, as Slicer does: nobody hears of an empty selection in between.
        chosen, model = qt.QItemSelection(), self._table.selectionModel()
        for segment in segments:
            index = self._table.model().index(self._shown.index(segment), 0)
            chosen.select(index, index)
        model.select(chosen, qt.QItemSelectionModel.ClearAndSelect | qt.QItemSelectionModel.Rows)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def displayedSegmentIDs(self) -> tuple[str, ...]:
        return tuple(self._shown)

    def _fill(self) -> None:
        segmentation = None if self._node is None else self._node.GetSegmentation()
        segments = [] if segmentation is None else list(segmentation.GetSegmentIDs())
        selected = [each for each in self.selectedSegmentIDs() if each in segments]
        same = segments == self._shown
        blocked = self._table.selectionModel().blockSignals(same)
        self._shown = segments
        self._table.setRowCount(len(segments))
        for row, segment in enumerate(segments):
            red, green, blue = (round(255 * each) for each in segmentation.GetSegment(segment).GetColor())
            display = self._node.GetDisplayNode()
            visible = display is None or display.GetSegmentVisibility(segment)
            colour = qt.QTableWidgetItem()
            colour.setBackground(qt.QBrush(qt.QColor(red, green, blue)))
            self._table.setItem(row, 0, qt.QTableWidgetItem("\u25c9" if visible else "\u25cb"))
            self._table.setItem(row, 1, colour)
            self._table.setItem(row, 2, qt.QTableWidgetItem(segmentation.GetSegment(segment).GetName()))
        if selected:
            self.setSelectedSegmentIDs(selected)
        self._table.selectionModel().blockSignals(blocked)
