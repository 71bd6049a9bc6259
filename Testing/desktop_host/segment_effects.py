"""Doubles of the interface between a scripted segment editor effect and Slicer
(Slicer/Slicer Modules/Loadable/Segmentations/EditorEffects/qSlicerSegmentEditor{AbstractEffect,ScriptedEffect,
EffectFactory}.h, .cxx, Python/SegmentEditorEffects/AbstractScriptedSegmentEditorEffect.py). Voxels are changed by
Slicer's own vtkSlicerSegmentEditorLogic."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import slicer

from .qt_manner import double, gives, qt_module, stored


class EffectParameters:
    """Parameters of an effect: attributes of the editor's node, under "<effect>.<name>" or shared by all effects.

    A missing parameter raises here, where Slicer only logs an error.
    """

    def parameter(self, name: str) -> str:
        value = self._node.GetAttribute(f"{self.name}.{name}")
        value = self._node.GetAttribute(name) if value is None else value
        if value is None:
            raise KeyError(f"Parameter {name} cannot be found for effect {self.name}")
        return value

    def integerParameter(self, name: str) -> int:
        return int(self.parameter(name))

    def doubleParameter(self, name: str) -> float:
        return float(self.parameter(name))

    def parameterDefined(self, name: str) -> bool:
        return self.commonParameterDefined(f"{self.name}.{name}")

    def commonParameterDefined(self, name: str) -> bool:
        return self._node is not None and bool(self._node.GetAttribute(name))

    def setParameter(self, name: str, value) -> None:
        self.setCommonParameter(f"{self.name}.{name}", value)

    def setParameterDefault(self, name: str, value) -> None:
        if not self.parameterDefined(name):
            self.setParameter(name, value)

    def setCommonParameter(self, name: str, value) -> None:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise TypeError(f"A parameter is a text or a number, not {value!r}")
        # QString::number keeps six digits.
        text = f"{value:g}" if isinstance(value, float) else str(value)
        if text == (self._node.GetAttribute(name) or ""):
            return
        disabled = self._node.GetDisableModifiedEvent()
        # Observers of the node's modification are not notified.
        self._node.SetDisableModifiedEvent(1)
        self._node.SetAttribute(name, text)
        self._node.SetDisableModifiedEvent(disabled)
        self._node.InvokeCustomModifiedEvent(slicer.vtkMRMLSegmentEditorNode.EffectParameterModified)


qt = qt_module()


class AbstractScriptedSegmentEditorEffect:
    """Base class of an effect's Python class."""

    def __init__(self, scriptedEffect) -> None:
        self.scriptedEffect = scriptedEffect

    def register(self) -> None:
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

    def cleanup(self) -> None:
        pass


_MODES = tuple(f"ModificationMode{name}" for name in ("Set", "Add", "Remove", "RemoveAll"))


@double
class qSlicerSegmentEditorAbstractEffect(EffectParameters, qt.QObject):
    """Services of the editor for an effect."""

    ModificationModeSet, ModificationModeAdd, ModificationModeRemove, ModificationModeRemoveAll = range(4)
    NotConfirmed, ConfirmedWithoutDialog, ConfirmedWithDialog = range(3)
    name = stored("UnnamedScriptedEffect")
    perSegment = stored(True)
    requireSegments = stored(True)

    def __init__(self, parent=None) -> None:
        qt.QObject.__init__(self, parent)
        self._title, self._active, self._node, self._editor, self._logic = "", False, None, None, None
        self._frame, self._cursor, self._confirmed = qt.QFrame(), qt.QCursor(), None
        layout = qt.QFormLayout(self._frame)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(4)

    @property
    def title(self) -> str:
        return self._title or self.name

    @title.setter
    def title(self, title: str) -> None:
        self._title = title

    active = gives("_active")
    parameterSetNode = gives("_node")

    def setParameterSetNode(self, node) -> None:
        self._node = node

    def scene(self):
        return None if self._node is None else self._node.GetScene()

    optionsFrame = gives("_frame")
    optionsLayout = gives("_frame.layout()")

    def addOptionsWidget(self, widget) -> None:
        self._take(widget)
        self.optionsLayout().addRow(widget)

    def addLabeledOptionsWidget(self, label: str, widget):
        self._take(widget)
        text = qt.QLabel(label)
        self.optionsLayout().addRow(text, widget)
        return text

    def _take(self, widget) -> None:
        if widget.isWidgetType():
            widget.setParent(self._frame)
            widget.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.MinimumExpanding)

    def selectEffect(self, name: str) -> None:
        self._editor.setActiveEffectByName(name)

    def saveStateForUndo(self) -> None:
        self._editor.saveStateForUndo()

    def modifySegmentByLabelmap(self, segmentation, segment: str, labelmap, mode: int, bypassMasking=False) -> None:
        """Modify a segment, without an extent, because PythonQt does not support C arrays."""
        self._modify(segmentation, segment, labelmap, mode, (0, -1, 0, -1, 0, -1), bypassMasking)

    def _modify(self, segmentation, segment: str, labelmap, mode: int, extent: tuple, bypass: bool = False) -> None:
        # PythonQt's modes are plain numbers, VTK's wrapping has a type for them.
        mode = getattr(slicer.vtkSlicerSegmentEditorLogic, _MODES[mode])
        self._logic.ModifySegmentByLabelmap(
            segmentation, segment, labelmap, mode, extent, self.perSegment, bool(bypass)
        )

    def confirmCurrentSegmentVisible(self) -> int:
        """Ask whether a hidden segment should be shown; in testing mode, show it without asking."""
        segmentation, segment = self._node.GetSegmentationNode(), self._node.GetSelectedSegmentID()
        if segmentation is None or not segment or segmentation.GetSegmentation().GetSegment(segment) is self._confirmed:
            return self.ConfirmedWithoutDialog
        nodes = (segmentation.GetNthDisplayNode(n) for n in range(segmentation.GetNumberOfDisplayNodes()))
        if any(node.GetVisibility() and node.GetSegmentVisibility(segment) for node in nodes if node is not None):
            return self.ConfirmedWithoutDialog
        display = segmentation.GetDisplayNode()
        box = qt.QMessageBox
        answer = box.Yes
        if not slicer.app.testingEnabled():
            buttons = box.Yes | box.No | box.Cancel
            answer = box.question(None, "Operate on invisible segment?", "Make the segment visible?", buttons)
        if answer == box.Cancel:
            return self.NotConfirmed
        if answer == box.Yes and display is not None:
            display.SetVisibility(True)
            display.SetSegmentVisibility(segment, True)
        else:
            self._confirmed = segmentation.GetSegmentation().GetSegment(segment)
        return self.ConfirmedWithDialog

    def sourceVolumeImageData(self):
        return self._logic.GetAlignedSourceVolume() if self._logic.UpdateAlignedSourceVolume() else None

    def referenceGeometryImage(self):
        return self._logic.GetReferenceGeometryImage() if self._logic.UpdateReferenceGeometryImage() else None

    def segmentationDisplayableInView(self, viewNode) -> bool:
        return bool(self._logic.IsSegmentationDisplayableInView(viewNode))

    @staticmethod
    def renderWindow(viewWidget):
        return viewWidget.viewWidget().renderWindow()

    @classmethod
    def renderer(cls, viewWidget):
        return cls.renderWindow(viewWidget).GetRenderers().GetItemAsObject(0)

    @staticmethod
    def scheduleRender(viewWidget) -> None:
        viewWidget.viewWidget().scheduleRender()

    def addActor2D(self, viewWidget, actor) -> None:
        self.renderer(viewWidget).AddViewProp(actor)
        self.scheduleRender(viewWidget)

    def removeActor2D(self, viewWidget, actor) -> None:
        self.renderer(viewWidget).RemoveViewProp(actor)
        self.scheduleRender(viewWidget)

    addActor3D, removeActor3D = addActor2D, removeActor2D


