"""A stand-in for the Slicer desktop, so that panels and effects can be imported, driven and looked at without one.

Widgets are Qt's own (PySide6, offscreen) in PythonQt's manner, .ui files are read by Qt, MRML and the drawing of
slices are Slicer's (slicer-core). Only what no wheel holds is a double, written from its documented interface:
README.md beside this file lists each with the source that it follows, and where it stops.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import pytest

from . import errors


def install(monkeypatch, main_window: bool = True, testing: bool = True) -> None:
    """Put the stand-in where a panel's imports find it, with an empty scene. All is undone with the test.

    main_window: with slice, 3-D and table views in a layout. testing: as Slicer started with --testing.
    Skips the test where Qt cannot start, and says what is missing.
    """
    from .qt_manner import DOUBLES, QtUnavailableError, qt_module

    try:
        qt = qt_module()
    except QtUnavailableError as error:
        pytest.skip(str(error))
    import slicer

    # These need Qt. After this desktop_host.events can be used as it is.
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
    segment_effects.qSlicerSegmentEditorEffectFactory._only = None
    for name, kind in DOUBLES.items():
        if not name.startswith("ctk"):
            monkeypatch.setattr(slicer, name, kind, raising=False)
    if main_window:
        window = layout.qSlicerMainWindow()
        app._windows.append(window)
        app._layouts = window._layouts
        window.show()
        # Views have their size from here on.
        app.processEvents()
    _install_modules(monkeypatch, qt)
    # Slicer's DICOM module makes it at the start; it is open where the user has chosen a folder for it.
    database = dicom_database.ctkDICOMDatabase(Path(app.temporaryPath) / "database")
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    # Last, so that it is taken back first.
    monkeypatch.setattr(_installed, "now", app)


def _install_modules(monkeypatch, qt) -> None:
    """The modules that panels import beside `slicer`."""
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
    # It would install into the Python that runs the tests.
    monkeypatch.setattr(slicer.util, "pip_install", packaging.pip_install)
    library = dicom_database.dicom_lib()
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    monkeypatch.setitem(sys.modules, "DICOMLib.DICOMUtils", library.DICOMUtils)
    monkeypatch.setitem(sys.modules, "qt", qt)
    for name, contents in modules.items():
        made = types.ModuleType(name)
        vars(made).update(contents, __all__=list(contents))
        monkeypatch.setitem(sys.modules, name, made)
        if name.startswith("slicer."):
            monkeypatch.setattr(slicer, name.removeprefix("slicer."), made, raising=False)


class _Installed:
    """Set while a stand-in is installed; when pytest's monkeypatch takes it back, the stand-in ends in good order."""

    application = None

    @property
    def now(self):
        return self.application

    @now.setter
    def now(self, application) -> None:
        if self.application is not None:
            self.application._end()
        self.application = application


_installed = _Installed()


def load_panel(monkeypatch, name: str, **options) -> types.ModuleType:
    """Import a module's file afresh on the stand-in, and load it as Slicer does on its start.

    options: those of `install`.
    """
    install(monkeypatch, **options)
    return load(monkeypatch, name)


def load(monkeypatch, name: str) -> types.ModuleType:
    """Import one more module's file, and load it."""
    from .scripted import load_module

    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    # So that the next test imports it on its own stand-in.
    monkeypatch.setitem(sys.modules, name, module)
    load_module(name)
    return module


def open_panel(name: str):
    """What choosing the module in Slicer does: its widget is made, set up and entered. Returns the scripted widget.

    Raises what Slicer would only print.
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
    """What Slicer does with a module's widget when it quits."""
    import slicer

    window = slicer.util.mainWindow()
    if window is None:
        getattr(slicer.modules, name.lower()).widgetRepresentation().exit()
    else:
        slicer.util.selectModule("")
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(name)


def grab(widget, path) -> Path:
    """Write what the widget shows as a PNG, as it is laid out at its present size."""
    import slicer

    slicer.app.processEvents()
    if not widget.grab().save(str(path)):
        raise OSError(f"{path} could not be written")
    errors.raise_errors()
    return Path(path)
