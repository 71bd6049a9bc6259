"""Slicer's segment editor inside a panel, with the effects that its task needs and no others."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence

import slicer

from .widgets import letShrink

EFFECTS = ("CAC Lesion", "CAC Region", "CAC Decompose", "Paint", "Erase")
"""Those of a review of lesions."""


class LesionEditor:
    """A qMRMLSegmentEditorWidget on one segmentation.

    layout: of the frame that holds it. effects: names of those that are offered. tag: of the node that keeps its
    settings in the scene. undo: with the editor's own undo.
    """

    def __init__(self, layout, effects: Sequence[str] = EFFECTS, tag: str = "CACScoring", undo: bool = False) -> None:
        # The module's own import brings the widget into the namespace.
        import qSlicerSegmentationsModuleWidgetsPythonQt

        self._tag = tag
        self.widget = qSlicerSegmentationsModuleWidgetsPythonQt.qMRMLSegmentEditorWidget()
        # A review has one undo for everything; two would take each other's steps apart.
        self.widget.undoEnabled = undo
        self.widget.setEffectNameOrder(effects)
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
        letShrink(self.widget)
        layout.addWidget(self.widget)

    def edit(self, segmentation, volume) -> None:
        """Edit a segmentation on its volume; None for nothing."""
        self._selectParameterNode()
        if self.widget.segmentationNode() is not segmentation:
            active = self.widget.activeEffect()
            self.widget.setActiveEffect(None)
            self.widget.setSegmentationNode(segmentation)
            if active is not None:
                self.use(active.name)
        if self.widget.sourceVolumeNode() is not volume:
            self.widget.setSourceVolumeNode(volume)

    def use(self, name: str) -> None:
        """Switch an effect on, unless another is, or there is nothing to edit."""
        if self.widget.segmentationNode() is not None and self.widget.activeEffect() is None:
            self.widget.setActiveEffectByName(name)

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
        node = slicer.mrmlScene.GetSingletonNode(self._tag, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(self._tag)
            node = slicer.mrmlScene.AddNode(node)
            # What the annotator paints for one artery belongs to no other any more.
            node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
        if self.widget.mrmlSegmentEditorNode() is not node:
            self.widget.setMRMLSegmentEditorNode(node)
