"""The option `--settings`: what is seldom changed, as JSON with the fields of the settings' dataclasses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..core.options import changed_settings
from ..core.output import OutputError

if TYPE_CHECKING:
    from ..run import RunSettings
    from ..scoring.lesions import ScoringRules

SECTIONS = ("scoring", "results", "scan", "radiograph", "access", "series", "watch", "study")
"""One file serves all commands that score or know archives: each reads those sections that it knows."""

Settings = TypeVar("Settings")


def add_settings_argument(parser: argparse._ActionsContainer, example: str = '{"results": {"healthy": false}}') -> None:
    """Add the option."""
    parser.add_argument(
        "--settings",
        action="append",
        default=[],
        metavar="FILE|JSON",
        help=f"settings that are seldom changed, as a JSON file or as JSON, such as {example}; docs/user/settings.md "
        "lists them; may be repeated",
    )


def from_file(given: Sequence[str], section: str | None, settings: Settings) -> Settings:
    """Settings, and those within them, with what files change, one after the other.

    given: the option's value. section: of SECTIONS; None where the files hold nothing but these settings. Paths are
    relative to the file. Raises OutputError.
    """
    for each in given:
        content, folder = read_settings(each)
        if section is None:
            settings = changed_settings(settings, content, "", folder)
            continue
        if not isinstance(content, dict) or not content.keys() <= set(SECTIONS):
            raise OutputError(f"--settings needs an object with sections of {', '.join(SECTIONS)}.")
        settings = changed_settings(settings, content.get(section, {}), section, folder)
    return settings


def read_settings(given: str) -> tuple[object, Path]:
    """Content of a JSON file or of JSON itself, and the folder that its paths are relative to. Raises OutputError."""
    is_text = given.lstrip().startswith("{")
    try:
        content = json.loads(given if is_text else Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"--settings {given} cannot be read as JSON ({error}). Correct it.") from error
    return content, Path() if is_text else Path(given).parent


def scoring_settings(options: argparse.Namespace, standard: RunSettings) -> RunSettings:
    """How scans are scored and what is written of them: the sections "scoring" and "results", and options that a
    command has for the same. The rules are called by what was changed. Raises OutputError.
    """
    found = from_file(options.settings, "results", standard)
    score = from_file(options.settings, "scoring", found.score)
    if getattr(options, "allow_unusual", False):
        score = replace(score, allow_contrast=True, allow_reversed=True)
    switched = {name: True for name in ("identify", "scene", "dicom") if getattr(options, name, False)}
    return replace(found, score=replace(score, rules=_named(score.rules)), **switched)


def _named(rules: ScoringRules) -> ScoringRules:
    standard = type(rules)()
    own = [field.name for field in fields(rules) if field.name not in ("name", "calibration_mg_per_mm3_hu")]
    changed = [f"{name} = {getattr(rules, name)}" for name in own if getattr(rules, name) != getattr(standard, name)]
    return replace(rules, name=f"{rules.name}, changed: {', '.join(changed)}") if changed else rules
