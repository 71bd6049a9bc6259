"""Doubles of slicer.app, slicer.modules and the managers behind them, on a real scene with Slicer's own logics
(Slicer/Slicer Base/QTCore/qSlicerCoreApplication.h, qSlicerModuleManager.h, qSlicerCoreIOManager.h)."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import slicer
import vtk

from . import observers
from .qt_manner import delete, gives, qt_module

qt = qt_module()

_LOGICS = {
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
    # Registers the conversion rules of segmentations, too.
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "markups": "vtkSlicerMarkupsLogic",
    "tables": "vtkSlicerTablesLogic",
    "plots": "vtkSlicerPlotsLogic",
}


class Module:
    """A loadable module with its logic."""

    def __init__(self, name: str, logic) -> None:
        self.name, self._logic = name, logic

    logic = gives("_logic")


class Modules:
    """slicer.modules: modules by their name in lower case, and scripted modules' widgets as <Name>Widget."""


class _Signals(qt.QObject):
    startupCompleted = qt.Signal()
    moduleAboutToBeUnloaded = qt.Signal(str)
    moduleLoaded = qt.Signal(str)


class _SignalSource:
    """Base class with signals as attributes, and PythonQt's connect("name(types)", slot)."""

    _names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._signals = _Signals()
        for name in self._names:
            setattr(self, name, getattr(self._signals, name))

    def connect(self, signature: str, slot: Callable) -> bool:
        getattr(self, signature.partition("(")[0]).connect(slot)
        return True

    def disconnect(self, signature: str, slot: Callable) -> bool:
        getattr(self, signature.partition("(")[0]).disconnect(slot)
        return True


class ModuleManager(_SignalSource):
    _names = ("moduleAboutToBeUnloaded", "moduleLoaded")

    def module(self, name: str):
        return getattr(slicer.modules, name.lower(), None)

    def modulesNames(self) -> tuple[str, ...]:
        # slicer.modules also holds scripted modules' widgets, as <Name>Widget.
        members = vars(slicer.modules).values()
        modules = (m for m in members if isinstance(m, Module) or hasattr(m, "widgetRepresentation"))
        return tuple(module.name for module in modules)


class CommandOptions:
    """Options that Slicer was started with."""

    def __init__(self, testing: bool) -> None:
        # True if Slicer ends with its start script.
        self.runPythonAndExit = testing


class IOManager:
    """Reads and writes scenes, volumes and segmentations."""

    def loadNodes(self, fileType: str, properties: dict, loadedNodes=None, userMessages=None) -> bool:
        path = str(properties["fileName"])
        if fileType == "SceneFile":
            return self.loadScene(path, properties.get("clear", True))
        loaders = {
            "VolumeFile": lambda: slicer.modules.volumes.logic().AddArchetypeVolume(
                path, properties.get("name", Path(path).name.partition(".")[0]), 1 if properties.get("labelmap") else 0
            ),
            "SegmentationFile": lambda: slicer.modules.segmentations.logic().LoadSegmentationFromFile(path),
        }
        node = loaders[fileType]()
        if node is not None and loadedNodes is not None:
            loadedNodes.AddItem(node)
        if node is not None and fileType == "VolumeFile" and properties.get("show", True):
            slicer.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(node.GetID())
            slicer.app.applicationLogic().PropagateVolumeSelection()
        return node is not None

    def loadScene(self, path: str, clear: bool = True) -> bool:
        scene = slicer.mrmlScene
        if path.endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    def saveNodes(self, fileType: str, properties: dict, userMessages=None) -> bool:
        return self.saveScene(str(properties["fileName"]))

    def saveScene(self, path: str, screenShot=None) -> bool:
        if path.endswith(".mrb"):
            return bool(slicer.mrmlScene.WriteToMRB(path))
        return bool(slicer.mrmlScene.SaveSceneToSlicerDataBundleDirectory(path))


