"""Many series out of an archive, many files into it. What it did not answer is asked again, after growing waits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import TypeVar

from ..core.files import OutputError, remove_partial
from ..core.progress import Progress
from ..core.uids import digest
from .address import ArchiveError, ArchiveUnreachableError, NoSuchSeriesError
from .files import DicomFile, missing_in, pull
from .series import Archive, FoundSeries, SeriesFilter

AT_ONCE = 100
"""Files sent between two reports of progress."""

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 300.0
ATTEMPTS = 5

Result = TypeVar("Result")


def wait_seconds(failures: int) -> float:
    """Seconds to wait after a number of failures in a row: doubled each time, with chance, so that clients spread."""
    return min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)


def patiently(ask: Callable[[], Result]) -> Result:
    """Ask, and ask again where the archive was out of reach. Raises ArchiveError: the last one, or a lasting one."""
    for failures in range(1, ATTEMPTS):
        try:
            return ask()
        except ArchiveError as error:
            if error.lasting:
                raise
        sleep(wait_seconds(failures))
    return ask()


def matching_series(archive: Archive, wanted: SeriesFilter) -> list[FoundSeries]:
    """The series that match, the slice thickness included. Raises ArchiveError, NoSuchSeriesError."""
    found = patiently(lambda: archive.find_series(wanted))
    if wanted.thickness_mm is not None:
        facts = [patiently(lambda series=series: archive.image_facts(series)) for series in found]
        if found and all(fact.slice_thickness_mm is None for fact in facts):
            raise ArchiveError("The archive does not state slice thicknesses. Leave thickness_mm out of the settings.")
        found = [series for series, fact in zip(found, facts, strict=True) if wanted.matches_image(fact)]
    if not found:
        raise NoSuchSeriesError("The archive has no series that matches. Check the filter, and who may see what.")
    return found


def pull_all(archive: Archive, found: Sequence[FoundSeries], output: Path, progress: Progress) -> tuple[int, int]:
    """Fetch series into a folder each, named by a digest of its UID.

    Returns:
        How many were fetched, and how many were whole before.

    Raises:
        ArchiveError: The archive does not answer, or not as it should.
        OutputError: The folder cannot be written.
    """
    fetched = 0
    try:
        output.mkdir(parents=True, exist_ok=True)
        remove_partial(output)
        progress.begin(["series"])
        with progress.step("series"):
            for done, series in enumerate(found, 1):
                folder = output / digest(series.series_uid)
                if not folder.is_dir():
                    patiently(lambda series=series, folder=folder: pull(archive, series, folder))
                    fetched += 1
                progress.counted(done, len(found))
    except OSError as error:
        raise OutputError(f"Cannot write to {output}: {error.strerror}. Choose another --output.") from error
    return fetched, len(found) - fetched


def push_all(archive: Archive, files: Sequence[DicomFile], progress: Progress) -> int:
    """Store what an archive lacks of some files, and make sure that it has it; returns how many were sent.

    Raises ArchiveError where it refused some; the others are stored.
    """
    lacking = patiently(lambda: missing_in(archive, files))
    refused: dict[str, str] = {}
    progress.begin(["files"])
    with progress.step("files"):
        for start in range(0, len(lacking), AT_ONCE):
            part = lacking[start : start + AT_ONCE]
            refused |= patiently(lambda part=part: archive.store(part))
            progress.counted(start + len(part), len(lacking))
    if refused:
        raise ArchiveError(
            f"The archive refused {len(refused)} of {len(lacking)} objects; the first: {next(iter(refused.values()))}."
        )

    def confirm() -> None:
        if lost := missing_in(archive, lacking):
            raise ArchiveUnreachableError(f"The archive took {len(lost)} objects that it does not list. Try again.")

    if lacking:
        patiently(confirm)
    return len(lacking)
