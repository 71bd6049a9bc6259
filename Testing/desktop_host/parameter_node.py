"""Double of parameterNodeWrapper (Slicer/Slicer Base/Python/slicer/parameterNodeWrapper/wrapper.py, guiConnectors.py;
Docs/developer_guide/parameter_nodes/gui_connection.md)."""

from __future__ import annotations

import typing

import slicer
import vtk

from . import parameter_gui, parameter_validators
from .parameter_pack import data_type, default_of, get_value, parameterPack, set_value
from .parameter_storage import storage_of
from .qt_manner import qt_module

SlicerParameterNamePropertyName = "SlicerParameterName"


def parameterNodeWrapper(kind: type | None = None):
    """Class decorator: typed access to a parameter node, and its connection to widgets."""
    return _wrap if kind is None else _wrap(kind)


def _wrap(kind: type) -> type:
    hints = typing.get_type_hints(kind, include_extras=True)
    reserved = [name for name in _METHODS if name in hints or name in vars(kind)]
    if reserved:
        raise ValueError(f"Cannot use reserved names {reserved} in a parameterNodeWrapper")
    kind.allParameters = hints
    kind._storages = {name: storage_of(hint) for name, hint in hints.items()}
    kind._defaults = {name: default_of(kind, name, hint) for name, hint in hints.items()}
    for name in hints:
        setattr(kind, name, _parameter(name))
    for name, method in _METHODS.items():
        setattr(kind, name, method)
    kind.__init__ = _init
    return kind


def _init(self, parameterNode, prefix: str | None = None) -> None:
    self.parameterNode, self._prefix = parameterNode, prefix or ""
    self._connections, self._nextTag, self._updatingGui = {}, 0, False
    for name in self.allParameters:
        _write_default(self, name)


def _write_default(self, name: str) -> None:
    storage = self._storages[name]
    if not storage.is_in(self.parameterNode, self._prefix + name):
        storage.write(self.parameterNode, self._prefix + name, self._defaults[name])


def _parameter(name: str) -> property:
    def read(self):
        # After a scene is closed the node is there, without its values.
        _write_default(self, name)
        return self._storages[name].read(self.parameterNode, self._prefix + name)

    def write(self, value) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            self._storages[name].write(self.parameterNode, self._prefix + name, value)

    return property(read, write)


def isParameterNodeWrapper(classOrObject) -> bool:
    return getattr(classOrObject, "_is_parameter_node_wrapper", False)


def _connect_gui(self, gui):
    """Connect widgets with the dynamic property SlicerParameterName: those below a widget, or an object's own."""
    qt = qt_module()
    widgets = gui.findChildren(qt.QWidget) if isinstance(gui, qt.QWidget) else vars(gui).values()
    named = {each.property(SlicerParameterNamePropertyName): each for each in widgets}
    return _connect_parameters(self, {name: each for name, each in named.items() if name})


def _connect_parameters(self, mapping: dict):
    connectors = {
        name: widget
        if isinstance(widget, parameter_gui.GuiConnector)
        else parameter_gui.createGuiConnector(widget, self.dataType(name))
        for name, widget in mapping.items()
    }
    tag, self._nextTag = self._nextTag, self._nextTag + 1
    for name, connector in connectors.items():
        connector.write(self.getValue(name))
        connector.onChanged(_gui_to_parameter(self, name, connector))
    observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _parameters_to_gui(self))
    self._connections[tag] = connectors, observer
    return tag


def _gui_to_parameter(self, name: str, connector):
    def write() -> None:
        with slicer.util.NodeModify(self):
            if not self._updatingGui:
                self.setValue(name, connector.read())

    return write


def _parameters_to_gui(self) -> None:
    if self._updatingGui:
        return
    self._updatingGui = True
    try:
        with slicer.util.NodeModify(self):
            for connectors, _ in list(self._connections.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
    finally:
        self._updatingGui = False


def _disconnect_gui(self, tag) -> None:
    connectors, observer = self._connections.pop(tag, ({}, None))
    for connector in connectors.values():
        connector.onChanged(None)
    if observer is not None:
        self.RemoveObserver(observer)


_METHODS = {
    "_is_parameter_node_wrapper": True,
    "default": lambda self, name: parameter_validators.Default(self._defaults[name]),
    "dataType": classmethod(lambda cls, name: data_type(cls.allParameters, name)),
    "getValue": get_value,
    "setValue": set_value,
    "connectGui": _connect_gui,
    "connectParametersToGui": _connect_parameters,
    "disconnectGui": _disconnect_gui,
    "StartModify": lambda self: self.parameterNode.StartModify(),
    "EndModify": lambda self, wasModified: self.parameterNode.EndModify(wasModified),
    "AddObserver": lambda self, *arguments: self.parameterNode.AddObserver(*arguments),
    "RemoveObserver": lambda self, tag: self.parameterNode.RemoveObserver(tag),
    "Modified": lambda self: self.parameterNode.Modified(),
}

NAMES = {
    name: vars(module)[name]
    for module, names in (
        (parameter_validators, ("Default", "Validator", "NotNone", "WithinRange", "Minimum", "Maximum")),
        (parameter_validators, ("Choice", "Exclude")),
        (parameter_gui, ("GuiConnector", "Decimals", "SingleStep")),
        (parameter_gui, ("createGuiConnector", "parameterNodeGuiConnector")),
    )
    for name in names
} | {
    "parameterNodeWrapper": parameterNodeWrapper,
    "parameterPack": parameterPack,
    "isParameterNodeWrapper": isParameterNodeWrapper,
    "SlicerParameterNamePropertyName": SlicerParameterNamePropertyName,
}
