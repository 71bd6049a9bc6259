"""Options that the commands for archives share, and what is made of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.output import OutputError

if TYPE_CHECKING:
    from ..archive.address import Access
    from ..archive.series import SeriesFilter


def add_archive_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the archive is and how it lets this program in."""
    parser.add_argument(
        "archive",
        metavar="ARCHIVE",
        help="https://HOST[:PORT]/PATH for DICOMweb, dimse://TITLE@HOST:PORT for DIMSE, dimses:// for DIMSE with TLS; "
        "a bearer token is taken from the environment variable CAC_ARCHIVE_TOKEN",
    )
    add_access_arguments(parser)


def add_access_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how an archive lets this program in."""
    access = parser.add_argument_group("access")
    add = access.add_argument
    add("--token-file", type=Path, metavar="FILE", help="read the bearer token from a file, at every request anew")
    add(
        "--authorities",
        type=Path,
        metavar="PEM",
        help="certificates by which the archive's own is verified (default: the system's)",
    )
    add("--client-certificate", type=Path, metavar="PEM", help="certificate to show to the archive")
    add("--client-key", type=Path, metavar="PEM", help="its key, where that is in another file")
    add("--ae-title", default="CAC", metavar="TITLE", help="AE title of this program, for DIMSE")


def access(options: argparse.Namespace) -> Access:
    """What is shown to the archive."""
    from ..archive.address import Access

    return Access(
        options.token_file, options.authorities, options.client_certificate, options.client_key, options.ae_title
    )


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which series are wanted."""
    wanted = parser.add_argument_group("series")
    add = wanted.add_argument
    add("--patient-id", metavar="ID", help="of this patient")
    add("--study", metavar="UID", help="of this study, by its Study Instance UID")
    add("--series", metavar="UID", help="this series, by its Series Instance UID")
    dates = wanted.add_mutually_exclusive_group()
    dates.add_argument(
        "--date", metavar="DATES", help="study date: YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD"
    )
    dates.add_argument("--days", type=int, metavar="N", help="studies of the last N days, today included")
    add("--description", metavar="TEXT", help="series description, with * for any characters and ? for one")
    add("--slice-thickness", metavar="MM", help="for example 3, or 2.5-3")
    add("--modality", default="CT", help="modality of the series")


def wanted_series(options: argparse.Namespace) -> SeriesFilter:
    """Which series are wanted. Raises OutputError."""
    from ..archive.series import SeriesFilter, parse_dates, parse_thickness
    from ..core.uids import is_uid

    for name in ("study", "series"):
        uid = getattr(options, name)
        if uid is not None and not is_uid(uid):
            raise OutputError(f"{uid!r} is no UID. Give --{name} as the archive shows it.")
    if options.days is not None and options.days < 1:
        raise OutputError(f"--days is at least 1, not {options.days}.")
    return SeriesFilter(
        patient_id=options.patient_id,
        study_uid=options.study,
        series_uid=options.series,
        dates=None if options.date is None else parse_dates(options.date),
        days=options.days,
        modality=options.modality,
        description=options.description,
        thickness_mm=None if options.slice_thickness is None else parse_thickness(options.slice_thickness),
    )
