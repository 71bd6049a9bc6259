"""Slicer's segment editor inside a panel, limited to the effects that the panel's task needs."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer

from ..core.labels import Artery
from .widgets import InSight, letShrink

_UNASSIGNED_ID = Artery.UNASSIGNED.key

EFFECTS = ("CAC Lesion", "CAC Region", "CAC Decompose", "Paint", "Erase")
"""Effects for reviewing lesions."""


class LesionEditor:
    """A qMRMLSegmentEditorWidget on one segmentation.

    Attributes:
        widget: The widget; None until `make`.
    """

    def __init__(self, layout, effects: Sequence[str] = EFFECTS, tag: str = "CACScoring", undo: bool = False) -> None:
        """Prepare.

        Args:
            layout: Layout to which the widget is added.
            effects: Names of the effects on offer.
            tag: Singleton tag of the node that keeps the editor's settings in the scene.
            undo: Enable the editor's own undo.
        """
        self._layout, self._effects, self._tag, self._undo = layout, effects, tag, undo
        self._nodes = None, None
        self.widget: Any = None

    def make(self) -> None:
        """Make the widget, unless there is one."""
        if self.widget is not None:
            return
        # The module's own import brings the widget into the namespace.
        import qSlicerSegmentationsModuleWidgetsPythonQt

        self.widget = qSlicerSegmentationsModuleWidgetsPythonQt.qMRMLSegmentEditorWidget()
        # A review has its own undo for everything; the editor's would interfere with it.
        self.widget.undoEnabled = self._undo
        self.widget.setEffectNameOrder(self._effects)
        selectors = "segmentationNodeSelector", "sourceVolumeNodeSelector"
        buttons = "switchToSegmentationsButton", "specifyGeometryButton", "addRemoveSegmentButtons", "show3DButton"
        for part in ("unorderedEffects", *selectors, *buttons):
            setattr(self.widget, f"{part}Visible", False)
        self.widget.autoShowSourceVolumeNode = False
        self._selectParameterNode()
        self.widget.setMRMLScene(slicer.mrmlScene)
        letShrink(self.widget)
        self.widget.setMinimumWidth(1)  # its rows are squeezed rather than the panel widened
        for box in slicer.util.findChildren(self.widget, className="QGroupBox"):
            if box.layout() is not None:  # the boxes' own frames show where they end
                box.layout().setContentsMargins(2, 2, 2, 2)
        self._layout.addWidget(self.widget)

    def edit(self, segmentation, volume) -> None:
        """Edit a segmentation on its volume; None for neither."""
        self._nodes = segmentation, volume
        if self.widget is None:
            return
        self._selectParameterNode()
        if self.widget.segmentationNode() is not segmentation:
            active = self.widget.activeEffect()
            self.widget.setActiveEffect(None)
            self.widget.setSegmentationNode(segmentation)
            if segmentation is not None and segmentation.GetSegmentation().GetSegment(_UNASSIGNED_ID) is not None:
                self.widget.setCurrentSegmentID(_UNASSIGNED_ID)  # until a user chooses; Slicer's choice is the LM
            if active is not None:
                self.use(active.name)
        if self.widget.sourceVolumeNode() is not volume:
            self.widget.setSourceVolumeNode(volume)

    def use(self, name: str) -> None:
        """Activate an effect, unless another is active or there is nothing to edit."""
        if self.widget.segmentationNode() is not None and self.widget.activeEffect() is None:
            self.widget.setActiveEffectByName(name)

    def enter(self) -> None:
        if self.widget is None:
            return
        # No keyboard shortcuts of the editor: its digits would be ambiguous with those of the effects and the list.
        self._selectParameterNode()
        self.widget.setupViewObservations()
        self.widget.updateWidgetFromMRML()

    def exit(self) -> None:
        """Leave the views alone."""
        if self.widget is not None:
            self.widget.setActiveEffect(None)
            self.widget.removeViewObservations()

    def closeScene(self) -> None:
        self._nodes = None, None
        if self.widget is not None:
            self.exit()
            self.widget.setSegmentationNode(None)

    def _selectParameterNode(self) -> None:
        node = slicer.mrmlScene.GetSingletonNode(self._tag, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(self._tag)
            node = slicer.mrmlScene.AddNode(node)
            # A voxel painted for one artery is taken from all others.
            node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
        if self.widget.mrmlSegmentEditorNode() is not node:
            self.widget.setMRMLSegmentEditorNode(node)


class EditorBox(LesionEditor):
    """The editor of a review in a collapsible section of the panel, made when that is first opened.

    A click in a slice view edits while the section is open, and never when it is not.
    """

    def __init__(self, box, layout) -> None:
        super().__init__(layout)
        self._box, self._inSight = box, InSight(box)
        box.toggled.connect(self._toggled)

    def enter(self) -> None:
        super().enter()
        self._switch()

    def cleanup(self) -> None:
        self._inSight.cancel()

    def _toggled(self, isOpen: bool) -> None:
        if self.widget is None and isOpen:
            self.make()
            super().enter()
            self.edit(*self._nodes)
        self._switch()
        if isOpen:
            self._inSight.start()

    def _switch(self) -> None:
        if self.widget is not None and self._box.collapsed:
            self.widget.setActiveEffect(None)
        elif self.widget is not None:
            self.use(EFFECTS[0])
