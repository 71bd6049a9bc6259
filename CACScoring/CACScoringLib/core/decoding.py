"""Dataclasses as JSON content, and back: each value is checked against the type of its field before it is used."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import WrongValueError

T = TypeVar("T")

_LARGEST_INTEGER = 2**32
"""Bound of whole numbers: sizes, counts, numbers of lesions and seeds."""


WHEN_SET = {"when_set": True}
"""Metadata of a field that `content_of` leaves out while it is empty."""

IN_MEMORY = {"in_memory": True}
"""Metadata of a field that is neither written nor read."""


def content_of(value: Any) -> Any:
    """Return a dataclass, or a value of one, as JSON content: objects, lists, texts and numbers.

    A dataclass whose keys are not its fields has a method `as_written`, which takes and returns content, and a static
    one `as_read` back. Labels with a key are written as it.
    """
    if is_dataclass(value):
        parts = ((field, getattr(value, field.name)) for field in fields(value) if "in_memory" not in field.metadata)
        content = {
            f.name: content_of(part) for f, part in parts if "when_set" not in f.metadata or part not in (None, "", {})
        }
        return value.as_written(content) if hasattr(value, "as_written") else content  # type: ignore[union-attr]
    if isinstance(value, dict):
        return {content_of(key): content_of(part) for key, part in value.items()}
    if isinstance(value, Enum):
        return getattr(value, "key", value.value)
    return [content_of(part) for part in value] if isinstance(value, list | tuple) else value


def restore(content: object, kind: type[T]) -> T:
    """Return JSON content, as of `dataclasses.asdict`, as a dataclass. Raises WrongValueError."""
    return decoded(content, kind, "")


def decoded(value: Any, kind: Any, place: str, folder: Path = Path()) -> Any:
    """Return a value of JSON as its type.

    Args:
        value: Decoded JSON.
        kind: A dataclass, tuple, list, dict, number, text, path or their union with None. Keys that are no fields of a
            dataclass are ignored. Of a union the first type that fits counts.
        place: Path of the value in the content, for errors.
        folder: Folder that paths are relative to.

    Raises:
        WrongValueError: The value is of another type, or lacks one without a default.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _first_that_fits(value, parts, place, folder)
    if is_dataclass(kind):
        return _dataclass(value, kind, place, folder)
    if isinstance(origin, type) and issubclass(origin, dict) and isinstance(value, dict):
        items = {_key(k, parts[0], place): decoded(item, parts[1], f"{place}.{k}", folder) for k, item in value.items()}
        return origin(items)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _member(value, kind, place)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        kinds = [parts[0]] * len(value) if origin is list or parts[-1] is Ellipsis else parts
        if len(kinds) == len(value):
            pairs = enumerate(zip(value, kinds, strict=True))
            return origin(decoded(item, part, f"{place}[{n}]", folder) for n, (item, part) in pairs)
    if kind is Path and isinstance(value, str):
        return folder / value
    if kind in (object, Any):
        return list(value) if isinstance(value, tuple) else value  # as JSON has no tuples
    if origin is None and _is_of(value, kind):
        return float(value) if kind is float else value
    raise WrongValueError(place, value)


def _first_that_fits(value: Any, kinds: tuple[Any, ...], place: str, folder: Path) -> Any:
    if value is None and NoneType in kinds:
        return None
    *first_kinds, last_kind = (kind for kind in kinds if kind is not NoneType)
    for kind in first_kinds:
        with suppress(WrongValueError):
            return decoded(value, kind, place, folder)
    return decoded(value, last_kind, place, folder)


def _is_of(value: object, kind: type) -> bool:
    if kind is float and isinstance(value, float):
        return math.isfinite(value)
    if kind in (int, float):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_INTEGER
    return isinstance(value, kind)


def _member(value: object, kind: type[Enum], place: str) -> Enum:
    """Return the label with a key."""
    for member in kind:
        if member is value or getattr(member, "key", None) == value:
            return member
    raise WrongValueError(place, value)


def _key(key: str, kind: type, place: str) -> str | int | Enum:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _member(key, kind, place)
    if kind is not int:
        return key
    if not key.isdecimal() or len(key) > 9:
        raise WrongValueError(place, key)
    return int(key)


def _dataclass(value: Any, kind: Any, place: str, folder: Path) -> Any:
    if isinstance(value, kind):  # which an `as_read` has made
        return value
    if not isinstance(value, dict):
        raise WrongValueError(place, value)
    if hasattr(kind, "as_read"):
        try:
            value = kind.as_read(value)
        except WrongValueError as wrong:
            raise WrongValueError(f"{place}.{wrong}", wrong.value) from None
    arguments = {}
    for name, (part, is_required) in _fields(kind).items():
        if name in value:
            arguments[name] = decoded(value[name], part, f"{place}.{name}", folder)
        elif is_required:
            raise WrongValueError(f"{place}.{name}")
    return kind(**arguments)


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return the type of each field of a dataclass, and True if it may not be missing."""
    types = get_type_hints(kind)
    return {
        field.name: (types[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
        if "in_memory" not in field.metadata
    }
