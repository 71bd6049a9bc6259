"""Settings of a user, each declared once: as a dataclass field, or as a parameter of a command's function.

The help text is that of the docstring. Command-line options and the forms of panels are built from these fields.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from .decoding import decoded
from .errors import OutputError, WrongValueError
from .files import resource_rows

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


@dataclass(frozen=True)
class Row:
    """Row of a setting in a panel, declared in panel_rows.csv. Its texts are translated when displayed.

    Attributes:
        label: Label of the row or check box.
        unset: Text displayed for the lowest number or an empty line, which leaves the setting unchanged.
        decimals: Decimals of a number.
        unit: Unit of a number.
        step: Step of a number's arrows.
        limits: Lowest and highest number.
        widget: Widget, where the setting's type does not decide it: "slider" of a number, "folder" of a path, or "list"
            of a choice among what the panel finds at that time.
        tip: Tooltip; empty for the setting's description.
    """

    label: str
    unset: str = ""
    decimals: int = 0
    unit: str = ""
    step: float = 1.0
    limits: tuple[float, float] = (0.0, 1e9)
    widget: str = ""
    tip: str = ""


def option(default: object = MISSING, /, text: str | None = None, **option: object) -> Any:
    """Declare a dataclass field that a command-line option of its name and type sets.

    A bool becomes a switch, a tuple an option that may be repeated; without a default the option is required.

    Args:
        default: Default of the field.
        text: Help text; None for that of the attribute in the docstring.
        **option: Further arguments of `add_argument`, such as a metavar. `flag` replaces the option's name.
            `group` is the title of its group in the help; of the options with
            `exclusive` only one may be given if that is "optional", exactly one if "required".
    """
    return dataclasses.field(default=default, metadata={"option": {"help": text, **option}})


def argument(default: object = MISSING, /, text: str | None = None, **extra: Any) -> Any:
    """Declare a dataclass field that a positional argument sets: optional with a default, several for a tuple."""
    return option(default, text, flag="", **extra)


def options_of(function: Callable[..., object]) -> type:
    """Return a dataclass of a function's parameters besides `progress`, for `add_options` and `options_from`.

    A parameter annotated with `Annotated[kind, option(…)]` has that option. The function's docstring describes the
    command, and the options under `Args`.
    """
    hints, fields = get_type_hints(function, include_extras=True), []
    for name, parameter in inspect.signature(function).parameters.items():
        if name != "progress":
            declared = option() if get_origin(hints[name]) is not Annotated else get_args(hints[name])[1]
            default = MISSING if parameter.default is parameter.empty else parameter.default
            fields.append((name, hints[name], dataclasses.field(default=default, metadata=declared.metadata)))
    text = inspect.cleandoc(function.__doc__ or "").partition("\nRaises:")[0].replace("Args:\n", "Attributes:\n")
    return dataclasses.make_dataclass("Options", fields, namespace={"__doc__": text}, kw_only=True, frozen=True)


def add_options(parser: argparse._ActionsContainer, kind: type, *names: str) -> None:
    """Add the options of a dataclass's fields.

    Args:
        parser: Parser.
        kind: Dataclass.
        *names: Fields, whose options are None if they are not given; without any, all fields with their defaults, the
            options of the class before those of its bases.
    """
    hints, fields = get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    bases = {name: n for n, base in reversed([*enumerate(kind.__mro__)]) for name in inspect.get_annotations(base)}
    positional = [name for name, field in fields.items() if field.metadata.get("option", {}).get("flag") == ""]
    ordered = [*positional, *sorted(fields.keys() - positional, key=lambda name: (bases[name], [*fields].index(name)))]
    texts, groups = attribute_texts(kind), dict[str, argparse._ActionsContainer]()
    for name in names or ordered:
        option, default = {"help": None, **fields[name].metadata.get("option", {})}, fields[name].default
        flag = option.pop("flag", _flag(name))
        option = _of_type(hints[name], bool(flag)) | option | {"help": option["help"] or as_help(texts.get(name, ""))}
        if flag:
            option = {"dest": name, "required": not names and default is MISSING, **option}
        if not names and default is not MISSING:
            option["default"] = list(default) if isinstance(default, tuple) else default
        group = parser
        if title := option.pop("group", None):
            group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
        if choice := option.pop("exclusive", None):
            exclusive = group.add_mutually_exclusive_group
            group = groups.get(choice) or groups.setdefault(choice, exclusive(required=choice == "required"))
        group.add_argument(*filter(None, (_SHORT_FLAGS.get(flag), flag or name)), **option)


_SHORT_FLAGS = {"--output": "-o"}
"""One-letter names of options, the same in every command."""


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def command_line(kind: type, values: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line that give the fields of a dataclass these values, positional arguments first.

    Args:
        kind: Dataclass as for `add_options`.
        values: Values by field; of a tuple each item is given. None, False and empty texts are left out.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    positional, options = list[str](), list[str]()
    for name, value in values.items():
        flag = fields[name].metadata.get("option", {}).get("flag", _flag(name))
        for item in value if isinstance(value, tuple) else (value,):
            if item is True:
                options.append(flag)
            elif item is not None and item is not False and item != "":
                (options if flag else positional).extend(filter(None, (flag, str(item))))
    return [*positional, *options]


def _of_type(kind: Any, is_option: bool) -> dict[str, Any]:
    """Return the arguments of `add_argument` that follow from a field's type."""
    item_types = [argument for argument in get_args(kind) if argument not in (type(None), Ellipsis)]
    value_type = item_types[0] if item_types else kind
    if value_type is bool:
        return {"action": "store_true"}
    arguments: dict[str, Any] = {} if value_type is str else {"type": value_type}
    if get_origin(kind) is tuple:
        return arguments | ({"action": "append"} if is_option else {"nargs": "+"})
    return arguments | ({"nargs": "?"} if item_types and not is_option else {})