@double
class qSlicerSegmentEditorScriptedEffect(qSlicerSegmentEditorAbstractEffect):
    """Forwards the editor's calls to the effect's Python class, unless that lacks the method.

    Methods that only the editor calls in C++ (icon, clone, setupOptionsFrame, setMRMLDefaults, process...Events,
    ...Changed, interactionNodeModified) are not exposed by PythonQt; the host calls them through functions that begin
    with an underscore.
    """

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._python, self._source = None, ""

    pythonSource = gives("_source")

    def setPythonSource(self, path: str) -> bool:
        """Load the class from the module named like the file's folder if that is imported and has the class; otherwise
        import the file under that name."""
        file = Path(path)
        name, kind = file.parent.name, file.stem if file.stem.endswith("Effect") else f"{file.stem}Effect"
        if "\\" in path or file.suffix != ".py":
            return False
        if not hasattr(sys.modules.get(name), kind):
            spec = importlib.util.spec_from_file_location(name, file)
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        self._python, self._source = getattr(sys.modules[name], kind)(self), path
        setattr(slicer, name, self._python)
        return True

    self = gives("_python")

    def _call(self, method: str, *arguments, default=None):
        function = getattr(self._python, method, None)
        return default if function is None else function(*arguments)

    def _icon(self):
        """Return the icon. Raise if it has no picture: Slicer would crash, because Qt 5 does not report it as null."""
        icon = self._call("icon", default=None)
        if icon is not None and not icon.availableSizes():
            raise RuntimeError(f"The icon of {self.name} has no picture")
        return qt.QIcon() if icon is None else icon

    _clone = gives("_python.clone()")

    def helpText(self) -> str:
        text = self._call("helpText", default="")
        if not isinstance(text, str):
            raise TypeError("helpText is expected to return a string")
        return text

    def activate(self) -> None:
        self._frame.setVisible(True)
        self._active = True
        self.updateGUIFromMRML()
        self._call("activate")

    def deactivate(self) -> None:
        self._frame.setVisible(False)
        self._active = False
        self._call("deactivate")

    def _process_interaction(self, interactor, event: int, viewWidget) -> bool:
        handled = self._call("processInteractionEvents", interactor, event, viewWidget, default=False)
        if not isinstance(handled, bool):
            raise TypeError("processInteractionEvents is expected to return a boolean")
        return handled

    def _interaction_node_modified(self, node) -> None:
        if hasattr(self._python, "interactionNodeModified"):
            self._python.interactionNodeModified(node)
        elif node.GetCurrentInteractionMode() != slicer.vtkMRMLInteractionNode.ViewTransform:
            self.selectEffect("")

    def updateGUIFromMRML(self) -> None:
        if self._active:
            self._call("updateGUIFromMRML")

    def updateMRMLFromGUI(self) -> None:
        self._call("updateMRMLFromGUI")

    def cleanup(self) -> None:
        self._call("cleanup")


@double
class qSlicerSegmentEditorEffectFactory(qt.QObject):
    """Registered effects, of which each editor makes copies."""

    _singleton = None

    @classmethod
    def instance(cls):
        if cls._singleton is None:
            cls._singleton = cls()
            cls._singleton._effects = []
        return cls._singleton

    def registerEffect(self, effect) -> bool:
        if effect.name in [registered.name for registered in self._effects]:
            return False
        self._effects.append(effect)
        return True

    def registeredEffects(self) -> tuple:
        return tuple(self._effects)
