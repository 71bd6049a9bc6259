"""Double of the parameter node's connectors to widgets
(Slicer/Slicer Base/Python/slicer/parameterNodeWrapper/guiConnectors.py).

A connector accepts a widget of exactly the classes that Slicer's does: a subclass is refused there too.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import typing

import slicer

from . import ctk_doubles as ctk
from . import qmrml_doubles
from .parameter_storage import is_union, split
from .parameter_validators import Choice, Maximum, Minimum, WithinRange
from .qt_manner import qt_module

qt = qt_module()


@dataclasses.dataclass
class Decimals:
    """Annotation: the decimals that a widget shows."""

    value: int


@dataclasses.dataclass
class SingleStep:
    """Annotation: a widget's step."""

    value: float


class GuiConnector:
    """Makes a widget and a type of values fit. signal: name of the widget's signal, None if it tells nothing."""

    signal: str | None = None

    def __init__(self, widget, hint) -> None:
        self._widget, self._callback = widget, None
        self._kind, self._annotations = split(hint)
        self.prepare()

    @staticmethod
    def canRepresent(widget, datatype) -> bool:
        raise NotImplementedError

    @classmethod
    def create(cls, widget, datatype):
        return cls(widget, datatype) if cls.canRepresent(widget, datatype) else None

    def prepare(self) -> None:
        """Set the widget's limits."""

    def annotation(self, kind: type):
        return next((each for each in self._annotations if isinstance(each, kind)), None)

    def widget(self):
        return self._widget

    def onChanged(self, callback) -> None:
        if self._callback is None and callback is not None:
            self._connect()
        elif self._callback is not None and callback is None:
            self._disconnect()
        self._callback = callback

    def changed(self, *_) -> None:
        if self._callback:
            self._callback()

    def _connect(self) -> None:
        if self.signal:
            getattr(self._widget, self.signal).connect(self.changed)

    def _disconnect(self) -> None:
        if self.signal:
            getattr(self._widget, self.signal).disconnect(self.changed)

    def read(self):
        raise NotImplementedError

    def write(self, value) -> None:
        raise NotImplementedError


_CONNECTORS: list[type] = []


def parameterNodeGuiConnector(kind: type | None = None):
    """Class decorator: register a connector."""

    def register(each: type) -> type:
        _CONNECTORS.append(each)
        return each

    return register if kind is None else register(kind)


def createGuiConnector(widget, datatype) -> GuiConnector:
    for kind in _CONNECTORS:
        if kind.canRepresent(widget, datatype):
            return kind.create(widget, datatype)
    raise RuntimeError(f"Unable to create GUI connector from datatype {datatype} to widget type {type(widget)}")


class _Attribute(GuiConnector):
    """A widget with one property that holds the value."""

    attribute = ""
    widgets: tuple[type, ...] = ()
    kinds: tuple[type, ...] = ()

    @classmethod
    def canRepresent(cls, widget, datatype) -> bool:
        return type(widget) in cls.widgets and split(datatype)[0] in cls.kinds

    def read(self):
        return self._kind(getattr(self._widget, self.attribute))

    def write(self, value) -> None:
        if value != getattr(self._widget, self.attribute):
            setattr(self._widget, self.attribute, value)


@parameterNodeGuiConnector
class CheckBoxConnector(_Attribute):
    signal, attribute = "stateChanged", "checked"
    widgets, kinds = (qt.QCheckBox,), (bool,)


@parameterNodeGuiConnector
class PushButtonConnector(_Attribute):
    signal, attribute = "toggled", "checked"
    widgets, kinds = (qt.QPushButton,), (bool,)

    def prepare(self) -> None:
        self._widget.checkable = True


