"""Options that the commands for archives share, and what is made of them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.output import OutputError
from .settings_file import add_settings_argument, from_file

if TYPE_CHECKING:
    from ..archive.address import Access
    from ..archive.series import SeriesFilter

_FILTERS: dict[str, dict[str, Any]] = {
    "patient_id": {"metavar": "ID", "help": "of this patient"},
    "study": {"metavar": "UID", "help": "of this study, by its Study Instance UID"},
    "series": {"metavar": "UID", "help": "this series, by its Series Instance UID"},
    "date": {"metavar": "DATES", "help": "study date: YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD"},
    "days": {"type": int, "metavar": "N", "help": "studies of the last N days, today included"},
    "description": {"metavar": "TEXT", "help": "series description, with * for any characters and ? for one"},
    "slice_thickness": {"metavar": "MM", "help": "for example 3, or 2.5-3"},
}


def add_archive_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the archive is, and the settings by which it lets this program in."""
    parser.add_argument(
        "archive",
        metavar="ARCHIVE",
        help="https://HOST[:PORT]/PATH for DICOMweb, dimse://TITLE@HOST:PORT for DIMSE, dimses:// for DIMSE with TLS; "
        "a bearer token is taken from the environment variable CAC_ARCHIVE_TOKEN",
    )
    add_settings_argument(parser)


def access(options: argparse.Namespace) -> Access:
    """What is shown to the archive. Raises OutputError."""
    from ..archive.address import Access

    return from_file(options.settings, "access", Access())


def add_filter_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add which series are wanted. names: of the options; none for all."""
    wanted = parser.add_argument_group("series")
    for name in names or _FILTERS:
        wanted.add_argument(f"--{name.replace('_', '-')}", **_FILTERS[name])


def wanted_series(options: argparse.Namespace) -> SeriesFilter:
    """Which series are wanted. Raises OutputError."""
    from ..archive.series import SeriesFilter, parse_dates, parse_thickness
    from ..core.uids import is_uid

    asked = {name: value for name in _FILTERS if (value := getattr(options, name, None)) is not None}
    for name in ("study", "series"):
        if name in asked:
            asked[f"{name}_uid"] = uid = asked.pop(name)
            if not is_uid(uid):
                raise OutputError(f"{uid!r} is no UID. Give --{name} as the archive shows it.")
    if asked.get("days", 1) < 1:
        raise OutputError(f"--days is at least 1, not {asked['days']}.")
    if "date" in asked:
        if "days" in asked:
            raise OutputError("--date and --days exclude each other. Leave one of them out.")
        asked["dates"] = parse_dates(asked.pop("date"))
    if "slice_thickness" in asked:
        asked["thickness_mm"] = parse_thickness(asked.pop("slice_thickness"))
    return replace(from_file(options.settings, "series", SeriesFilter()), **asked)
