"""Double of the parameter node's connectors to widgets
(Slicer/Slicer Base/Python/slicer/parameterNodeWrapper/guiConnectors.py).

A connector accepts a widget of exactly the classes that Slicer's does: a subclass is refused there too.
"""

from __future__ import annotations

import enum

import slicer

from .ctk_doubles import ctkSliderWidget
from .parameter_node import Parameter
from .qmrml_doubles import qMRMLNodeComboBox
from .qt_manner import qt_module

qt = qt_module()


class _Connector:
    """Connection of a widget and a parameter.

    Attributes:
        widgets: Classes of widgets.
        kinds: Types of parameters.
        signal: Name of the widget's signal.
        attribute: Name of the widget's property that holds the value.
    """

    widgets: tuple[type, ...] = ()
    kinds: tuple[type, ...] = ()
    signal, attribute = "", ""

    def __init__(self, widget, parameter: Parameter) -> None:
        self._widget, self._parameter, self._slot = widget, parameter, None
        self.prepare()

    def prepare(self) -> None:
        """Set the widget's limits."""

    def connect(self, slot) -> None:
        self._slot = slot
        getattr(self._widget, self.signal).connect(slot)

    def disconnect(self) -> None:
        getattr(self._widget, self.signal).disconnect(self._slot)

    def read(self):
        return self._parameter.kind(getattr(self._widget, self.attribute))

    def write(self, value) -> None:
        if value != getattr(self._widget, self.attribute):
            setattr(self._widget, self.attribute, value)


class _CheckBox(_Connector):
    signal, attribute = "stateChanged", "checked"
    widgets, kinds = (qt.QCheckBox,), (bool,)


class _Text(_Connector):
    signal, attribute = "textChanged", "text"
    widgets, kinds = (qt.QLineEdit,), (str,)


class _Number(_Connector):
    signal, attribute = "valueChanged", "value"
    least, most = -(2**31), 2**31 - 1

    def prepare(self) -> None:
        limits = self._parameter.limits
        low, high = (None, None) if limits is None else (limits.minimum, limits.maximum)
        if type(self._widget) is ctkSliderWidget and None in (low, high):
            raise RuntimeError("Cannot have a connection to ctkSliderWidget without limits")
        self._widget.minimum = self.least if low is None else type(self.least)(low)
        self._widget.maximum = self.most if high is None else type(self.most)(high)


class _Integer(_Number):
    widgets, kinds = (qt.QSpinBox,), (int,)


class _Float(_Number):
    # PySide6's spin boxes have no infinite limits.
    least, most = -1e300, 1e300
    widgets, kinds = (qt.QDoubleSpinBox, ctkSliderWidget), (float,)


class _Choice(_Connector):
    """Combo box with an enumeration's values."""

    signal = "currentIndexChanged"
    widgets, kinds = (qt.QComboBox,), (enum.Enum,)

    def prepare(self) -> None:
        self._values = list(self._parameter.kind)
        self._widget.clear()
        for value in self._values:
            self._widget.addItem(value.label() if hasattr(value, "label") else value.name)

    def read(self):
        return self._values[self._widget.currentIndex]

    def write(self, value) -> None:
        self._widget.currentIndex = self._values.index(value)


class _Node(_Connector):
    signal = "currentNodeChanged"
    widgets, kinds = (qMRMLNodeComboBox,), (slicer.vtkMRMLNode,)

    def prepare(self) -> None:
        self._widget.nodeTypes = [self._parameter.kind().GetClassName()]

    def read(self):
        return self._widget.currentNode()

    def write(self, value) -> None:
        self._widget.setCurrentNode(value)


def connector_of(widget, parameter: Parameter) -> _Connector:
    for kind in (_CheckBox, _Integer, _Float, _Choice, _Text, _Node):
        integer_enumeration = issubclass(parameter.kind, enum.Enum) and enum.Enum not in kind.kinds
        if type(widget) in kind.widgets and issubclass(parameter.kind, kind.kinds) and not integer_enumeration:
            return kind(widget, parameter)
    raise RuntimeError(f"Unable to create GUI connector from datatype {parameter.kind} to widget type {type(widget)}")
