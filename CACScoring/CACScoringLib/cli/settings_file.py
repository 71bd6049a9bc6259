"""The option `--settings`: what is seldom changed, as JSON with the fields of the settings' dataclasses."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..core.options import changed_settings
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
    content, folder = read_settings(given)
    if not isinstance(content, dict) or not content.keys() <= set(SECTIONS):
        raise OutputError(f"--settings needs an object with sections of {', '.join(SECTIONS)}.")
    return changed_settings(settings, content.get(section, {}), section, folder)


def read_settings(given: str) -> tuple[object, Path]:
    """Content of a JSON file or of JSON itself, and the folder that its paths are relative to. Raises OutputError."""
    is_text = given.lstrip().startswith("{")
    try:
        content = json.loads(given if is_text else Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"--settings {given} cannot be read as JSON ({error}). Correct it.") from error
    return content, Path() if is_text else Path(given).parent


def scoring_settings(given: str | None, settings: RunSettings) -> RunSettings:
    """How scans are scored: the section "scoring". Its rules are called by what was changed. Raises OutputError."""
    found = from_file(given, "scoring", settings)
    return replace(found, score=replace(found.score, rules=_named(found.score.rules)))


def _named(rules: ScoringRules) -> ScoringRules:
    standard = type(rules)()
    own = [field.name for field in fields(rules) if field.name not in ("name", "calibration_mg_per_mm3_hu")]
    changed = [f"{name} = {getattr(rules, name)}" for name in own if getattr(rules, name) != getattr(standard, name)]
    return replace(rules, name=f"{rules.name}, changed: {', '.join(changed)}") if changed else rules
