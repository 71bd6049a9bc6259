"""Settings that a user is asked for, each declared once: as a field of the dataclass that holds it, with its help.

The options of a command are made from these fields, and so can be the form of a panel.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from .files import OutputError


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Settings = TypeVar("Settings", bound=_Dataclass)


@dataclass(frozen=True)
class Row:
    """Label, help and limits of a setting in a panel. Its texts are translated where they are shown.

    label: of the row, or of the check box. unset: what is shown for 0, which leaves the setting as it is. unit, step,
    limits: of a number. is_choice: the values are chosen from a list.
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
    """A field that an option of its name sets. Its type is the option's; a bool is switched on.

    Args:
        default: The field's default.
        text: Its help.
        row: How a panel asks for it.
        **option: What else `argparse` is to know, such as a metavar; flag: another name.
    """
    return dataclasses.field(default=default, metadata={"option": {"help": text, **option}, "row": row})


def add_options(parser: argparse._ActionsContainer, kind: type, *names: str, **changed: Mapping[str, object]) -> None:
    """Add the options of a dataclass's fields, by name. changed: what differs in this command, by field."""
    hints, fields = get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    for name in names:
        option = {**fields[name].metadata["option"], **changed.get(name, {})}
        flag = option.pop("flag", f"--{name.replace('_', '-')}")
        inner = [each for each in get_args(hints[name]) if each not in (type(None), Ellipsis)]
        value = inner[0] if inner else hints[name]
        if "action" not in option and value is bool:
            option["action"] = "store_true"
        elif value not in (bool, str):
            option["type"] = value
        parser.add_argument(flag, dest=name, **option)


def settings_from(arguments: argparse.Namespace, settings: Settings, names: Iterable[str] | None = None) -> Settings:
    """Settings, and those within them, with what was asked for on the command line; None asks for nothing.

    names: of the fields; None for all that have an option.
    """
    changes = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changes[field.name] = settings_from(arguments, value)
        elif "option" in field.metadata if names is None else field.name in names:
            asked = getattr(arguments, field.name, None)
            changes[field.name] = value if asked is None else asked
    return dataclasses.replace(settings, **changes)


def rows_of(kind: type) -> dict[str, Row]:
    """Rows of a dataclass's settings, by field."""
    return {field.name: field.metadata["row"] for field in dataclasses.fields(kind) if field.metadata.get("row")}


def changed_settings(settings: Settings, content: object, where: str, folder: Path = Path()) -> Settings:
    """Settings, and those within them, with the fields of an object read from JSON.

    Args:
        settings: What is changed; it stays as it is.
        content: The object.
        where: Its place, for errors; empty for the whole.
        folder: That paths are relative to.

    Raises:
        OutputError: A field is unknown, or a value of another type than the field's.
    """
    known = {field.name: field for field in dataclasses.fields(settings)}
    if not isinstance(content, dict) or not content.keys() <= known.keys():
        place = where or "The content"
        raise OutputError(
            f"{place} of --settings needs to be an object with fields of these names: {', '.join(known)}."
        )
    kinds = get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for name, value in content.items():
        before: Any = getattr(settings, name)
        place = f"{where}.{name}".lstrip(".")
        if hasattr(before, "__dataclass_fields__"):
            changes[name] = changed_settings(before, value, place, folder)
            continue
        changes[name] = _value(kinds[name], value, place, folder)
        choices = known[name].metadata.get("option", {}).get("choices")
        if choices and changes[name] not in choices:
            raise OutputError(f"{place} in --settings is {value!r}; choose one of {', '.join(map(str, choices))}.")
    return dataclasses.replace(settings, **changes)


def _value(kind: Any, value: Any, where: str, folder: Path) -> object:
    for one in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if one is Path and isinstance(value, str):
            return folder / value
        if one is float and type(value) is int:
            return float(value)
        if get_origin(one) is tuple and isinstance(value, list):
            parts = get_args(one)
            parts = parts[:1] * len(value) if parts[1:] == (...,) else parts
            if len(value) == len(parts):
                return tuple(_value(each, part, where, folder) for each, part in zip(parts, value, strict=True))
        if get_origin(one) is dict and isinstance(value, dict) and all(k.isdecimal() and len(k) < 10 for k in value):
            return {int(key): _value(get_args(one)[1], part, f"{where}.{key}", folder) for key, part in value.items()}
        if type(value) is one and not (one is float and not math.isfinite(value)):
            return value
    raise OutputError(f"{where} in --settings is {value!r}, which has the wrong type. Correct it.")
