"""Slicer's segment editor inside the panel, with the effects that a review of lesions needs and no others."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import slicer

EFFECTS = ("CAC Lesion", "CAC Region", "CAC Decompose", "Paint", "Erase")
_PARAMETER_TAG = "CACScoring"


class LesionEditor:
    """A qMRMLSegmentEditorWidget on the segmentation under review. layout: of the frame that holds it."""

    def __init__(self, layout) -> None:
        # The module's own import brings the widget into the namespace.
        import qSlicerSegmentationsModuleWidgetsPythonQt

        self.widget = qSlicerSegmentationsModuleWidgetsPythonQt.qMRMLSegmentEditorWidget()
        # The panel has one undo for everything; two would take each other's steps apart.
        self.widget.undoEnabled = False
        self.widget.setEffectNameOrder(EFFECTS)
        self.widget.unorderedEffectsVisible = False
        self.widget.segmentationNodeSelectorVisible = False
        self.widget.sourceVolumeNodeSelectorVisible = False
        self.widget.switchToSegmentationsButtonVisible = False
        self.widget.specifyGeometryButtonVisible = False
        self.widget.addRemoveSegmentButtonsVisible = False
        self.widget.show3DButtonVisible = False
        self.widget.autoShowSourceVolumeNode = False
        self._selectParameterNode()
        self.widget.setMRMLScene(slicer.mrmlScene)
        layout.addWidget(self.widget)

    def edit(self, segmentation, volume) -> None:
        """Edit a segmentation on its volume; None for nothing."""
        self._selectParameterNode()
        if self.widget.segmentationNode() is not segmentation:
            self.widget.setActiveEffect(None)
            self.widget.setSegmentationNode(segmentation)
        if self.widget.sourceVolumeNode() is not volume:
            self.widget.setSourceVolumeNode(volume)

    def enter(self) -> None:
        # No keyboard shortcuts of the editor: its digits would be ambiguous with those of the effects and the list.
        self._selectParameterNode()
        self.widget.setupViewObservations()
        self.widget.updateWidgetFromMRML()

    def exit(self) -> None:
        """Leave the views alone."""
        self.widget.setActiveEffect(None)
        self.widget.removeViewObservations()

    def closeScene(self) -> None:
        self.widget.setActiveEffect(None)
        self.widget.setSegmentationNode(None)
        self.widget.removeViewObservations()

    def _selectParameterNode(self) -> None:
        node = slicer.mrmlScene.GetSingletonNode(_PARAMETER_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(_PARAMETER_TAG)
            node = slicer.mrmlScene.AddNode(node)
            # What the annotator paints for one artery belongs to no other any more.
            node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
        if self.widget.mrmlSegmentEditorNode() is not node:
            self.widget.setMRMLSegmentEditorNode(node)
