"""The effects in the segment editor's double: their buttons, the active one, its events, undo, and the shortcuts
(Slicer/Slicer Modules/Loadable/Segmentations/Widgets/qMRMLSegmentEditorWidget.cxx: updateEffectList,
updateEffectsSectionFromMRML, setupViewObservations, processEvents, installKeyboardShortcuts, setEffectCursor)."""

from __future__ import annotations

import slicer
import vtk

from .observers import forget, observe
from .qt_manner import qt_module
from .segment_effects import qSlicerSegmentEditorEffectFactory

qt = qt_module()

_BUTTON_EVENTS = [
    f"{button}Button{kind}Event"
    for button in ("Left", "Right", "Middle")
    for kind in ("Press", "Release", "DoubleClick")
]
_EVENTS = (
    *(*_BUTTON_EVENTS, "MouseMoveEvent", "MouseWheelForwardEvent", "MouseWheelBackwardEvent"),
    *("KeyPressEvent", "KeyReleaseEvent", "EnterEvent", "LeaveEvent"),
)
_PREVIOUS_NEXT = (("Q", "W"), ("/", "*"), (",", "."), (">", "<"))


class SegmentEditorEffects:
    """For the segment editor's widget."""

    def updateEffectList(self) -> None:
        """Take a copy of each effect that is new, and arrange the buttons."""
        if "" not in self._effect_buttons:
            self._add_button("", "None", qt.QIcon())
        known = [effect.name for effect in self._effects]
        for registered in qSlicerSegmentEditorEffectFactory.instance().registeredEffects():
            if registered.name in known:
                continue
            effect = registered.clone()
            self._effects.append(effect)
            effect._editor, effect._logic = self, self._logic
            if self._node is not None:
                effect.setParameterSetNode(self._node)
                effect.setMRMLDefaults()
            self._add_button(effect.name, effect.title, effect.icon())
            effect.setupOptionsFrame()
            effect.optionsFrame().setVisible(False)
            self._options.layout().addWidget(effect.optionsFrame())
        while self._effect_grid.count():
            self._effect_grid.takeAt(0).widget().hide()
        ordered = [name for name in self._order if self.effectByName(name) is not None]
        others = [effect.name for effect in self._effects if effect.name not in ordered]
        for index, name in enumerate(["", *ordered, *(others if self._unordered else [])]):
            button = self._effect_buttons[name]
            self._effect_grid.addWidget(button, index // self.effectColumnCount, index % self.effectColumnCount)
            button.show()

    def _add_button(self, name: str, title: str, icon) -> None:
        button = qt.QToolButton()
        button.setObjectName(name)
        button.setCheckable(True)
        button.setText(title)
        button.setToolTip(title)
        button.setIcon(icon)
        button.setToolButtonStyle(qt.Qt.ToolButtonTextBesideIcon)
        button.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)
        self._effect_group.addButton(button)
        self._effect_buttons[name] = button

    def effectByName(self, name: str):
        return next((effect for effect in self._effects if effect.name == name), None)

    def effectByIndex(self, index: int):
        item = self._effect_grid.itemAt(index)
        return None if item is None else self.effectByName(item.widget().objectName)

    def effectCount(self) -> int:
        return len(self._effects)

    def availableEffectNames(self) -> tuple[str, ...]:
        return tuple(effect.name for effect in self._effects)

    def setEffectNameOrder(self, names) -> None:
        self._order = tuple(names)
        self.updateEffectList()

    def effectNameOrder(self) -> tuple[str, ...]:
        return self._order

    @property
    def unorderedEffectsVisible(self) -> bool:
        return self._unordered

    @unorderedEffectsVisible.setter
    def unorderedEffectsVisible(self, on: bool) -> None:
        self._unordered = bool(on)
        self.updateEffectList()

    def activeEffect(self):
        return self._active

    def setActiveEffect(self, effect) -> None:
        if self._node is not None:
            self._node.SetActiveEffectName("" if effect is None else effect.name)

    def setActiveEffectByName(self, name: str) -> None:
        self.setActiveEffect(self.effectByName(name))

    def _update_effects(self) -> None:
        enabled = self._node.GetSourceVolumeNode() is not None and not self.readOnly
        self._effect_box.setEnabled(enabled)
        self._options.setEnabled(enabled)
        chosen = bool(self._node.GetSelectedSegmentID())
        for effect in self._effects:
            usable = not effect.requireSegments or chosen or (not effect.perSegment and self._segments.segmentCount > 0)
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
            effect.activate()
            self._help.setCollapsibleText(effect.helpText())
        else:
            self.removeViewObservations()
        self._options.setTitle("" if effect is None else effect.title)
        self._options.setVisible(effect is not None)
        self._masking.setVisible(effect is not None and self.maskingSectionVisible)
        for name, button in self._effect_buttons.items():
            button.setChecked(name == ("" if effect is None else effect.name))
        self.setEffectCursor(effect)
        self._last, self._active = self._active, effect

    def _labelmap_is_source(self) -> bool:
        if self._segmentation is None:
            return False
        self._logic.SetSourceRepresentationToBinaryLabelMap()
        return True

    def setEffectCursor(self, effect) -> None:
        for widget in self._views():
            sliced = widget.className() == "qMRMLSliceWidget"
            shown = effect is not None and (
                effect.showEffectCursorInSliceView if sliced else effect.showEffectCursorInThreeDView
            )
            widget.viewWidget().setDefaultViewCursor(effect.createCursor(widget) if shown else qt.QCursor())

    def _views(self) -> list:
        layouts = slicer.app.layoutManager()
        if layouts is None:
            return []
        widgets = [layouts.sliceWidget(name) for name in layouts.sliceViewNames()]
        widgets += [layouts.threeDWidget(number) for number in range(layouts.threeDViewCount)]
        return [each for each in widgets if self._logic.IsSegmentationDisplayableInView(each.mrmlAbstractViewNode())]

    def setupViewObservations(self) -> None:
        self.removeViewObservations()
        for widget in self._views():
            for event in _EVENTS:
                self._observe(widget.viewWidget().interactor(), event, widget)
            self._observe(widget.mrmlAbstractViewNode(), "ModifiedEvent", widget)

    def _observe(self, watched, event: str, widget) -> None:
        number = vtk.vtkCommand.GetEventIdFromString(event)

        def tell(caller, _) -> None:
            if self._active is None or self.mrmlScene() is None or self.mrmlScene().IsClosing():
                return
            if not caller.IsA("vtkRenderWindowInteractor"):
                self._active.processViewNodeEvents(caller, number, widget)
            elif self._active.processInteractionEvents(caller, number, widget):
                # Nobody after this one gets the event.
                caller.GetCommand(observation.tag).SetAbortFlag(1)

        observation = observe(watched, number, tell, 1.0)
        self._observed.append(observation)

    def removeViewObservations(self) -> None:
        forget(self._observed)

    def _layout_changed(self, number: int) -> None:
        if self._observed:
            self.setupViewObservations()
            if self.autoShowSourceVolumeNode:
                self.showSourceVolumeInSliceViewers()
            for effect in self._effects:
                effect.layoutChanged()

    def saveStateForUndo(self) -> None:
        self._logic.SaveStateForUndo()

    def undo(self) -> None:
        self._logic.Undo()

    def redo(self) -> None:
        self._logic.Redo()

    @property
    def maximumNumberOfUndoStates(self) -> int:
        return self._logic.GetMaximumNumberOfUndoStates()

    @maximumNumberOfUndoStates.setter
    def maximumNumberOfUndoStates(self, count: int) -> None:
        self.setMaximumNumberOfUndoStates(count)

    def setMaximumNumberOfUndoStates(self, count: int) -> None:
        self._logic.SetMaximumNumberOfUndoStates(count)

    def _update_undo(self) -> None:
        self._undo.setEnabled(self._logic.CanUndo())
        self._redo.setEnabled(self._logic.CanRedo())

    def installKeyboardShortcuts(self, parent=None) -> None:
        """On the main window: digits and Shift with digits for effects, Escape, Space, Z and Y, Q and W, I."""
        self.uninstallKeyboardShortcuts()
        parent = parent or slicer.util.mainWindow()
        for index in range(1, 11):
            self._shortcut(parent, str(index % 10), lambda i=index: self._toggle_effect(i))
            self._shortcut(parent, f"Shift+{index % 10}", lambda i=index + 10: self._toggle_effect(i))
        self._shortcut(parent, "Esc", lambda: self.setActiveEffect(None))
        self._shortcut(parent, "Space", lambda: self.setActiveEffect(self._last))
        for keys, function in ((("Z", "Ctrl+Z"), self.undo), (("Y", "Ctrl+Y"), self.redo)):
            for key in keys:
                self._shortcut(parent, key, function)
        for previous, following in _PREVIOUS_NEXT:
            self._shortcut(parent, previous, lambda: self.selectSegmentAtOffset(-1))
            self._shortcut(parent, following, lambda: self.selectSegmentAtOffset(1))
        self._shortcut(parent, "I", lambda: self._intensity.toggle())

    def _shortcut(self, parent, keys: str, function) -> None:
        shortcut = qt.QShortcut(qt.QKeySequence(keys), parent)
        shortcut.activated.connect(function)
        self._shortcuts.append(shortcut)

    def uninstallKeyboardShortcuts(self) -> None:
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts.clear()

    def _toggle_effect(self, index: int) -> None:
        effect = self.effectByIndex(index)
        self.setActiveEffect(None if effect is self._active else effect)

    def selectSegmentAtOffset(self, offset: int) -> None:
        self._logic.SelectSegmentAtOffset(offset, False)
