"""Double of the segment editor's widget (Slicer/Slicer Modules/Loadable/Segmentations/Widgets/
qMRMLSegmentEditorWidget.h, .cxx, Resources/UI/qMRMLSegmentEditorWidget.ui). Undo, masking and the voxels are Slicer's
own vtkSlicerSegmentEditorLogic."""

from __future__ import annotations

import slicer
import vtk

from .observers import forget, observe
from .qmrml_doubles import qMRMLNodeComboBox, qMRMLWidget
from .qt_manner import double, gives, qt_module, stored
from .segment_editor_effects import SLICERS_ORDER, SegmentEditorEffects
from .segment_widgets import qMRMLSegmentsTableView

qt = qt_module()


class SegmentEditorParts(qMRMLWidget):
    """Base class with the widget's parts and their layout."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._segmentations, self._volumes = qMRMLNodeComboBox(), qMRMLNodeComboBox()
        self._segmentations.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._segmentations.noneEnabled = True
        self._volumes.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self._volumes.noneEnabled = True
        self._add, self._remove = qt.QPushButton("Add"), qt.QPushButton("Remove")
        self._show_3d, self._switch = qt.QPushButton("Show 3D"), qt.QToolButton()
        self._geometry, self._segments = qt.QToolButton(), qMRMLSegmentsTableView()
        self._effect_box, self._options, self._help = qt.QFrame(), qt.QGroupBox(), qt.QTextBrowser()
        self._effect_grid = qt.QGridLayout(self._effect_box)
        self._effect_group, self._effect_buttons = qt.QButtonGroup(self), {}
        self._undo, self._redo = qt.QToolButton(), qt.QToolButton()
        self._undo.setText("Undo")
        self._redo.setText("Redo")
        self._undo_box, self._options_frame = qt.QGroupBox(), qt.QFrame()
        self._help.setFixedHeight(48)  # as high as its text in Slicer
        inside = qt.QVBoxLayout(self._options)
        inside.addWidget(self._help)
        inside.addWidget(self._options_frame)
        options = qt.QVBoxLayout(self._options_frame)
        options.setContentsMargins(0, 0, 0, 0)
        options.setSpacing(0)
        self._arrange()

    def _arrange(self) -> None:
        form = qt.QFormLayout()
        self._labels = qt.QLabel("Segmentation:"), qt.QLabel("Source volume:")
        form.addRow(self._labels[0], self._segmentations)
        volume = qt.QHBoxLayout()
        volume.addWidget(self._volumes)
        volume.addWidget(self._geometry)
        form.addRow(self._labels[1], volume)
        buttons = qt.QHBoxLayout()
        for button in (self._add, self._remove, self._show_3d, self._switch):
            buttons.addWidget(button)
        undo = qt.QHBoxLayout(self._undo_box)
        undo.addWidget(self._undo)
        undo.addWidget(self._redo)
        left_column = qt.QVBoxLayout()
        left_column.addWidget(self._effect_box)
        left_column.addWidget(self._undo_box)
        left_column.addStretch(1)
        middle = qt.QHBoxLayout()
        middle.addLayout(left_column)
        middle.addWidget(self._segments, 1)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for layout in (form, buttons, middle):
            column.addLayout(layout)
        column.addWidget(self._options)
        self._options.hide()


def _visible(name: str):
    """Return a property that shows or hides parts. As in Slicer, it reads False while they are in no window."""

    def set_visible(self, on: bool) -> None:
        for part in self._of(name):
            part.setVisible(bool(on))

    return property(lambda self: self._of(name)[0].visible, set_visible)


@double
class qMRMLSegmentEditorWidget(SegmentEditorEffects, SegmentEditorParts):
    """Edits a segmentation with effects; a segment editor node holds the state."""

    sourceVolumeNodeChanged = qt.Signal(object)
    autoShowSourceVolumeNode = stored(True)
    segmentationNodeSelectorVisible = _visible("segmentation")
    addRemoveSegmentButtonsVisible = _visible("add")
    show3DButtonVisible = _visible("3d")
    switchToSegmentationsButtonVisible = _visible("switch")

    def __init__(self, parent=None) -> None:
        editors = (isinstance(widget, qMRMLSegmentEditorWidget) for widget in qt.QApplication.topLevelWidgets())
        if parent is None and any(editors):
            raise RuntimeError("Delete the former editor: with several, Slicer crashes at exit.")
        super().__init__(parent)
        self._node, self._effects, self._active = None, [], None
        self._logic, self._interaction = slicer.vtkSlicerSegmentEditorLogic(), None
        self._order, self._unordered = SLICERS_ORDER, True
        self._geometry_visible = True
        self._observed, self._observed_in, self._views_observed, self._shortcuts = [], {}, False, []
        self._segmentation, self._volume = None, None
        self._of_node, self._of_segmentation, self._of_volume, self._of_interaction = [], [], [], []
        self._of_scene = []
        attributes = vars(self)
        self.destroyed.connect(lambda *_: [forget(attributes[name]) for name in attributes if name.startswith("_of_")])
        self._segmentations.currentNodeChanged.connect(self._segmentation_chosen)
        self._volumes.currentNodeChanged.connect(self._volume_chosen)
        self._segments.selectionChanged.connect(self._segment_chosen)
        self._undo.clicked.connect(self.undo)
        self._redo.clicked.connect(self.redo)
        self._effect_group.buttonClicked.connect(lambda button: self.setActiveEffectByName(button.objectName))
        history = slicer.vtkSlicerSegmentEditorLogic.SegmentationHistoryChangedEvent
        observe(self._logic, history, lambda *_: self._update_undo())
        self.updateEffectList()

    def _of(self, name: str) -> tuple:
        parts = {"segmentation": (self._segmentations, self._labels[0]), "add": (self._add, self._remove)}
        return (parts | {"3d": (self._show_3d,), "switch": (self._switch,)})[name]

    sourceVolumeNodeSelectorVisible = property(gives("_volumes.visible"))

    @sourceVolumeNodeSelectorVisible.setter
    def sourceVolumeNodeSelectorVisible(self, on: bool) -> None:
        self._volumes.setVisible(on)
        self._labels[1].setVisible(on)
        self._geometry.setVisible(bool(on) and self._geometry_visible)

    specifyGeometryButtonVisible = property(gives("_geometry_visible"))

    @specifyGeometryButtonVisible.setter
    def specifyGeometryButtonVisible(self, on: bool) -> None:
        self._geometry_visible = bool(on)
        self._geometry.setVisible(self._volumes.visible and self._geometry_visible)

    undoEnabled = property(gives("_undo_box.visible"))

    @undoEnabled.setter
    def undoEnabled(self, on: bool) -> None:
        if on:
            self._logic.ClearUndoState()
        self._undo_box.setVisible(bool(on))

    # The nodes.

    def setMRMLScene(self, scene) -> None:
        if scene is self.mrmlScene():
            return
        for selector in (self._segmentations, self._volumes):
            with qt.QSignalBlocker(selector):
                selector.setMRMLScene(scene)
        super().setMRMLScene(scene)
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._logic.SetMRMLScene(scene)
        if slicer.app.layoutManager() is not None:
            slicer.app.layoutManager().layoutChanged.connect(self._layout_changed)
        forget(self._of_interaction)
        self._interaction = None if scene is None else scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        if self._interaction is not None:
            on_modified = lambda *_: self._interaction_modified()  # noqa: E731
            self._of_interaction.append(observe(self._interaction, vtk.vtkCommand.ModifiedEvent, on_modified))
        self.updateWidgetFromMRML()
        if scene is not None:
            for event, f in {"EndCloseEvent": self._scene_closed, "EndBatchProcessEvent": self._on_batch_end}.items():
                self._of_scene.append(observe(scene, getattr(scene, event), lambda *_, f=f: f()))

    mrmlSegmentEditorNode = gives("_node")

    def setMRMLSegmentEditorNode(self, node) -> None:
        if node is self._node:
            return
        forget(self._of_node)
        self._node = node
        self._logic.SetSegmentEditorNode(node)
        if node is None:
            return
        events = {vtk.vtkCommand.ModifiedEvent: self.updateWidgetFromMRML}
        events[slicer.vtkMRMLSegmentEditorNode.EffectParameterModified] = self._update_effects_gui
        self._of_node = [observe(node, event, lambda *_, f=function: f()) for event, function in events.items()]
        self._give_node_to_effects()
        self.updateWidgetFromMRML()

    def _give_node_to_effects(self) -> None:
        if self._node is not None:
            with slicer.util.NodeModify(self._node):
                for effect in self._effects:
                    effect.setParameterSetNode(self._node)
                    effect._call("setMRMLDefaults")

    def _update_effects_gui(self) -> None:
        for effect in self._effects:
            effect.updateGUIFromMRML()

    segmentationNode = gives("_segmentations.currentNode()")
    sourceVolumeNode = gives("_logic.GetSourceVolumeNode()")
    currentSegmentID = gives("_logic.GetCurrentSegmentID()")

    def setSegmentationNode(self, node) -> None:
        if self._logic.GetSegmentationNode() is not node:
            self._logic.SetSegmentationNode(node)
            self.setActiveEffect(None)

    def setSourceVolumeNode(self, node) -> None:
        self._logic.SetSourceVolumeNode(node)

    def setCurrentSegmentID(self, segment: str) -> None:
        if self._node is not None:
            self._node.SetSelectedSegmentID(segment)

    def _segmentation_chosen(self, node) -> None:
        if self.mrmlScene() is not None and not self.mrmlScene().IsBatchProcessing():
            self.setSegmentationNode(node)

    def _volume_chosen(self, node) -> None:
        if self.mrmlScene() is not None and not self.mrmlScene().IsBatchProcessing():
            self.setSourceVolumeNode(node)

    def _segment_chosen(self, *_) -> None:
        if self._node is None:
            return
        segment = (*self._segments.selectedSegmentIDs(), "")[0]
        if segment == (self._node.GetSelectedSegmentID() or ""):
            return
        self._node.SetSelectedSegmentID(segment or None)
        if not segment and self._active is not None and self._active.perSegment:
            self.setActiveEffect(None)
        self.updateWidgetFromMRML()

    def _scene_closed(self) -> None:
        self._give_node_to_effects()
        self.updateWidgetFromMRML()

    def _on_batch_end(self) -> None:
        if self._node is not None:
            if self._node.GetSegmentationNode() is not self._segmentations.currentNode():
                self.setSegmentationNode(self._segmentations.currentNode())
            if self._node.GetSourceVolumeNode() is not self._volumes.currentNode():
                self.setSourceVolumeNode(self._volumes.currentNode())
        self.updateWidgetFromMRML()

    def updateWidgetFromMRML(self) -> None:
        scene = self.mrmlScene()
        if scene is None or scene.IsClosing() or scene.IsBatchProcessing():
            return
        sections = (self._effect_box, self._options_frame, self._volumes)
        self._segmentations.setEnabled(self._node is not None)
        if self._node is None:
            for part in sections:
                part.setEnabled(False)
            return
        # Changes of the node made here are handled in another call after this one.
        with slicer.util.NodeModify(self._node):
            self._update_segmentation()
            self._update_volume()
            for part in sections:
                part.setEnabled(self._segmentation is not None)
            self._add.setEnabled(self._logic.CanAddSegments())
            self._update_selection()
            self._update_effects()
            self._update_undo()

    def _update_segmentation(self) -> None:
        node = self._logic.GetSegmentationNode()
        with qt.QSignalBlocker(self._segmentations):
            self._segmentations.setCurrentNode(node)
        if node is not self._segmentation:
            self._watch_segmentation(node)
            self._segmentation = node
            with qt.QSignalBlocker(self._segments):
                self._segments.setSegmentationNode(node)
            if node is not None:
                role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
                # The volume is set through the selector, which emits a signal only if it changes.
                self._volumes.setCurrentNode(node.GetNodeReference(role))
                node.CreateDefaultDisplayNodes()
                if node.GetSegmentation().GetNumberOfSegments() > 0:
                    self._segments.setSelectedSegmentIDs([node.GetSegmentation().GetNthSegmentID(0)])

    def _watch_segmentation(self, node) -> None:
        forget(self._of_segmentation)
        if node is not None:
            events = {vtk.vtkCommand.ModifiedEvent: self.updateWidgetFromMRML}
            events[slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent] = self._display_modified
            self._of_segmentation = [observe(node, event, lambda *_, f=f: f()) for event, f in events.items()]

    def _update_volume(self) -> None:
        if self._node.GetSegmentationNode() is None or self._logic.GetSourceVolumeNode() is self._volume:
            return
        self._volume = self._logic.GetSourceVolumeNode()
        with qt.QSignalBlocker(self._volumes):
            self._volumes.setCurrentNode(self._volume)
        self.sourceVolumeNodeChanged.emit(self._volume)
        for effect in self._effects:
            effect._call("sourceVolumeNodeChanged")

    def _update_selection(self) -> None:
        segment = self._node.GetSelectedSegmentID() or ""
        valid = self._segmentation is not None and segment in self._segmentation.GetSegmentation().GetSegmentIDs()
        self._remove.setEnabled(valid)
        if valid:
            self._segments.setSelectedSegmentIDs([segment])
        else:
            self._segments.clearSelection()
