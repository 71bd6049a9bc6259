"""Double of parameterNodeWrapper for the types that panels use: texts, numbers, booleans, enumerations and nodes
(Slicer/Slicer Base/Python/slicer/parameterNodeWrapper/wrapper.py, serializers.py, validators.py;
Docs/developer_guide/parameter_nodes/gui_connection.md)."""

from __future__ import annotations

import enum
import types
import typing

import slicer
import vtk

from .qt_manner import qt_module


class Minimum:
    """Annotation of the minimum."""

    def __init__(self, minimum) -> None:
        self.minimum, self.maximum = minimum, None

    def validate(self, value) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must not be below {self.minimum}, is {value}")


class WithinRange(Minimum):
    """Annotation of the minimum and the maximum."""

    def __init__(self, minimum, maximum) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


def split(hint) -> tuple[type, Minimum | None]:
    """Return the type and the limits of a type hint."""
    kind, *annotations = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
    return kind, next(iter(annotations), None)


class Parameter:
    """A typed parameter.

    Numbers and texts are stored by str(), booleans as "True" and "False", enumerations by name, and nodes as a
    reference with the parameter's name and an empty text.
    """

    def __init__(self, name: str, hint, default) -> None:
        self.name, self.hint, self.default = name, hint, default
        self.kind, self.limits = split(hint)
        supported = (str, int, float, bool, enum.Enum, slicer.vtkMRMLNode)
        if not isinstance(self.kind, type) or not issubclass(self.kind, supported):
            raise TypeError(f"Unable to create serializer for type {hint}")
        self._is_node, self._is_enum = issubclass(self.kind, slicer.vtkMRMLNode), issubclass(self.kind, enum.Enum)
        if default is None and not self._is_node:
            self.default = next(iter(self.kind)) if self._is_enum else self.kind()

    def read(self, node):
        # A closed scene keeps the node without its values.
        if not node.HasParameter(self.name):
            self.write(node, self.default)
        if self._is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return self.kind[text] if self._is_enum else text == "True" if self.kind is bool else self.kind(text)

    def write(self, node, value) -> None:
        accepted = (int, float) if self.kind is float else self.kind
        fits = isinstance(value, accepted) and not (isinstance(value, bool) and self.kind in (int, float))
        if not fits and not (self._is_node and value is None):
            raise TypeError(f"Value must be of type {self.kind.__name__}, is {value!r}")
        if self.limits is not None:
            self.limits.validate(value)
        if self._is_node:
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, None if value is None else value.GetID())
        else:
            node.SetParameter(self.name, value.name if self._is_enum else str(value))


def parameterNodeWrapper(kind: type) -> type:
    """Class decorator: typed access to a parameter node, and its connection to widgets."""
    hints = typing.get_type_hints(kind, include_extras=True)
    reserved = [name for name in vars(_Wrapper) if name in hints or name in vars(kind)]
    if conflicts := [name for name in reserved if not name.startswith("__")]:
        raise ValueError(f"Cannot use reserved names {conflicts} in a parameterNodeWrapper")
    parameters = {name: Parameter(name, hint, getattr(kind, name, None)) for name, hint in hints.items()}
    members = {name: _access(parameter) for name, parameter in parameters.items()}
    attributes = {"_parameters": parameters, "__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (_Wrapper,), members | attributes)


def _access(parameter: Parameter) -> property:
    def write(self, value) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            parameter.write(self.parameterNode, value)

    return property(lambda self: parameter.read(self.parameterNode), write)


class _Wrapper:
    _parameters: typing.ClassVar[dict[str, Parameter]] = {}

    def __init__(self, parameterNode) -> None:
        self.parameterNode = parameterNode
        self._connections, self._next_tag, self._updating_gui = {}, 0, False
        for parameter in self._parameters.values():
            parameter.read(parameterNode)

    def default(self, name: str):
        return types.SimpleNamespace(value=self._parameters[name].default)

    def connectGui(self, gui):
        """Connect the widgets below a widget, or in an object, that have the dynamic property SlicerParameterName."""
        qt = qt_module()
        widgets = gui.findChildren(qt.QWidget) if isinstance(gui, qt.QWidget) else vars(gui).values()
        by_name = {widget.property("SlicerParameterName"): widget for widget in widgets}
        return self.connectParametersToGui({name: widget for name, widget in by_name.items() if name})

    def connectParametersToGui(self, mapping: dict):
        from .parameter_gui import connector_of

        connectors = {name: connector_of(widget, self._parameters[name]) for name, widget in mapping.items()}
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        for name, connector in connectors.items():
            connector.write(getattr(self, name))
            connector.connect(lambda *_, name=name, connector=connector: self._from_gui(name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._to_gui())
        self._connections[tag] = connectors, observer
        return tag

    def _from_gui(self, name: str, connector) -> None:
        if not self._updating_gui:
            with slicer.util.NodeModify(self):
                setattr(self, name, connector.read())

    def _to_gui(self) -> None:
        if self._updating_gui:
            return
        self._updating_gui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors, _ in list(self._connections.values()):
                    for name, connector in connectors.items():
                        connector.write(getattr(self, name))
        finally:
            self._updating_gui = False

    def disconnectGui(self, tag) -> None:
        connectors, observer = self._connections.pop(tag, ({}, None))
        for connector in connectors.values():
            connector.disconnect()
        if observer is not None:
            self.RemoveObserver(observer)

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, *arguments):
        return self.parameterNode.AddObserver(*arguments)

    def RemoveObserver(self, tag):
        return self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        return self.parameterNode.Modified()


NAMES = {kind.__name__: kind for kind in (parameterNodeWrapper, Minimum, WithinRange)}