class GivenOnce(argparse.Action):
    """Action of an option whose repetition would be taken for several values, where argparse keeps the last one."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if getattr(namespace, self.dest, self.default) is not self.default:
            raise argparse.ArgumentError(self, "may be given only once")
        setattr(namespace, self.dest, values)


def description_of(kind: type) -> str:
    """Return the text of a dataclass's docstring before its attributes."""
    return " ".join((kind.__doc__ or "").partition("Attributes:")[0].split())


def attribute_texts(kind: type) -> dict[str, str]:
    """Return descriptions by attribute, from the docstrings of a class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        name = ""
        for line in inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2].splitlines():
            if match := re.match(r" {4}(\w+): (.+)", line):
                name, texts[match[1]] = match.groups()
            elif name and line.strip():
                texts[name] += f" {line.strip()}"
    return texts


def as_help(text: str) -> str:
    """Return a description as help text, without capital and full stop."""
    return (text if text[1:2].isupper() else text[:1].lower() + text[1:]).removesuffix(".")


def options_from(arguments: argparse.Namespace, kind: type) -> Any:
    """Return a dataclass of parsed arguments; None leaves a default."""
    values = {field.name: getattr(arguments, field.name, None) for field in dataclasses.fields(kind)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return kind(**{name: value for name, value in values.items() if value is not None})


def settings_from(arguments: object, settings: Settings, names: Iterable[str] | None = None) -> Settings:
    """Return settings, nested ones included, changed by command-line arguments; None leaves a setting unchanged.

    Args:
        arguments: Object with the values by field, such as parsed arguments.
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


def panel_rows_of(kind: type) -> dict[str, Row]:
    """Return the panel rows of a dataclass's settings, by field, as panel_rows.csv declares them."""
    names, tips = {base.__name__ for base in kind.__mro__}, attribute_texts(kind)
    declared = {
        row["field"]: row for row in resource_rows("panel_rows.csv", kind.__module__) if row["settings"] in names
    }
    return {
        field.name: Row(
            *(row["label"], row["unset"], int(row["decimals"] or 0), row["unit"], float(row["step"] or 1)),
            *((float(row["lowest"] or 0), float(row["highest"] or 1e9)), row["widget"]),
            row["tip"] or tips.get(field.name, ""),
        )
        for field in dataclasses.fields(kind)
        if (row := declared.get(field.name))
    }


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
