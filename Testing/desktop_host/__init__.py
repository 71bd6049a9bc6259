"""A small stand-in for the Slicer desktop, so that a panel's file can be imported and driven without one.

MRML is Slicer's own (slicer-core). Qt, CTK, Slicer's widgets, the scripted module base classes and the parameter
node wrapper are imitations that hold only what the panels use: tests on them show that a panel's logic, its
wiring of signals and its handling of nodes are right, and say nothing about layout, drawing or PythonQt.
"""

# Qt's and Slicer's names.
# ruff: noqa: N802, N803

from __future__ import annotations

import importlib
import sys
import types
import typing
import unittest

import slicer
import vtk

from . import widgets


class Application:
    """slicer.app: only what modules connect to on start."""

    def __init__(self) -> None:
        self.startupCompleted = widgets.Signal()


class ScriptedLoadableModule:
    def __init__(self, parent) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None) -> None:
        self.parent = parent
        self.layout = parent.layout()
        self.reloads = 0

    def setup(self) -> None:
        pass

    def onReload(self) -> None:
        self.reloads += 1


class ScriptedLoadableModuleLogic:
    def getParameterNode(self):
        name = type(self).__name__.removesuffix("Logic")
        node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(name)
            node.SetName(name)
            node = slicer.mrmlScene.AddNode(node)
        # After a scene is closed the singleton stays, but its attributes are gone.
        node.SetAttribute("ModuleName", name)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    pass


def parameterNodeWrapper(kind: type) -> type:
    """Typed access to a parameter node, for fields that are MRML nodes or text, in Slicer's own storage format."""
    for name, hint in typing.get_type_hints(kind).items():
        setattr(kind, name, _node_property(name) if hint is not str else _text_property(name))

    def init(self, parameterNode) -> None:
        self.parameterNode = parameterNode

    kind.__init__ = init
    kind.AddObserver = lambda self, event, callback, priority=0.0: self.parameterNode.AddObserver(event, callback)
    kind.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    kind.connectParametersToGui = _connect_to_gui
    kind.disconnectGui = lambda self, tag: tag()
    return kind


def _node_property(name: str) -> property:
    def set_node(self, node) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            self.parameterNode.SetParameter(name, "")
            self.parameterNode.SetNodeReferenceID(name, None if node is None else node.GetID())

    return property(lambda self: self.parameterNode.GetNodeReference(name), set_node)


def _text_property(name: str) -> property:
    return property(
        lambda self: self.parameterNode.GetParameter(name),
        lambda self, text: self.parameterNode.SetParameter(name, text),
    )


def _connect_to_gui(self, widgets_of_parameters: dict):
    """Keep node selectors and parameters equal; the tag that is returned ends it."""
    ends = []
    for name, selector in widgets_of_parameters.items():

        def to_gui(*_, name=name, selector=selector) -> None:
            selector.setCurrentNode(getattr(self, name))

        def to_parameter(node, name=name) -> None:
            if getattr(self, name) is not node:
                setattr(self, name, node)

        to_gui()
        selector.currentNodeChanged.connect(to_parameter)
        tag = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, to_gui)
        ends.append(
            lambda s=selector, f=to_parameter, t=tag: (s.currentNodeChanged.disconnect(f), self.RemoveObserver(t))
        )
    return lambda: [end() for end in ends]


def install(monkeypatch) -> None:
    """Put the stand-in where a panel's imports find it, with an empty scene. All is undone with the test."""
    modules = {
        "qt": widgets.qt,
        "ctk": widgets.ctk,
        "slicer.i18n": {"tr": lambda text: text, "translate": lambda context, text: text},
        "slicer.parameterNodeWrapper": {"parameterNodeWrapper": parameterNodeWrapper},
        "slicer.ScriptedLoadableModule": {
            base.__name__: base
            for base in (
                ScriptedLoadableModule,
                ScriptedLoadableModuleWidget,
                ScriptedLoadableModuleLogic,
                ScriptedLoadableModuleTest,
            )
        },
    }
    for name, contents in modules.items():
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    terminologies = slicer.vtkSlicerTerminologiesModuleLogic()
    # It makes the conversion rules of segmentations known; the scene needs nothing else of it.
    segmentations = slicer.vtkSlicerSegmentationsModuleLogic()
    slicer_names = {
        "app": Application(),
        "mrmlScene": slicer.vtkMRMLScene(),
        "modules": types.SimpleNamespace(
            terminologies=types.SimpleNamespace(logic=lambda: terminologies),
            segmentations=types.SimpleNamespace(logic=lambda: segmentations),
        ),
        "qMRMLNodeComboBox": widgets.qMRMLNodeComboBox,
        "qMRMLTableView": widgets.qMRMLTableView,
    }
    for name, value in slicer_names.items():
        monkeypatch.setattr(slicer, name, value, raising=False)


def load_panel(monkeypatch, name: str) -> types.ModuleType:
    """Import a panel's file afresh on the stand-in."""
    install(monkeypatch)
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    # So that the next test imports it on its own stand-in.
    monkeypatch.setitem(sys.modules, name, module)
    return module