class Application(_SignalSource):
    """slicer.app. testing: value of testingEnabled(); if True, slicer.util shows no message boxes."""

    _names = ("startupCompleted",)

    def __init__(self, testing: bool) -> None:
        super().__init__()
        self._testing, self._settings = testing, None
        self._options, self._exit_status = CommandOptions(testing), None
        self.temporaryPath = tempfile.mkdtemp(prefix="cac-desktop-host-")
        weakref.finalize(self, shutil.rmtree, self.temporaryPath, ignore_errors=True)
        self.slicerHome = str(Path(slicer.__file__).parent)
        self._logic, self._io = slicer.vtkSlicerApplicationLogic(), IOManager()
        self._modules, self._layouts, self._scene = ModuleManager(), None, None
        self._windows = []

    def _end(self) -> None:
        """Shut down as Slicer does: unload modules, then end views, scene and windows."""
        scene, self._scene = self._scene, None
        if scene is None:
            return
        for name in self._modules.modulesNames():
            self._modules.moduleAboutToBeUnloaded.emit(name)
        observers.forget_all()
        if self._layouts is not None:
            self._layouts._end()
        scene.Clear(1)
        for module in vars(slicer.modules).values():
            if hasattr(module, "widgetRepresentation"):
                module._end()
        for widget in qt.QApplication.topLevelWidgets():
            # Some were deleted with others.
            if widget and widget.parent() is None:
                widget.close()
                delete(widget)
        # Delete what an event loop would delete later.
        qt.QCoreApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
        self._windows.clear()
        self._layouts = None

    commandOptions = gives("_options")

    def exit(self, status: int = 0) -> None:
        """Store the status; Slicer itself would end after processing its events."""
        self._exit_status = status

    testingEnabled = gives("_testing")

    def processEvents(self) -> None:
        qt.QApplication.processEvents()

    applicationLogic = gives("_logic")
    mrmlScene = gives("_scene")
    moduleManager = gives("_modules")
    coreIOManager = gives("_io")

    def layoutManager(self):
        """None without a main window, as in Slicer."""
        return self._layouts

    def settings(self):
        self._settings = self._settings or qt.QSettings()
        return self._settings

    userSettings = gives("settings()")

    def topLevelWidgets(self) -> tuple:
        return tuple(self._windows)

    def setOverrideCursor(self, cursor) -> None:
        qt.QApplication.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        qt.QApplication.restoreOverrideCursor()

    def clipboard(self):
        return qt.QApplication.clipboard()

    def translate(self, context: str, text: str) -> str:
        return text


def boot(application: Application, monkeypatch) -> None:
    """Make an empty scene with the desktop's logics, as slicer.mrmlScene and slicer.modules."""
    # Some logics complain about colours and other data files that the wheel lacks.
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_ERROR)
    scene, logic, modules = slicer.vtkMRMLScene(), application.applicationLogic(), Modules()
    logic.SetMRMLScene(scene)
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    logic.SetModuleLogic("Colors", logic.GetColorLogic())
    modules.colors = Module("Colors", logic.GetColorLogic())
    for name, kind in _LOGICS.items():
        module_logic = getattr(slicer, kind)()
        title = kind.removeprefix("vtkSlicer").removesuffix("Logic").removesuffix("Module")
        if name != "terminologies":  # with a scene, it reads Slicer's own files
            module_logic.SetMRMLApplicationLogic(logic)
            module_logic.SetMRMLScene(scene)
            logic.SetModuleLogic(title, module_logic)
        setattr(modules, name, Module(title, module_logic))
    _remote_io(application, scene)
    application._scene = scene
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    monkeypatch.setattr(slicer, "modules", modules, raising=False)


def _remote_io(application: Application, scene) -> None:
    """Set up remote input and output, which reading a scene bundle needs."""
    remote, data = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    remote.SetMRMLScene(scene)
    remote.SetMRMLApplicationLogic(application.applicationLogic())
    remote.GetCacheManager().SetRemoteCacheDirectory(application.temporaryPath)
    data.SetMRMLApplicationLogic(application.applicationLogic())
    data.SetMRMLScene(scene)
    data.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    application._kept_alive = remote, data
