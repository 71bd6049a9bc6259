"""Effects of the segment editor's double: buttons, the active effect, its events, undo, and shortcuts
(Slicer/Slicer Modules/Loadable/Segmentations/Widgets/qMRMLSegmentEditorWidget.cxx: updateEffectList,
updateEffectsSectionFromMRML, setupViewObservations, processEvents, onSegmentationDisplayModified,
installKeyboardShortcuts)."""

from __future__ import annotations

import slicer
import vtk

from .observers import forget, observe
from .qt_manner import gives, qt_module
from .segment_effects import qSlicerSegmentEditorEffectFactory

qt = qt_module()

_BUTTONS = ("Left", "Right", "Middle")
_EVENTS = (
    *(f"{button}Button{kind}Event" for button in _BUTTONS for kind in ("Press", "Release")),
    *("MouseMoveEvent", "MouseWheelForwardEvent", "MouseWheelBackwardEvent", "MouseWheelLeftEvent"),
    *("MouseWheelRightEvent", "KeyPressEvent", "KeyReleaseEvent", "EnterEvent", "LeaveEvent"),
)
_SLICE_EVENTS = (*_EVENTS, *(f"{button}ButtonDoubleClickEvent" for button in _BUTTONS))
SLICERS_ORDER = (
    *("Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Fill between slices", "Margin"),
    *("Hollow", "Smoothing", "Scissors", "Islands", "Logical operators", "Mask volume"),
)


