"""`qt` as PythonQt shows it, made of PySide6: properties are attributes, and nothing else can be set on a widget.

PySide6's own classes are changed, once per process: instances that Qt makes itself (the widgets of a .ui file) must
behave as well. What differs from PythonQt still is written in README.md beside this file.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import operator
import os
import sys
import tempfile
import types
from pathlib import Path

from . import qt_values

_MODULES = ("QtCore", "QtGui", "QtWidgets", "QtSvg", "QtUiTools")

# PythonQtClassInfo::lookForPropertyAndCache leaves it out, for the static function of that name.
_NO_PROPERTY = ("QTimer", "singleShot")

# Widgets that a .ui file may name beside Qt's own; filled by @double.
DOUBLES: dict[str, type] = {}


class QtUnavailableError(RuntimeError):
    """Qt cannot start on this machine; the message names what is missing."""


def double(kind: type) -> type:
    """Class decorator: a stand-in for a widget of CTK or Slicer, which .ui files name by its class name."""
    DOUBLES[kind.__name__] = kind
    qt_values.refuse_keywords(kind)
    return kind


@functools.cache
def qt_module() -> types.ModuleType:
    """The module `qt`, and the one QApplication of the process.

    Raises QtUnavailableError where PySide6 or a library that it needs is missing.
    """
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    qt = types.ModuleType("qt", "Qt in PythonQt's manner, on PySide6.")
    try:
        import PySide6

        for name in _MODULES:
            module = importlib.import_module(f"PySide6.{name}")
            vars(qt).update({each: getattr(module, each) for each in dir(module) if not each.startswith("_")})
        if os.environ["QT_QPA_PLATFORM"] == "offscreen":
            # Qt ends the process when its plugin cannot be loaded; the loader says why.
            ctypes.CDLL(str(next(Path(PySide6.__path__[0]).rglob("*qoffscreen*"))))
    except (ImportError, OSError, StopIteration) as error:
        raise QtUnavailableError(
            f"The panels' tests need Qt (PySide6-Essentials), which cannot start here: {error}. "
            "Install the test extra; on Debian and Ubuntu also libegl1 libgl1 libglib2.0-0 libxkbcommon0 "
            "libfontconfig1 libdbus-1-3."
        ) from error
    _start_application(qt)
    classes = {each for each in vars(qt).values() if isinstance(each, type)}
    every = {kind for each in classes for base in each.__mro__ for kind in qt_values.enumerations(base)}
    for each in every:
        qt_values.make_integers(each)
    # Bases first: a class finds its getters before they are replaced.
    for each in sorted(classes.difference(every), key=lambda kind: len(kind.__mro__)):
        is_qobject = issubclass(each, qt.QObject)
        qt_values.give_truth(each, is_qobject)
        qt_values.refuse_keywords(each)
        qt_values.give_lists(each)
        if is_qobject:
            _give_manner(each)
    qt.QObject.name = property(
        lambda self: self.objectName, lambda self, name: self.setObjectName(name), doc="PythonQt's alias of objectName."
    )
    qt.QObject.className = lambda self: self.metaObject().className()
    qt.QObject.delete = lambda self: importlib.import_module("shiboken6").delete(self)
    qt.QUiLoader = _ui_loader(qt)
    return qt


def delete(widget) -> None:
    """Delete a widget with all that it holds, and let them go of what they hold.

    They refer to one another; scenes and views, which are large, would wait until Python next looks for such cycles.
    """
    every = [widget, *widget.findChildren(qt_module().QObject)]
    widget.delete()
    for each in every:
        vars(each).clear()


def _start_application(qt: types.ModuleType) -> None:
    # The offscreen platform says this of every window.
    unimportant = "This plugin does not support propagateSizeHints()"
    qt.qInstallMessageHandler(
        lambda kind, context, message: None if message == unimportant else print(message, file=sys.stderr)
    )
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    # Never the settings of who runs the tests.
    settings = tempfile.TemporaryDirectory(prefix="cac-desktop-host-")
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, settings.name)
    qt.QCoreApplication.setOrganizationName("CAC tests")
    qt.QCoreApplication.setApplicationName("desktop host")
    application = qt.QApplication.instance() or qt.QApplication(["desktop host"])
    application.setStyle("Fusion")
    palette = application.palette()
    # As Slicer's style leaves it: black, with no style.
    palette.setBrush(qt.QPalette.PlaceholderText, qt.QBrush())
    application.setPalette(palette)
    # They live as long as the module.
    qt.__dict__["_application"], qt.__dict__["_settings"] = application, settings


def _give_manner(kind: type) -> None:
    """A property hides the function of its name, also where a class has a function of its own (sizeHint)."""
    meta = kind.staticMetaObject
    for index in range(meta.propertyCount()):
        described = meta.property(index)
        name = described.name()
        own = index >= meta.propertyOffset() or name in vars(kind)
        if own and name.isidentifier() and (kind.__name__, name) != _NO_PROPERTY:
            setter = _setter(kind, name) if described.isWritable() else None
            setattr(kind, name, property(_getter(kind, name), setter))
    kind.__setattr__ = _set_attribute


def _getter(kind: type, name: str):
    capital = name[0].upper() + name[1:]
    for each in (name, f"is{capital}", f"has{capital}"):
        method = getattr(kind, each, None)
        if callable(method) and not hasattr(method, "emit"):
            break
    else:
        method = functools.partial(_property_by_name, name=name)
    return lambda self: qt_values.as_tuple(method(self))


def _property_by_name(instance, name: str):
    return instance.property(name)


def _setter(kind: type, name: str):
    method = getattr(kind, f"set{name[0].upper()}{name[1:]}", None)
    if method is not None:
        return lambda self, value: method(self, value)

    def write(self, value) -> None:
        if not self.setProperty(name, value):
            raise AttributeError(f"Property {name} of {type(self).__name__} does not accept {value!r}")

    return write


def _set_attribute(self, name: str, value) -> None:
    """As PythonQtInstanceWrapper_setattro: new attributes only on classes that were derived in Python, and no slot,
    signal or enumeration of Qt's is replaced."""
    kind = type(self)
    if name == getattr(value, "objectName", None) and not hasattr(kind, name):
        # Children are found by their names, in PythonQt too; PySide6's loader of .ui files sets them.
        self.__dict__[name] = value
        return
    for base in kind.__mro__:
        if name in vars(base):
            member = vars(base)[name]
            if hasattr(type(member), "__set__"):
                member.__set__(self, value)
                return
            if hasattr(member, "emit") or type(member).__name__ == "Signal":
                # PySide6 keeps a connected signal on its object.
                self.__dict__[name] = value
                return
            if _is_qts(base, name):
                raise AttributeError(f"{name} of {kind.__name__} cannot be overwritten")
            break
    if _is_qts(kind, name):
        raise AttributeError(f"{name} does not exist on {kind.__name__}, and new attributes cannot be created on it")
    self.__dict__[name] = value


