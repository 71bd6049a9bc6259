"""Doubles of widgets that list segments (Slicer/Slicer Libs/MRML/Widgets/qMRMLSegmentSelectorWidget.h, .cxx;
Modules/Loadable/Segmentations/Widgets/qMRMLSegmentsTableView.h)."""

from __future__ import annotations

from .observers import forget, observe
from .qmrml_doubles import qMRMLNodeComboBox, qMRMLWidget
from .qt_manner import double, gives, qt_module

qt = qt_module()


class SegmentObserver(qt.QObject):
    """Emits `changed` when a segmentation's segments are added, removed or renamed."""

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
    """Selector of a segmentation and one of its segments, below each other or in a row.

    The last segment stays current while there is no segmentation or it has no segments.
    """

    currentNodeChanged = qt.Signal(object)
    currentSegmentChanged = qt.Signal(str)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._segment = ""
        self._nodes, self._segments = qMRMLNodeComboBox(), qt.QComboBox()
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes.addEnabled = False
        self._frame, self._label, self._message = qt.QFrame(), qt.QLabel("Segment: "), qt.QLabel()
        self._message.setObjectName("label_Message")
        inside = qt.QGridLayout(self._frame)
        inside.setContentsMargins(4, 0, 0, 0)
        inside.addWidget(self._label, 0, 0)
        inside.addWidget(self._segments, 0, 1)
        inside.addWidget(self._message, 1, 0, 1, 2)
        self._grid = qt.QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.addWidget(self._nodes, 0, 0)
        self.horizontalLayout = False
        self._observer = SegmentObserver(self)
        self._observer.changed.connect(self._fill)
        self._nodes.currentNodeChanged.connect(self._node_chosen)
        self._segments.currentIndexChanged.connect(self._segment_chosen)
        self._fill()

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._nodes.setMRMLScene(scene)

    noneEnabled = property(gives("_nodes.noneEnabled"))

    @noneEnabled.setter
    def noneEnabled(self, on: bool) -> None:
        self._nodes.noneEnabled = on
        self._fill()

    @property
    def horizontalLayout(self) -> bool:
        """Return False always, as in Slicer, because a grid never loses rows."""
        return self._grid.rowCount() == 1

    @horizontalLayout.setter
    def horizontalLayout(self, on: bool) -> None:
        """Arrange the selectors in a row, in which both may grow in height, or below each other."""
        self._grid.removeWidget(self._frame)
        self._grid.addWidget(self._frame, *((0, 1) if on else (1, 0)))
        self._label.setText("" if on else "Segment: ")
        height = qt.QSizePolicy.Preferred if on else qt.QSizePolicy.Fixed
        self._nodes.setSizePolicy(qt.QSizePolicy.Preferred, height)
        self._segments.setSizePolicy(qt.QSizePolicy.Expanding, height)

    segmentationNodeSelectorVisible = property(gives("_nodes.visible"))

    @segmentationNodeSelectorVisible.setter
    def segmentationNodeSelectorVisible(self, on: bool) -> None:
        self._nodes.setVisible(on)

    currentNode = gives("_nodes.currentNode()")
    currentSegmentID = gives("_segment")

    def setCurrentNode(self, node) -> None:
        self._nodes.setCurrentNode(node)

    def setCurrentSegmentID(self, segment: str) -> None:
        index = 0 if not segment and self.noneEnabled else self._segments.findData(segment)
        if index >= 0:
            self._segments.setCurrentIndex(index)

    def _node_chosen(self, node) -> None:
        self._observer.watch(node)
        self._fill()
        self.currentNodeChanged.emit(node)

    def _fill(self) -> None:
        node = self.currentNode()
        segmentation = None if node is None else node.GetSegmentation()
        identifiers = () if segmentation is None else tuple(segmentation.GetSegmentIDs())
        for widget in (self._label, self._segments):
            widget.setVisible(bool(identifiers))
        message = "No node is selected " if node is None else "No segments in segmentation "
        self._message.setText("" if identifiers else message)
        self._message.setVisible(not identifiers)
        is_valid = self._segment in identifiers or (not self._segment and self.noneEnabled)
        with qt.QSignalBlocker(self._segments):
            self._segments.clear()
            if not identifiers:
                return
            if self.noneEnabled:
                self._segments.addItem("None", "None")
            for segment in identifiers:
                self._segments.addItem(segmentation.GetSegment(segment).GetName(), segment)
            self._segments.setCurrentIndex(-1)
            if is_valid:
                self.setCurrentSegmentID(self._segment)
        if not is_valid:
            # Slicer selects the first segment, even if None is enabled.
            self._segments.setCurrentIndex(1 if self.noneEnabled else 0)

    def _segment_chosen(self, index: int) -> None:
        if self.currentNode() is not None:
            segment = self._segments.itemData(index) or ""
            self._segment = "" if segment == "None" else segment
            self.currentSegmentChanged.emit(self._segment)


@double
class qMRMLSegmentsTableView(qMRMLWidget):
    """Table of a segmentation's segments: visibility, colour and name."""

    selectionChanged = qt.Signal(object, object)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._node, self._table, self._segment_ids = None, qt.QTableWidget(0, 3), []
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
        return len(self._segment_ids)

    segmentationNode = gives("_node")

    def setSegmentationNode(self, node) -> None:
        self._node = node
        self._observer.watch(node)
        self._fill()

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        return tuple(self._segment_ids[index.row()] for index in self._table.selectionModel().selectedRows())

    def setSelectedSegmentIDs(self, segments) -> None:
        if tuple(segments) == self.selectedSegmentIDs():
            return
        # Select in one step, as Slicer does, without a signal for an empty selection.
        selection, model = qt.QItemSelection(), self._table.selectionModel()
        for segment in segments:
            index = self._table.model().index(self._segment_ids.index(segment), 0)
            selection.select(index, index)
        model.select(selection, qt.QItemSelectionModel.ClearAndSelect | qt.QItemSelectionModel.Rows)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def _fill(self) -> None:
        segmentation = None if self._node is None else self._node.GetSegmentation()
        segments = [] if segmentation is None else list(segmentation.GetSegmentIDs())
        selected = [segment for segment in self.selectedSegmentIDs() if segment in segments]
        is_unchanged = segments == self._segment_ids
        blocked = self._table.selectionModel().blockSignals(is_unchanged)
        self._segment_ids = segments
        self._table.setRowCount(len(segments))
        for row, segment in enumerate(segments):
            red, green, blue = (round(255 * part) for part in segmentation.GetSegment(segment).GetColor())
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
