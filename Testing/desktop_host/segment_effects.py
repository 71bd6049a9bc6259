"""Doubles of what stands between a scripted segment editor effect and Slicer
(Slicer/Slicer Modules/Loadable/Segmentations/EditorEffects/qSlicerSegmentEditor{AbstractEffect,ScriptedEffect,
EffectFactory}.h, .cxx, Python/SegmentEditorEffects/AbstractScriptedSegmentEditorEffect.py). Voxels are changed by
Slicer's own vtkSlicerSegmentEditorLogic."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import slicer
import vtk

from .effect_parameters import EffectParameters
from .qt_manner import double, qt_module, stored

qt = qt_module()


class AbstractScriptedSegmentEditorEffect:
    """Base of the Python class of an effect."""

    def __init__(self, scriptedEffect) -> None:
        self.scriptedEffect = scriptedEffect

    def register(self) -> None:
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

    def cleanup(self) -> None:
        pass

    def rasToXy(self, ras, viewWidget) -> list[int]:
        point = self.scriptedEffect.rasToXy(qt.QVector3D(*ras), viewWidget)
        return [point.x(), point.y()]

    def xyzToRas(self, xyz, viewWidget) -> list[float]:
        return _numbers(self.scriptedEffect.xyzToRas(qt.QVector3D(*xyz), viewWidget))

    def xyToRas(self, xy, viewWidget) -> list[float]:
        return _numbers(self.scriptedEffect.xyToRas(qt.QPoint(*xy), viewWidget))

    def xyzToIjk(self, xyz, viewWidget, image, parentTransformNode=None) -> list[int]:
        ijk = self.scriptedEffect.xyzToIjk(qt.QVector3D(*xyz), viewWidget, image, parentTransformNode)
        return [int(each) for each in _numbers(ijk)]

    def xyToIjk(self, xy, viewWidget, image, parentTransformNode=None) -> list[int]:
        ijk = self.scriptedEffect.xyToIjk(qt.QPoint(*xy), viewWidget, image, parentTransformNode)
        return [int(each) for each in _numbers(ijk)]


def _numbers(vector) -> list[float]:
    return [vector.x(), vector.y(), vector.z()]


_MODES = tuple(f"ModificationMode{name}" for name in ("Set", "Add", "Remove", "RemoveAll"))


@double
class qSlicerSegmentEditorAbstractEffect(EffectParameters, qt.QObject):
    """What an effect may ask of the editor."""

    ModificationModeSet, ModificationModeAdd, ModificationModeRemove, ModificationModeRemoveAll = range(4)
    NotConfirmed, ConfirmedWithoutDialog, ConfirmedWithDialog = range(3)
    name = stored("UnnamedScriptedEffect")
    perSegment = stored(True)
    requireSegments = stored(True)
    showEffectCursorInSliceView = stored(True)
    showEffectCursorInThreeDView = stored(False)

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

    def active(self) -> bool:
        return self._active

    def parameterSetNode(self):
        return self._node

    def setParameterSetNode(self, node) -> None:
        self._node = node

    def scene(self):
        return None if self._node is None else self._node.GetScene()

    def optionsFrame(self):
        return self._frame

    def optionsLayout(self):
        return self._frame.layout()

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

    def modifySelectedSegmentByLabelmap(self, labelmap, mode: int, *extentAndBypass) -> None:
        """After the mode: an extent of six numbers, whether masking is bypassed, both or none."""
        extent, bypass = (0, -1, 0, -1, 0, -1), list(extentAndBypass)
        if bypass and isinstance(bypass[0], (list, tuple)):
            extent = tuple(bypass.pop(0))
            if len(extent) != 6:
                raise ValueError("An extent has six numbers")
        segment = self._node.GetSelectedSegmentID() or ""
        self._modify(self._node.GetSegmentationNode(), segment, labelmap, mode, extent, *bypass)

    def modifySegmentByLabelmap(self, segmentation, segment: str, labelmap, mode: int, bypassMasking=False) -> None:
        """PythonQt does not know C's arrays, so that no extent can be given."""
        self._modify(segmentation, segment, labelmap, mode, (0, -1, 0, -1, 0, -1), bypassMasking)

    def _modify(self, segmentation, segment: str, labelmap, mode: int, extent: tuple, bypass: bool = False) -> None:
        # In PythonQt the modes are plain numbers; VTK's wrapping has a type for them.
        mode = getattr(slicer.vtkSlicerSegmentEditorLogic, _MODES[mode])
        self._logic.ModifySegmentByLabelmap(
            segmentation, segment, labelmap, mode, extent, self.perSegment, bool(bypass)
        )

    def confirmCurrentSegmentVisible(self) -> int:
        """A hidden segment: asks whether it is to be shown, except in testing, where it answers yes."""
        segmentation, segment = self._node.GetSegmentationNode(), self._node.GetSelectedSegmentID()
        if segmentation is None or not segment or segmentation.GetSegmentation().GetSegment(segment) is self._confirmed:
            return self.ConfirmedWithoutDialog
        displays = [segmentation.GetNthDisplayNode(n) for n in range(segmentation.GetNumberOfDisplayNodes())]
        if any(each.GetVisibility() and each.GetSegmentVisibility(segment) for each in displays if each is not None):
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

    def modifierLabelmap(self):
        return self._logic.GetModifierLabelmap()

    def defaultModifierLabelmap(self):
        return self._logic.GetModifierLabelmap() if self._logic.ResetModifierLabelmapToDefault() else None

    def maskLabelmap(self):
        return self._logic.GetMaskLabelmap() if self._logic.UpdateMaskLabelmap() else None

    def sourceVolumeImageData(self):
        return self._logic.GetAlignedSourceVolume() if self._logic.UpdateAlignedSourceVolume() else None

    def selectedSegmentLabelmap(self):
        return self._logic.GetSelectedSegmentLabelmap() if self._logic.UpdateSelectedSegmentLabelmap() else None

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
    def viewNode(viewWidget):
        return viewWidget.mrmlAbstractViewNode()

    @staticmethod
    def scheduleRender(viewWidget) -> None:
        viewWidget.viewWidget().scheduleRender()

    @staticmethod
    def forceRender(viewWidget) -> None:
        viewWidget.viewWidget().forceRender()

    def addActor2D(self, viewWidget, actor) -> None:
        self.renderer(viewWidget).AddViewProp(actor)
        self.scheduleRender(viewWidget)

    def removeActor2D(self, viewWidget, actor) -> None:
        self.renderer(viewWidget).RemoveViewProp(actor)
        self.scheduleRender(viewWidget)

    addActor3D, removeActor3D = addActor2D, removeActor2D

    def cursorOff(self, viewWidget) -> None:
        self._cursor = qt.QCursor(viewWidget.cursor)
        viewWidget.viewWidget().setDefaultViewCursor(qt.QCursor(qt.Qt.BlankCursor))

    def cursorOn(self, viewWidget) -> None:
        viewWidget.viewWidget().setDefaultViewCursor(self._cursor)

    @staticmethod
    def rasToXy(ras, sliceWidget):
        # As vtkSlicerSegmentEditorLogic::RasToXy, whose result VTK does not wrap: whole pixels, cut off.
        matrix = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(sliceWidget.mrmlSliceNode().GetXYToRAS(), matrix)
        return qt.QPoint(*(int(each) for each in matrix.MultiplyPoint((*_numbers(ras), 1.0))[:2]))

    @staticmethod
    def xyzToRas(xyz, sliceWidget):
        ras = sliceWidget.mrmlSliceNode().GetXYToRAS().MultiplyPoint((*_numbers(xyz), 1.0))
        return qt.QVector3D(*ras[:3])

    @classmethod
    def xyToRas(cls, xy, sliceWidget):
        return cls.xyzToRas(qt.QVector3D(xy.x(), xy.y(), 0), sliceWidget)

    @staticmethod
    def xyzToIjk(xyz, sliceWidget, image, parentTransform=None):
        ijk = [0, 0, 0]
        node = sliceWidget.mrmlSliceNode()
        slicer.vtkSlicerSegmentEditorLogic.XyzToIjk(_numbers(xyz), ijk, node, image, parentTransform)
        return qt.QVector3D(*ijk)

    @classmethod
    def xyToIjk(cls, xy, sliceWidget, image, parentTransform=None):
        return cls.xyzToIjk(qt.QVector3D(xy.x(), xy.y(), 0), sliceWidget, image, parentTransform)


