"""Module `qt` with PythonQt's behaviour, built from PySide6: properties are attributes, and widgets have no others.

PySide6's own classes are changed, once per process, so that instances made by Qt (widgets of a .ui file) behave alike.
Follows MeVisLab/pythonqt src/PythonQtInstanceWrapper.cpp (getattro, setattro), src/PythonQtClassWrapper.cpp (getattro)
and src/PythonQtClassInfo.cpp (`name`, `singleShot`). README.md beside this file lists remaining differences.
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

# PythonQtClassInfo::lookForPropertyAndCache skips this property because of the static function of that name.
_NO_PROPERTY = ("QTimer", "singleShot")

# Doubles of widgets that a .ui file may name, by class name; filled by @double.
DOUBLES: dict[str, type] = {}


class QtUnavailableError(RuntimeError):
    """Error when Qt cannot start on this machine; the message names what is missing."""


def double(kind: type) -> type:
    """Class decorator that registers a double of CTK's or Slicer's widget for .ui files."""
    DOUBLES[kind.__name__] = kind
    qt_values.refuse_keywords(kind)
    return kind


@functools.cache
def qt_module() -> types.ModuleType:
    """Return the module `qt`, and start the process's QApplication.

    Raises QtUnavailableError if PySide6 or a library that it needs is missing.
    """
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    qt = types.ModuleType("qt", "Qt in PythonQt's manner, on PySide6.")
    try:
        import PySide6

        for name in _MODULES:
            module = importlib.import_module(f"PySide6.{name}")
            members = {member: getattr(module, member) for member in dir(module) if not member.startswith("_")}
            vars(qt).update(members)
        if os.environ["QT_QPA_PLATFORM"] == "offscreen":
            # Qt would end the process if its plugin cannot be loaded; the loader raises with the reason.
            ctypes.CDLL(str(next(Path(PySide6.__path__[0]).rglob("*qoffscreen*"))))
    except (ImportError, OSError, StopIteration) as error:
        raise QtUnavailableError(
            f"The panels' tests need Qt (PySide6-Essentials), which cannot start here: {error}. "
            "Install the test extra; on Debian and Ubuntu also libegl1 libgl1 libglib2.0-0 libxkbcommon0 "
            "libfontconfig1 libdbus-1-3."
        ) from error
    _start_application(qt)
    classes = {member for member in vars(qt).values() if isinstance(member, type)}
    bases = {base for kind in classes for base in kind.__mro__}
    enumerations = {enumeration for base in bases for enumeration in qt_values.enumerations(base)}
    for enumeration in enumerations:
        qt_values.make_integers(enumeration)
    # Bases first, so that a class finds its getters before they are replaced.
    for kind in sorted(classes.difference(enumerations), key=lambda kind: len(kind.__mro__)):
        is_qobject = issubclass(kind, qt.QObject)
        qt_values.give_truth(kind, is_qobject)
        qt_values.refuse_keywords(kind)
        qt_values.give_lists(kind)
        if is_qobject:
            _give_manner(kind)
    qt.QObject.name = property(
        lambda self: self.objectName, lambda self, name: self.setObjectName(name), doc="PythonQt's alias of objectName."
    )
    qt.QObject.className = lambda self: self.metaObject().className()
    qt.QObject.delete = lambda self: importlib.import_module("shiboken6").delete(self)
    qt.QUiLoader = _ui_loader(qt)
    return qt


def delete(widget) -> None:
    """Delete a widget with its children, and clear their attributes.

    They refer to each other, and would keep large scenes and views alive until the next garbage collection.
    """
    objects = [widget, *widget.findChildren(qt_module().QObject)]
    widget.delete()
    for part in objects:
        vars(part).clear()


def _start_application(qt: types.ModuleType) -> None:
    # The offscreen platform prints this for every window.
    unimportant = "This plugin does not support propagateSizeHints()"
    qt.qInstallMessageHandler(
        lambda kind, context, message: None if message == unimportant else print(message, file=sys.stderr)
    )
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    # Never use the settings of the user who runs the tests.
    settings = tempfile.TemporaryDirectory(prefix="cac-desktop-host-")
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, settings.name)
    qt.QCoreApplication.setOrganizationName("CAC tests")
    qt.QCoreApplication.setApplicationName("desktop host")
    application = qt.QApplication.instance() or qt.QApplication(["desktop host"])
    application.setStyle("Fusion")
    palette = application.palette()
    # Slicer's style leaves this brush black and without a style.
    palette.setBrush(qt.QPalette.PlaceholderText, qt.QBrush())
    application.setPalette(palette)
    # Both live as long as the module.
    qt.__dict__["_application"], qt.__dict__["_settings"] = application, settings


def _give_manner(kind: type) -> None:
    """Replace functions by properties of the same name, even where a class overrides the function (sizeHint)."""
    meta = kind.staticMetaObject
    for index in range(meta.propertyCount()):
        meta_property = meta.property(index)
        name = meta_property.name()
        is_own = index >= meta.propertyOffset() or name in vars(kind)
        if is_own and name.isidentifier() and (kind.__name__, name) != _NO_PROPERTY:
            setter = _setter(kind, name) if meta_property.isWritable() else None
            setattr(kind, name, property(_getter(kind, name), setter))
    if "exec_" in vars(kind):  # PySide6 warns of its old name, which is PythonQt's
        kind.exec_ = lambda self: self.exec()
    kind.__setattr__ = _set_attribute


def _getter(kind: type, name: str):
    capital = name[0].upper() + name[1:]
    for function in (name, f"is{capital}", f"has{capital}"):
        method = getattr(kind, function, None)
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
    """Set an attribute like PythonQtInstanceWrapper_setattro: new attributes only on classes derived in Python, and
    never in place of Qt's slots, signals or enumerations."""
    kind = type(self)
    if name == getattr(value, "objectName", None) and not hasattr(kind, name):
        # PySide6's loader of .ui files sets children as attributes; PythonQt finds them by name, too.
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
    """Return True if a class stands for one of C++; a double's private attributes begin with an underscore."""
    package = kind.__module__.partition(".")[0]
    return package == "PySide6" or (package == __package__ and not name.startswith("_"))


def _ui_loader(qt: types.ModuleType) -> type:
    class QUiLoader(qt.QUiLoader):
        """Loader that makes doubles where a .ui file names their classes, and refuses unknown classes."""

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
    """Return an event filter that sets a double's properties from a .ui file, which Qt treats as dynamic."""

    class PropertyFilter(qt.QObject):
        def eventFilter(self, watched, event) -> bool:
            if event.type() == qt.QEvent.DynamicPropertyChange:
                name = bytes(event.propertyName().data()).decode()
                if isinstance(getattr(type(watched), name, None), property):
                    setattr(watched, name, watched.property(name))
            return False

    return PropertyFilter()


def gives(path: str):
    """Return a double's method without arguments that gives what a dotted path leads to; "()" calls a part of it."""

    def give(self):
        value = self
        for part in path.split("."):
            value = getattr(value, part.removesuffix("()"))
            value = value() if part.endswith("()") else value
        return value

    return give


class stored(property):
    """Qt property of a double without further effect: an attribute whose type is checked."""

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
    """Return a value converted to the type of `like` if PythonQt would convert it; raise AttributeError if not."""
    if isinstance(like, bool):
        return bool(value)
    if isinstance(like, int) and hasattr(type(value), "__index__"):
        # This includes values of enumerations.
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
