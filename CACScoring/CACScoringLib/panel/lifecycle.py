"""What the panels of both modules have in common: how Slicer makes, enters, leaves and ends them, and their self test.

A module's own file holds the four classes that Slicer looks for; its widget derives from `PanelWidget` and is made of
sections.
"""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, N803, N815, PT009

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import qt
import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest, ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from .packages import outdatedSlicer
from .widgets import fitPages, letShrink


class Signal:
    """What a part of a panel tells those who have connected a slot: PythonQt knows no signals of Python's classes."""

    def __init__(self) -> None:
        self._slots: list[Callable] = []

    def connect(self, slot: Callable) -> None:
        self._slots.append(slot)

    def emit(self, *arguments: object) -> None:
        for slot in self._slots:
            slot(*arguments)


class Section:
    """A part of a panel: some of its widgets, and what they do. `_state`: the parameter node; None while the panel is
    closed."""

    _state = None

    def setState(self, state) -> None:
        """Another scene's state, or None while the panel is closed."""
        self._state = state

    def enter(self) -> None:
        """The panel is shown."""

    def exit(self) -> None:
        """The panel is left."""

    def closeScene(self) -> None:
        """The scene is being closed, and all nodes with it."""

    def cancel(self) -> None:
        """End what runs in the background."""

    def cleanup(self) -> None:
        """The panel is gone for good."""
        self.exit()
        self.cancel()


class PanelWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """A module's panel.

    library: the module's own, which is loaded anew with it. pages: files of widgets that fill tabs, by the tab's name.
    A subclass makes `logic` and `sections` in `makeSections`, when `ui` holds all widgets, and says what follows from
    a change of the state in `onParametersChanged`.
    """

    library: str
    pages: Mapping[str, str]
    logic = None
    sections: tuple[Section, ...] = ()
    _parameterNode = None
    _parameterNodeGuiTag = None

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def makeSections(self) -> None:
        raise NotImplementedError

    def onParametersChanged(self, caller=None, event=None) -> None:
        """Show the state."""
        raise NotImplementedError

    def nodeRemoved(self, node) -> None:
        """A node was taken out of the scene, which may be one that is shown."""

    def setup(self) -> None:
        super().setup()
        if reason := outdatedSlicer():
            label = qt.QLabel(reason)
            label.wordWrap = True
            self.layout.addWidget(label)
            return
        panel = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(panel)
        tabs = slicer.util.childWidgetVariables(panel)
        for tab, file in self.pages.items():
            getattr(tabs, tab).layout().addWidget(slicer.util.loadUI(self.resourcePath(f"UI/{file}.ui")))
        self.ui = slicer.util.childWidgetVariables(panel)
        self.makeSections()
        letShrink(panel)
        fitPages(self.ui.pages)
        scene = slicer.mrmlScene
        for event, handler in (
            (scene.StartCloseEvent, self.onSceneStartClose),
            (scene.EndCloseEvent, self.onSceneEnd),
            (scene.EndImportEvent, self.onSceneEnd),
            (scene.NodeRemovedEvent, self.onNodeRemoved),
        ):
            self.addObserver(scene, event, handler)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        for section in self.sections:
            section.cleanup()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        self.initializeParameterNode()
        for section in self.sections:
            section.enter()

    def exit(self) -> None:
        for section in self.sections:
            section.exit()
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event) -> None:
        for section in self.sections:
            section.closeScene()
        self.setParameterNode(None)

    def onSceneEnd(self, caller, event) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, caller, event, node) -> None:
        self.nodeRemoved(node)

    def onReload(self) -> None:
        # Slicer reloads the module's file only.
        for name in [n for n in sys.modules if n == self.library or n.startswith(f"{self.library}.")]:
            del sys.modules[name]
        super().onReload()

    def initializeParameterNode(self) -> None:
        if self.logic is not None:  # None in a Slicer that is too old
            self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = parameterNode
        for section in self.sections:
            section.setState(parameterNode)
        if parameterNode is not None:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.onParametersChanged()


class PanelTest(ScriptedLoadableModuleTest):
    """A module's self test, which begins with an empty scene and leaves one. A module imports this file, not the class:
    unittest would run a class that it finds in a module."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def tearDown(self) -> None:
        slicer.mrmlScene.Clear()

    def test_everyPageOpens(self) -> None:
        """No page and no section of the panel is dead."""
        from .panel_self_test import deadPages

        self.assertEqual(deadPages(type(self).__name__.removesuffix("Test")), [])
