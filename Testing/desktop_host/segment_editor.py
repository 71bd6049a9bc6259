"""Double of the segment editor's widget (Slicer/Slicer Modules/Loadable/Segmentations/Widgets/
qMRMLSegmentEditorWidget.h, .cxx, Resources/UI/qMRMLSegmentEditorWidget.ui). Undo, masking and the voxels are Slicer's
own vtkSlicerSegmentEditorLogic."""

from __future__ import annotations

import slicer
import vtk

from .observers import forget, observe
from .qt_manner import double, qt_module, stored
from .segment_editor_effects import SegmentEditorEffects
from .segment_editor_parts import SegmentEditorParts

qt = qt_module()


def _visible(name: str):
    """A property that shows or hides parts."""

    def set_visible(self, on: bool) -> None:
        for part in self._of(name):
            part.setVisible(bool(on))

    return property(lambda self: not self._of(name)[0].isHidden(), set_visible)


@double
class qMRMLSegmentEditorWidget(SegmentEditorEffects, SegmentEditorParts):
    """Edits a segmentation with effects; what is chosen lies in a segment editor node."""

    currentSegmentIDChanged = qt.Signal(str)
    sourceVolumeNodeChanged = qt.Signal(object)
    segmentationNodeChanged = qt.Signal(object)
    autoShowSourceVolumeNode = stored(True)
    undoEnabled = stored(True)
    effectButtonStyle = stored(None)
    effectColumnCount = stored(2)
    jumpToSelectedSegmentEnabled = stored(False)
    defaultTerminologyEntry = stored("")
    defaultTerminologyEntrySettingsKey = stored("")
    readOnly = stored(False)
    maskingSectionVisible = stored(True)
    segmentationNodeSelectorVisible = _visible("segmentation")
    sourceVolumeNodeSelectorVisible = _visible("volume")
    addRemoveSegmentButtonsVisible = _visible("add")
    specifyGeometryButtonVisible = _visible("geometry")
    show3DButtonVisible = _visible("3d")
    switchToSegmentationsButtonVisible = _visible("switch")

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._logic, self._node, self._effects, self._active, self._last = None, None, [], None, None
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._order, self._unordered, self._observed, self._shortcuts = (), True, [], []
        self._segmentation, self._volume, self._node_tags, self._scene_tags = None, None, [], []
        self._updating = False
        self._fill_masking()
        self._segmentations.currentNodeChanged.connect(self._segmentation_chosen)
        self._volumes.currentNodeChanged.connect(self._volume_chosen)
        self._segments.selectionChanged.connect(self._segment_chosen)
        self._add.clicked.connect(self._add_segment)
        self._remove.clicked.connect(self._remove_segment)
        self._undo.clicked.connect(self.undo)
        self._redo.clicked.connect(self.redo)
        self._effect_group.buttonClicked.connect(lambda button: self.setActiveEffectByName(button.objectName))
        history = slicer.vtkSlicerSegmentEditorLogic.SegmentationHistoryChangedEvent
        observe(self._logic, history, lambda *_: self._update_undo())
        self.updateEffectList()

    def _of(self, name: str) -> tuple:
        parts = {"segmentation": (self._segmentations, self._labels[0]), "volume": (self._volumes, self._labels[1])}
        parts |= {"add": (self._add, self._remove), "geometry": (self._geometry,), "3d": (self._show_3d,)}
        return (parts | {"switch": (self._switch,)})[name]

    # The nodes.

    def setMRMLScene(self, scene) -> None:
        if scene is self.mrmlScene():
            return
        for selector in (self._segmentations, self._volumes):
            blocked = selector.blockSignals(True)
            selector.setMRMLScene(scene)
            selector.blockSignals(blocked)
        super().setMRMLScene(scene)
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._logic.SetMRMLScene(scene)
        if slicer.app.layoutManager() is not None:
            slicer.app.layoutManager().layoutChanged.connect(self._layout_changed)
        if scene is not None:
            events = {scene.EndCloseEvent: self._scene_closed, scene.EndBatchProcessEvent: self._batch_ended}
            self._scene_tags = [observe(scene, event, callback) for event, callback in events.items()]
        self.updateWidgetFromMRML()

    def mrmlSegmentEditorNode(self):
        return self._node

    def setMRMLSegmentEditorNode(self, node) -> None:
        if node is self._node:
            return
        forget(self._node_tags)
        self._node = node
        self._logic.SetSegmentEditorNode(node)
        if node is None:
            return
        events = {vtk.vtkCommand.ModifiedEvent: self.updateWidgetFromMRML}
        events[slicer.vtkMRMLSegmentEditorNode.EffectParameterModified] = self._update_effects_gui
        self._node_tags = [observe(node, event, lambda *_, f=function: f()) for event, function in events.items()]
        self._give_node_to_effects()
        self.updateWidgetFromMRML()

    def _give_node_to_effects(self) -> None:
        if self._node is not None:
            with slicer.util.NodeModify(self._node):
                for effect in self._effects:
                    effect.setParameterSetNode(self._node)
                    effect.setMRMLDefaults()

    def _update_effects_gui(self) -> None:
        for effect in self._effects:
            effect.updateGUIFromMRML()

    def segmentationNode(self):
        return self._segmentations.currentNode()

    def segmentationNodeID(self) -> str:
        return self._segmentations.currentNodeID

    def sourceVolumeNode(self):
        return self._logic.GetSourceVolumeNode()

    def currentSegmentID(self) -> str:
        return self._logic.GetCurrentSegmentID()

    def setSegmentationNode(self, node) -> None:
        if self._logic.GetSegmentationNode() is not node:
            self._logic.SetSegmentationNode(node)
            self.setActiveEffect(None)

    def setSourceVolumeNode(self, node) -> None:
        self._logic.SetSourceVolumeNode(node)

    def setSegmentationNodeID(self, identifier: str) -> None:
        self.setSegmentationNode(self.mrmlScene().GetNodeByID(identifier))

    def setSourceVolumeNodeID(self, identifier: str) -> None:
        self.setSourceVolumeNode(self.mrmlScene().GetNodeByID(identifier))

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
        chosen = (*self._segments.selectedSegmentIDs(), "")[0]
        if chosen == (self._node.GetSelectedSegmentID() or ""):
            return
        self._node.SetSelectedSegmentID(chosen or None)
        if not chosen and self._active is not None and self._active.perSegment:
            self.setActiveEffect(None)
        self.updateWidgetFromMRML()
        self.currentSegmentIDChanged.emit(chosen)

    def _scene_closed(self, *_) -> None:
        self._give_node_to_effects()
        self.updateWidgetFromMRML()

    def _batch_ended(self, *_) -> None:
        if self._node is not None:
            if self._node.GetSegmentationNode() is not self._segmentations.currentNode():
                self.setSegmentationNode(self._segmentations.currentNode())
            if self._node.GetSourceVolumeNode() is not self._volumes.currentNode():
                self.setSourceVolumeNode(self._volumes.currentNode())
        self.updateWidgetFromMRML()

    def updateWidgetFromMRML(self) -> None:
        scene = self.mrmlScene()
        if self._updating or scene is None or scene.IsClosing() or scene.IsBatchProcessing():
            return
        enabled = self._node is not None and self._node.GetSegmentationNode() is not None
        for part in (self._effect_box, self._masking, self._options, self._volumes):
            part.setEnabled(enabled)
        self._segmentations.setEnabled(self._node is not None)
        if self._node is None:
            return
        self._updating = True
        try:
            with slicer.util.NodeModify(self._node):
                self._update_segmentation()
                self._update_volume()
                self._add.setEnabled(self._logic.CanAddSegments())
                self._update_selection()
                self._update_undo()
                self._update_masking()
        finally:
            self._updating = False
        self._update_effects()

    def _update_segmentation(self) -> None:
        node = self._logic.GetSegmentationNode()
        blocked = self._segmentations.blockSignals(True)
        self._segmentations.setCurrentNode(node)
        self._segmentations.blockSignals(blocked)
        if node is self._segmentation:
            return
        self._segmentation = node
        blocked = self._segments.blockSignals(True)
        self._segments.setSegmentationNode(node)
        self._segments.blockSignals(blocked)
        if node is not None:
            reference = node.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())
            self._logic.SetSourceVolumeNode(reference)
            node.CreateDefaultDisplayNodes()
            if node.GetSegmentation().GetNumberOfSegments() > 0:
                self._node.SetSelectedSegmentID(node.GetSegmentation().GetNthSegmentID(0))
        self.segmentationNodeChanged.emit(node)

    def _update_volume(self) -> None:
        if self._node.GetSegmentationNode() is None or self._logic.GetSourceVolumeNode() is self._volume:
            return
        self._volume = self._logic.GetSourceVolumeNode()
        blocked = self._volumes.blockSignals(True)
        self._volumes.setCurrentNode(self._volume)
        self._volumes.blockSignals(blocked)
        if self._volume is not None:
            if self.autoShowSourceVolumeNode:
                self.showSourceVolumeInSliceViewers()
            self._range.setRange(*self._volume.GetImageData().GetScalarRange())
        self.sourceVolumeNodeChanged.emit(self._volume)
        for effect in self._effects:
            effect.sourceVolumeNodeChanged()
            effect.masterVolumeNodeChanged()

    def showSourceVolumeInSliceViewers(self, forceShowInBackground: bool = False, fitSlice: bool = False) -> None:
        logics = slicer.app.applicationLogic().GetSliceLogics()
        volume = self._node.GetSourceVolumeNode()
        for logic in [] if volume is None else [logics.GetItemAsObject(n) for n in range(logics.GetNumberOfItems())]:
            layers = logic.GetSliceCompositeNode()
            if not self._logic.IsSegmentationDisplayableInView(logic.GetSliceNode()) or layers is None:
                continue
            if forceShowInBackground or volume.GetID() not in (
                layers.GetBackgroundVolumeID(),
                layers.GetForegroundVolumeID(),
            ):
                layers.SetBackgroundVolumeID(volume.GetID())
                layers.SetForegroundVolumeID(None)
                layers.SetLabelVolumeID(None)
            if fitSlice:
                logic.FitSliceToBackground()

    def _update_selection(self) -> None:
        chosen = self._node.GetSelectedSegmentID() or ""
        valid = self._segmentation is not None and chosen in self._segmentation.GetSegmentation().GetSegmentIDs()
        self._remove.setEnabled(valid)
        if valid:
            self._segments.setSelectedSegmentIDs([chosen])
        else:
            self._segments.clearSelection()

    def _add_segment(self) -> None:
        self._logic.SaveStateForUndo()
        self.setCurrentSegmentID(self._logic.AddEmptySegment())

    def _remove_segment(self) -> None:
        self._logic.SaveStateForUndo()
        self.setCurrentSegmentID(self._logic.RemoveSelectedSegment())
