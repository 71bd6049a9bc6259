"""Forms of settings and options: parameters of a panel's state, rows of widgets and values, made from dataclasses."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import ctk
import qt
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange

from ..core.options import Row, command_line, panel_rows_of


class Form:
    """Settings of a dataclass, or options of a command, in a panel: a parameter and a row of widgets for each `Row`."""

    def __init__(self, kind: type, prefix: str = "", choices: Mapping[str, type[Enum]] | None = None) -> None:
        """Prepare.

        Args:
            kind: The dataclass.
            prefix: Beginning of the parameters' names.
            choices: Enumerations by field, of fields whose values are chosen from a list. A field without a default
                begins with the first choice.
        """
        self.kind, self.prefix, self._choices = kind, prefix, choices or {}

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return panel_rows_of(self.kind)

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {field.name: field.default for field in dataclasses.fields(self.kind)}

    @cached_property
    def _types(self) -> dict[str, Any]:
        """Types of the parameters by field."""
        hints, types = get_type_hints(self.kind), {}
        for field, row in self._rows.items():
            parts = get_args(hints[field]) or (hints[field],)
            kinds = [kind for kind in parts if kind not in (type(None), Ellipsis)]
            is_whole = kinds[0] is float and self._defaults[field] is None and not row.decimals
            types[field] = self._choices.get(field) or (int if is_whole else kinds[0])
        return types

    @property
    def allFields(self) -> list[str]:
        """All fields with a row."""
        return list(self._rows)

    @property
    def fields(self) -> list[str]:
        """Fields without a slider, those with a check box last."""
        fields = [field for field, row in self._rows.items() if row.widget != "slider"]
        return sorted(fields, key=lambda field: self._types[field] is bool)

    def parameterOf(self, field: str) -> str:
        """Return the name of a field's parameter."""
        first, *words = filter(None, (self.prefix, *field.split("_")))
        return first + "".join(word.capitalize() for word in words)

    def declarations(self) -> dict[str, tuple[Any, Any]]:
        """Return the type hint and the default of each parameter."""
        declared = {}
        for field, kind in self._types.items():
            row, default = self._rows[field], self._defaults[field]
            hint: Any = kind
            if issubclass(kind, (Path, str)) and not issubclass(kind, Enum):
                hint, default = str, ""
            elif issubclass(kind, Enum):
                default = next((choice for choice in kind if choice.value == default), next(iter(kind)))
            elif kind is not bool:
                default = kind(row.limits[0] if row.unset else default)
                hint = Annotated[kind, WithinRange(*map(kind, row.limits))]
            declared[self.parameterOf(field)] = hint, default
        return declared

    def isPath(self, field: str) -> bool:
        """True if the field's widget is a path edit; `connectGui` does not connect it."""
        return self._rows[field].widget == "folder" or (not self.isList(field) and issubclass(self._types[field], Path))

    def isList(self, field: str) -> bool:
        """True if the field's widget is a box that the panel fills; `connectGui` does not connect it."""
        return self._rows[field].widget == "list"

    def addRows(self, ui, layout, first: int, *fields: str) -> None:
        """Add rows to a form.

        Args:
            ui: Object that gets each widget under the name `<parameter>Box`, and its label under `<parameter>BoxLabel`.
            layout: A QFormLayout.
            first: Number of the first new row.
            fields: Fields of the rows; none for `fields`.
        """
        for number, field in enumerate(fields or self.fields, first):
            row, kind, name = self._rows[field], self._types[field], f"{self.parameterOf(field)}Box"
            box = self._widget(field, row, kind)
            box.setToolTip(_(row.tip))
            box.setObjectName(name)
            setattr(ui, name, box)
            if not self.isPath(field) and not self.isList(field):
                box.setProperty("SlicerParameterName", self.parameterOf(field))
            if kind is bool:
                layout.insertRow(number, box)
            else:
                label = qt.QLabel(_(row.label))
                setattr(ui, f"{name}Label", label)
                layout.insertRow(number, label, box)

    def _widget(self, field: str, row: Row, kind: type):
        """Return the widget of a row; `connectGui` sets the limits of numbers and the choices."""
        if kind is bool:
            return qt.QCheckBox(_(row.label))
        if self.isPath(field):
            box, paths = ctk.ctkPathLineEdit(), ctk.ctkPathLineEdit
            box.filters = paths.Dirs if row.widget == "folder" else paths.Files | paths.Readable
            return box
        if self.isList(field) or issubclass(kind, Enum):
            box = qt.QComboBox()
            box.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
            return box
        if kind is str:
            box = qt.QLineEdit()
            box.setPlaceholderText(_(row.unset))
            return box
        is_slider = row.widget == "slider"
        box = ctk.ctkSliderWidget() if is_slider else qt.QDoubleSpinBox() if kind is float else qt.QSpinBox()
        if is_slider or kind is float:
            box.decimals = row.decimals
        box.singleStep = row.step if kind is float else round(row.step)
        box.suffix = _(row.unit)
        if row.unset:
            box.specialValueText = _(row.unset)
        return box

    def settings(self, state) -> dict[str, Any]:
        """Return the settings that the panel's state holds, by field; None where a row shows no value."""
        values = {}
        for field, row in self._rows.items():
            value = getattr(state, self.parameterOf(field))
            value = value.value if isinstance(value, Enum) else value
            value = value.strip() if isinstance(value, str) else value
            values[field] = None if value == "" or (row.unset and value == row.limits[0]) else value
        return values

    def words(self, state, **given_values: Any) -> list[str]:
        """Return the words of the command's line: what the panel's state holds, and the values of other options."""
        return command_line(self.kind, self.settings(state) | given_values)

    def values(self, state) -> Any:
        """Return the dataclass with the settings of the panel's state."""
        return self.kind(**self.settings(state))

    def deviations(self, state) -> dict[str, Any]:
        """Return the settings that differ from the dataclass's defaults, by field."""
        return {field: value for field, value in self.settings(state).items() if value != self._defaults[field]}

    def reset(self, state) -> None:
        """Set all parameters to their defaults."""
        for parameter in map(self.parameterOf, self._rows):
            setattr(state, parameter, state.default(parameter).value)


def declaredBy(*forms: Form, texts: tuple[str, ...] = ()) -> Any:
    """Return a base class with the parameters of forms, and with further ones that are texts, empty by default."""
    declared = {name: pair for form in forms for name, pair in form.declarations().items()}
    declared |= dict.fromkeys(texts, (str, ""))
    base = type("DeclaredParameters", (), {name: default for name, (_hint, default) in declared.items()})
    base.__annotations__ = {name: hint for name, (hint, _default) in declared.items()}
    return base
