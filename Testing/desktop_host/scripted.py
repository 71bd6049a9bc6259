"""Doubles of a scripted module's base classes and of their loader
(Slicer/Slicer Base/Python/slicer/ScriptedLoadableModule.py; Base/QTGUI/qSlicerScriptedLoadableModule*.h)."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

import slicer

from .qmrml_doubles import qMRMLWidget
from .qt_manner import delete, double, gives, qt_module, stored

qt = qt_module()


class ScriptedLoadableModule:
    """A module's description."""

    def __init__(self, parent) -> None:
        self.parent, self.moduleName = parent, type(self).__name__
        parent.title, parent.categories, parent.dependencies = "", [], []
        parent.contributors, parent.helpText, parent.acknowledgementText = ["template"], "template", "template"
        for ending in ("svg", "png"):
            icon = Path(parent.path).parent / "Resources" / "Icons" / f"{self.moduleName}.{ending}"
            if icon.is_file():
                parent.icon = qt.QIcon(str(icon))
                break

    def resourcePath(self, filename: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / filename)


class ScriptedLoadableModuleWidget:
    """A module's panel. parent: Slicer's widget; None to make one."""

    def __init__(self, parent=None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        self.parent = parent or qMRMLWidget()
        if not parent:
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if not parent:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Do nothing: the developer's section is not simulated."""

    def cleanup(self) -> None:
        pass

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        # A closed scene keeps the singleton without its attributes.
        if node.GetAttribute("ModuleName") != self.moduleName:
            node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A module's self test. runTest calls every method whose name contains "test", and tearDown only after success."""

    def __init__(self, *arguments, **options) -> None:
        self.moduleTestNames = []
        super().__init__(*arguments, **options)
        self.enableScreenshots, self.screenshotScaleFactor = False, 1.0
        self.moduleTestNames = [name for name in dir(self) if "test" in name and callable(getattr(self, name))]

    def runTest(self) -> None:
        self.setUpClass()
        for name in self.moduleTestNames:
            self.setUp()
            getattr(self, name)()
            self.tearDown()
        self.tearDownClass()


@double
class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """Widget of Slicer's module panel that contains a scripted panel; isEntered while the module is shown.

    Exceptions of the panel's class, setup(), enter() and exit() are printed, and collected in `errors`.
    """

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._module, self._entered, self._instance = None, False, None
        self.setLayout(qt.QVBoxLayout())

    isEntered = property(gives("_entered"))
    moduleName = property(gives("_module.name"))
    module = gives("_module")
    self = gives("_instance")

    def _set_module(self, module) -> bool:
        """Make the panel's object; return False if that fails."""
        self._module = module
        self.setObjectName(f"{module.name}ModuleWidget")
        self.setWindowTitle(module.title)
        self.reload()
        return self._instance is not None

    def reload(self) -> None:
        kind = getattr(sys.modules[self._module.name], f"{self._module.name}Widget")
        try:
            instance = kind(self)
        except Exception:
            sys.excepthook(*sys.exc_info())
            return
        self._instance = instance
        setattr(slicer.modules, f"{self._module.name}Widget", instance)
        self._call("setup")

    def enter(self) -> None:
        self._entered = True
        self._call("enter")

    def exit(self) -> None:
        self._entered = False
        self._call("exit")

    def _call(self, name: str) -> None:
        """Call a method like qSlicerPythonCppAPI::callMethod."""
        if hasattr(self._instance, name):
            try:
                getattr(self._instance, name)()
            except Exception:
                sys.excepthook(*sys.exc_info())


@double
class qSlicerScriptedLoadableModule(qt.QObject):
    """Slicer's object of a module; the scripted class sets its properties."""

    title = stored("")
    categories = stored(())
    dependencies = stored(())
    contributors = stored(())
    helpText = stored("")
    acknowledgementText = stored("")
    hidden = stored(False)
    icon = stored(None)
    path = stored("")
    index = stored(-1)

    def __init__(self, name: str, path: str) -> None:
        super().__init__()
        self._name, self._widget, self._logic = name, None, None
        self.path = path

    name = property(gives("_name"))
    logic = gives("_logic")

    def widgetRepresentation(self):
        """Return the widget, made at the first call."""
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self):
        """Make a widget, which gets the scene after its setup; return None if the panel's object cannot be made."""
        widget = qSlicerScriptedLoadableModuleWidget()
        if not widget._set_module(self):
            return None
        widget.setMRMLScene(slicer.mrmlScene)
        return widget

    def _end(self) -> None:
        """Delete the module's panel."""
        widget, self._widget = self._widget, None
        if widget is not None:
            panel = widget.self()
            delete(widget)
            vars(panel).clear()


def load_module(name: str):
    """Register an imported module with Slicer, as at its start. Returns the module's object."""
    file = sys.modules[name].__file__
    module = qSlicerScriptedLoadableModule(name, file)
    setattr(slicer.modules, name.lower(), module)
    module._scripted = getattr(sys.modules[name], name)(module)
    slicer.app.moduleManager().moduleLoaded.emit(name)
    return module
