"""The command `pull`: series of a DICOM archive into a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..archive.series import SeriesFilter, SeriesSummary
from ..core.files import OutputError
from ..core.options import add_options
from ..core.progress import Progress
from ..io.acquisition import clock
from .archive_options import access, add_archive_arguments, series_filter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Fetch series from a DICOM archive. Each becomes a folder, complete or absent, named by a digest of its UID; "
        "cac cohort scores them. Rerun the command to fetch what is missing."
    )
    add_archive_arguments(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=Path, metavar="DIR", help="where to write a folder per series")
    target.add_argument("--list", action="store_true", help="list matching series without fetching them")
    series = parser.add_argument_group("series")
    add_options(series, SeriesFilter, "patient_id", "study_uid", "series_uid")
    series.add_argument(
        "--date",
        metavar="DATES",
        help="study date: YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD",
    )
    parser.set_defaults(
        run=run,
        extras=lambda options: ("archive",),
        interrupted="Interrupted. Complete series are kept; rerun the command to resume.",
    )


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Fetch what matches. Raises ArchiveError, OutputError."""
    from ..archive.connection import connect
    from ..archive.transfer import matching_series, pull_all

    criteria = series_filter(options)
    if not criteria.is_narrow:
        raise OutputError(
            "This would be everything in the archive. Choose by patient, study, series, date or the like."
        )
    archive = connect(options.archive, access(options))
    matches = matching_series(archive, criteria)
    if options.list:
        for series in matches:
            print(_line(series))
        return
    fetched, present = pull_all(archive, matches, options.output, progress)
    print(f"{options.output}: {fetched} series fetched, {present} there before")
    progress.done(options.output)


def _line(series: SeriesSummary) -> str:
    """Describe a series in one line that tells it from others of its study, also of the same number."""
    began = clock(series.time) or "--:--:--"
    number = f"no. {series.number or '?'}"
    return (
        f"{series.study_date}  {began}  {number:8s}{series.images:5d} images  {series.series_uid}  {series.description}"
    )
