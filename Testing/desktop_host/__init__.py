"""Stand-in for the Slicer desktop, with which panels and effects can be imported, driven and viewed without Slicer.

Widgets are Qt's own (PySide6, offscreen) with PythonQt's behaviour, .ui files are read by Qt, and MRML and the drawing
of slices are Slicer's (slicer-core). Everything that no wheel contains is a double, written from its documented
interface: README.md beside this file lists their limits.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import pytest

from . import errors

__all__ = ["close_panel", "errors", "events", "grab", "install", "load", "load_panel", "open_panel"]


def install(monkeypatch, main_window: bool = True, testing: bool = True) -> None:
    """Install the stand-in for the imports of panels, with an empty scene, until the end of the test.

    Skips the test if Qt cannot start, with the reason.

    Args:
        monkeypatch: Pytest's fixture.
        main_window: Make a main window with slice, 3-D and table views in a layout.
        testing: Behave like Slicer with --testing.
    """
    from .qt_manner import DOUBLES, QtUnavailableError, qt_module

    try:
        qt = qt_module()
    except QtUnavailableError as error:
        pytest.skip(str(error))
    import slicer

    # These need Qt. Tests use desktop_host.events afterwards.
    from . import (  # noqa: F401  events for tests, the last for their doubles
        application,
        dicom_database,
        events,
        layout,
        scripted,
        segment_editor,
        segment_effects,
    )

    qt.QSettings().clear()
    app = application.Application(testing)
    monkeypatch.setattr(slicer, "app", app, raising=False)
    application.boot(app, monkeypatch)
    errors.collect(monkeypatch)
    segment_effects.qSlicerSegmentEditorEffectFactory._singleton = None
    for name, kind in DOUBLES.items():
        if not name.startswith("ctk"):
            monkeypatch.setattr(slicer, name, kind, raising=False)
    if main_window:
        window = layout.qSlicerMainWindow()
        app._windows.append(window)
        app._layouts = window._layouts
        window.show()
        # The views take their sizes.
        app.processEvents()
    _install_modules(monkeypatch, qt)
    # Slicer's DICOM module makes the database at the start; it is open if the user has chosen a folder.
    database = dicom_database.ctkDICOMDatabase(Path(app.temporaryPath) / "database")
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    # Set last, so that it is undone first.
    monkeypatch.setattr(_installation, "current", app)


def _install_modules(monkeypatch, qt) -> None:
    """Install the modules that panels import besides `slicer`."""
    import slicer

    from . import dicom_database, packaging, parameter_node, scripted, segment_effects
    from .qt_manner import DOUBLES

    def doubles(prefix: str) -> dict[str, type]:
        return {name: kind for name, kind in DOUBLES.items() if name.startswith(prefix)}

    base = segment_effects.AbstractScriptedSegmentEditorEffect
    module = scripted.ScriptedLoadableModule
    bases = (module, *(getattr(scripted, f"{module.__name__}{part}") for part in ("Widget", "Logic", "Test")))
    modules = {
        "ctk": doubles("ctk"),
        "SegmentEditorEffects": {base.__name__: base},
        "qSlicerSegmentationsEditorEffectsPythonQt": doubles("qSlicerSegmentEditor"),
        "qSlicerSegmentationsModuleWidgetsPythonQt": doubles("qMRMLSegment"),
        "slicer.i18n": {"tr": lambda text: text, "translate": lambda context, text: text},
        "slicer.packaging": packaging.NAMES,
        "slicer.parameterNodeWrapper": parameter_node.NAMES,
        "slicer.ScriptedLoadableModule": {kind.__name__: kind for kind in bases},
    }
    # The original would install into the Python that runs the tests.
    monkeypatch.setattr(slicer.util, "pip_install", packaging.pip_install)
    library = dicom_database.dicom_lib()
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    monkeypatch.setitem(sys.modules, "DICOMLib.DICOMUtils", library.DICOMUtils)
    monkeypatch.setitem(sys.modules, "qt", qt)
    for name, contents in modules.items():
        double_module = types.ModuleType(name)
        vars(double_module).update(contents, __all__=list(contents))
        monkeypatch.setitem(sys.modules, name, double_module)
        if name.startswith("slicer."):
            monkeypatch.setattr(slicer, name.removeprefix("slicer."), double_module, raising=False)


class _Installation:
    """Holder of the current application, which is shut down in order when pytest's monkeypatch resets it."""

    application = None

    @property
    def current(self):
        return self.application

    @current.setter
    def current(self, application) -> None:
        if self.application is not None:
            self.application._end()
        self.application = application


_installation = _Installation()


def load_panel(monkeypatch, name: str, **options) -> types.ModuleType:
    """Install the stand-in, import a module's file afresh, and load it as Slicer does at its start.

    options: arguments of `install`.
    """
    install(monkeypatch, **options)
    return load(monkeypatch, name)


def load(monkeypatch, name: str) -> types.ModuleType:
    """Import another module's file and load it."""
    from .scripted import load_module

    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    # The next test has to import it with its own stand-in.
    monkeypatch.setitem(sys.modules, name, module)
    load_module(name)
    return module


def open_panel(name: str):
    """Choose a module as in Slicer: make its widget, set it up and enter it. Returns the scripted widget.

    Raises exceptions that Slicer would only print.
    """
    import slicer

    representation = getattr(slicer.modules, name.lower()).widgetRepresentation()
    window = slicer.util.mainWindow()
    if window is None:
        slicer.app._windows.append(representation)
        representation.show()
        representation.enter()
    else:
        slicer.util.selectModule(name)
    slicer.app.processEvents()
    errors.raise_errors()
    return representation.self()


def close_panel(name: str) -> None:
    """Leave and unload a module as Slicer does when it quits."""
    import slicer

    window = slicer.util.mainWindow()
    if window is None:
        getattr(slicer.modules, name.lower()).widgetRepresentation().exit()
    else:
        slicer.util.selectModule("")
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(name)


def grab(widget, path) -> Path:
    """Write a widget's picture, at its current size, as a PNG file."""
    import slicer

    slicer.app.processEvents()
    if not widget.grab().save(str(path)):
        raise OSError(f"{path} could not be written")
    errors.raise_errors()
    return Path(path)