class _Number(_Attribute):
    signal, attribute = "valueChanged", "value"
    needs_limits: tuple[type, ...] = ()

    def limits(self) -> tuple[float | None, float | None]:
        within = self.annotation(WithinRange)
        if within is not None:
            return within.minimum, within.maximum
        low, high = self.annotation(Minimum), self.annotation(Maximum)
        return None if low is None else low.minimum, None if high is None else high.maximum

    def prepare(self) -> None:
        low, high = self.limits()
        if type(self._widget) in self.needs_limits and None in (low, high):
            raise RuntimeError(f"Cannot have a connection to {type(self._widget).__name__} without limits")
        step, decimals = self.annotation(SingleStep), self.annotation(Decimals)
        if decimals is not None:
            self._widget.decimals = decimals.value
        if step is not None:
            self._widget.singleStep = step.value
        self.set_limits(low, high)

    def set_limits(self, low, high) -> None:
        self._widget.minimum = -(2**31) if low is None else low
        self._widget.maximum = 2**31 - 1 if high is None else high


@parameterNodeGuiConnector
class IntConnector(_Number):
    widgets, kinds, needs_limits = (qt.QSlider, qt.QSpinBox), (int,), (qt.QSlider,)


@parameterNodeGuiConnector
class FloatConnector(_Number):
    widgets = (qt.QDoubleSpinBox, ctk.ctkSliderWidget, ctk.ctkDoubleSpinBox, qmrml_doubles.qMRMLSliderWidget)
    kinds = (float, int)
    needs_limits = (ctk.ctkSliderWidget, qmrml_doubles.qMRMLSliderWidget)

    def prepare(self) -> None:
        if self._kind is int:
            self._widget.decimals = 0
        super().prepare()

    def set_limits(self, low, high) -> None:
        # PySide6's spin boxes have no infinite limits.
        self._widget.minimum = -1e300 if low is None or math.isinf(low) else float(low)
        self._widget.maximum = 1e300 if high is None or math.isinf(high) else float(high)


class _Items(GuiConnector):
    """A combo box that is filled with the possible values."""

    signal = "currentIndexChanged"

    def values(self) -> list[tuple[str, object]]:
        raise NotImplementedError

    def prepare(self) -> None:
        self._values = self.values()
        self._widget.clear()
        for label, _ in self._values:
            self._widget.addItem(label)

    def read(self):
        return self._values[self._widget.currentIndex][1]

    def write(self, value) -> None:
        indices = [index for index, (_, each) in enumerate(self._values) if each == value]
        if not indices:
            raise ValueError(f"Unable to find value {value} in {self._values}")
        self._widget.currentIndex = indices[0]


@parameterNodeGuiConnector
class ChoiceConnector(_Items):
    @staticmethod
    def canRepresent(widget, datatype) -> bool:
        return type(widget) is qt.QComboBox and split(datatype)[0] in (int, float, str, bool)

    def values(self) -> list[tuple[str, object]]:
        choice = self.annotation(Choice)
        if choice is None:
            raise RuntimeError("A combo box needs the Choice annotation")
        return [(str(each), each) for each in choice.choices]


@parameterNodeGuiConnector
class EnumConnector(_Items):
    @staticmethod
    def canRepresent(widget, datatype) -> bool:
        kind = split(datatype)[0]
        is_enum = isinstance(kind, type) and issubclass(kind, enum.Enum)
        return type(widget) is qt.QComboBox and is_enum

    def values(self) -> list[tuple[str, object]]:
        label = getattr(self._kind, "label", lambda each: each.name)
        return [(label(each), each) for each in self._kind]


@parameterNodeGuiConnector
class LineEditConnector(_Attribute):
    signal, attribute = "textChanged", "text"
    widgets, kinds = (qt.QLineEdit,), (str,)


def _node_types(kind) -> list[type]:
    members = [split(each)[0] for each in typing.get_args(kind)] if is_union(kind) else [kind]
    members = [each for each in members if each is not type(None)]
    nodes = [each for each in members if isinstance(each, type) and issubclass(each, slicer.vtkMRMLNode)]
    return nodes if len(nodes) == len(members) else []


@parameterNodeGuiConnector
class NodeConnector(GuiConnector):
    signal = "currentNodeChanged"

    @staticmethod
    def canRepresent(widget, datatype) -> bool:
        return type(widget) is qmrml_doubles.qMRMLNodeComboBox and bool(_node_types(split(datatype)[0]))

    def prepare(self) -> None:
        self._widget.nodeTypes = [each().GetClassName() for each in _node_types(self._kind)]

    def read(self):
        return self._widget.currentNode()

    def write(self, value) -> None:
        self._widget.setCurrentNode(value)
