"""Base classes of both modules' panels: their lifecycle in Slicer, their sections and their self test.

A module's own file holds the four classes that Slicer looks for. Its widget derives from `PanelWidget` and consists of
sections.
"""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, N803, N815, PT009

from __future__ import annotations

import contextlib
import sys
import unittest
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import qt
import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest, ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from .packages import outdatedSlicer
from .widgets import InSight, dataOf, fitPages, letShrink, watchPath

if TYPE_CHECKING:
    from .job import BackgroundJob


class Signal:
    """Signal for plain Python objects; PythonQt cannot define Qt signals in Python classes."""

    def __init__(self) -> None:
        self._slots: list[Callable[..., object]] = []

    def connect(self, slot: Callable[..., object]) -> None:
        self._slots.append(slot)

    def emit(self, *arguments: object) -> None:
        for slot in self._slots:
            slot(*arguments)


class PanelSection:
    """Part of a panel: a group of widgets and their behaviour.

    Attributes:
        job: Its work in the background; None without any.
    """

    job: BackgroundJob | None = None
    _inSight: InSight | None = None
    """Keeps a part of the section in sight; None without any."""
    _state = None
    """Parameter node; None while the panel is closed."""

    def setState(self, state) -> None:
        """Use another scene's parameter node; None when the panel is closed."""
        self._state = state

    def set(self, parameter: str, value: str) -> None:
        """Set a parameter of the state, a text or a choice, unless the panel is closed."""
        if self._state is not None:
            setattr(self._state, parameter, type(getattr(self._state, parameter))(value))

    def bind(self, box, parameter: str) -> None:
        """Set a parameter to the data of a combo box whenever the box changes."""
        box.currentIndexChanged.connect(lambda *_args: self.set(parameter, dataOf(box)))

    def bindPath(self, edit, parameter: str) -> None:
        """Set a parameter to the folder of a path edit whenever the edit changes."""
        watchPath(edit, lambda *_args: self.set(parameter, edit.currentPath))

    def enter(self) -> None:
        """React to the panel being shown."""

    def exit(self) -> None:
        """React to the panel being left."""

    def closeScene(self) -> None:
        """React to the scene being closed with all its nodes."""

    def cancel(self) -> None:
        """Stop background work, and the scrolling to a part of the section."""
        parts: tuple[BackgroundJob | InSight | None, ...] = self.job, self._inSight
        for part in filter(None, parts):
            part.cancel()

    def cleanup(self) -> None:
        """Release everything before the panel is deleted."""
        self.exit()
        self.cancel()


class PanelWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """A module's panel.

    A subclass makes `logic` and `sections` in `makeSections`, when `ui` holds all widgets, and updates the sections in
    `onParametersChanged`.

    Attributes:
        library: Name of the module's package, which *Reload* imports again.
        pages: Names of UI files that fill tabs, by the tab's name.
        logic: The module's logic; None in a Slicer that is too old.
        sections: Parts of the panel.
    """

    library: str
    pages: Mapping[str, str]
    logic = None
    sections: tuple[PanelSection, ...] = ()
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
        """React to the removal of a node from the scene."""

    def setup(self) -> None:
        super().setup()
        if reason := outdatedSlicer():
            label = qt.QLabel(reason)
            label.wordWrap = True
            self.layout.addWidget(label)
            return
        panel = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.setContentsMargins(0, 0, 0, 0)  # a small screen has no pixels to spare
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
    """Base class of a module's self test, which begins and ends with an empty scene.

    Modules import this file rather than the class, which unittest would run when it finds it in a module.
    """

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def tearDown(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        try:
            super().runTest()
        except unittest.SkipTest as reason:  # by *Reload and Test*, which knows no skipped tests
            self.tearDown()
            print(f"Skipped: {reason}")

    def test_everyPageOpens(self) -> None:
        """Open every page and every section without an error."""
        self.assertEqual(deadPages(type(self).__name__.removesuffix("Test")), [])


_COLLAPSIBLE = ("ctkCollapsibleButton", "ctkCollapsibleGroupBox")


class PrintedErrors:
    """Context manager that collects errors that are only printed, and the error that ends its block.

    Attributes:
        where: Current step, with which an error's line begins.
        lines: Errors so far, one a line.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: list[str] = []

    def __enter__(self) -> PrintedErrors:
        self._previousHook, sys.excepthook = sys.excepthook, self.keep
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        ends_block = isinstance(error, Exception)
        if ends_block:
            self.keep(kind, error, traceback)
        sys.excepthook = self._previousHook
        return ends_block

    def keep(self, kind, error, traceback) -> None:
        self.lines.append(f"{self.where}: {kind.__name__}: {error}")
        self._previousHook(kind, error, traceback)


def deadPages(moduleName: str) -> list[str]:
    """Open every page and section of a module's panel, then restore the state. Returns errors, one a line.

    Works without a main window.
    """
    with PrintedErrors(moduleName) as errors:
        panel = slicer.util.getModule(moduleName).widgetRepresentation()
        if panel is None:
            raise RuntimeError("the panel could not be made")
        with entered(panel, moduleName):
            # This raises if the panel's setup() failed before.
            panel.self().initializeParameterNode()
            _openPages(panel.self().ui.pages, errors)
    return errors.lines


@contextlib.contextmanager
def entered(panel, moduleName: str) -> Iterator[None]:
    """Select a module, and in the end the former one. panel: the module's widget."""
    window = slicer.util.mainWindow()
    previous_module = slicer.util.selectedModule() if window is not None else None
    is_outside = not panel.isEntered
    if is_outside and window is None:
        panel.enter()
    elif is_outside:
        slicer.util.selectModule(moduleName)
    try:
        yield
    finally:
        if is_outside and window is None:
            panel.exit()
        elif is_outside:
            slicer.util.selectModule(previous_module)


def _openPages(pages, errors: PrintedErrors) -> None:
    """Open each page, nested pages included."""
    initial_index, where = pages.currentIndex, errors.where
    for index in range(pages.count):
        errors.where = f"{where}, page {pages.tabText(index)}"
        try:
            pages.setCurrentIndex(index)
            _openSections(pages.widget(index))
            for inner in slicer.util.findChildren(pages.widget(index), className="QTabWidget"):
                _openPages(inner, errors)
        except Exception:
            errors.keep(*sys.exc_info())
    errors.where = where
    pages.setCurrentIndex(initial_index)


def _openSections(page) -> None:
    sections = [widget for widget in slicer.util.findChildren(page) if widget.className() in _COLLAPSIBLE]
    collapsed = [section for section in sections if section.collapsed]
    for section in collapsed:
        section.collapsed = False
    slicer.app.processEvents()
    # grab() also paints what is scrolled out of sight.
    for widget in (page, *sections):
        widget.grab()
    for section in reversed(collapsed):
        section.collapsed = True
    slicer.app.processEvents()
