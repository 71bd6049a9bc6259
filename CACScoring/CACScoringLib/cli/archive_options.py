"""Options that the commands for archives share, and what is made of them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.files import OutputError
from .options import add_settings_argument, from_file

if TYPE_CHECKING:
    from ..archive.address import Access
    from ..archive.series import SeriesFilter

_FILTERS: dict[str, dict[str, Any]] = {
    "patient_id": {"metavar": "ID", "help": "of this patient"},
    "study": {"metavar": "UID", "help": "of this study, by its Study Instance UID"},
    "series": {"metavar": "UID", "help": "this series, by its Series Instance UID"},
    "date": {"metavar": "DATES", "help": "study date: YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD"},
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


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which series are wanted."""
    wanted = parser.add_argument_group("series")
    for name, option in _FILTERS.items():
        wanted.add_argument(f"--{name.replace('_', '-')}", **option)


def wanted_series(options: argparse.Namespace) -> SeriesFilter:
    """Which series are wanted. Raises OutputError."""
    from ..archive.series import SeriesFilter, parse_dates
    from ..core.uids import is_uid

    asked = {name: value for name in ("patient_id", "days") if (value := getattr(options, name, None)) is not None}
    for name in ("study", "series"):
        if (uid := getattr(options, name, None)) is not None:
            if not is_uid(uid):
                raise OutputError(f"{uid!r} is no UID. Give --{name} as the archive shows it.")
            asked[f"{name}_uid"] = uid
    if getattr(options, "date", None) is not None:
        asked["dates"] = parse_dates(options.date)
    wanted = replace(from_file(options.settings, "series", SeriesFilter()), **asked)
    if wanted.days is not None and wanted.days < 1:
        raise OutputError(f"The number of days is at least 1, not {wanted.days}.")
    return wanted
