"""Reading of `scores.json`: each value is checked against the type of its field before it is used."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..core.ct import ScanWarning, UnreadableError
from ..core.files import LAST_FILE, SCHEMA, parse_json
from ..core.warning_codes import SEVERE
from .score_record import ScoreRecord

T = TypeVar("T")

_LARGEST_INTEGER = 2**31
"""Bound of whole numbers: sizes, counts and numbers of lesions."""


def read_result(folder: Path | str) -> ScoreRecord:
    """Read the `scores.json` of a result.

    Args:
        folder: Folder that `cac score` wrote, or the file.

    Raises:
        UnreadableError: It is missing, damaged, or of another schema.

    Examples:
        >>> cac.score("ct.nrrd", threshold_only=True).write("scored")
        >>> record = cac.read_result("scored")
        >>> record.methods["threshold"].status, record.input.size
        ('candidates', (240, 240, 54))
    """
    path = Path(folder)
    file = path / LAST_FILE if path.is_dir() else path
    try:
        text = file.read_bytes()
    except OSError as error:
        message = f"{path} holds no readable result ({error}). Give a results folder of cac score."
        raise UnreadableError(message) from error
    return record_from_text(text, str(file))


def is_result(path: Path) -> bool:
    """True if a path is a result rather than a CT."""
    return path.name == LAST_FILE or (path / LAST_FILE).is_file()


def record_from_text(text: str | bytes, name: str) -> ScoreRecord:
    """Read the text of a `scores.json`. name: What messages call it. Raises as `read_result`."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UnreadableError(f"{name} holds no readable result ({error}). Score the scan again.") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise UnreadableError(f"{name} is of schema {schema!r}, not {SCHEMA}. Score the scan again with this version.")
    return record_from(content, name)


def record_from(content: object, name: str) -> ScoreRecord:
    """Read the content of a `scores.json`. name: What messages call it. Raises UnreadableError if it is damaged."""
    try:
        return restore(content, ScoreRecord)
    except WrongValueError as wrong:
        place = str(wrong).lstrip(".") or "content"
        raise UnreadableError(f"{name} is damaged: it has no valid {place}. Score the scan again.") from None


class WrongValueError(Exception):
    """The place of a value that is missing or of another type than its field."""


def restore(content: object, kind: type[T]) -> T:
    """Return JSON content, as of `dataclasses.asdict`, as a dataclass. Raises WrongValueError."""
    return _typed(content, kind, "")


def _typed(value: Any, kind: Any, place: str) -> Any:
    """Return a value of JSON as its type: a dataclass, tuple, list, dict, number, text or their union with None."""
    origin, parts = get_origin(kind), get_args(kind)
    if NoneType in parts:
        return None if value is None else _typed(value, parts[0], place)
    if is_dataclass(kind):
        return _dataclass(value, kind, place)
    if origin is dict and isinstance(value, dict):
        return {key: _typed(item, parts[1], f"{place}.{key}") for key, item in value.items()}
    if origin in (list, tuple) and isinstance(value, list | tuple):
        kinds = [parts[0]] * len(value) if origin is list or parts[-1] is Ellipsis else parts
        if len(kinds) == len(value):
            return origin(
                _typed(item, part, f"{place}[{n}]") for n, (item, part) in enumerate(zip(value, kinds, strict=True))
            )
    if kind in (object, Any) or (origin is None and _is_of(value, kind)):
        return value
    raise WrongValueError(place)


def _is_of(value: object, kind: type) -> bool:
    if kind is float and isinstance(value, float):
        return math.isfinite(value)
    if kind in (int, float):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_INTEGER
    return isinstance(value, kind)


def _dataclass(value: object, kind: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise WrongValueError(place)
    if kind is ScanWarning:  # another version may have made it, with a code unknown to this one
        value = {"severe": str(value.get("code")) in SEVERE} | {
            key: item for key, item in value.items() if item is not None
        }
    arguments = {}
    for name, (part, is_required) in _fields(kind).items():
        if name in value:
            arguments[name] = _typed(value[name], part, f"{place}.{name}")
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
    }
