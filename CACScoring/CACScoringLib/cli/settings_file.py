"""The option `--settings`: what is seldom changed, as JSON with the fields of the settings' dataclasses."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..core.output import OutputError

if TYPE_CHECKING:
    from ..run import RunSettings
    from ..scoring.lesions import ScoringRules

SECTIONS = ("scoring", "access", "series", "watch", "study")
"""One file serves all commands: each reads those that it knows."""

Settings = TypeVar("Settings")


def add_settings_argument(parser: argparse._ActionsContainer) -> None:
    """Add the option."""
    parser.add_argument(
        "--settings",
        metavar="FILE|JSON",
        help='settings that are seldom changed, as a JSON file or as JSON, such as {"scoring": {"healthy": false}}; '
        "docs/user/settings.md lists them",
    )


def from_file(given: str | None, section: str, settings: Settings) -> Settings:
    """Settings, and those within them, with what a section of the file changes.

    given: the option's value; None changes nothing. Paths are relative to the file. Raises OutputError.
    """
    if given is None:
        return settings
    is_text = given.lstrip().startswith("{")
    try:
        content = json.loads(given if is_text else Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"--settings {given} cannot be read as JSON ({error}). Correct it.") from error
    if not isinstance(content, dict) or not content.keys() <= set(SECTIONS):
        raise OutputError(f"--settings needs an object with sections of {', '.join(SECTIONS)}.")
    return _changed(settings, content.get(section, {}), section, Path() if is_text else Path(given).parent)


def _changed(settings: Any, content: object, where: str, folder: Path) -> Any:
    known = [field.name for field in fields(settings)]
    if not isinstance(content, dict) or not content.keys() <= set(known):
        raise OutputError(f"{where} in --settings needs an object with fields of these names: {', '.join(known)}.")
    kinds, changes = get_type_hints(type(settings)), {}
    for name, value in content.items():
        before, place = getattr(settings, name), f"{where}.{name}"
        inner = is_dataclass(before)
        changes[name] = _changed(before, value, place, folder) if inner else _value(kinds[name], value, place, folder)
    return replace(settings, **changes)


def _value(kind: Any, value: object, where: str, folder: Path) -> object:
    for one in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if one is Path and isinstance(value, str):
            return folder / value
        if one is float and type(value) is int:
            return float(value)
        if get_origin(one) is tuple and isinstance(value, list):
            kinds = get_args(one)
            kinds = (kinds[0],) * len(value) if kinds[-1] is Ellipsis else kinds
            if len(value) == len(kinds):
                return tuple(_value(each, part, where, folder) for each, part in zip(kinds, value, strict=True))
        if type(value) is one:
            return value
    raise OutputError(f"{where} in --settings is {value!r}, which is of another type than it has to be. Correct it.")


def scoring_settings(given: str | None, settings: RunSettings) -> RunSettings:
    """How scans are scored: the section "scoring". Its rules are called by what was changed. Raises OutputError."""
    found = from_file(given, "scoring", settings)
    return replace(found, score=replace(found.score, rules=_named(found.score.rules)))


def _named(rules: ScoringRules) -> ScoringRules:
    standard = type(rules)()
    own = [field.name for field in fields(rules) if field.name not in ("name", "calibration_mg_per_mm3_hu")]
    changed = [f"{name} = {getattr(rules, name)}" for name in own if getattr(rules, name) != getattr(standard, name)]
    return replace(rules, name=f"{rules.name}, changed: {', '.join(changed)}") if changed else rules
