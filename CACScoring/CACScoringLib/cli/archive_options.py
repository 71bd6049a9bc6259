"""Options that the archive commands share, and their conversion to settings."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from ..core.options import settings_from
from .options import add_settings_argument, from_file

if TYPE_CHECKING:
    from ..archive.address import Access
    from ..archive.series import SeriesFilter


def add_archive_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive's address and --settings."""
    parser.add_argument(
        "archive",
        metavar="ARCHIVE",
        help="https://HOST[:PORT]/PATH for DICOMweb, dimse://TITLE@HOST:PORT for DIMSE, dimses:// for DIMSE with TLS; "
        "a bearer token is taken from the environment variable CAC_ARCHIVE_TOKEN",
    )
    add_settings_argument(parser)


def access(options: argparse.Namespace) -> Access:
    """Read the credentials for an archive. Raises OutputError."""
    from ..archive.address import Access

    return from_file(options.settings, "access", Access())


def series_filter(options: argparse.Namespace) -> SeriesFilter:
    """Read the filter of series. Raises OutputError."""
    from ..archive.series import SeriesFilter, parse_dates

    criteria = settings_from(options, from_file(options.settings, "series", SeriesFilter()))
    date = getattr(options, "date", None)
    return criteria if date is None else replace(criteria, dates=parse_dates(date))