@double
class qSlicerSegmentEditorScriptedEffect(qSlicerSegmentEditorAbstractEffect):
    """Passes on to the effect's Python class what the editor asks; a method that it lacks is passed over.

    Python sees only what PythonQt shows: what the editor alone calls in C++ (icon, clone, setupOptionsFrame,
    setMRMLDefaults, process...Events, ...Changed, interactionNodeModified) goes through functions with an underscore.
    """

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._python, self._source = None, ""

    def pythonSource(self) -> str:
        return self._source

    def setPythonSource(self, path: str) -> bool:
        """The class comes from the module that is named as the file's folder: the one imported already when it has
        the class, else the file itself, which then takes that module's place."""
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

    def self(self):
        return self._python

    def _ask(self, method: str, *arguments, otherwise=None):
        asked = getattr(self._python, method, None)
        return otherwise if asked is None else asked(*arguments)

    def _icon(self):
        """Qt 5 does not call an icon null whose file is missing, and Slicer then reads the first of no sizes."""
        icon = self._ask("icon", otherwise=None)
        if icon is not None and not icon.availableSizes():
            raise RuntimeError(f"The icon of {self.name} has no picture")
        return qt.QIcon() if icon is None else icon

    def _clone(self):
        return self._python.clone()

    def helpText(self) -> str:
        text = self._ask("helpText", otherwise="")
        if not isinstance(text, str):
            raise TypeError("helpText is expected to return a string")
        return text

    def activate(self) -> None:
        self._frame.setVisible(True)
        self._active = True
        self.updateGUIFromMRML()
        self._ask("activate")

    def deactivate(self) -> None:
        self._frame.setVisible(False)
        self._active = False
        self._ask("deactivate")

    def createCursor(self, viewWidget):
        if hasattr(self._python, "createCursor"):
            return self._python.createCursor(viewWidget)
        icon = self._icon()
        if icon.isNull():
            return qt.QCursor(qt.Qt.ArrowCursor)
        return qt.QCursor(icon.pixmap(icon.availableSizes()[0]), 5, 2)

    def _process_interaction(self, interactor, event: int, viewWidget) -> bool:
        handled = self._ask("processInteractionEvents", interactor, event, viewWidget, otherwise=False)
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
            self._ask("updateGUIFromMRML")

    def updateMRMLFromGUI(self) -> None:
        self._ask("updateMRMLFromGUI")

    def cleanup(self) -> None:
        self._ask("cleanup")


@double
class qSlicerSegmentEditorEffectFactory(qt.QObject):
    """The effects that are known; each editor takes copies of them."""

    effectRegistered = qt.Signal(str)
    _only = None

    @classmethod
    def instance(cls):
        if cls._only is None:
            cls._only = cls()
            cls._only._effects = []
        return cls._only

    def registerEffect(self, effect) -> bool:
        if effect.name in [each.name for each in self._effects]:
            return False
        self._effects.append(effect)
        self.effectRegistered.emit(effect.name)
        return True

    def registeredEffects(self) -> tuple:
        return tuple(self._effects)
