"""Settings of a user, each declared once: as a dataclass field with its help text.

Command-line options and the forms of panels are built from these fields.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_type_hints

from .decoding import WrongValueError, decoded
from .files import OutputError


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Settings = TypeVar("Settings", bound=_Dataclass)


@dataclass(frozen=True)
class Row:
    """Row of a setting in a panel. Its texts are translated when displayed.

    Attributes:
        label: Label of the row or check box.
        tip: Tool tip.
        unset: Text displayed for 0, which leaves the setting unchanged.
        decimals: Decimals of a number.
        unit: Unit of a number.
        step: Step of a number's arrows.
        limits: Lowest and highest number.
        is_choice: True if the values are chosen from a list.
    """

    label: str
    tip: str
    unset: str = ""
    decimals: int = 0
    unit: str = ""
    step: float = 1.0
    limits: tuple[float, float] = (0.0, 1e9)
    is_choice: bool = False


def option(default: object = MISSING, /, text: str | None = None, row: Row | None = None, **option: object) -> Any:
    """Declare a dataclass field that a command-line option of its name and type sets; a bool becomes a switch.

    Args:
        default: Default of the field.
        text: Help text.
        row: Row in a panel.
        **option: Further arguments of `add_argument`, such as a metavar; `flag` replaces the option's name.
    """
    return dataclasses.field(default=default, metadata={"option": {"help": text, **option}, "row": row})


def add_options(parser: argparse._ActionsContainer, kind: type, *names: str, **overrides: Mapping[str, object]) -> None:
    """Add the options of a dataclass's fields, by name. overrides: Arguments of `add_argument`, by field."""
    hints, fields = get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    for name in names:
        option = {**fields[name].metadata["option"], **overrides.get(name, {})}
        flag = option.pop("flag", f"--{name.replace('_', '-')}")
        item_types = [argument for argument in get_args(hints[name]) if argument not in (type(None), Ellipsis)]
        value_type = item_types[0] if item_types else hints[name]
        if "action" not in option and value_type is bool:
            option["action"] = "store_true"
        elif value_type not in (bool, str):
            option["type"] = value_type
        parser.add_argument(flag, dest=name, **option)


def settings_from(arguments: argparse.Namespace, settings: Settings, names: Iterable[str] | None = None) -> Settings:
    """Return settings, nested ones included, changed by command-line arguments; None leaves a setting unchanged.

    Args:
        arguments: Parsed arguments.
        settings: Settings to change; a copy is returned.
        names: Names of the fields; None for all that have an option.
    """
    changes = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changes[field.name] = settings_from(arguments, value)
        elif "option" in field.metadata if names is None else field.name in names:
            argument = getattr(arguments, field.name, None)
            changes[field.name] = value if argument is None else argument
    return dataclasses.replace(settings, **changes)


def rows_of(kind: type) -> dict[str, Row]:
    """Return the panel rows of a dataclass's settings, by field."""
    return {field.name: field.metadata["row"] for field in dataclasses.fields(kind) if field.metadata.get("row")}


def changed_settings(settings: Settings, content: object, where: str, folder: Path = Path()) -> Settings:
    """Return settings, nested ones included, changed by an object read from JSON.

    Args:
        settings: Settings to change; a copy is returned.
        content: Decoded JSON object.
        where: Its path in the file for errors; empty for the top level.
        folder: Folder that paths are relative to.

    Raises:
        OutputError: A field is unknown, or a value of another type than the field's.
    """
    fields = {field.name: field for field in dataclasses.fields(settings)}
    if not isinstance(content, dict) or not content.keys() <= fields.keys():
        place = where or "The content"
        raise OutputError(
            f"{place} of --settings needs to be an object with fields of these names: {', '.join(fields)}."
        )
    kinds = get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for name, value in content.items():
        place = f"{where}.{name}".lstrip(".")
        current: Any = getattr(settings, name)
        if hasattr(current, "__dataclass_fields__"):
            changes[name] = changed_settings(current, value, place, folder)
            continue
        try:
            changes[name] = decoded(value, kinds[name], place, folder)
        except WrongValueError as wrong:
            message = f"{wrong} in --settings is {wrong.value!r}, which has the wrong type. Correct it."
            raise OutputError(message) from None
        choices = fields[name].metadata.get("option", {}).get("choices")
        if choices and changes[name] not in choices:
            raise OutputError(f"{place} in --settings is {value!r}; choose one of {', '.join(map(str, choices))}.")
    return dataclasses.replace(settings, **changes)