def _is_qts(kind: type, name: str) -> bool:
    """Whether a class stands for one of C++; the attributes of a double's own work begin with an underscore."""
    own = kind.__module__.partition(".")[0]
    return own == "PySide6" or (own == __package__ and not name.startswith("_"))


def _ui_loader(qt: types.ModuleType) -> type:
    class QUiLoader(qt.QUiLoader):
        """Makes the doubles where a .ui file names their classes; a class that nobody knows is an error."""

        def load(self, device, parent=None):
            self._unknown = []
            widget = super().load(device, parent)
            if self._unknown:
                raise RuntimeError(f"The .ui file uses {', '.join(self._unknown)}, which the desktop host lacks.")
            return widget

        def createWidget(self, className, parent=None, name=""):
            if className not in DOUBLES:
                if className not in self.availableWidgets():
                    self._unknown.append(className)
                return super().createWidget(className, parent, name)
            widget = DOUBLES[className](parent)
            widget.setObjectName(name)
            widget.installEventFilter(_properties_from_file(qt))
            return widget

    return QUiLoader


@functools.cache
def _properties_from_file(qt: types.ModuleType):
    """Passes on to a double what a .ui file sets: for Qt its properties are dynamic ones."""

    class PropertyFilter(qt.QObject):
        def eventFilter(self, watched, event) -> bool:
            if event.type() == qt.QEvent.DynamicPropertyChange:
                name = bytes(event.propertyName().data()).decode()
                if isinstance(getattr(type(watched), name, None), property):
                    setattr(watched, name, watched.property(name))
            return False

    return PropertyFilter()


class stored(property):
    """A Qt property of a double that is only kept: readable and writable as an attribute, with its type checked."""

    def __init__(self, default) -> None:
        super().__init__(self._read, self._write)
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = f"_stored_{name}"

    def _read(self, instance):
        return instance.__dict__.get(self._key, self._default)

    def _write(self, instance, value) -> None:
        instance.__dict__[self._key] = converted(value, self._default)


def converted(value, like):
    """value as the type of `like`, where PythonQt would convert it too."""
    if isinstance(like, bool):
        return bool(value)
    if isinstance(like, int) and hasattr(type(value), "__index__"):
        # Also a value of an enumeration.
        return operator.index(value)
    if isinstance(like, tuple) and isinstance(value, (list, tuple)):
        return tuple(value)
    if isinstance(like, (int, float)) and isinstance(value, (int, float)):
        return type(like)(value)
    if isinstance(like, str) and isinstance(value, str):
        return value
    if like is None or not isinstance(like, (tuple, int, float, str)):
        return value
    raise AttributeError(f"A property of type {type(like).__name__} does not accept {value!r}")
