"""The command `pull`: series of a DICOM archive into a folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..archive.series import SeriesSummary, parse_dates
from ..core.errors import OutputError
from ..core.options import option
from ..core.progress import Progress
from ..io.acquisition import clock
from .options import ArchiveOptions, Command


@dataclass(frozen=True, kw_only=True)
class PullOptions(ArchiveOptions):
    """Fetch series from a DICOM archive.

    Each becomes a folder, complete or absent, named by a digest of its UID; cac cohort scores them. Rerun the command
    to fetch what is missing.

    Attributes:
        output: Where to write a folder per series.
        list: List matching series without fetching them.
        patient_id: Patient ID.
        date: Study date: YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD.
    """

    output: Path | None = option(None, exclusive="required", metavar="DIR")
    list: bool = option(False, exclusive="required")
    patient_id: str | None = option(None, group="series", metavar="ID")
    study_uid: str | None = option(None, "Study Instance UID", flag="--study", group="series", metavar="UID")
    series_uid: str | None = option(None, "Series Instance UID", flag="--series", group="series", metavar="UID")
    date: str | None = option(None, group="series", metavar="DATES")


def run(options: PullOptions, progress: Progress) -> None:
    """Fetch what matches. Raises ArchiveError, OutputError."""
    from ..archive.transfer import connect, matching_series, pull_all

    criteria = options.criteria("patient_id", "study_uid", "series_uid")
    if options.date is not None:
        criteria = replace(criteria, dates=parse_dates(options.date))
    if not criteria.is_narrow:
        raise OutputError(
            "This would be everything in the archive. Choose by patient, study, series, date or the like."
        )
    archive = connect(options.archive, options.access())
    matches = matching_series(archive, criteria)
    if options.output is None:
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


INTERRUPTED = "Interrupted. Complete series are kept; rerun the command to resume."
add_arguments = Command(PullOptions, run, ("archive",), INTERRUPTED).declare