class SegmentEditorEffects:
    """Base class of the segment editor's widget."""

    def updateEffectList(self) -> None:
        """Copy newly registered effects, and arrange the buttons."""
        if "" not in self._effect_buttons:
            self._add_button("", "None", qt.QIcon())
        names = [effect.name for effect in self._effects]
        for registered in qSlicerSegmentEditorEffectFactory.instance().registeredEffects():
            if registered.name in names:
                continue
            effect = registered._clone()
            self._effects.append(effect)
            effect._editor, effect._logic = self, self._logic
            if self._node is not None:
                effect.setParameterSetNode(self._node)
                effect._call("setMRMLDefaults")
            self._add_button(effect.name, effect.title, effect._icon())
            effect._call("setupOptionsFrame")
            effect.optionsFrame().setVisible(False)
            self._options_frame.layout().addWidget(effect.optionsFrame())
        while self._effect_grid.count():
            self._effect_grid.takeAt(0)
        for button in self._effect_buttons.values():
            button.hide()
        ordered = [name for name in self._order if self.effectByName(name) is not None]
        unordered = [effect.name for effect in self._effects if effect.name not in ordered]
        for index, name in enumerate(["", *ordered, *(unordered if self._unordered else [])]):
            button = self._effect_buttons[name]
            self._effect_grid.addWidget(button, index // 2, index % 2)
            button.show()

    def _add_button(self, name: str, title: str, icon) -> None:
        button = qt.QToolButton()
        button.setObjectName(name)
        button.setCheckable(True)
        button.setText(title)
        button.setToolTip(title)
        button.setIcon(icon)
        button.setToolButtonStyle(qt.Qt.ToolButtonIconOnly)
        button.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)
        self._effect_group.addButton(button)
        self._effect_buttons[name] = button

    def effectByName(self, name: str):
        return next((effect for effect in self._effects if effect.name == name), None)

    def effectByIndex(self, index: int):
        item = self._effect_grid.itemAt(index)
        return None if item is None else self.effectByName(item.widget().objectName)

    def availableEffectNames(self) -> tuple[str, ...]:
        return tuple(effect.name for effect in self._effects)

    def setEffectNameOrder(self, names) -> None:
        self._order = tuple(names)
        self.updateEffectList()

    unorderedEffectsVisible = property(gives("_unordered"))

    @unorderedEffectsVisible.setter
    def unorderedEffectsVisible(self, on: bool) -> None:
        self._unordered = bool(on)
        self.updateEffectList()

    activeEffect = gives("_active")

    def setActiveEffect(self, effect) -> None:
        if self._node is not None:
            self._node.SetActiveEffectName("" if effect is None else effect.name)

    def setActiveEffectByName(self, name: str) -> None:
        self.setActiveEffect(self.effectByName(name))

    def _update_effects(self) -> None:
        enabled = self._node.GetSourceVolumeNode() is not None
        self._effect_box.setEnabled(enabled)
        self._options.setEnabled(enabled)
        if enabled:
            has_selection, has_segments = bool(self._node.GetSelectedSegmentID()), self._segments.segmentCount > 0
            for effect in self._effects:
                usable = not effect.requireSegments or (has_segments and (has_selection or not effect.perSegment))
                self._effect_buttons[effect.name].setEnabled(usable)
        effect = self.effectByName(self._node.GetActiveEffectName() or "")
        if effect is self._active:
            return
        if self._active is not None:
            self._active.deactivate()
        if effect is not None and not self._labelmap_is_source():
            effect = None
        if effect is not None:
            self.setupViewObservations()
            if self._interaction is not None:
                self._interaction.SetCurrentInteractionMode(self._interaction.ViewTransform)
            effect.activate()
            self._help.setHtml(effect.helpText().partition("<br>")[0])
        self._options.setTitle("" if effect is None else effect.title)
        self._options.setVisible(effect is not None)
        if effect is None:
            self.removeViewObservations()
        for name, button in self._effect_buttons.items():
            button.setChecked(name == ("" if effect is None else effect.name))
        self._active = effect

    def _labelmap_is_source(self) -> bool:
        """Make the labelmap the source representation, without Slicer's question before non-trivial conversions."""
        if self._logic.CanTriviallyConvertSourceRepresentationToBinaryLabelMap():
            return self._logic.TrivialSetSourceRepresentationToBinaryLabelmap()
        return self._segmentation is not None and self._logic.SetSourceRepresentationToBinaryLabelMap()

    def _views(self) -> list:
        """Return the views that may show the segmentation, including views outside the layout."""
        layouts = slicer.app.layoutManager()
        if layouts is None:
            return []
        widgets = [layouts.sliceWidget(name) for name in layouts.sliceViewNames()]
        widgets += [layouts.threeDWidget(number) for number in range(layouts.threeDViewCount)]
        can_show = self._logic.IsSegmentationDisplayableInView
        return [widget for widget in widgets if can_show(widget.mrmlAbstractViewNode())]

    def setupViewObservations(self) -> None:
        self.removeViewObservations()
        for widget in self._views():
            for event in _SLICE_EVENTS if widget.className() == "qMRMLSliceWidget" else _EVENTS:
                self._observe(widget.viewWidget().interactor(), event, widget)
            self._observe(widget.mrmlAbstractViewNode(), "ModifiedEvent", widget)
        self._observed_in = self._views_of_segmentation()
        self._views_observed = slicer.app.layoutManager() is not None

    def _views_of_segmentation(self) -> dict[str, tuple[str, ...]]:
        """Return the views that each display node of the segmentation is restricted to."""
        node = self._segmentation
        displays = [] if node is None else [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
        return {display.GetID(): tuple(display.GetViewNodeIDs()) for display in displays if display is not None}

    def _observe(self, watched, event: str, widget) -> None:
        number = vtk.vtkCommand.GetEventIdFromString(event)

        def on_event(caller, _) -> None:
            if self._active is None or self.mrmlScene() is None or self.mrmlScene().IsClosing() or self._node is None:
                return
            if not caller.IsA("vtkRenderWindowInteractor"):
                self._active._call("processViewNodeEvents", caller, number, widget)
            elif self._active._process_interaction(caller, number, widget):
                # No later observer gets the event.
                caller.GetCommand(observation.tag).SetAbortFlag(1)

        observation = observe(watched, number, on_event, 1.0)
        self._observed.append(observation)

    def removeViewObservations(self) -> None:
        forget(self._observed)
        self._views_observed = False

    def _layout_changed(self, *_) -> None:
        if self._views_observed:
            self.setupViewObservations()
            for effect in self._effects:
                effect._call("layoutChanged")

    def _display_modified(self) -> None:
        if self._views_observed and self._observed_in != self._views_of_segmentation():
            self._layout_changed()

    def _interaction_modified(self) -> None:
        if self._active is not None:
            self._active._interaction_node_modified(self._interaction)

    def saveStateForUndo(self) -> None:
        self._logic.SaveStateForUndo()

    def undo(self) -> None:
        self._logic.Undo()

    def redo(self) -> None:
        self._logic.Redo()

    def _update_undo(self) -> None:
        self._undo.setEnabled(self._logic.CanUndo())
        self._redo.setEnabled(self._logic.CanRedo())

    def installKeyboardShortcuts(self, parent=None) -> None:
        """Install the digits' shortcuts for effects on the main window; Slicer has further ones."""
        self.uninstallKeyboardShortcuts()
        for index in range(1, 10):
            shortcut = qt.QShortcut(qt.QKeySequence(str(index)), slicer.util.mainWindow())
            shortcut.activated.connect(lambda i=index: self._toggle_effect(i))
            self._shortcuts.append(shortcut)

    def uninstallKeyboardShortcuts(self) -> None:
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.delete()
        self._shortcuts.clear()

    def _toggle_effect(self, index: int) -> None:
        effect = self.effectByIndex(index)
        self.setActiveEffect(None if effect is self._active else effect)
